//! Figures about the principal, under the names that the Go project gives them; what it does not have is called `tiphys_`.

mod fleet;
mod resources;

use std::sync::Arc;
use std::time::Duration;

use prometheus::{
    CounterVec, Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
};
use tiphys_shared::kube::client::RequestMetrics;
use tiphys_shared::kube::{material, recorder};
use tiphys_shared::model::{AgentName, Kind, Target};
use tiphys_shared::process::metrics::{
    Catalogue, Description, Error, LAG, Register, expiry, forget, register,
};

pub(crate) use self::fleet::is_gone;
use self::resources::Resources;
pub(crate) use self::resources::Verb;
use crate::agents::Agents;
use crate::blocklist;

/// How long a request to a cluster's API may take until its answer begins, in seconds.
const ANSWERS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 70.0];
const AGENT: &str = "agent_name";
/// The commit that this was built from, if whoever built it has said so.
const GIT_REVISION: &str = match option_env!("TIPHYS_GIT_REVISION") {
    Some(revision) => revision,
    None => "",
};

/// Every metric of a principal, by name.
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
    blocklist::describe(&catalogue)?;
    Ok(catalogue.into_descriptions())
}

/// The principal's metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) connected_agents: IntGauge,
    pub(crate) average_connection_time: Gauge,
    pub(crate) agent_connections: CounterVec,
    events_received: IntCounter,
    events_sent: IntCounter,
    agent_events_received: IntCounterVec,
    agent_events_sent: IntCounterVec,
    discarded: IntCounterVec,
    lag: HistogramVec,
    pub(crate) errors: IntCounterVec,
    pub(crate) proxy_requests: IntCounterVec,
    pub(crate) proxy_errors: IntCounterVec,
    pub(crate) send_errors: IntCounterVec,
    pub(crate) handshake_failures: IntCounterVec,
    pub(crate) enrolments: IntCounterVec,
    pub(crate) authentication_failures: IntCounterVec,
    proxy_duration: HistogramVec,
    pub(crate) redis_proxy_requests: IntCounterVec,
    pub(crate) redis_proxy_errors: IntCounterVec,
    pub(crate) redis_proxy_refused: IntCounterVec,
    pub(crate) redis_proxy_channels: IntGauge,
    pub(crate) redis_proxy_listening: IntGauge,
    resync_rounds: IntCounterVec,
    resync_repaired: IntCounterVec,
    processing_time: HistogramVec,
    resources: Resources,
}

impl Metrics {
    /// Registers everything in `registry`, with figures of each of `agents`.
    pub(crate) fn new(registry: &impl Register, agents: &Arc<Agents>) -> Result<Self, Error> {
        fleet::register(registry, agents)?;
        build_info(registry)?;
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let histograms = |name: &str, help: &str, limits: &[f64], labels: &[&str]| {
            let options = HistogramOpts::new(name, help).buckets(limits.to_vec());
            register(registry, HistogramVec::new(options, labels)?)
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
            events_received: register(
                registry,
                IntCounter::new("principal_events_received", "Number of events received")?,
            )?,
            events_sent: register(
                registry,
                IntCounter::new("principal_events_sent", "Number of events sent")?,
            )?,
            agent_events_received: counters(
                "tiphys_principal_agent_events_received_total",
                "Number of events received, by agent",
                &[AGENT],
            )?,
            agent_events_sent: counters(
                "tiphys_principal_agent_events_sent_total",
                "Number of events sent, by agent",
                &[AGENT],
            )?,
            discarded: counters(
                "argocd_principal_event_writer_events_discarded_total",
                "Number of events that are not sent again because the agent has refused them; what it has not heard is never \
                 given up",
                &[AGENT, "event_type", "resource_type"],
            )?,
            lag: histograms(
                "tiphys_principal_agent_lag_seconds",
                "Seconds from a change at the control plane, as this process saw it, to the agent's acknowledgement that it is \
                 carried out",
                LAG,
                &[AGENT],
            )?,
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
            resync_rounds: counters(
                "tiphys_principal_resync_rounds_total",
                "Number of comparisons of what is held here that were begun with an agent",
                &[AGENT],
            )?,
            resync_repaired: counters(
                "tiphys_principal_resync_repaired_total",
                "Number of resources that a comparison found to differ at an agent, and that were sent again",
                &[AGENT],
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
            authentication_failures: counters(
                "tiphys_principal_authentication_failures_total",
                "Number of agents that were refused when they authenticated, by cause",
                &["cause"],
            )?,
            proxy_duration: histograms(
                "tiphys_principal_resource_proxy_request_duration_seconds",
                "Seconds from a request to the api of an agent's cluster to the beginning of its answer, by class of the answer",
                ANSWERS,
                &["code"],
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
            resources: Resources::new(registry)?,
        })
    }

    /// Counts a resource that was created, updated or deleted.
    pub(crate) fn count(&self, kind: Kind, verb: Verb) {
        self.resources.count(kind, verb);
    }

    /// Takes note of how many GPG keys there are.
    pub(crate) fn gpg_keys(&self, number: usize) {
        self.resources.gpg_keys(number);
    }

    /// Notes how long an event took, and what became of it.
    pub(crate) fn processed(&self, status: &str, agent: &AgentName, target: &Target, took: Duration) {
        self.processing_time
            .with_label_values(&[status, agent.as_str(), target.label()])
            .observe(took.as_secs_f64());
        if status == "failure" {
            self.errors.with_label_values(&[target.label()]).inc();
        }
    }

    /// Notes an event that was sent to an agent.
    pub(crate) fn sent(&self, agent: &AgentName) {
        self.events_sent.inc();
        self.agent_events_sent.with_label_values(&[agent.as_str()]).inc();
    }

    /// Notes an event that an agent has sent.
    pub(crate) fn received(&self, agent: &AgentName) {
        self.events_received.inc();
        self.agent_events_received.with_label_values(&[agent.as_str()]).inc();
    }

    /// Notes that an agent has acknowledged a change so long after it was made.
    pub(crate) fn acknowledged(&self, agent: &AgentName, lag: Duration) {
        self.lag.with_label_values(&[agent.as_str()]).observe(lag.as_secs_f64());
    }

    /// Notes that an agent has refused an event of a type about a kind of resource.
    pub(crate) fn refused(&self, agent: &AgentName, event: &str, kind: Kind) {
        self.discarded.with_label_values(&[agent.as_str(), event, kind.target().label()]).inc();
    }

    /// Notes that a comparison with an agent begins.
    pub(crate) fn compares(&self, agent: &AgentName) {
        self.resync_rounds.with_label_values(&[agent.as_str()]).inc();
    }

    /// Notes that a comparison has found something that differs at an agent.
    pub(crate) fn repairs(&self, agent: &AgentName) {
        self.resync_repaired.with_label_values(&[agent.as_str()]).inc();
    }

    /// How much comparisons have found that differed at an agent.
    pub(crate) fn repaired(&self, agent: &AgentName) -> u64 {
        self.resync_repaired.with_label_values(&[agent.as_str()]).get()
    }

    /// Notes how long a client of the resource proxy has waited for an answer to begin.
    pub(crate) fn answered(&self, status: http::StatusCode, took: Duration) {
        let class = match status.as_u16() {
            100..=199 => "1xx",
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        self.proxy_duration.with_label_values(&[class]).observe(took.as_secs_f64());
    }

    /// Drops the series of an agent that is gone for good.
    pub(crate) fn forget(&self, agent: &AgentName) {
        for counters in [
            &self.agent_events_received,
            &self.agent_events_sent,
            &self.discarded,
            &self.proxy_requests,
            &self.proxy_errors,
            &self.send_errors,
            &self.resync_rounds,
            &self.resync_repaired,
            &self.redis_proxy_requests,
            &self.redis_proxy_errors,
        ] {
            forget(counters, AGENT, agent.as_str());
        }
        forget(&self.agent_connections, AGENT, agent.as_str());
        forget(&self.lag, AGENT, agent.as_str());
        forget(&self.processing_time, AGENT, agent.as_str());
    }
}

fn build_info(registry: &impl Register) -> Result<(), Error> {
    let options = Opts::new("argocd_agent_build_info", "Which version runs, always 1");
    let info = register(registry, IntGaugeVec::new(options, &["version", "git_revision"])?)?;
    info.with_label_values(&[env!("CARGO_PKG_VERSION"), GIT_REVISION]).set(1);
    Ok(())
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;
    use tiphys_shared::process::metrics::render;

    use super::*;

    #[test]
    fn an_agent_that_is_forgotten_leaves_no_series_and_others_keep_theirs() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry, &Arc::default()).unwrap();
        for name in ["gone", "here"] {
            let agent = AgentName::new(name).unwrap();
            metrics.sent(&agent);
            metrics.received(&agent);
            metrics.acknowledged(&agent, Duration::from_secs(1));
            metrics.refused(&agent, "update", Kind::Application);
            metrics.repairs(&agent);
            metrics.compares(&agent);
            metrics.processed("success", &agent, &Target::Application, Duration::ZERO);
            for counters in [&metrics.proxy_errors, &metrics.send_errors, &metrics.redis_proxy_requests] {
                counters.with_label_values(&[name, "x"]).inc();
            }
            metrics.proxy_requests.with_label_values(&[name]).inc();
            metrics.agent_connections.with_label_values(&[name]).inc();
        }
        metrics.forget(&AgentName::new("gone").unwrap());
        let text = render(&registry).unwrap();
        assert!(!text.contains("\"gone\""), "{text}");
        assert!(text.matches("agent_name=\"here\"").count() > 10, "{text}");
        assert!(text.contains("principal_events_sent 2\n"), "{text}");
    }
}
