//! Server-side apply: PATCH with what its author wants to be there.

use super::{ATTEMPTS, Answer, Call, FieldValidation, Part, Source, check_revision, create_read, put};
use crate::fields::{self, ApplyError, Conflict, Managed, Manager, Operation};
use crate::serve::present::with_type;
use crate::status::{Failure, cause};
use crate::{object_meta, resource, yaml};
use serde_json::{Value, json};

/// Applies a configuration. What others own is not taken from them unless by `force`.
pub(crate) fn apply(call: &Call<'_>, body: &[u8], force: bool) -> Result<Answer, Failure> {
    let config = decode(body)?;
    check_type(call, &config)?;
    if config["metadata"].get("managedFields").is_some_and(Value::is_array) {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    // Unknown fields have been refused when anybody asks for the object's.
    let call = &Call { validation: FieldValidation::Ignore, ..call.clone() };
    for _ in 0..ATTEMPTS {
        let Some(current) = call.server.store.get(&call.key(call.name)) else {
            if call.part != Part::Whole {
                return Err(call.not_found());
            }
            match apply_new(call, &config, force) {
                // Somebody else was faster: so it is there now.
                Err(failure) if failure.reason == "AlreadyExists" => continue,
                done => return done,
            }
        };
        let live = with_type(&call.resource.api_version(), &call.resource.kind, call.view(&current));
        let (object, managed) = applied(call, &live, &config, current.content.managed(), force)?;
        check_name(call, &object)?;
        let (object, warnings) = call.read(object, Source::Apply)?;
        check_revision(call, object_meta::text(&object, "resourceVersion"), &current)?;
        if let Some(mut answer) = put(call, &current, &call.view(&current), object, managed)? {
            answer.warnings = warnings;
            return Ok(answer);
        }
    }
    Err(call.stale())
}

/// Applies to what is not there yet.
fn apply_new(call: &Call<'_>, config: &Value, force: bool) -> Result<Answer, Failure> {
    let nothing = with_type(&call.resource.api_version(), &call.resource.kind, json!({}));
    let (object, managed) = applied(call, &nothing, config, &Managed::default(), force)?;
    let uid = object_meta::text(&object, "uid");
    if !uid.is_empty() {
        let why = format!(
            "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        );
        return Err(Failure::conflict(call.group(), call.plural(), call.name, &why));
    }
    check_name(call, &object)?;
    if call.resource.is_terminating() {
        return Err(call.terminating(call.name));
    }
    let (mut object, warnings) = call.read(object, Source::Apply)?;
    // There is nothing yet that it could be older than.
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("resourceVersion");
    }
    create_read(call, object, warnings, managed)
}

fn applied(
    call: &Call<'_>,
    live: &Value,
    config: &Value,
    managed: &Managed,
    force: bool,
) -> Result<(Value, Managed), Failure> {
    let name = call.manager.as_deref().unwrap_or_default();
    let manager = Manager::new(Operation::Apply, name, &call.resource.api_version(), call.subresource);
    let now = call.server.now().as_second();
    let done = call
        .with_versions(|versions| fields::applied(versions, live, config, managed, (&manager, force), now));
    match done {
        Ok(applied) => Ok((applied.object.unwrap_or_else(|| live.clone()), applied.managed)),
        Err(ApplyError::Misfit(why)) => Err(misfit(config, &why)),
        Err(ApplyError::Conflicts(conflicts)) => Err(refused(&conflicts)),
    }
}

fn decode(body: &[u8]) -> Result<Value, Failure> {
    let bad = |why: String| Failure::bad_request(format!("error decoding YAML: {why}"));
    // Most clients send JSON, which is YAML, too.
    let config = match serde_json::from_slice(body) {
        Ok(config) => config,
        Err(_) => {
            let text = std::str::from_utf8(body).map_err(|e| bad(e.to_string()))?;
            yaml::one(text).map_err(|e| bad(e.to_string()))?
        }
    };
    match config {
        Value::Object(_) => Ok(config),
        Value::Null => Ok(json!({})),
        other => Err(bad(format!("expected an object, found {other}"))),
    }
}

/// `group/version, Kind=kind`.
fn type_text(api_version: &str, kind: &str) -> String {
    let slash = if api_version.contains('/') { "" } else { "/" };
    format!("{slash}{api_version}, Kind={kind}")
}

fn check_type(call: &Call<'_>, config: &Value) -> Result<(), Failure> {
    let text = |field: &str| config[field].as_str().unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if version == resource::api_version(call.group(), &call.resource.version) && kind == call.resource.kind {
        return Ok(());
    }
    Err(Failure::bad_request(format!("invalid object type: {}", type_text(version, kind))))
}

fn check_name(call: &Call<'_>, object: &Value) -> Result<(), Failure> {
    match object_meta::text(object, "name") {
        name if name == call.name => Ok(()),
        "" => Err(Failure::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            call.name
        ))),
        name => Err(Failure::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.name
        ))),
    }
}

fn misfit(config: &Value, why: &[String]) -> Failure {
    let text = |field: &str| config[field].as_str().unwrap_or_default();
    let why = match why {
        [only] => only.clone(),
        several => format!("errors:\n  {}", several.join("\n  ")),
    };
    Failure::unknown(format!(
        "failed to create typed patch object ({}/{}; {}): {why}",
        object_meta::text(config, "namespace"),
        object_meta::text(config, "name"),
        type_text(text("apiVersion"), text("kind")),
    ))
}

fn refused(conflicts: &[Conflict]) -> Failure {
    let causes: Vec<_> = conflicts
        .iter()
        .map(|conflict| {
            let message = format!("conflict with {}", conflict.manager());
            cause(conflict.path(), "FieldManagerConflict", message)
        })
        .collect();
    let message = match conflicts {
        [only] => {
            format!("Apply failed with 1 conflict: conflict with {}: {}", only.manager(), only.path())
        }
        several => {
            let mut groups: Vec<(String, Vec<String>)> = Vec::new();
            for conflict in several {
                let manager = conflict.manager();
                match groups.last_mut().filter(|(last, _)| *last == manager) {
                    Some((_, paths)) => paths.push(conflict.path()),
                    None => groups.push((manager, vec![conflict.path()])),
                }
            }
            let lines: Vec<String> = groups
                .into_iter()
                .flat_map(|(manager, paths)| {
                    let head = format!("conflicts with {manager}:");
                    std::iter::once(head).chain(paths.into_iter().map(|path| format!("- {path}")))
                })
                .collect();
            format!("Apply failed with {} conflicts: {}", several.len(), lines.join("\n"))
        }
    };
    Failure::apply_conflict(&causes, message)
}
