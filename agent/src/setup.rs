//! From checked options to a configuration: reads Secrets and files, and keeps certificates current.

use prometheus::Registry;
use tiphys_shared::kube::api_server::ApiServer;
use tiphys_shared::kube::client;
use tiphys_shared::kube::material::{Place, Places, Reader};
use tiphys_shared::kube::recorder::{self, Recorder};
use tiphys_shared::model::Mode;
use tiphys_shared::process::metrics;
use tiphys_shared::process::options::{KeyPair, Problem, Problems};
use tiphys_shared::redis;
use tiphys_shared::security::passwords::Credentials;
use tiphys_shared::security::tls::{ClientTls, Policy};
use tiphys_shared::wire::traces::{self, Traces};
use tiphys_shared::wire::transport::DialOptions;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::connection::Grpc;
use crate::options::proxy::read_allow_list;
use crate::options::{PolicySource, Roots, Settings, Transport};
use crate::renewal::Renewal;
use crate::{ClusterCacheConfig, Config, ProxyConfig, ProxyPolicy};

/// How often the file of an allow-list is looked at. Kubernetes swaps a link above mounted files, which file watchers miss.
const LOOK: std::time::Duration = std::time::Duration::from_secs(10);
const CERTIFICATE: &[&str] = &["tls.crt"];
const PRIVATE_KEY: &[&str] = &["tls.key"];
const CA: &[&str] = &["ca.crt", "tls.crt"];

/// Prepares everything that an agent needs, and the way to its principal. Certificates are kept current in the background until `cancel`.
///
/// # Errors
/// Every mistake that can be found, each with its remedy.
pub async fn prepare(
    settings: &Settings,
    registry: Registry,
    cancel: &CancellationToken,
) -> Result<(Config, Grpc), Problems> {
    let unreachable = |error: client::Error| {
        Problem::new(error.to_string(), "check --kubeconfig and --kubecontext, or the pod's service account")
    };
    let access = client::configuration(&settings.kubernetes).await.map_err(unreachable)?;
    let proxy = match &settings.proxy {
        None => None,
        Some(proxy) => Some(ProxyConfig {
            api_server: ApiServer::connect(&access).map_err(unreachable)?,
            policy: policy(&proxy.policy, cancel)?,
            read_only: proxy.read_only,
            impersonate: proxy.impersonate,
        }),
    };
    let twice =
        |error: metrics::Error| Problem::new(error.to_string(), "give each agent a registry of its own");
    let requests = client::RequestMetrics::new(&registry).map_err(twice)?;
    let client = client::measured(access, &requests).map_err(unreachable)?;
    let limits = settings.events.then(recorder::Limits::default);
    let recorder =
        Recorder::start(client.clone(), &settings.namespace, "tiphys-agent", limits, &registry, cancel)
            .map_err(twice)?;
    let reader = Reader::new(client.clone(), settings.namespace.as_str(), recorder.clone(), &registry)
        .map_err(twice)?;
    let tls = match &settings.transport {
        Transport::Plaintext => None,
        Transport::Tls { roots, identity, policy } => {
            let own = settings.credentials == Credentials::Mtls;
            Some(client_tls(&reader, roots, identity, own, policy.clone(), cancel).await?)
        }
    };
    let ask = |tls: ClientTls| Box::new(move || tls.validity()) as Box<_>;
    let certificates = tls.clone().map(|tls| ("client", ask(tls)));
    metrics::expiry(&registry, certificates.into_iter().collect()).map_err(twice)?;
    let mut dial = DialOptions::new(settings.server.host.clone(), settings.server.port, tls);
    dial.websocket = settings.websocket;
    dial.proxy = settings.via.clone();
    if let Some(proxy) = &dial.proxy {
        tracing::info!(%proxy, "the principal is reached through the proxy of HTTPS_PROXY");
    }
    dial.keepalive_interval = settings.keepalive_interval.or(dial.keepalive_interval);
    if let (Transport::Tls { identity: KeyPair::Secret(name), .. }, Some(tls)) =
        (&settings.transport, dial.tls.clone())
    {
        let (client, namespace) = (client.clone(), settings.namespace.as_str());
        let renewal =
            Renewal::new(client, namespace, name, dial.clone(), tls, &registry).map_err(|error| {
                Problem::new(error.to_string(), "give every agent of a process a registry of its own")
            })?;
        tokio::spawn(renewal.run(cancel.clone()));
    }
    let redis = match &settings.redis {
        Some(access) => Some(redis::Config::prepare(access, &reader, cancel).await?),
        None => None,
    };
    // An autonomous cluster is not asked for it.
    let cluster_cache = redis.clone().filter(|_| settings.mode == Mode::Managed);
    let cluster_cache =
        cluster_cache.map(|redis| ClusterCacheConfig { redis, interval: settings.cache_refresh_interval });
    let config = Config {
        mode: settings.mode,
        client,
        namespace: settings.namespace.clone(),
        allowed_namespaces: settings.allowed_namespaces.clone(),
        destination_based_mapping: settings.destination_based_mapping,
        create_namespaces: settings.create_namespaces,
        policy: settings.policy,
        on_return: settings.on_return.clone(),
        label_selector: settings.label_selector.clone(),
        resync_interval: settings.resync_interval,
        buffer_interval: settings.buffer_interval,
        cluster_cache,
        proxy,
        redis,
        heartbeat: settings.heartbeat_interval,
        registry,
        recorder,
        traces: match &settings.collector {
            None => Traces::default(),
            Some(collector) => traces::to_collector("agent", collector)?,
        },
    };
    let link = Grpc {
        dial,
        credentials: settings.credentials.clone(),
        namespace: settings.namespace.clone(),
        version: settings.announced_version.clone(),
        compression: settings.compression,
        max_message_size: settings.max_message_size,
    };
    Ok((config, link))
}

/// The policy, and whatever the file with its rules becomes until `cancel`.
fn policy(
    source: &PolicySource,
    cancel: &CancellationToken,
) -> Result<watch::Receiver<ProxyPolicy>, Problem> {
    let path = match source {
        PolicySource::Managed => return Ok(watch::channel(ProxyPolicy::Managed).1),
        PolicySource::All => return Ok(watch::channel(ProxyPolicy::All).1),
        PolicySource::AllowList(path) => path.clone(),
    };
    let (sender, receiver) = watch::channel(ProxyPolicy::AllowList(read_allow_list(&path)?));
    let cancel = cancel.clone();
    tokio::spawn(async move {
        let mut look = tokio::time::interval(LOOK);
        let mut last_failure = String::new();
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                _ = look.tick() => {}
            }
            match read_allow_list(&path).map(ProxyPolicy::AllowList) {
                Ok(policy) => {
                    last_failure.clear();
                    if *sender.borrow() != policy {
                        tracing::info!(path = %path.display(), "allow-list changed; it counts from now on");
                        sender.send_replace(policy);
                    }
                }
                Err(problem) if problem.what != last_failure => {
                    tracing::warn!(error = problem.what, "allow-list cannot be used; the old one counts");
                    last_failure = problem.what;
                }
                Err(_) => {}
            }
        }
    });
    Ok(receiver)
}

async fn client_tls(
    reader: &Reader,
    roots: &Roots,
    identity: &KeyPair,
    own_certificate_required: bool,
    policy: Policy,
    cancel: &CancellationToken,
) -> Result<ClientTls, Problem> {
    let (ca, insecure) = match roots {
        Roots::Unverified => (None, true),
        Roots::File(path) => (Some(Place::File(path.clone())), false),
        Roots::Secret(name) => (Some(Place::Secret { name: name.clone(), keys: CA }), false),
    };
    let (chain, key) = match identity {
        KeyPair::Files { certificate, key } => (Place::File(certificate.clone()), Place::File(key.clone())),
        KeyPair::Secret(name) => (
            Place::Secret { name: name.clone(), keys: CERTIFICATE },
            Place::Secret { name: name.clone(), keys: PRIVATE_KEY },
        ),
    };
    let with_own = Places { chain: Some(chain), key: Some(key), ca: ca.clone() };
    let (places, material) = match reader.read_all(&with_own).await {
        Ok(material) => (with_own, material),
        // Other methods than mtls go without a certificate; one that is there is shown all the same.
        Err(problem) if own_certificate_required => return Err(problem),
        Err(_) => {
            let without = Places { ca, ..Places::default() };
            let material = reader.read_all(&without).await?;
            (without, material)
        }
    };
    let tls = ClientTls::new(&material, policy, insecure).map_err(|error| {
        Problem::new(
            format!("the agent's certificates cannot be used: {error}"),
            "replace them with a matching pair, and the CA that signed the principal's certificate",
        )
    })?;
    let replaced = tls.clone();
    reader.keep_current("client", places, material, cancel, move |material| replaced.replace(material));
    Ok(tls)
}
