//! What settings cost beside each other.

use std::fmt;

use anyhow::Context as _;
use serde::Serialize;

use super::{Burst, Plan, Setting};

/// What one setting was like, in the middle of all its rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Which one.
    pub setting: Setting,
    /// Applications per second.
    pub rate: f64,
    /// The same as a part of what the round was without traces.
    pub rate_ratio: f64,
    /// Processor time for each, in milliseconds.
    pub cpu_ms: f64,
    /// The same as a part of what the round was without traces.
    pub cpu_ratio: f64,
}

/// What traces cost.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Applications of a burst.
    pub applications: usize,
    /// How often each setting had its turn.
    pub rounds: usize,
    /// A line for each setting.
    pub lines: Vec<Line>,
    /// Spans that were made.
    pub spans_made: u64,
    /// Spans that the collector has decoded.
    pub spans_collected: u64,
}

impl Report {
    pub(super) fn new(
        plan: &Plan,
        bursts: &[(Setting, Burst)],
        spans_made: u64,
        spans_collected: u64,
    ) -> anyhow::Result<Self> {
        let of = |setting| -> Vec<Burst> {
            bursts.iter().filter(|(it, _)| *it == setting).map(|(_, burst)| *burst).collect()
        };
        let without = of(Setting::Nothing);
        let line = |setting| {
            let bursts = of(setting);
            let ratio = |of: fn(&Burst) -> f64| {
                median(bursts.iter().zip(&without).map(|(this, without)| of(this) / of(without)))
            };
            Some(Line {
                setting,
                rate: median(bursts.iter().map(|it| it.rate))?,
                rate_ratio: ratio(|it| it.rate)?,
                cpu_ms: median(bursts.iter().map(|it| it.cpu_ms))?,
                cpu_ratio: ratio(|it| it.cpu_ms)?,
            })
        };
        let lines = Setting::ALL.into_iter().map(line).collect::<Option<_>>();
        Ok(Self {
            applications: plan.applications,
            rounds: plan.rounds,
            lines: lines.context("nothing was measured")?,
            spans_made,
            spans_collected,
        })
    }
}

/// The one in the middle.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
    Some((low + high) / 2.0)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} rounds of {} applications each, medians", self.rounds, self.applications)?;
        for line in &self.lines {
            let what = match line.setting {
                Setting::Nothing => "nothing registered",
                Setting::NothingAgain => "the same again",
                Setting::NoneSampled => "registered, none sampled",
                Setting::All => "every change traced",
            };
            writeln!(
                f,
                "{what:<26} {:>7.0} a second, {:>5.3} of nothing registered; {:.3} ms of processor each, {:.3} of it",
                line.rate, line.rate_ratio, line.cpu_ms, line.cpu_ratio
            )?;
        }
        write!(f, "{} spans made, {} decoded by the collector", self.spans_made, self.spans_collected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_within_a_round_and_the_one_in_the_middle_counts() {
        let burst = |rate| Burst { rate, cpu_ms: 1000.0 / rate };
        let plan = Plan { applications: 100, rounds: 3 };
        let mut bursts = Vec::new();
        // A machine that becomes slower all the time.
        for speed in [400.0, 200.0, 100.0] {
            for (setting, part) in
                Setting::ALL.into_iter().zip([1.0, 1.0, 0.5, if speed == 100.0 { 9.0 } else { 1.0 }])
            {
                bursts.push((setting, burst(speed * part)));
            }
        }
        let report = Report::new(&plan, &bursts, 6, 5).unwrap();
        let ratios: Vec<f64> = report.lines.iter().map(|line| line.rate_ratio).collect();
        assert_eq!(ratios, [1.0, 1.0, 0.5, 1.0]);
        assert_eq!(report.lines[2].cpu_ratio, 2.0);
        assert!(report.to_string().ends_with("6 spans made, 5 decoded by the collector"));
        assert!(Report::new(&plan, &[], 0, 0).is_err());
        assert_eq!(median([1.0, 4.0, 2.0, 3.0].into_iter()), Some(2.5));
    }
}
