//! What a managed cluster does about a resource, given what is here and what the control plane wants. Pure.
//!
//! The control plane owns the spec, labels, annotations and finalizers; the cluster owns status and operation, and the
//! few annotations that its own controllers live by.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tiphys_shared::kube::backend::Decision;
use tiphys_shared::kube::kinds::api_resource;
use tiphys_shared::model::argocd::{IN_CLUSTER, annotation};
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Kind, Object};
use tiphys_shared::protocol::mirror::Wanted;

use crate::options::{AdoptionPolicy, MismatchPolicy};

/// Annotations by which this cluster's controllers live: neither taken from the control plane nor taken away by it.
const OWN_ANNOTATIONS: [&str; 2] = [annotation::REFRESH, annotation::NOTIFIED];
/// Annotations that mean nothing here.
const FOREIGN_ANNOTATIONS: [&str; 3] =
    [annotation::LAST_APPLIED, annotation::LAST_UPDATED, annotation::NOTIFIED];

/// How conflicts about a name are settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) mismatch: MismatchPolicy,
    pub(crate) adoption: AdoptionPolicy,
}

/// An object from the control plane as it is to be in this cluster.
pub(crate) fn localise(
    kind: Kind,
    incoming: &Object,
    namespace: &str,
    principal_uid: Option<&str>,
) -> Object {
    let mut local = Object::new(incoming.name(), &api_resource(kind));
    local.metadata.namespace = Some(namespace.to_owned());
    local.metadata.labels = incoming.metadata.labels.clone();
    local.metadata.finalizers = incoming.metadata.finalizers.clone();
    let annotations: BTreeMap<String, String> = incoming
        .metadata
        .annotations
        .iter()
        .flatten()
        .filter(|(key, _)| !FOREIGN_ANNOTATIONS.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    local.metadata.annotations = Some(annotations);
    local.annotate(annotation::SOURCE_UID, incoming.origin().0);
    if let Some(uid) = principal_uid.filter(|uid| !uid.is_empty()) {
        local.annotate(annotation::PRINCIPAL_UID, uid);
    }
    local.set_field(kind.content_field(), incoming.field(kind.content_field()).cloned());
    match kind {
        Kind::Application => {
            if let Some(Value::Object(destination)) = local.data.pointer_mut("/spec/destination") {
                destination.insert("name".to_owned(), json!(IN_CLUSTER));
                destination.remove("server");
            }
        }
        Kind::Repository => local.set_field("type", incoming.field("type").cloned()),
        Kind::AppProject => {}
    }
    local
}

/// What is here, taken for what the control plane wanted when it was last heard. None for what is not a copy, or is going.
pub(crate) fn assume(kind: Kind, existing: &Object) -> Option<Object> {
    existing.source_uid()?;
    if existing.is_deleting() {
        return None;
    }
    let mut assumed = Object::new(existing.name(), &api_resource(kind));
    assumed.metadata.namespace = existing.metadata.namespace.clone();
    assumed.metadata.labels = existing.metadata.labels.clone();
    assumed.metadata.finalizers = existing.metadata.finalizers.clone();
    assumed.metadata.annotations = existing.metadata.annotations.clone();
    if let Some(annotations) = &mut assumed.metadata.annotations {
        annotations.retain(|key, _| !OWN_ANNOTATIONS.contains(&key.as_str()));
    }
    for field in [kind.content_field(), "type"] {
        assumed.set_field(field, existing.field(field).cloned());
    }
    Some(assumed)
}

/// Makes what is here what is wanted.
pub(crate) fn decide(
    kind: Kind,
    existing: Option<&Object>,
    wanted: Option<&Wanted>,
    policy: Policy,
) -> Decision {
    match (wanted, existing) {
        (None, _) | (Some(Wanted::Absent(_)), None) => Decision::Nothing,
        (Some(Wanted::Present(wanted)), None) => Decision::Create(Box::new((**wanted).clone())),
        // Its end brings us back here.
        (Some(_), Some(existing)) if existing.is_deleting() => Decision::Nothing,
        (Some(Wanted::Absent(life)), Some(existing)) => {
            if existing.source_uid().as_ref() == Some(life) {
                Decision::Delete
            } else {
                Decision::Nothing
            }
        }
        (Some(Wanted::Present(wanted)), Some(existing)) => match relation(existing, wanted) {
            Relation::Copy | Relation::OfAnotherControlPlane => update(kind, existing, wanted),
            Relation::Stranger if refuses_adoption(Some(existing), wanted, policy) => Decision::Nothing,
            Relation::Stranger => update(kind, existing, wanted),
            Relation::EarlierLife if mismatch_policy(wanted, policy) == MismatchPolicy::Upsert => {
                update(kind, existing, wanted)
            }
            // Its end brings us back here, to create the new one.
            Relation::EarlierLife => Decision::Delete,
        },
    }
}

/// Whether what is here is somebody else's and must stay so.
pub(crate) fn refuses_adoption(existing: Option<&Object>, wanted: &Object, policy: Policy) -> bool {
    let policy = match wanted.annotation(annotation::ADOPTION_POLICY) {
        Some("always") => AdoptionPolicy::Always,
        Some("never") => AdoptionPolicy::Never,
        _ => policy.adoption,
    };
    policy == AdoptionPolicy::Never && existing.is_some_and(|existing| existing.source_uid().is_none())
}

enum Relation {
    /// The same life of the same original.
    Copy,
    /// A copy made for another control plane: the same thing under a new owner.
    OfAnotherControlPlane,
    /// A copy of an earlier original of this name.
    EarlierLife,
    /// Not a copy.
    Stranger,
}

fn relation(existing: &Object, wanted: &Object) -> Relation {
    let Some(life) = existing.source_uid() else { return Relation::Stranger };
    let principal = |object: &Object| object.annotation(annotation::PRINCIPAL_UID).map(str::to_owned);
    match (principal(existing), principal(wanted)) {
        _ if Some(life) == wanted.source_uid() => Relation::Copy,
        (Some(here), Some(there)) if here != there => Relation::OfAnotherControlPlane,
        _ => Relation::EarlierLife,
    }
}

fn mismatch_policy(wanted: &Object, policy: Policy) -> MismatchPolicy {
    match wanted.annotation(annotation::MISMATCH_POLICY) {
        Some("upsert") => MismatchPolicy::Upsert,
        Some("recreate") => MismatchPolicy::Recreate,
        _ => policy.mismatch,
    }
}

fn update(kind: Kind, existing: &Object, wanted: &Object) -> Decision {
    let mut next = existing.clone();
    let mut annotations = wanted.metadata.annotations.clone().unwrap_or_default();
    for (key, value) in existing.metadata.annotations.iter().flatten() {
        if OWN_ANNOTATIONS.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    next.metadata.annotations = Some(annotations).filter(|annotations| !annotations.is_empty());
    next.metadata.labels = wanted.metadata.labels.clone().filter(|labels| !labels.is_empty());
    next.metadata.finalizers = wanted.metadata.finalizers.clone().filter(|finalizers| !finalizers.is_empty());
    next.set_field(kind.content_field(), wanted.field(kind.content_field()).cloned());
    if next == *existing { Decision::Nothing } else { Decision::Replace(Box::new(next)) }
}

/// Starts the operation that the control plane asks for, unless one is being stopped.
pub(crate) fn set_operation(existing: Option<&Object>, incoming: &Object) -> Result<Decision, String> {
    let existing = copy_of(existing, incoming)?;
    let stopping =
        existing.at(&["status", "operationState", "phase"]).and_then(Value::as_str) == Some("Terminating");
    let Some(operation) = incoming.field("operation").filter(|_| !stopping) else {
        return Ok(Decision::Nothing);
    };
    if existing.field("operation") == Some(operation) {
        return Ok(Decision::Nothing);
    }
    let mut next = existing.clone();
    next.set_field("operation", Some(operation.clone()));
    Ok(Decision::Replace(Box::new(next)))
}

/// Stops the operation that runs.
pub(crate) fn terminate_operation(existing: Option<&Object>, incoming: &Object) -> Result<Decision, String> {
    let existing = copy_of(existing, incoming)?;
    let mut next = existing.clone();
    match next.data.pointer_mut("/status/operationState/phase") {
        Some(phase) if phase == "Running" => *phase = json!("Terminating"),
        _ => return Ok(Decision::Nothing),
    }
    Ok(Decision::Replace(Box::new(next)))
}

fn copy_of<'a>(existing: Option<&'a Object>, incoming: &Object) -> Result<&'a Object, String> {
    let existing = existing.ok_or_else(|| "the application is not here".to_owned())?;
    match existing.source_uid() {
        Some(uid) if uid == incoming.origin() => Ok(existing),
        _ => Err("the application here is not a copy of that one".to_owned()),
    }
}

#[cfg(test)]
mod tests;
