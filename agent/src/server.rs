//! Starts everything in order, and drains it in reverse.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::Registry;
use tiphys_shared::kube::backend::{Backend, Done};
use tiphys_shared::kube::informer::{Change, Stores};
use tiphys_shared::kube::reconciler::{Cause, NamespaceCreation, Reconciler, Rules};
use tiphys_shared::kube::recorder::Recorder;
use tiphys_shared::model::{Mode, ResourceKey};
use tiphys_shared::process::options::NamePattern;
use tiphys_shared::process::readiness::{Condition, Guard, Readiness};
use tiphys_shared::protocol::ownership::Policy;
use tiphys_shared::protocol::resync::cache::{Cache, Trees};
use tiphys_shared::protocol::resync::digest;
use tiphys_shared::redis;
use tiphys_shared::wire::pump::SharedOutbox;
use tiphys_shared::wire::traces::{Journeys, Traces};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Error;
use crate::cluster_cache::{self, ClusterCacheConfig};
use crate::connection::{self, Link, Presence};
use crate::handler::ClusterSide;
use crate::metrics::Metrics;
use crate::namespaces::Namespaces;
use crate::news::News;
use crate::outbound::Outbound;
use crate::pace::Pace;
use crate::proxy::{Events, Proxy, ProxyConfig};
use crate::redis_proxy::RedisProxy;

/// How long tasks get to end by themselves.
const DRAIN: Duration = Duration::from_secs(5);

/// Everything that an agent needs besides the way to the principal, ready to be used.
pub struct Config {
    /// Which side owns the Argo CD resources.
    pub mode: Mode,
    /// This cluster's API server.
    pub client: kube::Client,
    /// Where Argo CD and the agent live.
    pub namespace: String,
    /// Namespaces besides it in which Applications may be.
    pub allowed_namespaces: Vec<NamePattern>,
    /// Applications keep the namespace that they have at the control plane.
    pub destination_based_mapping: bool,
    /// Namespaces of Applications are created when they are needed.
    pub create_namespaces: bool,
    /// How conflicts about a name are settled.
    pub policy: Policy,
    /// The operation that an Application starts with when it comes back after it was deleted here.
    pub on_return: Option<serde_json::Value>,
    /// Restricts which resources are watched.
    pub label_selector: Option<String>,
    /// Mean pause between two comparisons of what both sides hold.
    pub resync_interval: Option<Duration>,
    /// Shortest pause between two states of one Application that are sent.
    pub buffer_interval: Option<Duration>,
    /// Where this cluster's Argo CD has counted what is here, if the control plane is to know.
    pub cluster_cache: Option<ClusterCacheConfig>,
    /// How this cluster's API is served to the control plane, if it is.
    pub proxy: Option<ProxyConfig>,
    /// The Redis of this cluster's Argo CD, if the control plane may read there what is kept of its Applications.
    pub redis: Option<redis::Config>,
    /// Pause between signs of life.
    pub heartbeat: Option<Duration>,
    /// Where metrics are registered.
    pub registry: Registry,
    /// Where the traces go of what it is told.
    pub traces: Traces,
    /// Writes what becomes of resources on the objects that stand for them.
    pub recorder: Recorder,
}

/// An agent that has not begun yet.
pub struct Agent<L> {
    config: Config,
    link: L,
    connected: watch::Sender<bool>,
    synced: watch::Sender<bool>,
    outbox: Arc<SharedOutbox>,
    readiness: Readiness,
    cluster: Guard,
    principal: Condition,
}

/// Looks at a running agent.
#[derive(Clone, Debug)]
pub struct Handle {
    connected: watch::Receiver<bool>,
    synced: watch::Receiver<bool>,
    outbox: Arc<SharedOutbox>,
    readiness: Readiness,
}

impl Handle {
    /// Whether the stream to the principal is open.
    pub fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }

    /// What has to be ready, and what is not.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Waits until this cluster's resources have been read. Ends, too, when the agent does.
    pub async fn ready(&self) {
        _ = self.synced.clone().wait_for(|synced| *synced).await;
    }

    /// Number of resources about which the principal has yet to acknowledge something.
    pub fn outbox(&self) -> usize {
        self.outbox.read(|outbox| outbox.len())
    }
}

impl<L: Link> Agent<L> {
    /// An agent that will work as `config` says, with the principal that `link` leads to.
    pub fn new(config: Config, link: L) -> Self {
        // Its name is known to the principal, which says it in the spans of the same trace.
        let journeys = Journeys::new(config.traces.clone(), "", true);
        let readiness = Readiness::new();
        let cluster = readiness.guard("cluster");
        cluster.waiting_for("it has not been read yet");
        let principal = readiness.condition("principal", "not connected yet");
        Self {
            config,
            link,
            readiness,
            cluster,
            principal,
            connected: watch::channel(false).0,
            synced: watch::channel(false).0,
            outbox: Arc::new(SharedOutbox::new(journeys)),
        }
    }

    /// A way to look at this agent while it runs.
    pub fn handle(&self) -> Handle {
        Handle {
            connected: self.connected.subscribe(),
            synced: self.synced.subscribe(),
            outbox: Arc::clone(&self.outbox),
            readiness: self.readiness.clone(),
        }
    }

    /// Works until `cancel`. The first list may take as long as it takes; an API server or a principal that is away is
    /// waited for.
    ///
    /// # Errors
    /// [`Error`] if it cannot begin, or if the principal and it do not trust each other from the start.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), Error> {
        let Self { config, link, connected, synced, outbox, cluster, principal, .. } = self;
        let metrics = Arc::new(Metrics::new(&config.registry, &outbox)?);
        let news = News::new(config.recorder);
        let tasks = TaskTracker::new();
        let stop = cancel.child_token();
        // Applications may be in many namespaces only if they keep theirs.
        let applications = (!config.destination_based_mapping).then_some(config.namespace.as_str());
        let labels = config.label_selector.as_deref();
        let (stores, informers) = Stores::watch(&config.client, &config.namespace, applications, labels);
        let rules = Rules {
            scope: digest::Scope::Spec,
            policy: config.policy,
            never_adopted: &[],
            namespaces: config.create_namespaces.then(NamespaceCreation::default),
            on_return: config.on_return.clone(),
        };
        let reconciler =
            Arc::new(Reconciler::new(stores.clone(), Backend::new(config.client.clone()), rules));
        let outbound = Arc::new(Outbound {
            mode: config.mode,
            outbox: Arc::clone(&outbox),
            reconciler: Arc::clone(&reconciler),
            namespaces: Namespaces {
                own: config.namespace.clone(),
                keep: config.destination_based_mapping,
                allowed: config.allowed_namespaces.clone(),
                principal: Arc::default(),
            },
            digests: Cache::default(),
            trees: Trees::default(),
            metrics: Arc::clone(&metrics),
            name: OnceLock::new(),
            tiphys: AtomicBool::new(false),
            pace: config.buffer_interval.map(|interval| Mutex::new(Pace::new(interval))),
            held_back: Notify::new(),
        });
        {
            let (outbound, stop) = (Arc::clone(&outbound), stop.clone());
            tasks.spawn(async move { outbound.release(stop).await });
        }
        for informer in informers {
            let (outbound, stop) = (Arc::clone(&outbound), stop.clone());
            let store = informer.store();
            {
                let (store, metrics, stop) = (store.clone(), Arc::clone(&metrics), stop.clone());
                let began = tokio::time::Instant::now();
                tasks.spawn(async move {
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => {}
                        () = store.synced() => metrics.list_took(store.kind(), began.elapsed()),
                    }
                });
            }
            tasks.spawn(async move {
                let on_change =
                    move |change: Change| outbound.on_change(store.kind(), &change, !store.is_synced());
                informer.run(stop, on_change).await;
            });
        }
        {
            let (reconciler, outbound, stop) = (Arc::clone(&reconciler), Arc::clone(&outbound), stop.clone());
            let news = news.clone();
            tasks.spawn(async move {
                let note = |key: &ResourceKey, cause: &Cause, done: &Done| {
                    outbound.metrics.reverted.with_label_values(&[key.kind.target().label()]).inc();
                    tracing::info!(%key, "undid a local change");
                    if let Some(undone) = cause.undone(done) {
                        news.undone(key.kind, &undone);
                    }
                    // It came back with a clean status, and the control plane shows the one before; or what was here did not
                    // stand for what the control plane has until now.
                    if matches!(done, Done::Created(_) | Done::Updated { .. }) {
                        outbound.tell_status(key, None);
                    }
                };
                reconciler.mend(stop, note).await;
            });
        }
        let proxy = config
            .proxy
            .map(|proxy| Arc::new(Proxy::new(proxy, config.client, &config.namespace, Arc::clone(&metrics))));
        if let Some(proxy) = proxy.clone().filter(|proxy| proxy.asks_what_is_managed()) {
            let stop = stop.clone();
            tasks.spawn(async move { proxy.managed().follow(stop).await });
        }
        let mut kept = Ok(());
        tokio::select! {
            biased;
            () = cancel.cancelled() => {}
            () = stores.synced() => {
                tracing::info!(
                    applications = stores.applications.len(), projects = stores.projects.len(),
                    repositories = stores.repositories.len(), "cluster read"
                );
                synced.send_replace(true);
                cluster.ready();
                // An autonomous cluster is not asked for it.
                if let Some(cache) = config.cluster_cache.filter(|_| config.mode == Mode::Managed) {
                    let (outbound, connected) = (Arc::clone(&outbound), connected.subscribe());
                    tasks.spawn(cluster_cache::run(cache, outbound, connected, stop.clone()));
                }
                let redis_proxy = RedisProxy::start(config.redis, &outbound, &tasks, &stop);
                let resources = Events::new(proxy.clone(), &outbound, &tasks, &stop);
                let side = Arc::new(ClusterSide {
                    outbound,
                    news,
                    resync_interval: config.resync_interval,
                    redis_proxy,
                    resources,
                });
                tasks.spawn(connection::count(metrics, stores, stop.clone()));
                let presence = Presence { connected, principal };
                kept = connection::keep(link, side, proxy, config.heartbeat, presence, cancel.clone()).await;
            }
        }
        stop.cancel();
        tasks.close();
        if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
            tracing::warn!(tasks = tasks.len(), "some tasks did not end in time");
        }
        kept.map_err(Error::Unreachable)
    }
}
