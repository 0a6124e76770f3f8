//! What an agent's word does to an Application at the control plane. Pure.
//!
//! The control plane owns spec and metadata, the cluster owns status. A word about another life of the Application (its UID
//! says which) changes nothing.

use jiff::Timestamp;
use serde_json::{Value, json};
use tiphys_shared::model::Object;
use tiphys_shared::model::argocd::annotation;
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::protocol::ownership::{self, Decision, Requested};

/// Condition that shows what an agent could not do.
const AGENT_ERROR: &str = "AgentError";

/// The cluster's status becomes the Application's.
///
/// `pending` says that the agent has yet to acknowledge something about it: an operation or a refresh that the cluster does
/// not show may then be one that it has not heard of, and stays.
pub(crate) fn take_status(
    existing: Option<&Object>,
    incoming: &Object,
    pending: bool,
    now: Timestamp,
) -> Decision {
    let Some(existing) = existing.filter(|existing| is_copy_of(incoming, existing)) else {
        return Decision::Nothing;
    };
    let mut next = existing.clone();
    if incoming.field("status") != existing.field("status") {
        next.set_field("status", incoming.field("status").cloned());
    }
    if !pending {
        end(&mut next, incoming);
    }
    replace_if_changed(existing, next, now)
}

/// What the agent's original does not show of requests is off; the rest of what is shown follows the agent anyway.
///
/// `life` is the original's UID; `pending` as in [`take_status`].
pub(crate) fn end_requests(
    existing: Option<&Object>,
    incoming: &Object,
    life: &str,
    pending: bool,
) -> Decision {
    let Some(existing) = existing.filter(|it| it.source_uid().is_some_and(|uid| uid.0 == life)) else {
        return Decision::Nothing;
    };
    let mut next = existing.clone();
    if !pending {
        end(&mut next, incoming);
    }
    if next == *existing { Decision::Nothing } else { Decision::Replace(Box::new(next)) }
}

fn end(shown: &mut Object, incoming: &Object) {
    if incoming.field("operation").is_none() && shown.field("operation").is_some() {
        ownership::clear_operation(shown);
    }
    if incoming.annotation(annotation::REFRESH).is_none()
        && let Some(annotations) = &mut shown.metadata.annotations
    {
        annotations.remove(annotation::REFRESH);
    }
}

/// Whether the Application shows a request, an operation or a refresh, that the cluster does not show.
pub(crate) fn shows_request(existing: Option<&Object>, incoming: &Object) -> bool {
    existing.is_some_and(|existing| {
        (existing.field("operation").is_some() && incoming.field("operation").is_none())
            || (existing.annotation(annotation::REFRESH).is_some()
                && incoming.annotation(annotation::REFRESH).is_none())
    })
}

/// Whether the Application shows a request that the watch has not told of yet: it was read after a conflict. An operation
/// without a name is never told of.
pub(crate) fn shows_untold(existing: Option<&Object>, told: Option<&Object>) -> bool {
    let Some(existing) = existing else { return false };
    let refresh = |object: &Object| object.annotation(annotation::REFRESH).map(str::to_owned);
    let operation = match ownership::requested(existing) {
        Requested::Nothing => false,
        Requested::Unnamed => true,
        named => told.is_none_or(|told| ownership::requested(told) != named),
    };
    operation || (refresh(existing).is_some() && told.is_none_or(|told| refresh(told) != refresh(existing)))
}

/// The cluster has finished deleting: what kept the Application here is taken away, if its deletion began here.
pub(crate) fn finish_deletion(existing: Option<&Object>, incoming: &Object) -> Decision {
    let Some(existing) = existing else { return Decision::Nothing };
    let finalizers = existing.metadata.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty());
    if !existing.is_deleting() || !finalizers || !is_copy_of(incoming, existing) {
        return Decision::Nothing;
    }
    let mut next = existing.clone();
    next.metadata.finalizers = None;
    Decision::Replace(Box::new(next))
}

/// Shows on the Application what the agent could not do with it.
pub(crate) fn note_failure(existing: Option<&Object>, message: &str, now: Timestamp) -> Decision {
    let Some(existing) = existing else { return Decision::Nothing };
    let mut status = existing.field("status").cloned().filter(Value::is_object).unwrap_or_else(|| json!({}));
    let mut conditions: Vec<Value> =
        status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    if conditions.iter().any(|condition| {
        condition.get("type") == Some(&json!(AGENT_ERROR))
            && condition.get("message") == Some(&json!(message))
    }) {
        return Decision::Nothing;
    }
    conditions.retain(|condition| condition.get("type") != Some(&json!(AGENT_ERROR)));
    let second = now.round(jiff::Unit::Second).unwrap_or(now).to_string();
    conditions.push(json!({"type": AGENT_ERROR, "message": message, "lastTransitionTime": second}));
    if let Value::Object(fields) = &mut status {
        fields.insert("conditions".to_owned(), Value::Array(conditions));
        fields.insert("health".to_owned(), json!({"status": "Degraded"}));
    }
    let mut next = existing.clone();
    next.set_field("status", Some(status));
    replace_if_changed(existing, next, now)
}

/// A copy carries the UID of its original.
fn is_copy_of(copy: &Object, original: &Object) -> bool {
    copy.source_uid().is_some_and(|uid| uid.0 == original.uid())
}

fn replace_if_changed(existing: &Object, mut next: Object, now: Timestamp) -> Decision {
    if next == *existing {
        return Decision::Nothing;
    }
    next.annotate(annotation::LAST_UPDATED, now.to_string());
    Decision::Replace(Box::new(next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn application(value: Value) -> Object {
        serde_json::from_value(value).unwrap()
    }

    fn original() -> Object {
        application(
            json!({"metadata": {"name": "a", "namespace": "agent", "uid": "u1", "resourceVersion": "7",
            "annotations": {"argocd.argoproj.io/refresh": "hard"}},
            "spec": {"project": "p"}, "operation": {"sync": {}}}),
        )
    }

    fn copy(uid: &str, status: Value) -> Object {
        application(json!({"metadata": {"name": "a", "namespace": "argocd", "uid": "other",
            "annotations": {"argocd.argoproj.io/source-uid": uid}}, "spec": {"project": "edited"}, "status": status}))
    }

    fn replaced(decision: Decision) -> Object {
        match decision {
            Decision::Replace(object) => *object,
            other => panic!("expected a replacement, got {other:?}"),
        }
    }

    #[test]
    fn the_status_is_taken_and_nothing_else() {
        let next = replaced(take_status(
            Some(&original()),
            &copy("u1", json!({"health": 1})),
            false,
            Timestamp::UNIX_EPOCH,
        ));
        assert_eq!(next.field("status"), Some(&json!({"health": 1})));
        assert_eq!(next.at(&["spec", "project"]), Some(&json!("p")));
        assert_eq!(next.metadata.resource_version.as_deref(), Some("7"));
        assert_eq!(next.annotation(annotation::REFRESH), None, "the cluster has looked again");
        assert_eq!(next.field("operation"), None, "the cluster has taken the operation");
    }

    #[test]
    fn deciding_again_after_acting_gives_nothing() {
        let incoming = copy("u1", json!({"health": 1}));
        let next = replaced(take_status(Some(&original()), &incoming, false, Timestamp::UNIX_EPOCH));
        assert_eq!(take_status(Some(&next), &incoming, false, Timestamp::MAX), Decision::Nothing);
    }

    #[test]
    fn an_operation_that_the_cluster_has_not_heard_of_stays() {
        let next = replaced(take_status(
            Some(&original()),
            &copy("u1", json!({"health": 1})),
            true,
            Timestamp::UNIX_EPOCH,
        ));
        assert!(next.field("operation").is_some());
        assert!(next.annotation(annotation::REFRESH).is_some());
    }

    #[test]
    fn a_request_is_not_taken_for_heard_before_the_watch_has_told_of_it() {
        let before = application(json!({"metadata": {"name": "a", "uid": "u1"}}));
        let named = |content: &str| {
            let asked =
                application(json!({"metadata": {"name": "a", "uid": "u1"}, "operation": {"sync": content}}));
            replaced(ownership::name_operation(&asked, content))
        };
        assert!(shows_untold(Some(&original()), Some(&original())), "it has no name: nobody was told of it");
        assert!(shows_untold(Some(&named("1")), Some(&before)));
        assert!(shows_untold(Some(&named("2")), Some(&named("1"))));
        assert!(!shows_untold(Some(&named("1")), Some(&named("1"))));
        assert!(!shows_untold(Some(&before), Some(&named("1"))));
        let mut refreshed = before.clone();
        refreshed.annotate(annotation::REFRESH, "hard");
        assert!(shows_untold(Some(&refreshed), Some(&before)));
        assert!(!shows_untold(Some(&refreshed), Some(&refreshed)));
    }

    #[test]
    fn the_status_of_an_earlier_life_is_left_alone() {
        for uid in ["u0", ""] {
            assert_eq!(
                take_status(
                    Some(&original()),
                    &copy(uid, json!({"health": 1})),
                    false,
                    Timestamp::UNIX_EPOCH
                ),
                Decision::Nothing
            );
        }
    }

    #[test]
    fn a_deletion_is_finished_only_if_it_began_here_and_is_of_this_life() {
        let mut deleting = original();
        deleting.metadata.finalizers = Some(vec!["resources-finalizer.argocd.argoproj.io".into()]);
        assert_eq!(finish_deletion(Some(&deleting), &copy("u1", Value::Null)), Decision::Nothing);
        deleting = application({
            let mut value = serde_json::to_value(&deleting).unwrap();
            value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            value
        });
        assert_eq!(finish_deletion(Some(&deleting), &copy("u0", Value::Null)), Decision::Nothing);
        let next = replaced(finish_deletion(Some(&deleting), &copy("u1", Value::Null)));
        assert_eq!(next.metadata.finalizers, None);
    }

    #[test]
    fn a_failure_is_shown_once() {
        let next = replaced(note_failure(Some(&original()), "no", Timestamp::UNIX_EPOCH));
        assert_eq!(next.at(&["status", "conditions"]).unwrap()[0]["message"], "no");
        assert_eq!(note_failure(Some(&next), "no", Timestamp::MAX), Decision::Nothing);
        let again = replaced(note_failure(Some(&next), "still no", Timestamp::MAX));
        assert_eq!(again.at(&["status", "conditions"]).unwrap().as_array().unwrap().len(), 1);
    }
}
