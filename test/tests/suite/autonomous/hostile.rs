//! Autonomous agents that lie: they are told so, and take nothing over.

use kube::api::{ListParams, PostParams};
use kube::core::DynamicObject;
use serde_json::{Value, json};
use tiphys_shared::model::event::{Payload, REFUSED};
use tiphys_shared::model::feature::Features;
use tiphys_shared::model::{Event, EventKind, Kind, Mode, Target};

use super::super::fleet::{Fleet, application, create_namespace};
use super::super::raw::Raw;

fn project(name: &str, uid: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "argocd", "uid": uid},
        "spec": {"destinations": [{"server": "*", "namespace": "*"}], "sourceRepos": ["*"], "roles": []}})
}

fn say(target: Target, kind: EventKind, object: Value) -> Event {
    Event::request(target, kind, Payload::Object(serde_json::from_value(object).unwrap()))
}

async fn refused(liar: &mut Raw, event: Event) -> String {
    liar.say(&event).await;
    liar.hear_ack(&event.id).await.extensions.remove(REFUSED).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_takes_over_no_project_of_the_control_plane_or_of_another_agent() {
    let fleet = Fleet::autonomous(&["a-b"]).await;
    let projects = fleet.at_control(Kind::AppProject, "a-b");
    let mut own: DynamicObject = serde_json::from_value(project("a-own", "")).unwrap();
    own.metadata.uid = None;
    own.metadata.namespace = None;
    own.types =
        Some(kube::core::TypeMeta { api_version: "argoproj.io/v1alpha1".into(), kind: "AppProject".into() });
    projects.create(&PostParams::default(), &own).await.unwrap();
    let mut theirs = own.clone();
    theirs.metadata.name = Some("c".into());
    fleet.at_cluster(Kind::AppProject, "a-b").create(&PostParams::default(), &theirs).await.unwrap();
    let before = Fleet::until_is(&projects, "a-b-c", "the project of a-b", |_| true).await;
    let own = projects.get("a-own").await.unwrap();

    let mut liar = Raw::connect_as(&fleet, "a", Mode::Autonomous, Some(Features::all())).await;
    for (name, shown) in [("own", &own), ("b-c", &before)] {
        for kind in [EventKind::Create, EventKind::SpecUpdate, EventKind::Delete] {
            // The source may be guessed.
            let uid = shown.metadata.annotations.as_ref();
            let uid = uid.and_then(|it| it.get("argocd.argoproj.io/source-uid")).map_or("u", String::as_str);
            let reason = refused(&mut liar, say(Target::AppProject, kind, project(name, uid))).await;
            assert!(reason.contains("is there already"), "{name}: {reason:?}");
        }
        let now = projects.get(shown.metadata.name.as_deref().unwrap()).await.unwrap();
        assert_eq!(now.metadata.resource_version, shown.metadata.resource_version, "{name} was touched");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_the_other_mode_are_refused() {
    let fleet = Fleet::embedded(&[]).await;
    for name in ["auto", "managed"] {
        create_namespace(&fleet.control.client(), name).await;
    }
    let there = fleet.at_control(Kind::Application, "managed");
    there.create(&PostParams::default(), &application("kept", "main")).await.unwrap();
    let app =
        json!({"metadata": {"name": "kept", "namespace": "auto", "uid": "u"}, "spec": {}, "status": {}});
    let mut auto = Raw::connect_as(&fleet, "auto", Mode::Autonomous, Some(Features::all())).await;
    let reason = refused(&mut auto, say(Target::Application, EventKind::StatusUpdate, app.clone())).await;
    assert!(reason.contains("autonomous agent may not send status-update"), "{reason}");
    let reason = refused(&mut auto, say(Target::Repository, EventKind::Create, app.clone())).await;
    assert!(reason.contains("may not send"), "{reason}");
    let mut managed = Raw::connect_as(&fleet, "managed", Mode::Managed, Some(Features::all())).await;
    for kind in [EventKind::Create, EventKind::SpecUpdate] {
        let reason = refused(&mut managed, say(Target::Application, kind, app.clone())).await;
        assert!(reason.contains("managed agent may not send"), "{reason}");
    }
    assert_eq!(there.list(&ListParams::default()).await.unwrap().items.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_of_a_foreign_life_deletes_nothing() {
    let fleet = Fleet::embedded(&[]).await;
    create_namespace(&fleet.control.client(), "edge").await;
    let mut edge = Raw::connect_as(&fleet, "edge", Mode::Autonomous, Some(Features::all())).await;
    let app = |uid: &str| json!({"metadata": {"name": "a", "namespace": "x", "uid": uid}, "spec": {"project": "p"}});
    assert_eq!(refused(&mut edge, say(Target::Application, EventKind::Create, app("1"))).await, "");
    let there = fleet.at_control(Kind::Application, "edge");
    assert!(there.get_opt("a").await.unwrap().is_some());
    for uid in ["2", ""] {
        refused(&mut edge, say(Target::Application, EventKind::Delete, app(uid))).await;
        assert!(there.get_opt("a").await.unwrap().is_some(), "{uid:?} deleted it");
    }
    refused(&mut edge, say(Target::Application, EventKind::Delete, app("1"))).await;
    assert!(there.get_opt("a").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn comparisons_that_lie_are_answered_in_measure_and_delete_nothing() {
    let fleet = Fleet::embedded(&["agent"]).await;
    fleet.create("agent", "kept").await;
    let mut liar = Raw::connect_as(&fleet, "liar", Mode::Managed, Some(Features::all())).await;
    let leaf = |kind: &str, n: u32| json!({"kind": kind, "name": format!("x{n}"), "uid": "u", "digest": "0".repeat(32)});
    let documents = [
        json!({}),
        json!({"scope": "spec", "nodes": "all"}),
        json!({"scope": "everything", "nodes": []}),
        json!({"scope": "spec", "nodes": [{"at": "../..", "count": 1, "sum": "0"}]}),
        json!({"scope": "spec", "nodes": [{"at": "", "count": 1, "sum": "0".repeat(32), "leaves": [leaf("Secret", 1)]}]}),
        json!({"scope": "spec", "nodes": [{"at": "", "count": -1, "sum": "0".repeat(32)}]}),
    ];
    for document in documents {
        let event = Event::request(
            Target::ResourceResync,
            EventKind::ResyncReport,
            Payload::Document(document.clone()),
        );
        let reason = refused(&mut liar, event).await;
        assert!(!reason.is_empty(), "{document} was taken");
    }
    // Well formed, and nothing but lies: it may be told to delete what it says to have, nobody else is.
    let leaves: Vec<Value> = (0..400).map(|n| leaf("Application", n)).collect();
    let lie = json!({"scope": "spec", "nodes": [{"at": "", "count": 400, "sum": "1".repeat(32), "leaves": leaves}]});
    for _ in 0..20 {
        let event =
            Event::request(Target::ResourceResync, EventKind::ResyncReport, Payload::Document(lie.clone()));
        refused(&mut liar, event).await;
    }
    let waiting =
        fleet.principal().agents().into_iter().find(|agent| agent.name.as_str() == "liar").unwrap().outbox;
    assert!(waiting <= 401, "{waiting} entries");
    let here = fleet.at_cluster(Kind::Application, "agent");
    Fleet::until_is(&here, "kept", "the copy", |_| true).await;
}
