//! Figures about the agent, under the names that the Go project gives them.

use std::time::Duration;

use prometheus::{
    Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use tiphys_shared::model::{Event, Kind, Mode};
use tiphys_shared::process::clock;
use tiphys_shared::process::metrics::{Error, register};

/// The agent's metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) connection_status: IntGauge,
    pub(crate) connection_start: Gauge,
    pub(crate) connections: IntCounter,
    pub(crate) auth_failures: IntCounterVec,
    pub(crate) events_sent: IntCounter,
    pub(crate) errors: IntCounterVec,
    pub(crate) resync_rounds: IntCounter,
    pub(crate) resync_repaired: IntCounter,
    pub(crate) proxy_requests: IntCounter,
    pub(crate) proxy_errors: IntCounter,
    pub(crate) redis_proxy_requests: IntCounterVec,
    pub(crate) redis_proxy_errors: IntCounterVec,
    pub(crate) redis_proxy_subscriptions: IntGauge,
    events_received: IntCounter,
    processing_time: HistogramVec,
    propagation_latency: HistogramVec,
    listed: IntGaugeVec,
}

impl Metrics {
    /// Registers everything in `registry`.
    pub(crate) fn new(registry: &Registry) -> Result<Self, Error> {
        let counter = |name: &str, help: &str| register(registry, IntCounter::new(name, help)?);
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let info = register(
            registry,
            IntGaugeVec::new(
                Opts::new("argocd_agent_build_info", "Which version runs, always 1"),
                &["version"],
            )?,
        )?;
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self {
            connection_status: register(
                registry,
                IntGauge::new(
                    "argocd_agent_connection_status",
                    "1 while the stream to the principal is open, else 0",
                )?,
            )?,
            connection_start: register(
                registry,
                Gauge::new(
                    "argocd_agent_connection_start_timestamp_seconds",
                    "When the open stream was opened, in seconds since 1970; 0 while there is none",
                )?,
            )?,
            connections: counter(
                "argocd_agent_connections_total",
                "Number of streams opened to the principal",
            )?,
            auth_failures: counters(
                "argocd_agent_auth_failures_total",
                "Number of times that the principal refused this agent, by grpc code",
                &["reason"],
            )?,
            events_sent: counter("agent_events_sent", "Number of events sent to the principal")?,
            errors: counters(
                "agent_errors",
                "Number of events that could not be handled",
                &["resource_type"],
            )?,
            resync_rounds: counter(
                "tiphys_agent_resync_rounds_total",
                "Number of comparisons of what is held here that were begun with the principal",
            )?,
            resync_repaired: counter(
                "tiphys_agent_resync_repaired_total",
                "Number of resources that a comparison found to differ at the principal, and that were sent again",
            )?,
            proxy_requests: counter(
                "argocd_agent_resource_proxy_requests_total",
                "Number of requests to this cluster's api that came from the principal",
            )?,
            proxy_errors: counter(
                "argocd_agent_resource_proxy_errors_total",
                "Number of them that the agent refused, or could not pass on",
            )?,
            redis_proxy_requests: counters(
                "argocd_agent_redis_proxy_requests_total",
                "Number of commands for this cluster's Redis that the principal passed on",
                &["command"],
            )?,
            redis_proxy_errors: counters(
                "argocd_agent_redis_proxy_errors_total",
                "Number of these commands that were not carried out",
                &["command"],
            )?,
            redis_proxy_subscriptions: register(
                registry,
                IntGauge::new(
                    "tiphys_agent_redis_proxy_subscriptions",
                    "Number of subscriptions of the principal to this cluster's Redis",
                )?,
            )?,
            events_received: counter(
                "agent_events_received",
                "Number of events received from the principal",
            )?,
            processing_time: register(
                registry,
                HistogramVec::new(
                    HistogramOpts::new("agent_event_processing_time", "Seconds that handling an event took"),
                    &["status", "agent_mode", "resource_type"],
                )?,
            )?,
            propagation_latency: register(
                registry,
                HistogramVec::new(
                    HistogramOpts::new(
                        "agent_event_propagation_latency_seconds",
                        "Seconds from the principal's sending an event to its arrival here",
                    ),
                    &["resource_type"],
                )?,
            )?,
            listed: register(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "argocd_agent_informer_list_num_resources",
                        "Number of resources that are watched, by kind",
                    ),
                    &["resource_type"],
                )?,
            )?,
        })
    }

    /// Notes the number of resources of a kind.
    pub(crate) fn listed(&self, kind: Kind, number: usize) {
        self.listed
            .with_label_values(&[kind.target().as_str()])
            .set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// Notes an event that arrived.
    pub(crate) fn received(&self, event: &Event) {
        self.events_received.inc();
        if let Some(sent) = event.sent_at {
            let latency = clock::now().duration_since(sent).as_secs_f64().max(0.0);
            self.propagation_latency.with_label_values(&[event.target.label()]).observe(latency);
        }
    }

    /// Notes how long an event took, and what became of it.
    pub(crate) fn processed(&self, status: &str, mode: Mode, event: &Event, took: Duration) {
        let target = event.target.label();
        self.processing_time.with_label_values(&[status, mode.as_str(), target]).observe(took.as_secs_f64());
        if status == "fail" {
            self.errors.with_label_values(&[target]).inc();
        }
    }
}
