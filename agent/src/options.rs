//! What the agent can be told: upstream's flags, environment variables and defaults.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use tiphys_shared::kube::client::Access;
use tiphys_shared::model::agent::Mode;
use tiphys_shared::process::options::{
    self, Collector, ConfigFile, HostPort, KeyPair, Listen, LogFormat, LogLevels, Logging, NamePattern,
    Problem, Problems,
};
use tiphys_shared::protocol::ownership::{AdoptionPolicy, MismatchPolicy, Policy};
use tiphys_shared::redis;
use tiphys_shared::security::passwords::{self, Credentials};
use tiphys_shared::security::tls::{Policy as TlsPolicy, Version};
use tiphys_shared::wire::transport::proxy::Proxy;

mod compatibility;
mod events;
pub(crate) mod proxy;
mod traces;
mod transport;

use compatibility::Compatibility;
use events::EventOptions;
use proxy::ProxyOptions;
pub use proxy::{PolicySource, ProxySettings};
use traces::TraceOptions;
use transport::TransportOptions;

/// The agent's options as they are given.
#[derive(Debug, Clone, Args)]
pub struct Options {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    connection: ConnectionOptions,
    #[command(flatten)]
    transport: TransportOptions,
    #[command(flatten)]
    tls: TlsOptions,
    #[command(flatten)]
    applications: ApplicationOptions,
    #[command(flatten)]
    kubernetes: KubernetesOptions,
    #[command(flatten)]
    events: EventOptions,
    #[command(flatten)]
    proxy: ProxyOptions,
    #[command(flatten)]
    redis: RedisOptions,
    #[command(flatten)]
    process: ProcessOptions,
    #[command(flatten)]
    traces: TraceOptions,
    #[command(flatten)]
    compatibility: Compatibility,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection to the principal")]
struct ConnectionOptions {
    /// Host name or address of the principal
    #[arg(long, env = "ARGOCD_AGENT_REMOTE_SERVER", value_name = "HOST")]
    server_address: Option<String>,
    /// Port of the principal
    #[arg(long, env = "ARGOCD_AGENT_REMOTE_PORT", value_name = "PORT", default_value_t = 443)]
    server_port: u16,
    /// How this agent proves who it is
    ///
    /// mtls:any uses the client certificate; userpass:FILE reads a user:password line; header leaves it to a service
    /// mesh that adds the header.
    #[arg(long, env = "ARGOCD_AGENT_CREDS", value_name = "METHOD:CONFIG")]
    creds: Option<String>,
    /// Who owns the applications: managed (the control plane) or autonomous (this cluster)
    #[arg(long, env = "ARGOCD_AGENT_MODE", value_name = "MODE", default_value = "autonomous")]
    agent_mode: String,
    /// Send keepalive pings this often; 0 sends none
    #[arg(long, env = "ARGOCD_AGENT_KEEP_ALIVE_PING_INTERVAL", value_name = "DURATION")]
    #[arg(default_value = "0s", value_parser = options::duration)]
    keep_alive_ping_interval: Duration,
    /// Send heartbeat events on the stream this often, for meshes that cut silent streams; 0 sends none
    #[arg(long, env = "ARGOCD_AGENT_HEARTBEAT_INTERVAL", value_name = "DURATION")]
    #[arg(default_value = "0s", value_parser = options::duration)]
    heartbeat_interval: Duration,
    /// Compare what both sides hold this often, and repair what differs; 0 compares at connect only
    #[arg(long, env = "TIPHYS_AGENT_RESYNC_INTERVAL", value_name = "DURATION")]
    #[arg(default_value = "60s", value_parser = options::duration)]
    resync_interval: Duration,
    /// Version to announce to the principal; a Go principal takes agents of its own version only
    #[arg(long, env = "TIPHYS_AGENT_ANNOUNCE_VERSION", value_name = "VERSION", default_value = env!("CARGO_PKG_VERSION"))]
    announce_version: String,
    /// Compress what is sent with gzip
    #[arg(long, env = "ARGOCD_AGENT_ENABLE_COMPRESSION", action = ArgAction::Set, default_value = "false")]
    enable_compression: bool,
    /// Largest gRPC message that is sent or taken, in bytes
    #[arg(
        long,
        env = "ARGOCD_AGENT_GRPC_MAX_MESSAGE_SIZE",
        value_name = "BYTES",
        default_value_t = 209_715_200
    )]
    grpc_max_message_size: u32,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "TLS")]
struct TlsOptions {
    /// Secret with the certificate of the CA that signed the principal
    #[arg(long, env = "ARGOCD_AGENT_TLS_ROOT_CA_SECRET_NAME", value_name = "NAME")]
    #[arg(default_value = "argocd-agent-ca")]
    root_ca_secret_name: String,
    /// File with the certificate of the CA that signed the principal, instead of the Secret
    #[arg(long, env = "ARGOCD_AGENT_TLS_ROOT_CA_PATH", value_name = "FILE")]
    root_ca_path: Option<PathBuf>,
    /// Secret with this agent's certificate and key
    #[arg(long, env = "ARGOCD_AGENT_TLS_SECRET_NAME", value_name = "NAME")]
    #[arg(default_value = "argocd-agent-client-tls")]
    tls_secret_name: String,
    /// File with this agent's certificate in PEM, instead of the Secret
    #[arg(long, env = "ARGOCD_AGENT_TLS_CLIENT_CERT_PATH", value_name = "FILE")]
    tls_client_cert: Option<PathBuf>,
    /// File with this agent's private key in PEM, instead of the Secret
    #[arg(long, env = "ARGOCD_AGENT_TLS_CLIENT_KEY_PATH", value_name = "FILE")]
    tls_client_key: Option<PathBuf>,
    /// INSECURE: take whatever certificate the principal shows
    #[arg(long, env = "ARGOCD_AGENT_TLS_INSECURE", action = ArgAction::Set, default_value = "false")]
    insecure_tls: bool,
    /// INSECURE: connect without TLS, for use behind a service mesh that brings its own
    #[arg(long, env = "ARGOCD_AGENT_INSECURE_PLAINTEXT", action = ArgAction::Set, default_value = "false")]
    insecure_plaintext: bool,
    /// Oldest TLS version to accept: tls1.2 or tls1.3; by default tls1.2
    #[arg(long, env = "ARGOCD_AGENT_TLS_MIN_VERSION", value_name = "VERSION")]
    tls_min_version: Option<String>,
    /// Newest TLS version to accept: tls1.2 or tls1.3
    #[arg(long, env = "ARGOCD_AGENT_TLS_MAX_VERSION", value_name = "VERSION")]
    tls_max_version: Option<String>,
    /// Cipher suites to accept, separated by commas; "list" shows them and exits
    #[arg(long, env = "ARGOCD_AGENT_TLS_CIPHERSUITES", value_name = "LIST", value_delimiter = ',')]
    tls_ciphersuites: Vec<String>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Applications")]
struct ApplicationOptions {
    /// Namespaces to manage applications in besides the agent's own: names, globs or /regular expressions/
    #[arg(long, env = "ARGOCD_AGENT_ALLOWED_NAMESPACES", value_name = "LIST", value_delimiter = ',')]
    allowed_namespaces: Vec<String>,
    /// Keep each application in the namespace that it has at the control plane
    #[arg(long, env = "ARGOCD_AGENT_DESTINATION_BASED_MAPPING", action = ArgAction::Set, default_value = "false")]
    destination_based_mapping: bool,
    /// Create the namespace of an application that needs it; only with --destination-based-mapping
    #[arg(long, env = "ARGOCD_AGENT_CREATE_NAMESPACE", action = ArgAction::Set, default_value = "false")]
    create_namespace: bool,
    /// What an application that comes back after somebody deleted it here starts with
    ///
    /// It always starts with what the control plane declares and with a clean status, so that automated sync works;
    /// resync starts a sync, too.
    #[arg(long, env = "ARGOCD_AGENT_ON_APPLICATION_RECREATE", value_name = "POLICY")]
    #[arg(default_value = "ignore", ignore_case = true)]
    on_application_recreate: OnRecreate,
    /// When a resource here stems from another source of the same name: recreate it or update it in place
    #[arg(long, env = "ARGOCD_AGENT_SOURCE_UID_MISMATCH_POLICY", value_name = "POLICY")]
    #[arg(default_value = "recreate", ignore_case = true)]
    source_uid_mismatch_policy: MismatchPolicy,
    /// Take over resources of the same name that were here before: always or never
    #[arg(long, env = "ARGOCD_AGENT_ADOPTION_POLICY", value_name = "POLICY")]
    #[arg(default_value = "always", ignore_case = true)]
    adoption_policy: AdoptionPolicy,
    /// Send changes of one application at most this often, always the newest; 0 sends each at once
    #[arg(long, env = "ARGOCD_AGENT_BUFFER_INFORMER_EVENT_INTERVAL", value_name = "DURATION")]
    #[arg(default_value = "0s", value_parser = options::duration)]
    buffer_informer_event_interval: Duration,
    /// Watch only resources that match this label selector
    #[arg(long, env = "ARGOCD_AGENT_LABEL_SELECTOR", value_name = "SELECTOR")]
    label_selector: Option<String>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kubernetes")]
struct KubernetesOptions {
    /// Namespace of Argo CD in this cluster
    #[arg(long, short, env = "ARGOCD_AGENT_NAMESPACE", value_name = "NAME", default_value = "argocd")]
    namespace: String,
    /// Kubeconfig file of this cluster; by default $KUBECONFIG, ~/.kube/config, or the cluster around
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context in the kubeconfig, instead of its current one
    #[arg(long, value_name = "NAME")]
    kubecontext: Option<String>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Redis of Argo CD, for the control plane's view of this cluster")]
struct RedisOptions {
    /// Address of this cluster's Redis; none tells the control plane nothing of what is counted there
    #[arg(long, env = "REDIS_ADDR", value_name = "HOST:PORT", default_value = "argocd-redis:6379")]
    redis_addr: String,
    /// User of Redis
    #[arg(long, env = "REDIS_USERNAME", value_name = "NAME")]
    redis_username: Option<String>,
    /// Password of Redis
    #[arg(long, env = "REDIS_PASSWORD", value_name = "TEXT", hide_env_values = true)]
    redis_password: Option<String>,
    /// Folder with the file auth that holds the password of Redis, and perhaps auth_username
    #[arg(long, env = "REDIS_CREDS_DIR_PATH", value_name = "FOLDER")]
    redis_creds_dir_path: Option<PathBuf>,
    /// Use TLS towards Redis
    #[arg(long, env = "ARGOCD_AGENT_REDIS_TLS_ENABLED", action = ArgAction::Set, default_value = "false")]
    redis_tls_enabled: bool,
    /// File with the CA of Redis, instead of the Secret
    #[arg(long, env = "ARGOCD_AGENT_REDIS_TLS_CA_PATH", value_name = "FILE")]
    redis_tls_ca_path: Option<PathBuf>,
    /// Secret with the CA of Redis
    #[arg(long, env = "ARGOCD_AGENT_REDIS_TLS_CA_SECRET_NAME", value_name = "NAME")]
    #[arg(default_value = "argocd-redis-tls")]
    redis_tls_ca_secret_name: String,
    /// INSECURE: take whatever certificate Redis shows
    #[arg(long, env = "ARGOCD_AGENT_REDIS_TLS_INSECURE", action = ArgAction::Set, default_value = "false")]
    redis_tls_insecure: bool,
    /// Look this often for what Argo CD has counted on this cluster; what changes is sent
    #[arg(long, env = "ARGOCD_AGENT_CACHE_REFRESH_INTERVAL", value_name = "DURATION")]
    #[arg(default_value = "10s", value_parser = options::duration)]
    cache_refresh_interval: Duration,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logging, metrics, health")]
struct ProcessOptions {
    /// Level, or component=level, separated by commas
    #[arg(
        long,
        env = "ARGOCD_AGENT_LOG_LEVEL",
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "info"
    )]
    log_level: Vec<String>,
    /// Form of a log line
    #[arg(
        long,
        env = "ARGOCD_AGENT_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        ignore_case = true
    )]
    log_format: LogFormat,
    /// Port of the Prometheus metrics; 0 turns them off
    #[arg(long, env = "ARGOCD_AGENT_METRICS_PORT", value_name = "PORT", default_value_t = 8181)]
    metrics_port: u16,
    /// Port of the health checks; 0 turns them off
    #[arg(long, env = "ARGOCD_AGENT_HEALTH_CHECK_PORT", value_name = "PORT", default_value_t = 8001)]
    healthz_port: u16,
}

/// What an application that comes back after somebody deleted it here starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnRecreate {
    /// What the control plane declares, and a clean status.
    Ignore,
    /// The same.
    ClearStatus,
    /// A sync, too.
    Resync,
}

/// The agent's options, checked: nothing in here can still be a typing error.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The principal.
    pub server: HostPort,
    /// How the connection is protected.
    pub transport: Transport,
    /// Over WebSocket instead of HTTP/2?
    pub websocket: bool,
    /// The proxy that it leads through, if there is one.
    pub via: Option<Proxy>,
    /// How this agent proves who it is.
    pub credentials: Credentials,
    /// Who owns the applications.
    pub mode: Mode,
    /// Time between keepalive pings, if any are sent.
    pub keepalive_interval: Option<Duration>,
    /// Shortest time between two states of one application that are sent, if there is one.
    pub buffer_interval: Option<Duration>,
    /// Time between heartbeat events, if any are sent.
    pub heartbeat_interval: Option<Duration>,
    /// The version to announce to the principal.
    pub announced_version: String,
    /// Is what is sent compressed?
    pub compression: bool,
    /// Largest gRPC message, in bytes.
    pub max_message_size: usize,
    /// Where the metrics are served, if at all.
    pub metrics: Option<Listen>,
    /// Where the health checks are served, if at all.
    pub health: Option<Listen>,
    /// The API server of this cluster.
    pub kubernetes: Access,
    /// Whether Kubernetes Events are written.
    pub events: bool,
    /// Namespace of Argo CD in this cluster.
    pub namespace: String,
    /// Namespaces besides [`Self::namespace`] in which applications are managed.
    pub allowed_namespaces: Vec<NamePattern>,
    /// Do applications keep the namespace that they have at the control plane?
    pub destination_based_mapping: bool,
    /// Are namespaces of applications created when they are needed?
    pub create_namespaces: bool,
    /// How conflicts about a name are settled.
    pub policy: Policy,
    /// The operation that an application starts with when it comes back after it was deleted here.
    pub on_return: Option<serde_json::Value>,
    /// Mean time between two comparisons of what both sides hold, if they are compared other than at connect.
    pub resync_interval: Option<Duration>,
    /// Watch only what matches.
    pub label_selector: Option<String>,
    /// How this cluster's API is served to the control plane, if at all.
    pub proxy: Option<ProxySettings>,
    /// Where this cluster's Argo CD counts what is here, if anybody is to know.
    pub redis: Option<redis::Access>,
    /// Time between two looks there.
    pub cache_refresh_interval: Duration,
    /// Where traces are sent, if any are made.
    pub collector: Option<Collector>,
    /// What to log and how.
    pub logging: Logging,
    /// Lines for the log about options that are accepted without effect, deprecated or insecure.
    pub notices: Vec<String>,
}

/// How the connection to the principal is protected.
#[derive(Debug, Clone)]
pub enum Transport {
    /// Not at all; a service mesh does it.
    Plaintext,
    /// By TLS.
    Tls {
        /// What the principal's certificate is checked against.
        roots: Roots,
        /// This agent's own certificate.
        identity: KeyPair,
        /// Versions and cipher suites.
        policy: TlsPolicy,
    },
}

/// What the principal's certificate is checked against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// Nothing: any certificate will do.
    Unverified,
    /// A PEM file.
    File(PathBuf),
    /// A Secret, under `ca.crt` or `tls.crt`.
    Secret(String),
}

impl Options {
    /// Were the cipher suites asked for, instead of an agent?
    pub fn lists_cipher_suites(&self) -> bool {
        self.tls.tls_ciphersuites == ["list"]
    }

    /// Checks everything that can be checked without talking to anybody.
    ///
    /// # Errors
    /// Every mistake, each with its remedy.
    pub fn validate(self) -> Result<Settings, Problems> {
        let mut problems = Problems(self.compatibility.problems.clone());
        let mut notices = self.compatibility.notices.clone();

        let logging = problems.absorb(self.process.check());
        let connection = problems.absorb(self.connection.check());
        let credentials = problems.keep(self.connection.credentials());
        let transport = problems.absorb(self.tls.check(&mut notices));
        if credentials == Some(Credentials::Mtls) && self.tls.insecure_plaintext {
            problems.add(
                "--creds mtls needs the client certificate that --insecure-plaintext leaves out",
                "leave out --insecure-plaintext, or use --creds header behind a service mesh",
            );
        }
        let via = match &connection {
            Some((server, _)) => problems.keep(transport::proxy(server, |name| std::env::var(name).ok())),
            None => Some(None),
        };
        let allowed_namespaces = problems.absorb(self.applications.check());
        if self.applications.destination_based_mapping
            && connection.as_ref().is_some_and(|(_, mode)| *mode == Mode::Autonomous)
        {
            problems.add(
                "--destination-based-mapping makes no sense for an autonomous agent, which owns its applications",
                "leave it out, or set --agent-mode managed",
            );
        }
        if self.applications.create_namespace && !self.applications.destination_based_mapping {
            problems.add(
                "--create-namespace is set without --destination-based-mapping: applications are in --namespace only",
                "leave out --create-namespace, or set --destination-based-mapping true here and at the principal",
            );
        }
        let access = problems.keep(self.kubernetes.check());
        let redis = problems.absorb(self.redis.check(&mut notices));
        let proxy = problems.absorb(self.proxy.check());
        let collector = problems.keep(self.traces.check());

        let (
            Some(logging),
            Some((server, mode)),
            Some(credentials),
            Some(transport),
            Some(via),
            Some(allowed_namespaces),
            Some(access),
            Some(redis),
            Some(proxy),
            Some(collector),
            true,
        ) = (
            logging,
            connection,
            credentials,
            transport,
            via,
            allowed_namespaces,
            access,
            redis,
            proxy,
            collector,
            problems.is_empty(),
        )
        else {
            return Err(problems);
        };
        let port = |port: u16| (port != 0).then(|| Listen::everywhere(port));
        let interval = |interval: Duration| (!interval.is_zero()).then_some(interval);
        Ok(Settings {
            server,
            transport,
            websocket: self.transport.enable_websocket,
            via,
            credentials,
            mode,
            keepalive_interval: interval(self.connection.keep_alive_ping_interval),
            buffer_interval: interval(self.applications.buffer_informer_event_interval),
            heartbeat_interval: interval(self.connection.heartbeat_interval),
            announced_version: self.connection.announce_version,
            compression: self.connection.enable_compression,
            max_message_size: self.connection.grpc_max_message_size as usize,
            metrics: port(self.process.metrics_port),
            health: port(self.process.healthz_port),
            kubernetes: access,
            events: self.events.kubernetes_events,
            namespace: self.kubernetes.namespace,
            allowed_namespaces,
            destination_based_mapping: self.applications.destination_based_mapping,
            create_namespaces: self.applications.create_namespace,
            policy: Policy {
                mismatch: self.applications.source_uid_mismatch_policy,
                adoption: self.applications.adoption_policy,
            },
            on_return: (self.applications.on_application_recreate == OnRecreate::Resync)
                .then(|| serde_json::json!({"sync": {}})),
            resync_interval: interval(self.connection.resync_interval),
            label_selector: filled(self.applications.label_selector),
            proxy,
            redis,
            cache_refresh_interval: self.redis.cache_refresh_interval,
            collector,
            logging,
            notices,
        })
    }
}

impl ConnectionOptions {
    fn check(&self) -> Result<(HostPort, Mode), Problems> {
        let mut problems = Problems::default();
        let server = match filled(self.server_address.clone()) {
            Some(host) => {
                HostPort::new(&host, self.server_port).map_err(|invalid| ("--server-address", invalid).into())
            }
            None => Err(Problem::new(
                "--server-address is missing: the principal to connect to",
                "give its host name, such as --server-address principal.example.com",
            )),
        };
        let server = problems.keep(server);
        let mode = problems.keep(match self.agent_mode.parse() {
            Ok(mode) => Ok(mode),
            Err(_) => Err(Problem::new(
                format!("--agent-mode: there is no mode {:?}", self.agent_mode),
                "set --agent-mode managed (the control plane owns the applications) or autonomous (this cluster does)",
            )),
        });
        if self.grpc_max_message_size < 4096 {
            problems.add(
                format!(
                    "--grpc-max-message-size {} is too small for any resource",
                    self.grpc_max_message_size
                ),
                "give at least 4096; the default is 209715200",
            );
        }
        match (server, mode) {
            (Some(server), Some(mode)) if problems.is_empty() => Ok((server, mode)),
            _ => Err(problems),
        }
    }

    fn credentials(&self) -> Result<Credentials, Problem> {
        const REMEDY: &str = "write --creds mtls:any, --creds userpass:FILE or --creds header:any";
        let Some(text) = self.creds.as_deref().filter(|text| !text.is_empty()) else {
            return Err(Problem::new("--creds is missing: how this agent proves who it is", REMEDY));
        };
        let credentials: Credentials = text.parse().map_err(|error| {
            let what = match error {
                passwords::Error::NoFile(_) => "names no file".to_owned(),
                passwords::Error::UnknownMethod(_) => "names no known method".to_owned(),
                other => other.to_string(),
            };
            Problem::new(format!("--creds: {text:?} {what}"), REMEDY)
        })?;
        if let Credentials::UserPass { path } = &credentials {
            check_user_pass(path)?;
        }
        Ok(credentials)
    }
}

/// Checks that the first line of a file is `user:password`. The line itself is never shown.
fn check_user_pass(path: &Path) -> Result<(), Problem> {
    let text = options::read_text("--creds userpass", path)?;
    match text.lines().next().and_then(|line| line.split_once(':')) {
        Some((user, password)) if !user.is_empty() && !password.is_empty() => Ok(()),
        _ => Err(Problem::new(
            format!("--creds userpass: the first line of {} is not user:password", path.display()),
            "write the agent's name, a colon and its password into the first line",
        )),
    }
}

impl TlsOptions {
    fn check(&self, notices: &mut Vec<String>) -> Result<Transport, Problems> {
        let mut problems = Problems::default();
        let policy = problems.absorb(options::policy(
            self.tls_min_version.as_deref(),
            self.tls_max_version.as_deref(),
            &self.tls_ciphersuites,
            Version::Tls12,
        ));
        let identity = problems.absorb(self.identity());
        let roots = problems.keep(match (&self.root_ca_path, self.insecure_tls) {
            (Some(_), true) => Err(Problem::new(
                "--insecure-tls is set together with --root-ca-path",
                "choose one: leave out --insecure-tls to verify the principal",
            )),
            (Some(path), false) => {
                options::check_certificates("--root-ca-path", path).map(|()| Roots::File(path.clone()))
            }
            (None, true) => Ok(Roots::Unverified),
            (None, false) => Ok(Roots::Secret(self.root_ca_secret_name.clone())),
        });
        let files = [&self.tls_client_cert, &self.tls_client_key, &self.root_ca_path];
        if self.insecure_plaintext && (self.insecure_tls || files.iter().any(|file| file.is_some())) {
            problems.add(
                "--insecure-plaintext is set together with options for TLS",
                "choose one: leave out --insecure-plaintext to use TLS, or leave out the others",
            );
        }
        let (Some(policy), Some(identity), Some(roots), true) =
            (policy, identity, roots, problems.is_empty())
        else {
            return Err(problems);
        };
        if self.insecure_plaintext {
            notices.push("INSECURE: connecting without TLS; a service mesh has to bring it".to_owned());
            return Ok(Transport::Plaintext);
        }
        if roots == Roots::Unverified {
            notices.push("INSECURE: not verifying the principal's certificate".to_owned());
        }
        Ok(Transport::Tls { roots, identity, policy })
    }

    fn identity(&self) -> Result<KeyPair, Problems> {
        let half = |given: &str, missing: &str| {
            Problem::new(
                format!("{given} is set, but {missing} is not"),
                format!("set both, or neither to use the Secret {}", self.tls_secret_name),
            )
        };
        match (&self.tls_client_cert, &self.tls_client_key) {
            (Some(certificate), Some(key)) => {
                options::check_key_pair(("--tls-client-cert", certificate), ("--tls-client-key", key))
                    .map(|()| KeyPair::Files { certificate: certificate.clone(), key: key.clone() })
            }
            (None, None) => Ok(KeyPair::Secret(self.tls_secret_name.clone())),
            (Some(_), None) => Err(half("--tls-client-cert", "--tls-client-key").into()),
            (None, Some(_)) => Err(half("--tls-client-key", "--tls-client-cert").into()),
        }
    }
}

impl ApplicationOptions {
    fn check(&self) -> Result<Vec<NamePattern>, Problems> {
        let mut problems = Problems::default();
        let mut allowed = Vec::new();
        for text in &self.allowed_namespaces {
            let pattern = NamePattern::new(text).map_err(|invalid| ("--allowed-namespaces", invalid).into());
            allowed.extend(problems.keep(pattern));
        }
        if let Some(selector) = self.label_selector.as_deref().filter(|selector| !selector.is_empty()) {
            let checked = options::check_label_selector(selector);
            problems.keep(checked.map_err(|invalid| ("--label-selector", invalid).into()));
        }
        if problems.is_empty() { Ok(allowed) } else { Err(problems) }
    }
}

impl KubernetesOptions {
    fn check(&self) -> Result<Access, Problem> {
        options::namespace_name("--namespace", &self.namespace)?;
        let access =
            Access { kubeconfig: self.kubeconfig.clone(), context: filled(self.kubecontext.clone()) };
        options::check_access(&access).map(|_| access)
    }
}

impl RedisOptions {
    fn check(&self, notices: &mut Vec<String>) -> Result<Option<redis::Access>, Problems> {
        let mut problems = Problems::default();
        if self.cache_refresh_interval.is_zero() {
            problems.add(
                "--cache-refresh-interval is 0: nobody can look that often",
                "give a duration, such as 10s; --redis-addr none turns looking off",
            );
        }
        let access = options::RedisOptions {
            address: ("--redis-addr", &self.redis_addr),
            username: self.redis_username.as_deref(),
            password: self.redis_password.as_deref(),
            folder: self.redis_creds_dir_path.as_deref(),
            tls: self.redis_tls_enabled,
            insecure: self.redis_tls_insecure,
            ca_path: ("--redis-tls-ca-path", self.redis_tls_ca_path.as_deref()),
            ca_secret: &self.redis_tls_ca_secret_name,
        };
        match problems.absorb(access.check()) {
            Some(access) if problems.is_empty() => {
                if access.as_ref().is_some_and(|access| access.trust == Some(redis::Trust::Unverified)) {
                    notices.push("INSECURE: not verifying the certificate of redis".to_owned());
                }
                Ok(access)
            }
            _ => Err(problems),
        }
    }
}

impl ProcessOptions {
    fn check(&self) -> Result<Logging, Problems> {
        let mut problems = Problems::default();
        if self.metrics_port == self.healthz_port && self.metrics_port != 0 {
            problems.add(
                format!("--metrics-port and --healthz-port are both {}", self.metrics_port),
                "give each its own port",
            );
        }
        let levels =
            problems.absorb(LogLevels::new(self.log_level.iter().map(String::as_str)).map_err(|invalid| {
                Problems(invalid.into_iter().map(|invalid| ("--log-level", invalid).into()).collect())
            }));
        match levels {
            Some(levels) if problems.is_empty() => Ok(Logging { format: self.log_format, levels }),
            _ => Err(problems),
        }
    }
}

fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
