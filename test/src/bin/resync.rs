//! What it costs two sides to find out that they agree, or what one thing they differ in.
//!
//! A principal and an agent talk over mTLS on loopback; their API servers are embedded. Messages and bytes are counted
//! between the agent and its connection, acknowledgements included. Prints one line per measurement.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use futures::StreamExt as _;
use kube::api::{Api, Patch, PatchParams, PostParams};
use prost::Message as _;
use serde_json::json;
use tiphys_agent::connection::{Error, Grpc, Link, Opened};
use tiphys_apiserver::ApiServer;
use tiphys_principal::ControlPlaneConfig;
use tiphys_shared::kube::kinds;
use tiphys_shared::model::feature::Features;
use tiphys_shared::model::{Kind, Mode, Object};
use tiphys_shared::process::clock;
use tiphys_shared::process::options::NamePattern;
use tiphys_shared::protocol::ownership::{AdoptionPolicy, MismatchPolicy, Policy};
use tiphys_shared::security::passwords::Credentials;
use tiphys_shared::security::pki::Ca;
use tiphys_shared::security::subject::AuthRule;
use tiphys_shared::security::tls::{self, ClientTls, Material, ServerTls};
use tiphys_shared::security::token::Issuer;
use tiphys_shared::wire::transport::DialOptions;
use tiphys_test::installation::DAY;
use tiphys_test::load::application::minimal;
use tiphys_test::program;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const AGENT: &str = "edge";
const NAMESPACE: &str = "argocd";
const MESSAGE_SIZE: usize = 200 << 20;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures the cost of comparisons
#[derive(Parser)]
struct Options {
    /// Applications that are in sync when a side restarts
    #[arg(long, default_value_t = 1_100)]
    restart: usize,
    /// Applications of which one changes while the agent is away
    #[arg(long, default_value_t = 10_000)]
    change: usize,
    /// Seconds for which idle traffic is counted
    #[arg(long, default_value_t = 180)]
    idle: u64,
}

/// What went over a connection.
#[derive(Debug, Default)]
struct Traffic {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Traffic {
    fn count(&self, message: &tiphys_proto::event_stream::Event) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(message.encoded_len() as u64, Ordering::Relaxed);
    }

    fn take(&self) -> (u64, u64) {
        (self.messages.swap(0, Ordering::Relaxed), self.bytes.swap(0, Ordering::Relaxed))
    }
}

struct Counted {
    inner: Grpc,
    traffic: Arc<Traffic>,
}

impl Link for Counted {
    async fn open(&self, mode: Mode, offer: Features) -> Result<Opened, Error> {
        let mut opened = self.inner.open(mode, offer).await?;
        let traffic = Arc::clone(&self.traffic);
        opened.incoming =
            opened.incoming.inspect(move |message| message.iter().for_each(|it| traffic.count(it))).boxed();
        let (sender, mut said) = mpsc::channel(32);
        let on = std::mem::replace(&mut opened.outgoing, sender);
        let traffic = Arc::clone(&self.traffic);
        tokio::spawn(async move {
            while let Some(message) = said.recv().await {
                traffic.count(&message);
                if on.send(message).await.is_err() {
                    return;
                }
            }
        });
        Ok(opened)
    }
}

struct Principal {
    handle: tiphys_principal::Handle,
    stop: CancellationToken,
    task: JoinHandle<Result<(), tiphys_principal::Error>>,
    figures: prometheus::Registry,
}

struct Agent {
    handle: tiphys_agent::Handle,
    stop: CancellationToken,
    task: JoinHandle<Result<(), tiphys_agent::Error>>,
    figures: prometheus::Registry,
}

struct Pair {
    mode: Mode,
    control: ApiServer,
    cluster: ApiServer,
    ca: Ca,
    issuer: Issuer,
    address: SocketAddr,
    traffic: Arc<Traffic>,
}

fn server() -> Result<ApiServer> {
    let server = ApiServer::new(tiphys_apiserver::Options::default());
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds");
    for file in ["applications.yaml", "appprojects.yaml"] {
        server.install_crds(&std::fs::read_to_string(folder.join(file))?)?;
    }
    Ok(server)
}

async fn namespace(server: &ApiServer, name: &str) -> Result<()> {
    let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(server.client());
    api.create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": name}}))?).await?;
    Ok(())
}

impl Pair {
    async fn new(mode: Mode, applications: usize) -> Result<Self> {
        let pair = Self {
            mode,
            control: server()?,
            cluster: server()?,
            ca: Ca::generate("resync", clock::now(), DAY)?,
            issuer: Issuer::generate(2048)?.0,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            traffic: Arc::default(),
        };
        namespace(&pair.control, NAMESPACE).await?;
        namespace(&pair.control, AGENT).await?;
        namespace(&pair.cluster, NAMESPACE).await?;
        for n in 0..applications {
            let name = format!("app-{n}");
            pair.owned().create(&PostParams::default(), &minimal(&name)?).await?;
        }
        Ok(pair)
    }

    fn owned(&self) -> Api<Object> {
        match self.mode {
            Mode::Managed => kinds::api(&self.control.client(), Kind::Application, Some(AGENT)),
            Mode::Autonomous => kinds::api(&self.cluster.client(), Kind::Application, Some(NAMESPACE)),
        }
    }

    fn held(&self) -> Api<Object> {
        match self.mode {
            Mode::Managed => kinds::api(&self.cluster.client(), Kind::Application, Some(NAMESPACE)),
            Mode::Autonomous => kinds::api(&self.control.client(), Kind::Application, Some(AGENT)),
        }
    }

    async fn principal(&mut self) -> Result<Principal> {
        let material = self.ca.issue_server(&["127.0.0.1"], clock::now(), DAY)?;
        let material = Material { ca: self.ca.certificate_pem().as_bytes().to_vec(), ..material };
        let figures = prometheus::Registry::new();
        let bound = tiphys_principal::bind(tiphys_principal::Config {
            control_plane: ControlPlaneConfig {
                client: self.control.client(),
                namespace: NAMESPACE.to_owned(),
                allowed_namespaces: vec![NamePattern::new("*")?],
                destination_based_mapping: false,
                namespace_creation: None,
                label_selector: None,
                resync_interval: Some(Duration::from_secs(60)),
                cluster_view: None,
                max_message_size: MESSAGE_SIZE,
                registry: figures.clone(),
            },
            listen: self.address,
            tls: Some(ServerTls::new(&material, tls::Policy::mutual())?),
            connections: tiphys_principal::Connections::default(),
            auth: AuthRule::parse("mtls:CN=([^,]+)")?,
            passwords: None,
            client_cert_subject_match: true,
            issuer: self.issuer.clone(),
            proxy: None,
            onboarding: tiphys_principal::Onboarding::default(),
            redis_proxy: None,
            web: None,
            traces: Default::default(),
            recorder: Default::default(),
        })
        .await?;
        self.address = bound.address();
        let (handle, stop) = (bound.handle(), CancellationToken::new());
        let task = tokio::spawn(bound.run(stop.clone()));
        Ok(Principal { handle, stop, task, figures })
    }

    fn agent(&self) -> Result<Agent> {
        let material = self.ca.issue_client::<&str>(AGENT, &[], clock::now(), DAY)?;
        let material = Material { ca: self.ca.certificate_pem().as_bytes().to_vec(), ..material };
        let tls = ClientTls::new(&material, tls::Policy::default(), false)?;
        let figures = prometheus::Registry::new();
        let config = tiphys_agent::Config {
            mode: self.mode,
            client: self.cluster.client(),
            namespace: NAMESPACE.to_owned(),
            allowed_namespaces: Vec::new(),
            destination_based_mapping: false,
            create_namespaces: false,
            policy: Policy { mismatch: MismatchPolicy::Recreate, adoption: AdoptionPolicy::Always },
            on_return: None,
            label_selector: None,
            resync_interval: Some(Duration::from_secs(60)),
            buffer_interval: None,
            cluster_cache: None,
            proxy: None,
            redis: None,
            heartbeat: None,
            registry: figures.clone(),
            traces: Default::default(),
            recorder: Default::default(),
        };
        let inner = Grpc {
            dial: DialOptions::new("127.0.0.1", self.address.port(), Some(tls)),
            credentials: Credentials::Mtls,
            namespace: NAMESPACE.to_owned(),
            version: "resync".to_owned(),
            compression: false,
            max_message_size: MESSAGE_SIZE,
        };
        let agent = tiphys_agent::Agent::new(config, Counted { inner, traffic: Arc::clone(&self.traffic) });
        let (handle, stop) = (agent.handle(), CancellationToken::new());
        let task = tokio::spawn(agent.run(stop.clone()));
        Ok(Agent { handle, stop, task, figures })
    }

    /// Waits until both have compared what they hold once more than `before`, and nobody has anything left to say.
    async fn until_compared(&self, principal: &Principal, agent: &Agent, before: (f64, f64)) -> Result<()> {
        until("the comparison", async || {
            let now = rounds(principal, agent);
            // The cluster holds nothing of the control plane's in autonomous mode.
            let compared = now.0 > before.0 && (self.mode == Mode::Autonomous || now.1 > before.1);
            compared
                && agent.handle.is_connected()
                && agent.handle.outbox() == 0
                && principal.handle.agents().iter().all(|agent| agent.outbox == 0)
        })
        .await
    }
}

/// How often each side has begun a comparison.
fn rounds(principal: &Principal, agent: &Agent) -> (f64, f64) {
    let count = |figures: &prometheus::Registry, name: &str| {
        let families = figures.gather();
        let family = families.iter().find(|family| family.name() == name);
        family.map_or(0.0, |family| family.get_metric().iter().map(|it| it.get_counter().get_value()).sum())
    };
    (
        count(&principal.figures, "tiphys_principal_resync_rounds_total"),
        count(&agent.figures, "tiphys_agent_resync_rounds_total"),
    )
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        ensure!(Instant::now() < deadline, "it never came: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

async fn stopped<E: std::error::Error + Send + Sync + 'static>(
    stop: CancellationToken,
    task: JoinHandle<Result<(), E>>,
) -> Result<()> {
    stop.cancel();
    Ok(task.await??)
}

async fn measure_restarts(mode: Mode, applications: usize) -> Result<()> {
    let mut pair = Pair::new(mode, applications).await?;
    let mut principal = pair.principal().await?;
    let mut agent = pair.agent()?;
    let held = pair.held();
    until("everything in sync", async || {
        let list = held.list_metadata(&kube::api::ListParams::default()).await;
        list.is_ok_and(|list| list.items.len() == applications)
    })
    .await?;
    pair.until_compared(&principal, &agent, (0.0, 0.0)).await?;
    for side in ["principal", "agent"] {
        let mut before = rounds(&principal, &agent);
        if side == "principal" {
            stopped(principal.stop, principal.task).await?;
            principal = pair.principal().await?;
            before.0 = 0.0;
        } else {
            stopped(agent.stop, agent.task).await?;
            agent = pair.agent()?;
            before.1 = 0.0;
        }
        pair.traffic.take();
        until("the stream", async || agent.handle.is_connected()).await?;
        let began = Instant::now();
        pair.until_compared(&principal, &agent, before).await?;
        let took = began.elapsed();
        let (messages, bytes) = pair.traffic.take();
        println!(
            "{mode}: restart of the {side} with {applications} applications in sync: {messages} messages, {bytes} bytes, \
             both know after {} ms",
            took.as_millis()
        );
    }
    stopped(agent.stop, agent.task).await?;
    stopped(principal.stop, principal.task).await
}

async fn measure_change(mode: Mode, applications: usize, idle: Duration) -> Result<()> {
    let mut pair = Pair::new(mode, applications).await?;
    let principal = pair.principal().await?;
    let agent = pair.agent()?;
    let held = pair.held();
    until("everything in sync", async || {
        let list = held.list_metadata(&kube::api::ListParams::default()).await;
        list.is_ok_and(|list| list.items.len() == applications)
    })
    .await?;
    pair.until_compared(&principal, &agent, (0.0, 0.0)).await?;
    // Neither side was there: only a comparison can find it.
    stopped(agent.stop, agent.task).await?;
    stopped(principal.stop, principal.task).await?;
    let changed = format!("app-{}", applications / 2);
    let patch = json!({"spec": {"source": {"targetRevision": "v2"}}});
    let object = pair.owned().patch(&changed, &PatchParams::default(), &Patch::Merge(patch)).await?;
    let size = serde_json::to_string(&object)?.len();
    pair.traffic.take();
    let principal = pair.principal().await?;
    let agent = pair.agent()?;
    until("the change", async || {
        held.get(&changed).await.is_ok_and(|it| it.data["spec"]["source"]["targetRevision"] == "v2")
    })
    .await?;
    pair.until_compared(&principal, &agent, (0.0, 0.0)).await?;
    let (messages, bytes) = pair.traffic.take();
    println!(
        "{mode}: 1 of {applications} applications changed while both were away: {messages} messages, {bytes} bytes, \
         of which the object is {size}"
    );
    if !idle.is_zero() {
        tokio::time::sleep(idle).await;
        let (messages, bytes) = pair.traffic.take();
        println!(
            "{mode}: idle with {applications} applications: {messages} messages and {bytes} bytes in {} s, {:.1} bytes/s",
            idle.as_secs(),
            bytes as f64 / idle.as_secs_f64()
        );
    }
    stopped(agent.stop, agent.task).await?;
    stopped(principal.stop, principal.task).await
}

fn main() -> ExitCode {
    program::run_with_two(measure)
}

async fn measure(options: Options) -> Result<()> {
    for mode in [Mode::Managed, Mode::Autonomous] {
        measure_restarts(mode, options.restart).await.with_context(|| format!("{mode}: restarts"))?;
        measure_change(mode, options.change, Duration::from_secs(options.idle))
            .await
            .with_context(|| format!("{mode}: change"))?;
    }
    Ok(())
}
