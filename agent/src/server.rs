//! Starts everything in order, and drains it in reverse.

use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use tiphys_shared::kube::backend::{Backend, Done};
use tiphys_shared::kube::informer::{Informer, Scope, Stores};
use tiphys_shared::model::Kind;
use tiphys_shared::model::argocd::label;
use tiphys_shared::process::options::NamePattern;
use tiphys_shared::security::passwords::Credentials;
use tiphys_shared::wire::pump::SharedOutbox;
use tiphys_shared::wire::transport::DialOptions;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Error;
use crate::connection::{self, Target};
use crate::handler::Managed;
use crate::handler::ownership::Policy;
use crate::metrics::Metrics;
use crate::namespaces::Namespaces;
use crate::options::{AdoptionPolicy, MismatchPolicy};
use crate::outbound::Outbound;
use crate::reconcile::Reconciler;

/// How long tasks get to end by themselves.
const DRAIN: Duration = Duration::from_secs(5);

/// Everything that a managed agent needs, ready to be used.
pub struct Config {
    /// This cluster's API server.
    pub client: kube::Client,
    /// Where Argo CD and the agent live.
    pub namespace: String,
    /// Namespaces besides it in which Applications may be.
    pub allowed_namespaces: Vec<NamePattern>,
    /// Applications keep the namespace that they have at the control plane.
    pub destination_based_mapping: bool,
    /// What happens when what is here is a copy of an earlier original of its name.
    pub mismatch_policy: MismatchPolicy,
    /// Whether what was here before may be taken over.
    pub adoption_policy: AdoptionPolicy,
    /// Restricts which resources are watched.
    pub label_selector: Option<String>,
    /// Where the principal is.
    pub dial: DialOptions,
    /// How this agent proves who it is.
    pub credentials: Credentials,
    /// The version that it says to be of; a Go principal takes its own only.
    pub version: String,
    /// Whether what is sent is compressed.
    pub compression: bool,
    /// Largest message, in bytes.
    pub max_message_size: usize,
    /// Pause between signs of life.
    pub heartbeat: Option<Duration>,
    /// Where metrics are registered.
    pub registry: Registry,
}

/// An agent that has not begun yet.
pub struct Agent {
    config: Config,
    connected: watch::Sender<bool>,
    synced: watch::Sender<bool>,
    outbox: Arc<SharedOutbox>,
}

/// Looks at a running agent.
#[derive(Clone, Debug)]
pub struct Handle {
    connected: watch::Receiver<bool>,
    synced: watch::Receiver<bool>,
    outbox: Arc<SharedOutbox>,
}

impl Handle {
    /// Whether the stream to the principal is open.
    pub fn is_connected(&self) -> bool {
        *self.connected.borrow()
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

impl Agent {
    /// An agent that will work as `config` says.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            connected: watch::channel(false).0,
            synced: watch::channel(false).0,
            outbox: Arc::default(),
        }
    }

    /// A way to look at this agent while it runs.
    pub fn handle(&self) -> Handle {
        Handle {
            connected: self.connected.subscribe(),
            synced: self.synced.subscribe(),
            outbox: Arc::clone(&self.outbox),
        }
    }

    /// Works until `cancel`. The first list may take as long as it takes; an API server or a principal that is away is
    /// waited for.
    ///
    /// # Errors
    /// [`Error`] if it cannot begin, or if the principal and it do not trust each other from the start.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), Error> {
        let Self { config, connected, synced, outbox } = self;
        let metrics = Arc::new(Metrics::new(&config.registry)?);
        let tasks = TaskTracker::new();
        let stop = cancel.child_token();
        // Applications may be in many namespaces only if they keep theirs.
        let everywhere = config.destination_based_mapping;
        let informer = |kind, everywhere: bool, labels: Option<String>| {
            let namespace = (!everywhere).then(|| config.namespace.clone());
            Informer::new(&config.client, Scope { kind, namespace, labels })
        };
        let selector = config.label_selector.clone();
        let secrets = format!("{} in (repository,repo-creds)", label::SECRET_TYPE);
        let secrets =
            selector.as_deref().map_or_else(|| secrets.clone(), |labels| format!("{secrets},{labels}"));
        let informers = [
            informer(Kind::AppProject, false, selector.clone()),
            informer(Kind::Repository, false, Some(secrets)),
            informer(Kind::Application, everywhere, selector),
        ];
        let stores = Stores {
            projects: informers[0].store(),
            repositories: informers[1].store(),
            applications: informers[2].store(),
        };
        let policy = Policy { mismatch: config.mismatch_policy, adoption: config.adoption_policy };
        let reconciler =
            Arc::new(Reconciler::new(stores.clone(), Backend::new(config.client.clone()), policy));
        let outbound =
            Arc::new(Outbound { outbox: Arc::clone(&outbox), reconciler: Arc::clone(&reconciler) });
        for informer in informers {
            let (outbound, stop) = (Arc::clone(&outbound), stop.clone());
            let kind = informer.store().kind();
            tasks.spawn(
                async move { informer.run(stop, move |change| outbound.on_change(kind, &change)).await },
            );
        }
        {
            let (reconciler, stop) = (Arc::clone(&reconciler), stop.clone());
            tasks.spawn(async move {
                let log = |key: &_, done: &Done| {
                    if *done != Done::Unchanged {
                        tracing::info!(%key, "undid a local change");
                    }
                };
                reconciler.mend(stop, log).await;
            });
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
                let side = Arc::new(Managed {
                    reconciler,
                    outbound,
                    namespaces: Namespaces {
                        own: config.namespace.clone(),
                        keep: config.destination_based_mapping,
                        allowed: config.allowed_namespaces.clone(),
                    },
                    metrics: Arc::clone(&metrics),
                });
                tasks.spawn(connection::count(metrics, stores, stop.clone()));
                let target = Target {
                    dial: config.dial,
                    credentials: config.credentials,
                    namespace: config.namespace,
                    version: config.version,
                    compression: config.compression,
                    max_message_size: config.max_message_size,
                    heartbeat: config.heartbeat,
                };
                kept = connection::keep(target, side, outbox, connected, cancel.clone()).await;
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
