//! API servers that options can name.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::json;
use tiphys_apiserver::ApiServer;
use tokio_util::sync::CancellationToken;

use crate::chaos::realm::ARGOCD;
use crate::load::cluster::Cluster as Context;

/// Where API servers come from.
pub enum Servers {
    /// They are embedded, and served on loopback until the end.
    Embedded,
    /// They are the contexts cluster-0, cluster-1 and so on of this kubeconfig, as `hack/kube.sh` makes it; each is used
    /// once.
    Real(PathBuf, AtomicUsize),
}

impl Servers {
    /// Those of a kubeconfig.
    pub fn real(kubeconfig: PathBuf) -> Self {
        Self::Real(kubeconfig, AtomicUsize::new(0))
    }

    /// The next one, which knows Argo CD's kinds and has its namespace. An embedded one keeps its kubeconfig in `folder`.
    pub(super) async fn next(
        &self,
        folder: &Path,
        name: &str,
        stop: &CancellationToken,
    ) -> anyhow::Result<Cluster> {
        match self {
            Self::Embedded => Cluster::serve(folder.join(name), name, stop).await,
            Self::Real(kubeconfig, used) => {
                let context = format!("cluster-{}", used.fetch_add(1, Ordering::Relaxed));
                let client = Context::connect(Some(kubeconfig), Some(&context), false).await?.client;
                Ok(Cluster { name: name.to_owned(), client, kubeconfig: kubeconfig.clone(), context })
            }
        }
    }
}

/// An API server that options can name.
pub struct Cluster {
    pub(super) name: String,
    client: Client,
    kubeconfig: PathBuf,
    context: String,
}

impl Cluster {
    async fn serve(kubeconfig: PathBuf, name: &str, stop: &CancellationToken) -> anyhow::Result<Self> {
        let server = ApiServer::new(tiphys_apiserver::Options::default());
        let definitions = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds");
        for file in ["applications.yaml", "appprojects.yaml"] {
            server.install_crds(&std::fs::read_to_string(definitions.join(file))?)?;
        }
        let bound = server.bind((Ipv4Addr::LOCALHOST, 0).into(), None).await?;
        let text = format!(
            "clusters: [{{name: c, cluster: {{server: 'http://{}'}}}}]\nusers: [{{name: u, user: {{}}}}]\n\
             contexts: [{{name: here, context: {{cluster: c, user: u}}}}]\n",
            bound.local_addr()
        );
        std::fs::write(&kubeconfig, text)?;
        tokio::spawn(bound.run(stop.clone()));
        let cluster =
            Self { name: name.to_owned(), client: server.client(), kubeconfig, context: "here".to_owned() };
        cluster.create_namespace(ARGOCD).await?;
        Ok(cluster)
    }

    /// A client; of an embedded API server, without a network in between.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The options that name it, and the namespace of Argo CD there.
    pub(super) fn named(&self) -> [String; 3] {
        [
            format!("--kubeconfig={}", self.kubeconfig.display()),
            format!("--kubecontext={}", self.context),
            format!("--namespace={ARGOCD}"),
        ]
    }

    pub(super) async fn create_namespace(&self, name: &str) -> anyhow::Result<()> {
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        Api::all(self.client()).create(&PostParams::default(), &namespace).await?;
        Ok(())
    }
}
