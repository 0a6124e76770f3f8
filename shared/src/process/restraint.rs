//! Restraint towards somebody who undoes what we do as fast as we do it.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How often something may be done to one thing within [`WITHIN`].
const OFTEN: u32 = 10;
/// A while.
const WITHIN: Duration = Duration::from_secs(5);
/// How many things are remembered before those that are past are forgotten.
const REMEMBERED: usize = 1024;

/// How often something was done of late, by what it was done to.
#[derive(Debug)]
pub struct Restraint<K>(Mutex<HashMap<K, Since>>);

#[derive(Debug)]
struct Since {
    first: Instant,
    times: u32,
}

impl Since {
    fn is_past(&self, now: Instant) -> bool {
        now.duration_since(self.first) >= WITHIN
    }
}

impl<K> Default for Restraint<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Restraint<K> {
    /// Takes note of something that was done now.
    pub fn note(&self, key: K, now: Instant) {
        let mut all = self.0.lock();
        if all.len() >= REMEMBERED {
            all.retain(|_, since| !since.is_past(now));
        }
        let since = all.entry(key).or_insert(Since { first: now, times: 0 });
        if since.is_past(now) {
            *since = Since { first: now, times: 0 };
        }
        since.times += 1;
    }

    /// Whether it was done so often that the next time has to wait.
    pub fn must_wait(&self, key: &K, now: Instant) -> bool {
        self.0.lock().get(key).is_some_and(|since| since.times >= OFTEN && !since.is_past(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_again_and_again_waits_and_the_rest_does_not() {
        let (restraint, start) = (Restraint::default(), Instant::now());
        for n in 0..OFTEN {
            assert!(!restraint.must_wait(&"a", start), "after {n} times");
            restraint.note("a", start);
        }
        assert!(restraint.must_wait(&"a", start + WITHIN / 2));
        assert!(!restraint.must_wait(&"b", start));
        let later = start + WITHIN;
        assert!(!restraint.must_wait(&"a", later));
        restraint.note("a", later);
        assert!(!restraint.must_wait(&"a", later));
    }

    #[test]
    fn what_is_past_is_forgotten() {
        let (restraint, start) = (Restraint::default(), Instant::now());
        for n in 0..10 * REMEMBERED {
            restraint.note(n, start + WITHIN * u32::try_from(n / (REMEMBERED / 2)).unwrap());
        }
        assert!(restraint.0.lock().len() <= REMEMBERED);
    }
}
