//! Starts everything in order, and drains it in reverse.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tiphys_proto::auth::authentication_server::AuthenticationServer;
use tiphys_proto::event_stream::event_stream_server::EventStreamServer;
use tiphys_proto::version::version_server::VersionServer;
use tiphys_shared::security::passwords::Passwords;
use tiphys_shared::security::subject::AuthRule;
use tiphys_shared::security::tls::ServerTls;
use tiphys_shared::security::token::Issuer;
use tiphys_shared::wire::transport::{self, Limits};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codec::CompressionEncoding;

use crate::Error;
use crate::agents::{AgentStatus, Agents};
use crate::control_plane::{ControlPlane, ControlPlaneConfig};
use crate::grpc::auth::AuthService;
use crate::grpc::event_stream::EventStreamService;
use crate::grpc::gate::Gate;
use crate::grpc::version::VersionService;
use crate::metrics::Metrics;
use crate::redis_proxy::{RedisProxy, RedisProxyConfig};

/// How long open streams get to end by themselves.
const DRAIN: Duration = Duration::from_secs(5);

/// Everything that a principal needs, ready to be used.
pub struct Config {
    /// What it serves.
    pub control_plane: ControlPlaneConfig,
    /// Where agents connect.
    pub listen: SocketAddr,
    /// TLS, or plaintext without it.
    pub tls: Option<ServerTls>,
    /// How agents prove who they are.
    pub auth: AuthRule,
    /// The users, where the method is `userpass`.
    pub passwords: Option<Passwords>,
    /// A client certificate's common name must be the agent's, whatever the method.
    pub client_cert_subject_match: bool,
    /// Issues and checks tokens.
    pub issuer: Issuer,
    /// Where Argo CD finds what clusters keep in their Redis, if it is to.
    pub redis_proxy: Option<RedisProxyConfig>,
}

/// A principal that listens but does not serve yet.
pub struct Bound {
    config: Config,
    listener: TcpListener,
    address: SocketAddr,
    redis_proxy: Option<RedisProxy>,
    agents: Arc<Agents>,
    ready: watch::Sender<bool>,
}

/// Looks at a running principal.
#[derive(Clone, Debug)]
pub struct Handle {
    agents: Arc<Agents>,
    ready: watch::Receiver<bool>,
}

impl Handle {
    /// All agents that have connected since the principal started, by name.
    pub fn agents(&self) -> Vec<AgentStatus> {
        self.agents.status()
    }

    /// Waits until agents are let in. Ends, too, when the principal does.
    pub async fn ready(&self) {
        _ = self.ready.clone().wait_for(|ready| *ready).await;
    }
}

/// Binds the ports.
///
/// # Errors
/// [`Error`] if one cannot be had.
pub async fn bind(mut config: Config) -> Result<Bound, Error> {
    let redis_proxy = match config.redis_proxy.take() {
        Some(config) => Some(RedisProxy::bind(config).await?),
        None => None,
    };
    let wrap = |source| Error::Bind { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(wrap)?;
    let address = listener.local_addr().map_err(wrap)?;
    Ok(Bound {
        config,
        listener,
        address,
        redis_proxy,
        agents: Arc::default(),
        ready: watch::channel(false).0,
    })
}

impl Bound {
    /// Where agents connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where Argo CD reaches the Redis proxy, if there is one.
    pub fn redis_proxy_address(&self) -> Option<SocketAddr> {
        self.redis_proxy.as_ref().map(|proxy| proxy.address)
    }

    /// A way to look at this principal while it runs.
    pub fn handle(&self) -> Handle {
        Handle { agents: Arc::clone(&self.agents), ready: self.ready.subscribe() }
    }

    /// Serves until `cancel`, then lets streams end and returns.
    ///
    /// Agents are let in only when the control plane has been read: before, an answer to what an agent should have
    /// could be wrong.
    ///
    /// # Errors
    /// [`Error`] if it cannot go on.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), Error> {
        let Self { config, listener, address, redis_proxy, agents, ready } = self;
        let tasks = TaskTracker::new();
        let watching = cancel.child_token();
        let namespace = config.control_plane.namespace.clone();
        let limit = config.control_plane.max_message_size;
        let started = ControlPlane::start_with(
            config.control_plane,
            Arc::clone(&agents),
            tasks.clone(),
            watching.clone(),
        );
        let Some(control_plane) = started.await? else { return Ok(()) };
        let metrics = Arc::clone(&control_plane.metrics);

        if let Some(proxy) = redis_proxy {
            tasks.spawn(proxy.run(control_plane.router(), Arc::clone(&metrics), watching.clone()));
        }
        let gate = Gate {
            issuer: config.issuer.clone(),
            rule: config.auth.clone(),
            match_subject: config.client_cert_subject_match,
        };
        let auth = AuthService { gate: gate.clone(), passwords: config.passwords.clone(), namespace };
        let version =
            VersionService { gate: gate.clone(), version: format!("tiphys-{}", env!("CARGO_PKG_VERSION")) };
        let events = EventStreamService { gate, control_plane };
        let events = EventStreamServer::new(events)
            .max_decoding_message_size(limit)
            .max_encoding_message_size(limit)
            .accept_compressed(CompressionEncoding::Gzip);
        let failures = metrics.handshake_failures.clone();
        let limits = Limits {
            on_failure: Some(Arc::new(move |failure: &transport::HandshakeFailure| {
                failures.with_label_values(&[failure.error.reason()]).inc();
            })),
            ..Limits::default()
        };
        let incoming = transport::listen(listener, config.tls.clone(), limits);
        tasks.spawn(watch_fleet(Arc::clone(&agents), Arc::clone(&metrics), watching.clone()));
        tracing::info!(%address, tls = config.tls.is_some(), auth = config.auth.method(), "taking agents");
        ready.send_replace(true);
        let stop = cancel.clone();
        let served = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            .http2_keepalive_timeout(Some(Duration::from_secs(20)))
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(512 * 1024)
            .add_service(AuthenticationServer::new(auth).max_decoding_message_size(64 * 1024))
            .add_service(VersionServer::new(version))
            .add_service(events)
            .serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
        // A peer that does not let go of its stream must not keep us.
        let deadline = async {
            cancel.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        let outcome = tokio::select! {
            served = served => served.map_err(Error::Serve),
            () = deadline => Ok(()),
        };
        watching.cancel();
        tasks.close();
        if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
            tracing::warn!(tasks = tasks.len(), "some tasks did not end in time");
        }
        outcome
    }
}

/// Keeps the figures that are averages over the fleet.
async fn watch_fleet(agents: Arc<Agents>, metrics: Arc<Metrics>, cancel: CancellationToken) {
    let mut tick = tokio::time::interval(Duration::from_secs(2));
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = tick.tick() => {}
        }
        metrics.connected_agents.set(i64::try_from(agents.connected()).unwrap_or(i64::MAX));
        let now = tiphys_shared::process::clock::now();
        let minutes: Vec<f64> = agents
            .status()
            .iter()
            .filter_map(|agent| agent.connected_since)
            .map(|since| now.duration_since(since).as_secs_f64() / 60.0)
            .collect();
        let average =
            if minutes.is_empty() { 0.0 } else { minutes.iter().sum::<f64>() / minutes.len() as f64 };
        metrics.average_connection_time.set(average);
    }
}
