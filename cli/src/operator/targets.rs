//! Which clusters a command speaks to. Upstream's flags, and files beside them.

use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, FromArgMatches as _};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use tiphys_shared::kube::client::{self, Access};

use super::local::{Component, LocalConfig};
use crate::failure::Failure;

/// Where Argo CD and its agents are installed if nobody says otherwise.
const NAMESPACE: &str = "argocd";

// The flags. clap would put a docstring in the place of what each command says of itself.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Clusters")]
pub(crate) struct Targets {
    /// Kubeconfig context of the control plane; by default that of --principal, of the local configuration, or the
    /// current one
    #[arg(long, global = true, env = "ARGOCD_AGENT_PRINCIPAL_CONTEXT", value_name = "NAME")]
    principal_context: Option<String>,
    /// Namespace of the principal; argocd if nothing else says so
    #[arg(long, global = true, env = "ARGOCD_AGENT_PRINCIPAL_NAMESPACE", value_name = "NAME")]
    principal_namespace: Option<String>,
    /// Kubeconfig context of the agent's cluster
    #[arg(long, global = true, env = "ARGOCD_AGENT_AGENT_CONTEXT", value_name = "NAME")]
    agent_context: Option<String>,
    /// Namespace of the agent on its cluster; argocd if nothing else says so
    #[arg(long, global = true, env = "ARGOCD_AGENT_AGENT_NAMESPACE", value_name = "NAME")]
    agent_namespace: Option<String>,
    /// Principal of the local configuration
    #[arg(long = "principal", id = "principal-entry", global = true, value_name = "NAME")]
    principal: Option<String>,
    /// Agent of the local configuration
    #[arg(long = "agent", id = "agent-entry", global = true, value_name = "NAME")]
    agent: Option<String>,
    /// The local configuration; by default ~/.config/argocd-agent/ctl.conf
    #[arg(long = "config", id = "local-config", global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Kubeconfig with both contexts; by default $KUBECONFIG, ~/.kube/config, or the cluster around
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Kubeconfig of the agent's cluster, if it is another one
    #[arg(long, global = true, value_name = "FILE")]
    agent_kubeconfig: Option<PathBuf>,
}

/// A namespace of a cluster, reached.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    /// Its API server's URL.
    pub(crate) server: String,
}

impl Site {
    /// Whether both are the same namespace of the same cluster.
    ///
    /// # Errors
    /// A cluster cannot be reached.
    pub(crate) async fn is(&self, other: &Self) -> Result<bool, Failure> {
        Ok(self.namespace == other.namespace && self.is_on_cluster_of(other).await?)
    }

    /// Whether both are the same cluster. One may be reached under several URLs: what tells is the UID of kube-system,
    /// and the URL only where that may not be read.
    ///
    /// # Errors
    /// A cluster cannot be reached.
    pub(crate) async fn is_on_cluster_of(&self, other: &Self) -> Result<bool, Failure> {
        if self.server == other.server {
            return Ok(true);
        }
        let (own, others) = (self.cluster_uid().await?, other.cluster_uid().await?);
        Ok(own.is_some() && own == others)
    }

    async fn cluster_uid(&self) -> Result<Option<String>, Failure> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        match namespaces.get_metadata("kube-system").await {
            Ok(found) => Ok(found.metadata.uid),
            Err(kube::Error::Api(_)) => Ok(None),
            Err(error) => Err(Failure::because(&format!("cannot reach {}", self.server), &error)),
        }
    }
}

/// What is not given is empty: manifests set variables from entries that may be empty.
fn given(value: Option<&String>) -> Option<&str> {
    value.map(String::as_str).filter(|text| !text.is_empty())
}

impl Targets {
    /// What was given. An entry that was named outranks the environment, and what else was named outranks the entry.
    pub(crate) fn read(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut targets = Self::from_arg_matches(matches)?;
        let named = |entry: &Option<String>| given(entry.as_ref()).is_some();
        let (principal, agent) = (named(&targets.principal), named(&targets.agent));
        for (is_outranked, id, value) in [
            (principal, "principal_context", &mut targets.principal_context),
            (principal, "principal_namespace", &mut targets.principal_namespace),
            (agent, "agent_context", &mut targets.agent_context),
            (agent, "agent_namespace", &mut targets.agent_namespace),
        ] {
            if is_outranked && matches.value_source(id) == Some(ValueSource::EnvVariable) {
                *value = None;
            }
        }
        Ok(targets)
    }

    /// File of the local configuration.
    pub(crate) fn local_path(&self) -> Result<PathBuf, Failure> {
        match &self.config {
            Some(path) => Ok(path.clone()),
            None => super::local::default_path(),
        }
    }

    fn local(&self) -> Result<LocalConfig, Failure> {
        match &self.config {
            Some(path) => LocalConfig::read_existing(path),
            // Without a home there is no default file, and nothing in it.
            None => match super::local::default_path() {
                Ok(path) => LocalConfig::read(&path),
                Err(_) => Ok(LocalConfig::default()),
            },
        }
    }

    /// Reaches the control plane.
    pub(crate) async fn control_plane(&self) -> Result<Site, Failure> {
        let entry = match (given(self.principal.as_ref()), given(self.principal_context.as_ref())) {
            (Some(name), _) => Some(self.local()?.principal(name)?),
            (None, Some(_)) => None,
            (None, None) => self.local()?.default_principal(),
        };
        let access = Access { kubeconfig: self.kubeconfig.clone(), context: None };
        let sides = (given(self.principal_context.as_ref()), given(self.principal_namespace.as_ref()));
        site("the control plane", "--principal-context", access, sides, entry).await
    }

    /// Whether a cluster of an agent is named at all.
    pub(crate) fn names_agent_cluster(&self) -> bool {
        given(self.agent_context.as_ref()).is_some()
            || given(self.agent.as_ref()).is_some()
            || self.agent_kubeconfig.is_some()
    }

    /// Namespace of an agent that is on the control plane's cluster.
    pub(crate) fn agent_namespace(&self) -> String {
        given(self.agent_namespace.as_ref()).unwrap_or(NAMESPACE).to_owned()
    }

    /// Reaches the agent's cluster.
    pub(crate) async fn agent_cluster(&self) -> Result<Site, Failure> {
        if !self.names_agent_cluster() {
            return Err(Failure::usage("no cluster of an agent is named")
                .remedy("name it with --agent-context, --agent or --agent-kubeconfig"));
        }
        let entry = given(self.agent.as_ref()).map(|name| self.local()?.agent(name)).transpose()?;
        let kubeconfig = self.agent_kubeconfig.clone().or_else(|| self.kubeconfig.clone());
        let access = Access { kubeconfig, context: None };
        let sides = (given(self.agent_context.as_ref()), given(self.agent_namespace.as_ref()));
        site("the agent's cluster", "--agent-context", access, sides, entry).await
    }
}

async fn site(
    whose: &str,
    option: &str,
    mut access: Access,
    (context, namespace): (Option<&str>, Option<&str>),
    entry: Option<Component>,
) -> Result<Site, Failure> {
    access.context =
        context.map(str::to_owned).or_else(|| entry.as_ref().map(|entry| entry.kube_context.clone()));
    let namespace = namespace.map(str::to_owned).or_else(|| entry.map(|entry| entry.namespace));
    let namespace = namespace.unwrap_or_else(|| NAMESPACE.to_owned());
    if !is_label(&namespace) {
        return Err(Failure::usage(format!("{namespace:?} is not the name of a namespace"))
            .remedy("write 1 to 63 of a-z, 0-9 and -"));
    }
    let failed = |error: &client::Error| {
        Failure::because(&format!("cannot reach {whose}"), error)
            .remedy(format!("check {option} and --kubeconfig against `kubectl config get-contexts`"))
    };
    let config = client::configuration(&access).await.map_err(|error| failed(&error))?;
    let server = config.cluster_url.to_string();
    let client = client::client(client::hurried(config)).map_err(|error| failed(&error))?;
    Ok(Site { client, namespace, server })
}

fn is_label(name: &str) -> bool {
    tiphys_shared::model::AgentName::new(name).is_ok()
}
