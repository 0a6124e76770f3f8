//! The control plane without a network: what is there, who owns what, and a session for each agent that comes.
//!
//! The gRPC service is one way for an agent to come; tests and the simulation have another. Both end in
//! [`ControlPlane::connect`].

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use prometheus::Registry;
use tiphys_proto::event_stream::Event as WireEvent;
use tiphys_shared::kube::backend::{Backend, Done};
use tiphys_shared::kube::informer::Stores;
use tiphys_shared::kube::reconciler::{Cause, NamespaceCreation, Reconciler, Rules};
use tiphys_shared::model::feature::{Feature, Features};
use tiphys_shared::model::{AgentName, Kind, Mode, ResourceKey};
use tiphys_shared::process::clock;
use tiphys_shared::process::options::NamePattern;
use tiphys_shared::protocol::ownership::{AdoptionPolicy, MismatchPolicy, Policy};
use tiphys_shared::protocol::resync::cache::Cache;
use tiphys_shared::protocol::resync::digest;
use tiphys_shared::security::token::Subject;
use tiphys_shared::wire::pump;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Error;
use crate::agents::{AgentStatus, Agents, SessionHandle};
use crate::cluster_view::{ClusterView, ClusterViewConfig, Writer};
use crate::clusters::Clusters;
use crate::handler::AgentSide;
use crate::identity;
use crate::metrics::Metrics;
use crate::outbound::Outbound;
use crate::outbound::mapping::Mapping;
use crate::redis_proxy::Router;
use crate::requests::Requests;

/// Messages between the pump and the connection. Small: what waits belongs into the outbox, where newer replaces older.
const OUTGOING: usize = 32;

/// What a control plane is to be.
pub struct ControlPlaneConfig {
    /// Its API server.
    pub client: kube::Client,
    /// Where the principal and Argo CD live.
    pub namespace: String,
    /// Namespaces from which Applications are read.
    pub allowed_namespaces: Vec<NamePattern>,
    /// Applications belong to the agent that their destination names, instead of the one named like their namespace.
    pub destination_based_mapping: bool,
    /// Whether namespaces of autonomous agents are created when they are needed.
    pub namespace_creation: Option<NamespaceCreation>,
    /// Restricts which resources are watched.
    pub label_selector: Option<String>,
    /// Mean pause between two comparisons of what both sides hold.
    pub resync_interval: Option<Duration>,
    /// Where Argo CD's cluster view is kept, if it is to be kept current.
    pub cluster_view: Option<ClusterViewConfig>,
    /// Largest message that is sent, in bytes.
    pub max_message_size: usize,
    /// Where metrics are registered.
    pub registry: Registry,
}

/// A control plane that has been read.
pub struct ControlPlane {
    agents: Arc<Agents>,
    outbound: Arc<Outbound>,
    clusters: Clusters,
    view: Option<Arc<ClusterView>>,
    resync_interval: Option<Duration>,
    max_message_size: usize,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    pub(crate) metrics: Arc<Metrics>,
}

impl ControlPlane {
    /// Reads the control plane and follows it until `cancel`. Nothing, if it is cancelled before everything is read.
    ///
    /// # Errors
    /// [`Error`] if the identity of the control plane can be neither read nor made, or a metric is there already.
    pub async fn start(
        config: ControlPlaneConfig,
        tasks: TaskTracker,
        cancel: CancellationToken,
    ) -> Result<Option<Arc<Self>>, Error> {
        Self::start_with(config, Arc::default(), tasks, cancel).await
    }

    /// The same, with a list of agents that others look at already.
    pub(crate) async fn start_with(
        config: ControlPlaneConfig,
        agents: Arc<Agents>,
        tasks: TaskTracker,
        cancel: CancellationToken,
    ) -> Result<Option<Arc<Self>>, Error> {
        let metrics = Arc::new(Metrics::new(&config.registry, &agents)?);
        let principal_uid = identity::ensure(&config.client, &config.namespace).await?;
        let (stores, informers) =
            Stores::watch(&config.client, &config.namespace, None, config.label_selector.as_deref());
        let rules = Rules {
            scope: digest::Scope::Whole,
            // What is shown of an agent is a view: a new life of its original takes it over.
            policy: Policy { mismatch: MismatchPolicy::Upsert, adoption: AdoptionPolicy::Always },
            // A project that users made here is theirs, whatever an agent calls its own.
            never_adopted: &[Kind::AppProject],
            namespaces: config.namespace_creation,
            on_return: None,
        };
        let backend = Backend::new(config.client.clone());
        let reconciler = Arc::new(Reconciler::new(stores.clone(), backend, rules));
        let outbound = Arc::new(Outbound {
            mapping: Mapping {
                namespace: config.namespace.clone(),
                allowed: config.allowed_namespaces,
                by_destination: config.destination_based_mapping,
            },
            stores: stores.clone(),
            agents: Arc::clone(&agents),
            metrics: Arc::clone(&metrics),
            principal_uid,
            reconciler: Arc::clone(&reconciler),
            digests: Cache::default(),
            requests: Requests::default(),
        });
        for informer in informers {
            let (outbound, cancel) = (Arc::clone(&outbound), cancel.clone());
            let kind = informer.store().kind();
            tasks.spawn(async move {
                informer.run(cancel, move |change| outbound.on_change(kind, &change)).await;
            });
        }
        {
            let (outbound, reconciler, cancel) =
                (Arc::clone(&outbound), Arc::clone(&reconciler), cancel.clone());
            tasks.spawn(async move { outbound.requests.run(reconciler, cancel).await });
        }
        tasks.spawn({
            let (agents, cancel) = (Arc::clone(&agents), cancel.clone());
            async move {
                let log = |key: &ResourceKey, cause: &Cause, done: &Done| {
                    tracing::info!(%key, "undid a change of what is shown");
                    if let Some(undone) = cause.undone(done) {
                        agents.news.undone(key.kind, &undone);
                    }
                };
                reconciler.mend(cancel, log).await;
            }
        });
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(None),
            () = stores.synced() => {}
        }
        tracing::info!(
            applications = stores.applications.len(),
            projects = stores.projects.len(),
            repositories = stores.repositories.len(),
            "control plane read"
        );
        let clusters = Clusters { client: config.client, namespace: config.namespace };
        let view = config.cluster_view.map(|config| {
            let writer = Writer::new(config, Arc::clone(&agents), clusters.clone());
            let view = Arc::clone(&writer.view);
            tasks.spawn(writer.run(cancel.clone()));
            view
        });
        Ok(Some(Arc::new(Self {
            agents,
            outbound,
            clusters,
            view,
            resync_interval: config.resync_interval,
            max_message_size: config.max_message_size,
            shutdown: cancel,
            tasks,
            metrics,
        })))
    }

    /// All agents that have connected since this process started, by name.
    pub fn agents(&self) -> Vec<AgentStatus> {
        self.agents.status()
    }

    /// Finds out whose Redis has what.
    pub(crate) fn router(&self) -> Router {
        Router::new(Arc::clone(&self.outbound), Arc::clone(&self.agents), self.clusters.clone())
    }

    /// Opens a session with an agent that has proven who it is, in place of the one that it had. `offered` is what the
    /// agent can do, none for one that is not ours; `incoming` is what it says. Returns what is said to it.
    pub fn connect(
        &self,
        subject: &Subject,
        offered: Option<Features>,
        incoming: impl Stream<Item = Result<WireEvent, tonic::Status>> + Send + 'static,
    ) -> mpsc::Receiver<WireEvent> {
        let session = self.agents.connect(&subject.agent, subject.mode, &self.shutdown, clock::now());
        self.metrics.connected_agents.set(i64::try_from(self.agents.connected()).unwrap_or(i64::MAX));
        self.metrics.agent_connections.with_label_values(&[subject.agent.as_str()]).inc();
        tracing::info!(
            agent = %subject.agent, mode = %subject.mode, tiphys = offered.is_some(), "agent connected"
        );
        self.agents.news.connected(&subject.agent, subject.mode, &self.agents.version(&subject.agent));
        session.agent.note_tiphys(offered.is_some());
        session.agent.note_serves(offered.as_ref().is_some_and(|features| features.has(Feature::Tunnel)));
        let (sender, outgoing) = mpsc::channel(OUTGOING);
        let side = Arc::new(AgentSide {
            agent: Arc::clone(&session.agent),
            outbound: Arc::clone(&self.outbound),
            features: offered.unwrap_or_default(),
            is_first: session.is_first,
            view: self.view.clone(),
            resync_interval: self.resync_interval,
            max_message_size: self.max_message_size,
        });
        if let Some(view) = &self.view {
            view.came_or_went(&subject.agent);
        }
        let clusters = self.clusters.clone();
        self.tasks.spawn(run(Arc::clone(&self.agents), side, session, clusters, incoming, sender));
        outgoing
    }
}

async fn run(
    agents: Arc<Agents>,
    side: Arc<AgentSide>,
    session: SessionHandle,
    clusters: Clusters,
    incoming: impl Stream<Item = Result<WireEvent, tonic::Status>> + Send,
    outgoing: mpsc::Sender<WireEvent>,
) {
    let agent = Arc::clone(&session.agent);
    if agent.mode == Mode::Autonomous {
        tokio::select! {
            biased;
            () = session.cancel.cancelled() => {}
            named = clusters.name_of(&agent.name) => if let Some(name) = named {
                agent.note_cluster(name);
            },
        }
    }
    // The sender stays with the pump: when the pump ends, so does the response.
    let (_known, features) = watch::channel(Some(side.features.clone()));
    let outbox = Arc::clone(&agent.outbox);
    let end = pump::run(
        Arc::clone(&side),
        outbox,
        features,
        side.max_message_size,
        incoming,
        outgoing,
        session.cancel.clone(),
    )
    .await;
    let since = session.since;
    let metrics = &side.outbound.metrics;
    if matches!(end, pump::End::Broken(_)) {
        metrics.send_errors.with_label_values(&[agent.name.as_str(), "transport-closing"]).inc();
    }
    let newest = session.end(clock::now());
    note_end(&agents, &agent.name, &end, newest);
    agents.note_move();
    if let Some(view) = side.view.as_ref().filter(|_| newest) {
        view.came_or_went(&agent.name);
    }
    metrics.connected_agents.set(i64::try_from(agents.connected()).unwrap_or(i64::MAX));
    tracing::info!(agent = %agent.name, %since, reason = %end, replaced = !newest, "agent's stream ended");
}

/// Takes note of why a stream ended; nobody is told if that was our doing, or another has taken its place.
fn note_end(agents: &Agents, name: &AgentName, end: &pump::End, newest: bool) {
    if matches!(end, pump::End::Cancelled) {
        return;
    }
    if let Some(blocked) = agents.revoked(name) {
        agents.problems.note(Some(name), &format!("it was cut off: {blocked}"));
        agents.news.revoked(name, &blocked);
        return;
    }
    if !matches!(end, pump::End::Closed) {
        agents.problems.note(Some(name), &format!("its stream ended: {end}"));
    }
    if newest {
        agents.news.disconnected(name, end);
    }
}
