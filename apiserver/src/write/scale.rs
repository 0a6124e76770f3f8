//! The `scale` subresource: how many replicas are wanted and there, in the same words for every kind.

use super::{ATTEMPTS, Answer, Body, Call, check_revision, check_uid, replace};
use crate::object_meta;
use crate::patch::{self, PatchKind};
use crate::resource::Scale;
use crate::status::{self, Failure};
use serde_json::{Map, Value, json};

/// GET.
pub(crate) fn get(call: &Call<'_>, paths: &Scale) -> Result<Value, Failure> {
    let current = call.server.store.get(&call.key(call.name)).ok_or_else(|| call.not_found())?;
    shown(paths, &current.to_value())
}

/// PUT.
pub(crate) fn update(call: &Call<'_>, paths: &Scale, body: &Value) -> Result<Answer, Failure> {
    change(call, paths, |_| Ok(body.clone()))
}

/// PATCH.
pub(crate) fn patch(call: &Call<'_>, paths: &Scale, kind: PatchKind, body: &[u8]) -> Result<Answer, Failure> {
    change(call, paths, |present| {
        patch::apply(kind, present, body, None).map_err(|why| match why {
            patch::Error::BadRequest(text) => Failure::bad_request(text),
            patch::Error::Unprocessable(text) => Failure::unprocessable(text),
        })
    })
}

fn at<'a>(object: &'a Value, path: &[String]) -> &'a Value {
    path.iter().fold(object, |value, field| &value[field.as_str()])
}

/// The `Scale` of an object.
fn shown(paths: &Scale, object: &Value) -> Result<Value, Failure> {
    let Some(wanted) = at(object, &paths.wanted).as_i64() else {
        let path = paths.wanted.join(".");
        return Err(Failure::internal(format!("the spec replicas field \".{path}\" does not exist")));
    };
    let meta = &object["metadata"];
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = meta.get(field) {
            metadata.insert(field.into(), value.clone());
        }
    }
    let mut status = json!({"replicas": at(object, &paths.present).as_i64().unwrap_or_default()});
    if let Some(selector) = selector(paths, object) {
        status["selector"] = selector.into();
    }
    Ok(json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": wanted},
        "status": status,
    }))
}

/// The selector as text; built-in kinds have it as labels.
fn selector(paths: &Scale, object: &Value) -> Option<String> {
    match at(object, paths.selector.as_deref()?) {
        Value::String(text) => Some(text.clone()),
        Value::Object(labels) => {
            let terms =
                labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
            Some(terms.collect::<Vec<_>>().join(","))
        }
        _ => None,
    }
}

fn change(
    call: &Call<'_>,
    paths: &Scale,
    wanted: impl Fn(&Value) -> Result<Value, Failure>,
) -> Result<Answer, Failure> {
    for _ in 0..ATTEMPTS {
        let current = call.server.store.get(&call.key(call.name)).ok_or_else(|| call.not_found())?;
        let mut object = call.view(&current);
        let scale = wanted(&shown(paths, &object)?)?;
        let replicas = checked(call, &scale)?;
        let asked = object_meta::text(&scale, "resourceVersion");
        check_revision(call, asked, &current)?;
        check_uid(call, &scale, &current)?;
        if !set(&mut object, &paths.wanted, replicas) {
            return Err(Failure::internal("the object has no place for its replicas"));
        }
        let Some(answer) = replace(call, &current, object)? else { continue };
        let body = match answer.body {
            Body::Object { content, revision } => Body::Value(shown(paths, &content.to_value(revision))?),
            body @ Body::Value(_) => body,
        };
        return Ok(Answer { body, ..answer });
    }
    Err(call.stale())
}

/// The replicas that a `Scale` asks for.
fn checked(call: &Call<'_>, scale: &Value) -> Result<i64, Failure> {
    if !scale.is_object() || scale["kind"].as_str().is_some_and(|kind| kind != "Scale") {
        return Err(Failure::bad_request("the body is not a Scale of autoscaling/v1"));
    }
    let name = object_meta::text(scale, "name");
    if !name.is_empty() && name != call.name {
        return Err(Failure::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.name
        )));
    }
    let replicas = &scale["spec"]["replicas"];
    match if replicas.is_null() { Some(0) } else { replicas.as_i64() } {
        Some(count) if count >= 0 => Ok(count),
        Some(_) => {
            let causes =
                [status::invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")];
            Err(Failure::invalid("autoscaling", "Scale", call.name, &causes))
        }
        None => Err(Failure::bad_request("spec.replicas of a Scale is a number")),
    }
}

/// Puts the number where it belongs; false if something else is in the way.
fn set(object: &mut Value, path: &[String], replicas: i64) -> bool {
    let Some((last, inner)) = path.split_last() else { return false };
    let mut place = object;
    for field in inner {
        let Some(fields) = place.as_object_mut() else { return false };
        place = fields.entry(field.as_str()).or_insert_with(|| json!({}));
    }
    let Some(fields) = place.as_object_mut() else { return false };
    fields.insert(last.clone(), replicas.into());
    true
}
