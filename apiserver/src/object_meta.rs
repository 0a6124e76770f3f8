//! The rules of `metadata`: what the server sets, what may change and when an object's generation rises.

pub(crate) mod names;

use crate::fields::Managed;
use crate::resource::{NameRule, Resource};
use crate::schema::Cause;
use crate::status::{Failure, cause, invalid_value, required};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};

/// A point in time as the API writes it, to the second.
pub(crate) fn timestamp(at: Timestamp) -> String {
    // A second taken from a timestamp is always in range.
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

/// A text field of `metadata`; empty if it is not there.
pub(crate) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// The finalizers.
pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Takes out what a client says about the managers of fields.
pub(crate) fn take_managed(object: &mut Value) -> Option<Managed> {
    let given = object.get_mut("metadata")?.as_object_mut()?.remove("managedFields")?;
    Managed::given(&given)
}

/// Deletion has begun.
pub(crate) fn is_deleting(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

/// Reads `metadata` through its type: what is unknown is dropped (and named), what does not fit refused.
pub(crate) fn normalise(object: &mut Value) -> Result<Vec<String>, String> {
    let Some(fields) = object.as_object_mut() else { return Err("the object is not a JSON object".into()) };
    let given = fields.get("metadata").cloned().unwrap_or(Value::Null);
    let mut given = if given.is_null() { json!({}) } else { given };
    for map in ["labels", "annotations"] {
        // Null is the empty text there.
        let values = given.get_mut(map).and_then(Value::as_object_mut).into_iter().flatten();
        values.map(|(_, value)| value).filter(|value| value.is_null()).for_each(|value| *value = "".into());
    }
    let typed: ObjectMeta = serde_json::from_value(given.clone()).map_err(|e| format!("metadata: {e}"))?;
    let mut clean = serde_json::to_value(typed).map_err(|e| format!("metadata: {e}"))?;
    let unknown = unknown_fields(&given, &clean, "metadata");
    if let Some(map) = clean.as_object_mut() {
        // Self links are history.
        map.remove("selfLink");
        // No managers is something else than nothing said about them.
        map.retain(|name, value| !is_empty(value) || (name == "managedFields" && value.is_array()));
    }
    fields.insert("metadata".into(), clean);
    Ok(unknown)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Paths of fields that are in `given` and were lost on the way to `kept`.
pub(crate) fn unknown_fields(given: &Value, kept: &Value, at: &str) -> Vec<String> {
    let mut lost = Vec::new();
    collect_unknown(given, kept, at, &mut lost);
    lost
}

fn collect_unknown(given: &Value, kept: &Value, at: &str, lost: &mut Vec<String>) {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => {
            for (key, value) in given {
                let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                match kept.get(key) {
                    Some(kept) => collect_unknown(value, kept, &path, lost),
                    None if !value.is_null() => lost.push(path),
                    None => {}
                }
            }
        }
        (Value::Array(given), Value::Array(kept)) => {
            for (index, (given, kept)) in given.iter().zip(kept).enumerate() {
                collect_unknown(given, kept, &format!("{at}[{index}]"), lost);
            }
        }
        _ => {}
    }
}

/// What the server gives to a new object.
pub(crate) struct Birth<'a> {
    pub(crate) now: Timestamp,
    pub(crate) uid: String,
    /// Appended to `generateName`.
    pub(crate) suffix: String,
    pub(crate) namespace: &'a str,
}

/// Fills in the metadata of a new object.
pub(crate) fn prepare_create(
    resource: &Resource,
    object: &mut Value,
    birth: &Birth<'_>,
) -> Result<(), Failure> {
    let Some(meta) = object["metadata"].as_object_mut() else {
        return Err(Failure::bad_request("metadata is missing"));
    };
    if meta.get("resourceVersion").and_then(Value::as_str).is_some_and(|v| !v.is_empty() && v != "0") {
        return Err(Failure::unknown("resourceVersion should not be set on objects to be created"));
    }
    for field in ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        meta.remove(field);
    }
    let prefix = meta.get("generateName").and_then(Value::as_str).unwrap_or_default();
    if meta.get("name").and_then(Value::as_str).unwrap_or_default().is_empty() && !prefix.is_empty() {
        // The suffix has to fit into a label.
        let cut = prefix.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= 58).last();
        let name = format!("{}{}", &prefix[..cut.unwrap_or(0)], birth.suffix);
        meta.insert("name".into(), name.into());
    }
    place(resource, meta, birth.namespace)?;
    meta.insert("uid".into(), birth.uid.clone().into());
    meta.insert("creationTimestamp".into(), timestamp(birth.now).into());
    if resource.generation {
        meta.insert("generation".into(), 1.into());
    }
    Ok(())
}

/// Puts the object into the namespace of the request, if it does not claim another.
fn place(resource: &Resource, meta: &mut Map<String, Value>, namespace: &str) -> Result<(), Failure> {
    let given = meta.get("namespace").and_then(Value::as_str).unwrap_or_default();
    if !resource.namespaced {
        if !given.is_empty() {
            meta.remove("namespace");
        }
        return Ok(());
    }
    if !given.is_empty() && given != namespace {
        return Err(Failure::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    meta.insert("namespace".into(), namespace.into());
    Ok(())
}

/// Carries over what an update cannot change, before the new object is compared and checked.
pub(crate) fn prepare_update(
    resource: &Resource,
    object: &mut Value,
    old: &Value,
    namespace: &str,
    name: &str,
) -> Result<(), Failure> {
    let Some(meta) = object["metadata"].as_object_mut() else {
        return Err(Failure::bad_request("metadata is missing"));
    };
    let given = meta.get("name").and_then(Value::as_str).unwrap_or_default();
    if given.is_empty() {
        return Err(Failure::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        )));
    }
    if given != name {
        return Err(Failure::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    place(resource, meta, namespace)?;
    let old_meta = &old["metadata"];
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if (field == "creationTimestamp" || meta.get(field).is_none_or(Value::is_null))
            && let Some(value) = old_meta.get(field)
        {
            meta.insert(field.into(), value.clone());
        }
    }
    match old_meta.get("generation") {
        Some(generation) => meta.insert("generation".into(), generation.clone()),
        None => meta.remove("generation"),
    };
    Ok(())
}

/// The same but for what the server itself counts.
pub(crate) fn is_same(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return false };
    let typed = |key: &&String| !matches!(key.as_str(), "kind" | "apiVersion" | "metadata");
    let same_meta = {
        let empty = Map::new();
        let new = new.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
        let old = old.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
        let kept = |key: &&String| key.as_str() != "resourceVersion";
        new.keys().filter(kept).count() == old.keys().filter(kept).count()
            && new.keys().filter(kept).all(|key| new.get(key) == old.get(key))
    };
    same_meta
        && new.keys().filter(typed).count() == old.keys().filter(typed).count()
        && new.keys().filter(typed).all(|key| new.get(key) == old.get(key))
}

/// Raises the generation if anything but metadata (and status, where it is separate) differs.
pub(crate) fn count_generation(resource: &Resource, object: &mut Value, old: &Value) {
    if !resource.generation {
        return;
    }
    let spec = |value: &Value| -> Map<String, Value> {
        let mut map = value.as_object().cloned().unwrap_or_default();
        for key in ["kind", "apiVersion", "metadata"] {
            map.remove(key);
        }
        if resource.status {
            map.remove("status");
        }
        map
    };
    if spec(object) != spec(old) {
        raise_generation(object);
    }
}

/// Counts one generation further, if the object counts them.
pub(crate) fn raise_generation(object: &mut Value) {
    let Some(present) = object["metadata"]["generation"].as_i64().filter(|g| *g > 0) else { return };
    object["metadata"]["generation"] = (present + 1).into();
}

/// Checks `metadata` as such.
pub(crate) fn validate(resource: &Resource, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let meta = &object["metadata"];
    let prefix = text(object, "generateName");
    if !prefix.is_empty() {
        // The prefix alone may end in what a name may not end in.
        let tried = format!("{prefix}x");
        if let Some(why) = names::check(resource.names, &tried) {
            causes.push(invalid_value("metadata.generateName", &json!(prefix), &why));
        }
    }
    match text(object, "name") {
        "" => causes.push(required("metadata.name", "name or generateName is required")),
        name => {
            if let Some(why) = names::check(resource.names, name) {
                causes.push(invalid_value("metadata.name", &json!(name), &why));
            }
        }
    }
    if resource.namespaced
        && let Some(why) = names::check(NameRule::Label, text(object, "namespace"))
    {
        causes.push(invalid_value("metadata.namespace", &meta["namespace"], &why));
    }
    for (key, value) in meta["labels"].as_object().into_iter().flatten() {
        if let Some(why) = names::qualified_name(key) {
            causes.push(invalid_value("metadata.labels", &json!(key), &why));
        }
        if let Some(why) = names::label_value(value.as_str().unwrap_or_default()) {
            causes.push(invalid_value("metadata.labels", value, &why));
        }
    }
    let mut size = 0;
    for (key, value) in meta["annotations"].as_object().into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        if let Some(why) = names::qualified_name(&key.to_lowercase()) {
            causes.push(invalid_value("metadata.annotations", &json!(key), &why));
        }
    }
    if size > 256 * 1024 {
        causes.push(cause(
            "metadata.annotations",
            "FieldValueTooLong",
            "Too long: may not be more than 262144 bytes",
        ));
    }
    for finalizer in finalizers(object) {
        if let Some(why) = names::qualified_name(finalizer) {
            causes.push(invalid_value("metadata.finalizers", &json!(finalizer), &why));
        }
    }
    validate_owners(&meta["ownerReferences"], &mut causes);
    causes
}

/// Finalizers without a domain that have a meaning.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// The places of finalizers that have neither a domain nor a meaning. Built-in kinds refuse them.
pub(crate) fn unqualified_finalizers(object: &Value) -> Vec<(usize, &str)> {
    let all = finalizers(object).into_iter().enumerate();
    all.filter(|(_, f)| !f.contains('/') && !STANDARD_FINALIZERS.contains(f)).collect()
}

fn validate_owners(owners: &Value, causes: &mut Vec<Cause>) {
    let mut controllers = 0;
    for owner in owners.as_array().into_iter().flatten() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().unwrap_or_default().is_empty() {
                let hint =
                    if field == "apiVersion" { "version must not be empty" } else { "must not be empty" };
                causes.push(invalid_value(format!("metadata.ownerReferences.{field}"), &owner[field], hint));
            }
        }
        controllers += u32::from(owner["controller"] == true);
    }
    if controllers > 1 {
        causes.push(invalid_value(
            "metadata.ownerReferences",
            owners,
            "only one reference can have controller set to true",
        ));
    }
}

/// Checks what an update did to `metadata`.
pub(crate) fn validate_update(object: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let (new, was) = (&object["metadata"], &old["metadata"]);
    for field in ["uid", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if new.get(field) != was.get(field) {
            causes.push(invalid_value(
                format!("metadata.{field}"),
                new.get(field).unwrap_or(&Value::Null),
                "field is immutable",
            ));
        }
    }
    if is_deleting(old) {
        let before = finalizers(old);
        let added: Vec<&str> = finalizers(object).into_iter().filter(|f| !before.contains(f)).collect();
        if !added.is_empty() {
            causes.push(cause(
                "metadata.finalizers",
                "FieldValueForbidden",
                format!(
                    "Forbidden: no new finalizers can be added if the object is being deleted, found new \
                     finalizers []string{{{}}}",
                    added.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ")
                ),
            ));
        }
    }
    causes
}
