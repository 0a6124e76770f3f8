//! One thing that is wrong with an object, in the words of `Status.details.causes`.

use std::fmt;

use serde_json::Value;

/// An entry of `Status.details.causes`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cause {
    /// The path of the field, for example `spec.replicas`.
    pub(crate) field: String,
    /// A machine readable reason, for example `FieldValueInvalid`.
    pub(crate) reason: &'static str,
    /// What is wrong with the field, for people.
    pub(crate) message: String,
}

impl Cause {
    pub(super) fn required(field: impl fmt::Display, detail: &str) -> Self {
        Self::new(field, "FieldValueRequired", with_detail("Required value", detail))
    }

    pub(super) fn forbidden(field: impl fmt::Display, detail: &str) -> Self {
        Self::new(field, "FieldValueForbidden", with_detail("Forbidden", detail))
    }

    pub(super) fn invalid(field: impl fmt::Display, value: &Value, detail: &str) -> Self {
        Self::new(field, "FieldValueInvalid", with_detail(&format!("Invalid value: {value}"), detail))
    }

    pub(super) fn type_invalid(field: impl fmt::Display, value: &Value, detail: &str) -> Self {
        Self::new(field, "FieldValueTypeInvalid", with_detail(&format!("Invalid value: {value}"), detail))
    }

    pub(super) fn duplicate(field: impl fmt::Display, value: &Value) -> Self {
        Self::new(field, "FieldValueDuplicate", format!("Duplicate value: {value}"))
    }

    pub(super) fn not_supported(field: impl fmt::Display, value: &Value, supported: &[String]) -> Self {
        let supported: Vec<_> = supported.iter().map(|name| format!("{name:?}")).collect();
        let detail = match supported.is_empty() {
            true => String::new(),
            false => format!("supported values: {}", supported.join(", ")),
        };
        Self::new(
            field,
            "FieldValueNotSupported",
            with_detail(&format!("Unsupported value: {value}"), &detail),
        )
    }

    pub(super) fn too_long(field: impl fmt::Display, most: u64) -> Self {
        let unit = if most == 1 { "byte" } else { "bytes" };
        Self::new(field, "FieldValueTooLong", format!("Too long: may not be more than {most} {unit}"))
    }

    pub(super) fn too_many(field: impl fmt::Display, actual: usize, most: u64) -> Self {
        let unit = if most == 1 { "item" } else { "items" };
        Self::new(field, "FieldValueTooMany", format!("Too many: {actual}: must have at most {most} {unit}"))
    }

    fn new(field: impl fmt::Display, reason: &'static str, message: String) -> Self {
        Self { field: field.to_string(), reason, message }
    }
}

fn with_detail(start: &str, detail: &str) -> String {
    if detail.is_empty() { start.to_owned() } else { format!("{start}: {detail}") }
}

/// A place in an object or a schema, built on the stack and written out only when something is wrong there.
#[derive(Debug, Clone, Copy)]
pub(super) enum Path<'a> {
    Root,
    Field(&'a Self, &'a str),
    Key(&'a Self, &'a str),
    Index(&'a Self, usize),
}

impl Path<'_> {
    pub(super) fn is_root(&self) -> bool {
        matches!(self, Self::Root)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(parent, name) if parent.is_root() => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Key(parent, name) => write!(f, "{parent}[{name}]"),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}
