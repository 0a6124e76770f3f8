//! A control plane, a principal, clusters and agents, with real mTLS on loopback; each side can be killed.
//!
//! A side runs in a runtime of its own, so that killing it is what `kill -9` is: everything stops at its next await and
//! nothing is cleaned up. Its API server lives on.

mod cluster;
mod objects;
mod sides;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kube::Client;
use kube::api::{Api, PostParams};
use kube::core::DynamicObject;
use tiphys_shared::kube::kinds;
use tiphys_shared::kube::recorder;
use tiphys_shared::model::{Kind, Mode};
use tiphys_shared::process::clock;
use tiphys_shared::protocol::ownership::AdoptionPolicy;
use tiphys_shared::security::pki::Ca;
use tiphys_shared::security::tls::{ClientTls, Material, Policy, ServerTls};
use tiphys_shared::security::token::Issuer;
use tiphys_shared::wire::transport::DialOptions;

pub(crate) use self::cluster::{Cluster, create_namespace};
pub(crate) use self::objects::{application, delete, merge, revision, source_uid};
use self::sides::{Process, RESYNC};
pub(crate) use self::sides::{Served, agent_config, control_plane};

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long anything may take before a test gives up. Nothing waits for it when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes a client whose tasks live in the current runtime.
pub(crate) type Connect = Arc<dyn Fn() -> Client + Send + Sync>;

/// How an agent reaches the principal, where that is not straight and over HTTP/2.
pub(crate) type Reach = Arc<dyn Fn(DialOptions) -> DialOptions + Send + Sync>;

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
