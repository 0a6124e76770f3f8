//! Figures about the agent, under the names that the Go project gives them; what it does not have is called `tiphys_`.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts,
};
use tiphys_shared::kube::client::RequestMetrics;
use tiphys_shared::kube::{material, recorder};
use tiphys_shared::model::{Event, Kind, Mode};
use tiphys_shared::process::clock;
use tiphys_shared::process::metrics::{
    Catalogue, Description, Error, Fresh, LAG, Register, expiry, register,
};
use tiphys_shared::wire::pump::SharedOutbox;

use crate::renewal;

/// The commit that this was built from, if whoever built it has said so.
const GIT_REVISION: &str = match option_env!("TIPHYS_GIT_REVISION") {
    Some(revision) => revision,
    None => "",
};

/// Every metric of an agent, by name.
///
/// # Errors
/// [`Error`] if one cannot be made.
pub fn describe() -> Result<Vec<Description>, Error> {
    let catalogue = Catalogue::default();
    Metrics::new(&catalogue, &Arc::default())?;
    expiry(&catalogue, Vec::new())?;
    RequestMetrics::new(&catalogue)?;
    material::describe(&catalogue)?;
    recorder::describe(&catalogue)?;
    renewal::outcomes(&catalogue)?;
    Ok(catalogue.into_descriptions())
}

/// The agent's metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) connection_status: IntGauge,
    pub(crate) connection_start: Gauge,
    pub(crate) connections: IntCounter,
    pub(crate) auth_failures: IntCounter,
    pub(crate) connection_failures: IntCounterVec,
    pub(crate) reverted: IntCounterVec,
    discarded: IntCounterVec,
    lag: Histogram,
    list_duration: GaugeVec,
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
    /// Registers everything in `registry`, with figures of what waits in `outbox`.
    pub(crate) fn new(registry: &impl Register, outbox: &Arc<SharedOutbox>) -> Result<Self, Error> {
        register_outbox(registry, outbox)?;
        let counter = |name: &str, help: &str| register(registry, IntCounter::new(name, help)?);
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let info = register(
            registry,
            IntGaugeVec::new(
                Opts::new("argocd_agent_build_info", "Which version runs, always 1"),
                &["version", "git_revision"],
            )?,
        )?;
        info.with_label_values(&[env!("CARGO_PKG_VERSION"), GIT_REVISION]).set(1);
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
            auth_failures: counter(
                "argocd_agent_auth_failures_total",
                "Number of times that the principal refused this agent",
            )?,
            connection_failures: counters(
                "tiphys_agent_connection_failures_total",
                "Number of times that a connection to the principal failed or ended, by cause",
                &["cause"],
            )?,
            reverted: counters(
                "tiphys_agent_reverted_total",
                "Number of changes and deletions that others made here and that were undone",
                &["resource_type"],
            )?,
            discarded: counters(
                "argocd_agent_event_writer_events_discarded_total",
                "Number of events that are not sent again because the principal has refused them; what it has not heard is \
                 never given up",
                &["event_type", "resource_type"],
            )?,
            lag: register(
                registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "tiphys_agent_lag_seconds",
                        "Seconds from a change in this cluster, as this process saw it, to the principal's acknowledgement that \
                         it is taken in",
                    )
                    .buckets(LAG.to_vec()),
                )?,
            )?,
            list_duration: register(
                registry,
                GaugeVec::new(
                    Opts::new(
                        "argocd_agent_informer_list_duration",
                        "Seconds that the first list of the resources of a kind took",
                    ),
                    &["resource_type"],
                )?,
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

    /// Notes that the principal has acknowledged a change so long after it was made, and if it refused it, of what type the
    /// event was and of what kind the resource.
    pub(crate) fn acknowledged(&self, lag: Duration, refused: Option<(&str, Kind)>) {
        self.lag.observe(lag.as_secs_f64());
        if let Some((event, kind)) = refused {
            self.discarded.with_label_values(&[event, kind.target().label()]).inc();
        }
    }

    /// Notes how long the first list of a kind took.
    pub(crate) fn list_took(&self, kind: Kind, took: Duration) {
        self.list_duration.with_label_values(&[kind.target().label()]).set(took.as_secs_f64());
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
        if status == "failure" {
            self.errors.with_label_values(&[target]).inc();
        }
    }
}

fn register_outbox(registry: &impl Register, outbox: &Arc<SharedOutbox>) -> Result<(), Error> {
    let gauge = |name: &str, help: &str| GaugeVec::new(Opts::new(name, help), &[]);
    let gauges = [
        gauge(
            "tiphys_agent_outbox_entries",
            "Number of resources and requests that the principal has yet to acknowledge",
        )?,
        gauge(
            "tiphys_agent_outbox_oldest_seconds",
            "Age of the oldest change that the principal has yet to acknowledge, in seconds; 0 if there is none",
        )?,
    ];
    let outbox = Arc::clone(outbox);
    Fresh::register(registry, gauges, move |gauges| {
        let [entries, oldest] = gauges else { return };
        let none: &[&str] = &[];
        entries.with_label_values(none).set(outbox.read(|outbox| outbox.len()) as f64);
        oldest.with_label_values(none).set(outbox.behind().as_secs_f64());
    })
}
