//! What a side has been told of the ends of objects, read from the answers of its API server.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Objects by UID, as one side was told of them.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Those that are there, by what was asked.
    there: BTreeMap<String, BTreeSet<String>>,
    gone: BTreeSet<String>,
}

impl Heard {
    /// The answer to a list of `what`.
    pub(super) fn list(&mut self, what: &str, answer: &[u8]) {
        let Ok(answer) = serde_json::from_slice::<Value>(answer) else { return };
        let Some(items) = answer.get("items").and_then(Value::as_array) else { return };
        let listed: BTreeSet<String> = items.iter().filter_map(uid).collect();
        let before = self.there.insert(what.to_owned(), listed.clone()).unwrap_or_default();
        self.gone.extend(before.difference(&listed).cloned());
    }

    /// A part of the answer to a watch of `what`: whole events, a line each.
    pub(super) fn watch(&mut self, what: &str, part: &[u8]) {
        for line in part.split(|byte| *byte == b'\n') {
            let Ok(event) = serde_json::from_slice::<Value>(line) else { continue };
            let (Some(verb), Some(uid)) =
                (event.get("type").and_then(Value::as_str), event.get("object").and_then(uid))
            else {
                continue;
            };
            if verb == "DELETED" {
                self.gone.insert(uid);
            } else {
                self.there.entry(what.to_owned()).or_default().insert(uid);
            }
        }
    }

    /// Whether it was told that this object is no more.
    pub(super) fn is_gone(&self, uid: &str) -> bool {
        self.gone.contains(uid)
    }
}

fn uid(object: &Value) -> Option<String> {
    object.pointer("/metadata/uid")?.as_str().map(str::to_owned)
}
