//! What the principal can be told: upstream's flags, environment variables and defaults.

use std::time::Duration;

use clap::Args;
use tiphys_shared::kube::client::Access;
use tiphys_shared::kube::reconciler::NamespaceCreation;
use tiphys_shared::model::cluster::Compression;
use tiphys_shared::process::options::{
    Collector, ConfigFile, Listen, Logging, NamePattern, Problems, check_message_size,
};
use tiphys_shared::security::subject::AuthRule;
use tiphys_shared::security::tls::Policy;

mod authentication;
mod compatibility;
mod connections;
mod embedded;
mod events;
mod kubernetes;
mod logging;
mod onboarding;
mod profiles;
mod proxy;
mod redis;
mod redis_proxy;
mod server;
mod tls;
mod traces;
mod web;

use crate::Connections;
use authentication::AuthenticationOptions;
pub use authentication::TokenKey;
use compatibility::Compatibility;
use connections::ConnectionOptions;
use embedded::EmbeddedOptions;
pub use embedded::EmbeddedSettings;
use events::EventOptions;
use kubernetes::KubernetesOptions;
use logging::LoggingOptions;
use onboarding::OnboardingOptions;
pub use onboarding::OnboardingSettings;
use profiles::ProfileOptions;
use proxy::ProxyOptions;
pub use proxy::ProxySettings;
use redis::RedisOptions;
pub use redis_proxy::RedisProxy;
use redis_proxy::RedisProxyOptions;
use server::ServerOptions;
use tls::TlsOptions;
pub use tls::{Identity, Roots, Transport};
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
    profiles: ProfileOptions,
    #[command(flatten)]
    traces: TraceOptions,
    #[command(flatten)]
    logging: LoggingOptions,
    #[command(flatten)]
    compatibility: Compatibility,
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
    pub redis: Option<tiphys_shared::redis::Access>,
    /// How Argo CD packs what it keeps there.
    pub redis_compression: Compression,
    /// How Argo CD reaches what clusters keep in their Redis, if at all.
    pub redis_proxy: Option<RedisProxy>,
    /// How the page about the fleet is served, if at all.
    pub web: Option<WebSettings>,
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
        problems.0.extend(check_message_size(self.server.grpc_max_message_size).err());
        let redis_proxy_port = redis_proxy.as_ref().and_then(|proxy| Some(proxy.as_ref()?.listen.port));
        problems.0.extend(self.server.check_ports(
            &self.proxy,
            redis_proxy_port,
            self.embedded.port(),
            self.web.web_port,
            self.profiles.pprof_port,
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
        Ok(Settings {
            listen: Listen { host: filled(self.server.listen_host), port: self.server.listen_port },
            metrics: Listen::unless_off(self.server.metrics_port),
            health: Listen::unless_off(self.server.healthz_port),
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
            profiles: Listen::loopback_unless_off(self.profiles.pprof_port),
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

fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
