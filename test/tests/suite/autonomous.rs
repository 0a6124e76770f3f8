//! Autonomous mode from end to end: the cluster owns, the control plane shows.

use kube::ResourceExt as _;
use kube::api::{Api, ListParams, PostParams};
use kube::core::DynamicObject;
use serde_json::{Value, json};
use tiphys_shared::model::Kind;

use super::fleet::{Fleet, application, delete, merge, revision, source_uid};

mod faults;
mod hostile;

const NAME: &str = "guestbook";

async fn fleet() -> Fleet {
    Fleet::autonomous(&["edge"]).await
}

fn at_cluster(fleet: &Fleet) -> Api<DynamicObject> {
    fleet.at_cluster(Kind::Application, "edge")
}

fn shown(fleet: &Fleet) -> Api<DynamicObject> {
    fleet.at_control(Kind::Application, "edge")
}

/// An Application at the cluster that the control plane shows.
async fn create(fleet: &Fleet) -> DynamicObject {
    let original =
        at_cluster(fleet).create(&PostParams::default(), &application(NAME, "main")).await.unwrap();
    Fleet::until_is(&shown(fleet), NAME, "it to be shown", |_| true).await;
    original
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_is_shown_with_its_status_in_the_namespace_of_its_agent() {
    let fleet = fleet().await;
    let here = at_cluster(&fleet);
    let mut original = application(NAME, "main");
    original.metadata.finalizers = Some(vec!["resources-finalizer.argocd.argoproj.io".to_owned()]);
    let original = here.create(&PostParams::default(), &original).await.unwrap();
    let status = json!({"health": {"status": "Healthy"}, "resources": [
        {"group": "argoproj.io", "kind": "Application", "namespace": fleet.namespace, "name": "child"}]});
    merge(&here, NAME, json!({"status": status})).await;
    let copy = Fleet::until_is(&shown(&fleet), NAME, "the status", |app| {
        app.data["status"]["health"]["status"] == "Healthy"
    })
    .await;
    assert_eq!(copy.data["spec"]["destination"], json!({"name": "edge", "namespace": "guests"}));
    assert_eq!(copy.data["spec"]["project"], "edge-default");
    assert_eq!(copy.data["status"]["resources"][0]["namespace"], "edge");
    assert_eq!(source_uid(&copy), original.uid().unwrap());
    assert!(copy.finalizers().is_empty());

    merge(&here, NAME, json!({"spec": {"source": {"targetRevision": "v2"}}})).await;
    Fleet::until_is(&shown(&fleet), NAME, "the change", |app| revision(app) == "v2").await;
    merge(&here, NAME, json!({"metadata": {"finalizers": null}})).await;
    delete(&here, NAME).await;
    Fleet::until_gone(&shown(&fleet), NAME).await;
    fleet.until_quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_is_shown_under_its_agents_name() {
    let fleet = fleet().await;
    let project: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject", "metadata": {"name": "shop"},
        "spec": {
            "destinations": [{"server": "https://kubernetes.default.svc", "namespace": "guests"}],
            "sourceNamespaces": ["x"], "sourceRepos": ["*"],
            "roles": [{"name": "r", "policies": ["p, proj:shop:r, applications, get, shop/*, allow"]}],
        },
    }))
    .unwrap();
    fleet.at_cluster(Kind::AppProject, "edge").create(&PostParams::default(), &project).await.unwrap();
    let copy =
        Fleet::until_is(&fleet.at_control(Kind::AppProject, "edge"), "edge-shop", "the project", |_| true)
            .await;
    assert_eq!(
        copy.data["spec"]["destinations"],
        json!([{"name": "edge", "server": "*", "namespace": "guests"}])
    );
    assert_eq!(copy.data["spec"]["sourceNamespaces"], json!(["edge"]));
    assert_eq!(
        copy.data["spec"]["roles"][0]["policies"][0],
        "p, proj:edge-shop:r, applications, get, edge-shop/edge/*, allow"
    );
    delete(&fleet.at_cluster(Kind::AppProject, "edge"), "shop").await;
    Fleet::until_gone(&fleet.at_control(Kind::AppProject, "edge"), "edge-shop").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_users_change_or_delete_at_the_control_plane_is_undone_at_once() {
    let mut fleet = fleet().await;
    let original = create(&fleet).await;
    let there = shown(&fleet);
    // With the agent, and without.
    for round in 0..2 {
        merge(
            &there,
            NAME,
            json!({
                "spec": {"source": {"targetRevision": "evil"}},
                "metadata": {"labels": {"team": "red"}, "finalizers": ["example.com/mine"]},
                "status": {"health": {"status": "Forged"}},
            }),
        )
        .await;
        Fleet::until_is(&there, NAME, "the edit undone", |app| {
            revision(app) == "main"
                && app.labels()["team"] == "blue"
                && app.finalizers().is_empty()
                && app.data["status"].is_null()
        })
        .await;
        let before = there.get(NAME).await.unwrap();
        delete(&there, NAME).await;
        let again = Fleet::until_is(&there, NAME, "it back", |app| app.uid() != before.uid()).await;
        assert_eq!(source_uid(&again), original.uid().unwrap());
        // Even what says where it comes from.
        merge(&there, NAME, json!({"metadata": {"annotations": null}})).await;
        Fleet::until_is(&there, NAME, "the source", |app| source_uid(app) == original.uid().unwrap()).await;
        if round == 0 {
            fleet.kill_agent("edge");
        }
    }
    assert_eq!(revision(&at_cluster(&fleet).get(NAME).await.unwrap()), "main", "the original was touched");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refresh_sync_and_terminate_go_through_to_the_cluster() {
    let fleet = fleet().await;
    create(&fleet).await;
    let (here, there) = (at_cluster(&fleet), shown(&fleet));
    merge(&there, NAME, json!({"metadata": {"annotations": {"argocd.argoproj.io/refresh": "hard"}}})).await;
    let asked = |app: &DynamicObject| app.annotations().contains_key("argocd.argoproj.io/refresh");
    Fleet::until_is(&here, NAME, "the wish", asked).await;
    // Argo CD has looked.
    merge(&here, NAME, json!({"metadata": {"annotations": {"argocd.argoproj.io/refresh": null}}})).await;
    Fleet::until_is(&there, NAME, "the wish taken off", |app| !asked(app)).await;

    merge(&there, NAME, json!({"operation": {"sync": {"revision": "abc"}}})).await;
    Fleet::until_is(&here, NAME, "the operation", |app| app.data["operation"]["sync"]["revision"] == "abc")
        .await;
    merge(&here, NAME, json!({"operation": null, "status": {"operationState": {"phase": "Running"}}})).await;
    Fleet::until_is(&there, NAME, "the operation taken off", |app| {
        app.data.get("operation").is_none_or(Value::is_null)
            && app.data["status"]["operationState"]["phase"] == "Running"
    })
    .await;
    merge(&there, NAME, json!({"status": {"operationState": {"phase": "Terminating"}}})).await;
    Fleet::until_is(&here, NAME, "the termination", |app| {
        app.data["status"]["operationState"]["phase"] == "Terminating"
    })
    .await;
    fleet.until_quiet().await;
    assert!(here.get(NAME).await.unwrap().data.get("operation").is_none_or(Value::is_null), "it ran twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_out_of_synchronisation_is_no_longer_shown() {
    let fleet = fleet().await;
    create(&fleet).await;
    let here = at_cluster(&fleet);
    let ignore =
        |value: Value| json!({"metadata": {"labels": {"argocd-agent.argoproj-labs.io/ignore-sync": value}}});
    merge(&here, NAME, ignore(json!("true"))).await;
    Fleet::until_gone(&shown(&fleet), NAME).await;
    merge(&here, NAME, ignore(Value::Null)).await;
    Fleet::until_is(&shown(&fleet), NAME, "it back", |_| true).await;
    let secrets = fleet.at_cluster(Kind::Repository, "edge");
    let secret: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "repo", "labels": {"argocd.argoproj.io/secret-type": "repository"}},
        "stringData": {"project": "default", "password": "x"},
    }))
    .unwrap();
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    fleet.until_quiet().await;
    let there = fleet.at_control(Kind::Repository, "edge").list(&ListParams::default()).await.unwrap();
    assert!(there.items.iter().all(|secret| secret.name_any() != "repo"), "a secret left its cluster");
}
