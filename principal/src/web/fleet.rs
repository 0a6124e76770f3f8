//! The fleet as the page shows it.

use jiff::Timestamp;
use serde::Serialize;
use tiphys_shared::model::AgentName;
use tiphys_shared::process::clock;
use tiphys_shared::security::tls::Validity;

use super::Facts;
use crate::agents::{AgentStatus, Agents};
use crate::metrics::{Metrics, is_gone};
use crate::problems::Problem;

/// Everything at one moment.
#[derive(Debug, Serialize)]
pub(super) struct Fleet {
    /// When this was true.
    now: Timestamp,
    principal: Principal,
    agents: Vec<Agent>,
    certificates: Vec<Certificate>,
    /// Newest first.
    problems: Vec<Problem>,
}

#[derive(Debug, Serialize)]
struct Principal {
    version: &'static str,
    namespace: String,
}

#[derive(Debug, Serialize)]
struct Agent {
    name: AgentName,
    mode: &'static str,
    /// One of the two, unless it has never been connected.
    connected_since: Option<Timestamp>,
    disconnected_since: Option<Timestamp>,
    /// What it says to be; empty if it has not logged in with this process.
    version: String,
    /// From the change that it acknowledged last to the acknowledgement.
    lag_seconds: Option<f64>,
    /// Changes that it has yet to acknowledge, and the age of the oldest.
    outbox: usize,
    behind_seconds: f64,
    /// What comparisons have found to differ.
    repaired: u64,
    certificate_expiry: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct Certificate {
    name: String,
    expiry: Timestamp,
}

/// Looks at the fleet.
pub(super) fn look(agents: &Agents, metrics: &Metrics, facts: &Facts) -> Fleet {
    let now = clock::now();
    let shown = |status: &AgentStatus| !is_gone(status.disconnected_since, now);
    let mut certificates = Vec::new();
    for (name, tls) in &facts.certificates {
        let Validity { own, authorities } = tls.validity();
        let mut add = |name: String, expiry: Option<Timestamp>| {
            certificates.extend(expiry.map(|expiry| Certificate { name, expiry }));
        };
        add((*name).to_owned(), own);
        add(format!("{name}-ca"), authorities);
    }
    Fleet {
        now,
        principal: Principal { version: env!("CARGO_PKG_VERSION"), namespace: facts.namespace.clone() },
        agents: agents.status().into_iter().filter(shown).map(|status| agent(status, metrics)).collect(),
        certificates,
        problems: agents.problems.recent(),
    }
}

fn agent(status: AgentStatus, metrics: &Metrics) -> Agent {
    let AgentStatus { name, mode, connected_since, disconnected_since, outbox, behind, version, .. } = status;
    Agent {
        repaired: metrics.repaired(&name),
        name,
        mode: mode.as_str(),
        connected_since,
        disconnected_since,
        version,
        lag_seconds: status.lag.map(|lag| lag.as_secs_f64()),
        outbox,
        behind_seconds: behind.as_secs_f64(),
        certificate_expiry: status.certificate_expiry,
    }
}
