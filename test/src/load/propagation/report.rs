//! What a run has found.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::Plan;
use crate::load::latency::{Summary, round, show};
use crate::load::pace::Pace;

/// What a run has found. Times of the clock are in seconds.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The run's name.
    pub run: String,
    /// Where was written.
    pub from: String,
    /// Where was looked.
    pub to: String,
    /// How many Applications.
    pub count: usize,
    /// How fast.
    pub pace: String,
    /// Write acknowledged → seen.
    pub propagation: Option<Summary>,
    /// Write sent → seen.
    pub from_send: Option<Summary>,
    /// How many were seen before the writer had its answer; they count as 0 ms in `propagation`.
    pub seen_before_acknowledged: u64,
    /// A create at the control plane.
    pub write: Option<Summary>,
    /// The same create straight at the workload's API server.
    pub direct: Option<Summary>,
    /// First write → last seen.
    pub until_seen_s: f64,
    /// First write → last acknowledged at the control plane.
    pub writing_s: f64,
    /// The same at the workload's API server.
    pub direct_s: f64,
    /// How they compare.
    pub ratios: Ratios,
    /// Applications that were still at the workload's API server long after their deletion at the control plane, so
    /// that they had to be deleted there.
    pub removed_directly: usize,
}

/// How propagation compares with plain writes in the same run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ratios {
    /// Median of propagation over median of a plain create.
    pub p50: Option<f64>,
    /// 99th percentile of propagation over that of a plain create.
    pub p99: Option<f64>,
    /// First write → last seen, over the sum of writing everything at the one and at the other API server. Only for
    /// a burst: at a given rate the schedule decides it.
    pub total: Option<f64>,
}

impl Report {
    pub(super) fn new(
        plan: &Plan,
        [propagation, from_send, write, direct]: [Option<Summary>; 4],
        [until_seen, writing, direct_writing]: [Duration; 3],
        seen_before_acknowledged: u64,
    ) -> Self {
        let ratio = |a: f64, b: f64| (b > 0.0).then(|| round(a / b));
        let both = propagation.as_ref().zip(direct.as_ref());
        let total = ratio(until_seen.as_secs_f64(), (writing + direct_writing).as_secs_f64());
        let ratios = Ratios {
            p50: both.and_then(|(p, d)| ratio(p.p50_ms, d.p50_ms)),
            p99: both.and_then(|(p, d)| ratio(p.p99_ms, d.p99_ms)),
            total: total.filter(|_| matches!(plan.pace, Pace::Burst { .. })),
        };
        Self {
            run: plan.run.clone(),
            from: format!("{}, namespace {}", plan.from, plan.from_namespace),
            to: format!("{}, namespace {}", plan.to, plan.to_namespace),
            count: plan.count,
            pace: plan.pace.to_string(),
            propagation,
            from_send,
            seen_before_acknowledged,
            write,
            direct,
            until_seen_s: round(until_seen.as_secs_f64()),
            writing_s: round(writing.as_secs_f64()),
            direct_s: round(direct_writing.as_secs_f64()),
            ratios,
            removed_directly: 0,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.2}"));
        writeln!(f, "run {}: {} applications, {}", self.run, self.count, self.pace)?;
        writeln!(f, "  from {}\n  to   {}\n", self.from, self.to)?;
        writeln!(f, "write acknowledged → seen   {}", show(self.propagation.as_ref()))?;
        writeln!(f, "write sent → seen           {}", show(self.from_send.as_ref()))?;
        writeln!(f, "create at the control plane {}", show(self.write.as_ref()))?;
        writeln!(f, "create straight at the goal {}\n", show(self.direct.as_ref()))?;
        writeln!(
            f,
            "first write → last seen {:.3} s; writing took {:.3} s there and {:.3} s straight at the goal",
            self.until_seen_s, self.writing_s, self.direct_s
        )?;
        let Ratios { p50, p99, total } = self.ratios;
        write!(f, "ratios: p50 {}  p99 {}  total {}", number(p50), number(p99), number(total))?;
        if self.seen_before_acknowledged > 0 {
            write!(f, "\n{} were seen before the writer had its answer", self.seen_before_acknowledged)?;
        }
        if self.removed_directly > 0 {
            let count = self.removed_directly;
            write!(f, "\n{count} were still at the goal long after their deletion, and were deleted there")?;
        }
        Ok(())
    }
}
