//! The schema as a tree, read from its JSON form.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Error, cause::Path, format::Format, pattern::Pattern};

/// One schema: the structure, the extensions and the rules for values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Node {
    pub(crate) kind: Option<Kind>,
    pub(crate) nullable: bool,
    pub(crate) int_or_string: bool,
    pub(crate) preserve: bool,
    pub(crate) embedded: bool,
    pub(super) default: Option<Value>,
    pub(crate) properties: BTreeMap<String, Self>,
    pub(super) additional: Additional,
    pub(crate) items: Option<Box<Self>>,
    pub(crate) list: ListType,
    /// `x-kubernetes-map-type: atomic`: who owns a field of it owns all.
    pub(crate) atomic: bool,
    pub(super) format: Option<Format>,
    pub(super) rules: Rules,
}

/// A JSON type as OpenAPI names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Kind {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// `additionalProperties`.
#[derive(Debug, Clone, Default)]
pub(super) enum Additional {
    /// Not said: unknown fields are pruned.
    #[default]
    Unsaid,
    /// `true`: unknown fields stay, with nothing known about them.
    Any,
    /// `false`: unknown fields are an error, where they were not pruned.
    None,
    /// A map with values of one schema.
    Of(Box<Node>),
}

/// `x-kubernetes-list-type`.
#[derive(Debug, Clone, Default)]
pub(crate) enum ListType {
    #[default]
    Atomic,
    Set,
    Map(Vec<String>),
}

/// What a value must satisfy beyond its type.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    pub(super) required: Vec<String>,
    pub(super) one_of_values: Vec<Value>,
    pub(super) minimum: Option<Bound>,
    pub(super) maximum: Option<Bound>,
    pub(super) multiple_of: Option<f64>,
    pub(super) min_length: Option<u64>,
    pub(super) max_length: Option<u64>,
    pub(super) pattern: Option<Pattern>,
    pub(super) min_items: Option<u64>,
    pub(super) max_items: Option<u64>,
    pub(super) unique_items: bool,
    pub(super) min_properties: Option<u64>,
    pub(super) max_properties: Option<u64>,
    pub(super) all_of: Vec<Node>,
    pub(super) any_of: Vec<Node>,
    pub(super) one_of: Vec<Node>,
    pub(super) not: Option<Box<Node>>,
}

/// `minimum` or `maximum` with its exclusiveness.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    pub(super) value: f64,
    pub(super) exclusive: bool,
}

impl Node {
    pub(super) fn parse(schema: &Value, at: &Path<'_>, unsupported: &mut Vec<String>) -> Result<Self, Error> {
        let Value::Object(schema) = schema else {
            return Err(Error::Keyword { at: place(at), expected: "an object" });
        };
        let read = Reader { schema, at };
        if !read.is_absent("x-kubernetes-validations") {
            unsupported.push(format!("{}: x-kubernetes-validations (CEL)", place(at)));
        }

        let kind = match read.string("type")? {
            Some(name) if !name.is_empty() => Some(
                Kind::named(name)
                    .ok_or_else(|| Error::Type { at: read.place("type"), name: name.to_owned() })?,
            ),
            _ => None,
        };
        let format = match read.string("format")? {
            Some(name) => {
                Format::of(kind, name, || unsupported.push(format!("{}: format {name}", place(at))))
            }
            None => None,
        };
        let mut properties = BTreeMap::new();
        for (name, property) in read.object("properties")?.into_iter().flatten() {
            let property = Self::parse(property, &Path::Field(at, name), unsupported)?;
            properties.insert(name.clone(), property);
        }
        let additional = match schema.get("additionalProperties") {
            None | Some(Value::Null) => Additional::Unsaid,
            Some(Value::Bool(true)) => Additional::Any,
            Some(Value::Bool(false)) => Additional::None,
            Some(inner) => Additional::Of(Box::new(Self::parse(inner, &Path::Field(at, "*"), unsupported)?)),
        };
        let items = match schema.get("items") {
            None | Some(Value::Null) => None,
            Some(inner) => Some(Box::new(Self::parse(inner, &Path::Field(at, "[]"), unsupported)?)),
        };
        let list = match read.string("x-kubernetes-list-type")? {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map(read.strings("x-kubernetes-list-map-keys")?),
            _ => ListType::Atomic,
        };
        Ok(Self {
            kind,
            nullable: read.flag("nullable")?,
            int_or_string: read.flag("x-kubernetes-int-or-string")?,
            preserve: read.flag("x-kubernetes-preserve-unknown-fields")?,
            embedded: read.flag("x-kubernetes-embedded-resource")?,
            default: schema.get("default").filter(|value| !value.is_null()).cloned(),
            properties,
            additional,
            items,
            list,
            atomic: read.string("x-kubernetes-map-type")? == Some("atomic"),
            format,
            rules: read.rules(unsupported)?,
        })
    }

    /// It is text of no known format.
    pub(crate) fn is_plain_text(&self) -> bool {
        self.kind == Some(Kind::String) && self.format.is_none()
    }

    /// The schema of fields that are not named.
    pub(crate) fn rest(&self) -> Option<&Self> {
        match &self.additional {
            Additional::Of(inner) => Some(inner),
            Additional::Unsaid | Additional::Any | Additional::None => None,
        }
    }

    /// It names no field, and so takes all.
    pub(crate) fn is_free(&self) -> bool {
        match self.additional {
            Additional::Any => true,
            Additional::Unsaid => self.properties.is_empty(),
            Additional::None | Additional::Of(_) => false,
        }
    }

    /// The value that a key field of the list's items has if it is not there.
    pub(crate) fn key_default(&self, key: &str) -> Option<&Value> {
        self.items.as_ref()?.properties.get(key)?.default.as_ref()
    }

    /// The schema of a field, known by name or as a value of a map.
    pub(super) fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(match &self.additional {
            Additional::Of(inner) => Some(inner),
            Additional::Unsaid | Additional::Any | Additional::None => None,
        })
    }
}

fn place(at: &Path<'_>) -> String {
    if at.is_root() { "openAPIV3Schema".to_owned() } else { at.to_string() }
}

struct Reader<'a> {
    schema: &'a Map<String, Value>,
    at: &'a Path<'a>,
}

impl<'a> Reader<'a> {
    fn place(&self, keyword: &str) -> String {
        format!("{}: {keyword}", place(self.at))
    }

    fn wrong(&self, keyword: &str, expected: &'static str) -> Error {
        Error::Keyword { at: self.place(keyword), expected }
    }

    fn get(&self, keyword: &str) -> Option<&'a Value> {
        self.schema.get(keyword).filter(|value| !value.is_null())
    }

    fn is_absent(&self, keyword: &str) -> bool {
        match self.get(keyword) {
            None => true,
            Some(Value::Array(items)) => items.is_empty(),
            Some(_) => false,
        }
    }

    fn string(&self, keyword: &str) -> Result<Option<&'a str>, Error> {
        match self.get(keyword) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(keyword, "a string")),
        }
    }

    fn flag(&self, keyword: &str) -> Result<bool, Error> {
        match self.get(keyword) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.wrong(keyword, "a boolean")),
        }
    }

    fn number(&self, keyword: &str) -> Result<Option<f64>, Error> {
        match self.get(keyword) {
            None => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or_else(|| self.wrong(keyword, "a number")),
        }
    }

    fn count(&self, keyword: &str) -> Result<Option<u64>, Error> {
        match self.get(keyword) {
            None => Ok(None),
            Some(value) => value.as_u64().map(Some).ok_or_else(|| self.wrong(keyword, "a count")),
        }
    }

    fn list(&self, keyword: &str) -> Result<&'a [Value], Error> {
        match self.get(keyword) {
            None => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(_) => Err(self.wrong(keyword, "a list")),
        }
    }

    fn strings(&self, keyword: &str) -> Result<Vec<String>, Error> {
        let texts = self.list(keyword)?.iter().map(|item| item.as_str().map(str::to_owned));
        texts.collect::<Option<_>>().ok_or_else(|| self.wrong(keyword, "a list of strings"))
    }

    fn object(&self, keyword: &str) -> Result<Option<&'a Map<String, Value>>, Error> {
        match self.get(keyword) {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(fields)),
            Some(_) => Err(self.wrong(keyword, "an object")),
        }
    }

    fn nodes(&self, keyword: &str, unsupported: &mut Vec<String>) -> Result<Vec<Node>, Error> {
        self.list(keyword)?.iter().map(|schema| Node::parse(schema, self.at, unsupported)).collect()
    }

    fn bound(&self, keyword: &str, exclusive: &str) -> Result<Option<Bound>, Error> {
        let exclusive = self.flag(exclusive)?;
        Ok(self.number(keyword)?.map(|value| Bound { value, exclusive }))
    }

    fn rules(&self, unsupported: &mut Vec<String>) -> Result<Rules, Error> {
        let pattern = match self.string("pattern")? {
            Some(text) if !text.is_empty() => Some(
                Pattern::new(text).map_err(|reason| Error::Pattern { at: self.place("pattern"), reason })?,
            ),
            _ => None,
        };
        let not = match self.get("not") {
            None => None,
            Some(schema) => Some(Box::new(Node::parse(schema, self.at, unsupported)?)),
        };
        Ok(Rules {
            required: self.strings("required")?,
            one_of_values: self.list("enum")?.to_vec(),
            minimum: self.bound("minimum", "exclusiveMinimum")?,
            maximum: self.bound("maximum", "exclusiveMaximum")?,
            multiple_of: self.number("multipleOf")?,
            min_length: self.count("minLength")?,
            max_length: self.count("maxLength")?,
            pattern,
            min_items: self.count("minItems")?,
            max_items: self.count("maxItems")?,
            unique_items: self.flag("uniqueItems")?,
            min_properties: self.count("minProperties")?,
            max_properties: self.count("maxProperties")?,
            all_of: self.nodes("allOf", unsupported)?,
            any_of: self.nodes("anyOf", unsupported)?,
            one_of: self.nodes("oneOf", unsupported)?,
            not,
        })
    }
}
