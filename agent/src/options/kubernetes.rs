//! The API server of this cluster.

use std::path::PathBuf;

use clap::Args;
use tiphys_shared::kube::client::Access;
use tiphys_shared::process::options::{self, Problem};

use super::filled;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kubernetes")]
pub(super) struct KubernetesOptions {
    /// Namespace of Argo CD in this cluster
    #[arg(long, short, env = "ARGOCD_AGENT_NAMESPACE", value_name = "NAME", default_value = "argocd")]
    pub(super) namespace: String,
    /// Kubeconfig file of this cluster; by default $KUBECONFIG, ~/.kube/config, or the cluster around
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context in the kubeconfig, instead of its current one
    #[arg(long, value_name = "NAME")]
    kubecontext: Option<String>,
}

impl KubernetesOptions {
    pub(super) fn check(&self) -> Result<Access, Problem> {
        options::namespace_name("--namespace", &self.namespace)?;
        let access =
            Access { kubeconfig: self.kubeconfig.clone(), context: filled(self.kubecontext.clone()) };
        options::check_access(&access).map(|_| access)
    }
}
