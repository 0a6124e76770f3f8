//! Many agents of the wire protocol against one principal.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use clap::{Parser, ValueEnum};
use k8s_openapi::api::core::v1::Secret;
use tiphys_shared::security::pki::Ca;
use tiphys_test::load::cluster::{Cluster, is_loopback};
use tiphys_test::load::fleet::{Authority, Identities, Login, Plan, htpasswd, run};
use tiphys_test::load::pace::Pace;
use tiphys_test::program;

/// Connects many agents to a principal, acknowledges what it sends, and tells what it was like.
///
/// Agents are called PREFIX0, PREFIX1 and so on. With --auth mtls their certificates are made with the principal's
/// CA, from files or from a Secret; with --auth userpass all have one password, and --htpasswd writes the
/// principal's file for them.
#[derive(Parser)]
#[command(name = "agents", version)]
struct Options {
    /// The principal's host
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// The principal's port
    #[arg(long, default_value_t = 8443)]
    port: u16,
    /// How many agents
    #[arg(long, short = 'n', default_value_t = 100)]
    count: usize,
    /// What their names begin with
    #[arg(long, default_value = "load-")]
    prefix: String,
    /// Mode that they declare: managed or autonomous
    #[arg(long, default_value = "managed")]
    mode: tiphys_shared::model::agent::Mode,
    /// Version that they declare; the Go principal accepts only its own
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    agent_version: String,
    /// Namespace that they declare as their own
    #[arg(long, default_value = "argocd")]
    namespace: String,
    /// How they log in
    #[arg(long, default_value = "mtls")]
    auth: Method,
    /// CA that signs the agents' certificates (PEM); also what the principal's is checked with
    #[arg(long, requires = "ca_key")]
    ca_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, requires = "ca_cert")]
    ca_key: Option<PathBuf>,
    /// The same from a Secret with tls.crt and tls.key: [NAMESPACE/]NAME
    #[arg(long, conflicts_with = "ca_cert", num_args = 0..=1, default_missing_value = "argocd/argocd-agent-ca")]
    ca_secret: Option<String>,
    /// Kubeconfig file for --ca-secret
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Context for --ca-secret
    #[arg(long)]
    context: Option<String>,
    /// CA that the principal's certificate is checked with, when it is another one (PEM)
    #[arg(long)]
    principal_ca: Option<PathBuf>,
    /// Do not check the principal's certificate
    #[arg(long, conflicts_with_all = ["principal_ca", "plaintext"])]
    insecure_tls: bool,
    /// No TLS at all
    #[arg(long)]
    plaintext: bool,
    /// Password of all agents, for --auth userpass
    #[arg(long, default_value = "load")]
    password: String,
    /// Header that carries the agent's name, for --auth header
    #[arg(long, default_value = "x-client-id")]
    header: String,
    /// Only write the principal's password file for these agents
    #[arg(long, value_name = "FILE")]
    htpasswd: Option<PathBuf>,
    /// How many connect per second; without it, as fast as they can
    #[arg(long)]
    connect_rate: Option<f64>,
    /// How many connect at the same time, without --connect-rate
    #[arg(long, default_value_t = 32)]
    concurrency: usize,
    /// How many seconds one may take for each step of connecting
    #[arg(long, default_value_t = 30)]
    connect_timeout: u64,
    /// How many seconds they stay once all are connected
    #[arg(long, default_value_t = 10.0)]
    hold: f64,
    /// How many status updates they send per second, all together, about applications that they have been sent
    #[arg(long, default_value_t = 0.0)]
    status_rate: f64,
    /// Process of the principal, to tell its memory and processor time
    #[arg(long)]
    pid: Option<u32>,
    /// Also use a principal or API server that is not on this machine
    #[arg(long)]
    allow_remote: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Method {
    Mtls,
    Userpass,
    Header,
}

fn main() -> ExitCode {
    program::run(measure)
}

async fn measure(options: Options) -> anyhow::Result<()> {
    if let Some(path) = &options.htpasswd {
        let lines = htpasswd(&options.prefix, options.count, &options.password)?;
        tokio::fs::write(path, lines).await.with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("wrote {} users to {}", options.count, path.display());
        return Ok(());
    }
    ensure!(
        options.allow_remote || is_loopback(&options.host),
        "{} is not this machine: load belongs into a lab; give --allow-remote if that is what you want",
        options.host
    );
    ensure!(options.hold.is_finite() && options.hold >= 0.0, "--hold must be a number of seconds");
    let ca = load_ca(&options).await?;
    let authority = authority(&options, ca.as_deref()).await?;
    let login = match options.auth {
        Method::Mtls if options.plaintext => bail!("--auth mtls needs tls: leave --plaintext out"),
        Method::Mtls => Login::Mtls(ca.ok_or_else(|| {
            anyhow!("--auth mtls needs a ca to make certificates with: give --ca-cert and --ca-key, or --ca-secret")
        })?),
        Method::Userpass => Login::UserPass(options.password.clone()),
        Method::Header => Login::Header(options.header.clone()),
    };
    let plan = Plan {
        host: options.host,
        port: options.port,
        count: options.count,
        mode: options.mode,
        version: options.agent_version,
        namespace: options.namespace,
        pace: Pace::new(options.connect_rate, options.concurrency)?,
        hold: Duration::from_secs_f64(options.hold),
        status_rate: options.status_rate,
        connect_timeout: Duration::from_secs(options.connect_timeout),
        pid: options.pid,
    };
    let (prefix, count) = (options.prefix, options.count);
    let identities =
        tokio::task::spawn_blocking(move || Identities::new(&prefix, count, login, authority)).await??;
    let report = run(plan, identities, program::interrupted()).await?;
    program::print(&report, options.json)?;
    ensure!(report.all_well(), "not every agent connected and stayed");
    Ok(())
}

async fn load_ca(options: &Options) -> anyhow::Result<Option<Arc<Ca>>> {
    let (certificate, key) = match (&options.ca_cert, &options.ca_key, &options.ca_secret) {
        (Some(certificate), Some(key), _) => (read(certificate).await?, read(key).await?),
        (_, _, Some(name)) => {
            let cluster = Cluster::connect(
                options.kubeconfig.as_deref(),
                options.context.as_deref(),
                options.allow_remote,
            );
            let cluster = cluster.await?;
            let (namespace, name) = name.split_once('/').unwrap_or(("argocd", name));
            let secrets: kube::Api<Secret> = kube::Api::namespaced(cluster.client.clone(), namespace);
            let secret = secrets.get_opt(name).await.with_context(|| format!("cannot ask {cluster}"))?;
            let secret = secret.ok_or_else(|| anyhow!("{cluster} has no secret {namespace}/{name}"))?;
            let mut data = secret.data.unwrap_or_default();
            let mut part = |key: &str| {
                let found = data.remove(key).map(|bytes| bytes.0);
                found.ok_or_else(|| {
                    anyhow!("secret {namespace}/{name} at {cluster} has no {key}: is it the control plane's?")
                })
            };
            (part("tls.crt")?, part("tls.key")?)
        }
        _ => return Ok(None),
    };
    Ok(Some(Arc::new(Ca::from_pem(&certificate, &key).context("cannot use the ca")?)))
}

async fn authority(options: &Options, ca: Option<&Ca>) -> anyhow::Result<Authority> {
    if options.plaintext {
        return Ok(Authority::Plaintext);
    }
    if options.insecure_tls {
        return Ok(Authority::Insecure);
    }
    match (&options.principal_ca, ca) {
        (Some(path), _) => Ok(Authority::Ca(read(path).await?)),
        (None, Some(ca)) => Ok(Authority::Ca(ca.certificate_pem().as_bytes().to_vec())),
        (None, None) => bail!(
            "nothing to check the principal's certificate with: give --principal-ca, --ca-cert with --ca-key, \
             --ca-secret, --insecure-tls or --plaintext"
        ),
    }
}

async fn read(path: &PathBuf) -> anyhow::Result<Vec<u8>> {
    tokio::fs::read(path).await.with_context(|| format!("cannot read {}", path.display()))
}
