//! How long to wait before trying again. Pure: no clock, no sleep.

use std::time::Duration;

/// The shape of a [`Backoff`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The longest first delay.
    pub initial: Duration,
    /// The longest delay ever.
    pub max: Duration,
    /// By how much the longest delay grows each time.
    pub factor: f64,
    /// What worked for at least this long was fine: the next failure starts over.
    pub stable_after: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            max: Duration::from_secs(60),
            factor: 2.0,
            stable_after: Duration::from_secs(60),
        }
    }
}

/// Delays that grow from one failure to the next, and that differ between processes, so that a thousand agents
/// that lost the same principal do not come back in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    schedule: Schedule,
    failures: u32,
    random: fastrand::Rng,
}

impl Backoff {
    /// The same `seed` gives the same delays.
    pub fn new(schedule: Schedule, seed: u64) -> Self {
        Self { schedule, failures: 0, random: fastrand::Rng::with_seed(seed) }
    }

    /// With a seed from the operating system.
    pub fn random(schedule: Schedule) -> Self {
        Self::new(schedule, fastrand::u64(..))
    }

    /// What was tried has failed after it had worked for `worked` (zero when it never did). How long to wait?
    ///
    /// Always between half of the longest delay and the longest delay of this turn, never zero, also after
    /// something that worked for long: whoever ends connections politely must not be hammered.
    pub fn next_delay(&mut self, worked: Duration) -> Duration {
        if worked >= self.schedule.stable_after {
            self.failures = 0;
        }
        let Schedule { initial, max, factor, .. } = self.schedule;
        let exponent = i32::try_from(self.failures).unwrap_or(i32::MAX);
        let longest = (initial.as_secs_f64() * factor.powi(exponent)).min(max.as_secs_f64());
        self.failures = self.failures.saturating_add(1);
        let share = 0.5 + self.random.f64() / 2.0;
        Duration::try_from_secs_f64(longest * share).unwrap_or(max)
    }

    /// Start over.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// How many failures there were in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// A pause that is `mean` on average and differs by up to a fifth, so that many who began together drift apart.
pub fn jittered(mean: Duration) -> Duration {
    mean.mul_f64(0.8 + 0.4 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn delays_grow_up_to_the_maximum_and_start_over_after_a_stable_while() {
        let mut backoff = Backoff::new(Schedule::default(), 7);
        let delays: Vec<f64> = (0..10).map(|_| backoff.next_delay(Duration::ZERO).as_secs_f64()).collect();
        for (index, delay) in delays.iter().enumerate() {
            let longest = 2_f64.powi(index as i32).min(60.0);
            assert!((longest / 2.0..=longest).contains(delay), "delay {index} is {delay}");
        }
        assert!(backoff.next_delay(Duration::from_secs(59)).as_secs_f64() >= 30.0);
        assert!(backoff.next_delay(Duration::from_secs(60)).as_secs_f64() <= 1.0);
        assert_eq!(backoff.failures(), 1);
    }

    #[test]
    fn one_seed_gives_one_sequence_and_another_seed_another() {
        let sequence = |seed| {
            let mut backoff = Backoff::new(Schedule::default(), seed);
            (0..8).map(|_| backoff.next_delay(Duration::ZERO)).collect::<Vec<_>>()
        };
        assert_eq!(sequence(1), sequence(1));
        assert_ne!(sequence(1), sequence(2));
    }

    proptest! {
        #[test]
        fn no_delay_is_zero_or_longer_than_the_maximum(
            seed: u64, initial in 1_u64..10_000, max in 1_u64..100_000, factor in 1.0_f64..10.0, turns in 0_u32..2_000,
        ) {
            let (initial, max) = (Duration::from_millis(initial), Duration::from_millis(max));
            let schedule = Schedule { initial, max, factor, ..Schedule::default() };
            let mut backoff = Backoff::new(schedule, seed);
            backoff.failures = turns;
            let delay = backoff.next_delay(Duration::ZERO);
            prop_assert!(delay > Duration::ZERO && delay <= max);
        }
    }
}
