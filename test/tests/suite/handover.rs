//! A principal starts while the one before it still runs: a node that is not heard of any more, a deployment that was
//! changed to roll. Both serve one control plane until the old one ends.

use kube::ResourceExt as _;
use kube::api::{Api, PostParams};
use kube::core::DynamicObject;
use serde_json::json;
use tiphys_shared::model::Kind;

use super::fleet::{Cluster, Fleet, application, delete, merge, revision};

async fn change(api: &Api<DynamicObject>, name: &str, to: &str) {
    merge(api, name, json!({"spec": {"source": {"targetRevision": to}}})).await;
}

async fn until_at(api: &Api<DynamicObject>, name: &str, at: &str) -> DynamicObject {
    Fleet::until_is(api, name, at, |app| revision(app) == at).await
}

/// The two places of Applications of an agent.
struct Places {
    control: Api<DynamicObject>,
    cluster: Api<DynamicObject>,
}

impl Places {
    fn of(fleet: &Fleet, agent: &str) -> Self {
        Self {
            control: fleet.at_control(Kind::Application, agent),
            cluster: fleet.at_cluster(Kind::Application, agent),
        }
    }

    /// The cluster owns what is shown; both principals watch. What one of them writes the other one leaves alone: while other
    /// things happen, nothing happens to it.
    async fn check_peace(&self, round: &str) {
        let versions = async |name| self.control.get(name).await.unwrap().resource_version();
        for name in ["app", "deleted"].map(|name| format!("{name}-{round}")) {
            self.cluster.create(&PostParams::default(), &application(&name, "main")).await.unwrap();
            until_at(&self.control, &name, "main").await;
        }
        let (app, gone) = (&format!("app-{round}"), &format!("deleted-{round}"));
        for version in ["v2", "v3", "v4"] {
            change(&self.cluster, app, version).await;
            until_at(&self.control, app, version).await;
        }
        delete(&self.cluster, gone).await;
        Fleet::until_gone(&self.control, gone).await;
        change(&self.control, app, "evil").await;
        until_at(&self.control, app, "v4").await;
        delete(&self.control, app).await;
        until_at(&self.control, app, "v4").await;

        let before = versions(app).await;
        for n in 0..5 {
            let other = format!("other-{round}-{n}");
            self.cluster.create(&PostParams::default(), &application(&other, "main")).await.unwrap();
            until_at(&self.control, &other, "main").await;
        }
        assert_eq!(versions(app).await, before, "they write against each other");
        assert!(
            self.control.get_opt(gone).await.unwrap().is_none(),
            "one brought back what the other deleted"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_principals_at_once_lose_nothing_and_do_not_fight() {
    let clusters = ["edge", "own"].map(|name| (name.to_owned(), Cluster::embedded())).into_iter().collect();
    let mut fleet = Fleet::start(Cluster::embedded(), clusters, &["own"]).await;
    let [edge, own] = ["edge", "own"].map(|agent| Places::of(&fleet, agent));
    fleet.create("edge", "app").await;
    let copy = until_at(&edge.cluster, "app", "main").await;
    own.cluster.create(&PostParams::default(), &application("app", "main")).await.unwrap();
    let shown = until_at(&own.control, "app", "main").await;

    // The agents are the old one's still.
    let old = fleet.start_next_principal().await;
    change(&edge.control, "app", "v2").await;
    until_at(&edge.cluster, "app", "v2").await;
    change(&own.cluster, "app", "v2").await;
    until_at(&own.control, "app", "v2").await;
    own.check_peace("old").await;

    // They move to the new one, and the old one believes that they are away.
    for agent in ["edge", "own"] {
        fleet.kill_agent(agent);
        fleet.start_agent(agent);
    }
    change(&edge.control, "app", "v3").await;
    until_at(&edge.cluster, "app", "v3").await;
    merge(&edge.cluster, "app", json!({"status": {"health": {"status": "Degraded"}}})).await;
    Fleet::until_is(&edge.control, "app", "the status", |app| {
        app.data["status"]["health"]["status"] == "Degraded"
    })
    .await;
    change(&own.cluster, "app", "v3").await;
    until_at(&own.control, "app", "v3").await;
    own.check_peace("new").await;

    drop(old);
    fleet.until_quiet().await;
    assert_eq!(until_at(&edge.cluster, "app", "v3").await.uid(), copy.uid());
    assert_eq!(until_at(&own.control, "app", "v3").await.uid(), shown.uid());
    for (from, to) in [(&edge.control, &edge.cluster), (&own.cluster, &own.control)] {
        delete(from, "app").await;
        Fleet::until_gone(to, "app").await;
    }
}
