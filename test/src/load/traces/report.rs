//! What settings cost beside a process without traces.

use std::fmt;

use anyhow::Context as _;
use serde::Serialize;

use super::{Flow, Pair, Plan, Setting};

/// What one setting was like beside nothing registered. Ratios are those in the middle of all rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Which one.
    pub setting: Setting,
    /// Applications per second.
    pub rate: f64,
    /// The same as a part of what it was without traces at the same time.
    pub rate_ratio: f64,
    /// The lowest and the highest of all rounds.
    pub rate_ratios: (f64, f64),
    /// Processor time for each, in milliseconds.
    pub cpu_ms: f64,
    /// The same as a part of what it was without traces at the same time.
    pub cpu_ratio: f64,
}

/// What traces cost.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// For how many seconds Applications flowed each time.
    pub seconds: u64,
    /// How often each setting was compared.
    pub rounds: usize,
    /// Whether API servers were real.
    pub real: bool,
    /// A line for each setting.
    pub lines: Vec<Line>,
    /// Spans that should have been made.
    pub spans_made: u64,
    /// Spans that the collector has decoded.
    pub spans_collected: u64,
}

impl Report {
    /// `pairs` has two of each setting in each round, one in each place.
    pub(super) fn new(plan: &Plan, pairs: &[Pair], spans_collected: u64) -> anyhow::Result<Self> {
        let line = |setting| {
            let pairs: Vec<&Pair> = pairs.iter().filter(|pair| pair.setting == setting).collect();
            // What one place has before the other is in one of the two for the better, in the other for the worse.
            let ratios = |of: fn(&Flow) -> f64| -> Vec<f64> {
                let ratio = |pair: &&Pair| of(&pair.with) / of(&pair.without);
                pairs.chunks_exact(2).map(|both| both.iter().map(ratio).product::<f64>().sqrt()).collect()
            };
            let rates = ratios(|it| it.rate);
            Some(Line {
                setting,
                rate: median(pairs.iter().map(|pair| pair.with.rate))?,
                rate_ratio: median(rates.iter().copied())?,
                rate_ratios: (
                    rates.iter().copied().reduce(f64::min)?,
                    rates.iter().copied().reduce(f64::max)?,
                ),
                cpu_ms: median(pairs.iter().map(|pair| pair.with.cpu_ms))?,
                cpu_ratio: median(ratios(|it| it.cpu_ms).into_iter())?,
            })
        };
        let lines = Setting::ALL.into_iter().map(line).collect::<Option<_>>();
        let traced = pairs.iter().filter(|pair| pair.setting == Setting::All);
        Ok(Self {
            seconds: plan.seconds,
            rounds: plan.rounds,
            real: plan.real,
            lines: lines.context("nothing was measured")?,
            // Each change is told by one side and handled by the other.
            spans_made: 2 * traced.map(|pair| pair.with.written).sum::<u64>(),
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
        let servers = if self.real { "real" } else { "embedded" };
        writeln!(
            f,
            "{} rounds of twice {} s each, beside nothing registered, {servers} API servers",
            self.rounds, self.seconds
        )?;
        for line in &self.lines {
            let what = match line.setting {
                Setting::Nothing => "the same (noise)",
                Setting::NoneSampled => "registered, none sampled",
                Setting::All => "every change traced",
            };
            let (low, high) = line.rate_ratios;
            writeln!(
                f,
                "{what:<26} {:>6.0} a second, {:.3} of it ({low:.3} to {high:.3}); {:.3} ms of processor each, {:.3} of it",
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
    fn ratios_are_taken_between_what_ran_at_the_same_time_and_the_one_in_the_middle_counts() {
        let flow = |rate| Flow { rate, cpu_ms: 1000.0 / rate, written: 10 };
        let mut pairs = Vec::new();
        // A machine that becomes slower all the time, and whose second processor is half as fast as the first.
        for speed in [400.0, 200.0, 100.0] {
            for (setting, part) in
                Setting::ALL.into_iter().zip([if speed == 100.0 { 9.0 } else { 1.0 }, 1.0, 0.5])
            {
                for (with, without) in [(1.0, 0.5), (0.5, 1.0)] {
                    let (with, without) = (flow(speed * with * part), flow(speed * without));
                    pairs.push(Pair { setting, with, without });
                }
            }
        }
        let report = Report::new(&Plan { seconds: 1, rounds: 3, real: false }, &pairs, 119).unwrap();
        let ratios: Vec<f64> = report.lines.iter().map(|line| line.rate_ratio).collect();
        assert_eq!(ratios, [1.0, 1.0, 0.5]);
        assert_eq!(report.lines[0].rate_ratios, (1.0, 9.0));
        assert_eq!(report.lines[2].cpu_ratio, 2.0);
        assert!(report.to_string().ends_with("120 spans made, 119 decoded by the collector"));
        assert!(Report::new(&Plan { seconds: 1, rounds: 3, real: false }, &[], 0).is_err());
        assert_eq!(median([1.0, 4.0, 2.0, 3.0].into_iter()), Some(2.5));
    }
}
