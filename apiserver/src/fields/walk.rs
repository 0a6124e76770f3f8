//! Walks over objects by their shape: which fields they have, how two differ, what both together are.

use super::set::{Element, Set, shown};
use super::shape::{Made, Shape};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// How one object differs from another.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Difference {
    pub(super) removed: Set,
    pub(super) modified: Set,
    pub(super) added: Set,
}

impl Difference {
    pub(super) fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }
}

const FREE: Shape<'static> = Shape::Free;

/// Tells the fields of an object that are changed from `old` to `new`.
pub(super) fn difference(shape: Shape<'_>, old: &Value, new: &Value) -> Difference {
    let mut found = Difference::default();
    differ(shape, Some(old), Some(new), &mut Vec::new(), &mut found);
    found
}

fn differ(
    shape: Shape<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    at: &mut Vec<Element>,
    found: &mut Difference,
) {
    let (old, new) = match (old, new) {
        (None, None) => return,
        (Some(old), None) => return one_sided(shape, old, at, &mut found.removed),
        (None, Some(new)) => return one_sided(shape, new, at, &mut found.added),
        (Some(old), Some(new)) => (old, new),
    };
    match (shape.made(old), shape.made(new)) {
        (Made::Fields, Made::Fields) => {
            let (old_fields, new_fields) = (fields(shape, old), fields(shape, new));
            if old_fields.is_empty() && new_fields.is_empty() {
                leaf(old, new, at, found);
                return;
            }
            let names: BTreeSet<&str> = old_fields.keys().chain(new_fields.keys()).copied().collect();
            for name in names {
                at.push(Element::field(name));
                let inner = shape.field(name).map_or(FREE, |(inner, _)| inner);
                let (old, new) = (old_fields.get(name), new_fields.get(name));
                differ(inner, old.map(Held::value), new.map(Held::value), at, found);
                at.pop();
            }
        }
        (Made::Items, Made::Items) => {
            let (old_items, new_items) = (items(old), items(new));
            if old_items.is_empty() && new_items.is_empty() {
                leaf(old, new, at, found);
            } else {
                differ_items(shape, &by_element(shape, old_items), &by_element(shape, new_items), at, found);
            }
        }
        (Made::Leaf, Made::Leaf) => leaf(old, new, at, found),
        // One kind of value became another: it is changed itself, and what it was made of comes and goes.
        (before, after) => {
            found.modified.insert(at);
            if !matches!(before, Made::Leaf) {
                below(shape, old, at, &mut found.removed);
            }
            if !matches!(after, Made::Leaf) {
                below(shape, new, at, &mut found.added);
            }
        }
    }
}

fn leaf(old: &Value, new: &Value, at: &[Element], found: &mut Difference) {
    if !same(old, new) {
        found.modified.insert(at);
    }
}

fn differ_items(
    shape: Shape<'_>,
    old: &BTreeMap<Element, Vec<&Value>>,
    new: &BTreeMap<Element, Vec<&Value>>,
    at: &mut Vec<Element>,
    found: &mut Difference,
) {
    let none = Vec::new();
    let elements: BTreeSet<&Element> = old.keys().chain(new.keys()).collect();
    for element in elements {
        let (before, after) = (old.get(element).unwrap_or(&none), new.get(element).unwrap_or(&none));
        at.push(element.clone());
        // Items that are there several times are one thing.
        match (before.as_slice(), after.as_slice()) {
            ([_, _, ..], [_, _, ..]) => {
                if before != after {
                    found.modified.insert(at);
                }
            }
            ([_, _, ..], after) => {
                differ(shape.item(), None, after.first().copied(), at, found);
                found.removed.insert(at);
            }
            (before, [_, _, ..]) => {
                differ(shape.item(), before.first().copied(), None, at, found);
                found.added.insert(at);
            }
            (before, after) => {
                differ(shape.item(), before.first().copied(), after.first().copied(), at, found);
            }
        }
        at.pop();
    }
}

/// A value that only one of two objects has: all of its paths.
fn one_sided(shape: Shape<'_>, value: &Value, at: &mut Vec<Element>, set: &mut Set) {
    set.insert(at);
    below(shape, value, at, set);
}

fn below(shape: Shape<'_>, value: &Value, at: &mut Vec<Element>, set: &mut Set) {
    match shape.made(value) {
        Made::Leaf => {}
        Made::Fields => {
            for (name, value) in &fields(shape, value) {
                at.push(Element::field(name));
                let inner = shape.field(name).map_or(FREE, |(inner, _)| inner);
                one_sided(inner, value.value(), at, set);
                at.pop();
            }
        }
        Made::Items => {
            for (element, values) in by_element(shape, items(value)) {
                at.push(element);
                match values.as_slice() {
                    [value] => one_sided(shape.item(), value, at, set),
                    _ => set.insert(at),
                }
                at.pop();
            }
        }
    }
}

/// A field that is there, or one that is always there.
enum Held<'a> {
    Given(&'a Value),
    Always(Value),
}

impl Held<'_> {
    fn value(&self) -> &Value {
        match self {
            Self::Given(value) => value,
            Self::Always(value) => value,
        }
    }
}

fn fields<'a>(shape: Shape<'_>, value: &'a Value) -> BTreeMap<&'a str, Held<'a>> {
    let mut all = BTreeMap::new();
    if let Some(fields) = value.as_object() {
        all.extend(shape.always().map(|(name, value)| (name, Held::Always(value))));
        all.extend(fields.iter().map(|(name, value)| (name.as_str(), Held::Given(value))));
    }
    all
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn by_element<'a>(shape: Shape<'_>, items: &'a [Value]) -> BTreeMap<Element, Vec<&'a Value>> {
    let mut all: BTreeMap<Element, Vec<&Value>> = BTreeMap::new();
    for item in items {
        if let Ok(element) = shape.element(item) {
            all.entry(element).or_default().push(item);
        }
    }
    all
}

/// Equal as JSON, however numbers are written.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

/// The fields that an object speaks of.
pub(super) fn fields_of(shape: Shape<'_>, value: &Value) -> Set {
    let mut set = Set::default();
    mention(shape, value, &mut Vec::new(), &mut set);
    set
}

fn mention(shape: Shape<'_>, value: &Value, at: &mut Vec<Element>, set: &mut Set) {
    match shape.made(value) {
        Made::Leaf => set.insert(at),
        Made::Fields => {
            for (name, value) in value.as_object().into_iter().flatten() {
                let (inner, named) = shape.field(name).unwrap_or((FREE, false));
                at.push(Element::field(name));
                mention(inner, value, at, set);
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                if empty || !named {
                    set.insert(at);
                }
                at.pop();
            }
        }
        Made::Items => {
            for (element, values) in by_element(shape, items(value)) {
                at.push(element);
                if let [value] = values.as_slice() {
                    mention(shape.item(), value, at, set);
                }
                set.insert(at);
                at.pop();
            }
        }
    }
}

/// What does not fit the shape of an object that is applied, as a real server tells it.
pub(super) fn misfits(shape: Shape<'_>, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(shape, value, &mut Vec::new(), &mut found);
    found
}

fn check(shape: Shape<'_>, value: &Value, at: &mut Vec<Element>, found: &mut Vec<String>) {
    let mut tell = |at: &[Element], what: String| match shown(at).as_str() {
        "" => found.push(what),
        place => found.push(format!("{place}: {what}")),
    };
    if let Some(expected) = shape.misfit(value) {
        tell(at, format!("{expected}, got {value}"));
        return;
    }
    match shape.made(value) {
        Made::Leaf => {}
        Made::Fields => {
            for (name, value) in value.as_object().into_iter().flatten() {
                at.push(Element::field(name));
                match shape.field(name) {
                    Some((inner, _)) => check(inner, value, at, found),
                    None => found.push(format!("{}: field not declared in schema", shown(at))),
                }
                at.pop();
            }
        }
        Made::Items => {
            let mut seen = BTreeSet::new();
            for (index, item) in items(value).iter().enumerate() {
                let element = match shape.element(item) {
                    Ok(element) => element,
                    Err(why) => {
                        let place = shown(at);
                        found.push(format!("{place}: element {index}: {why}"));
                        return;
                    }
                };
                if !seen.insert(element.clone()) {
                    found.push(format!("{}: duplicate entries for key {element}", shown(at)));
                }
                at.push(element);
                check(shape.item(), item, at, found);
                at.pop();
            }
        }
    }
}

/// Both together: what the applied object says, on top of what is there. Nothing goes.
pub(super) fn merged(shape: Shape<'_>, live: &Value, applied: &Value) -> Value {
    match (shape.made(live), shape.made(applied)) {
        (Made::Fields, Made::Fields) => {
            let empty = Map::new();
            let (old, new) = (live.as_object().unwrap_or(&empty), applied.as_object().unwrap_or(&empty));
            if old.is_empty() && new.is_empty() {
                return applied.clone();
            }
            let mut out = old.clone();
            for (name, value) in new {
                let both = match old.get(name) {
                    Some(live) => {
                        let inner = shape.field(name).map_or(FREE, |(inner, _)| inner);
                        merged(inner, live, value)
                    }
                    None => value.clone(),
                };
                out.insert(name.clone(), both);
            }
            Value::Object(out)
        }
        (Made::Items, Made::Items) => {
            let (old, new) = (items(live), items(applied));
            if old.is_empty() && new.is_empty() {
                return applied.clone();
            }
            Value::Array(merged_items(shape, old, new))
        }
        _ => applied.clone(),
    }
}

/// Joins two lists. Items that both have come in the order of the new list, others stay where they are
/// relative to these.
fn merged_items(shape: Shape<'_>, old: &[Value], new: &[Value]) -> Vec<Value> {
    let keyed = |items: &[Value]| -> Vec<Element> {
        // What is applied has been checked; what is stored and has no key is never spoken of.
        items.iter().map(|item| shape.element(item).unwrap_or(Element::Index(-1))).collect()
    };
    let (old_keys, new_keys) = (keyed(old), keyed(new));
    let known: BTreeMap<&Element, Vec<usize>> =
        old_keys.iter().enumerate().fold(BTreeMap::new(), |mut known, (index, key)| {
            known.entry(key).or_insert_with(Vec::new).push(index);
            known
        });
    let wanted: BTreeSet<&Element> = new_keys.iter().collect();
    let join = |index: usize| match known.get(&new_keys[index]).map(Vec::as_slice) {
        Some([only]) => merged(shape.item(), &old[*only], &new[index]),
        _ => new[index].clone(),
    };
    let mut shared = new_keys.iter().filter(|key| known.contains_key(key));
    let mut next = shared.next();
    let mut done: BTreeSet<&Element> = BTreeSet::new();
    let mut out = Vec::with_capacity(old.len().max(new.len()));
    let (mut l, mut r) = (0, 0);
    while l < old.len() || r < new.len() {
        if l < old.len() && r < new.len() {
            if old_keys[l] == new_keys[r] {
                done.insert(&new_keys[r]);
                out.push(join(r));
                l += 1;
                r += 1;
                next = shared.next();
                continue;
            }
            if wanted.contains(&old_keys[l]) && next.is_some_and(|next| *next != old_keys[l]) {
                // Shared, but another one's turn.
                l += 1;
                continue;
            }
        }
        if l < old.len() {
            if !wanted.contains(&old_keys[l]) {
                out.push(old[l].clone());
                l += 1;
                continue;
            }
            if done.contains(&old_keys[l]) {
                l += 1;
            }
        }
        if r < new.len() {
            done.insert(&new_keys[r]);
            out.push(join(r));
            if next == Some(&new_keys[r]) {
                next = shared.next();
            }
            r += 1;
        }
    }
    out
}

/// The object without these fields and items. `None`: nothing is left of it, and it becomes null.
pub(super) fn removed(shape: Shape<'_>, value: &Value, gone: &Set) -> Value {
    match shape.made(value) {
        Made::Leaf => match value {
            // A whole cannot lose a part, but it can be lost.
            Value::Object(_) | Value::Array(_) => Value::Null,
            scalar => scalar.clone(),
        },
        Made::Fields => {
            let mut out = Map::new();
            for (name, value) in value.as_object().into_iter().flatten() {
                let element = Element::field(name);
                if gone.has(&element) {
                    continue;
                }
                let kept = match gone.below(&element) {
                    Some(inner_gone) => {
                        let inner = shape.field(name).map_or(FREE, |(inner, _)| inner);
                        removed(inner, value, inner_gone)
                    }
                    None => value.clone(),
                };
                out.insert(name.clone(), kept);
            }
            if out.is_empty() { Value::Null } else { Value::Object(out) }
        }
        Made::Items => {
            let mut out = Vec::new();
            for item in items(value) {
                let Ok(element) = shape.element(item) else {
                    out.push(item.clone());
                    continue;
                };
                if gone.has(&element) {
                    continue;
                }
                out.push(match gone.below(&element) {
                    Some(inner_gone) => removed(shape.item(), item, inner_gone),
                    None => item.clone(),
                });
            }
            if out.is_empty() { Value::Null } else { Value::Array(out) }
        }
    }
}

/// The set with the fields that its paths go through, as far as the type names them.
pub(super) fn with_named_parents(shape: Shape<'_>, set: &Set) -> Set {
    let mut out = set.clone();
    for (element, below) in set.parents() {
        let inner = match element {
            Element::Field(name) => {
                let (inner, named) = shape.field(name).unwrap_or((FREE, false));
                if named {
                    out.insert(std::slice::from_ref(element));
                }
                inner
            }
            _ => shape.item(),
        };
        out.put_below(element, with_named_parents(inner, below));
    }
    out
}
