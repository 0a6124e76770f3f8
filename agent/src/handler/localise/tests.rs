use std::sync::Arc;

use tiphys_shared::model::SourceUid;
use tiphys_shared::protocol::mirror::Wanted;
use tiphys_shared::protocol::ownership::{
    AdoptionPolicy, Decision, MismatchPolicy, Policy, assume, decide, set_operation, terminate_operation,
};

use super::*;

const POLICY: Policy = Policy { mismatch: MismatchPolicy::Recreate, adoption: AdoptionPolicy::Always };

fn object(value: Value) -> Object {
    serde_json::from_value(value).unwrap()
}

fn original(uid: &str) -> Object {
    object(json!({
        "metadata": {"name": "a", "namespace": "agent", "uid": uid, "resourceVersion": "9", "generation": 3,
            "labels": {"team": "x"}, "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "n", "uid": "z"}],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "note": "kept"}},
        "spec": {"project": "p", "destination": {"server": "https://proxy:9090?agentName=agent", "name": "agent", "namespace": "guests"}},
        "operation": {"sync": {}}, "status": {"health": {"status": "Healthy"}},
    }))
}

fn wanted(uid: &str) -> Wanted {
    Wanted::Present(Arc::new(localise(Kind::Application, &original(uid), "argocd", Some("principal"), false)))
}

/// What the API server makes of an object.
fn stored(decision: Decision) -> Object {
    match decision {
        Decision::Create(object) | Decision::Replace(object) => {
            let mut object = *object;
            object.metadata.uid = Some("local".to_owned());
            object.metadata.resource_version = Some("1".to_owned());
            object
        }
        other => panic!("nothing is written: {other:?}"),
    }
}

fn decide_here(existing: Option<&Object>, wanted: &Wanted, policy: Policy) -> Decision {
    decide(Kind::Application, Scope::Spec, existing, Some(wanted), policy)
}

#[test]
fn a_copy_has_the_clusters_destination_and_says_where_it_comes_from() {
    let local = localise(Kind::Application, &original("u1"), "argocd", Some("principal"), false);
    assert_eq!(
        local.at(&["spec", "destination"]),
        Some(&json!({"name": "in-cluster", "namespace": "guests"}))
    );
    assert_eq!(local.namespace(), "argocd");
    assert_eq!(local.source_uid(), Some(SourceUid("u1".into())));
    assert_eq!(local.annotation("argocd.argoproj.io/principal-uid"), Some("principal"));
    assert_eq!(local.annotation("note"), Some("kept"));
    assert_eq!(local.annotation(annotation::LAST_APPLIED), None);
    assert_eq!(local.metadata.owner_references, None);
    assert_eq!(local.metadata.uid, None);
    assert_eq!(local.field("status"), None);
    assert_eq!(local.field("operation"), None);
}

#[test]
fn deciding_again_after_acting_gives_nothing() {
    let wanted = wanted("u1");
    let existing = stored(decide_here(None, &wanted, POLICY));
    assert_eq!(decide_here(Some(&existing), &wanted, POLICY), Decision::Nothing);
}

#[test]
fn an_edit_of_the_spec_is_undone_and_the_clusters_own_fields_stay() {
    let wanted = wanted("u1");
    let mut edited = stored(decide_here(None, &wanted, POLICY));
    edited.set_field("status", Some(json!({"sync": {"status": "Synced"}})));
    edited.set_field("operation", Some(json!({"sync": {}})));
    edited.annotate(annotation::REFRESH, "normal");
    assert_eq!(
        decide_here(Some(&edited), &wanted, POLICY),
        Decision::Nothing,
        "the cluster's own fields are its own"
    );
    edited.data["spec"]["project"] = json!("other");
    edited.metadata.labels = None;
    let mended = stored(decide_here(Some(&edited), &wanted, POLICY));
    assert_eq!(mended.at(&["spec", "project"]), Some(&json!("p")));
    assert_eq!(mended.label("team"), Some("x"));
    assert!(mended.field("status").is_some() && mended.field("operation").is_some());
    assert_eq!(mended.annotation(annotation::REFRESH), Some("normal"));
}

#[test]
fn a_resource_that_was_deleted_here_comes_back_and_one_that_is_going_is_waited_for() {
    let wanted = wanted("u1");
    assert!(matches!(decide_here(None, &wanted, POLICY), Decision::Create(_)));
    let mut going = serde_json::to_value(stored(decide_here(None, &wanted, POLICY))).unwrap();
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    going["spec"]["project"] = json!("other");
    assert_eq!(decide_here(Some(&object(going)), &wanted, POLICY), Decision::Nothing);
}

#[test]
fn only_the_life_that_is_meant_is_deleted() {
    let existing = stored(decide_here(None, &wanted("u2"), POLICY));
    let gone = |uid: &str| Wanted::Absent(SourceUid(uid.into()));
    assert_eq!(decide_here(Some(&existing), &gone("u2"), POLICY), Decision::Delete);
    assert_eq!(decide_here(Some(&existing), &gone("u1"), POLICY), Decision::Nothing);
    let mut strange = existing;
    strange.metadata.annotations = None;
    assert_eq!(decide_here(Some(&strange), &gone("u2"), POLICY), Decision::Nothing, "a stranger was deleted");
    assert_eq!(decide_here(None, &gone("u1"), POLICY), Decision::Nothing);
}

#[test]
fn a_copy_of_an_earlier_life_is_replaced_or_reparented_as_the_policy_says() {
    let mut existing = stored(decide_here(None, &wanted("u1"), POLICY));
    let same = stored(decide_here(Some(&existing), &wanted("u2"), POLICY));
    assert_eq!(same.source_uid(), Some(SourceUid("u2".into())), "the same spec needs no new object");
    existing.data["spec"]["project"] = json!("other");
    assert_eq!(decide_here(Some(&existing), &wanted("u2"), POLICY), Decision::Delete);
    let upsert = Policy { mismatch: MismatchPolicy::Upsert, ..POLICY };
    let next = stored(decide_here(Some(&existing), &wanted("u2"), upsert));
    assert_eq!(next.source_uid(), Some(SourceUid("u2".into())));
    let mut annotated = original("u2");
    annotated.annotate(annotation::MISMATCH_POLICY, "upsert");
    let annotated = Wanted::Present(Arc::new(localise(
        Kind::Application,
        &annotated,
        "argocd",
        Some("principal"),
        false,
    )));
    assert!(matches!(decide_here(Some(&existing), &annotated, POLICY), Decision::Replace(_)));
    let other_principal = Wanted::Present(Arc::new(localise(
        Kind::Application,
        &original("u2"),
        "argocd",
        Some("standby"),
        false,
    )));
    assert!(matches!(decide_here(Some(&existing), &other_principal, POLICY), Decision::Replace(_)));
}

#[test]
fn what_was_here_before_is_adopted_unless_the_policy_forbids_it() {
    let mut before = stored(decide_here(None, &wanted("u1"), POLICY));
    before.metadata.annotations = None;
    assert!(matches!(decide_here(Some(&before), &wanted("u1"), POLICY), Decision::Replace(_)));
    let never = Policy { adoption: AdoptionPolicy::Never, ..POLICY };
    assert_eq!(decide_here(Some(&before), &wanted("u1"), never), Decision::Nothing);
    before.annotate(annotation::ADOPTION_POLICY, "always");
    assert!(matches!(decide_here(Some(&before), &wanted("u1"), never), Decision::Replace(_)));
    before.annotate(annotation::ADOPTION_POLICY, "never");
    assert_eq!(decide_here(Some(&before), &wanted("u1"), POLICY), Decision::Nothing);
}

#[test]
fn an_operation_is_started_once_and_not_while_one_is_stopped() {
    let mut existing = stored(decide_here(None, &wanted("u1"), POLICY));
    let sync = json!({"sync": {}});
    let next = stored(set_operation(&existing, &sync, Some("first")));
    assert_eq!(next.field("operation"), Some(&sync));
    // Argo CD has taken it, and the request comes again.
    let mut taken = next;
    taken.set_field("operation", None);
    assert_eq!(set_operation(&taken, &sync, Some("first")), Decision::Nothing);
    assert!(matches!(set_operation(&taken, &sync, Some("second")), Decision::Replace(_)));
    existing.set_field("status", Some(json!({"operationState": {"phase": "Running"}})));
    let stopping = stored(terminate_operation(&existing));
    assert_eq!(stopping.at(&["status", "operationState", "phase"]), Some(&json!("Terminating")));
    assert_eq!(set_operation(&stopping, &sync, Some("third")), Decision::Nothing, "it has to wait");
    assert_eq!(set_operation(&stopping, &sync, None), Decision::Nothing);
    assert_eq!(terminate_operation(&stopping), Decision::Nothing);
}

#[test]
fn a_request_has_one_name_for_one_content() {
    use tiphys_shared::protocol::ownership::{Requested, name_operation, requested};

    let mut application = original("u1");
    assert_eq!(requested(&application), Requested::Unnamed);
    application = stored(name_operation(&application, "one"));
    let Requested::Named(first) = requested(&application) else { panic!("it has no name") };
    let first = first.to_owned();
    assert_eq!(name_operation(&application, "two"), Decision::Nothing);
    application.set_field("operation", Some(json!({"sync": {"revision": "v2"}})));
    assert_eq!(requested(&application), Requested::Unnamed, "another operation has the first one's name");
    application = stored(name_operation(&application, "two"));
    assert_ne!(requested(&application), Requested::Named(&first));
}

#[test]
fn what_is_assumed_at_the_start_leaves_what_is_here_alone() {
    let existing = stored(decide_here(None, &wanted("u1"), POLICY));
    let assumed = Wanted::Present(Arc::new(assume(Kind::Application, Scope::Spec, &existing).unwrap()));
    assert_eq!(decide_here(Some(&existing), &assumed, POLICY), Decision::Nothing);
}
