//! Everything that is there: API servers, the two sides, the ways between them, and what users declared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use kube::api::PostParams;
use parking_lot::Mutex;
use serde_json::Value;
use tiphys_apiserver::{ApiServer, Definitions, Options};
use tiphys_shared::model::argocd::label;
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Kind, Object, ResourceKey};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::api::Trouble;
use super::journal::Journal;
use super::plan::{AgentPlan, Plan};
use super::wire::{Running, Wire};

/// Where Argo CD lives, everywhere.
pub(crate) const NAMESPACE: &str = "argocd";
/// Largest message. Nothing here comes near it.
pub(crate) const LARGEST: usize = 4 << 20;

/// An API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Control,
    Cluster(usize),
}

/// An API server and the way to it of those for whom nothing goes wrong.
pub(crate) struct Site {
    pub(crate) server: ApiServer,
    pub(crate) client: kube::Client,
    pub(crate) trouble: Arc<Trouble>,
}

impl Site {
    pub(crate) fn api(&self, kind: Kind, namespace: &str) -> Api<Object> {
        tiphys_shared::kube::kinds::api(&self.client, kind, Some(namespace))
    }

    pub(crate) fn everywhere(&self, kind: Kind) -> Api<Object> {
        tiphys_shared::kube::kinds::api(&self.client, kind, None)
    }
}

/// What users last declared of a resource.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Declared {
    pub(crate) uid: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) content: Value,
}

impl Declared {
    pub(crate) fn of(kind: Kind, object: &Object) -> Self {
        Self {
            uid: object.uid().to_owned(),
            labels: object.metadata.labels.clone().unwrap_or_default(),
            content: object.field(kind.content_field()).cloned().unwrap_or(Value::Null),
        }
    }
}

/// An operation that a user started.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) id: String,
    pub(crate) agent: usize,
    /// Name of the Application, and the UID of its original.
    pub(crate) name: String,
    pub(crate) uid: String,
    /// Something was done since that may legitimately end it unstarted.
    pub(crate) excused: bool,
}

/// What is known of the whole run, beside the API servers.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) declared: BTreeMap<(Place, ResourceKey), Declared>,
    pub(crate) operations: Vec<Operation>,
    /// How often a cluster's Argo CD started each operation.
    pub(crate) started: BTreeMap<(usize, String), u32>,
    /// Status that Argo CD last wrote, by cluster and UID there.
    pub(crate) status: BTreeMap<(usize, String), Value>,
    /// Lives of copies: the UIDs that objects with this source had.
    pub(crate) copies: BTreeMap<(Place, String), BTreeSet<String>>,
    /// Lives of originals that have ended, by UID.
    pub(crate) ended: BTreeSet<String>,
    /// Objects that users deleted, by UID.
    pub(crate) deleted_by_users: BTreeSet<String>,
    /// Applications, by agent and name, that their owner has hidden: what is shown of them goes once more, with what was asked
    /// for on it meanwhile.
    pub(crate) hidden: BTreeSet<(usize, String)>,
    /// Copies that went after their original had ended, and not by a user's hand.
    pub(crate) finished: BTreeSet<(Place, String)>,
    /// What must not be, as it was seen.
    pub(crate) violations: Vec<String>,
    /// Number of changes seen at the API servers.
    pub(crate) changes: u64,
    counter: u64,
}

impl Ledger {
    /// A number that was not used before.
    pub(crate) fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    pub(crate) fn violation(&mut self, text: String) {
        if !self.violations.contains(&text) {
            self.violations.push(text);
        }
    }

    /// Operations on this Application that have been asked for so far may end unstarted.
    pub(crate) fn excuse(&mut self, agent: usize, name: &str) {
        for operation in &mut self.operations {
            operation.excused |= operation.agent == agent && operation.name == name;
        }
    }
}

/// A principal or an agent that runs.
pub(crate) struct Incarnation {
    /// It has crashed: it neither does nor hears anything.
    pub(crate) dead: CancellationToken,
    pub(crate) cancel: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) handle: Option<tiphys_agent::Handle>,
}

/// Everything.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) journal: Arc<Journal>,
    pub(crate) control: Site,
    pub(crate) clusters: Vec<Site>,
    pub(crate) wires: Vec<Arc<Wire>>,
    pub(crate) running: Running,
    pub(crate) principal: Mutex<Option<Incarnation>>,
    pub(crate) agents: Vec<Mutex<Option<Incarnation>>>,
    pub(crate) ledger: Mutex<Ledger>,
    /// Users and faults are at work.
    pub(crate) acting: Mutex<bool>,
}

impl World {
    /// API servers with what is there before Tiphys comes.
    pub(crate) async fn new(plan: Plan, definitions: Definitions) -> anyhow::Result<Self> {
        let journal = Arc::new(Journal::new());
        let site = |name: &str| {
            let start = jiff::Timestamp::from_second(1_800_000_000).unwrap_or_default();
            let server = ApiServer::new(Options {
                definitions: definitions.clone(),
                start: Some(start),
                ..Options::default()
            });
            let rng = plan.rng(&format!("api of {name}"));
            let trouble = Trouble::new(name, rng, plan.api, Arc::clone(&journal));
            Site { client: server.client(), server, trouble }
        };
        let control = site("control");
        let clusters: Vec<Site> = plan.agents.iter().map(|agent| site(&format!("@{}", agent.name))).collect();
        for place in std::iter::once(&control).chain(&clusters) {
            create_namespace(place, NAMESPACE).await?;
        }
        create_namespace(&control, "bystanders").await?;
        for agent in &plan.agents {
            if agent.mode == tiphys_shared::model::Mode::Managed {
                create_namespace(&control, agent.name.as_str()).await?;
            }
            if let Some(cluster) = &agent.cluster {
                register(&control, agent, cluster).await?;
            }
        }
        let wires = plan
            .agents
            .iter()
            .map(|agent| {
                let rng = plan.rng(&format!("wire of {}", agent.name));
                Arc::new(Wire::new(agent.name.clone(), agent.features.clone(), rng, Arc::clone(&journal)))
            })
            .collect();
        Ok(Self {
            agents: plan.agents.iter().map(|_| Mutex::default()).collect(),
            plan,
            journal,
            control,
            clusters,
            wires,
            running: Running::default(),
            principal: Mutex::default(),
            ledger: Mutex::default(),
            acting: Mutex::new(true),
        })
    }

    pub(crate) fn site(&self, place: Place) -> Option<&Site> {
        match place {
            Place::Control => Some(&self.control),
            Place::Cluster(index) => self.clusters.get(index),
        }
    }

    /// All API servers.
    pub(crate) fn places(&self) -> impl Iterator<Item = (Place, &Site)> {
        let clusters = self.clusters.iter().enumerate().map(|(index, site)| (Place::Cluster(index), site));
        std::iter::once((Place::Control, &self.control)).chain(clusters)
    }

    pub(crate) fn name_of(&self, place: Place) -> String {
        match place {
            Place::Control => "control".to_owned(),
            Place::Cluster(index) => {
                self.plan.agents.get(index).map_or_else(String::new, |agent| format!("@{}", agent.name))
            }
        }
    }

    pub(crate) fn is_acting(&self) -> bool {
        *self.acting.lock()
    }
}

async fn create_namespace(site: &Site, name: &str) -> anyhow::Result<()> {
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(name.to_owned());
    Api::all(site.client.clone()).create(&PostParams::default(), &namespace).await?;
    Ok(())
}

/// Tells Argo CD at the control plane what the agent's cluster is called.
async fn register(control: &Site, agent: &AgentPlan, cluster: &str) -> anyhow::Result<()> {
    let mut secret = Secret::default();
    secret.metadata.name = Some(format!("cluster-{}", agent.name));
    secret.metadata.labels = Some(BTreeMap::from([
        (label::SECRET_TYPE.to_owned(), "cluster".to_owned()),
        (label::AGENT_NAME.to_owned(), agent.name.to_string()),
    ]));
    secret.string_data = Some(BTreeMap::from([("name".to_owned(), cluster.to_owned())]));
    Api::namespaced(control.client.clone(), NAMESPACE).create(&PostParams::default(), &secret).await?;
    Ok(())
}
