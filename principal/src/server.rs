//! Starts everything in order, and drains it in reverse.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tiphys_proto::auth::authentication_server::AuthenticationServer;
use tiphys_proto::event_stream::event_stream_server::EventStreamServer;
use tiphys_proto::log_stream::log_stream_service_server::LogStreamServiceServer;
use tiphys_proto::terminal_stream::terminal_stream_service_server::TerminalStreamServiceServer;
use tiphys_proto::tunnel::tunnel_server::TunnelServer;
use tiphys_proto::version::version_server::VersionServer;
use tiphys_shared::kube::recorder::Recorder;
use tiphys_shared::model::feature::{Feature, Features};
use tiphys_shared::process::metrics::{InUse, expiry};
use tiphys_shared::process::readiness::{Condition, Guard, Readiness};
use tiphys_shared::security::passwords::Passwords;
use tiphys_shared::security::subject::AuthRule;
use tiphys_shared::security::tls::ServerTls;
use tiphys_shared::security::token::Issuer;
use tiphys_shared::wire::traces::Traces;
use tiphys_shared::wire::transport::websocket::WebSockets;
use tiphys_shared::wire::transport::{self, Limits, OnFailure};
use tiphys_shared::wire::tunnel::{LINK_FRAME, LINK_WINDOW};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;

use crate::Error;
use crate::agents::{AgentStatus, Agents};
use crate::control_plane::{ControlPlane, ControlPlaneConfig};
use crate::enrolment::{Enrolment, EnrolmentConfig};
use crate::grpc::answers::{self, AnswerService};
use crate::grpc::auth::AuthService;
use crate::grpc::connections::{self, Connections, KEEPALIVE};
use crate::grpc::event_stream::EventStreamService;
use crate::grpc::gate::Gate;
use crate::grpc::tunnel::TunnelService;
use crate::grpc::version::VersionService;
use crate::metrics::{Metrics, is_gone};
use crate::proxy::{self, Proxy, ProxyConfig};
use crate::redis_proxy::{RedisProxy, RedisProxyConfig};
use crate::registration::{Registration, RegistrationConfig};
use crate::web::{self, Facts, Web, WebConfig};

/// How long open streams get to end by themselves.
const DRAIN: Duration = Duration::from_secs(5);

/// Connections over HTTP/1.1 that have arrived, and wait for their turn.
const ARRIVING: usize = 512;

/// Everything that a principal needs, ready to be used.
pub struct Config {
    /// What it serves.
    pub control_plane: ControlPlaneConfig,
    /// Where agents connect.
    pub listen: SocketAddr,
    /// TLS, or plaintext without it.
    pub tls: Option<ServerTls>,
    /// How agents may connect.
    pub connections: Connections,
    /// How agents prove who they are.
    pub auth: AuthRule,
    /// The users, where the method is `userpass`.
    pub passwords: Option<Passwords>,
    /// A client certificate's common name must be the agent's, whatever the method.
    pub client_cert_subject_match: bool,
    /// Issues and checks tokens.
    pub issuer: Issuer,
    /// How the clusters' API is served to Argo CD and others, if it is.
    pub proxy: Option<ProxyConfig>,
    /// How agents come to be known.
    pub onboarding: Onboarding,
    /// Where Argo CD finds what clusters keep in their Redis, if it is to.
    pub redis_proxy: Option<RedisProxyConfig>,
    /// Where people find the fleet at a glance, if they are to.
    pub web: Option<WebConfig>,
    /// Where the traces go of what agents are told.
    pub traces: Traces,
    /// Writes what becomes of agents and resources on the objects that stand for them.
    pub recorder: Recorder,
}

/// How agents come to be known.
#[derive(Clone, Default)]
pub struct Onboarding {
    /// Cluster Secrets are made for agents that log in, if they are.
    pub registration: Option<RegistrationConfig>,
    /// Certificates are given out, if they are.
    pub enrolment: Option<EnrolmentConfig>,
}

/// A principal that listens but does not serve yet.
pub struct Bound {
    config: Config,
    listener: TcpListener,
    address: SocketAddr,
    proxy: Option<(TcpListener, SocketAddr)>,
    redis_proxy: Option<RedisProxy>,
    web: Option<(TcpListener, SocketAddr)>,
    certificates: Vec<(&'static str, ServerTls)>,
    agents: Arc<Agents>,
    ready: watch::Sender<bool>,
    parts: Parts,
}

/// What has to be ready.
struct Parts {
    readiness: Readiness,
    control_plane: Guard,
    proxy: Option<Condition>,
    redis_proxy: Option<Condition>,
}

impl Parts {
    fn new(has_proxy: bool, has_redis_proxy: bool) -> Self {
        let readiness = Readiness::new();
        let control_plane = readiness.guard("control-plane");
        control_plane.waiting_for("it has not been read yet");
        let waits = |name: &str| readiness.condition(name, "waits for the control plane to be read");
        let proxy = has_proxy.then(|| waits("resource-proxy"));
        let redis_proxy = has_redis_proxy.then(|| waits("redis-proxy"));
        Self { readiness, control_plane, proxy, redis_proxy }
    }
}

/// Looks at a running principal.
#[derive(Clone, Debug)]
pub struct Handle {
    agents: Arc<Agents>,
    ready: watch::Receiver<bool>,
    readiness: Readiness,
}

impl Handle {
    /// All agents that have connected since the principal started, by name.
    pub fn agents(&self) -> Vec<AgentStatus> {
        self.agents.status()
    }

    /// What has to be ready, and what is not.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Waits until agents are let in. Ends, too, when the principal does.
    pub async fn ready(&self) {
        _ = self.ready.clone().wait_for(|ready| *ready).await;
    }
}

/// Binds the ports: gRPC, and those of the proxies if there are to be any.
///
/// # Errors
/// [`Error`] if a port cannot be had.
pub async fn bind(mut config: Config) -> Result<Bound, Error> {
    let redis_proxy = match config.redis_proxy.take() {
        Some(config) => Some(RedisProxy::bind(config).await?),
        None => None,
    };
    let (listener, address) = bind_port(config.listen, "--listen-port").await?;
    let proxy = match &config.proxy {
        Some(proxy) => Some(bind_port(proxy.listen, "--resource-proxy-listen-port").await?),
        None => None,
    };
    let web = match &config.web {
        Some(web) => Some(bind_port(web.listen, "--web-port").await?),
        None => None,
    };
    let redis_tls = redis_proxy.as_ref().and_then(RedisProxy::tls);
    let certificates = [
        ("server", config.tls.clone()),
        ("resource-proxy", config.proxy.as_ref().map(|proxy| proxy.tls.clone())),
        ("redis-proxy", redis_tls),
    ];
    let certificates: Vec<_> =
        certificates.into_iter().filter_map(|(name, tls)| tls.map(|tls| (name, tls))).collect();
    expiry(&config.control_plane.registry, in_use(&certificates))?;
    let blocklist = config.tls.as_ref().map(|tls| tls.blocklist().clone()).unwrap_or_default();
    let agents = Arc::new(Agents::new(config.traces.clone(), config.recorder.clone(), blocklist));
    let ready = watch::channel(false).0;
    let parts = Parts::new(proxy.is_some(), redis_proxy.is_some());
    Ok(Bound { config, listener, address, proxy, redis_proxy, web, certificates, agents, ready, parts })
}

/// The certificates that there are, as they are whenever somebody asks.
fn in_use(certificates: &[(&'static str, ServerTls)]) -> Vec<InUse> {
    let ask = |tls: ServerTls| Box::new(move || tls.validity()) as Box<_>;
    certificates.iter().map(|(what, tls)| (*what, ask(tls.clone()))).collect()
}

async fn bind_port(address: SocketAddr, option: &'static str) -> Result<(TcpListener, SocketAddr), Error> {
    let wrap = |source| Error::Bind { address, option, source };
    let listener = TcpListener::bind(address).await.map_err(wrap)?;
    let address = listener.local_addr().map_err(wrap)?;
    Ok((listener, address))
}

impl Bound {
    /// Where agents connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the resource proxy listens, if there is one.
    pub fn proxy_address(&self) -> Option<SocketAddr> {
        self.proxy.as_ref().map(|(_, address)| *address)
    }

    /// Where Argo CD reaches the Redis proxy, if there is one.
    pub fn redis_proxy_address(&self) -> Option<SocketAddr> {
        self.redis_proxy.as_ref().map(|proxy| proxy.address)
    }

    /// Where the page about the fleet is, if there is one.
    pub fn web_address(&self) -> Option<SocketAddr> {
        self.web.as_ref().map(|(_, address)| *address)
    }

    /// A way to look at this principal while it runs.
    pub fn handle(&self) -> Handle {
        Handle {
            agents: Arc::clone(&self.agents),
            ready: self.ready.subscribe(),
            readiness: self.parts.readiness.clone(),
        }
    }

    /// Serves until `cancel`, then lets streams end and returns.
    ///
    /// Agents are let in only when the control plane has been read: before, an answer to what an agent should have
    /// could be wrong.
    ///
    /// # Errors
    /// [`Error`] if it cannot go on.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), Error> {
        let Self { config, listener, address, proxy, redis_proxy, web, certificates, agents, ready, parts } =
            self;
        let tasks = TaskTracker::new();
        let watching = cancel.child_token();
        let namespace = config.control_plane.namespace.clone();
        let client = config.control_plane.client.clone();
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
            let serving = proxy.run(control_plane.router(), Arc::clone(&metrics), watching.clone());
            tasks.spawn(ready_while(parts.redis_proxy, serving));
        }
        let gate = Gate {
            issuer: config.issuer.clone(),
            rule: config.auth.clone(),
            match_subject: config.client_cert_subject_match,
            refusals: metrics.authentication_failures.clone(),
        };
        if let (Some((listener, address)), Some(served)) = (web, config.web) {
            let facts = Facts { namespace: namespace.clone(), certificates };
            let page = Web {
                access: served.access,
                agents: Arc::clone(&agents),
                metrics: Arc::clone(&metrics),
                facts,
            };
            tracing::info!(%address, tls = served.tls.is_some(), "serving the page about the fleet");
            let stop = watching.clone();
            tasks.spawn(web::run(Arc::new(page), listener, served.tls, tasks.clone(), stop));
        }
        let Onboarding { registration, enrolment } = config.onboarding;
        let registration = registration.map(|config| {
            let (namespace, issuer) = (namespace.clone(), gate.issuer.clone());
            Arc::new(Registration { client, namespace, issuer, config })
        });
        if let Some(registration) = registration.clone() {
            tasks.spawn(registration.follow(watching.clone()));
        }
        let auth = AuthService {
            gate: gate.clone(),
            passwords: config.passwords.clone(),
            namespace,
            agents: Arc::clone(&agents),
            registration,
        };
        let enrolment = enrolment.map(|config| Enrolment::new(config, &gate, &metrics));
        let renewal = enrolment.as_ref().map(Enrolment::renewal);
        let version =
            VersionService { gate: gate.clone(), version: format!("tiphys-{}", env!("CARGO_PKG_VERSION")) };
        let tunnels = TunnelService { gate: gate.clone(), agents: Arc::clone(&agents), tasks: tasks.clone() };
        let answers = AnswerService { gate: gate.clone(), agents: Arc::clone(&agents) };
        let logs = LogStreamServiceServer::new(answers.clone()).max_decoding_message_size(answers::LARGEST);
        let terminals = TerminalStreamServiceServer::new(answers).max_decoding_message_size(answers::LARGEST);
        let features = match proxy {
            Some(_) => Features::all(),
            None => Features::all().without(Feature::Tunnel),
        };
        let events = EventStreamService { gate, control_plane, features };
        let events = EventStreamServer::new(events)
            .max_decoding_message_size(limit)
            .max_encoding_message_size(limit)
            .accept_compressed(CompressionEncoding::Gzip);
        let failures = metrics.handshake_failures.clone();
        let on_failure: OnFailure = Arc::new(move |failure: &transport::HandshakeFailure| {
            failures.with_label_values(&[failure.error.reason()]).inc();
        });
        let limits = Limits {
            on_failure: Some(Arc::clone(&on_failure)),
            min_ping_interval: config.connections.min_ping_interval,
            ..Limits::default()
        };
        let mut routes = Routes::builder();
        routes
            .add_service(AuthenticationServer::new(auth).max_decoding_message_size(64 * 1024))
            .add_service(VersionServer::new(version))
            .add_service(events)
            .add_service(TunnelServer::new(tunnels))
            .add_service(logs.accept_compressed(CompressionEncoding::Gzip))
            .add_service(terminals.accept_compressed(CompressionEncoding::Gzip));
        if let Some(renewal) = renewal {
            routes.add_service(renewal);
        }
        let routes = routes.routes();
        let mut incoming = transport::listen(listener, config.tls.clone(), limits);
        if let Some(enrolment) = enrolment {
            let (sender, connections) = mpsc::channel(enrolment.waiting());
            incoming = incoming.diverting(sender);
            tasks.spawn(enrolment.serve(connections, watching.clone()));
        }
        if config.connections.websocket {
            let (sender, connections) = mpsc::channel(ARRIVING);
            incoming = incoming.with_websockets(sender);
            let calls = connections::calls(routes.clone(), limit, Some(on_failure));
            let websockets = WebSockets::new(calls, tasks.clone(), watching.clone());
            tasks.spawn(websockets.serve(connections));
        }
        tasks.spawn(watch_fleet(Arc::clone(&agents), Arc::clone(&metrics), watching.clone()));
        if let (Some((listener, address)), Some(served)) = (proxy, config.proxy) {
            let proxy = Arc::new(Proxy {
                agents: Arc::clone(&agents),
                issuer: config.issuer.clone(),
                operators: served.operators,
                metrics: Arc::clone(&metrics),
                stop: watching.clone(),
            });
            tracing::info!(%address, "serving the clusters' api");
            tasks.spawn(ready_while(parts.proxy, proxy::run(proxy, listener, served.tls, tasks.clone())));
        }
        tracing::info!(%address, tls = config.tls.is_some(), auth = config.auth.method(), "taking agents");
        parts.control_plane.ready();
        ready.send_replace(true);
        let stop = cancel.clone();
        let served = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE.interval))
            .http2_keepalive_timeout(Some(KEEPALIVE.timeout))
            .initial_stream_window_size(LINK_WINDOW)
            .initial_connection_window_size(LINK_WINDOW)
            .max_frame_size(LINK_FRAME)
            .add_routes(routes)
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

/// A part is ready as long as it serves.
async fn ready_while(part: Option<Condition>, serving: impl Future<Output = ()>) {
    if let Some(part) = &part {
        part.ready();
    }
    serving.await;
    if let Some(part) = &part {
        part.not_ready("it serves no more");
    }
}

/// Keeps the figures that are averages over the fleet.
async fn watch_fleet(agents: Arc<Agents>, metrics: Arc<Metrics>, cancel: CancellationToken) {
    let mut tick = tokio::time::interval(Duration::from_secs(2));
    let mut forgotten = BTreeSet::new();
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            _ = tick.tick() => {}
        }
        metrics.connected_agents.set(i64::try_from(agents.connected()).unwrap_or(i64::MAX));
        let now = tiphys_shared::process::clock::now();
        let fleet = agents.status();
        for agent in &fleet {
            if !is_gone(agent.disconnected_since, now) {
                forgotten.remove(&agent.name);
            } else if forgotten.insert(agent.name.clone()) {
                metrics.forget(&agent.name);
            }
        }
        let minutes: Vec<f64> = fleet
            .iter()
            .filter_map(|agent| agent.connected_since)
            .map(|since| now.duration_since(since).as_secs_f64() / 60.0)
            .collect();
        let average =
            if minutes.is_empty() { 0.0 } else { minutes.iter().sum::<f64>() / minutes.len() as f64 };
        metrics.average_connection_time.set(average);
    }
}
