//! What Argo CD's cluster view shows of agents and their clusters.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use tiphys_agent::ClusterCacheConfig;
use tiphys_principal::ClusterViewConfig;
use tiphys_shared::model::Kind;
use tiphys_shared::model::cluster::{ClusterInfo, Compression};
use tiphys_shared::redis::Login;

use crate::fleet::Fleet;
use crate::redis_server::RedisServer;

const HERE: &str = "cluster|info|https://kubernetes.default.svc|1.8.3.gz";

fn server_url(agent: &str) -> String {
    format!("https://argocd-agent-resource-proxy:9090?agentName={agent}")
}

fn key(agent: &str) -> String {
    format!("cluster|info|{}|1.8.3.gz", server_url(agent))
}

/// What a cluster's own Argo CD keeps.
fn counted(applications: i64) -> Vec<u8> {
    let info = json!({
        "connectionState": {"status": "Successful", "message": "", "attemptedAt": "2026-11-21T15:00:00Z"},
        "serverVersion": "1.33",
        "cacheInfo": {"resourcesCount": 431, "apisCount": 62, "lastCacheSyncTime": "2026-11-21T15:00:00Z"},
        "applicationsCount": applications,
    });
    let info: ClusterInfo = serde_json::from_value(info).unwrap();
    info.encode(Compression::Gzip).unwrap()
}

/// A fleet that keeps Argo CD's cluster view in `control` and reads what is counted from `cluster`, with a cluster Secret
/// for each of `shown`.
async fn fleet(agents: &[&str], shown: &[&str], control: &RedisServer, cluster: &RedisServer) -> Fleet {
    let mut fleet = Fleet::embedded(agents).await;
    for agent in agents {
        fleet.kill_agent(agent);
    }
    fleet.kill_principal();
    for agent in shown {
        let secrets: Api<k8s_openapi::api::core::v1::Secret> =
            Api::namespaced(fleet.control.client(), &fleet.namespace);
        let labels = BTreeMap::from([
            ("argocd.argoproj.io/secret-type", "cluster"),
            ("argocd-agent.argoproj-labs.io/agent-name", *agent),
        ]);
        let secret = json!({
            "metadata": {"name": format!("cluster-{agent}"), "labels": labels},
            "stringData": {"name": agent, "server": server_url(agent)},
        });
        secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    }
    fleet.cluster_view = Some(ClusterViewConfig { redis: control.access(), compression: Compression::Gzip });
    fleet.cluster_cache =
        Some(ClusterCacheConfig { redis: cluster.access(), interval: Duration::from_millis(50) });
    fleet.start_principal().await;
    for agent in agents {
        fleet.start_agent(agent);
    }
    fleet
}

/// Waits until what is shown of an agent's cluster is so.
async fn until_shown(
    control: &RedisServer,
    agent: &str,
    what: &str,
    is_so: impl Fn(&Value) -> bool,
) -> Value {
    Fleet::until(what, async || control.unpacked(&key(agent)).filter(&is_so)).await
}

fn status(info: &Value) -> &str {
    info["connectionState"]["status"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn argocd_sees_which_agents_are_connected_and_what_is_on_their_clusters() {
    let (control, cluster) = (RedisServer::start("hunter2").await, RedisServer::start("").await);
    cluster.keep(HERE, counted(3));
    // Its turn is before the other's.
    let mut fleet = fleet(&["anon", "edge"], &["edge"], &control, &cluster).await;

    let info = until_shown(&control, "edge", "the figures", |info| info["applicationsCount"] == 3).await;
    assert_eq!(info["connectionState"]["message"], "Agent: 'edge' is connected with principal");
    assert_eq!(status(&info), "Successful");
    assert_eq!(info["cacheInfo"], json!({"resourcesCount": 431, "apisCount": 62}));
    assert_eq!(control.lives(&key("edge")), Some(600));

    cluster.keep(HERE, counted(4));
    until_shown(&control, "edge", "new figures", |info| info["applicationsCount"] == 4).await;

    fleet.kill_agent("edge");
    let info = until_shown(&control, "edge", "the end", |info| status(info) == "Failed").await;
    assert_eq!(info["connectionState"]["message"], "Agent: 'edge' is disconnected with principal");
    assert_eq!(info["applicationsCount"], 4, "what was known is gone");

    fleet.start_agent("edge");
    until_shown(&control, "edge", "the return", |info| status(info) == "Successful").await;
    let connected = fleet.principal().agents().iter().filter(|agent| agent.connected_since.is_some()).count();
    assert_eq!(connected, 2);
    assert_eq!(
        control.keys(),
        [key("edge")],
        "something was written about an agent without a cluster secret"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_principal_that_restarts_learns_figures_that_have_not_changed() {
    let (control, cluster) = (RedisServer::start("").await, RedisServer::start("hunter2").await);
    cluster.keep(HERE, counted(3));
    let mut fleet = fleet(&["edge"], &["edge"], &control, &cluster).await;
    until_shown(&control, "edge", "the figures", |info| info["applicationsCount"] == 3).await;
    fleet.kill_principal();
    control.forget();
    fleet.start_principal().await;
    let info =
        until_shown(&control, "edge", "the figures again", |info| info["applicationsCount"] == 3).await;
    assert_eq!(status(&info), "Successful");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_away_holds_nothing_up_and_is_filled_when_it_comes() {
    let (mut control, mut cluster) = (RedisServer::start("").await, RedisServer::start("").await);
    cluster.keep(HERE, counted(3));
    control.stop().await;
    cluster.stop().await;
    let fleet = fleet(&["edge"], &["edge"], &control, &cluster).await;
    fleet.create("edge", "shop").await;
    Fleet::until_is(&fleet.at_cluster(Kind::Application, "edge"), "shop", "the application", |_| true).await;

    control.resume().await;
    until_shown(&control, "edge", "the connection", |info| status(info) == "Successful").await;
    cluster.resume().await;
    until_shown(&control, "edge", "the figures", |info| info["applicationsCount"] == 3).await;

    // Connections that were open break, too.
    control.stop().await;
    cluster.keep(HERE, counted(5));
    control.resume().await;
    until_shown(&control, "edge", "new figures", |info| info["applicationsCount"] == 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_for_redis_holds_nothing_up() {
    let (control, cluster) = (RedisServer::start("hunter2").await, RedisServer::start("").await);
    let mut fleet = fleet(&["edge"], &["edge"], &control, &cluster).await;
    fleet.kill_principal();
    let wrong = Login::Given { username: String::new(), password: "hunter3".into() };
    if let Some(view) = &mut fleet.cluster_view {
        view.redis.login = wrong;
    }
    control.forget();
    fleet.start_principal().await;
    fleet.create("edge", "shop").await;
    Fleet::until_is(&fleet.at_cluster(Kind::Application, "edge"), "shop", "the application", |_| true).await;
    Fleet::until("a refusal", async || (control.refusals() > 0).then_some(())).await;
    assert_eq!(control.keys(), Vec::<String>::new());
}
