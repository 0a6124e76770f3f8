//! Label and field selectors: from the text in a query to a predicate.

use crate::object_meta::names;
use crate::resource::{Behaviour, Resource};
use crate::status::Failure;
use crate::store::Stored;
use kube::core::{Expression, Selector, SelectorExt};
use serde_json::Value;

/// What a list or a watch is limited to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    labels: Selector,
    fields: Vec<FieldTerm>,
}

#[derive(Debug, Clone)]
struct FieldTerm {
    place: Place,
    equal: bool,
    value: String,
}

#[derive(Debug, Clone)]
enum Place {
    Name,
    Namespace,
    Path(crate::jsonpath::JsonPath),
}

impl Filter {
    /// Reads both selectors of a request.
    pub(crate) fn parse(resource: &Resource, labels: &str, fields: &str) -> Result<Self, Failure> {
        let labels = parse_labels(labels)
            .map_err(|why| Failure::bad_request(format!("unable to parse requirement: {why}")))?;
        Ok(Self { labels, fields: parse_fields(resource, fields)? })
    }

    /// It lets everything through.
    pub(crate) fn is_empty(&self) -> bool {
        self.labels.selects_all() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, stored: &Stored) -> bool {
        if !self.labels.selects_all() && !self.labels.matches(stored.content.labels()) {
            return false;
        }
        let mut parsed: Option<Value> = None;
        self.fields.iter().all(|term| {
            let same = match &term.place {
                Place::Name => stored.key.name() == term.value,
                Place::Namespace => stored.key.namespace() == term.value,
                Place::Path(path) => {
                    let value = parsed.get_or_insert_with(|| stored.to_value());
                    text_at(path, value) == term.value
                }
            };
            same == term.equal
        })
    }
}

fn text_at(path: &crate::jsonpath::JsonPath, value: &Value) -> String {
    match path.find(value).first() {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

fn parse_fields(resource: &Resource, text: &str) -> Result<Vec<FieldTerm>, Failure> {
    let mut terms = Vec::new();
    for part in split_unescaped(text) {
        let (name, equal, value) = if let Some((n, v)) = part.split_once("!=") {
            (n, false, v)
        } else if let Some((n, v)) = part.split_once("==") {
            (n, true, v)
        } else if let Some((n, v)) = part.split_once('=') {
            (n, true, v)
        } else {
            return Err(Failure::bad_request(format!(
                "invalid selector: '{text}'; can't understand '{part}'"
            )));
        };
        let place = match name {
            "metadata.name" => Place::Name,
            "metadata.namespace" if resource.namespaced => Place::Namespace,
            _ => Place::Path(
                selectable(resource, name)
                    .ok_or_else(|| Failure::bad_request(not_selectable(resource, name)))?,
            ),
        };
        let value = value.replace("\\,", ",").replace("\\=", "=").replace("\\\\", "\\");
        terms.push(FieldTerm { place, equal, value });
    }
    Ok(terms)
}

fn not_selectable(resource: &Resource, name: &str) -> String {
    match &resource.behaviour {
        Behaviour::Builtin(rules) if rules.fields.is_empty() => {
            format!("{name:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
        }
        _ => format!("field label not supported: {name}"),
    }
}

fn selectable(resource: &Resource, name: &str) -> Option<crate::jsonpath::JsonPath> {
    match &resource.behaviour {
        Behaviour::Builtin(rules) => {
            let (_, path) = rules.fields.iter().find(|(field, _)| *field == name)?;
            crate::jsonpath::JsonPath::parse(path).ok()
        }
        Behaviour::Custom(version) => {
            version.selectable.iter().find(|path| path.trim_start_matches('.') == name)?;
            crate::jsonpath::JsonPath::parse(&format!(".{name}")).ok()
        }
    }
}

/// Splits at commas that no backslash protects, leaving out empty parts.
fn split_unescaped(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            ',' if !escaped => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        escaped = false;
    }
    parts.push(&text[start..]);
    parts.retain(|part| !part.is_empty());
    parts
}

/// Reads a label selector in its text form.
pub(crate) fn parse_labels(text: &str) -> Result<Selector, String> {
    let mut all = Vec::new();
    for part in split_requirements(text)? {
        all.push(requirement(part.trim())?);
    }
    let mut selector = Selector::default();
    selector.extend(all);
    Ok(selector)
}

/// Splits at commas outside of parentheses.
fn split_requirements(text: &str) -> Result<Vec<&str>, String> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0u32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1).ok_or_else(|| format!("found ')' in '{text}' before '('"))?,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if depth > 0 {
        return Err(format!("'{text}' has no closing ')'"));
    }
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    parts.push(&text[start..]);
    Ok(parts)
}

fn requirement(text: &str) -> Result<Expression, String> {
    if let Some(key) = text.strip_prefix('!') {
        return Ok(Expression::DoesNotExist(label_key(key)?));
    }
    if let Some((head, set)) = text.split_once('(') {
        let set = set.strip_suffix(')').ok_or_else(|| format!("found '{text}', expected ')' at the end"))?;
        let values = set.split(',').map(label_value).collect::<Result<_, _>>()?;
        let mut words = head.split_whitespace();
        let key = label_key(words.next().unwrap_or_default())?;
        return match (words.next(), words.next()) {
            (Some("in"), None) => Ok(Expression::In(key, values)),
            (Some("notin"), None) => Ok(Expression::NotIn(key, values)),
            _ => Err(format!("found '{}', expected: in, notin", head.trim())),
        };
    }
    if let Some((key, value)) = text.split_once("!=") {
        return Ok(Expression::NotEqual(label_key(key)?, label_value(value)?));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Ok(Expression::Equal(label_key(key)?, label_value(value)?));
    }
    Ok(Expression::Exists(label_key(text)?))
}

fn label_key(text: &str) -> Result<String, String> {
    let key = text.trim();
    match names::qualified_name(key) {
        None => Ok(key.to_owned()),
        Some(why) => Err(format!("key {key:?}: {why}")),
    }
}

fn label_value(text: &str) -> Result<String, String> {
    let value = text.trim();
    match names::label_value(value) {
        None => Ok(value.to_owned()),
        Some(why) => Err(format!("value {value:?}: {why}")),
    }
}

#[cfg(test)]
fn labels_of(pairs: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_selectors_match_as_documented() {
        let labels = labels_of(&[("app", "web"), ("tier", "front"), ("example.com/x", "")]);
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app!=web", false),
            ("missing!=web", true),
            ("app in (web, db)", true),
            ("app in (db)", false),
            ("app notin (db),tier in (front,back)", true),
            ("missing notin (db)", true),
            ("app", true),
            ("!app", false),
            ("!missing", true),
            ("example.com/x=", true),
            ("example.com/x", true),
        ] {
            assert_eq!(parse_labels(text).unwrap().matches(&labels), expected, "{text}");
        }
    }

    #[test]
    fn unreadable_label_selectors_are_refused() {
        for text in
            ["a b", "app in web", "app in (web", "app)", "=x", "a/b/c=d", "app=a b", "a,,b", "app x (y)"]
        {
            assert!(parse_labels(text).is_err(), "{text}");
        }
    }
}
