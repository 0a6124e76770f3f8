//! When to do what: an open loop, in which a slow answer does not delay the next question.

use std::time::Duration;

use anyhow::{bail, ensure};
use tokio::time::Instant;

/// The most things that one run does: what is measured has to fit into memory.
pub const MOST: usize = 100_000;

/// How things are spread in time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// So many per second, whatever becomes of them.
    Rate(f64),
    /// As fast as they go, so many at the same time.
    Burst {
        /// How many at the same time.
        concurrency: usize,
    },
}

impl Pace {
    /// From the two options of the command line.
    pub fn new(rate: Option<f64>, concurrency: usize) -> anyhow::Result<Self> {
        match rate {
            Some(rate) if !rate.is_finite() || rate <= 0.0 || rate > 100_000.0 => {
                bail!("a rate of {rate} per second is not possible: give one above 0 and up to 100000")
            }
            Some(rate) => Ok(Self::Rate(rate)),
            None => {
                ensure!((1..=10_000).contains(&concurrency), "a concurrency must be between 1 and 10000");
                Ok(Self::Burst { concurrency })
            }
        }
    }

    /// When the thing with this number is due, where time decides.
    pub fn due(self, start: Instant, index: usize) -> Option<Instant> {
        match self {
            Self::Rate(rate) => Some(start + Duration::from_secs_f64(index as f64 / rate)),
            Self::Burst { .. } => None,
        }
    }

    /// How many may be under way. An open loop has a bound too, far above what a healthy server needs.
    pub fn in_flight(self) -> usize {
        match self {
            Self::Rate(_) => 1024,
            Self::Burst { concurrency } => concurrency,
        }
    }
}

impl std::fmt::Display for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rate(rate) => write!(f, "{rate}/s"),
            Self::Burst { concurrency } => write!(f, "burst, {concurrency} at a time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_does_not_drift() {
        let start = Instant::now();
        let pace = Pace::new(Some(300.0), 1).unwrap();
        assert_eq!(pace.due(start, 0), Some(start));
        assert_eq!(pace.due(start, 3000).unwrap() - start, Duration::from_secs(10));
    }

    #[test]
    fn impossible_paces_are_refused() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Pace::new(Some(rate), 1).is_err(), "{rate}");
        }
        assert!(Pace::new(None, 0).is_err());
        assert_eq!(Pace::new(None, 8).unwrap().in_flight(), 8);
    }
}
