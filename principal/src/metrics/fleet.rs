//! Figures of each agent, made when they are read.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use prometheus::{GaugeVec, Opts};
use tiphys_shared::process::clock;
use tiphys_shared::process::metrics::{Error, Fresh, Register};

use super::AGENT;
use crate::agents::{AgentStatus, Agents};

/// An agent that has been away for longer is told of no more.
const GONE: Duration = Duration::from_secs(24 * 3600);

/// Whether an agent has been away for so long that nothing more is told of it.
pub(crate) fn is_gone(ended: Option<Timestamp>, now: Timestamp) -> bool {
    ended.is_some_and(|ended| now.duration_since(ended).unsigned_abs() > GONE && now > ended)
}

/// Registers what is told of each of `agents`.
pub(super) fn register(registry: &impl Register, agents: &Arc<Agents>) -> Result<(), Error> {
    let gauge = |name: &str, help: &str, labels: &[&str]| GaugeVec::new(Opts::new(name, help), labels);
    let gauges = [
        gauge(
            "tiphys_principal_agent_connected",
            "1 while the agent's stream is open, else 0; agents that have been away for a day are left out",
            &[AGENT, "mode"],
        )?,
        gauge(
            "tiphys_principal_agent_connection_start_timestamp_seconds",
            "When the agent's open stream was opened, in seconds since 1970",
            &[AGENT],
        )?,
        gauge(
            "tiphys_principal_agent_certificate_expiry_timestamp_seconds",
            "When the client certificate ends with which the agent last connected, in seconds since 1970",
            &[AGENT],
        )?,
        gauge(
            "tiphys_principal_outbox_entries",
            "Number of resources and requests that the agent has yet to acknowledge",
            &[AGENT],
        )?,
        gauge(
            "tiphys_principal_outbox_oldest_seconds",
            "Age of the oldest change that the agent has yet to acknowledge, in seconds; 0 if there is none",
            &[AGENT],
        )?,
    ];
    let agents = Arc::clone(agents);
    Fresh::register(registry, gauges, move |gauges| {
        let [connected, start, certificate, entries, oldest] = gauges else { return };
        let now = clock::now();
        for agent in agents.status().iter().filter(|agent| !is_gone(agent.disconnected_since, now)) {
            let name = agent.name.as_str();
            let AgentStatus { connected_since, outbox, behind, certificate_expiry, .. } = agent;
            let is_connected = f64::from(u8::from(connected_since.is_some()));
            connected.with_label_values(&[name, agent.mode.as_str()]).set(is_connected);
            if let Some(since) = connected_since {
                start.with_label_values(&[name]).set(seconds(*since));
            }
            if let Some(until) = certificate_expiry {
                certificate.with_label_values(&[name]).set(seconds(*until));
            }
            entries.with_label_values(&[name]).set(*outbox as f64);
            oldest.with_label_values(&[name]).set(behind.as_secs_f64());
        }
    })
}

fn seconds(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_gone_a_day_after_it_went() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let ago = |seconds: i64| Some(Timestamp::from_second(1_000_000 - seconds).unwrap());
        assert!(!is_gone(None, now));
        assert!(!is_gone(ago(86_400), now));
        assert!(is_gone(ago(86_401), now));
        assert!(!is_gone(ago(-90_000), now), "the clock was set back");
    }
}
