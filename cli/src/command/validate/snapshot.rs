//! What is known of an installation when it is judged. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use tiphys_shared::model::{AgentName, Mode, Object};
use tiphys_shared::process::options::{HostPort, NamePattern, Problem};
use tiphys_shared::security::tls::Policy;

/// One side's namespace, as its API server shows it.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) namespace: String,
    /// All namespaces of the cluster; none if they may not be looked at.
    pub(super) namespaces: Option<BTreeSet<String>>,
    /// Secrets of the namespace; none if they may not be looked at.
    pub(super) secrets: Option<BTreeMap<String, Secret>>,
    /// Config maps of the namespace; none if they may not be looked at.
    pub(super) config_maps: Option<BTreeMap<String, ConfigMap>>,
    /// All Applications of the cluster that may be looked at; none if their kind is not known there.
    pub(super) applications: Option<Vec<Object>>,
    /// AppProjects of the namespace that may be looked at; none if their kind is not known there.
    pub(super) projects: Option<Vec<Object>>,
    /// Argo CD's components in the namespace, and what runs each; none if workloads may not be looked at.
    pub(super) components: Option<BTreeMap<String, String>>,
    /// The service account of the process, if there is none of this name.
    pub(super) missing_account: Option<String>,
    /// What the process may not do, as `list secrets in namespace argocd`.
    pub(super) denied: Vec<String>,
    /// Who may not.
    pub(super) identity: String,
    /// What the API server's clock said, and ours then.
    pub(super) clock: Option<(Timestamp, Timestamp)>,
    /// Whether the process's own workload was found, or its options were given; none if workloads may not be looked at.
    pub(super) is_deployed: Option<bool>,
    /// What is wrong with its options.
    pub(super) option_problems: Vec<Problem>,
    /// What could not be looked at.
    pub(super) unseen: Vec<Problem>,
}

/// What the principal was told that matters here.
#[derive(Debug, Clone)]
pub(super) struct PrincipalOptions {
    pub(super) allowed: Vec<NamePattern>,
    pub(super) by_destination: bool,
    /// Secrets with a certificate and its key, and whose they are. Names only where Secrets are used.
    pub(super) tls: Option<String>,
    pub(super) ca: Option<String>,
    pub(super) proxy_tls: Option<String>,
    pub(super) jwt: Option<String>,
    pub(super) creates_namespaces: bool,
    /// The Redis proxy is served.
    pub(super) redis_proxy: bool,
    /// The resource proxy is served.
    pub(super) proxy: bool,
    /// Clusters may join with a token.
    pub(super) joins: bool,
    /// Agents that log in get a cluster Secret.
    pub(super) registers: bool,
}

/// What an agent was told that matters here.
#[derive(Debug, Clone)]
pub(super) struct AgentOptions {
    pub(super) server: HostPort,
    pub(super) mode: Mode,
    pub(super) by_destination: bool,
    pub(super) is_plaintext: bool,
    pub(super) policy: Policy,
    pub(super) tls: Option<String>,
    pub(super) ca: Option<String>,
}

/// The control plane.
#[derive(Debug, Clone)]
pub(super) struct ControlPlane {
    pub(super) facts: Facts,
    pub(super) options: PrincipalOptions,
}

/// An agent's cluster.
#[derive(Debug, Clone)]
pub(super) struct Edge {
    pub(super) facts: Facts,
    /// None if the agent's options say not even where the principal is.
    pub(super) options: Option<AgentOptions>,
    /// Why the principal is not reached from here.
    pub(super) unreachable: Option<Problem>,
}

/// Everything.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) now: Timestamp,
    pub(super) control: ControlPlane,
    pub(super) edge: Option<Edge>,
}

impl Facts {
    /// An entry of a Secret.
    pub(super) fn secret_entry(&self, name: &str, keys: &[&str]) -> Option<&[u8]> {
        let data = self.secrets.as_ref()?.get(name)?.data.as_ref()?;
        keys.iter().find_map(|key| data.get(*key)).map(|bytes| bytes.0.as_slice())
    }

    /// An entry of a config map.
    pub(super) fn config_entry(&self, map: &str, key: &str) -> Option<&str> {
        self.config_map(map)?.data.as_ref()?.get(key).map(String::as_str)
    }

    /// A config map of the namespace.
    pub(super) fn config_map(&self, name: &str) -> Option<&ConfigMap> {
        self.config_maps.as_ref()?.get(name)
    }

    /// Whether a namespace is known not to be there.
    pub(super) fn lacks_namespace(&self, name: &str) -> bool {
        self.namespaces.as_ref().is_some_and(|namespaces| !namespaces.contains(name))
    }
}

impl ControlPlane {
    /// Whether the key of the CA is there, without which nobody joins.
    pub(super) fn signs(&self) -> bool {
        self.options.ca.as_deref().is_some_and(|ca| self.facts.secret_entry(ca, &["tls.key"]).is_some())
    }

    /// Cluster Secrets, and the agents that they are labelled with.
    pub(super) fn cluster_secrets(&self) -> impl Iterator<Item = (&str, &Secret, Option<&str>)> {
        use tiphys_shared::model::argocd::label;
        self.facts.secrets.iter().flatten().filter_map(|(name, secret)| {
            let labels = secret.metadata.labels.as_ref();
            let agent = labels.and_then(|labels| labels.get(label::AGENT_NAME)).map(String::as_str);
            let is_cluster = labels
                .and_then(|labels| labels.get(label::SECRET_TYPE))
                .is_some_and(|kind| kind == "cluster");
            (is_cluster || agent.is_some()).then_some((name.as_str(), secret, agent))
        })
    }

    /// Agents that Argo CD knows.
    pub(super) fn agents(&self) -> BTreeSet<AgentName> {
        self.cluster_secrets().filter_map(|(_, _, agent)| AgentName::new(agent?).ok()).collect()
    }
}
