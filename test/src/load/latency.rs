//! Durations, and what they look like together.

use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest duration that is told apart from longer ones.
const LONGEST: Duration = Duration::from_secs(3600);

/// Durations, kept to three significant digits.
pub struct Latencies {
    micros: Histogram<u64>,
}

impl Latencies {
    /// None yet.
    pub fn new() -> anyhow::Result<Self> {
        let longest = u64::try_from(LONGEST.as_micros()).context("longest latency")?;
        Ok(Self { micros: Histogram::new_with_bounds(1, longest, 3)? })
    }

    /// Adds one.
    pub fn record(&mut self, latency: Duration) {
        self.micros.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// What they look like together; None when there are none.
    pub fn summary(&self) -> Option<Summary> {
        if self.micros.is_empty() {
            return None;
        }
        let at = |quantile| self.micros.value_at_quantile(quantile) as f64 / 1000.0;
        Some(Summary {
            count: self.micros.len(),
            mean_ms: round(self.micros.mean() / 1000.0),
            p50_ms: round(at(0.5)),
            p90_ms: round(at(0.9)),
            p99_ms: round(at(0.99)),
            p999_ms: round(at(0.999)),
            max_ms: round(self.micros.max() as f64 / 1000.0),
        })
    }
}

/// Three digits after the point: a microsecond of a millisecond.
pub(crate) fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// What many durations look like together, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// How many.
    pub count: u64,
    /// The average.
    pub mean_ms: f64,
    /// Half are shorter.
    pub p50_ms: f64,
    /// Nine of ten are shorter.
    pub p90_ms: f64,
    /// 99 of 100 are shorter.
    pub p99_ms: f64,
    /// 999 of 1,000 are shorter.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {:>9.2} ms   p90 {:>9.2} ms   p99 {:>9.2} ms   max {:>9.2} ms   mean {:>9.2} ms   n {}",
            self.p50_ms, self.p90_ms, self.p99_ms, self.max_ms, self.mean_ms, self.count
        )
    }
}

/// A summary as text, or that there is nothing to sum up.
pub fn show(summary: Option<&Summary>) -> String {
    summary.map_or_else(|| "none".to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_durations() {
        let mut latencies = Latencies::new().unwrap();
        assert_eq!(latencies.summary(), None);
        for millis in 1..=1000 {
            latencies.record(Duration::from_millis(millis));
        }
        latencies.record(Duration::from_secs(100_000));
        let summary = latencies.summary().unwrap();
        let near = |value: f64, expected: f64| (value - expected).abs() / expected < 0.002;
        assert!(near(summary.p50_ms, 501.0), "{summary}");
        assert!(near(summary.p99_ms, 991.0), "{summary}");
        assert!(near(summary.max_ms, 3_600_000.0), "{summary}");
        assert_eq!(summary.count, 1001);
    }
}
