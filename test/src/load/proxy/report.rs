//! What was measured.

use std::fmt;

use serde::Serialize;

use crate::load::latency::Summary;

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// One small GET after the other.
    pub latency: Latency,
    /// Small GETs by many clients.
    pub throughput: Throughput,
    /// A large list.
    pub list: List,
    /// Many watches.
    pub watches: Watches,
}

/// One small GET after the other.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// Straight to the API server.
    pub direct: Summary,
    /// Through principal and agent.
    pub through: Summary,
}

/// Small GETs by many clients.
#[derive(Clone, Debug, Serialize)]
pub struct Throughput {
    /// How many.
    pub clients: usize,
    /// Requests per second, straight to the API server.
    pub direct_per_s: f64,
    /// Requests per second, through principal and agent.
    pub through_per_s: f64,
}

/// A large list.
#[derive(Clone, Debug, Serialize)]
pub struct List {
    /// Its size.
    pub megabytes: f64,
    /// Straight from the API server.
    pub direct_mb_per_s: f64,
    /// Through principal and agent.
    pub through_mb_per_s: f64,
    /// By how much the principal's memory grew at most, in kilobytes.
    pub principal_extra_kb: u64,
    /// By how much the agent's did.
    pub agent_extra_kb: u64,
}

/// Many watches.
#[derive(Clone, Debug, Serialize)]
pub struct Watches {
    /// How many.
    pub count: usize,
    /// The principal's memory for each, in kilobytes.
    pub principal_kb_each: u64,
    /// The agent's memory for each.
    pub agent_kb_each: u64,
    /// From before a change to when all have seen it.
    pub seen_by_all_ms: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { latency: Latency { direct, through }, throughput, list, watches } = self;
        writeln!(f, "small GET, direct   {direct}")?;
        writeln!(f, "small GET, through  {through}")?;
        let (p50, p99) = (through.p50_ms - direct.p50_ms, through.p99_ms - direct.p99_ms);
        writeln!(f, "added latency       p50 {p50:.2} ms (required <= 1), p99 {p99:.2} ms (required <= 5)")?;
        let Throughput { clients, direct_per_s, through_per_s } = throughput;
        writeln!(
            f,
            "{clients} clients          {direct_per_s:.0}/s direct, {through_per_s:.0}/s through: {:.0} % (required >= 50)",
            100.0 * through_per_s / direct_per_s
        )?;
        writeln!(
            f,
            "list of {:.0} MB       {:.0} MB/s direct, {:.0} MB/s through: {:.0} % (required >= 70); \
             memory +{} KB principal, +{} KB agent (required <= 8192)",
            list.megabytes,
            list.direct_mb_per_s,
            list.through_mb_per_s,
            100.0 * list.through_mb_per_s / list.direct_mb_per_s,
            list.principal_extra_kb,
            list.agent_extra_kb
        )?;
        write!(
            f,
            "{} watches        {} KB principal, {} KB agent each (required <= 64); a change seen by all after {:.0} ms",
            watches.count, watches.principal_kb_each, watches.agent_kb_each, watches.seen_by_all_ms
        )
    }
}
