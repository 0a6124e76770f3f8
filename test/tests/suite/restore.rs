//! A control plane is lost, and restored from its backup as the book says.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, ObjectMeta};
use serde_json::json;
use tiphys_shared::kube::kinds;
use tiphys_shared::model::Kind;

use super::fleet::{Cluster, Fleet, application, create_namespace, merge, revision};

/// What the book says is to be backed up, in the order in which it says that it is restored.
fn backed_up() -> Vec<ApiResource> {
    let core =
        |kind, plural| ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", kind), plural);
    vec![
        core("ConfigMap", "configmaps"),
        core("Secret", "secrets"),
        kinds::api_resource(Kind::AppProject),
        kinds::api_resource(Kind::Application),
    ]
}

/// All of that, without what an API server gives to objects.
async fn back_up(fleet: &Fleet) -> Vec<(ApiResource, DynamicObject)> {
    let mut copies = Vec::new();
    for resource in backed_up() {
        let all: Api<DynamicObject> = Api::all_with(fleet.control.client(), &resource);
        for mut object in all.list(&ListParams::default()).await.unwrap() {
            object.types = Some(kube::core::TypeMeta {
                api_version: resource.api_version.clone(),
                kind: resource.kind.clone(),
            });
            object.metadata = ObjectMeta {
                name: object.metadata.name,
                namespace: object.metadata.namespace,
                labels: object.metadata.labels,
                annotations: object.metadata.annotations,
                finalizers: object.metadata.finalizers,
                ..ObjectMeta::default()
            };
            copies.push((resource.clone(), object));
        }
    }
    copies
}

/// As `kubectl apply --server-side --force-conflicts`.
async fn restore(fleet: &Fleet, backup: &[(ApiResource, DynamicObject)]) {
    for (resource, object) in backup {
        let namespace = object.namespace().unwrap();
        create_namespace(&fleet.control.client(), &namespace).await;
        let there: Api<DynamicObject> = Api::namespaced_with(fleet.control.client(), &namespace, resource);
        let apply = PatchParams::apply("kubectl").force();
        there.patch(&object.name_any(), &apply, &Patch::Apply(object)).await.unwrap();
    }
}

/// What an agent holds: the lives of its Applications, and the revisions that they ask for.
async fn held(fleet: &Fleet, agent: &str) -> BTreeMap<String, (String, String)> {
    let here = fleet.at_cluster(Kind::Application, agent).list(&ListParams::default()).await.unwrap();
    here.iter().map(|app| (app.name_any(), (app.uid().unwrap(), revision(app).to_owned()))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_that_is_restored_from_its_backup_deletes_nothing_at_its_agents() {
    let clusters = ["edge", "own"].map(|name| (name.to_owned(), Cluster::embedded())).into_iter().collect();
    let mut fleet = Fleet::start(Cluster::embedded(), clusters, &["own"]).await;
    let here = fleet.at_cluster(Kind::Application, "edge");
    let projects = fleet.at_control(Kind::AppProject, "edge");
    let project: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject", "metadata": {"name": "shop"},
        "spec": {"destinations": [{"name": "edge", "namespace": "*"}], "sourceNamespaces": ["edge"], "sourceRepos": ["*"]},
    }))
    .unwrap();
    projects.create(&PostParams::default(), &project).await.unwrap();
    for name in ["same", "newer"] {
        fleet.create("edge", name).await;
        Fleet::until_is(&here, name, "the copy", |_| true).await;
    }
    // Where it matters, it is said that nothing is to be recreated.
    let there = fleet.at_control(Kind::Application, "edge");
    let upsert =
        json!({"metadata": {"annotations": {"argocd.argoproj.io/source-uid-mismatch-policy": "upsert"}}});
    merge(&there, "newer", upsert).await;
    let own = fleet.at_cluster(Kind::Application, "own");
    own.create(&PostParams::default(), &application("theirs", "main")).await.unwrap();
    Fleet::until_is(&fleet.at_control(Kind::Application, "own"), "theirs", "it to be shown", |_| true).await;
    Fleet::until_is(&fleet.at_cluster(Kind::AppProject, "edge"), "shop", "the project", |_| true).await;
    fleet.until_quiet().await;

    let backup = back_up(&fleet).await;
    // After the backup, and lost with the control plane.
    merge(&there, "newer", json!({"spec": {"source": {"targetRevision": "v2"}}})).await;
    Fleet::until_is(&here, "newer", "the change", |app| revision(app) == "v2").await;
    let (before, theirs) = (held(&fleet, "edge").await, held(&fleet, "own").await);
    fleet.kill_principal();
    fleet.control = Cluster::embedded();
    // Meanwhile the clusters go on.
    merge(&here, "same", json!({"status": {"health": {"status": "Degraded"}}})).await;
    merge(&own, "theirs", json!({"spec": {"source": {"targetRevision": "v3"}}})).await;

    restore(&fleet, &backup).await;
    fleet.start_principal().await;
    let there = fleet.at_control(Kind::Application, "edge");
    Fleet::until_is(&there, "same", "what happened meanwhile", |app| {
        app.data["status"]["health"]["status"] == "Degraded"
    })
    .await;
    Fleet::until_is(&fleet.at_control(Kind::Application, "own"), "theirs", "the newer state", |app| {
        revision(app) == "v3"
    })
    .await;
    Fleet::until_is(&here, "newer", "the state of the backup", |app| revision(app) == "main").await;
    fleet.until_quiet().await;
    // Each copy is of the same life as before: none was deleted, not even to come back at once.
    let mut expected = before;
    expected.get_mut("newer").unwrap().1 = "main".to_owned();
    assert_eq!(held(&fleet, "edge").await, expected);
    let lives =
        |held: BTreeMap<String, (String, String)>| held.into_values().map(|(uid, _)| uid).collect::<Vec<_>>();
    assert_eq!(lives(held(&fleet, "own").await), lives(theirs));
    assert!(fleet.at_cluster(Kind::AppProject, "edge").get_opt("shop").await.unwrap().is_some());

    // It is a control plane as before.
    merge(&there, "same", json!({"spec": {"source": {"targetRevision": "v4"}}})).await;
    Fleet::until_is(&here, "same", "a change", |app| revision(app) == "v4").await;
}
