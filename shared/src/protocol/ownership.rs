//! What the holder of copies does about a resource, given what is here and what the owner wants. Pure.
//!
//! In managed mode the control plane owns what is declared, and the cluster what is observed; in autonomous mode the
//! cluster owns both. Whoever holds a copy keeps of its own only what the [`Scope`] leaves out, a requested operation, and
//! the few annotations that its own controllers live by.

use std::collections::BTreeMap;

use clap::ValueEnum;
use kube::core::ObjectMeta;
use serde_json::{Value, json};

use super::mirror::Wanted;
use super::resync::digest::{self, Digest, Scope};
use crate::model::argocd::annotation;
use crate::model::object::ObjectExt as _;
use crate::model::{Kind, Object};

/// Annotations by which the holder's own controllers live: neither taken from the owner nor taken away by it.
pub const OWN_ANNOTATIONS: [&str; 4] =
    [annotation::REFRESH, annotation::NOTIFIED, annotation::OPERATION_REQUESTED, annotation::OPERATION_TAKEN];

/// Annotations of the owner that mean nothing to the holder.
pub const FOREIGN_ANNOTATIONS: [&str; 6] = [
    annotation::LAST_APPLIED,
    annotation::LAST_UPDATED,
    annotation::NOTIFIED,
    annotation::SEAL,
    annotation::OPERATION_REQUESTED,
    annotation::OPERATION_TAKEN,
];

/// The owner's annotations that a holder follows. The wish to look again is a request, not a state.
pub fn followed_annotations(object: &Object) -> BTreeMap<String, String> {
    let all = object.metadata.annotations.iter().flatten();
    all.filter(|(key, _)| !FOREIGN_ANNOTATIONS.contains(&key.as_str()) && *key != annotation::REFRESH)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Finalizers that the holder's own Argo CD puts on and takes off.
pub(crate) fn is_own_finalizer(finalizer: &str) -> bool {
    finalizer.starts_with("post-delete-finalizer.argocd.argoproj.io")
}

/// What is to be done about one resource, decided from what is there.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It is as it should be.
    Nothing,
    /// It is not there and should be.
    Create(Box<Object>),
    /// It is there and should be this; carries the resource version that the decision was made on.
    Replace(Box<Object>),
    /// It is there and should not be. This is to be written first, and decided on again: it says that the owner said so.
    Announce(Box<Object>),
    /// It is there and should not be.
    Delete,
}

/// What to do when a resource here is a copy of an earlier original of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MismatchPolicy {
    /// Delete it and create it anew.
    Recreate,
    /// Update it in place.
    Upsert,
}

/// Whether resources that were here before may be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AdoptionPolicy {
    /// Yes.
    Always,
    /// No.
    Never,
}

/// How conflicts about a name are settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// When what is here is a copy of an earlier original.
    pub mismatch: MismatchPolicy,
    /// When what is here is not a copy.
    pub adoption: AdoptionPolicy,
}

/// What is here, taken for what the owner wanted when it was last heard. None for what is not a copy, or is going.
///
/// If it was changed since it was sealed, the seal is left out: then the owner will be asked.
pub fn assume(kind: Kind, scope: Scope, existing: &Object) -> Option<Object> {
    existing.source_uid()?;
    if existing.is_deleting() {
        return None;
    }
    let mut assumed =
        Object { types: existing.types.clone(), metadata: ObjectMeta::default(), data: Value::Null };
    assumed.metadata.name = existing.metadata.name.clone();
    assumed.metadata.namespace = existing.metadata.namespace.clone();
    assumed.metadata.labels = existing.metadata.labels.clone();
    assumed.metadata.finalizers = existing.metadata.finalizers.clone();
    assumed.metadata.annotations = existing.metadata.annotations.clone();
    let is_true = digest::sealed(kind, scope, existing).is_some();
    if let Some(annotations) = &mut assumed.metadata.annotations {
        annotations.retain(|key, _| {
            !OWN_ANNOTATIONS.contains(&key.as_str()) && (is_true || key != annotation::SEAL)
        });
    }
    for field in followed(kind, scope) {
        assumed.set_field(field, existing.field(field).cloned());
    }
    Some(assumed)
}

/// The top-level fields that follow the owner.
fn followed(kind: Kind, scope: Scope) -> impl Iterator<Item = &'static str> {
    let status = (scope == Scope::Whole).then_some("status");
    [kind.content_field(), "type"].into_iter().chain(status)
}

/// Makes what is here what is wanted.
pub fn decide(
    kind: Kind,
    scope: Scope,
    existing: Option<&Object>,
    wanted: Option<&Wanted>,
    policy: Policy,
) -> Decision {
    match (wanted, existing) {
        (None, _) | (Some(Wanted::Absent(_)), None) => Decision::Nothing,
        (Some(Wanted::Present(wanted)), None) => Decision::Create(Box::new((**wanted).clone())),
        // Its end brings us back here. A mere view has nothing to do before it ends.
        (Some(_), Some(existing)) if existing.is_deleting() => match (scope, &existing.metadata.finalizers) {
            (Scope::Whole, Some(finalizers)) if !finalizers.is_empty() => {
                let mut next = existing.clone();
                next.metadata.finalizers = None;
                Decision::Replace(Box::new(next))
            }
            _ => Decision::Nothing,
        },
        (Some(Wanted::Absent(life)), Some(existing)) => {
            if existing.source_uid().as_ref() == Some(life) {
                end(scope, existing)
            } else {
                Decision::Nothing
            }
        }
        (Some(Wanted::Present(wanted)), Some(existing)) => match relation(existing, wanted) {
            Relation::Copy | Relation::OfAnotherControlPlane => update(kind, scope, existing, wanted),
            Relation::Stranger if refuses_adoption(Some(existing), policy) => Decision::Nothing,
            Relation::Stranger => update(kind, scope, existing, wanted),
            // A new life that declares the same takes over what the old one has: nothing is gained by tearing it down.
            Relation::EarlierLife
                if mismatch_policy(wanted, policy) == MismatchPolicy::Upsert
                    || existing.field(kind.content_field()) == wanted.field(kind.content_field()) =>
            {
                update(kind, scope, existing, wanted)
            }
            // Its end brings us back here, to create the new one.
            Relation::EarlierLife => end(scope, existing),
        },
    }
}

/// Takes a copy away. Of what is merely shown, others may hold copies in the same place: principals, while one takes over
/// from another. They have to know whose doing it is.
fn end(scope: Scope, existing: &Object) -> Decision {
    if scope != Scope::Whole || digest::is_ended(existing) {
        return Decision::Delete;
    }
    let mut next = existing.clone();
    digest::seal_end(&mut next);
    Decision::Announce(Box::new(next))
}

/// Whether what is here is somebody else's and must stay so. An annotation on it overrides the policy.
pub fn refuses_adoption(existing: Option<&Object>, policy: Policy) -> bool {
    let Some(existing) = existing.filter(|existing| existing.source_uid().is_none()) else { return false };
    match existing.annotation(annotation::ADOPTION_POLICY) {
        Some("always") => false,
        Some("never") => true,
        _ => policy.adoption == AdoptionPolicy::Never,
    }
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
        // From before control planes had a name.
        (None, Some(_)) => Relation::OfAnotherControlPlane,
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

fn update(kind: Kind, scope: Scope, existing: &Object, wanted: &Object) -> Decision {
    let mut next = existing.clone();
    let mut annotations = wanted.metadata.annotations.clone().unwrap_or_default();
    for (key, value) in existing.metadata.annotations.iter().flatten() {
        if OWN_ANNOTATIONS.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    next.metadata.annotations = Some(annotations).filter(|annotations| !annotations.is_empty());
    next.metadata.labels = wanted.metadata.labels.clone().filter(|labels| !labels.is_empty());
    let mut finalizers = wanted.metadata.finalizers.clone().unwrap_or_default();
    finalizers.retain(|finalizer| !is_own_finalizer(finalizer));
    let own = existing.metadata.finalizers.iter().flatten();
    finalizers.extend(own.filter(|finalizer| is_own_finalizer(finalizer)).cloned());
    next.metadata.finalizers = Some(finalizers).filter(|finalizers| !finalizers.is_empty());
    next.set_field(kind.content_field(), wanted.field(kind.content_field()).cloned());
    if scope == Scope::Whole {
        next.set_field("status", wanted.field("status").cloned());
    }
    if next == *existing { Decision::Nothing } else { Decision::Replace(Box::new(next)) }
}

/// The same decision about an Application, and that Argo CD is to look at it again.
pub fn with_refresh(decision: Decision, existing: Option<&Object>, refresh: &str) -> Decision {
    let asking = |mut object: Box<Object>| {
        object.annotate(annotation::REFRESH, refresh);
        object
    };
    match (decision, existing) {
        (Decision::Create(object), _) => Decision::Create(asking(object)),
        (Decision::Replace(object), _) => Decision::Replace(asking(object)),
        (Decision::Nothing, Some(existing))
            if existing.source_uid().is_some()
                && !existing.is_deleting()
                && existing.annotation(annotation::REFRESH) != Some(refresh) =>
        {
            Decision::Replace(asking(Box::new(existing.clone())))
        }
        (decision, _) => decision,
    }
}

/// Whether users ask for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested<'a> {
    /// They do not.
    Nothing,
    /// They do, and it has no name yet by which it could be told from one before or after it.
    Unnamed,
    /// They do; this is its name.
    Named(&'a str),
}

/// Whether users ask for an operation. A name holds for one content: an operation that took another's place is unnamed.
pub fn requested(application: &Object) -> Requested<'_> {
    let Some(operation) = application.field("operation") else { return Requested::Nothing };
    match application.annotation(annotation::OPERATION_REQUESTED) {
        Some(name) if name.ends_with(&content_of(operation)) => Requested::Named(name),
        _ => Requested::Unnamed,
    }
}

/// A name for the operation that a peer asks for which names none: the same as long as its Application shows the same
/// operation and the same last one.
pub fn nameless_request(application: &Object) -> Option<String> {
    let operation = application.field("operation")?;
    let last = application.at(&["status", "operationState", "startedAt"]).and_then(Value::as_str);
    Some(format!("{}.{}.{}", application.uid(), last.unwrap_or_default(), content_of(operation)))
}

/// Names the operation that users ask for, so that it is started once however often the request is repeated. Takes the name
/// away where the operation is gone.
pub fn name_operation(application: &Object, unique: &str) -> Decision {
    match (requested(application), application.field("operation")) {
        (Requested::Unnamed, Some(operation)) => {
            let mut next = application.clone();
            next.annotate(annotation::OPERATION_REQUESTED, format!("{unique}.{}", content_of(operation)));
            Decision::Replace(Box::new(next))
        }
        (Requested::Nothing, _) if application.annotation(annotation::OPERATION_REQUESTED).is_some() => {
            let mut next = application.clone();
            clear_operation(&mut next);
            Decision::Replace(Box::new(next))
        }
        _ => Decision::Nothing,
    }
}

/// Takes a request back that the cluster has done with.
pub fn clear_operation(application: &mut Object) {
    application.set_field("operation", None);
    if let Some(annotations) = &mut application.metadata.annotations {
        annotations.remove(annotation::OPERATION_REQUESTED);
    }
}

fn content_of(operation: &Value) -> String {
    let mut text = String::new();
    super::checksum::canonical(operation, &mut text);
    Digest::of(&[text.as_bytes()]).to_string()
}

/// Starts the operation that the other side asks for, once: unless it was taken before, or one is being stopped.
///
/// `request` names the operation, if the side that asks for it names operations.
pub fn set_operation(existing: &Object, operation: &Value, request: Option<&str>) -> Decision {
    if request.is_some() && existing.annotation(annotation::OPERATION_TAKEN) == request {
        return Decision::Nothing;
    }
    if phase(existing) == Some("Terminating") {
        return Decision::Nothing;
    }
    let mut next = existing.clone();
    if let Some(request) = request {
        next.annotate(annotation::OPERATION_TAKEN, request);
    }
    next.set_field("operation", Some(operation.clone()));
    if next == *existing { Decision::Nothing } else { Decision::Replace(Box::new(next)) }
}

/// Stops the operation that runs.
pub fn terminate_operation(existing: &Object) -> Decision {
    let mut next = existing.clone();
    match next.data.pointer_mut("/status/operationState/phase") {
        Some(phase) if phase == "Running" => *phase = json!("Terminating"),
        _ => return Decision::Nothing,
    }
    Decision::Replace(Box::new(next))
}

/// The phase of the operation that runs, or ran last.
pub fn phase(application: &Object) -> Option<&str> {
    application.at(&["status", "operationState", "phase"])?.as_str()
}
