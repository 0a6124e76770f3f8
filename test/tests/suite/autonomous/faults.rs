//! Killing either side, at any time and repeatedly, loses nothing and does nothing twice.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};
use tiphys_shared::model::Kind;
use tiphys_shared::model::argocd::annotation;

use super::super::fleet::{Fleet, application, create_namespace, delete, merge, revision, source_uid};
use super::{NAME, at_cluster, create, fleet, shown};

async fn change(fleet: &Fleet, round: usize) {
    let here = at_cluster(fleet);
    for n in 0..12 {
        let name = format!("app-{n}");
        let exists = here.get_opt(&name).await.unwrap().is_some();
        let new = application(&name, &format!("r{round}"));
        match (exists, (n + round) % 4) {
            (false, _) => _ = here.create(&PostParams::default(), &new).await.unwrap(),
            (true, 0) => delete(&here, &name).await,
            (true, 1) => {
                delete(&here, &name).await;
                here.create(&PostParams::default(), &new).await.unwrap();
            }
            (true, 2) => {
                let health = json!({"status": "Progressing", "message": format!("round {round}")});
                merge(&here, &name, json!({"status": {"health": health}})).await;
            }
            (true, _) => {
                let revision = format!("r{round}-{n}");
                merge(&here, &name, json!({"spec": {"source": {"targetRevision": revision}}})).await;
            }
        }
    }
}

async fn until_converged(fleet: &Fleet) {
    type Seen = BTreeMap<String, (String, String, Value)>;
    Fleet::until("the same on both sides", async || {
        let list = at_cluster(fleet).list(&ListParams::default()).await.unwrap();
        let here: Seen = list
            .items
            .iter()
            .map(|app| {
                let seen = (app.uid().unwrap(), revision(app).to_owned(), app.data["status"].clone());
                (app.name_any(), seen)
            })
            .collect();
        let list = shown(fleet).list(&ListParams::default()).await.unwrap();
        let there: Seen = list
            .items
            .iter()
            .map(|app| {
                let seen = (source_uid(app).to_owned(), revision(app).to_owned(), app.data["status"].clone());
                (app.name_any(), seen)
            })
            .collect();
        (here == there).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_agent_again_and_again_loses_nothing() {
    let mut fleet = fleet().await;
    for round in 0..4 {
        change(&fleet, round).await;
        fleet.kill_agent("edge");
        change(&fleet, round + 1).await;
        fleet.start_agent("edge");
    }
    until_converged(&fleet).await;
    fleet.until_quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_principal_again_and_again_loses_nothing() {
    let mut fleet = fleet().await;
    for round in 0..4 {
        change(&fleet, round).await;
        fleet.kill_principal();
        change(&fleet, round + 1).await;
        fleet.start_principal().await;
    }
    until_converged(&fleet).await;
    fleet.until_quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_edited_and_deleted_at_the_control_plane_while_nobody_looked_is_undone() {
    let mut fleet = fleet().await;
    create(&fleet).await;
    let here = at_cluster(&fleet);
    here.create(&PostParams::default(), &application("other", "main")).await.unwrap();
    Fleet::until_is(&shown(&fleet), "other", "the other", |_| true).await;
    fleet.until_quiet().await;
    fleet.kill_principal();
    merge(&shown(&fleet), NAME, json!({"spec": {"source": {"targetRevision": "evil"}}})).await;
    delete(&shown(&fleet), "other").await;
    fleet.start_principal().await;
    Fleet::until_is(&shown(&fleet), NAME, "the edit undone", |app| revision(app) == "main").await;
    Fleet::until_is(&shown(&fleet), "other", "the other back", |_| true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_managed_agent_keeps_on_the_control_planes_own_cluster_is_left_to_it() {
    let mut fleet = fleet().await;
    create(&fleet).await;
    fleet.until_quiet().await;
    fleet.kill_agent("edge");
    fleet.kill_principal();
    create_namespace(&fleet.control.client(), "hub").await;
    let hub = fleet.at_control(Kind::Application, "hub");
    let mut copy = application("copy", "main");
    // What such an agent writes.
    copy.metadata.annotations = Some(BTreeMap::from([
        (annotation::SOURCE_UID.to_owned(), "6e94b6cd".to_owned()),
        (annotation::PRINCIPAL_UID.to_owned(), "e4010aac".to_owned()),
        (annotation::SEAL.to_owned(), "0.0".to_owned()),
    ]));
    hub.create(&PostParams::default(), &copy).await.unwrap();
    fleet.start_principal().await;
    merge(&hub, "copy", json!({"spec": {"source": {"targetRevision": "newer"}}})).await;
    // What is shown of an agent that has not come yet is kept as it was, and this change comes after the other.
    merge(&shown(&fleet), NAME, json!({"spec": {"source": {"targetRevision": "evil"}}})).await;
    Fleet::until_is(&shown(&fleet), NAME, "the edit undone", |app| revision(app) == "main").await;
    assert_eq!(
        revision(&hub.get("copy").await.unwrap()),
        "newer",
        "the principal has undone what the agent did"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_asked_for_while_the_agent_is_away_runs_once() {
    let mut fleet = fleet().await;
    create(&fleet).await;
    fleet.until_quiet().await;
    fleet.kill_agent("edge");
    let (here, there) = (at_cluster(&fleet), shown(&fleet));
    merge(&there, NAME, json!({"operation": {"sync": {"revision": "once"}}})).await;
    fleet.kill_principal();
    fleet.start_principal().await;
    fleet.start_agent("edge");
    Fleet::until_is(&here, NAME, "the operation", |app| !app.data["operation"].is_null()).await;
    // Argo CD takes it, both sides die before anybody hears of it, and the request is made again.
    fleet.kill_principal();
    fleet.kill_agent("edge");
    merge(&here, NAME, json!({"operation": null, "status": {"operationState": {"phase": "Succeeded"}}}))
        .await;
    fleet.start_principal().await;
    fleet.start_agent("edge");
    Fleet::until_is(&there, NAME, "the request taken off", |app| app.data["operation"].is_null()).await;
    fleet.until_quiet().await;
    assert!(here.get(NAME).await.unwrap().data["operation"].is_null(), "it was started twice");
}
