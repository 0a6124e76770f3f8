//! The Redis proxy: Argo CD's server takes it for its Redis, and finds there what the clusters' own Argo CDs keep of their
//! Applications.
//!
//! ```text
//! Argo CD ──▶ commands ───────────────▶ Redis of the control plane
//!         ◀── replies ◀───────────────    ▲ PUBLISH
//!                ▲ at the place of a GET   │
//!                └─ remote ══▶ agents ══▶ subscriptions
//! ```
//!
//! Everything is a splice, but for what is provably about an Application of an agent. Instead of a `GET` for such a key, Redis is
//! told to `ECHO` a mark; where the mark comes in the replies, the agent's answer takes its place. So Redis itself keeps the order
//! of replies, in pipelines and transactions, and checks who asks. A `SUBSCRIBE` passes as it is; beside it the principal
//! subscribes at the cluster, and publishes in the control plane's Redis what it hears from there.

mod connection;
pub(crate) mod remote;
mod route;
mod subscriptions;

use std::net::SocketAddr;
use std::sync::Arc;

use futures::StreamExt as _;
use tiphys_shared::redis;
use tiphys_shared::security::tls::ServerTls;
use tiphys_shared::wire::transport::{self, Limits};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use self::route::Router;
use self::subscriptions::Subscriptions;
use crate::Error;
use crate::metrics::Metrics;

/// Connections that are served at once.
const CONNECTIONS: usize = 4096;

/// What the Redis proxy needs.
#[derive(Clone, Debug)]
pub struct RedisProxyConfig {
    /// Where Argo CD connects.
    pub listen: SocketAddr,
    /// TLS, or plaintext without it.
    pub tls: Option<ServerTls>,
    /// The control plane's Redis.
    pub redis: redis::Config,
}

/// A proxy that listens but does not serve yet.
pub(crate) struct RedisProxy {
    config: RedisProxyConfig,
    listener: TcpListener,
    pub(crate) address: SocketAddr,
}

/// What all connections share.
struct Shared {
    redis: redis::Config,
    router: Arc<Router>,
    subscriptions: Arc<Subscriptions>,
    metrics: Arc<Metrics>,
}

impl RedisProxy {
    /// Binds the port.
    pub(crate) async fn bind(config: RedisProxyConfig) -> Result<Self, Error> {
        let wrap = |source| Error::BindRedisProxy { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(wrap)?;
        let address = listener.local_addr().map_err(wrap)?;
        Ok(Self { config, listener, address })
    }

    /// Its certificate, if it has one.
    pub(crate) fn tls(&self) -> Option<ServerTls> {
        self.config.tls.clone()
    }

    /// Serves until `cancel`.
    pub(crate) async fn run(self, router: Router, metrics: Arc<Metrics>, cancel: CancellationToken) {
        let Self { config, listener, address } = self;
        let router = Arc::new(router);
        let subscriptions =
            Arc::new(Subscriptions::new(config.redis.clone(), Arc::clone(&router), Arc::clone(&metrics)));
        let shared = Arc::new(Shared {
            redis: config.redis,
            router,
            subscriptions: Arc::clone(&subscriptions),
            metrics: Arc::clone(&metrics),
        });
        let failures = metrics.redis_proxy_refused.clone();
        let limits = Limits {
            on_failure: Some(Arc::new(move |failure: &transport::HandshakeFailure| {
                failures.with_label_values(&[failure.error.reason()]).inc();
            })),
            ..Limits::default()
        };
        tracing::info!(%address, tls = config.tls.is_some(), "redis proxy listens");
        let mut incoming = transport::listen(listener, config.tls, limits);
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        // Dropped with this task, and the connections with it.
        let mut connections = JoinSet::new();
        let accept = async {
            loop {
                tokio::select! {
                    Some(accepted) = incoming.next() => {
                        let Ok(client) = accepted else { continue };
                        let slot = Arc::clone(&slots).try_acquire_owned().ok();
                        let shared = Arc::clone(&shared);
                        connections.spawn(async move { connection::serve(client, &shared, slot).await });
                    }
                    Some(_) = connections.join_next(), if !connections.is_empty() => {}
                }
            }
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => {}
            () = subscriptions.run() => {}
            () = accept => {}
        }
    }
}
