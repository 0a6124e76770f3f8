//! Principals and agents, each in a runtime of its own.

use std::net::SocketAddr;
use std::time::Duration;

use kube::Client;
use tiphys_agent::ProxyPolicy;
use tiphys_principal::{Operator, ProxyConfig};
use tiphys_shared::kube::api_server::ApiServer;
use tiphys_shared::kube::reconciler::NamespaceCreation;
use tiphys_shared::kube::recorder::Recorder;
use tiphys_shared::model::Mode;
use tiphys_shared::process::clock;
use tiphys_shared::process::options::NamePattern;
use tiphys_shared::protocol::ownership::{self, AdoptionPolicy, MismatchPolicy};
use tiphys_shared::security::passwords::Credentials;
use tiphys_shared::security::subject::AuthRule;
use tiphys_shared::security::tls::{Alpn, Material, Policy, ServerTls};
use tiphys_shared::wire::traces::Traces;
use tiphys_shared::wire::transport::DialOptions;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{DAY, Fleet};

/// How an agent serves the API of its cluster.
#[derive(Clone)]
pub(crate) struct Served {
    /// The API server, where it is not the cluster's own.
    pub(crate) api_server: Option<ApiServer>,
    pub(crate) policy: watch::Receiver<ProxyPolicy>,
    pub(crate) read_only: bool,
    pub(crate) impersonate: bool,
}

impl Default for Served {
    fn default() -> Self {
        let policy = watch::channel(ProxyPolicy::All).1;
        Self { api_server: None, policy, read_only: false, impersonate: false }
    }
}

/// Something that runs in a runtime of its own.
pub(super) struct Process {
    runtime: Option<Runtime>,
    stop: CancellationToken,
}

impl Process {
    fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Where the traces of a side go that runs in the current runtime.
fn traces(service: &'static str, collector: Option<SocketAddr>) -> Traces {
    let options = collector.map(|address| DialOptions::new(address.ip().to_string(), address.port(), None));
    options.map(|options| Traces::export(service, &options).unwrap()).unwrap_or_default()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

impl Fleet {
    /// Starts the principal, at the same address as before.
    pub(crate) async fn start_principal(&mut self) {
        let material = self.ca.issue_server(&["localhost", "127.0.0.1"], clock::now(), DAY).unwrap();
        let material = Material { ca: self.ca.certificate_pem().as_bytes().to_vec(), ..material };
        let alpn = if self.connections.websocket { Alpn::H2OrHttp1 } else { Alpn::H2 };
        let tls = ServerTls::new(&material, Policy { alpn, ..Policy::mutual() }).unwrap();
        let connections = self.connections.clone();
        let proxy = ProxyConfig {
            listen: self.proxy,
            tls: ServerTls::new(&material, Policy { alpn: Alpn::H2OrHttp1, ..Policy::mutual() }).unwrap(),
            operators: [("alice", "*"), ("bob", "edge-*")]
                .map(|(name, agents)| Operator {
                    name: name.to_owned(),
                    agents: NamePattern::new(agents).unwrap(),
                })
                .into(),
        };
        // The system may take a moment to free the ports of a principal that was killed.
        for address in [self.address, self.proxy, self.redis_proxy_address] {
            Self::until("the port", async || tokio::net::TcpListener::bind(address).await.ok()).await;
        }
        let redis_proxy = self.redis_proxy.clone().map(|(redis, tls)| tiphys_principal::RedisProxyConfig {
            listen: self.redis_proxy_address,
            tls,
            redis,
        });
        let listen = ([127, 0, 0, 1], 0).into();
        let web =
            self.viewers.clone().map(|access| tiphys_principal::WebConfig { listen, tls: None, access });
        let (by_destination, collector) = (self.by_destination, self.collector);
        let stop = CancellationToken::new();
        let runtime = runtime();
        let (control, namespace, issuer, listen) =
            (self.control.clone(), self.namespace.clone(), self.issuer.clone(), self.address);
        let (cancel, cancelled, events) = (stop.clone(), stop.clone(), self.events);
        self.figures = prometheus::Registry::new();
        let (figures, max_message_size) = (self.figures.clone(), self.max_message_size);
        let resync_interval = self.resync_interval;
        let cluster_view = self.cluster_view.clone();
        let (connect, namespace_creation) =
            (self.as_principal.clone(), self.create_namespaces.then(NamespaceCreation::default));
        let (bound, handle) = runtime
            .spawn(async move {
                let traces = traces("principal", collector);
                let client = connect.map_or_else(|| control.client(), |connect| connect());
                let recorder =
                    Recorder::start(client.clone(), &namespace, "tiphys-test", events, &figures, &cancelled)
                        .unwrap();
                let config = tiphys_principal::Config {
                    control_plane: tiphys_principal::ControlPlaneConfig {
                        registry: figures,
                        cluster_view,
                        max_message_size,
                        resync_interval,
                        destination_based_mapping: by_destination,
                        namespace_creation,
                        ..control_plane(client, &namespace)
                    },
                    listen,
                    tls: Some(tls),
                    connections,
                    auth: AuthRule::parse("mtls:CN=([^,]+)").unwrap(),
                    passwords: None,
                    client_cert_subject_match: false,
                    issuer,
                    proxy: Some(proxy),
                    onboarding: tiphys_principal::Onboarding::default(),
                    redis_proxy,
                    web,
                    traces,
                    recorder,
                };
                let bound = tiphys_principal::bind(config).await.unwrap();
                let handle = bound.handle();
                (bound, handle)
            })
            .await
            .unwrap();
        self.address = bound.address();
        self.proxy = bound.proxy_address().unwrap();
        self.web = bound.web_address();
        self.redis_proxy_address = bound.redis_proxy_address().unwrap_or(self.redis_proxy_address);
        runtime.spawn(bound.run(cancel));
        handle.ready().await;
        self.principal = Some((Process { runtime: Some(runtime), stop }, handle));
    }

    /// Starts a principal at another address beside the one that runs, which ends with what this returns. Agents that start
    /// from now on find the new one.
    #[cfg(not(feature = "real-cluster"))]
    pub(crate) async fn start_next_principal(&mut self) -> impl Drop + use<> {
        let former = self.principal.take().unwrap().0;
        let anywhere = ([127, 0, 0, 1], 0).into();
        (self.address, self.proxy, self.redis_proxy_address) = (anywhere, anywhere, anywhere);
        self.start_principal().await;
        former
    }

    /// `kill -9` of the principal.
    pub(crate) fn kill_principal(&mut self) {
        self.principal.take().unwrap().0.kill();
    }

    /// Starts an agent.
    pub(crate) fn start_agent(&mut self, name: &str) {
        let dial = self.dial(name);
        let (cluster, namespace) = (self.clusters[name].clone(), self.namespace.clone());
        let (adoption, buffer_interval, max_message_size) =
            (self.adoption, self.buffer_interval, self.max_message_size);
        let resync_interval = self.resync_interval;
        let (cluster_cache, served) = (self.cluster_cache.clone(), self.served.clone());
        let (redis, by_destination) = (self.redis.get(name).cloned(), self.by_destination);
        let (collector, events) = (self.collector, self.events);
        let (connect, create_namespaces) = (self.as_agents.get(name).cloned(), self.create_namespaces);
        let mode = if self.autonomous.contains(name) { Mode::Autonomous } else { Mode::Managed };
        let stop = CancellationToken::new();
        let runtime = runtime();
        let (sender, receiver) = std::sync::mpsc::channel();
        let cancel = stop.clone();
        runtime.spawn(async move {
            let link = tiphys_agent::connection::Grpc {
                dial,
                credentials: Credentials::Mtls,
                namespace: namespace.clone(),
                version: "test".to_owned(),
                compression: false,
                max_message_size,
            };
            let client = connect.map_or_else(|| cluster.client(), |connect| connect());
            let mut config = agent_config(mode, client.clone(), &namespace);
            config.recorder =
                Recorder::start(client.clone(), &namespace, "tiphys-test", events, &config.registry, &cancel)
                    .unwrap();
            config.create_namespaces = create_namespaces;
            config.traces = traces("agent", collector);
            config.policy.adoption = adoption;
            config.buffer_interval = buffer_interval;
            config.resync_interval = resync_interval;
            config.cluster_cache = cluster_cache;
            let api_server = served.api_server.unwrap_or_else(|| cluster.api_server());
            config.proxy = Some(tiphys_agent::ProxyConfig {
                api_server,
                policy: served.policy,
                read_only: served.read_only,
                impersonate: served.impersonate,
            });
            config.redis = redis;
            config.destination_based_mapping = by_destination;
            if by_destination {
                config.allowed_namespaces = vec![NamePattern::new("team-*").unwrap()];
            }
            let agent = tiphys_agent::Agent::new(config, link);
            sender.send(agent.handle()).unwrap();
            agent.run(cancel).await
        });
        let handle = receiver.recv().unwrap();
        self.agents.insert(name.to_owned(), (Process { runtime: Some(runtime), stop }, handle));
    }

    /// `kill -9` of an agent.
    pub(crate) fn kill_agent(&mut self, name: &str) {
        self.agents.remove(name).unwrap().0.kill();
    }
}

/// How long until what was lost is found, where nothing else brings it to light.
pub(super) const RESYNC: Duration = Duration::from_secs(2);

/// A control plane that serves every namespace.
pub(crate) fn control_plane(client: Client, namespace: &str) -> tiphys_principal::ControlPlaneConfig {
    tiphys_principal::ControlPlaneConfig {
        client,
        namespace: namespace.to_owned(),
        allowed_namespaces: vec![NamePattern::new("*").unwrap()],
        destination_based_mapping: false,
        namespace_creation: None,
        label_selector: None,
        resync_interval: Some(RESYNC),
        cluster_view: None,
        max_message_size: 16 << 20,
        registry: prometheus::Registry::new(),
    }
}

/// An agent as its defaults have it.
pub(crate) fn agent_config(mode: Mode, client: Client, namespace: &str) -> tiphys_agent::Config {
    tiphys_agent::Config {
        mode,
        client,
        namespace: namespace.to_owned(),
        allowed_namespaces: Vec::new(),
        destination_based_mapping: false,
        create_namespaces: false,
        policy: ownership::Policy { mismatch: MismatchPolicy::Recreate, adoption: AdoptionPolicy::Always },
        on_return: None,
        label_selector: None,
        resync_interval: Some(RESYNC),
        buffer_interval: None,
        cluster_cache: None,
        proxy: None,
        redis: None,
        heartbeat: None,
        registry: prometheus::Registry::new(),
        traces: Default::default(),
        recorder: Recorder::default(),
    }
}
