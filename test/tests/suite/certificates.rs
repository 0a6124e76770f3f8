//! Certificates and keys that are replaced, revoked, asked for and renewed while everything runs. Both sides are set up
//! from options, with what is kept in Secrets.

use std::ops::Deref;

use prometheus::Registry;
use tiphys_shared::process::metrics;
use tiphys_shared::security::tls::Material;
use tiphys_test::installation::secrets::{self, AGENT_TLS, AUTHORITIES};
use tiphys_test::installation::{Cluster, Edge, Installation, Servers, reloads};

use super::fleet::Fleet;

mod joining;
mod revocation;
mod rotation;

pub(super) const NAMESPACE: &str = "argocd";

/// A control plane with a principal.
pub(super) struct Stage(Installation);

impl Deref for Stage {
    type Target = Installation;

    fn deref(&self) -> &Installation {
        &self.0
    }
}

pub(super) async fn put(cluster: &Cluster, name: &str, data: &[(&str, &[u8])]) {
    secrets::put(&cluster.client(), name, data).await.unwrap();
}

pub(super) async fn put_pair(cluster: &Cluster, name: &str, material: &Material) {
    secrets::put_pair(&cluster.client(), name, material).await.unwrap();
}

/// The sum of a figure over all samples whose labels contain `labels`.
pub(super) fn figure(figures: &Registry, name: &str, labels: &str) -> f64 {
    let text = metrics::render(figures).unwrap();
    let samples = text.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(labels)
    });
    samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

impl Stage {
    pub(super) async fn start(extra: &[&str]) -> Self {
        Self::start_with(extra, |_| {}).await
    }

    /// The same with something that no option says.
    pub(super) async fn start_with(
        extra: &[&str],
        adjust: impl FnOnce(&mut tiphys_principal::Config),
    ) -> Self {
        _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        Self(Installation::start_with(Servers::Embedded, extra, adjust).await.unwrap())
    }

    /// A cluster for an agent. What it needs to connect is not there yet.
    pub(super) async fn cluster(&self, name: &str) -> Cluster {
        self.0.cluster(name).await.unwrap()
    }

    /// A cluster with a certificate for its agent.
    pub(super) async fn known_cluster(&self, name: &str, material: &Material) -> Cluster {
        let cluster = self.cluster(name).await;
        put(&cluster, AUTHORITIES, &[("ca.crt", &material.ca)]).await;
        put_pair(&cluster, AGENT_TLS, material).await;
        cluster
    }

    /// Starts the agent of a cluster, and waits until it is connected.
    pub(super) async fn agent(&self, cluster: Cluster) -> Edge {
        let edge = self.0.agent(cluster, &[]).await.unwrap();
        Fleet::until("the connection", async || edge.handle.is_connected().then_some(())).await;
        edge
    }

    /// Waits until a use of certificates or keys has been given new ones `times` times.
    pub(super) async fn until_reloaded(figures: &Registry, kind: &str, times: f64) {
        Fleet::until(&format!("{times} new certificates or keys for {kind}"), async || {
            (reloads(figures, kind) >= times).then_some(())
        })
        .await;
    }

    pub(super) async fn end(self) {
        self.0.end(Vec::new()).await.unwrap();
    }
}
