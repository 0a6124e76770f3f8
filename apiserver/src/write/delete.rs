//! Deleting: at once, or when nothing holds the object any more.

use super::{ATTEMPTS, Answer, Body, Call, is_held};
use crate::status::{self, Failure};
use crate::store::{Change, Clash, Stored, Write};
use crate::{crd, object_meta};
use serde_json::{Value, json};

/// What a delete may demand.
#[derive(Debug, Default, Clone)]
pub(crate) struct DeleteOptions {
    pub(crate) uid: Option<String>,
    pub(crate) revision: Option<String>,
    pub(crate) propagation: Option<Propagation>,
    /// `orphanDependents: false`, in so many words.
    pub(crate) told_not_to_orphan: bool,
}

/// What becomes of dependents. No garbage collector runs here; as with a bare API server the first two leave
/// a finalizer for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    Orphan,
    Foreground,
    Background,
}

/// Namespaces that a cluster cannot be without.
pub(crate) const PERMANENT_NAMESPACES: [&str; 3] = ["default", "kube-system", "kube-public"];

/// DELETE of one object.
pub(crate) fn delete(call: &Call<'_>, options: &DeleteOptions) -> Result<Answer, Failure> {
    if call.is_namespace() && PERMANENT_NAMESPACES.contains(&call.name) {
        return Err(Failure::forbidden("", "namespaces", call.name, "this namespace may not be deleted"));
    }
    for _ in 0..ATTEMPTS {
        let Some(current) = call.server.store.get(&call.key(call.name)) else { return Err(call.not_found()) };
        let old = call.view(&current);
        check_preconditions(call, options, &current, &old)?;
        let mut object = old.clone();
        mark_propagation(&mut object, options.propagation);
        if is_held(call, &object) {
            if !object_meta::is_deleting(&object) {
                begin_deletion(call, &mut object);
            }
            let code = if options.told_not_to_orphan { 202 } else { 200 };
            if object_meta::is_same(&object, &old) {
                return Ok(Answer::stored(code, &current));
            }
            let content = call.content(&object).managed_by(current.content.managed().clone());
            if call.dry_run {
                return Ok(Answer::object(code, content, Some(current.revision)));
            }
            match call.commit(&current.key, Some(current.revision), Write::Put(content)) {
                Ok(Change { after: Some(stored), .. }) => return Ok(Answer::stored(code, &stored)),
                Ok(_) | Err(Clash) => continue,
            }
        }
        if !call.dry_run && call.commit(&current.key, Some(current.revision), Write::Remove).is_err() {
            continue;
        }
        if call.resource.returns_deleted {
            return Ok(Answer::stored(200, &current));
        }
        let uid = object_meta::text(&old, "uid");
        let value = status::deleted(call.group(), call.plural(), call.name, uid);
        return Ok(Answer { code: 200, body: Body::Value(value), warnings: Vec::new() });
    }
    Err(call.stale())
}

fn begin_deletion(call: &Call<'_>, object: &mut Value) {
    let now = object_meta::timestamp(call.server.now());
    object["metadata"]["deletionTimestamp"] = now.clone().into();
    if call.is_namespace() {
        object["status"]["phase"] = "Terminating".into();
    } else if call.is_definition() {
        crd::mark_terminating(object, &now);
    } else {
        object["metadata"]["deletionGracePeriodSeconds"] = 0.into();
        object_meta::raise_generation(object);
    }
}

fn mark_propagation(object: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    let mark = match propagation {
        Propagation::Orphan => Some("orphan"),
        Propagation::Foreground => Some("foregroundDeletion"),
        Propagation::Background => None,
    };
    let before = object_meta::finalizers(object);
    let mut after: Vec<&str> = before
        .iter()
        .copied()
        .filter(|f| !matches!(*f, "orphan" | "foregroundDeletion") || Some(*f) == mark)
        .collect();
    if let Some(mark) = mark
        && !after.contains(&mark)
    {
        after.push(mark);
    }
    if after == before {
        return;
    }
    let after = json!(after);
    if after.as_array().is_some_and(Vec::is_empty) {
        object["metadata"].as_object_mut().and_then(|m| m.remove("finalizers"));
    } else {
        object["metadata"]["finalizers"] = after;
    }
}

fn check_preconditions(
    call: &Call<'_>,
    options: &DeleteOptions,
    current: &Stored,
    old: &Value,
) -> Result<(), Failure> {
    let failed = |what: &str, asked: &str, present: &str, so: &str| {
        Failure::conflict(
            call.group(),
            &call.resource.kind,
            call.name,
            &format!(
                "the {what} in the precondition ({asked}) does not match the {what} in record ({present}). The \
                 object might have been {so}"
            ),
        )
    };
    let uid = object_meta::text(old, "uid");
    if let Some(asked) = options.uid.as_deref().filter(|asked| *asked != uid) {
        return Err(failed("UID", asked, uid, "deleted and then recreated"));
    }
    let revision = current.revision.to_string();
    if let Some(asked) = options.revision.as_deref().filter(|asked| *asked != revision) {
        return Err(failed("ResourceVersion", asked, &revision, "modified"));
    }
    Ok(())
}
