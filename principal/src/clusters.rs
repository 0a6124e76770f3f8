//! The clusters that Argo CD knows.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams};
use tiphys_shared::model::AgentName;
use tiphys_shared::model::argocd::label;
use tiphys_shared::process::persist::persist;

/// How many Secrets are read at once.
const PAGE: u32 = 100;

/// How long the API server is asked for the name of a cluster before the agent's own name is used.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where Argo CD keeps the clusters that it knows.
#[derive(Clone)]
pub(crate) struct Clusters {
    pub(crate) client: kube::Client,
    pub(crate) namespace: String,
}

/// What Argo CD knows of an agent's cluster. A part that is missing is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// What Argo CD calls it.
    pub(crate) name: String,
    /// Its server URL, under which Argo CD keeps what it knows of it.
    pub(crate) server: String,
}

impl Clusters {
    /// The cluster of an agent: the Secret that is labelled with the agent's name.
    pub(crate) async fn of(&self, agent: &AgentName) -> Result<Option<Cluster>, kube::Error> {
        let labels = format!("{}=cluster,{}={agent}", label::SECRET_TYPE, label::AGENT_NAME);
        let found = self.secrets().list(&ListParams::default().labels(&labels)).await?;
        Ok(found.items.into_iter().next().map(Cluster::new))
    }

    /// What Argo CD calls the cluster of an agent.
    pub(crate) async fn name_of(&self, agent: &AgentName) -> Option<String> {
        // What is shown under another name would stay so: a busy API server gets some time.
        match persist(PATIENCE, is_transient, || self.of(agent)).await {
            Ok(cluster) => cluster.map(|cluster| cluster.name).filter(|name| !name.is_empty()),
            Err(error) => {
                tracing::warn!(%agent, %error, "the agent's cluster secret cannot be read; its own name is used");
                None
            }
        }
    }

    /// The server URLs of the clusters of all agents.
    pub(crate) async fn servers(&self) -> Result<BTreeMap<AgentName, String>, kube::Error> {
        let labels = format!("{}=cluster,{}", label::SECRET_TYPE, label::AGENT_NAME);
        let mut page = ListParams::default().labels(&labels).limit(PAGE);
        let mut servers = BTreeMap::new();
        loop {
            let found = self.secrets().list(&page).await?;
            for secret in found.items {
                let agent = secret.metadata.labels.as_ref().and_then(|labels| labels.get(label::AGENT_NAME));
                if let Some(agent) = agent.and_then(|agent| AgentName::new(agent).ok()) {
                    // As `of` does it: the first counts.
                    servers.entry(agent).or_insert_with(|| Cluster::new(secret).server);
                }
            }
            match found.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(servers),
            }
        }
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

impl Cluster {
    fn new(secret: Secret) -> Self {
        let mut data = secret.data.unwrap_or_default();
        let mut text = |key| data.remove(key).and_then(|value| String::from_utf8(value.0).ok());
        Self { name: text("name").unwrap_or_default(), server: text("server").unwrap_or_default() }
    }
}

/// Whether asking again may help: not where the answer is no.
fn is_transient(error: &kube::Error) -> bool {
    !matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429)
}
