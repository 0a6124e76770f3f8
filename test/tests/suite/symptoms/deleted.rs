//! Deleted, resurrected, undeletable.

use kube::ResourceExt as _;
use kube::api::{DeleteParams, PostParams};
use kube::core::DynamicObject;
use serde_json::json;
use tiphys_shared::model::Kind;
use tiphys_shared::protocol::ownership::AdoptionPolicy;

use super::super::fleet::{Fleet, application, delete, merge, revision, source_uid};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn projects_vanish_from_the_control_plane_when_the_principal_restarts() {
    let mut fleet = Fleet::autonomous(&["edge"]).await;
    let here = fleet.at_cluster(Kind::AppProject, "edge");
    let there = fleet.at_control(Kind::AppProject, "edge");
    let mut uids = Vec::new();
    for name in ["default", "shop"] {
        let project: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject", "metadata": {"name": name},
            "spec": {"destinations": [{"server": "https://kubernetes.default.svc", "namespace": "*"}]},
        }))
        .unwrap();
        here.create(&PostParams::default(), &project).await.unwrap();
        uids.push(Fleet::until_is(&there, &format!("edge-{name}"), "the project", |_| true).await.uid());
    }
    for _ in 0..3 {
        fleet.kill_principal();
        fleet.start_principal().await;
        fleet.until_quiet().await;
        for (name, uid) in ["edge-default", "edge-shop"].into_iter().zip(&uids) {
            assert_eq!(there.get(name).await.unwrap().uid(), *uid, "{name} was deleted and made again");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_deleted_on_both_sides_at_once_comes_back_at_every_delete() {
    let mut fleet = Fleet::embedded(&["agent"]).await;
    let (here, there) =
        (fleet.at_cluster(Kind::Application, "agent"), fleet.at_control(Kind::Application, "agent"));
    for with_agent in [true, false] {
        fleet.create("agent", "doomed").await;
        Fleet::until_is(&here, "doomed", "the copy", |_| true).await;
        fleet.until_quiet().await;
        if !with_agent {
            fleet.kill_agent("agent");
        }
        let by_hand = async {
            match here.delete("doomed", &DeleteParams::background()).await {
                // The other deletion has come already.
                Err(kube::Error::Api(status)) if with_agent && status.is_not_found() => {}
                deleted => drop(deleted.unwrap()),
            }
        };
        tokio::join!(delete(&there, "doomed"), by_hand);
        if !with_agent {
            fleet.start_agent("agent");
        }
        fleet.create("agent", "next").await;
        Fleet::until_is(&here, "next", "what comes after", |_| true).await;
        fleet.until_quiet().await;
        Fleet::until_gone(&here, "doomed").await;
        assert!(there.get_opt("doomed").await.unwrap().is_none());
        delete(&there, "next").await;
        Fleet::until_gone(&here, "next").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_never_gets_an_update_again_after_its_deletion_was_undone() {
    let fleet = Fleet::embedded(&["agent"]).await;
    let (here, there) =
        (fleet.at_cluster(Kind::Application, "agent"), fleet.at_control(Kind::Application, "agent"));
    fleet.create("agent", "app").await;
    for round in 0..3 {
        let copy = Fleet::until_is(&here, "app", "the copy", |_| true).await;
        delete(&here, "app").await;
        Fleet::until_is(&here, "app", "it back", |app| app.uid() != copy.uid()).await;
        let next = format!("v{round}");
        merge(&there, "app", json!({"spec": {"source": {"targetRevision": next}}})).await;
        Fleet::until_is(&here, "app", "the update", |app| revision(app) == next).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_comes_back_keeps_the_state_of_its_last_sync() {
    let fleet = Fleet::embedded(&["agent"]).await;
    let here = fleet.at_cluster(Kind::Application, "agent");
    fleet.create("agent", "app").await;
    let copy = Fleet::until_is(&here, "app", "the copy", |_| true).await;
    merge(&here, "app", json!({"status": {"operationState": {"phase": "Succeeded"}}})).await;
    let there = fleet.at_control(Kind::Application, "agent");
    Fleet::until_is(&there, "app", "the status", |app| !app.data["status"].is_null()).await;
    delete(&here, "app").await;
    let again = Fleet::until_is(&here, "app", "it back", |app| app.uid() != copy.uid()).await;
    assert!(again.data["status"].is_null(), "automated sync would believe that it has been done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirrored_app_deleted_in_the_ui_stays_gone_until_the_agent_restarts() {
    let fleet = Fleet::autonomous(&["edge"]).await;
    let here = fleet.at_cluster(Kind::Application, "edge");
    let there = fleet.at_control(Kind::Application, "edge");
    here.create(&PostParams::default(), &application("app", "main")).await.unwrap();
    let copy = Fleet::until_is(&there, "app", "it to be shown", |_| true).await;
    // The UI deletes with a finalizer, in the foreground.
    merge(&there, "app", json!({"metadata": {"finalizers": ["resources-finalizer.argocd.argoproj.io"]}}))
        .await;
    there.delete("app", &DeleteParams::background()).await.unwrap();
    Fleet::until_is(&there, "app", "it back", |app| {
        app.uid() != copy.uid() && app.metadata.deletion_timestamp.is_none()
    })
    .await;
    assert!(here.get_opt("app").await.unwrap().is_some(), "the original was deleted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_was_there_before_is_ignored_without_a_word() {
    let mut fleet = Fleet::embedded(&["agent"]).await;
    let here = fleet.at_cluster(Kind::Application, "agent");
    let there = fleet.at_control(Kind::Application, "agent");
    let before = here.create(&PostParams::default(), &application("adopted", "theirs")).await.unwrap();
    fleet.create("agent", "adopted").await;
    let adopted = Fleet::until_is(&here, "adopted", "the adoption", |app| revision(app) == "main").await;
    assert_eq!(adopted.uid(), before.uid(), "it was torn down instead");
    assert!(!source_uid(&adopted).is_empty());

    fleet.kill_agent("agent");
    fleet.adoption = AdoptionPolicy::Never;
    fleet.start_agent("agent");
    here.create(&PostParams::default(), &application("foreign", "theirs")).await.unwrap();
    fleet.create("agent", "foreign").await;
    let told = Fleet::until_is(&there, "foreign", "the condition", |app| {
        app.data["status"]["conditions"][0]["type"] == "AgentError"
    })
    .await;
    let message = told.data["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(message.contains("adoption policy is never"), "{message}");
    assert_eq!(revision(&here.get("foreign").await.unwrap()), "theirs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_made_again_while_the_agent_was_away_tears_down_the_workload() {
    let mut fleet = Fleet::embedded(&["agent"]).await;
    let (here, there) =
        (fleet.at_cluster(Kind::Application, "agent"), fleet.at_control(Kind::Application, "agent"));
    fleet.create("agent", "app").await;
    let copy = Fleet::until_is(&here, "app", "the copy", |_| true).await;
    fleet.until_quiet().await;
    fleet.kill_agent("agent");
    fleet.kill_principal();
    delete(&there, "app").await;
    let again = fleet.create("agent", "app").await;
    fleet.start_principal().await;
    fleet.start_agent("agent");
    let next = Fleet::until_is(&here, "app", "the new source", |app| {
        source_uid(app) == again.uid().unwrap_or_default()
    })
    .await;
    assert_eq!(next.uid(), copy.uid(), "the same spec needs no new object");
}
