//! Figures about the principal, under the names that the Go project gives them.

use std::time::Duration;

use prometheus::{
    CounterVec, Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};
use tiphys_shared::model::{AgentName, Kind, Target};
use tiphys_shared::process::metrics::{Error, register};

/// The principal's metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) connected_agents: IntGauge,
    pub(crate) average_connection_time: Gauge,
    pub(crate) agent_connections: CounterVec,
    pub(crate) events_received: IntCounterVec,
    pub(crate) events_sent: IntCounterVec,
    pub(crate) errors: IntCounterVec,
    pub(crate) proxy_requests: IntCounterVec,
    pub(crate) proxy_errors: IntCounterVec,
    pub(crate) send_errors: IntCounterVec,
    pub(crate) handshake_failures: IntCounterVec,
    pub(crate) enrolments: IntCounterVec,
    pub(crate) redis_proxy_requests: IntCounterVec,
    pub(crate) redis_proxy_errors: IntCounterVec,
    pub(crate) redis_proxy_refused: IntCounterVec,
    pub(crate) redis_proxy_channels: IntGauge,
    pub(crate) redis_proxy_listening: IntGauge,
    pub(crate) resync_rounds: IntCounter,
    pub(crate) resync_repaired: IntCounter,
    processing_time: HistogramVec,
    applications: Lifecycle,
    projects: Lifecycle,
    repositories: Lifecycle,
    gpg_keys: IntGauge,
}

/// What happened to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Created,
    Updated,
    Deleted,
}

#[derive(Debug)]
struct Lifecycle {
    created: IntCounter,
    updated: IntCounter,
    deleted: IntCounter,
}

impl Metrics {
    /// Registers everything in `registry`.
    pub(crate) fn new(registry: &Registry) -> Result<Self, Error> {
        let lifecycle = |resource: &str| -> Result<Lifecycle, Error> {
            let counter = |verb: &str| {
                register(
                    registry,
                    IntCounter::new(
                        format!("principal_{resource}_{verb}"),
                        format!("Number of {resource} of agents {verb} at the control plane"),
                    )?,
                )
            };
            Ok(Lifecycle {
                created: counter("created")?,
                updated: counter("updated")?,
                deleted: counter("deleted")?,
            })
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        Ok(Self {
            connected_agents: register(
                registry,
                IntGauge::new("argocd_principal_connected_agents", "Number of agents with an open stream")?,
            )?,
            average_connection_time: register(
                registry,
                Gauge::new(
                    "principal_agent_avg_connection_time",
                    "Average time in minutes for which the connected agents have been connected",
                )?,
            )?,
            agent_connections: register(
                registry,
                CounterVec::new(
                    Opts::new(
                        "argocd_principal_agent_connections_total",
                        "Number of streams that an agent opened",
                    ),
                    &["agent_name"],
                )?,
            )?,
            events_received: counters(
                "principal_events_received",
                "Number of events received",
                &["agent_name"],
            )?,
            events_sent: counters("principal_events_sent", "Number of events sent", &["agent_name"])?,
            errors: counters(
                "principal_errors",
                "Number of events that could not be handled",
                &["resource_type"],
            )?,
            proxy_requests: counters(
                "argocd_principal_resource_proxy_requests_total",
                "Number of requests to the api of an agent's cluster",
                &["agent_name"],
            )?,
            proxy_errors: counters(
                "argocd_principal_resource_proxy_errors_total",
                "Number of them that were refused or could not be passed on; the agent is empty where none was proven",
                &["agent_name", "reason"],
            )?,
            send_errors: counters(
                "principal_event_writer_send_errors_total",
                "Number of streams that ended while they were written to",
                &["agent_name", "reason"],
            )?,
            resync_rounds: register(
                registry,
                IntCounter::new(
                    "tiphys_principal_resync_rounds_total",
                    "Number of comparisons of what is held here that were begun with agents",
                )?,
            )?,
            resync_repaired: register(
                registry,
                IntCounter::new(
                    "tiphys_principal_resync_repaired_total",
                    "Number of resources that a comparison found to differ at an agent, and that were sent again",
                )?,
            )?,
            gpg_keys: register(
                registry,
                IntGauge::new(
                    "argocd_principal_gpg_keys_count",
                    "Number of GPG keys that agents are given to check commits by",
                )?,
            )?,
            handshake_failures: counters(
                "tiphys_principal_handshake_failures_total",
                "Number of connections that failed before an RPC, by cause",
                &["cause"],
            )?,
            enrolments: counters(
                "tiphys_principal_enrolments_total",
                "Number of requests for a certificate, first ones (join) and later ones (renewal), by outcome",
                &["kind", "outcome"],
            )?,
            redis_proxy_requests: counters(
                "argocd_principal_redis_proxy_requests_total",
                "Number of commands for Redis that were passed to agents",
                &["agent_name", "command"],
            )?,
            redis_proxy_errors: counters(
                "argocd_principal_redis_proxy_errors_total",
                "Number of commands for Redis to which an agent gave no answer",
                &["agent_name", "command"],
            )?,
            redis_proxy_refused: counters(
                "tiphys_principal_redis_proxy_refused_total",
                "Number of connections and subscriptions that the Redis proxy refused or closed, by cause",
                &["cause"],
            )?,
            redis_proxy_channels: register(
                registry,
                IntGauge::new(
                    "tiphys_principal_redis_proxy_channels",
                    "Number of channels about Applications that are followed by way of the Redis proxy",
                )?,
            )?,
            redis_proxy_listening: register(
                registry,
                IntGauge::new(
                    "tiphys_principal_redis_proxy_channels_listening",
                    "Number of these channels to which an agent listens",
                )?,
            )?,
            processing_time: register(
                registry,
                HistogramVec::new(
                    HistogramOpts::new(
                        "principal_event_processing_time",
                        "Seconds that handling an event took",
                    ),
                    &["status", "agent_name", "resource_type"],
                )?,
            )?,
            applications: lifecycle("applications")?,
            projects: lifecycle("app_projects")?,
            repositories: lifecycle("repositories")?,
        })
    }

    /// Counts a resource that was created, updated or deleted.
    pub(crate) fn count(&self, kind: Kind, verb: Verb) {
        let lifecycle = match kind {
            Kind::Application => &self.applications,
            Kind::AppProject => &self.projects,
            Kind::Repository => &self.repositories,
            Kind::GpgKey => return,
        };
        match verb {
            Verb::Created => lifecycle.created.inc(),
            Verb::Updated => lifecycle.updated.inc(),
            Verb::Deleted => lifecycle.deleted.inc(),
        }
    }

    /// Takes note of how many GPG keys there are.
    pub(crate) fn gpg_keys(&self, number: usize) {
        self.gpg_keys.set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// Notes how long an event took, and what became of it.
    pub(crate) fn processed(&self, status: &str, agent: &AgentName, target: &Target, took: Duration) {
        self.processing_time
            .with_label_values(&[status, agent.as_str(), target.label()])
            .observe(took.as_secs_f64());
        if status == "fail" {
            self.errors.with_label_values(&[target.label()]).inc();
        }
    }
}
