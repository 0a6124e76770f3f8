//! Whose Redis has what is kept under a key. By default the control plane's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tiphys_shared::model::cache_key::CacheKey;
use tiphys_shared::model::{AgentName, Kind, Object, ResourceKey};
use tokio::time::Instant;

use crate::agents::Agents;
use crate::clusters::Clusters;
use crate::outbound::Outbound;
use crate::outbound::mapping::Mapping;

/// How long it is remembered whether a name is an agent's.
const MEMORY: Duration = Duration::from_secs(30);
/// How many names are remembered.
const NAMES: usize = 4096;

/// Finds the agent that a key belongs to.
pub(crate) struct Router {
    outbound: Arc<Outbound>,
    pub(super) agents: Arc<Agents>,
    clusters: Clusters,
    known: Mutex<BTreeMap<AgentName, (Instant, bool)>>,
}

impl Router {
    pub(crate) fn new(outbound: Arc<Outbound>, agents: Arc<Agents>, clusters: Clusters) -> Self {
        Self { outbound, agents, clusters, known: Mutex::default() }
    }

    /// The agent whose cluster keeps it, if it is provably one's: of an Application that is here, and belongs to an agent that
    /// has come since this process started, or has a cluster Secret.
    pub(super) async fn agent_of(&self, key: &CacheKey<'_>) -> Option<AgentName> {
        let outbound = &self.outbound;
        let find = |key: &ResourceKey| {
            let application = outbound.stores.applications.get(key)?;
            let is_mirror = outbound.is_mirror(Kind::Application, &application);
            Some((application, is_mirror))
        };
        let agent = owner(&outbound.mapping, key, find)?;
        self.is_agent(&agent).await.then_some(agent)
    }

    /// A namespace that only looks like an agent's name is the control plane's.
    async fn is_agent(&self, name: &AgentName) -> bool {
        if self.agents.get(name).is_some() {
            return true;
        }
        let now = Instant::now();
        if let Some((_, is_agent)) = self.known.lock().get(name).filter(|(until, _)| *until > now) {
            return *is_agent;
        }
        let is_agent = match self.clusters.of(name).await {
            Ok(cluster) => cluster.is_some(),
            Err(error) => {
                tracing::debug!(agent = %name, %error, "cluster secrets cannot be read");
                false
            }
        };
        let mut known = self.known.lock();
        if known.len() >= NAMES {
            known.clear();
        }
        known.insert(name.clone(), (now + MEMORY, is_agent));
        is_agent
    }
}

/// The agent that the Application of a key belongs to. `find` looks the Application up, and says whether it is one that an
/// autonomous agent shows.
fn owner(
    mapping: &Mapping,
    key: &CacheKey<'_>,
    find: impl Fn(&ResourceKey) -> Option<(Arc<Object>, bool)>,
) -> Option<AgentName> {
    let namespace = key.namespace.unwrap_or(&mapping.namespace);
    let (application, is_mirror) = find(&ResourceKey::new(Kind::Application, namespace, key.name))?;
    if is_mirror {
        // Shown in the namespace of the agent's name, whatever its destination is called.
        AgentName::new(namespace).ok()
    } else {
        mapping.agent_of_application(&application)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use tiphys_shared::process::options::NamePattern;

    use super::*;

    fn mapping(by_destination: bool) -> Mapping {
        Mapping {
            namespace: "argocd".into(),
            allowed: vec![NamePattern::new("edge-*").unwrap()],
            by_destination,
        }
    }

    fn application(namespace: &str, name: &str, destination: &str) -> Arc<Object> {
        let object = json!({
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"destination": {"name": destination}},
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn found(by_destination: bool, key: &str, there: &[(&str, &str, &str)], shown: bool) -> Option<String> {
        let find = |key: &ResourceKey| {
            let (namespace, name, destination) =
                there.iter().find(|(namespace, name, _)| key.namespace == *namespace && key.name == *name)?;
            Some((application(namespace, name, destination), shown))
        };
        owner(&mapping(by_destination), &CacheKey::parse(key)?, find).map(|name| name.to_string())
    }

    #[test]
    fn a_key_is_an_agents_only_if_its_application_is() {
        let there = [("edge-1", "shop", "x"), ("team", "shop", "edge-2"), ("argocd", "shop", "edge-3")];
        let tree = |application: &str| format!("app|resources-tree|{application}|1.8.3.gz");
        let by_namespace = |application: &str| found(false, &tree(application), &there, false);
        assert_eq!(by_namespace("edge-1_shop").as_deref(), Some("edge-1"));
        assert_eq!(by_namespace("edge-1_other"), None, "an application that is not there");
        assert_eq!(by_namespace("team_shop"), None, "of a namespace that is not served");
        assert_eq!(by_namespace("shop"), None, "of the control plane itself");
        let by_destination = |application: &str| found(true, &tree(application), &there, false);
        assert_eq!(by_destination("edge-1_shop").as_deref(), Some("x"));
        assert_eq!(by_destination("shop").as_deref(), Some("edge-3"));
        assert_eq!(by_destination("team_shop"), None);
        // What an autonomous agent shows is found by its namespace, however applications are mapped.
        assert_eq!(found(true, &tree("team_shop"), &there, true).as_deref(), Some("team"));
    }

    proptest! {
        #[test]
        fn whatever_the_key_no_agent_gets_one_of_an_application_that_is_not_its_own(
            namespace in "(edge-[12]|team|argocd)", name in "(a|b)", asked in "((edge-[12]|team|argocd)_)?(a|b)",
            destination in "(edge-[12]|in-cluster|)", by_destination in any::<bool>(),
        ) {
            let there = [(namespace.as_str(), name.as_str(), destination.as_str())];
            let agent = found(by_destination, &format!("app|managed-resources|{asked}|1.8.3"), &there, false);
            let same = if namespace == "argocd" && !asked.contains('_') {
                asked == name
            } else {
                asked == format!("{namespace}_{name}")
            };
            let own = mapping(by_destination).agent_of_application(&application(&namespace, &name, &destination));
            prop_assert_eq!(agent, own.map(|name| name.to_string()).filter(|_| same));
        }
    }
}
