//! Dropping what a schema does not know.

use serde_json::{Map, Value};

use super::{
    cause::Path,
    node::{Additional, Node},
};

pub(super) fn prune(root: &Node, object: &mut Value) -> Vec<String> {
    let mut dropped = Vec::new();
    walk(Some(root), false, object, &Path::Root, &mut dropped);
    dropped.sort();
    dropped
}

pub(super) fn is_meta(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind" | "metadata")
}

/// Without a schema, scalars stay and objects lose every field. `keep` is handed on from a list with
/// `x-kubernetes-preserve-unknown-fields` to its items.
fn walk(node: Option<&Node>, keep: bool, value: &mut Value, at: &Path<'_>, dropped: &mut Vec<String>) {
    let keep = keep || node.is_some_and(|node| node.preserve);
    match value {
        Value::Object(fields) => walk_fields(node, keep, fields, at, dropped),
        Value::Array(items) => {
            let inner = node.and_then(|node| node.items.as_deref());
            if keep && inner.is_none() {
                return;
            }
            for (index, item) in items.iter_mut().enumerate() {
                walk(inner, keep, item, &Path::Index(at, index), dropped);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn walk_fields(
    node: Option<&Node>,
    keep: bool,
    fields: &mut Map<String, Value>,
    at: &Path<'_>,
    dropped: &mut Vec<String>,
) {
    fields.retain(|name, value| {
        let here = Path::Field(at, name);
        let Some(node) = node else {
            dropped.push(here.to_string());
            return false;
        };
        if node.embedded && is_meta(name) {
            return true;
        }
        if let Some(inner) = node.field(name) {
            walk(Some(inner), false, value, &here, dropped);
            return true;
        }
        if keep {
            return true;
        }
        match node.additional {
            // Fields of a map without a schema stay, but nothing is known about what they hold.
            Additional::Any | Additional::None => {
                walk(None, false, value, &here, dropped);
                true
            }
            Additional::Unsaid | Additional::Of(_) => {
                dropped.push(here.to_string());
                false
            }
        }
    });
}
