//! From checked options to a configuration: reads Secrets and files, makes what is to be made, and keeps it current.

mod passwords;

use kube::Client;
use prometheus::Registry;
use tiphys_shared::kube::client;
use tiphys_shared::kube::material::{Place, Places, Reader};
use tiphys_shared::kube::recorder::{self, Recorder};
use tiphys_shared::process::options::{KeyPair, Problem, Problems};
use tiphys_shared::process::{clock, metrics};
use tiphys_shared::redis;
use tiphys_shared::security::blocklist::Blocklist;
use tiphys_shared::security::pki::Ca;
use tiphys_shared::security::subject::AuthRule;
use tiphys_shared::security::tls::{Alpn, ClientCertificate, Material, Policy, ServerTls};
use tiphys_shared::security::token::Issuer;
use tiphys_shared::wire::traces::{self, Traces};
use tokio_util::sync::CancellationToken;

use crate::blocklist;
use crate::options::{
    Identity, ProxySettings, RedisProxy, Roots, Settings, TokenKey, Transport, Viewers, WebSettings,
};
use crate::{
    Access, ClusterViewConfig, Config, ControlPlaneConfig, EnrolmentConfig, Onboarding, ProxyConfig,
    RedisProxyConfig, RegistrationConfig, WebConfig,
};

const CERTIFICATE: &[&str] = &["tls.crt"];
const PRIVATE_KEY: &[&str] = &["tls.key"];
const CA: &[&str] = &["ca.crt", "tls.crt"];
const JWT_KEY: &[&str] = &["jwt.key"];
/// How long a certificate made for a trial is good.
const TRIAL: std::time::Duration = std::time::Duration::from_secs(30 * 24 * 3600);

/// The way to the control plane's API server.
pub struct Way {
    /// For the principal itself.
    pub client: Client,
    /// How it is reached, for requests in the name of others.
    pub server: kube::Config,
}

/// Finds the way to the control plane's API server, on which requests are counted.
///
/// # Errors
/// Why there is none, with its remedy.
pub async fn connect(settings: &Settings, registry: &Registry) -> Result<Way, Problems> {
    let unreachable = |error: client::Error| {
        Problem::new(error.to_string(), "check --kubeconfig and --kubecontext, or the pod's service account")
    };
    let access = client::configuration(&settings.kubernetes).await.map_err(unreachable)?;
    let server = access.clone();
    Ok(Way { client: client::measured(access, &requests(registry)?).map_err(unreachable)?, server })
}

/// Prepares everything that a principal needs of the control plane to which there is a `way`. Certificates are kept
/// current in the background until `cancel`.
///
/// # Errors
/// Every mistake that can be found, each with its remedy.
pub async fn prepare(
    settings: &Settings,
    way: Way,
    registry: Registry,
    cancel: &CancellationToken,
) -> Result<Config, Problems> {
    let mut problems = Problems::default();
    let Way { client, server } = way;
    let twice =
        |error: metrics::Error| Problem::new(error.to_string(), "give each principal a registry of its own");
    let limits = settings.events.then(recorder::Limits::default);
    let recorder =
        Recorder::start(client.clone(), &settings.namespace, "tiphys-principal", limits, &registry, cancel)
            .map_err(twice)?;
    let reader = Reader::new(client.clone(), settings.namespace.as_str(), recorder.clone(), &registry)
        .map_err(twice)?;
    let blocked = blocklist::follow(client.clone(), &settings.namespace, &registry, cancel).await;
    let listeners = Listeners { reader: &reader, blocklist: blocked?, cancel };
    let onboarding = onboarding(settings, &reader);
    let tls = match &settings.transport {
        Transport::Plaintext => Some(None),
        Transport::Tls { identity, roots, policy } => {
            let alpn = if settings.connections.websocket { Alpn::H2OrHttp1 } else { policy.alpn };
            let policy = Policy { enrolment: onboarding.enrolment.is_some(), alpn, ..policy.clone() };
            problems.keep(listeners.agents("server", identity, roots, policy).await).map(Some)
        }
    };
    let issuer = problems.keep(issuer(&reader, &settings.token_key, cancel).await);
    let passwords = match &settings.authentication {
        AuthRule::UserPass { path } => {
            problems.keep(passwords::of("passwords", path, &reader, cancel).await).map(Some)
        }
        AuthRule::Mtls { .. } | AuthRule::Header { .. } => Some(None),
    };
    let listen = problems.keep(settings.listen.address().map_err(|error| {
        Problem::new(format!("cannot listen on {}: {error}", settings.listen), "choose another --listen-host")
    }));
    let cluster_view = match &settings.redis {
        None => Some(None),
        Some(access) => {
            let compression = settings.redis_compression;
            let redis = problems.keep(redis::Config::prepare(access, &reader, cancel).await);
            redis.map(|redis| Some(ClusterViewConfig { redis, compression }))
        }
    };
    let proxy = match &settings.proxy {
        None => Some(None),
        Some(proxy) => problems.keep(proxy_config(&listeners, proxy).await).map(Some),
    };
    let redis_proxy = match (&settings.redis_proxy, &cluster_view) {
        (Some(proxy), Some(Some(view))) => {
            problems.keep(redis_proxy(proxy, view.redis.clone(), &listeners).await).map(Some)
        }
        (_, None) => None,
        _ => Some(None),
    };
    let web = match &settings.web {
        None => Some(None),
        Some(web) => problems.keep(web_config(&listeners, settings, web, server).await).map(Some),
    };
    let (
        Some(tls),
        Some(web),
        Some(issuer),
        Some(passwords),
        Some(listen),
        Some(cluster_view),
        Some(proxy),
        Some(redis_proxy),
    ) = (tls, web, issuer, passwords, listen, cluster_view, proxy, redis_proxy)
    else {
        return Err(problems);
    };
    Ok(Config {
        control_plane: ControlPlaneConfig {
            client,
            namespace: settings.namespace.clone(),
            allowed_namespaces: settings.allowed_namespaces.clone(),
            destination_based_mapping: settings.destination_based_mapping,
            namespace_creation: settings.namespace_creation.clone(),
            label_selector: settings.label_selector.clone(),
            resync_interval: settings.resync_interval,
            cluster_view,
            max_message_size: settings.max_message_size,
            registry,
        },
        listen,
        tls,
        connections: settings.connections.clone(),
        auth: settings.authentication.clone(),
        passwords,
        client_cert_subject_match: settings.match_certificate_subject,
        issuer,
        proxy,
        onboarding,
        redis_proxy,
        web,
        traces: traces(settings)?,
        recorder,
    })
}

fn traces(settings: &Settings) -> Result<Traces, Problem> {
    match &settings.collector {
        None => Ok(Traces::default()),
        Some(collector) => traces::to_collector("principal", collector),
    }
}

async fn web_config(
    listeners: &Listeners<'_>,
    settings: &Settings,
    web: &WebSettings,
    server: kube::Config,
) -> Result<WebConfig, Problem> {
    let listen = web.listen.address().map_err(|error| {
        Problem::new(format!("cannot listen on {}: {error}", web.listen), "choose another --web-host")
    })?;
    let access = match &web.viewers {
        Viewers::Everybody => Access::everybody(),
        Viewers::Kubernetes => Access::kubernetes(server),
        Viewers::Passwords(path) => {
            Access::passwords(passwords::of("web-passwords", path, listeners.reader, listeners.cancel).await?)
        }
    };
    let tls = match (&settings.transport, web.policy.clone()) {
        (Transport::Tls { identity, roots, .. }, Some(policy)) => {
            Some(listeners.agents("web", identity, roots, policy).await?)
        }
        _ => None,
    };
    Ok(WebConfig { listen, tls, access })
}

fn requests(registry: &Registry) -> Result<client::RequestMetrics, Problem> {
    client::RequestMetrics::new(registry)
        .map_err(|error| Problem::new(error.to_string(), "give each principal a registry of its own"))
}

/// How agents come to be known. Secrets are read when they are needed.
fn onboarding(settings: &Settings, reader: &Reader) -> Onboarding {
    let wanted = &settings.onboarding;
    let registration = wanted.client_certificate.clone().map(|certificate| RegistrationConfig {
        reader: reader.clone(),
        proxy: wanted.proxy_address.clone(),
        certificate,
    });
    // Behind a mesh there is no TLS of ours by which a joining agent could know the principal.
    let enrolment = match &settings.transport {
        Transport::Tls { roots, .. } if wanted.enrolment => Some(EnrolmentConfig {
            reader: reader.clone(),
            client: reader.client(),
            namespace: settings.namespace.clone(),
            ca_secret: wanted.ca_secret.clone(),
            authorities: place(roots),
            lifetime: wanted.lifetime,
            // Who logs in gets a cluster Secret anyway.
            proxy: settings
                .proxy
                .as_ref()
                .filter(|_| registration.is_none())
                .map(|_| wanted.proxy_address.clone()),
            places: EnrolmentConfig::PLACES,
        }),
        _ => None,
    };
    Onboarding { registration, enrolment }
}

async fn proxy_config(listeners: &Listeners<'_>, settings: &ProxySettings) -> Result<ProxyConfig, Problem> {
    let listen = settings.listen.address().map_err(|error| {
        Problem::new(
            format!("cannot listen on {}: {error}", settings.listen),
            "choose another --resource-proxy-listen-port",
        )
    })?;
    let tls = listeners
        .kept("resource-proxy", &settings.identity, place(&settings.roots), settings.policy.clone())
        .await
        .map_err(|problem| {
            let what = format!("the resource proxy cannot be served: {}", problem.what);
            Problem::new(what, format!("{}, or set --enable-resource-proxy false", problem.remedy))
        })?;
    Ok(ProxyConfig { listen, tls, operators: settings.operators.clone() })
}

fn place(roots: &Roots) -> Place {
    match roots {
        Roots::File(path) => Place::File(path.clone()),
        Roots::Secret(name) => Place::Secret { name: name.clone(), keys: CA },
    }
}

async fn redis_proxy(
    proxy: &RedisProxy,
    redis: redis::Config,
    listeners: &Listeners<'_>,
) -> Result<RedisProxyConfig, Problem> {
    let listen = proxy.listen.address().map_err(|error| {
        Problem::new(
            format!("cannot listen on {}: {error}", proxy.listen),
            "turn the Redis proxy off with --disable-redis-proxy",
        )
    })?;
    let tls = match &proxy.tls {
        None => None,
        Some((pair, policy)) => {
            let (chain, key) = places(pair);
            let places = Places { chain: Some(chain), key: Some(key), ca: None };
            let tls = listeners.serve("redis-proxy", places, policy.clone()).await.map_err(|problem| {
                Problem::new(
                    format!("the Redis proxy cannot be served: {}", problem.what),
                    format!("{}, or turn it off with --disable-redis-proxy", problem.remedy),
                )
            })?;
            Some(tls)
        }
    };
    Ok(RedisProxyConfig { listen, tls, redis })
}

/// Where the parts of a pair are.
fn places(pair: &KeyPair) -> (Place, Place) {
    match pair {
        KeyPair::Files { certificate, key } => (Place::File(certificate.clone()), Place::File(key.clone())),
        KeyPair::Secret(name) => (
            Place::Secret { name: name.clone(), keys: CERTIFICATE },
            Place::Secret { name: name.clone(), keys: PRIVATE_KEY },
        ),
    }
}

/// What all listeners with TLS share.
struct Listeners<'a> {
    reader: &'a Reader,
    blocklist: Blocklist,
    cancel: &'a CancellationToken,
}

impl Listeners<'_> {
    async fn agents(
        &self,
        kind: &'static str,
        identity: &Identity,
        roots: &Roots,
        policy: Policy,
    ) -> Result<ServerTls, Problem> {
        match identity {
            Identity::Kept(pair) => self.kept(kind, pair, place(roots), policy).await,
            Identity::Generated => generated(self, &place(roots), policy).await,
        }
    }

    /// TLS with a certificate that is kept somewhere, for clients of a CA.
    async fn kept(
        &self,
        kind: &'static str,
        identity: &KeyPair,
        ca: Place,
        policy: Policy,
    ) -> Result<ServerTls, Problem> {
        let (chain, key) = places(identity);
        self.serve(kind, Places { chain: Some(chain), key: Some(key), ca: Some(ca) }, policy).await
    }

    /// TLS with what is kept in `places`, and is replaced here when it is replaced there.
    async fn serve(&self, kind: &'static str, places: Places, policy: Policy) -> Result<ServerTls, Problem> {
        let material = self.reader.read_all(&places).await?;
        let tls = ServerTls::with_blocklist(&material, policy, self.blocklist.clone()).map_err(|error| {
            Problem::new(
                format!("the principal's certificates cannot be used: {error}"),
                "replace them with a matching pair and CA",
            )
        })?;
        let replaced = tls.clone();
        let replace = move |material: &Material| replaced.replace(material);
        self.reader.keep_current(kind, places, material, self.cancel, replace);
        Ok(tls)
    }
}

/// A certificate for a trial, made now and forgotten at the end.
async fn generated(listeners: &Listeners<'_>, ca: &Place, policy: Policy) -> Result<ServerTls, Problem> {
    let made = |error: tiphys_shared::security::pki::Error| {
        Problem::new(
            format!("no certificate could be made: {error}"),
            "give one with --tls-cert and --tls-key",
        )
    };
    let own = Ca::generate("tiphys trial", clock::now(), TRIAL).map_err(made)?;
    let issued = own.issue_server(&["localhost", "127.0.0.1", "::1"], clock::now(), TRIAL).map_err(made)?;
    let agents = if policy.client_certificate == ClientCertificate::Required {
        listeners.reader.read(ca).await?
    } else {
        own.certificate_pem().as_bytes().to_vec()
    };
    let material = Material::new(issued.chain, issued.key, agents);
    ServerTls::with_blocklist(&material, policy, listeners.blocklist.clone())
        .map_err(|error| Problem::new(error.to_string(), "give a certificate with --tls-cert and --tls-key"))
}

async fn issuer(reader: &Reader, key: &TokenKey, cancel: &CancellationToken) -> Result<Issuer, Problem> {
    let unusable = |error: tiphys_shared::security::token::Error| {
        Problem::new(
            format!("the key that signs tokens cannot be used: {error}"),
            "give an RSA key in PEM form, as `openssl genrsa 4096` makes it",
        )
    };
    let place = match key {
        TokenKey::Generated => return Issuer::generate(2048).map(|(issuer, _)| issuer).map_err(unusable),
        TokenKey::File(path) => Place::File(path.clone()),
        TokenKey::Secret(name) => Place::Secret { name: name.clone(), keys: JWT_KEY },
    };
    let places = Places { key: Some(place), ..Places::default() };
    let material = reader.read_all(&places).await?;
    let issuer = Issuer::from_pem(&material.key).map_err(unusable)?;
    let rotated = issuer.clone();
    reader.keep_current("token-key", places, material, cancel, move |material| {
        rotated.rotate(&material.key, clock::now())
    });
    Ok(issuer)
}
