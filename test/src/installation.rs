//! An installation as a deployment has it, in one process: a control plane with a principal, and clusters with an agent
//! each, set up from options, with certificates and keys in Secrets.
//!
//! API servers are embedded or real ones, reached on loopback; agents reach the principal with mTLS. Nothing is ever
//! started twice: what ends before [`Installation::end`] is an error.

mod cluster;
pub mod secrets;
pub mod stream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Command, FromArgMatches};
use prometheus::Registry;
use tempfile::TempDir;
use tiphys_shared::model::Mode;
use tiphys_shared::process::clock;
use tiphys_shared::security::pki::Ca;
use tiphys_shared::security::tls::Material;
use tiphys_shared::security::token::Issuer;
use tiphys_shared::wire::traces::Traces;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::cluster::{Cluster, Servers};
use self::secrets::{AGENT_TLS, AUTHORITIES, PRINCIPAL_TLS, PROXY_TLS, TOKEN_KEY, put, put_pair, read};
use self::stream::{Observed, Witness};
use crate::chaos::realm::Realm;
use crate::load::procfs;

/// How long certificates live that are not about to end.
pub const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long anything may take. Nothing waits for it when all is well.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(20);
/// Open files of an agent, its API server and the principal's side of its connections, with room to spare.
const FILES: u64 = 60;

/// A control plane with a principal.
pub struct Installation {
    folder: TempDir,
    servers: Servers,
    /// The control plane.
    pub control: Cluster,
    /// Who signs everybody at first.
    pub ca: Ca,
    /// Where agents connect.
    pub address: SocketAddr,
    /// Where the resource proxy listens.
    pub proxy: SocketAddr,
    /// Where the page about the fleet is, if there is one.
    pub web: Option<SocketAddr>,
    /// The principal, looked at from outside.
    pub principal: tiphys_principal::Handle,
    /// Its figures.
    pub figures: Registry,
    traces: Traces,
    stop: CancellationToken,
    running: JoinHandle<Result<(), tiphys_principal::Error>>,
}

/// A cluster with an agent.
pub struct Edge {
    /// Its API server.
    pub cluster: Cluster,
    /// The agent, looked at from outside.
    pub handle: tiphys_agent::Handle,
    /// Its figures.
    pub figures: Registry,
    /// What became of its stream.
    pub witness: Arc<Witness>,
    traces: Traces,
    running: JoinHandle<Result<(), tiphys_agent::Error>>,
}

impl Edge {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.cluster.name
    }

    /// What its agent proves who it is with, and whom it believes.
    ///
    /// # Errors
    /// If that is not there.
    pub async fn material(&self) -> anyhow::Result<Material> {
        let client = self.cluster.client();
        Ok(Material::new(
            read(&client, AGENT_TLS, "tls.crt").await?,
            read(&client, AGENT_TLS, "tls.key").await?,
            read(&client, AUTHORITIES, "ca.crt").await?,
        ))
    }
}

/// Options as a command line gives them: those that name an API server, and these besides.
fn options<T: Args + FromArgMatches>(cluster: &Cluster, line: &[&str]) -> anyhow::Result<T> {
    let command = T::augment_args(Command::new("options").no_binary_name(true));
    let named = cluster.named();
    let line = named.iter().map(String::as_str).chain(line.iter().copied());
    Ok(T::from_arg_matches(&command.try_get_matches_from(line)?)?)
}

impl Installation {
    /// Starts a control plane with a principal, which gets these options besides. All API servers are embedded.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub async fn start(extra: &[&str]) -> anyhow::Result<Self> {
        Self::start_with(Servers::Embedded, extra, |_| {}).await
    }

    /// The same with other API servers, and with something that no option says.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub async fn start_with(
        servers: Servers,
        extra: &[&str],
        adjust: impl FnOnce(&mut tiphys_principal::Config),
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let stop = CancellationToken::new();
        let control = servers.next(folder.path(), "control", &stop).await?;
        let ca = Ca::generate("first", clock::now(), 10 * DAY)?;
        let client = control.client();
        for name in [PRINCIPAL_TLS, PROXY_TLS] {
            put_pair(&client, name, &server_certificate(&ca)?).await?;
        }
        let pem = ca.certificate_pem().as_bytes();
        put(&client, AUTHORITIES, &[("tls.crt", pem), ("tls.key", ca.key_pem().expose())]).await?;
        let key = Issuer::generate_key(2048)?;
        put(&client, TOKEN_KEY, &[("jwt.key", key.expose())]).await?;
        let line = [
            "--listen-host=127.0.0.1",
            "--listen-port=0",
            "--resource-proxy-listen-port=0",
            "--redis-server-address=none",
            "--allowed-namespaces=*",
            "--auth=mtls:subject:CN=([^,]+)",
        ];
        let given: tiphys_principal::options::Options = options(&control, &[&line, extra].concat())?;
        let settings = given.validate()?;
        let figures = Registry::new();
        let way = tiphys_principal::setup::connect(&settings, &figures).await?;
        let mut config = tiphys_principal::setup::prepare(&settings, way, figures.clone(), &stop).await?;
        adjust(&mut config);
        let traces = config.traces.clone();
        let bound = tiphys_principal::bind(config).await?;
        let (address, principal) = (bound.address(), bound.handle());
        let proxy = bound.proxy_address().context("there is no resource proxy")?;
        let web = bound.web_address();
        let running = tokio::spawn(bound.run(stop.clone()));
        principal.ready().await;
        Ok(Self {
            folder,
            servers,
            control,
            ca,
            address,
            proxy,
            web,
            principal,
            figures,
            traces,
            stop,
            running,
        })
    }

    /// Starts managed agents, each with a cluster of its own and a client certificate that is as good as over: it makes way
    /// for the next one as soon as there is one. They get these options besides. Waits until all are connected.
    ///
    /// # Errors
    /// What keeps one from starting or connecting.
    pub async fn edges(&self, count: usize, extra: &[&str]) -> anyhow::Result<Vec<Edge>> {
        let (limit, needed) = (procfs::open_files_limit()?, FILES * count as u64 + 256);
        ensure!(
            limit >= needed,
            "{count} agents with their API servers need up to {needed} open files, and this process may have {limit}: \
             raise it with `ulimit -n {needed}`"
        );
        let line = [&["--proxy-policy=all"], extra].concat();
        let mut edges = Vec::with_capacity(count);
        for index in 0..count {
            let name = format!("edge-{index}");
            let starting = async {
                let cluster = self.cluster(&name).await?;
                let client = cluster.client();
                put(&client, AUTHORITIES, &[("ca.crt", self.ca.certificate_pem().as_bytes())]).await?;
                put_pair(&client, AGENT_TLS, &old_certificate(&self.ca, &name, 0)?).await?;
                self.agent(cluster, &line).await
            };
            edges.push(starting.await.with_context(|| format!("agent {name}"))?);
        }
        for edge in &edges {
            until(&format!("the connection of {}", edge.name()), async || edge.witness.is_open()).await?;
        }
        Ok(edges)
    }

    /// A cluster for an agent. What the agent needs to connect is not there yet.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub async fn cluster(&self, name: &str) -> anyhow::Result<Cluster> {
        self.control.create_namespace(name).await?;
        self.servers.next(self.folder.path(), name, &self.stop).await
    }

    /// Starts the managed agent of a cluster, which gets these options besides. It is not waited for.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub async fn agent(&self, cluster: Cluster, extra: &[&str]) -> anyhow::Result<Edge> {
        let port = self.address.port().to_string();
        let line = [
            "--server-address=127.0.0.1",
            "--server-port",
            &port,
            "--agent-mode=managed",
            "--creds=mtls:any",
            "--redis-addr=none",
        ];
        let given: tiphys_agent::options::Options = options(&cluster, &[&line, extra].concat())?;
        let figures = Registry::new();
        let settings = given.validate()?;
        let (config, link) = tiphys_agent::setup::prepare(&settings, figures.clone(), &self.stop).await?;
        let (witness, traces) = (Arc::new(Witness::default()), config.traces.clone());
        let agent = tiphys_agent::Agent::new(config, Observed::new(link, Arc::clone(&witness)));
        let handle = agent.handle();
        let running = tokio::spawn(agent.run(self.stop.clone()));
        Ok(Edge { cluster, handle, figures, witness, traces, running })
    }

    /// The two sides of an agent, for users.
    pub fn realm(&self, edge: &Edge) -> Realm {
        Realm {
            agent: edge.name().to_owned(),
            mode: Mode::Managed,
            control: self.control.client(),
            cluster: edge.cluster.client(),
        }
    }

    /// Makes sure that everything still runs that was started.
    ///
    /// # Errors
    /// Who has ended.
    pub fn check_alive(&self, edges: &[Edge]) -> anyhow::Result<()> {
        ensure!(!self.running.is_finished(), "the principal has ended");
        if let Some(edge) = edges.iter().find(|edge| edge.running.is_finished()) {
            bail!("agent {} has ended", edge.name());
        }
        Ok(())
    }

    /// Waits until nobody has anything left to say.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn until_quiet(&self, edges: &[Edge]) -> anyhow::Result<()> {
        until("quiet", async || {
            let told = self.principal.agents().iter().all(|agent| agent.outbox == 0);
            told && edges.iter().all(|edge| edge.handle.is_connected() && edge.handle.outbox() == 0)
        })
        .await
    }

    /// Ends everything.
    ///
    /// # Errors
    /// What did not end well.
    pub async fn end(self, edges: Vec<Edge>) -> anyhow::Result<()> {
        self.check_alive(&edges)?;
        self.stop.cancel();
        let mut traces = vec![self.traces];
        for edge in edges {
            edge.running.await?.with_context(|| format!("agent {}", edge.cluster.name))?;
            traces.push(edge.traces);
        }
        self.running.await?.context("the principal")?;
        // It blocks until the last ones are sent.
        tokio::task::spawn_blocking(move || traces.iter().for_each(Traces::close)).await?;
        Ok(self.folder.close()?)
    }
}

/// A certificate for what the principal serves.
///
/// # Errors
/// If it cannot be made.
pub fn server_certificate(ca: &Ca) -> anyhow::Result<Material> {
    Ok(ca.issue_server(&["localhost", "127.0.0.1"], clock::now(), DAY)?)
}

/// A client certificate of which less than a tenth of its life is left, so that its connection makes way for the next one
/// at once. One of a higher `turn` ends later.
///
/// # Errors
/// If it cannot be made.
pub fn old_certificate(ca: &Ca, name: &str, turn: u32) -> anyhow::Result<Material> {
    let left = DAY / 2 + turn * Duration::from_secs(60);
    Ok(ca.issue_client::<&str>(name, &[], clock::now() - 10 * DAY, 10 * DAY + left)?)
}

/// The sum of a figure over all samples with these labels.
pub fn figure(figures: &Registry, name: &str, labels: &[(&str, &str)]) -> f64 {
    let families = figures.gather();
    let samples = families.iter().filter(|family| family.name() == name).flat_map(|it| it.get_metric());
    samples
        .filter(|sample| {
            let has = |(name, value): &(&str, &str)| {
                sample.get_label().iter().any(|label| label.name() == *name && label.value() == *value)
            };
            labels.iter().all(has)
        })
        .map(|sample| sample.get_counter().get_value() + sample.get_gauge().get_value())
        .sum()
}

/// How often a use of certificates or keys was given new ones.
pub fn reloads(figures: &Registry, kind: &str) -> f64 {
    figure(figures, "tiphys_certificate_reloads_total", &[("kind", kind), ("outcome", "replaced")])
}

/// Waits until it is so.
///
/// # Errors
/// What was waited for, if it never came.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        ensure!(Instant::now() < deadline, "it never came: {what}");
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
