//! How fast clusters join: each makes its key, joins with a token of its own and gets its own certificate.
//!
//! Principal, control plane and all that join share this process and its processors; keys are made and connections opened
//! as `tiphys join` does it, over TLS on loopback.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use prometheus::Registry;
use tiphys_apiserver::ApiServer;
use tiphys_principal::{Config, Connections, ControlPlaneConfig, EnrolmentConfig, Onboarding};
use tiphys_shared::kube::join_secret;
use tiphys_shared::kube::material::{Place, Reader};
use tiphys_shared::kube::recorder::Recorder;
use tiphys_shared::model::AgentName;
use tiphys_shared::process::clock;
use tiphys_shared::security::join_token::JoinToken;
use tiphys_shared::security::pki::Ca;
use tiphys_shared::security::subject::AuthRule;
use tiphys_shared::security::tls::{Policy, ServerTls};
use tiphys_shared::security::token::Issuer;
use tiphys_test::installation::DAY;
use tiphys_test::program;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "argocd";

#[derive(Parser)]
#[command(about = "How fast clusters join")]
struct Options {
    /// How many join
    #[arg(long, default_value_t = 1000)]
    agents: usize,
    /// How many at the same time
    #[arg(long, default_value_t = 1000)]
    at_once: usize,
    /// Fail if it takes longer
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

fn main() -> ExitCode {
    program::run(measure)
}

async fn measure(options: Options) -> anyhow::Result<()> {
    ensure!((1..=100_000).contains(&options.agents) && options.at_once > 0, "between 1 and 100000 agents");
    let server = ApiServer::new(tiphys_apiserver::Options::default());
    for file in ["applications.yaml", "appprojects.yaml"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds").join(file);
        server.install_crds(&std::fs::read_to_string(path)?)?;
    }
    let client = server.client();
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(serde_json::json!({"metadata": {"name": NAMESPACE}}))?;
    namespaces.create(&PostParams::default(), &namespace).await?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let ca = Ca::generate("join", clock::now(), DAY)?;
    let key = ca.key_pem().expose_str().context("the key is not text")?;
    let kept = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "argocd-agent-ca"}, "stringData": {"tls.crt": ca.certificate_pem(), "tls.key": key},
    }))?;
    secrets.create(&PostParams::default(), &kept).await?;
    let stop = CancellationToken::new();
    let bound = tiphys_principal::bind(config(&ca, client)?).await?;
    let (port, handle) = (bound.address().port(), bound.handle());
    let running = tokio::spawn(bound.run(stop.clone()));
    handle.ready().await;

    let (mut tokens, mut entries) = (Vec::new(), BTreeMap::<_, Vec<_>>::new());
    for index in 0..options.agents {
        let agent = AgentName::new(format!("agent-{index}"))?;
        let token = JoinToken::generate(agent, ca.certificate_pem().as_bytes())?;
        let entry = (token.id.clone(), join_secret::entry(&token, clock::now() + DAY));
        entries.entry(join_secret::name(&token.id)).or_default().push(entry);
        tokens.push(token);
    }
    for (name, entries) in entries {
        secrets.create(&PostParams::default(), &join_secret::to_secret(name, entries)).await?;
    }
    let began = Instant::now();
    let slots = Arc::new(Semaphore::new(options.at_once));
    let mut joining = tokio::task::JoinSet::new();
    for token in tokens {
        let slots = Arc::clone(&slots);
        joining.spawn(async move {
            let _slot = slots.acquire_owned().await?;
            let joined = tiphys_agent::join::enrol("127.0.0.1", port, &token).await?;
            anyhow::Ok(joined.certificate.fingerprint)
        });
    }
    let mut certificates = BTreeSet::new();
    while let Some(joined) = joining.join_next().await {
        certificates.insert(joined??);
    }
    let took = began.elapsed();
    ensure!(certificates.len() == options.agents, "some certificates are the same");
    println!(
        "{} agents joined in {:.1} s, {:.0} a second, each with a key and a certificate of its own",
        options.agents,
        took.as_secs_f64(),
        options.agents as f64 / took.as_secs_f64()
    );
    stop.cancel();
    running.await??;
    ensure!(took <= Duration::from_secs(options.seconds), "it took longer than {} s", options.seconds);
    Ok(())
}

fn config(ca: &Ca, client: kube::Client) -> anyhow::Result<Config> {
    let registry = Registry::new();
    let material = ca.issue_server(&["127.0.0.1"], clock::now(), DAY)?;
    let policy = Policy { enrolment: true, ..Policy::mutual() };
    let enrolment = EnrolmentConfig {
        reader: Reader::new(client.clone(), NAMESPACE, Recorder::default(), &registry)?,
        client: client.clone(),
        namespace: NAMESPACE.to_owned(),
        ca_secret: "argocd-agent-ca".to_owned(),
        authorities: Place::Secret { name: "argocd-agent-ca".to_owned(), keys: &["tls.crt"] },
        lifetime: DAY / 2,
        proxy: Some("argocd-agent-resource-proxy:9090".to_owned()),
        places: EnrolmentConfig::PLACES,
    };
    Ok(Config {
        control_plane: ControlPlaneConfig {
            client,
            namespace: NAMESPACE.to_owned(),
            allowed_namespaces: Vec::new(),
            destination_based_mapping: false,
            namespace_creation: None,
            label_selector: None,
            resync_interval: None,
            cluster_view: None,
            max_message_size: 16 << 20,
            registry,
        },
        listen: ([127, 0, 0, 1], 0).into(),
        tls: Some(ServerTls::new(&material, policy)?),
        connections: Connections::default(),
        auth: AuthRule::parse("mtls:CN=([^,]+)")?,
        passwords: None,
        client_cert_subject_match: false,
        issuer: Issuer::generate(2048)?.0,
        proxy: None,
        onboarding: Onboarding { registration: None, enrolment: Some(enrolment) },
        redis_proxy: None,
        web: None,
        traces: tiphys_shared::wire::traces::Traces::default(),
        recorder: Recorder::default(),
    })
}
