//! A control plane, a principal, clusters and agents, with real mTLS on loopback; each side can be killed.
//!
//! A side runs in a runtime of its own, so that killing it is what `kill -9` is: everything stops at its next await and
//! nothing is cleaned up. Its API server lives on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tiphys_agent::ProxyPolicy;
use tiphys_principal::{Operator, ProxyConfig};
use tiphys_shared::kube::api_server::ApiServer;
use tiphys_shared::kube::kinds;
use tiphys_shared::kube::reconciler::NamespaceCreation;
use tiphys_shared::kube::recorder::{self, Recorder};
use tiphys_shared::model::{Kind, Mode};
use tiphys_shared::process::clock;
use tiphys_shared::process::options::NamePattern;
use tiphys_shared::protocol::ownership::{self, AdoptionPolicy, MismatchPolicy};
use tiphys_shared::security::passwords::Credentials;
use tiphys_shared::security::pki::Ca;
use tiphys_shared::security::subject::AuthRule;
use tiphys_shared::security::tls::{Alpn, ClientTls, Material, Policy, ServerTls};
use tiphys_shared::security::token::Issuer;
use tiphys_shared::wire::traces::Traces;
use tiphys_shared::wire::transport::DialOptions;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long anything may take before a test gives up. Nothing waits for it when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

/// One cluster's API server.
#[derive(Clone)]
pub(crate) enum Cluster {
    #[cfg(not(feature = "real-cluster"))]
    Embedded(tiphys_apiserver::ApiServer),
    #[cfg(feature = "real-cluster")]
    Real(Box<kube::Config>),
}

impl Cluster {
    #[cfg(not(feature = "real-cluster"))]
    pub(crate) fn embedded() -> Self {
        use tiphys_apiserver::ApiServer;

        let server = ApiServer::new(tiphys_apiserver::Options::default());
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds");
        for file in ["applications.yaml", "appprojects.yaml"] {
            server.install_crds(&std::fs::read_to_string(folder.join(file)).unwrap()).unwrap();
        }
        Self::Embedded(server)
    }

    /// A client whose tasks live in the current runtime.
    pub(crate) fn client(&self) -> Client {
        match self {
            #[cfg(not(feature = "real-cluster"))]
            Self::Embedded(server) => server.client(),
            #[cfg(feature = "real-cluster")]
            Self::Real(config) => Client::try_from((**config).clone()).unwrap(),
        }
    }

    /// The same for requests that are passed on.
    pub(crate) fn api_server(&self) -> ApiServer {
        match self {
            #[cfg(not(feature = "real-cluster"))]
            Self::Embedded(server) => ApiServer::of(server.service()),
            #[cfg(feature = "real-cluster")]
            Self::Real(config) => ApiServer::connect(config).unwrap(),
        }
    }
}

/// Makes a client whose tasks live in the current runtime.
pub(crate) type Connect = Arc<dyn Fn() -> Client + Send + Sync>;

/// How an agent reaches the principal, where that is not straight and over HTTP/2.
pub(crate) type Reach = Arc<dyn Fn(DialOptions) -> DialOptions + Send + Sync>;

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
struct Process {
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

/// Everything.
pub(crate) struct Fleet {
    pub(crate) namespace: String,
    pub(crate) control: Cluster,
    pub(crate) ca: Ca,
    pub(crate) issuer: Issuer,
    address: SocketAddr,
    /// Where the resource proxy listens.
    pub(crate) proxy: SocketAddr,
    /// How agents may reach a principal that starts.
    pub(crate) connections: tiphys_principal::Connections,
    /// How agents that start reach it.
    pub(crate) reach: Option<Reach>,
    /// How agents that start serve the API of their clusters.
    pub(crate) served: Served,
    /// What agents that start do about what is there already.
    pub(crate) adoption: AdoptionPolicy,
    /// How agents that start hold changes back.
    pub(crate) buffer_interval: Option<Duration>,
    /// How often the sides that start compare what they have.
    pub(crate) resync_interval: Option<Duration>,
    /// Where a principal that starts shows its agents.
    pub(crate) cluster_view: Option<tiphys_principal::ClusterViewConfig>,
    /// Where agents that start find what is on their clusters.
    pub(crate) cluster_cache: Option<tiphys_agent::ClusterCacheConfig>,
    /// Sides that start map Applications by their destination.
    pub(crate) by_destination: bool,
    /// Sides that start create the namespaces that Applications need.
    pub(crate) create_namespaces: bool,
    /// As whom a principal that starts uses its API server, where that is not whoever may do anything.
    pub(crate) as_principal: Option<Connect>,
    /// The same for agents.
    pub(crate) as_agents: BTreeMap<String, Connect>,
    /// The Redis that a principal that starts stands before, and how it does.
    pub(crate) redis_proxy: Option<(tiphys_shared::redis::Config, Option<ServerTls>)>,
    redis_proxy_address: SocketAddr,
    /// The collector of the traces of sides that start, if they are to be traced.
    pub(crate) collector: Option<SocketAddr>,
    /// How many Kubernetes Events sides that start write, if they are to write any.
    pub(crate) events: Option<recorder::Limits>,
    /// Who may look at the page of a principal that starts, if it is to have one.
    pub(crate) viewers: Option<tiphys_principal::Access>,
    /// Where that page is.
    pub(crate) web: Option<SocketAddr>,
    /// The Redis of each agent that starts.
    pub(crate) redis: BTreeMap<String, tiphys_shared::redis::Config>,
    max_message_size: usize,
    /// The figures of the principal that runs.
    pub(crate) figures: prometheus::Registry,
    principal: Option<(Process, tiphys_principal::Handle)>,
    clusters: BTreeMap<String, Cluster>,
    /// Names of the agents that own what they have.
    autonomous: BTreeSet<String>,
    agents: BTreeMap<String, (Process, tiphys_agent::Handle)>,
}

impl Fleet {
    #[cfg(not(feature = "real-cluster"))]
    /// A control plane with a principal, and agents with a cluster each, all of embedded API servers.
    pub(crate) async fn embedded(agents: &[&str]) -> Self {
        let clusters = agents.iter().map(|name| ((*name).to_owned(), Cluster::embedded())).collect();
        Self::start(Cluster::embedded(), clusters, &[]).await
    }

    #[cfg(not(feature = "real-cluster"))]
    /// The same where no message may be larger than that.
    pub(crate) async fn with_messages_of(agents: &[&str], bytes: usize) -> Self {
        let clusters = agents.iter().map(|name| ((*name).to_owned(), Cluster::embedded())).collect();
        Self::start_with(Cluster::embedded(), clusters, &[], bytes).await
    }

    #[cfg(not(feature = "real-cluster"))]
    /// The same with agents that own what they have.
    pub(crate) async fn autonomous(agents: &[&str]) -> Self {
        let clusters = agents.iter().map(|name| ((*name).to_owned(), Cluster::embedded())).collect();
        Self::start(Cluster::embedded(), clusters, agents).await
    }

    /// The same on the clusters given.
    pub(crate) async fn start(
        control: Cluster,
        clusters: BTreeMap<String, Cluster>,
        autonomous: &[&str],
    ) -> Self {
        Self::start_with(control, clusters, autonomous, 16 << 20).await
    }

    async fn start_with(
        control: Cluster,
        clusters: BTreeMap<String, Cluster>,
        autonomous: &[&str],
        max_message_size: usize,
    ) -> Self {
        let mut fleet = Self::prepare(control, clusters, autonomous, max_message_size).await;
        fleet.start_all().await;
        fleet
    }

    /// The same where nothing has begun yet.
    pub(crate) async fn prepare(
        control: Cluster,
        clusters: BTreeMap<String, Cluster>,
        autonomous: &[&str],
        max_message_size: usize,
    ) -> Self {
        static FLEETS: AtomicU32 = AtomicU32::new(0);
        // RUST_LOG=debug shows what a failing test did.
        _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let namespace = format!("argocd-{}-{}", std::process::id(), FLEETS.fetch_add(1, Ordering::Relaxed));
        let ca = Ca::generate("fleet", clock::now(), DAY).unwrap();
        let fleet = Self {
            namespace,
            control,
            ca,
            issuer: Issuer::generate(2048).unwrap().0,
            address: ([127, 0, 0, 1], 0).into(),
            proxy: ([127, 0, 0, 1], 0).into(),
            connections: tiphys_principal::Connections::default(),
            reach: None,
            served: Served::default(),
            adoption: AdoptionPolicy::Always,
            buffer_interval: None,
            resync_interval: Some(RESYNC),
            cluster_view: None,
            cluster_cache: None,
            by_destination: false,
            create_namespaces: false,
            as_principal: None,
            as_agents: BTreeMap::new(),
            redis_proxy: None,
            redis_proxy_address: ([127, 0, 0, 1], 0).into(),
            collector: None,
            events: None,
            viewers: None,
            web: None,
            redis: BTreeMap::new(),
            max_message_size,
            figures: prometheus::Registry::new(),
            principal: None,
            clusters,
            autonomous: autonomous.iter().map(|name| (*name).to_owned()).collect(),
            agents: BTreeMap::new(),
        };
        create_namespace(&fleet.control.client(), &fleet.namespace).await;
        for cluster in fleet.clusters.values() {
            create_namespace(&cluster.client(), &fleet.namespace).await;
        }
        fleet
    }

    /// Starts every side.
    pub(crate) async fn start_all(&mut self) {
        let names: Vec<String> = self.clusters.keys().cloned().collect();
        if !self.create_namespaces {
            for name in &names {
                create_namespace(&self.control.client(), name).await;
            }
        }
        self.start_principal().await;
        for name in names {
            self.start_agent(&name);
        }
    }

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
                let recorder = recorder(&client, &namespace, events, &figures, &cancelled);
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
            config.recorder = recorder(&client, &namespace, events, &config.registry, &cancel);
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

    /// How to reach the principal as `name`.
    pub(crate) fn dial(&self, name: &str) -> DialOptions {
        let material = self.ca.issue_client::<&str>(name, &[], clock::now(), DAY).unwrap();
        let material = Material { ca: self.ca.certificate_pem().as_bytes().to_vec(), ..material };
        let tls = ClientTls::new(&material, Policy::default(), false).unwrap();
        let straight = DialOptions::new("127.0.0.1", self.address.port(), Some(tls));
        match &self.reach {
            None => straight,
            Some(reach) => reach(straight),
        }
    }

    /// Where agents connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A token with which an agent calls the principal.
    pub(crate) fn access_token(&self, agent: &str) -> String {
        let agent = tiphys_shared::model::AgentName::new(agent).unwrap();
        let subject = tiphys_shared::security::token::Subject { agent, mode: Mode::Managed };
        self.issuer.issue(&subject, clock::now()).unwrap().access
    }

    /// Where Argo CD reaches the Redis proxy.
    pub(crate) fn redis_proxy_address(&self) -> SocketAddr {
        self.redis_proxy_address
    }

    /// The cluster of an agent.
    pub(crate) fn cluster(&self, agent: &str) -> &Cluster {
        &self.clusters[agent]
    }

    /// The principal, looked at from outside.
    pub(crate) fn principal(&self) -> &tiphys_principal::Handle {
        &self.principal.as_ref().unwrap().1
    }

    /// Sum of a figure of the principal that runs, over all its labels.
    pub(crate) fn figure(&self, name: &str) -> u64 {
        let families = self.figures.gather();
        let family = families.iter().find(|family| family.name() == name);
        family.map_or(0, |family| {
            family.get_metric().iter().map(|metric| metric.get_counter().get_value() as u64).sum()
        })
    }

    /// A gauge of the principal that runs.
    pub(crate) fn gauge(&self, name: &str) -> i64 {
        let families = self.figures.gather();
        let family = families.iter().find(|family| family.name() == name);
        family.map_or(0, |family| {
            family.get_metric().iter().map(|metric| metric.get_gauge().get_value() as i64).sum()
        })
    }

    /// Objects at the control plane: Applications of an agent, or projects and repositories.
    pub(crate) fn at_control(&self, kind: Kind, agent: &str) -> Api<DynamicObject> {
        let namespace = if kind == Kind::Application { agent } else { &self.namespace };
        kinds::api(&self.control.client(), kind, Some(namespace))
    }

    /// Objects at an agent's cluster.
    pub(crate) fn at_cluster(&self, kind: Kind, agent: &str) -> Api<DynamicObject> {
        kinds::api(&self.clusters[agent].client(), kind, Some(&self.namespace))
    }

    /// Creates an Application at the control plane.
    pub(crate) async fn create(&self, agent: &str, name: &str) -> DynamicObject {
        self.at_control(Kind::Application, agent)
            .create(&PostParams::default(), &application(name, "main"))
            .await
            .unwrap()
    }

    /// Waits until what `look` finds is there.
    pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look().await {
                return found;
            }
            assert!(tokio::time::Instant::now() < deadline, "it never came: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the object there satisfies `is_so`.
    pub(crate) async fn until_is(
        api: &Api<DynamicObject>,
        name: &str,
        what: &str,
        is_so: impl Fn(&DynamicObject) -> bool,
    ) -> DynamicObject {
        Self::until(what, async || api.get_opt(name).await.ok().flatten().filter(&is_so)).await
    }

    /// Waits until the object is gone.
    pub(crate) async fn until_gone(api: &Api<DynamicObject>, name: &str) {
        Self::until(&format!("{name} gone"), async || api.get_opt(name).await.ok()?.is_none().then_some(()))
            .await;
    }

    /// Waits until nobody has anything left to say.
    pub(crate) async fn until_quiet(&self) {
        Self::until("quiet", async || {
            let sent = self.principal().agents().iter().all(|agent| agent.outbox == 0);
            let said = self.agents.values().all(|(_, agent)| agent.is_connected() && agent.outbox() == 0);
            (sent && said).then_some(())
        })
        .await;
    }
}

/// Writes the Kubernetes Events of a side that runs in the current runtime, if it is to write any.
fn recorder(
    client: &Client,
    namespace: &str,
    limits: Option<recorder::Limits>,
    registry: &prometheus::Registry,
    stop: &CancellationToken,
) -> Recorder {
    limits.map_or_else(Recorder::default, |limits| {
        Recorder::start(client.clone(), namespace, "tiphys-test", limits, registry, stop).unwrap()
    })
}

/// How long until what was lost is found, where nothing else brings it to light.
pub(crate) const RESYNC: Duration = Duration::from_secs(2);

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

pub(crate) async fn create_namespace(client: &Client, name: &str) {
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    match namespaces.create(&PostParams::default(), &namespace).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => panic!("namespace {name}: {error}"),
    }
}

/// An Application as a user writes it.
pub(crate) fn application(name: &str, revision: &str) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
        "metadata": {"name": name, "labels": {"team": "blue"}},
        "spec": {
            "project": "default",
            "source": {"repoURL": "https://git.example.com/app.git", "path": "deploy", "targetRevision": revision},
            "destination": {"name": "somewhere", "namespace": "guests"},
        },
    }))
    .unwrap()
}

/// Merges a patch into an object.
pub(crate) async fn merge(api: &Api<DynamicObject>, name: &str, patch: Value) -> DynamicObject {
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap()
}

/// Deletes an object, and lets what it leads to happen by itself.
pub(crate) async fn delete(api: &Api<DynamicObject>, name: &str) {
    api.delete(name, &DeleteParams::background()).await.unwrap();
}

/// The revision that an Application asks for.
pub(crate) fn revision(object: &DynamicObject) -> &str {
    object.data["spec"]["source"]["targetRevision"].as_str().unwrap_or_default()
}

/// The UID of the original that an object says to be a copy of.
pub(crate) fn source_uid(object: &DynamicObject) -> &str {
    object.annotations().get("argocd.argoproj.io/source-uid").map(String::as_str).unwrap_or_default()
}
