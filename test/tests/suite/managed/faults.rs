//! Killing either side, at any time and repeatedly, loses nothing and does nothing twice.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use kube::api::{ListParams, PostParams};
use tiphys_shared::model::Kind;

use super::super::fleet::{Fleet, application, delete, merge, revision, source_uid};

/// What an observer must find at the cluster: name → (source UID, revision).
async fn expected(fleet: &Fleet, agent: &str) -> BTreeMap<String, (String, String)> {
    let list = fleet.at_control(Kind::Application, agent).list(&ListParams::default()).await.unwrap();
    list.items.iter().map(|app| (app.name_any(), (app.uid().unwrap(), revision(app).to_owned()))).collect()
}

async fn found(fleet: &Fleet, agent: &str) -> BTreeMap<String, (String, String)> {
    let list = fleet.at_cluster(Kind::Application, agent).list(&ListParams::default()).await.unwrap();
    list.items
        .iter()
        .map(|app| (app.name_any(), (source_uid(app).to_owned(), revision(app).to_owned())))
        .collect()
}

/// Changes of every sort, several in a row for some names.
async fn change(fleet: &Fleet, agent: &str, round: usize) {
    let there = fleet.at_control(Kind::Application, agent);
    for n in 0..12 {
        let name = format!("app-{n}");
        let exists = there.get_opt(&name).await.unwrap().is_some();
        match (exists, (n + round) % 4) {
            (false, _) => {
                there
                    .create(&PostParams::default(), &application(&name, &format!("r{round}")))
                    .await
                    .unwrap();
            }
            (true, 0) => delete(&there, &name).await,
            (true, 1) => {
                delete(&there, &name).await;
                there
                    .create(&PostParams::default(), &application(&name, &format!("again-{round}")))
                    .await
                    .unwrap();
            }
            (true, _) => {
                let patch =
                    serde_json::json!({"spec": {"source": {"targetRevision": format!("r{round}-{n}")}}});
                merge(&there, &name, patch).await;
            }
        }
    }
}

async fn until_converged(fleet: &Fleet, agent: &str) {
    Fleet::until("both sides equal", async || {
        (expected(fleet, agent).await == found(fleet, agent).await).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_principal_again_and_again_loses_nothing() {
    let mut fleet = Fleet::embedded(&["agent"]).await;
    for round in 0..4 {
        change(&fleet, "agent", round).await;
        fleet.kill_principal();
        // What happens while it is away must be found out by itself.
        change(&fleet, "agent", round + 1).await;
        fleet.start_principal().await;
    }
    until_converged(&fleet, "agent").await;
    fleet.until_quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_agent_again_and_again_loses_nothing() {
    let mut fleet = Fleet::embedded(&["agent"]).await;
    for round in 0..4 {
        change(&fleet, "agent", round).await;
        fleet.kill_agent("agent");
        change(&fleet, "agent", round + 1).await;
        fleet.start_agent("agent");
    }
    until_converged(&fleet, "agent").await;
    fleet.until_quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_began_while_both_were_away_is_finished() {
    let mut fleet = Fleet::embedded(&["agent"]).await;
    let there = fleet.at_control(Kind::Application, "agent");
    let here = fleet.at_cluster(Kind::Application, "agent");
    let mut doomed = application("doomed", "main");
    doomed.metadata.finalizers = Some(vec!["resources-finalizer.argocd.argoproj.io".to_owned()]);
    there.create(&PostParams::default(), &doomed).await.unwrap();
    Fleet::until_is(&here, "doomed", "the copy", |_| true).await;
    fleet.kill_agent("agent");
    fleet.kill_principal();
    delete(&there, "doomed").await;
    // The copy goes, finalizer and all, while nobody looks.
    merge(&here, "doomed", serde_json::json!({"metadata": {"finalizers": null}})).await;
    delete(&here, "doomed").await;
    fleet.start_principal().await;
    fleet.start_agent("agent");
    Fleet::until_gone(&there, "doomed").await;
    assert!(here.get_opt("doomed").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_in_the_cluster_while_the_principal_is_away_is_undone_all_the_same() {
    let mut fleet = Fleet::embedded(&["agent"]).await;
    let here = fleet.at_cluster(Kind::Application, "agent");
    fleet.create("agent", "kept").await;
    Fleet::until_is(&here, "kept", "the copy", |_| true).await;
    fleet.until_quiet().await;
    fleet.kill_principal();
    merge(&here, "kept", serde_json::json!({"spec": {"source": {"targetRevision": "evil"}}})).await;
    Fleet::until_is(&here, "kept", "the edit undone", |app| revision(app) == "main").await;
    let status = serde_json::json!({"sync": {"status": "Synced"}});
    merge(&here, "kept", serde_json::json!({"status": status})).await;
    fleet.start_principal().await;
    let there = fleet.at_control(Kind::Application, "agent");
    Fleet::until_is(&there, "kept", "the status from before", |app| app.data["status"] == status).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_of_what_is_taken_over_in_the_background_is_told() {
    let mut fleet = Fleet::embedded(&["agent"]).await;
    // Nothing else may bring it to light.
    fleet.kill_agent("agent");
    fleet.resync_interval = None;
    fleet.kill_principal();
    fleet.start_principal().await;
    fleet.start_agent("agent");
    let here = fleet.at_cluster(Kind::Application, "agent");
    fleet.create("agent", "app").await;
    Fleet::until_is(&here, "app", "the copy", |_| true).await;
    fleet.until_quiet().await;
    // As if somebody had put another in its place.
    let status = serde_json::json!({"sync": {"status": "Synced"}});
    let foreign = serde_json::json!({
        "metadata": {"annotations": {"argocd.argoproj.io/source-uid": null}},
        "status": status,
    });
    merge(&here, "app", foreign).await;
    let there = fleet.at_control(Kind::Application, "agent");
    Fleet::until_is(&there, "app", "its status", |app| app.data["status"] == status).await;
}
