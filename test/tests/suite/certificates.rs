//! Certificates and keys that are replaced, revoked, asked for and renewed while everything runs. Both sides are set up
//! from options, with what is kept in Secrets.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use clap::{Args, Command, FromArgMatches};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams, PostParams};
use prometheus::Registry;
use serde_json::json;
use tiphys_shared::process::{clock, metrics};
use tiphys_shared::security::pki::Ca;
use tiphys_shared::security::tls::Material;
use tiphys_shared::security::token::Issuer;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::fleet::{Cluster, DAY, Fleet, create_namespace};

mod joining;
mod revocation;
mod rotation;

pub(super) const NAMESPACE: &str = "argocd";

/// An API server that options can name.
pub(super) struct Served {
    pub(super) cluster: Cluster,
    kubeconfig: String,
}

/// A control plane with a principal, as options make it.
pub(super) struct Stage {
    folder: tempfile::TempDir,
    pub(super) control: Served,
    pub(super) ca: Ca,
    pub(super) address: SocketAddr,
    pub(super) proxy: SocketAddr,
    pub(super) principal: tiphys_principal::Handle,
    pub(super) figures: Registry,
    pub(super) stop: CancellationToken,
    running: JoinHandle<Result<(), tiphys_principal::Error>>,
}

/// An agent with a cluster of its own, as options make it.
pub(super) struct Edge {
    pub(super) cluster: Served,
    pub(super) handle: tiphys_agent::Handle,
    pub(super) figures: Registry,
}

pub(super) fn options<T: Args + FromArgMatches>(line: &[&str]) -> T {
    let command = T::augment_args(Command::new("options").no_binary_name(true));
    T::from_arg_matches(&command.get_matches_from(line)).unwrap()
}

pub(super) async fn put(cluster: &Cluster, name: &str, data: &[(&str, &[u8])]) {
    let secrets: Api<Secret> = Api::namespaced(cluster.client(), NAMESPACE);
    let entries = data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.to_vec())));
    let entries: BTreeMap<String, ByteString> = entries.collect();
    let secret = serde_json::from_value(json!({"metadata": {"name": name}, "data": entries})).unwrap();
    match secrets.create(&PostParams::default(), &secret).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let patch = Patch::Merge(json!({"data": entries}));
            secrets.patch(name, &PatchParams::default(), &patch).await.unwrap();
        }
        Err(error) => panic!("{name}: {error}"),
    }
}

pub(super) async fn put_pair(cluster: &Cluster, name: &str, material: &Material) {
    put(cluster, name, &[("tls.crt", &material.chain), ("tls.key", material.key.expose())]).await;
}

/// The sum of a figure over all samples whose labels contain `labels`.
pub(super) fn figure(figures: &Registry, name: &str, labels: &str) -> f64 {
    let text = metrics::render(figures).unwrap();
    let samples = text.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(labels)
    });
    samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

async fn serve(folder: &std::path::Path, name: &str, stop: &CancellationToken) -> Served {
    let cluster = Cluster::embedded();
    let Cluster::Embedded(server) = &cluster;
    let bound = server.bind(([127, 0, 0, 1], 0).into(), None).await.unwrap();
    let kubeconfig = folder.join(name);
    let text = format!(
        "current-context: here\nclusters: [{{name: c, cluster: {{server: 'http://{}'}}}}]\nusers: [{{name: u, user: {{}}}}]\n\
         contexts: [{{name: here, context: {{cluster: c, user: u, namespace: {NAMESPACE}}}}}]\n",
        bound.local_addr()
    );
    std::fs::write(&kubeconfig, text).unwrap();
    tokio::spawn(bound.run(stop.clone()));
    create_namespace(&cluster.client(), NAMESPACE).await;
    Served { cluster, kubeconfig: kubeconfig.display().to_string() }
}

impl Stage {
    pub(super) async fn start(extra: &[&str]) -> Self {
        _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let folder = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let control = serve(folder.path(), "control", &stop).await;
        let ca = Ca::generate("first", clock::now(), DAY).unwrap();
        let at = &control.cluster;
        let server = ca.issue_server(&["localhost", "127.0.0.1"], clock::now(), DAY).unwrap();
        for name in ["argocd-agent-principal-tls", "argocd-agent-resource-proxy-tls"] {
            put_pair(at, name, &server).await;
        }
        let pem = ca.certificate_pem().as_bytes();
        put(at, "argocd-agent-ca", &[("tls.crt", pem), ("tls.key", ca.key_pem().expose())]).await;
        let key = Issuer::generate_key(2048).unwrap();
        put(at, "argocd-agent-jwt", &[("jwt.key", key.expose())]).await;

        let line = [
            "--kubeconfig",
            &control.kubeconfig,
            "--listen-host=127.0.0.1",
            "--listen-port=0",
            "--resource-proxy-listen-port=0",
            "--redis-server-address=none",
            "--allowed-namespaces=*",
            "--auth=mtls:subject:CN=([^,]+)",
        ];
        let given: tiphys_principal::options::Options = options(&[&line, extra].concat());
        let figures = Registry::new();
        let settings = given.validate().unwrap();
        let way = tiphys_principal::setup::connect(&settings, &figures).await.unwrap();
        let config = tiphys_principal::setup::prepare(&settings, way, figures.clone(), &stop).await;
        let bound = tiphys_principal::bind(config.unwrap()).await.unwrap();
        let (address, proxy, principal) = (bound.address(), bound.proxy_address().unwrap(), bound.handle());
        let running = tokio::spawn(bound.run(stop.clone()));
        principal.ready().await;
        Self { folder, control, ca, address, proxy, principal, figures, stop, running }
    }

    /// A cluster for an agent. What it needs to connect is not there yet.
    pub(super) async fn cluster(&self, name: &str) -> Served {
        create_namespace(&self.control.cluster.client(), name).await;
        serve(self.folder.path(), name, &self.stop).await
    }

    /// A cluster with a certificate for its agent.
    pub(super) async fn known_cluster(&self, name: &str, material: &Material) -> Served {
        let cluster = self.cluster(name).await;
        put(&cluster.cluster, "argocd-agent-ca", &[("ca.crt", &material.ca)]).await;
        put_pair(&cluster.cluster, "argocd-agent-client-tls", material).await;
        cluster
    }

    /// Starts the agent of a cluster, and waits until it is connected.
    pub(super) async fn agent(&self, cluster: Served) -> Edge {
        let port = self.address.port().to_string();
        let given: tiphys_agent::options::Options = options(&[
            "--kubeconfig",
            &cluster.kubeconfig,
            "--server-address=127.0.0.1",
            "--server-port",
            &port,
            "--agent-mode=managed",
            "--creds=mtls:any",
            "--redis-addr=none",
        ]);
        let figures = Registry::new();
        let settings = given.validate().unwrap();
        let (config, link) =
            tiphys_agent::setup::prepare(&settings, figures.clone(), &self.stop).await.unwrap();
        let agent = tiphys_agent::Agent::new(config, link);
        let handle = agent.handle();
        tokio::spawn(agent.run(self.stop.clone()));
        Fleet::until("the connection", async || handle.is_connected().then_some(())).await;
        Edge { cluster, handle, figures }
    }

    /// Waits until a use of certificates or keys has been given new ones `times` times.
    pub(super) async fn until_reloaded(figures: &Registry, kind: &str, times: f64) {
        let labels = format!("kind=\"{kind}\",outcome=\"replaced\"");
        Fleet::until(&format!("{times} new certificates or keys for {kind}"), async || {
            (figure(figures, "tiphys_certificate_reloads_total", &labels) >= times).then_some(())
        })
        .await;
    }

    pub(super) async fn end(self) {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
    }
}
