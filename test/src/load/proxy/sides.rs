//! Principal and agent, each a process of its own: this program again, in another role.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;
use tempfile::TempDir;
use tiphys_agent::{Agent, ProxyPolicy, connection::Grpc};
use tiphys_principal::ControlPlaneConfig;
use tiphys_shared::kube::api_server::ApiServer;
use tiphys_shared::model::Mode;
use tiphys_shared::process::clock;
use tiphys_shared::process::options::NamePattern;
use tiphys_shared::protocol::ownership::{AdoptionPolicy, MismatchPolicy, Policy};
use tiphys_shared::proxy::body;
use tiphys_shared::security::passwords::Credentials;
use tiphys_shared::security::pki::Ca;
use tiphys_shared::security::secret::Secret;
use tiphys_shared::security::subject::AuthRule;
use tiphys_shared::security::tls::{self, Alpn, ClientTls, Material, ServerTls};
use tiphys_shared::security::token::Issuer;
use tiphys_shared::wire::transport::DialOptions;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Plan, configuration};

const AGENT: &str = "proxied";
const NAMESPACE: &str = "argocd";
const DAY: Duration = Duration::from_secs(24 * 3600);
const MESSAGE_SIZE: usize = 16 << 20;
/// How long both may take to find each other.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a process is.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Role {
    /// The control-plane side.
    Principal,
    /// The cluster side.
    Agent,
}

/// Both, running.
pub(super) struct Sides {
    folder: TempDir,
    proxy: SocketAddr,
    principal: Child,
    agent: Child,
}

impl Sides {
    pub(super) async fn start(plan: &Plan) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let ca = Ca::generate("proxy benchmark", clock::now(), DAY)?;
        save(folder.path(), "server", &ca.issue_server(&["localhost", "127.0.0.1"], clock::now(), DAY)?)?;
        save(folder.path(), "agent", &ca.issue_client::<&str>(AGENT, &[], clock::now(), DAY)?)?;
        std::fs::write(folder.path().join("jwt.key"), Issuer::generate_key(2048)?.expose())?;
        let (principal, said) = start(Role::Principal, plan, folder.path(), 0).await?;
        let (port, proxy) = said.split_once(' ').ok_or_else(|| anyhow!("the principal said {said:?}"))?;
        let (port, proxy) = (port.parse()?, proxy.parse()?);
        let (agent, _) = start(Role::Agent, plan, folder.path(), port).await?;
        Ok(Self { folder, proxy, principal, agent })
    }

    /// The process ids of principal and agent.
    pub(super) fn pids(&self) -> anyhow::Result<[u32; 2]> {
        let pid = |child: &Child| child.id().ok_or_else(|| anyhow!("a side has ended"));
        Ok([pid(&self.principal)?, pid(&self.agent)?])
    }

    /// The cluster as the proxy shows it, once it does.
    pub(super) async fn api_server(&self) -> anyhow::Result<ApiServer> {
        let material = load(self.folder.path(), "agent")?;
        let file = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {
                "server": format!("https://{}", self.proxy),
                "certificate-authority-data": STANDARD.encode(&material.ca),
            }}],
            "users": [{"name": "proxy", "user": {
                "client-certificate-data": STANDARD.encode(&material.chain),
                "client-key-data": STANDARD.encode(material.key.expose()),
            }}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        });
        let file = Kubeconfig::from_yaml(&file.to_string())?;
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        let api_server = ApiServer::connect(&config)?;
        let served = async {
            loop {
                let request = http::Request::get("/version").body(body::empty())?;
                let answer = api_server.send(request).await.map_err(|error| anyhow!(error))?;
                if answer.status() == 200 {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, served).await.context("the proxy does not serve the cluster")??;
        Ok(api_server)
    }
}

async fn start(role: Role, plan: &Plan, folder: &Path, port: u16) -> anyhow::Result<(Child, String)> {
    let name = role.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--role", &name, "--control", &plan.control, "--cluster", &plan.cluster])
        .arg("--kubeconfig")
        .arg(&plan.kubeconfig)
        .arg("--folder")
        .arg(folder)
        .args(["--port", &port.to_string()])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdout = child.stdout.take().ok_or_else(|| anyhow!("no output of the {name}"))?;
    let mut lines = BufReader::new(stdout).lines();
    let said =
        tokio::time::timeout(PATIENCE, lines.next_line()).await.with_context(|| format!("the {name}"))??;
    Ok((child, said.with_context(|| format!("the {name} has ended"))?))
}

/// Runs as one of the sides, until it is killed.
///
/// # Errors
/// What kept it from running.
pub async fn side(
    role: Role,
    kubeconfig: &Path,
    control: &str,
    cluster: &str,
    folder: &Path,
    port: u16,
) -> anyhow::Result<()> {
    // As in earnest, each request is written about; but not to anywhere.
    tracing_subscriber::fmt().json().with_writer(std::io::sink).init();
    match role {
        Role::Principal => principal(configuration(kubeconfig, control).await?, folder).await,
        Role::Agent => agent(configuration(kubeconfig, cluster).await?, folder, port).await,
    }
}

async fn principal(config: kube::Config, folder: &Path) -> anyhow::Result<()> {
    let material = load(folder, "server")?;
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let bound = tiphys_principal::bind(tiphys_principal::Config {
        control_plane: ControlPlaneConfig {
            client: kube::Client::try_from(config)?,
            namespace: NAMESPACE.to_owned(),
            allowed_namespaces: vec![NamePattern::new("*")?],
            destination_based_mapping: false,
            namespace_creation: None,
            label_selector: None,
            resync_interval: None,
            cluster_view: None,
            max_message_size: MESSAGE_SIZE,
            registry: prometheus::Registry::new(),
        },
        listen: loopback,
        tls: Some(ServerTls::new(&material, tls::Policy::mutual())?),
        connections: tiphys_principal::Connections::default(),
        auth: AuthRule::parse("mtls:CN=([^,]+)")?,
        passwords: None,
        client_cert_subject_match: true,
        issuer: Issuer::from_pem(&Secret::new(std::fs::read(folder.join("jwt.key"))?))?,
        proxy: Some(tiphys_principal::ProxyConfig {
            listen: loopback,
            tls: ServerTls::new(&material, tls::Policy { alpn: Alpn::H2OrHttp1, ..tls::Policy::mutual() })?,
            operators: Vec::new(),
        }),
        onboarding: tiphys_principal::Onboarding::default(),
        redis_proxy: None,
        web: None,
        traces: Default::default(),
        recorder: Default::default(),
    })
    .await?;
    let proxy = bound.proxy_address().context("the proxy has no port")?;
    println!("{} {proxy}", bound.address().port());
    Ok(bound.run(CancellationToken::new()).await?)
}

async fn agent(config: kube::Config, folder: &Path, port: u16) -> anyhow::Result<()> {
    let tls = ClientTls::new(&load(folder, "agent")?, tls::Policy::default(), false)?;
    let link = Grpc {
        dial: DialOptions::new("127.0.0.1", port, Some(tls)),
        credentials: Credentials::Mtls,
        namespace: NAMESPACE.to_owned(),
        version: "proxy".to_owned(),
        compression: false,
        max_message_size: MESSAGE_SIZE,
    };
    let config = tiphys_agent::Config {
        mode: Mode::Managed,
        proxy: Some(tiphys_agent::ProxyConfig {
            api_server: ApiServer::connect(&config)?,
            policy: watch::channel(ProxyPolicy::All).1,
            read_only: false,
            impersonate: false,
        }),
        client: kube::Client::try_from(config)?,
        namespace: NAMESPACE.to_owned(),
        allowed_namespaces: Vec::new(),
        destination_based_mapping: false,
        create_namespaces: false,
        policy: Policy { mismatch: MismatchPolicy::Recreate, adoption: AdoptionPolicy::Always },
        on_return: None,
        label_selector: None,
        resync_interval: None,
        buffer_interval: None,
        cluster_cache: None,
        redis: None,
        heartbeat: None,
        registry: prometheus::Registry::new(),
        traces: Default::default(),
        recorder: Default::default(),
    };
    println!("started");
    Ok(Agent::new(config, link).run(CancellationToken::new()).await?)
}

fn save(folder: &Path, name: &str, material: &Material) -> anyhow::Result<()> {
    for (kind, bytes) in [("crt", &material.chain[..]), ("key", material.key.expose()), ("ca", &material.ca)]
    {
        std::fs::write(folder.join(format!("{name}.{kind}")), bytes)?;
    }
    Ok(())
}

fn load(folder: &Path, name: &str) -> anyhow::Result<Material> {
    let read = |kind: &str| std::fs::read(folder.join(format!("{name}.{kind}")));
    Ok(Material::new(read("crt")?, Secret::new(read("key")?), read("ca")?))
}
