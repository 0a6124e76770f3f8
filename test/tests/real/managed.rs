//! Managed mode on real kube-apiservers: the promises of the embedded ones, on three clusters.

use std::collections::BTreeMap;

use kube::config::{KubeConfigOptions, Kubeconfig};

use super::suite::fleet::{Cluster, Fleet};
use super::suite::managed;

/// The API server of a context, for whoever may do anything.
pub(super) async fn config(context: &str) -> kube::Config {
    let path = std::env::var("TIPHYS_TEST_KUBECONFIG")
        .expect("TIPHYS_TEST_KUBECONFIG names the clusters' kubeconfig");
    let file = Kubeconfig::read_from(path).unwrap();
    let options = KubeConfigOptions { context: Some(context.to_owned()), ..Default::default() };
    kube::Config::from_custom_kubeconfig(file, &options).await.unwrap()
}

pub(super) async fn cluster(context: &str) -> Cluster {
    Cluster::Real(Box::new(config(context).await))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managed_mode_keeps_its_promises_on_real_clusters() {
    // Names that no other run on the same clusters has.
    let (agent, other) = (format!("agent-{}", std::process::id()), format!("other-{}", std::process::id()));
    let clusters = BTreeMap::from([
        (agent.clone(), cluster("cluster-1").await),
        (other.clone(), cluster("cluster-2").await),
    ]);
    let mut fleet = Fleet::start(cluster("cluster-0").await, clusters, &[]).await;
    managed::everything(&fleet, &agent, &other).await;
    managed::what_happened_while_a_side_was_away_arrives(&mut fleet, &agent).await;
}
