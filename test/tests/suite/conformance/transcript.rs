//! Transcripts without the accidents of the day, so that those of two servers can be compared.
//!
//! Revisions of objects become ranks, which keeps their order and equality. Revisions of lists and bookmarks are
//! left out: on a real server they also move with what others write.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// The notes of a lab in this form.
pub(crate) fn normal(notes: &[Value], namespace: &str) -> Vec<Value> {
    let mut seen = Seen::default();
    notes.iter().for_each(|note| seen.gather(note));
    let mut writer = Writer { namespace, seen };
    notes.iter().map(|note| writer.value("", note)).collect()
}

#[derive(Default)]
struct Seen {
    revisions: BTreeSet<u64>,
    uids: BTreeMap<String, usize>,
}

fn is_list(fields: &Map<String, Value>) -> bool {
    fields.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List") || kind == "Table")
        || fields.contains_key("items")
}

fn is_bookmark(fields: &Map<String, Value>) -> bool {
    fields.get("type").is_some_and(|kind| kind == "BOOKMARK")
}

impl Seen {
    fn gather(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                if is_bookmark(fields) {
                    return;
                }
                if let Some(metadata) = fields.get("metadata") {
                    let revision: Option<u64> =
                        metadata["resourceVersion"].as_str().and_then(|text| text.parse().ok());
                    if !is_list(fields) {
                        self.revisions.extend(revision);
                    }
                    if let Some(uid) = metadata["uid"].as_str() {
                        let number = self.uids.len();
                        self.uids.entry(uid.to_owned()).or_insert(number);
                    }
                }
                fields.values().for_each(|value| self.gather(value));
            }
            Value::Array(items) => items.iter().for_each(|item| self.gather(item)),
            _ => {}
        }
    }
}

struct Writer<'a> {
    namespace: &'a str,
    seen: Seen,
}

impl Writer<'_> {
    fn value(&mut self, name: &str, value: &Value) -> Value {
        match value {
            Value::Object(fields) => self.object(name, fields, false),
            Value::Array(items) => {
                let mut items: Vec<_> = items.iter().map(|item| self.value("", item)).collect();
                if name == "causes" || name == "warnings" {
                    // A real server finds some faults twice, in any order.
                    items.sort_by_key(Value::to_string);
                    items.dedup();
                }
                Value::Array(items)
            }
            Value::String(text) => self.text(name, text),
            other => other.clone(),
        }
    }

    fn object(&mut self, name: &str, fields: &Map<String, Value>, bookmark: bool) -> Value {
        let hide = bookmark || is_list(fields);
        let generated = name == "metadata" && fields.contains_key("generateName");
        let causes = fields.get("details").and_then(|details| details["causes"].as_array());
        let dumped = causes.is_some_and(|causes| causes.iter().any(|cause| cause["field"] == "patch"))
            || fields.get("field").is_some_and(|field| field == "patch");
        let mut out = Map::new();
        for (field, value) in fields {
            let written = match (field.as_str(), value) {
                ("selfLink", _) => continue,
                // Sorted by time, and two writes may be of one second or of two.
                ("managedFields", Value::Array(entries)) => {
                    let mut entries: Vec<_> = entries.iter().map(|entry| self.value("", entry)).collect();
                    entries.sort_by_key(Value::to_string);
                    Value::Array(entries)
                }
                ("metadata", Value::Object(metadata)) if hide => {
                    let mut metadata = metadata.clone();
                    // The last page of custom resources carries an empty token, that of built-in kinds none.
                    metadata.retain(|name, value| name != "continue" || *value != "");
                    for hidden in ["resourceVersion", "continue"] {
                        if let Some(place) = metadata.get_mut(hidden) {
                            *place = format!("<{hidden}>").into();
                        }
                    }
                    self.value("", &Value::Object(metadata))
                }
                ("object", Value::Object(object)) => self.object("object", object, is_bookmark(fields)),
                ("name", _) if generated => "<generated>".into(),
                // Several causes come in any order, and are compared by themselves.
                ("message", _)
                    if causes.is_some_and(|causes| causes.iter().any(|cause| *cause != causes[0])) =>
                {
                    "<several causes>".into()
                }
                ("message", Value::String(text)) if dumped => {
                    let tail = text.rsplit_once("}\": ").map_or(text.as_str(), |(_, tail)| tail);
                    format!("<the patched object>: {}", without_revisions(tail)).into()
                }
                _ => self.value(field, value),
            };
            out.insert(field.clone(), written);
        }
        Value::Object(out)
    }

    fn text(&self, name: &str, text: &str) -> Value {
        if name.ends_with("Timestamp") || name.ends_with("Time") || name == "time" {
            return "<time>".into();
        }
        if name == "resourceVersion"
            && let Ok(revision) = text.parse::<u64>()
        {
            let rank = self.seen.revisions.iter().take_while(|other| **other < revision).count();
            let seen = self.seen.revisions.contains(&revision);
            return if seen { format!("<rv {rank}>").into() } else { text.into() };
        }
        if is_age(text) {
            return "<age>".into();
        }
        let mut text = text.replace(self.namespace, "<ns>").replace(&self.namespace.replace('-', ""), "<ns>");
        if name == "did"
            && let Some((before, token)) = text.split_once("continue=")
        {
            let rest = token.find('&').map_or("", |end| &token[end..]);
            text = format!("{before}continue=<token>{rest}");
        }
        for (uid, number) in &self.seen.uids {
            text = text.replace(uid.as_str(), &format!("<uid {number}>"));
        }
        if name == "message" || name == "did" || name == "saw" {
            text = without_revisions(&text);
        }
        text.into()
    }
}

/// `3s`, `12m`: how tables tell how old something is.
fn is_age(text: &str) -> bool {
    text.strip_suffix(['s', 'm']).is_some_and(|number| number.parse::<u32>().is_ok())
}

/// Numbers of four and more digits, and those after `version: ` or `current: `, are revisions.
fn without_revisions(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(start);
        let length = from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len());
        out.push_str(before);
        let marked =
            ["ersion: ", "current: ", "ersion=", "continue=", "("].iter().any(|mark| before.ends_with(mark));
        out.push_str(if length >= 4 || marked { "<number>" } else { &from[..length] });
        rest = &from[length..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::normal;

    #[test]
    fn order_and_equality_of_revisions_and_uids_survive() {
        let object = |revision: &str, uid: &str| json!({"kind": "X", "metadata": {"resourceVersion": revision, "uid": uid}});
        let notes = [object("107", "u-1"), object("9", "u-2"), object("107", "u-1")];
        let other = [object("3", "a"), object("2", "b"), object("3", "a")];
        assert_eq!(normal(&notes, "n"), normal(&other, "m"));
        let changed = [object("3", "a"), object("4", "b"), object("3", "a")];
        assert_ne!(normal(&notes, "n"), normal(&changed, "m"));
    }

    #[test]
    fn accidents_vanish_and_facts_stay() {
        let notes = [json!({
            "did": "GET cm", "code": 200,
            "body": {
                "kind": "ConfigMapList", "metadata": {"resourceVersion": "5"},
                "items": [{"metadata": {"name": "a", "namespace": "lab-1", "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": []}, "data": {"a": "1"}}],
            },
        })];
        assert_eq!(
            normal(&notes, "lab-1"),
            [json!({
                "did": "GET cm", "code": 200,
                "body": {
                    "kind": "ConfigMapList", "metadata": {"resourceVersion": "<resourceVersion>"},
                    "items": [{"metadata": {"name": "a", "namespace": "<ns>", "creationTimestamp": "<time>", "managedFields": []}, "data": {"a": "1"}}],
                },
            })]
        );
    }
}
