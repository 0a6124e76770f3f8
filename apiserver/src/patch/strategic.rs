//! Strategic merge: a merge patch that knows which lists have keys, with directives for what it cannot say.
//!
//! Directives: `$patch: replace|delete` in an object or a list item, `$retainKeys`,
//! `$deleteFromPrimitiveList/<field>` and `$setElementOrder/<field>` beside a field.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    Error,
    keys::{MergeKeys, PLAIN, Rule},
};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

pub(super) fn apply(
    current: &Value,
    patch: Map<String, Value>,
    keys: &'static MergeKeys,
) -> Result<Value, Error> {
    let current = match current {
        Value::Object(fields) => fields.clone(),
        _ => Map::new(),
    };
    merge_object(current, patch, keys).map(Value::Object)
}

/// A patch object, its directives told apart from the fields.
struct Parts {
    fields: Map<String, Value>,
    directive: Option<Value>,
    retain: Option<Vec<String>>,
    deletions: BTreeMap<String, Vec<Value>>,
    orders: BTreeMap<String, Vec<Value>>,
}

impl Parts {
    fn of(patch: Map<String, Value>) -> Result<Self, Error> {
        let mut parts = Self {
            fields: Map::new(),
            directive: None,
            retain: None,
            deletions: BTreeMap::new(),
            orders: BTreeMap::new(),
        };
        for (name, value) in patch {
            if name == PATCH {
                parts.directive = Some(value);
            } else if name == RETAIN_KEYS {
                parts.retain = Some(names(value)?);
            } else if let Some(field) = name.strip_prefix(DELETE_FROM) {
                parts.deletions.insert(field.to_owned(), list(&name, value)?);
            } else if let Some(field) = name.strip_prefix(ELEMENT_ORDER) {
                parts.orders.insert(field.to_owned(), list(&name, value)?);
            } else {
                parts.fields.insert(name, value);
            }
        }
        Ok(parts)
    }
}

fn list(name: &str, value: Value) -> Result<Vec<Value>, Error> {
    match value {
        Value::Array(items) => Ok(items),
        _ => Err(Error::BadRequest(format!("invalid patch format of {name}: expected a list"))),
    }
}

fn names(value: Value) -> Result<Vec<String>, Error> {
    let invalid = || Error::BadRequest("invalid patch format of retainKeys".to_owned());
    let Value::Array(items) = value else { return Err(invalid()) };
    items
        .into_iter()
        .map(|item| match item {
            Value::String(name) => Ok(name),
            _ => Err(invalid()),
        })
        .collect()
}

fn merge_object(
    mut current: Map<String, Value>,
    patch: Map<String, Value>,
    keys: &'static MergeKeys,
) -> Result<Map<String, Value>, Error> {
    let mut parts = Parts::of(patch)?;
    match &parts.directive {
        None => {}
        Some(Value::String(word)) if word == "replace" => return Ok(fresh(parts.fields)),
        Some(Value::String(word)) if word == "delete" => return Ok(Map::new()),
        Some(Value::String(word)) if word == "merge" => {}
        Some(other) => return Err(Error::BadRequest(format!("unknown $patch directive {other}"))),
    }
    if let Some(retained) = &parts.retain {
        if let Some((name, _)) =
            parts.fields.iter().find(|(name, value)| !value.is_null() && !retained.contains(name))
        {
            return Err(Error::Unprocessable(format!(
                "patch contains field {name}, which $retainKeys does not"
            )));
        }
        current.retain(|name, _| retained.contains(name));
    }
    for (field, gone) in &parts.deletions {
        if let Some(Value::Array(items)) = current.get_mut(field) {
            items.retain(|item| !gone.contains(item));
        }
    }
    for (name, value) in parts.fields {
        let order = parts.orders.remove(&name);
        if value.is_null() {
            current.remove(&name);
            continue;
        }
        let rule = keys.rule(&name);
        let merged = match (current.remove(&name), value) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                let inner = match rule {
                    Some(Rule::Object(inner)) => inner,
                    _ => &PLAIN,
                };
                Value::Object(merge_object(old, new, inner)?)
            }
            (Some(Value::Array(old)), Value::Array(new)) => match rule {
                Some(rule @ (Rule::Keyed(..) | Rule::Set)) => {
                    Value::Array(merge_list(old, new, order, rule)?)
                }
                _ => fresh_value(Value::Array(new)),
            },
            (_, value) => fresh_value(value),
        };
        current.insert(name, merged);
    }
    // An order for a list that the patch does not otherwise touch.
    for (field, order) in parts.orders {
        if let (Some(Value::Array(items)), Some(rule)) = (current.get_mut(&field), keys.rule(&field)) {
            let old = std::mem::take(items);
            *items = arrange(old.clone(), &order, &old, rule);
        }
    }
    Ok(current)
}

/// Merges a list by key or as a set.
fn merge_list(
    old: Vec<Value>,
    new: Vec<Value>,
    order: Option<Vec<Value>>,
    rule: Rule,
) -> Result<Vec<Value>, Error> {
    let before = old.clone();
    let (merged, named) = match rule {
        Rule::Keyed(key, item_keys) => {
            if let Some(odd) = old.iter().chain(&new).find(|item| !item.is_object()) {
                return Err(Error::BadRequest(format!("expected a list of objects with {key}, found {odd}")));
            }
            if new.iter().any(|item| directive(item) == Some("replace")) {
                let kept = new.into_iter().filter(|item| item.get(PATCH).is_none());
                return Ok(kept.map(fresh_value).collect());
            }
            let mut merged = old;
            let mut named = Vec::new();
            for item in new {
                let Some(name) = item.get(key).cloned() else {
                    // A real server answers this with an internal error; the fault is the caller's.
                    return Err(Error::BadRequest(format!("list item does not contain the merge key {key}")));
                };
                if directive(&item) == Some("delete") {
                    merged.retain(|other| other.get(key) != Some(&name));
                    continue;
                }
                named.push(item.clone());
                let Value::Object(item) = item else { continue };
                match merged.iter_mut().find(|other| other.get(key) == Some(&name)) {
                    Some(Value::Object(found)) => {
                        *found = merge_object(std::mem::take(found), item, item_keys)?;
                    }
                    _ => merged.push(Value::Object(merge_object(Map::new(), item, item_keys)?)),
                }
            }
            (merged, named)
        }
        Rule::Set | Rule::Object(_) => {
            let mut merged: Vec<Value> = Vec::with_capacity(old.len() + new.len());
            for item in old.into_iter().chain(new.iter().cloned()) {
                if !merged.contains(&item) {
                    merged.push(item);
                }
            }
            (merged, new)
        }
    };
    Ok(arrange(merged, &order.unwrap_or(named), &before, rule))
}

fn directive(item: &Value) -> Option<&str> {
    item.get(PATCH).and_then(Value::as_str)
}

fn same(a: &Value, b: &Value, rule: Rule) -> bool {
    match rule {
        Rule::Keyed(key, _) => a.get(key).is_some() && a.get(key) == b.get(key),
        Rule::Set | Rule::Object(_) => a == b,
    }
}

/// Puts the items named in `order` into that order. The others keep their place relative to each other and,
/// where both were there before, relative to the named ones.
fn arrange(items: Vec<Value>, order: &[Value], before: &[Value], rule: Rule) -> Vec<Value> {
    let place = |item: &Value, list: &[Value]| list.iter().position(|other| same(item, other, rule));
    let (mut named, mut others): (Vec<_>, Vec<_>) =
        items.into_iter().partition(|item| place(item, order).is_some());
    named.sort_by_cached_key(|item| place(item, order));
    others.sort_by_cached_key(|item| place(item, before).unwrap_or(usize::MAX));

    let mut arranged = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in named {
        if let Some(here) = place(&item, before) {
            while let Some(other) =
                others.next_if(|other| place(other, before).is_some_and(|there| there < here))
            {
                arranged.push(other);
            }
        }
        arranged.push(item);
    }
    arranged.extend(others);
    arranged
}

/// A value that is new as a whole: its nulls delete nothing and its directives have nothing to direct.
fn fresh_value(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(fresh(fields)),
        Value::Array(items) => Value::Array(
            items.into_iter().filter(|item| directive(item) != Some("delete")).map(fresh_value).collect(),
        ),
        scalar => scalar,
    }
}

fn fresh(fields: Map<String, Value>) -> Map<String, Value> {
    if fields.get(PATCH).and_then(Value::as_str) == Some("delete") {
        return Map::new();
    }
    fields
        .into_iter()
        .filter(|(name, value)| {
            !value.is_null()
                && name != PATCH
                && name != RETAIN_KEYS
                && !name.starts_with(DELETE_FROM)
                && !name.starts_with(ELEMENT_ORDER)
        })
        .map(|(name, value)| (name, fresh_value(value)))
        .collect()
}
