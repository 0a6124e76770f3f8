//! The API servers, the principal and the agents, and the proxies between them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;
use tiphys_apiserver::ApiServer;
use tiphys_shared::model::Mode;
use tiphys_shared::process::clock;
use tiphys_shared::security::pki::Ca;
use tiphys_shared::security::tls::Material;
use tiphys_shared::security::token::Issuer;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Plan;
use super::process::Process;
use super::proxy::{Climate, Proxy};
use super::realm::{ARGOCD, Realm};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long real API servers may take to start, their building not counted, which happens once.
const START: Duration = Duration::from_secs(900);
/// How long what ended by itself is left alone before it is started again, as in Kubernetes.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a principal may take until it listens.
const LISTENS: Duration = Duration::from_secs(60);

/// Everything that runs. It is killed when this is dropped.
pub struct Stage {
    /// What each agent stands between.
    pub realms: Vec<Arc<Realm>>,
    /// The principal.
    pub principal: Process,
    /// The agents, in the order of their realms.
    pub agents: Vec<Process>,
    /// What leads from each agent to the principal.
    pub streams: Arc<Vec<Proxy>>,
    /// What leads from each process to its API server: the principal's first.
    pub apis: Vec<Proxy>,
    servers: Servers,
    forwarder: JoinHandle<()>,
}

/// API servers.
enum Servers {
    Embedded(CancellationToken),
    Real(Box<Child>),
}

/// How to reach one API server.
struct Endpoint {
    client: Client,
    address: SocketAddr,
    /// How its kubeconfig looks, but for the address.
    kubeconfig: Kubeconfig,
}

impl Stage {
    /// Starts everything.
    ///
    /// # Errors
    /// What does not start.
    pub async fn start(plan: &Plan) -> anyhow::Result<Self> {
        let began = Instant::now();
        let (servers, endpoints) = if plan.embedded {
            embedded(plan.agents + 1).await?
        } else {
            println!("starting {} kube-apiservers; building them first takes minutes, once", plan.agents + 1);
            real(plan.agents + 1, &plan.folder).await?
        };
        let mut rng = fastrand::Rng::with_seed(plan.seed ^ 1);
        let Some((control, clusters)) = endpoints.split_first() else { bail!("there are no api servers") };
        let mut realms = Vec::new();
        for (number, cluster) in clusters.iter().enumerate() {
            let (mode, what) =
                if number % 2 == 0 { (Mode::Managed, "managed") } else { (Mode::Autonomous, "autonomous") };
            realms.push(Arc::new(Realm {
                agent: format!("{what}-{number}"),
                mode,
                control: control.client.clone(),
                cluster: cluster.client.clone(),
            }));
        }
        furnish(&realms, &control.client).await?;

        let mut apis = Vec::new();
        for endpoint in &endpoints {
            apis.push(Proxy::open(Some(endpoint.address), Climate::Mild, rng.fork()).await?);
        }
        let mut streams = Vec::new();
        for _ in &realms {
            streams.push(Proxy::open(None, Climate::Wild, rng.fork()).await?);
        }
        let streams = Arc::new(streams);

        let kubeconfig = write_kubeconfig(&plan.folder, "principal", control, &apis, 0)?;
        let namespaces: Vec<&str> = realms.iter().map(|realm| realm.agent.as_str()).collect();
        let arguments = vec![
            "principal".to_owned(),
            format!("--kubeconfig={kubeconfig}"),
            format!("--allowed-namespaces={}", namespaces.join(",")),
            "--namespace-create-enable".to_owned(),
            "--auth=mtls:subject:CN=([^,]+)".to_owned(),
            "--listen-host=127.0.0.1".to_owned(),
            "--listen-port=0".to_owned(),
            "--disable-redis-proxy".to_owned(),
            "--resource-proxy-listen-port=0".to_owned(),
        ];
        let principal = Process::new("principal", &plan.program, with_usual(arguments), &plan.folder)?;
        let mut agents = Vec::new();
        for (number, (realm, stream)) in realms.iter().zip(streams.iter()).enumerate() {
            let Some(cluster) = clusters.get(number) else { bail!("an agent has no cluster") };
            let kubeconfig = write_kubeconfig(&plan.folder, &realm.agent, cluster, &apis, number + 1)?;
            let arguments = vec![
                "agent".to_owned(),
                format!("--kubeconfig={kubeconfig}"),
                "--server-address=127.0.0.1".to_owned(),
                format!("--server-port={}", stream.address().port()),
                format!("--agent-mode={}", realm.mode),
                "--creds=mtls:any".to_owned(),
                // A connection that hangs is found out by nothing else on the agent's side.
                "--keep-alive-ping-interval=5s".to_owned(),
            ];
            agents.push(Process::new(&realm.agent, &plan.program, with_usual(arguments), &plan.folder)?);
        }
        let forwarder = tokio::spawn(forward(principal.listens(), Arc::clone(&streams)));
        let mut stage = Self { realms, principal, agents, streams, apis, servers, forwarder };
        stage.principal.start()?;
        let mut listens = stage.principal.listens();
        let listens = tokio::time::timeout(LISTENS, listens.wait_for(Option::is_some)).await;
        if listens.is_err() {
            bail!("the principal does not listen: see {}", stage.principal.log().display());
        }
        for agent in &mut stage.agents {
            agent.start()?;
        }
        println!(
            "{} api servers, a principal and {} agents after {:.1} s; logs are in {}",
            endpoints.len(),
            stage.agents.len(),
            began.elapsed().as_secs_f64(),
            plan.folder.display()
        );
        Ok(stage)
    }

    /// No fault happens from now on, and everything runs. Connections that hang go on hanging.
    ///
    /// # Errors
    /// If a process cannot be started.
    pub async fn calm(&mut self) -> anyhow::Result<()> {
        for proxy in self.streams.iter().chain(&self.apis) {
            proxy.set_stormy(false);
        }
        for process in std::iter::once(&mut self.principal).chain(&mut self.agents) {
            if !process.look() {
                process.start()?;
            }
        }
        Ok(())
    }

    /// Starts what ended by itself again.
    ///
    /// # Errors
    /// If a process cannot be started.
    pub async fn revive(&mut self) -> anyhow::Result<()> {
        if let Servers::Real(child) = &mut self.servers
            && let Some(status) = child.try_wait()?
        {
            bail!("the api servers ended: {status}");
        }
        for process in std::iter::once(&mut self.principal).chain(&mut self.agents) {
            if !process.look() && process.gone_since().is_some_and(|since| since.elapsed() >= PAUSE) {
                process.start()?;
            }
        }
        Ok(())
    }

    /// Which processes ended although nobody killed them.
    pub fn ended_by_themselves(&self) -> Vec<String> {
        std::iter::once(&self.principal).chain(&self.agents).flat_map(|it| it.ended.clone()).collect()
    }

    /// What processes said when they panicked.
    pub fn panics(&self) -> Vec<String> {
        std::iter::once(&self.principal)
            .chain(&self.agents)
            .flat_map(|it| it.panics().into_iter().map(|line| format!("{}: {line}", it.name)))
            .collect()
    }

    /// How often connections failed.
    pub fn faults(&self) -> u64 {
        self.streams.iter().chain(&self.apis).map(Proxy::faults).sum()
    }

    /// Ends everything in order.
    pub async fn stop(mut self) {
        for process in std::iter::once(&mut self.principal).chain(&mut self.agents) {
            if let Err(error) = process.kill().await {
                eprintln!("{error:#}");
            }
        }
        self.forwarder.abort();
        match &mut self.servers {
            Servers::Embedded(cancel) => cancel.cancel(),
            Servers::Real(child) => end(child).await,
        }
    }
}

/// What runs real API servers cleans up after itself when it is asked to end.
async fn end(child: &mut Child) {
    let asked = match child.id().and_then(pid) {
        Some(pid) => rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_ok(),
        None => false,
    };
    if !asked || tokio::time::timeout(Duration::from_secs(30), child.wait()).await.is_err() {
        // It is killed when it is dropped, and its children end with it.
        eprintln!("the api servers did not end when asked to");
    }
}

fn pid(id: u32) -> Option<rustix::process::Pid> {
    rustix::process::Pid::from_raw(i32::try_from(id).ok()?)
}

fn with_usual(mut arguments: Vec<String>) -> Vec<String> {
    let usual = ["--resync-interval=10s", "--metrics-port=0", "--healthz-port=0", "--log-format=json"];
    arguments.extend(usual.map(str::to_owned));
    arguments
}

/// Leads all streams to where the principal listens now.
async fn forward(mut listens: tokio::sync::watch::Receiver<Option<SocketAddr>>, streams: Arc<Vec<Proxy>>) {
    loop {
        let target = *listens.borrow_and_update();
        for stream in streams.iter() {
            stream.lead_to(target);
        }
        if listens.changed().await.is_err() {
            return;
        }
    }
}

/// The root of the checkout that this was built from.
fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

async fn embedded(count: usize) -> anyhow::Result<(Servers, Vec<Endpoint>)> {
    let cancel = CancellationToken::new();
    let mut endpoints = Vec::new();
    for _ in 0..count {
        let server = ApiServer::new(tiphys_apiserver::Options::default());
        for file in ["applications.yaml", "appprojects.yaml"] {
            let path = checkout().join("manifests/crds").join(file);
            let text =
                std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            server.install_crds(&text)?;
        }
        let bound = server.bind((Ipv4Addr::LOCALHOST, 0).into(), None).await?;
        let address = bound.local_addr();
        tokio::spawn(bound.run(cancel.clone()));
        let client = server.client();
        create_namespace(&client, ARGOCD).await?;
        let kubeconfig = serde_json::from_value(json!({
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": ARGOCD}}],
            "current-context": "c",
        }))?;
        endpoints.push(Endpoint { client, address, kubeconfig });
    }
    Ok((Servers::Embedded(cancel), endpoints))
}

async fn real(count: usize, folder: &Path) -> anyhow::Result<(Servers, Vec<Endpoint>)> {
    let checkout = checkout();
    let script = checkout.join("hack/kube.sh");
    let home = folder.join("kube");
    let mut child = Command::new(&script)
        .args(["up", "--clusters", &count.to_string()])
        .arg("--crds")
        .arg(checkout.join("manifests/crds"))
        .arg("--dir")
        .arg(&home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", script.display()))?;
    let Some(output) = child.stdout.take() else { bail!("the api servers say nothing") };
    let mut lines = BufReader::new(output).lines();
    let ready = async {
        while let Some(line) = lines.next_line().await? {
            if line == "ready" {
                return Ok(());
            }
        }
        bail!("the api servers ended before they were ready")
    };
    tokio::time::timeout(START, ready).await.context("the api servers took too long to start")??;
    let file = Kubeconfig::read_from(home.join("kubeconfig")).context("cannot read the kubeconfig")?;
    let mut endpoints = Vec::new();
    for number in 0..count {
        let context = format!("cluster-{number}");
        let options = KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
        let mut config = Config::from_custom_kubeconfig(file.clone(), &options).await?;
        // A watch is silent while nothing changes.
        config.read_timeout = None;
        let authority = config.cluster_url.authority().map(ToString::to_string).unwrap_or_default();
        let address: SocketAddr =
            authority.parse().with_context(|| format!("{context} is at {authority}, which is no address"))?;
        if !address.ip().is_loopback() {
            bail!("{context} is at {address}, which is not this machine");
        }
        let mut kubeconfig = file.clone();
        kubeconfig.current_context = Some(context);
        endpoints.push(Endpoint { client: Client::try_from(config)?, address, kubeconfig });
    }
    Ok((Servers::Real(Box::new(child)), endpoints))
}

/// Writes how a process reaches its API server: through its proxy.
fn write_kubeconfig(
    folder: &Path,
    name: &str,
    endpoint: &Endpoint,
    apis: &[Proxy],
    number: usize,
) -> anyhow::Result<String> {
    let Some(proxy) = apis.get(number) else { bail!("{name} has no way to an api server") };
    let mut kubeconfig = endpoint.kubeconfig.clone();
    for cluster in &mut kubeconfig.clusters {
        if let Some(cluster) = &mut cluster.cluster
            && let Some(server) = &cluster.server
        {
            let scheme = if server.starts_with("https:") { "https" } else { "http" };
            if server.ends_with(&format!(":{}", endpoint.address.port())) {
                cluster.server = Some(format!("{scheme}://{}", proxy.address()));
            }
        }
    }
    for context in &mut kubeconfig.contexts {
        if let Some(context) = &mut context.context {
            context.namespace = Some(ARGOCD.to_owned());
        }
    }
    let path = folder.join(format!("{name}.kubeconfig"));
    // JSON is YAML.
    std::fs::write(&path, serde_json::to_vec(&kubeconfig)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path.display().to_string())
}

async fn create_namespace(client: &Client, name: &str) -> anyhow::Result<()> {
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(name.to_owned());
    Api::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await
        .with_context(|| format!("cannot create the namespace {name}"))?;
    Ok(())
}

async fn create_secret(client: &Client, name: &str, data: &[(&str, &[u8])]) -> anyhow::Result<()> {
    let mut secret = Secret::default();
    secret.metadata.name = Some(name.to_owned());
    let entries = data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.to_vec())));
    secret.data = Some(entries.collect());
    let secrets: Api<Secret> = Api::namespaced(client.clone(), ARGOCD);
    secrets
        .create(&PostParams::default(), &secret)
        .await
        .with_context(|| format!("cannot create the secret {name}"))?;
    Ok(())
}

async fn create_pair(client: &Client, name: &str, material: &Material) -> anyhow::Result<()> {
    create_secret(client, name, &[("tls.crt", &material.chain), ("tls.key", material.key.expose())]).await
}

/// What principal and agents need to find: namespaces, certificates, keys.
async fn furnish(realms: &[Arc<Realm>], control: &Client) -> anyhow::Result<()> {
    let ca = Ca::generate("chaos", clock::now(), DAY)?;
    let certificate = ca.certificate_pem().as_bytes();
    let server = ca.issue_server(&["localhost", "127.0.0.1"], clock::now(), DAY)?;
    for name in ["argocd-agent-principal-tls", "argocd-agent-resource-proxy-tls"] {
        create_pair(control, name, &server).await?;
    }
    create_secret(
        control,
        "argocd-agent-ca",
        &[("tls.crt", certificate), ("tls.key", ca.key_pem().expose())],
    )
    .await?;
    let key = tokio::task::spawn_blocking(|| Issuer::generate_key(2048)).await??;
    create_secret(control, "argocd-agent-jwt", &[("jwt.key", key.expose())]).await?;
    for realm in realms {
        // The principal makes those of autonomous agents.
        if realm.mode == Mode::Managed {
            create_namespace(control, &realm.agent).await?;
        }
        create_secret(&realm.cluster, "argocd-agent-ca", &[("ca.crt", certificate)]).await?;
        let client = ca.issue_client::<&str>(&realm.agent, &[], clock::now(), DAY)?;
        create_pair(&realm.cluster, "argocd-agent-client-tls", &client).await?;
    }
    Ok(())
}
