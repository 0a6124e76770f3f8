//! What applying an object comes to, told before it is done. Pure.

use kube::api::DynamicObject;
use tiphys_shared::kube::private_key::is_private_key;

/// What becomes of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is not there.
    New,
    /// It is there as it would be.
    Same,
    /// It is there, and would be another.
    Changed {
        /// Entries of a Secret with private keys that would be others.
        keys: Vec<String>,
    },
}

/// Compares what is there with what would be there, as the server that tried it says.
pub(super) fn compare(there: Option<&DynamicObject>, then: &DynamicObject) -> Outcome {
    let Some(there) = there else { return Outcome::New };
    if content(there) == content(then) {
        return Outcome::Same;
    }
    let is_secret = there.types.as_ref().is_some_and(|types| types.kind == "Secret");
    let entries = there.data["data"].as_object().filter(|_| is_secret).into_iter().flatten();
    let keys =
        entries.filter(|(name, value)| is_private_key(name) && then.data["data"][name.as_str()] != **value);
    Outcome::Changed { keys: keys.map(|(name, _)| name.clone()).collect() }
}

/// An object without what every write changes.
fn content(object: &DynamicObject) -> DynamicObject {
    let mut content = object.clone();
    content.metadata.managed_fields = None;
    content.metadata.resource_version = None;
    content.metadata.generation = None;
    content
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn secret(version: &str, data: Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "ca", "resourceVersion": version, "managedFields": [{"manager": version}]},
            "data": data,
        }))
        .unwrap()
    }

    #[test]
    fn what_only_a_write_changes_is_no_change() {
        let (there, then) = (secret("1", json!({"tls.key": "a"})), secret("2", json!({"tls.key": "a"})));
        assert_eq!(compare(Some(&there), &then), Outcome::Same);
        assert_eq!(compare(None, &then), Outcome::New);
    }

    #[test]
    fn private_keys_that_would_be_others_are_named_and_new_ones_are_not() {
        let there = secret("1", json!({"tls.crt": "a", "tls.key": "a"}));
        let changed = |data: Value| compare(Some(&there), &secret("1", data));
        let keys = |keys: &[&str]| Outcome::Changed { keys: keys.iter().map(ToString::to_string).collect() };
        assert_eq!(changed(json!({"tls.crt": "b", "tls.key": "b"})), keys(&["tls.key"]));
        assert_eq!(changed(json!({"tls.crt": "b", "tls.key": "a"})), keys(&[]));
        assert_eq!(changed(json!({"tls.crt": "a"})), keys(&["tls.key"]));
        assert_eq!(changed(json!({"tls.crt": "a", "tls.key": "a", "jwt.key": "n"})), keys(&[]));
    }
}
