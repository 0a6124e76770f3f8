//! What the agent can be told: upstream's flags, environment variables and defaults.

use std::time::Duration;

use clap::Args;
use tiphys_shared::kube::client::Access;
use tiphys_shared::model::agent::Mode;
use tiphys_shared::process::options::{
    Collector, ConfigFile, HostPort, Listen, Logging, NamePattern, Problems,
};
use tiphys_shared::protocol::ownership::Policy;
use tiphys_shared::security::passwords::Credentials;
use tiphys_shared::wire::transport::proxy::Proxy;

mod applications;
mod compatibility;
mod connection;
mod events;
mod kubernetes;
mod process;
mod profiles;
pub(crate) mod proxy;
mod redis;
mod tls;
mod traces;
mod transport;

use applications::{ApplicationOptions, OnRecreate};
use compatibility::Compatibility;
use connection::ConnectionOptions;
use events::EventOptions;
use kubernetes::KubernetesOptions;
use process::ProcessOptions;
use profiles::ProfileOptions;
use proxy::ProxyOptions;
pub use proxy::{PolicySource, ProxySettings};
use redis::RedisOptions;
use tls::TlsOptions;
pub use tls::{Roots, Transport};
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
    profiles: ProfileOptions,
    #[command(flatten)]
    traces: TraceOptions,
    #[command(flatten)]
    compatibility: Compatibility,
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
    pub redis: Option<tiphys_shared::redis::Access>,
    /// Time between two looks there.
    pub cache_refresh_interval: Duration,
    /// Where profiles are served, if at all.
    pub profiles: Option<Listen>,
    /// Where traces are sent, if any are made.
    pub collector: Option<Collector>,
    /// What to log and how.
    pub logging: Logging,
    /// Lines for the log about options that are accepted without effect, deprecated or insecure.
    pub notices: Vec<String>,
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

        let logging = problems.absorb(self.process.check(self.profiles.pprof_port));
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
            metrics: Listen::unless_off(self.process.metrics_port),
            health: Listen::unless_off(self.process.healthz_port),
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
            profiles: Listen::loopback_unless_off(self.profiles.pprof_port),
            collector,
            logging,
            notices,
        })
    }
}

fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
