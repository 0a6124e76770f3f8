//! What rotations have cost.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::visitor::Visits;
use crate::load::changes;

/// One thing that was replaced everywhere.
#[derive(Clone, Debug, Serialize)]
pub struct Rotation {
    /// What.
    pub what: &'static str,
    /// How many certificates and keys that were.
    pub replaced: usize,
    /// Streams that were opened again meanwhile, over all agents.
    pub reconnects: u64,
    /// The same of the agent with the most.
    pub most_reconnects: u64,
    /// Attempts to open a stream that came to nothing, over all agents.
    pub failed: u64,
    /// The longest time for which a stream was away.
    pub longest_cut: Duration,
    /// How long it took until everybody had it.
    pub took: Duration,
}

impl fmt::Display for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} replaced in {:.1} s, {} reconnects, {} of one agent at most, {} failed attempts, longest cut {:.0} ms",
            self.what,
            self.replaced,
            self.took.as_secs_f64(),
            self.reconnects,
            self.most_reconnects,
            self.failed,
            self.longest_cut.as_secs_f64() * 1000.0
        )
    }
}

/// What all rotations have cost.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How many agents there were.
    pub agents: usize,
    /// What was replaced, in order.
    pub rotations: Vec<Rotation>,
    /// What became of the users' changes.
    pub changes: changes::Report,
    /// What became of requests through the resource proxy.
    pub visits: Visits,
    /// Streams that were opened again between rotations, when nothing happened to them.
    pub unprovoked: u64,
}

impl Report {
    /// Whether every change arrived, and no agent connected more than once because of one rotation.
    pub fn all_well(&self) -> bool {
        let once = |it: &Rotation| it.most_reconnects <= 1 && it.failed == 0;
        self.changes.made > 0
            && self.changes.lost.is_empty()
            && self.unprovoked == 0
            && self.rotations.iter().all(once)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for rotation in &self.rotations {
            writeln!(f, "{rotation}")?;
        }
        let failed: u64 = self.visits.failed.values().sum();
        writeln!(f, "resource proxy: {} requests, {failed} failed", self.visits.made)?;
        for (reason, times) in &self.visits.failed {
            writeln!(f, "  {times} times: {reason}")?;
        }
        writeln!(f, "{}", self.changes)?;
        for lost in &self.changes.lost {
            writeln!(f, "  lost: {lost}")?;
        }
        let most = self.rotations.iter().map(|it| it.most_reconnects).max().unwrap_or_default();
        let cut = self.rotations.iter().map(|it| it.longest_cut).max().unwrap_or_default();
        write!(
            f,
            "{} rotations of {} certificates and keys, {} agents, {} changes made, {} lost, at most {most} reconnects of \
             an agent by one rotation, longest cut {:.0} ms",
            self.rotations.len(),
            self.rotations.iter().map(|it| it.replaced).sum::<usize>(),
            self.agents,
            self.changes.made,
            self.changes.lost.len(),
            cut.as_secs_f64() * 1000.0
        )
    }
}
