//! What a measured run ends with.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::fleet::Fleet;
use super::ledger::{Ledger, Percentiles};

/// When each phase of a run was over, counted from its beginning.
#[derive(Debug, Clone, Copy)]
pub(super) struct Phases {
    pub(super) started: Duration,
    pub(super) connected: Duration,
    pub(super) written: Duration,
    pub(super) converged: Duration,
}

/// Figures of a run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Summary {
    agents: usize,
    applications: usize,
    converged: bool,
    seconds: Seconds,
    /// From writing at the control plane to being seen on the cluster.
    delivery_ms: Percentiles,
    /// From writing at the control plane to the status being seen there.
    round_trip_ms: Percentiles,
    events: Events,
    memory_bytes: Memory,
}

#[derive(Debug, Clone, Serialize)]
struct Seconds {
    start: f64,
    connect: f64,
    write: f64,
    converge: f64,
    total: f64,
}

/// What the principal has sent and received.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Events {
    pub(super) sent: u64,
    pub(super) received: u64,
}

/// Memory of the whole process: every API server, the principal and all agents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Memory {
    pub(super) now: u64,
    pub(super) peak: u64,
}

impl Memory {
    /// As the kernel counts it; zero where it does not tell.
    pub(super) fn of_this_process() -> Self {
        std::fs::read_to_string("/proc/self/status").map(|text| Self::parse(&text)).unwrap_or_default()
    }

    fn parse(status: &str) -> Self {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kilobytes: u64 =
                line.trim_start_matches(':').trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some(kilobytes * 1024)
        };
        Self { now: field("VmRSS").unwrap_or_default(), peak: field("VmHWM").unwrap_or_default() }
    }
}

impl Summary {
    /// Takes the figures of a run that is over.
    pub(super) fn new(fleet: &Fleet, ledger: &Ledger, apps: usize, phases: &Phases, converged: bool) -> Self {
        let seconds = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64();
        Self {
            agents: fleet.clusters.len(),
            applications: fleet.clusters.len() * apps,
            converged,
            seconds: Seconds {
                start: phases.started.as_secs_f64(),
                connect: seconds(phases.started, phases.connected),
                write: seconds(phases.connected, phases.written),
                converge: seconds(phases.written, phases.converged),
                total: phases.converged.as_secs_f64(),
            },
            delivery_ms: ledger.deliveries(),
            round_trip_ms: ledger.round_trips(),
            events: fleet.events(),
            memory_bytes: Memory::of_this_process(),
        }
    }

    /// One JSON object.
    pub(super) fn json(&self) -> String {
        json!(self).to_string()
    }

    /// A few lines.
    pub(super) fn text(&self) -> String {
        let Self { agents, applications, seconds, delivery_ms, round_trip_ms, events, memory_bytes, .. } =
            self;
        let percentiles = |what: &Percentiles| {
            format!("p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms", what.p50, what.p99, what.max)
        };
        [
            format!(
                "{applications} applications on {agents} clusters {}",
                if self.converged {
                    "converged: specs went out, statuses came back"
                } else {
                    "did NOT converge"
                }
            ),
            format!(
                "  time        {:.1} s: start {:.1}, connect {:.1}, write {:.1}, converge {:.1}",
                seconds.total, seconds.start, seconds.connect, seconds.write, seconds.converge
            ),
            format!("  delivery    {}", percentiles(delivery_ms)),
            format!("  round trip  {}", percentiles(round_trip_ms)),
            format!("  events      {} sent, {} received by the principal", events.sent, events.received),
            format!(
                "  memory      {} at the most, for everything in this process",
                megabytes(memory_bytes.peak)
            ),
        ]
        .join("\n")
    }
}

/// A size for people.
pub(super) fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_kernels_words() {
        let status = "Name:\ttiphys\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\n";
        assert_eq!(Memory::parse(status), Memory { now: 10_485_760, peak: 20_971_520 });
        assert_eq!(Memory::parse(""), Memory::default());
        assert_eq!(megabytes(20_971_520), "21 MB");
    }
}
