//! A control plane without Kubernetes: its resources are kept in a folder of this machine.

use std::path::PathBuf;

use clap::Args;
use tiphys_shared::process::options::{Listen, Problem, Problems};

use super::filled;
use super::kubernetes::KubernetesOptions;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Without Kubernetes")]
pub(super) struct EmbeddedOptions {
    /// Keep the control plane's resources in this folder, and serve them to kubectl and Argo CD, without Kubernetes
    ///
    /// What is missing is made: the folder, Argo CD's resource definitions, its namespace, the CA, certificates and keys.
    /// Then --namespace is argocd, --auth mtls:subject:CN=([^,]+) and --allowed-namespaces * unless they are given, and
    /// Redis is left alone unless --redis-server-address names another one than by default.
    #[arg(long, env = "TIPHYS_PRINCIPAL_EMBEDDED", value_name = "DIR")]
    embedded: Option<PathBuf>,
    /// Interface at which kubectl and Argo CD reach these resources
    #[arg(long, env = "TIPHYS_PRINCIPAL_EMBEDDED_LISTEN_HOST", value_name = "HOST")]
    #[arg(default_value = "127.0.0.1")]
    embedded_listen_host: String,
    /// Port at which kubectl and Argo CD reach these resources; 0 lets the kernel choose
    #[arg(long, env = "TIPHYS_PRINCIPAL_EMBEDDED_LISTEN_PORT", value_name = "PORT", default_value_t = 6443)]
    embedded_listen_port: u16,
    /// Further names and addresses by which agents and clients reach this machine, for the certificates that are made
    #[arg(long, env = "TIPHYS_PRINCIPAL_EMBEDDED_NAMES", value_name = "LIST", value_delimiter = ',')]
    embedded_names: Vec<String>,
}

/// Where the control plane's resources are kept, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedSettings {
    /// The folder.
    pub folder: PathBuf,
    /// Where its API is served.
    pub listen: Listen,
    /// Names and addresses of this machine beside those that are always certified.
    pub names: Vec<String>,
}

/// What other options are if nobody says anything else.
pub(super) const AUTHENTICATION: &str = "mtls:subject:CN=([^,]+)";
pub(super) const NAMESPACE: &str = "argocd";
pub(super) const ALLOWED_NAMESPACES: &str = "*";

impl EmbeddedOptions {
    /// Was a folder named?
    pub(super) fn is_wanted(&self) -> bool {
        self.embedded.as_ref().is_some_and(|folder| !folder.as_os_str().is_empty())
    }

    pub(super) fn check(&self, kubernetes: &KubernetesOptions) -> Result<Option<EmbeddedSettings>, Problems> {
        let Some(folder) = self.embedded.clone().filter(|_| self.is_wanted()) else { return Ok(None) };
        let mut problems = Problems::default();
        let given = [
            ("--kubeconfig", kubernetes.kubeconfig.is_some()),
            ("--kubecontext", filled(kubernetes.kubecontext.clone()).is_some()),
        ];
        for (name, _) in given.into_iter().filter(|(_, given)| *given) {
            problems.add(
                format!("--embedded is set together with {name}: there would be two control planes"),
                format!("choose one: leave out {name} to keep the control plane in {}", folder.display()),
            );
        }
        if folder.is_file() {
            problems.add(
                format!("--embedded {} is a file", folder.display()),
                "name a folder; what is missing in it is made",
            );
        }
        for name in self.embedded_names.iter().filter(|name| name.contains(['/', ' ']) || name.is_empty()) {
            problems.0.push(Problem::new(
                format!("--embedded-names: {name:?} is neither a host name nor an address"),
                "write names such as principal.example.com or 192.0.2.7, separated by commas",
            ));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let listen =
            Listen { host: filled(Some(self.embedded_listen_host.clone())), port: self.embedded_listen_port };
        Ok(Some(EmbeddedSettings { folder, listen, names: self.embedded_names.clone() }))
    }

    /// The port to be compared with others, if there is one.
    pub(super) fn port(&self) -> Option<u16> {
        self.is_wanted().then_some(self.embedded_listen_port)
    }
}
