//! Duplicates in lists that are sets or maps, and the type fields of embedded resources.

use serde_json::{Map, Value};

use super::{
    cause::{Cause, Path},
    node::{Additional, ListType, Node},
};

pub(super) fn validate(node: &Node, value: &Value, at: &Path<'_>, causes: &mut Vec<Cause>) {
    match value {
        Value::Object(fields) => {
            if node.embedded && !at.is_root() {
                embedded(fields, at, causes);
            }
            for (name, value) in fields {
                if let Some(property) = node.properties.get(name) {
                    validate(property, value, &Path::Field(at, name), causes);
                } else if let Additional::Of(inner) = &node.additional {
                    validate(inner, value, &Path::Key(at, name), causes);
                }
            }
        }
        Value::Array(items) => {
            match &node.list {
                ListType::Atomic => {}
                ListType::Set => duplicates(items.iter().map(Value::clone), at, causes),
                ListType::Map(keys) => map_entries(items, keys, at, causes),
            }
            if let Some(inner) = &node.items {
                for (index, item) in items.iter().enumerate() {
                    validate(inner, item, &Path::Index(at, index), causes);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn map_entries(items: &[Value], keys: &[String], at: &Path<'_>, causes: &mut Vec<Cause>) {
    if let Some(index) = items.iter().position(|item| !item.is_object() && !item.is_null()) {
        let place = Path::Index(at, index);
        causes.push(Cause::invalid(place, &items[index], "must be an object for an array of list-type map"));
        return;
    }
    let key_of = |item: &Value| -> Value {
        keys.iter().filter_map(|key| item.get(key).map(|value| (key.clone(), value.clone()))).collect()
    };
    duplicates(items.iter().map(key_of), at, causes);
}

/// Reports the second occurrence of each value that occurs more than once.
fn duplicates(values: impl Iterator<Item = Value>, at: &Path<'_>, causes: &mut Vec<Cause>) {
    let mut seen = std::collections::BTreeMap::new();
    for (index, value) in values.enumerate() {
        let times = seen.entry(value.to_string()).or_insert(0_u32);
        *times = times.saturating_add(1);
        if *times == 2 {
            causes.push(Cause::duplicate(Path::Index(at, index), &value));
        }
    }
}

/// An embedded resource has to say what it is.
fn embedded(fields: &Map<String, Value>, at: &Path<'_>, causes: &mut Vec<Cause>) {
    for name in ["apiVersion", "kind"] {
        let here = Path::Field(at, name);
        match fields.get(name) {
            None => causes.push(Cause::required(here, "")),
            Some(Value::String(text)) if text.is_empty() => {
                causes.push(Cause::invalid(here, &Value::from(""), "must not be empty"));
            }
            Some(Value::String(_)) => {}
            Some(other) => causes.push(Cause::invalid(here, other, "must be a string")),
        }
    }
}
