//! What the principal can be told: upstream's flags, environment variables and defaults.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};
use tiphys_shared::kube::client::Access;
use tiphys_shared::kube::reconciler::NamespaceCreation;
use tiphys_shared::model::cluster::Compression;
use tiphys_shared::process::options::{
    self, Collector, ConfigFile, KeyPair, Listen, LogFormat, LogLevels, Logging, NamePattern, Problem,
    Problems,
};
use tiphys_shared::redis;
use tiphys_shared::security::subject::AuthRule;
use tiphys_shared::security::tls::{ClientCertificate, Policy, Version};

mod authentication;
mod compatibility;
mod connections;
mod embedded;
mod events;
mod onboarding;
mod proxy;
mod redis_proxy;
mod traces;
mod web;

use crate::Connections;
use compatibility::Compatibility;
use connections::ConnectionOptions;
use embedded::EmbeddedOptions;
pub use embedded::EmbeddedSettings;
use events::EventOptions;
use onboarding::OnboardingOptions;
pub use onboarding::OnboardingSettings;
use proxy::ProxyOptions;
pub use proxy::ProxySettings;
pub use redis_proxy::RedisProxy;
use redis_proxy::RedisProxyOptions;
use traces::TraceOptions;
use web::WebOptions;
pub use web::{Viewers, WebSettings};

/// The principal's options as they are given.
#[derive(Debug, Clone, Args)]
pub struct Options {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    server: ServerOptions,
    #[command(flatten)]
    connections: ConnectionOptions,
    #[command(flatten)]
    tls: TlsOptions,
    #[command(flatten)]
    authentication: AuthenticationOptions,
    #[command(flatten)]
    kubernetes: KubernetesOptions,
    #[command(flatten)]
    events: EventOptions,
    #[command(flatten)]
    embedded: EmbeddedOptions,
    #[command(flatten)]
    proxy: ProxyOptions,
    #[command(flatten)]
    onboarding: OnboardingOptions,
    #[command(flatten)]
    redis: RedisOptions,
    #[command(flatten)]
    redis_proxy: RedisProxyOptions,
    #[command(flatten)]
    web: WebOptions,
    #[command(flatten)]
    traces: TraceOptions,
    #[command(flatten)]
    logging: LoggingOptions,
    #[command(flatten)]
    compatibility: Compatibility,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server")]
struct ServerOptions {
    /// Host name or address of the interface that agents reach; empty means all interfaces
    #[arg(long, env = "ARGOCD_PRINCIPAL_LISTEN_HOST", value_name = "HOST")]
    listen_host: Option<String>,
    /// Port that agents reach; 0 lets the kernel choose
    #[arg(long, env = "ARGOCD_PRINCIPAL_LISTEN_PORT", value_name = "PORT", default_value_t = 8443)]
    listen_port: u16,
    /// Port of the Prometheus metrics; 0 turns them off
    #[arg(long, env = "ARGOCD_PRINCIPAL_METRICS_PORT", value_name = "PORT", default_value_t = 8000)]
    metrics_port: u16,
    /// Port of the health checks; 0 turns them off
    #[arg(long, env = "ARGOCD_PRINCIPAL_HEALTH_CHECK_PORT", value_name = "PORT", default_value_t = 8003)]
    healthz_port: u16,
    /// Largest gRPC message that is sent or taken, in bytes
    #[arg(
        long,
        env = "ARGOCD_PRINCIPAL_GRPC_MAX_MESSAGE_SIZE",
        value_name = "BYTES",
        default_value_t = 209_715_200
    )]
    grpc_max_message_size: u32,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "TLS")]
struct TlsOptions {
    /// Secret with the principal's certificate and key
    #[arg(long, env = "ARGOCD_PRINCIPAL_TLS_SECRET_NAME", value_name = "NAME")]
    #[arg(default_value = "argocd-agent-principal-tls")]
    tls_secret_name: String,
    /// File with the principal's certificate in PEM, instead of the Secret
    #[arg(long, env = "ARGOCD_PRINCIPAL_TLS_SERVER_CERT_PATH", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// File with the principal's private key in PEM, instead of the Secret
    #[arg(long, env = "ARGOCD_PRINCIPAL_TLS_SERVER_KEY_PATH", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// INSECURE: make a certificate at every start, which agents cannot verify
    #[arg(long, env = "ARGOCD_PRINCIPAL_TLS_SERVER_ALLOW_GENERATE", action = ArgAction::Set, default_value = "false")]
    insecure_tls_generate: bool,
    /// INSECURE: serve without TLS, for use behind a service mesh that brings its own
    #[arg(long, env = "ARGOCD_PRINCIPAL_INSECURE_PLAINTEXT", action = ArgAction::Set, default_value = "false")]
    insecure_plaintext: bool,
    /// Secret with the certificate of the CA that signs agents
    #[arg(long, env = "ARGOCD_PRINCIPAL_TLS_SERVER_ROOT_CA_SECRET_NAME", value_name = "NAME")]
    #[arg(default_value = "argocd-agent-ca")]
    tls_ca_secret_name: String,
    /// File with the certificate of the CA that signs agents, instead of the Secret
    #[arg(long, env = "ARGOCD_PRINCIPAL_TLS_SERVER_ROOT_CA_PATH", value_name = "FILE")]
    root_ca_path: Option<PathBuf>,
    /// Refuse agents without a client certificate, whatever the authentication method
    #[arg(long, env = "ARGOCD_PRINCIPAL_TLS_CLIENT_CERT_REQUIRE", action = ArgAction::Set, default_value = "false")]
    require_client_certs: bool,
    /// Refuse agents whose client certificate is not issued to the name they log in with
    #[arg(long, env = "ARGOCD_PRINCIPAL_TLS_CLIENT_CERT_MATCH_SUBJECT")]
    #[arg(action = ArgAction::Set, default_value = "false")]
    client_cert_subject_match: bool,
    /// Oldest TLS version to accept: tls1.2 or tls1.3
    #[arg(long, env = "ARGOCD_PRINCIPAL_TLS_MIN_VERSION", value_name = "VERSION", default_value = "tls1.3")]
    tls_min_version: String,
    /// Newest TLS version to accept: tls1.2 or tls1.3
    #[arg(long, env = "ARGOCD_PRINCIPAL_TLS_MAX_VERSION", value_name = "VERSION")]
    tls_max_version: Option<String>,
    /// Cipher suites to accept, separated by commas; "list" shows them and exits
    #[arg(long, env = "ARGOCD_PRINCIPAL_TLS_CIPHERSUITES", value_name = "LIST", value_delimiter = ',')]
    tls_ciphersuites: Vec<String>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Authentication of agents")]
struct AuthenticationOptions {
    /// How agents prove who they are
    ///
    /// mtls:subject:REGEX takes the name from the first group of REGEX on the certificate's subject, mtls:uri:REGEX
    /// from a URI in it; userpass:FILE checks user:bcrypt lines (htpasswd -B); header:NAME:REGEX trusts a header that
    /// a service mesh sets. Example: --auth 'mtls:subject:CN=([^,]+)'
    #[arg(long, env = "ARGOCD_PRINCIPAL_AUTH", value_name = "METHOD:CONFIG")]
    auth: Option<String>,
    /// Secret with the private key that signs tokens
    #[arg(
        long,
        env = "ARGOCD_PRINCIPAL_JWT_SECRET_NAME",
        value_name = "NAME",
        default_value = "argocd-agent-jwt"
    )]
    jwt_secret_name: String,
    /// File with the private key that signs tokens, instead of the Secret
    #[arg(long, env = "ARGOCD_PRINCIPAL_JWT_KEY_PATH", value_name = "FILE")]
    jwt_key: Option<PathBuf>,
    /// INSECURE: make the key that signs tokens at every start; agents log in again after each restart
    #[arg(long, env = "ARGOCD_PRINCIPAL_JWT_ALLOW_GENERATE", action = ArgAction::Set, default_value = "false")]
    insecure_jwt_generate: bool,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kubernetes")]
struct KubernetesOptions {
    /// Namespace of the principal's Secrets and of Argo CD; by default that of the pod or of the kubeconfig context
    #[arg(long, short, env = "ARGOCD_PRINCIPAL_NAMESPACE", value_name = "NAME")]
    namespace: Option<String>,
    /// Namespaces to serve, separated by commas: names, globs or /regular expressions/
    #[arg(long, env = "ARGOCD_PRINCIPAL_ALLOWED_NAMESPACES", value_name = "LIST", value_delimiter = ',')]
    allowed_namespaces: Vec<String>,
    /// Choose the agent by spec.destination.name instead of by the application's namespace
    #[arg(long, env = "ARGOCD_PRINCIPAL_DESTINATION_BASED_MAPPING", action = ArgAction::Set, default_value = "false")]
    destination_based_mapping: bool,
    /// Create the namespaces in which the applications of autonomous agents are shown
    #[arg(long, env = "ARGOCD_PRINCIPAL_NAMESPACE_CREATE_ENABLE", action = ArgAction::Set, default_value = "false")]
    namespace_create_enable: bool,
    /// Create only namespaces whose names match this regular expression
    #[arg(long, env = "ARGOCD_PRINCIPAL_NAMESPACE_CREATE_PATTERN", value_name = "REGEX")]
    namespace_create_pattern: Option<String>,
    /// Labels of created namespaces: key=value, separated by commas
    #[arg(
        long,
        env = "ARGOCD_PRINCIPAL_NAMESPACE_CREATE_LABELS",
        value_name = "LIST",
        value_delimiter = ','
    )]
    namespace_create_labels: Vec<String>,
    /// Compare what both sides hold this often, and repair what differs; 0 compares at connect only
    #[arg(long, env = "TIPHYS_PRINCIPAL_RESYNC_INTERVAL", value_name = "DURATION")]
    #[arg(default_value = "60s", value_parser = options::duration)]
    resync_interval: Duration,
    /// Watch only resources that match this label selector
    #[arg(long, env = "ARGOCD_PRINCIPAL_LABEL_SELECTOR", value_name = "SELECTOR")]
    label_selector: Option<String>,
    /// Kubeconfig file of the control plane; by default $KUBECONFIG, ~/.kube/config, or the cluster around
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context in the kubeconfig, instead of its current one
    #[arg(long, value_name = "NAME")]
    kubecontext: Option<String>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Redis of Argo CD")]
struct RedisOptions {
    /// Address of the control plane's Redis; none leaves the view of clusters alone, and there is no Redis proxy
    #[arg(long, env = "ARGOCD_PRINCIPAL_REDIS_SERVER_ADDRESS", value_name = "HOST:PORT")]
    #[arg(default_value = REDIS)]
    redis_server_address: String,
    /// Password of Redis
    #[arg(long, env = "REDIS_PASSWORD", value_name = "TEXT", hide_env_values = true)]
    redis_password: Option<String>,
    /// Folder with the file auth that holds the password of Redis, and perhaps auth_username
    #[arg(long, env = "REDIS_CREDS_DIR_PATH", value_name = "FOLDER")]
    redis_creds_dir_path: Option<PathBuf>,
    /// How Argo CD packs what it keeps in Redis: gzip or none
    #[arg(
        long,
        env = "ARGOCD_PRINCIPAL_REDIS_COMPRESSION_TYPE",
        value_name = "TYPE",
        default_value = "gzip"
    )]
    redis_compression_type: Compression,
    /// Use TLS towards Redis, and at the Redis proxy
    #[arg(long, env = "ARGOCD_PRINCIPAL_REDIS_TLS_ENABLED", action = ArgAction::Set, default_value = "false")]
    redis_tls_enabled: bool,
    /// File with the CA of Redis, instead of the Secret
    #[arg(long, env = "ARGOCD_PRINCIPAL_REDIS_CA_PATH", value_name = "FILE")]
    redis_ca_path: Option<PathBuf>,
    /// Secret with the CA of Redis
    #[arg(long, env = "ARGOCD_PRINCIPAL_REDIS_CA_SECRET_NAME", value_name = "NAME")]
    #[arg(default_value = "argocd-redis-tls")]
    redis_ca_secret_name: String,
    /// INSECURE: take whatever certificate Redis shows
    #[arg(long, env = "ARGOCD_PRINCIPAL_REDIS_TLS_INSECURE", action = ArgAction::Set, default_value = "false")]
    redis_tls_insecure: bool,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logging")]
struct LoggingOptions {
    /// Level, or component=level, separated by commas
    #[arg(
        long,
        env = "ARGOCD_PRINCIPAL_LOG_LEVEL",
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "info"
    )]
    log_level: Vec<String>,
    /// Form of a log line
    #[arg(
        long,
        env = "ARGOCD_PRINCIPAL_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        ignore_case = true
    )]
    log_format: LogFormat,
}

/// The principal's options, checked: nothing in here can still be a typing error.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where agents connect.
    pub listen: Listen,
    /// Where the metrics are served, if at all.
    pub metrics: Option<Listen>,
    /// Where the health checks are served, if at all.
    pub health: Option<Listen>,
    /// How connections are protected.
    pub transport: Transport,
    /// How agents prove who they are.
    pub authentication: AuthRule,
    /// Must the client certificate be issued to the name that the agent logs in with?
    pub match_certificate_subject: bool,
    /// The key that signs tokens.
    pub token_key: TokenKey,
    /// Largest gRPC message, in bytes.
    pub max_message_size: usize,
    /// How agents may connect.
    pub connections: Connections,
    /// The API server of the control plane, unless it is embedded.
    pub kubernetes: Access,
    /// Whether Kubernetes Events are written.
    pub events: bool,
    /// Where the control plane's resources are kept, if not in Kubernetes.
    pub embedded: Option<EmbeddedSettings>,
    /// Namespace of the principal's Secrets and of Argo CD.
    pub namespace: String,
    /// Namespaces to serve; empty means none was named.
    pub allowed_namespaces: Vec<NamePattern>,
    /// Is the agent chosen by `spec.destination.name`?
    pub destination_based_mapping: bool,
    /// Are namespaces of autonomous agents created when they are needed?
    pub namespace_creation: Option<NamespaceCreation>,
    /// Mean time between two comparisons of what both sides hold, if they are compared other than at connect.
    pub resync_interval: Option<Duration>,
    /// Watch only what matches.
    pub label_selector: Option<String>,
    /// How the clusters' API is served, if at all.
    pub proxy: Option<ProxySettings>,
    /// How agents come to be known.
    pub onboarding: OnboardingSettings,
    /// Where Argo CD's view of clusters is kept, if at all.
    pub redis: Option<redis::Access>,
    /// How Argo CD packs what it keeps there.
    pub redis_compression: Compression,
    /// How Argo CD reaches what clusters keep in their Redis, if at all.
    pub redis_proxy: Option<RedisProxy>,
    /// How the page about the fleet is served, if at all.
    pub web: Option<WebSettings>,
    /// Where traces are sent, if any are made.
    pub collector: Option<Collector>,
    /// What to log and how.
    pub logging: Logging,
    /// Lines for the log about options that are accepted without effect, deprecated or insecure.
    pub notices: Vec<String>,
}

/// How connections of agents are protected.
#[derive(Debug, Clone)]
pub enum Transport {
    /// Not at all; a service mesh does it.
    Plaintext,
    /// By TLS.
    Tls {
        /// The principal's own certificate.
        identity: Identity,
        /// The CA that signs agents.
        roots: Roots,
        /// Versions, cipher suites, and whether agents must show a certificate.
        policy: Policy,
    },
}

/// Where the principal's own certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// It is kept somewhere.
    Kept(KeyPair),
    /// It is made at start, signed by itself.
    Generated,
}

/// Where the CA certificate is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// In a PEM file.
    File(PathBuf),
    /// In a Secret, under `tls.crt` or `ca.crt`.
    Secret(String),
}

/// Where the key that signs tokens comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenKey {
    /// From a PEM file.
    File(PathBuf),
    /// From a Secret.
    Secret(String),
    /// It is made at start.
    Generated,
}

impl Options {
    /// Were the cipher suites asked for, instead of a principal?
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

        let logging = problems.absorb(self.logging.check());
        let authentication =
            problems.keep(authentication::parse(self.authentication_rule().as_deref(), &mut notices));
        let transport = problems.absorb(self.tls.check(authentication.as_ref(), &mut notices));
        if let (Some(authentication), plaintext) = (&authentication, self.tls.insecure_plaintext) {
            problems.0.extend(authentication::check_pairing(authentication, plaintext));
        }
        let token_key = problems.keep(self.authentication.token_key(&mut notices));
        let namespace_creation = problems.absorb(self.kubernetes.namespace_creation());
        let embedded = problems.absorb(self.embedded.check(&self.kubernetes));
        let kubernetes = problems.absorb(self.kubernetes.check(self.embedded.is_wanted()));
        let redis = problems.absorb(self.redis.check(self.embedded.is_wanted(), &mut notices));
        let policy = match &transport {
            Some(Transport::Tls { policy, .. }) => policy.clone(),
            Some(Transport::Plaintext) | None => Policy::default(),
        };
        // Without a Redis there is nothing that a proxy could stand before.
        let redis_proxy = match &redis {
            Some(None) => Some(None),
            _ => problems.absorb(self.redis_proxy.check(self.redis.redis_tls_enabled, policy)),
        };
        if self.server.grpc_max_message_size < 4096 {
            problems.add(
                format!(
                    "--grpc-max-message-size {} is too small for any resource",
                    self.server.grpc_max_message_size
                ),
                "give at least 4096; the default is 209715200",
            );
        }
        let redis_proxy_port = redis_proxy.as_ref().and_then(|proxy| Some(proxy.as_ref()?.listen.port));
        problems.0.extend(self.server.check_ports(
            &self.proxy,
            redis_proxy_port,
            self.embedded.port(),
            self.web.web_port,
        ));
        let web = problems.absorb(self.web.check(transport.as_ref()));
        let collector = problems.keep(self.traces.check());
        // What is wrong with the policy has been said of the other port.
        let proxy = problems
            .absorb(self.proxy.check(filled(self.server.listen_host.clone()), self.tls.policy().ok()));

        let has_proxy = !matches!(proxy, Some(None));
        let onboarding = problems.absorb(self.onboarding.check(has_proxy, &self.tls.tls_ca_secret_name));

        let (
            Some(logging),
            Some(authentication),
            Some(transport),
            Some(token_key),
            Some(kubernetes),
            Some(embedded),
            Some(namespace_creation),
            Some(redis),
            Some(proxy),
            Some(redis_proxy),
            Some(onboarding),
            Some(web),
            Some(collector),
            true,
        ) = (
            logging,
            authentication,
            transport,
            token_key,
            kubernetes,
            embedded,
            namespace_creation,
            redis,
            proxy,
            redis_proxy,
            onboarding,
            web,
            collector,
            problems.is_empty(),
        )
        else {
            return Err(problems);
        };
        let (access, namespace, allowed_namespaces) = kubernetes;
        if allowed_namespaces.is_empty() && !self.kubernetes.destination_based_mapping {
            notices.push(
                "--allowed-namespaces names none, so no Application is sent to any agent: name the agents' namespaces, \
                 such as --allowed-namespaces '*'"
                    .to_owned(),
            );
        }
        let port = |port: u16| (port != 0).then(|| Listen::everywhere(port));
        Ok(Settings {
            listen: Listen { host: filled(self.server.listen_host), port: self.server.listen_port },
            metrics: port(self.server.metrics_port),
            health: port(self.server.healthz_port),
            transport,
            authentication,
            match_certificate_subject: self.tls.client_cert_subject_match,
            token_key,
            max_message_size: self.server.grpc_max_message_size as usize,
            connections: self.connections.check(),
            kubernetes: access,
            embedded,
            events: self.events.kubernetes_events,
            namespace,
            allowed_namespaces,
            destination_based_mapping: self.kubernetes.destination_based_mapping,
            namespace_creation,
            resync_interval: Some(self.kubernetes.resync_interval).filter(|interval| !interval.is_zero()),
            label_selector: filled(self.kubernetes.label_selector),
            onboarding,
            redis,
            redis_compression: self.redis.redis_compression_type,
            proxy,
            redis_proxy,
            web,
            collector,
            logging,
            notices,
        })
    }

    fn authentication_rule(&self) -> Option<String> {
        let given = filled(self.authentication.auth.clone());
        given.or_else(|| self.embedded.is_wanted().then(|| embedded::AUTHENTICATION.to_owned()))
    }
}

impl ServerOptions {
    fn check_ports(
        &self,
        proxy: &ProxyOptions,
        redis_proxy_port: Option<u16>,
        embedded_port: Option<u16>,
        web_port: u16,
    ) -> Vec<Problem> {
        let mut ports = vec![
            ("--listen-port", self.listen_port),
            ("--metrics-port", self.metrics_port),
            ("--healthz-port", self.healthz_port),
            ("--redis-proxy-port", redis_proxy_port.unwrap_or_default()),
            ("--embedded-listen-port", embedded_port.unwrap_or_default()),
            ("--web-port", web_port),
        ];
        if proxy.enable_resource_proxy {
            ports.push(("--resource-proxy-listen-port", proxy.resource_proxy_listen_port));
        }
        let mut problems = Vec::new();
        for (index, (name, port)) in ports.iter().enumerate() {
            for (other, _) in ports[..index].iter().filter(|(_, other)| other == port && *port != 0) {
                problems.push(Problem::new(
                    format!("{other} and {name} are both {port}"),
                    "give each its own port",
                ));
            }
        }
        problems
    }
}

impl TlsOptions {
    fn check(
        &self,
        authentication: Option<&AuthRule>,
        notices: &mut Vec<String>,
    ) -> Result<Transport, Problems> {
        let mut problems = Problems::default();
        let policy = problems.absorb(self.policy());
        let identity = problems.absorb(self.identity());
        let roots = problems.keep(match &self.root_ca_path {
            Some(path) => {
                options::check_certificates("--root-ca-path", path).map(|()| Roots::File(path.clone()))
            }
            None => Ok(Roots::Secret(self.tls_ca_secret_name.clone())),
        });
        if self.insecure_plaintext {
            if self.insecure_tls_generate || self.tls_cert.is_some() || self.tls_key.is_some() {
                problems.add(
                    "--insecure-plaintext is set together with options for a certificate",
                    "choose one: leave --insecure-plaintext out to serve TLS, or leave the certificate out",
                );
            }
            if self.require_client_certs || self.client_cert_subject_match {
                problems.add(
                    "--insecure-plaintext is set, so there are no client certificates to require or match",
                    "leave out --require-client-certs and --client-cert-subject-match, or serve TLS",
                );
            }
        }
        let (Some(policy), Some(identity), Some(roots), true) =
            (policy, identity, roots, problems.is_empty())
        else {
            return Err(problems);
        };
        if self.insecure_plaintext {
            notices.push("INSECURE: serving without TLS; a service mesh has to bring it".to_owned());
            return Ok(Transport::Plaintext);
        }
        if identity == Identity::Generated {
            notices.push("INSECURE: serving a generated certificate that agents cannot verify".to_owned());
        }
        let required = self.require_client_certs || matches!(authentication, Some(AuthRule::Mtls { .. }));
        // A certificate that is shown without being required still has to be right, and can be matched.
        let client_certificate =
            if required { ClientCertificate::Required } else { ClientCertificate::Requested };
        Ok(Transport::Tls { identity, roots, policy: Policy { client_certificate, ..policy } })
    }

    fn policy(&self) -> Result<Policy, Problems> {
        options::policy(
            Some(&self.tls_min_version),
            self.tls_max_version.as_deref(),
            &self.tls_ciphersuites,
            Version::Tls13,
        )
    }

    fn identity(&self) -> Result<Identity, Problems> {
        match (&self.tls_cert, &self.tls_key, self.insecure_tls_generate) {
            (Some(_), _, true) | (_, Some(_), true) => Err(Problem::new(
                "--insecure-tls-generate is set together with --tls-cert or --tls-key",
                "choose one: a certificate from files, or a generated one for a trial",
            )
            .into()),
            (None, None, true) => Ok(Identity::Generated),
            (Some(certificate), Some(key), false) => {
                options::check_key_pair(("--tls-cert", certificate), ("--tls-key", key)).map(|()| {
                    Identity::Kept(KeyPair::Files { certificate: certificate.clone(), key: key.clone() })
                })
            }
            (None, None, false) => Ok(Identity::Kept(KeyPair::Secret(self.tls_secret_name.clone()))),
            (Some(_), None, false) => Err(half("--tls-cert", "--tls-key", &self.tls_secret_name)),
            (None, Some(_), false) => Err(half("--tls-key", "--tls-cert", &self.tls_secret_name)),
        }
    }
}

fn half(given: &str, missing: &str, secret: &str) -> Problems {
    Problem::new(
        format!("{given} is set, but {missing} is not"),
        format!("set both, or neither to use the Secret {secret}"),
    )
    .into()
}

impl AuthenticationOptions {
    fn token_key(&self, notices: &mut Vec<String>) -> Result<TokenKey, Problem> {
        match (&self.jwt_key, self.insecure_jwt_generate) {
            (Some(_), true) => Err(Problem::new(
                "--jwt-key and --insecure-jwt-generate are both set",
                "choose one: a key that is kept, or a generated one for a trial",
            )),
            (Some(path), false) => {
                options::check_private_key("--jwt-key", path).map(|()| TokenKey::File(path.clone()))
            }
            (None, true) => {
                notices.push(
                    "INSECURE: signing tokens with a generated key; it is lost at every restart".to_owned(),
                );
                Ok(TokenKey::Generated)
            }
            (None, false) => Ok(TokenKey::Secret(self.jwt_secret_name.clone())),
        }
    }
}

impl KubernetesOptions {
    fn namespace_creation(&self) -> Result<Option<NamespaceCreation>, Problems> {
        let mut problems = Problems::default();
        let pattern = filled(self.namespace_create_pattern.clone()).and_then(|pattern| {
            let pattern = NamePattern::new(&format!("/{pattern}/"));
            problems.keep(pattern.map_err(|invalid| ("--namespace-create-pattern", invalid).into()))
        });
        let mut labels = BTreeMap::new();
        for text in self.namespace_create_labels.iter().filter(|text| !text.is_empty()) {
            match text.split_once('=') {
                Some((key, value)) if options::check_label_selector(text).is_ok() && !value.is_empty() => {
                    labels.insert(key.to_owned(), value.to_owned());
                }
                _ => problems.add(
                    format!("--namespace-create-labels: {text:?} is not a label"),
                    "write key=value, such as team=edge",
                ),
            }
        }
        if problems.is_empty() {
            Ok(self.namespace_create_enable.then_some(NamespaceCreation { pattern, labels }))
        } else {
            Err(problems)
        }
    }

    fn check(&self, is_embedded: bool) -> Result<(Access, String, Vec<NamePattern>), Problems> {
        let mut problems = Problems::default();
        let access =
            Access { kubeconfig: self.kubeconfig.clone(), context: filled(self.kubecontext.clone()) };
        let default_namespace = match is_embedded {
            true => Some(Some(embedded::NAMESPACE.to_owned())),
            false => problems.keep(options::check_access(&access)),
        };
        let namespace = match (filled(self.namespace.clone()), default_namespace) {
            (Some(namespace), _) => options::namespace_name("--namespace", &namespace).map(|()| namespace),
            (None, Some(Some(namespace))) => Ok(namespace),
            (None, _) => Err(Problem::new(
                "--namespace is missing, and neither the pod nor the kubeconfig context names one",
                "give the namespace of Argo CD, such as --namespace argocd",
            )),
        };
        let namespace = problems.keep(namespace);
        let mut allowed = Vec::new();
        let everything = (is_embedded && self.allowed_namespaces.iter().all(String::is_empty))
            .then(|| embedded::ALLOWED_NAMESPACES.to_owned());
        for text in everything.iter().chain(&self.allowed_namespaces) {
            allowed
                .extend(problems.keep(
                    NamePattern::new(text).map_err(|invalid| ("--allowed-namespaces", invalid).into()),
                ));
        }
        if let Some(selector) = self.label_selector.as_deref().filter(|selector| !selector.is_empty()) {
            problems.keep(
                options::check_label_selector(selector)
                    .map_err(|invalid| ("--label-selector", invalid).into()),
            );
        }
        match namespace {
            Some(namespace) if problems.is_empty() => Ok((access, namespace, allowed)),
            _ => Err(problems),
        }
    }
}

/// Where Redis is in a cluster with Argo CD, and nowhere else.
const REDIS: &str = "argocd-redis:6379";

impl RedisOptions {
    fn check(&self, is_embedded: bool, notices: &mut Vec<String>) -> Result<Option<redis::Access>, Problems> {
        let none_given = is_embedded && self.redis_server_address == REDIS;
        let address = if none_given { "" } else { self.redis_server_address.as_str() };
        let access = options::RedisOptions {
            address: ("--redis-server-address", address),
            username: None,
            password: self.redis_password.as_deref(),
            folder: self.redis_creds_dir_path.as_deref(),
            tls: self.redis_tls_enabled,
            insecure: self.redis_tls_insecure,
            ca_path: ("--redis-ca-path", self.redis_ca_path.as_deref()),
            ca_secret: &self.redis_ca_secret_name,
        }
        .check()?;
        if access.as_ref().is_some_and(|access| access.trust == Some(redis::Trust::Unverified)) {
            notices.push("INSECURE: not verifying the certificate of redis".to_owned());
        }
        Ok(access)
    }
}

impl LoggingOptions {
    fn check(&self) -> Result<Logging, Problems> {
        let levels = LogLevels::new(self.log_level.iter().map(String::as_str)).map_err(|invalid| {
            Problems(invalid.into_iter().map(|invalid| ("--log-level", invalid).into()).collect())
        })?;
        Ok(Logging { format: self.log_format, levels })
    }
}

fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
