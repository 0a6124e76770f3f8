//! Checksums as the Go project computes them: SHA-256 over Go's JSON of an object's content, and over the names of a set.

use std::fmt::Write as _;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::model::event::Checksum;
use crate::model::object::ObjectExt as _;
use crate::model::{Kind, Object, SourceUid};

/// Checksum of what the owner of a resource declares: its spec without the destination, or its data.
pub fn content(kind: Kind, object: &Object) -> Checksum {
    let mut text = String::new();
    match object.field(kind.content_field()) {
        Some(Value::Object(fields)) => {
            let mut fields = fields.clone();
            // Each cluster has its own name for the same destination.
            fields.remove("destination");
            canonical(&Value::Object(fields), &mut text);
        }
        Some(other) => canonical(other, &mut text),
        None => text.push_str("{}"),
    }
    Checksum(Sha256::digest(text.as_bytes()).to_vec())
}

/// Checksum of a set of resources: which there are, not what they contain. Empty for the empty set.
pub fn set<'a>(resources: impl IntoIterator<Item = (Kind, &'a str, &'a SourceUid)>) -> Checksum {
    let mut names: Vec<String> =
        resources.into_iter().map(|(kind, name, uid)| format!("{kind}/{name}/{uid}")).collect();
    if names.is_empty() {
        return Checksum::default();
    }
    names.sort_unstable();
    Checksum(Sha256::digest(names.concat().as_bytes()).to_vec())
}

/// One text for one value: JSON as Go's encoder writes it, with sorted keys, no spaces, HTML-sensitive characters escaped.
pub(crate) fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Number(number) => go_number(number, out),
        Value::String(text) => go_string(text, out),
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                canonical(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            out.push('{');
            for (n, (name, field)) in fields.into_iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                go_string(name, out);
                out.push(':');
                canonical(field, out);
            }
            out.push('}');
        }
    }
}

/// Kubernetes decodes integers as such, so only what has a fraction or an exponent is a float to Go, which writes it in
/// the shortest form, with an exponent below 1e-6 and from 1e21.
fn go_number(number: &serde_json::Number, out: &mut String) {
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else {
        out.push_str(&number.to_string());
        return;
    };
    let magnitude = float.abs();
    if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        let text = format!("{float:e}");
        // Go writes e+21 and e-7 (a single leading zero is dropped there, too).
        out.push_str(&text.replace('e', "e+").replace("e+-", "e-"));
    } else {
        // Writing to a String cannot fail.
        _ = write!(out, "{float}");
    }
}

fn go_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => _ = write!(out, "\\u{:04x}", c as u32),
            c if (c as u32) < 0x20 => _ = write!(out, "\\u{:04x}", c as u32),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(value: &Value) -> String {
        let mut out = String::new();
        canonical(value, &mut out);
        out
    }

    #[test]
    fn json_is_written_as_go_writes_it() {
        let value = json!({"b": "<a href=\"x\">&\u{2028}\u{7f}\u{1}</a>", "a": [1, -2, 1.5, 1e21, 1e-7, null, true], "é": {}});
        assert_eq!(
            text(&value),
            "{\"a\":[1,-2,1.5,1e+21,1e-7,null,true],\"b\":\"\\u003ca href=\\\"x\\\"\\u003e\\u0026\\u2028\u{7f}\\u0001\\u003c/a\\u003e\",\"é\":{}}"
        );
    }

    #[test]
    fn the_checksum_of_no_resources_is_empty() {
        assert_eq!(set([]), Checksum::default());
    }

    #[test]
    fn the_order_of_resources_does_not_matter() {
        let (a, b) = (SourceUid("1".into()), SourceUid("2".into()));
        assert_eq!(
            set([(Kind::Application, "x", &a), (Kind::AppProject, "y", &b)]),
            set([(Kind::AppProject, "y", &b), (Kind::Application, "x", &a)])
        );
    }
}
