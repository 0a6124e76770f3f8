//! Managed mode from end to end.

use kube::ResourceExt as _;
use kube::api::{Api, ListParams, PostParams};
use kube::core::DynamicObject;
use serde_json::{Value, json};
use tiphys_shared::model::Kind;

use super::fleet::{Fleet, application, delete, merge, revision, source_uid};

#[cfg(not(feature = "real-cluster"))]
mod faults;
#[cfg(not(feature = "real-cluster"))]
mod hostile;
#[cfg(not(feature = "real-cluster"))]
mod login;

/// The promises that hold on any API server.
pub(crate) async fn an_application_appears_rewritten_and_its_status_comes_back(fleet: &Fleet, agent: &str) {
    let original = fleet.create(agent, "guestbook").await;
    let here = fleet.at_cluster(Kind::Application, agent);
    let copy = Fleet::until_is(&here, "guestbook", "the copy", |_| true).await;
    assert_eq!(copy.data["spec"]["destination"], json!({"name": "in-cluster", "namespace": "guests"}));
    assert_eq!(source_uid(&copy), original.uid().unwrap());
    assert!(!copy.annotations()["argocd.argoproj.io/principal-uid"].is_empty());
    assert_eq!(copy.labels()["team"], "blue");

    let status = json!({"sync": {"status": "Synced"}, "health": {"status": "Healthy"}});
    merge(&here, "guestbook", json!({"status": status})).await;
    let there = fleet.at_control(Kind::Application, agent);
    let original =
        Fleet::until_is(&there, "guestbook", "the status", |app| app.data["status"] == status).await;
    assert_eq!(original.data["spec"]["destination"]["name"], "somewhere", "the original's spec was touched");

    merge(&there, "guestbook", json!({"spec": {"source": {"targetRevision": "v2"}}})).await;
    Fleet::until_is(&here, "guestbook", "the change", |app| revision(app) == "v2").await;
    fleet.until_quiet().await;
}

pub(crate) async fn what_is_changed_or_deleted_in_the_cluster_is_undone(fleet: &Fleet, agent: &str) {
    fleet.create(agent, "kept").await;
    let here = fleet.at_cluster(Kind::Application, agent);
    let first = Fleet::until_is(&here, "kept", "the copy", |_| true).await;
    merge(
        &here,
        "kept",
        json!({"spec": {"source": {"targetRevision": "evil"}}, "metadata": {"labels": {"team": "red"}}}),
    )
    .await;
    Fleet::until_is(&here, "kept", "the edit undone", |app| {
        revision(app) == "main" && app.labels().get("team").is_some_and(|team| team == "blue")
    })
    .await;
    delete(&here, "kept").await;
    let again = Fleet::until_is(&here, "kept", "the copy back", |app| app.uid() != first.uid()).await;
    assert_eq!(source_uid(&again), source_uid(&first));
    assert!(fleet.at_control(Kind::Application, agent).get_opt("kept").await.unwrap().is_some());
}

pub(crate) async fn a_deletion_with_finalizers_is_finished_on_both_sides(fleet: &Fleet, agent: &str) {
    let there = fleet.at_control(Kind::Application, agent);
    let here = fleet.at_cluster(Kind::Application, agent);
    let mut doomed = application("doomed", "main");
    doomed.metadata.finalizers = Some(vec!["resources-finalizer.argocd.argoproj.io".to_owned()]);
    there.create(&PostParams::default(), &doomed).await.unwrap();
    Fleet::until_is(&here, "doomed", "the copy with its finalizer", |app| !app.finalizers().is_empty()).await;
    delete(&there, "doomed").await;
    Fleet::until_is(&here, "doomed", "the deletion of the copy", |app| {
        app.metadata.deletion_timestamp.is_some()
    })
    .await;
    assert!(there.get_opt("doomed").await.unwrap().is_some(), "it was gone before the cluster had finished");
    // Argo CD on the cluster has deleted the resources.
    merge(&here, "doomed", json!({"metadata": {"finalizers": null}})).await;
    Fleet::until_gone(&here, "doomed").await;
    Fleet::until_gone(&there, "doomed").await;
}

pub(crate) async fn a_delete_and_a_create_of_the_same_name_arrive_as_such(fleet: &Fleet, agent: &str) {
    let there = fleet.at_control(Kind::Application, agent);
    let here = fleet.at_cluster(Kind::Application, agent);
    fleet.create(agent, "phoenix").await;
    let first = Fleet::until_is(&here, "phoenix", "the first life", |_| true).await;
    merge(&here, "phoenix", json!({"status": {"operationState": {"phase": "Failed"}}})).await;
    for life in 2..6 {
        delete(&there, "phoenix").await;
        let original = there
            .create(&PostParams::default(), &application("phoenix", &format!("life-{life}")))
            .await
            .unwrap();
        let uid = original.uid().unwrap();
        let copy = Fleet::until_is(&here, "phoenix", "the next life", |app| source_uid(app) == uid).await;
        assert_eq!(revision(&copy), format!("life-{life}"));
        assert_ne!(copy.uid(), first.uid());
        assert_eq!(copy.data["status"], Value::Null, "the new life has the old one's status");
    }
}

pub(crate) async fn projects_and_repositories_go_to_the_agents_that_may_have_them(
    fleet: &Fleet,
    agent: &str,
    other: &str,
) {
    let projects = fleet.at_control(Kind::AppProject, agent);
    let project: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject", "metadata": {"name": "shop"},
        "spec": {
            "destinations": [{"name": agent, "namespace": "*"}, {"name": "elsewhere", "namespace": "*"}],
            "sourceNamespaces": [agent], "sourceRepos": ["*"],
            "roles": [{"name": "reader", "policies": []}],
        },
    }))
    .unwrap();
    projects.create(&PostParams::default(), &project).await.unwrap();
    let secret: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "repo", "labels": {"argocd.argoproj.io/secret-type": "repository"}},
        "stringData": {"project": "shop", "url": "https://git.example.com/shop.git", "password": "x"},
    }))
    .unwrap();
    fleet.at_control(Kind::Repository, agent).create(&PostParams::default(), &secret).await.unwrap();

    let here = fleet.at_cluster(Kind::AppProject, agent);
    let copy = Fleet::until_is(&here, "shop", "the project", |_| true).await;
    assert_eq!(
        copy.data["spec"]["destinations"],
        json!([{"name": "in-cluster", "server": "https://kubernetes.default.svc", "namespace": "*"}])
    );
    assert_eq!(copy.data["spec"].get("roles"), None);
    assert_eq!(copy.data["spec"].get("sourceNamespaces"), None);
    let repositories = fleet.at_cluster(Kind::Repository, agent);
    Fleet::until_is(&repositories, "repo", "the repository", |_| true).await;

    fleet.until_quiet().await;
    let elsewhere: Api<DynamicObject> = fleet.at_cluster(Kind::AppProject, other);
    assert!(
        elsewhere.list(&ListParams::default()).await.unwrap().items.is_empty(),
        "another agent's project leaked"
    );
    let secrets = fleet.at_cluster(Kind::Repository, other);
    assert!(secrets.get_opt("repo").await.unwrap().is_none(), "another agent's repository leaked");

    merge(&projects, "shop", json!({"spec": {"destinations": [{"name": "elsewhere", "namespace": "*"}]}}))
        .await;
    Fleet::until_gone(&here, "shop").await;
    Fleet::until_gone(&repositories, "repo").await;
}

pub(crate) async fn an_operation_arrives_and_is_taken_off_once_the_cluster_has_it(
    fleet: &Fleet,
    agent: &str,
) {
    let there = fleet.at_control(Kind::Application, agent);
    let here = fleet.at_cluster(Kind::Application, agent);
    fleet.create(agent, "synced").await;
    Fleet::until_is(&here, "synced", "the copy", |_| true).await;
    merge(&there, "synced", json!({"operation": {"sync": {"revision": "abc"}}})).await;
    merge(&there, "synced", json!({"spec": {"source": {"targetRevision": "after"}}})).await;
    Fleet::until_is(&here, "synced", "the operation", |app| {
        app.data["operation"]["sync"]["revision"] == "abc"
    })
    .await;
    // The application controller of the cluster takes it.
    merge(&here, "synced", json!({"operation": null, "status": {"operationState": {"phase": "Running"}}}))
        .await;
    Fleet::until_is(&there, "synced", "the operation taken off", |app| {
        app.data.get("operation").is_none_or(Value::is_null)
            && app.data["status"]["operationState"]["phase"] == "Running"
    })
    .await;
    merge(&there, "synced", json!({"status": {"operationState": {"phase": "Terminating"}}})).await;
    Fleet::until_is(&here, "synced", "the termination", |app| {
        app.data["status"]["operationState"]["phase"] == "Terminating"
    })
    .await;
}

/// All of them, one after the other, on one fleet.
pub(crate) async fn everything(fleet: &Fleet, agent: &str, other: &str) {
    an_application_appears_rewritten_and_its_status_comes_back(fleet, agent).await;
    what_is_changed_or_deleted_in_the_cluster_is_undone(fleet, agent).await;
    a_deletion_with_finalizers_is_finished_on_both_sides(fleet, agent).await;
    a_delete_and_a_create_of_the_same_name_arrive_as_such(fleet, agent).await;
    projects_and_repositories_go_to_the_agents_that_may_have_them(fleet, agent, other).await;
    an_operation_arrives_and_is_taken_off_once_the_cluster_has_it(fleet, agent).await;
}

/// Changes made at the control plane while a side is dead arrive once it is back.
#[cfg(feature = "real-cluster")]
pub(crate) async fn what_happened_while_a_side_was_away_arrives(fleet: &mut Fleet, agent: &str) {
    let there = fleet.at_control(Kind::Application, agent);
    let here = fleet.at_cluster(Kind::Application, agent);
    for name in ["lost", "changed"] {
        fleet.create(agent, name).await;
        Fleet::until_is(&here, name, "the copy", |_| true).await;
    }
    let change = async |revision: &str| {
        merge(&there, "changed", json!({"spec": {"source": {"targetRevision": revision}}})).await;
    };
    fleet.kill_principal();
    change("while the principal was dead").await;
    delete(&there, "lost").await;
    fleet.start_principal().await;
    Fleet::until_is(&here, "changed", "the change", |app| revision(app) == "while the principal was dead")
        .await;
    Fleet::until_gone(&here, "lost").await;
    fleet.kill_agent(agent);
    change("while the agent was dead").await;
    fleet.start_agent(agent);
    Fleet::until_is(&here, "changed", "the change", |app| revision(app) == "while the agent was dead").await;
}

#[cfg(not(feature = "real-cluster"))]
mod embedded {
    use super::*;

    macro_rules! promises {
        ($($name:ident),* $(,)?) => {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let fleet = Fleet::embedded(&["agent"]).await;
                super::$name(&fleet, "agent").await;
            }
        )*};
    }

    promises!(
        an_application_appears_rewritten_and_its_status_comes_back,
        what_is_changed_or_deleted_in_the_cluster_is_undone,
        a_deletion_with_finalizers_is_finished_on_both_sides,
        a_delete_and_a_create_of_the_same_name_arrive_as_such,
        an_operation_arrives_and_is_taken_off_once_the_cluster_has_it,
    );

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn projects_and_repositories_go_to_the_agents_that_may_have_them() {
        let fleet = Fleet::embedded(&["agent", "other"]).await;
        super::projects_and_repositories_go_to_the_agents_that_may_have_them(&fleet, "agent", "other").await;
    }
}
