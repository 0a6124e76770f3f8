//! What a run has found.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Serialize;

use super::Shared;
use crate::load::latency::{Latencies, Summary, round, show};
use crate::load::procfs::{Cost, Sample};

/// What a run has found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whom.
    pub principal: String,
    /// How many agents there were to be.
    pub agents: usize,
    /// How many have logged in and asked for their stream.
    pub connected: u64,
    /// How many of these were still there at the end.
    pub still_connected: u64,
    /// How many streams the principal has answered. Some do so only when they have something to say.
    pub streams_open: u64,
    /// Why others could not connect, and how many of them.
    pub failures: BTreeMap<String, u64>,
    /// Why streams ended before their time, and how many did.
    pub lost: BTreeMap<String, u64>,
    /// How long connecting took, in seconds.
    pub connect_s: f64,
    /// Agents connected per second.
    pub connects_per_s: f64,
    /// TCP, TLS and HTTP/2.
    pub dial: Option<Summary>,
    /// `Authenticate`.
    pub authenticate: Option<Summary>,
    /// `Subscribe` asked → answered.
    pub subscribe: Option<Summary>,
    /// How long they were held, in seconds.
    pub held_s: f64,
    /// Events received while held, per second.
    pub events_per_s: f64,
    /// Events received by target and type, in all.
    pub received: BTreeMap<String, u64>,
    /// Sent by the principal → received, by the time in the event.
    pub delivery: Option<Summary>,
    /// Acknowledgements sent.
    pub acks_sent: u64,
    /// Status updates sent.
    pub status_updates: u64,
    /// Status updates not sent: the one before was not acknowledged yet, or there was no application.
    pub status_updates_held_back: u64,
    /// Status update sent → acknowledged.
    pub acknowledgement: Option<Summary>,
    /// What the principal cost while they connected.
    pub principal_connecting: Option<Cost>,
    /// What the principal cost while they were held.
    pub principal_holding: Option<Cost>,
    /// Resident memory of this tool, in megabytes.
    pub tool_resident_mb: f64,
}

impl Report {
    #[allow(clippy::too_many_arguments, reason = "each is measured elsewhere and only written down here")]
    pub(super) fn new(
        shared: &Shared,
        connected: u64,
        still_connected: u64,
        connect_time: Duration,
        held: Duration,
        events_held: u64,
        [principal_connecting, principal_holding]: [Option<Cost>; 2],
        own: &Sample,
    ) -> Self {
        let tally = &shared.tally;
        let summary = |latencies: &parking_lot::Mutex<Latencies>| latencies.lock().summary();
        Self {
            principal: format!("{}:{}", shared.plan.host, shared.plan.port),
            agents: shared.plan.count,
            connected,
            still_connected,
            streams_open: tally.streams_open.load(Relaxed),
            failures: tally.failures.lock().clone(),
            lost: tally.lost.lock().clone(),
            connect_s: round(connect_time.as_secs_f64()),
            connects_per_s: round(connected as f64 / connect_time.as_secs_f64().max(1e-9)),
            dial: summary(&tally.dial),
            authenticate: summary(&tally.authenticate),
            subscribe: summary(&tally.open),
            held_s: round(held.as_secs_f64()),
            events_per_s: round(events_held as f64 / held.as_secs_f64().max(1e-9)),
            received: tally.received.lock().clone(),
            delivery: summary(&tally.delivery),
            acks_sent: tally.acks_sent.load(Relaxed),
            status_updates: tally.updates_sent.load(Relaxed),
            status_updates_held_back: tally.updates_held_back.load(Relaxed),
            acknowledgement: summary(&tally.acknowledged),
            principal_connecting,
            principal_holding,
            tool_resident_mb: round(own.resident_kb as f64 * 1024.0 / 1_000_000.0),
        }
    }

    /// Whether every agent connected and stayed.
    pub fn all_well(&self) -> bool {
        self.connected == self.agents as u64 && self.still_connected == self.connected
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} of {} agents connected to {}", self.connected, self.agents, self.principal)?;
        writeln!(
            f,
            "  in {:.2} s = {:.1}/s; {} streams answered",
            self.connect_s, self.connects_per_s, self.streams_open
        )?;
        for (reason, count) in &self.failures {
            writeln!(f, "  {count} could not: {reason}")?;
        }
        writeln!(f, "  dial           {}", show(self.dial.as_ref()))?;
        writeln!(f, "  authenticate   {}", show(self.authenticate.as_ref()))?;
        writeln!(f, "  subscribe      {}", show(self.subscribe.as_ref()))?;
        writeln!(f, "held for {:.1} s, {} still connected at the end", self.held_s, self.still_connected)?;
        for (reason, count) in &self.lost {
            writeln!(f, "  {count} lost: {reason}")?;
        }
        let total: u64 = self.received.values().sum();
        writeln!(
            f,
            "  {total} events received in all, {:.1}/s while held; {} acks sent",
            self.events_per_s, self.acks_sent
        )?;
        for (kind, count) in &self.received {
            writeln!(f, "    {count:>9} {kind}")?;
        }
        writeln!(f, "  sent → received {}", show(self.delivery.as_ref()))?;
        writeln!(
            f,
            "  {} status updates sent, {} held back",
            self.status_updates, self.status_updates_held_back
        )?;
        writeln!(f, "  sent → acked    {}", show(self.acknowledgement.as_ref()))?;
        if let Some(cost) = &self.principal_connecting {
            writeln!(f, "principal while connecting: {cost}")?;
        }
        if let Some(cost) = &self.principal_holding {
            writeln!(f, "principal while holding:    {cost}")?;
        }
        write!(f, "this tool: {:.1} MB resident", self.tool_resident_mb)
    }
}
