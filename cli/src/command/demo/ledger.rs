//! What was written, what has arrived and what has come back, and how long it took.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// An application: the agent that it belongs to, and its name.
pub(super) type Key = (String, String);

/// Follows every change from its writing at the control plane to the cluster and back.
#[derive(Debug)]
pub(super) struct Ledger {
    book: Mutex<Book>,
    settled: Notify,
}

#[derive(Debug)]
struct Book {
    last_revision: u64,
    applications: BTreeMap<Key, Progress>,
    unsettled: usize,
    deliveries: Histogram<u64>,
    round_trips: Histogram<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Progress {
    revision: u64,
    written: Instant,
    delivered: bool,
    returned: bool,
}

/// The applications of one agent, counted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) applications: usize,
    pub(super) delivered: usize,
    pub(super) returned: usize,
}

/// Durations, summed up.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(super) struct Percentiles {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Ledger {
    /// An empty one.
    pub(super) fn new() -> Result<Self, hdrhistogram::CreationError> {
        // One microsecond to ten minutes, with three digits.
        let microseconds = || Histogram::new_with_bounds(1, 600_000_000, 3);
        let book = Book {
            last_revision: 0,
            applications: BTreeMap::new(),
            unsettled: 0,
            deliveries: microseconds()?,
            round_trips: microseconds()?,
        };
        Ok(Self { book: Mutex::new(book), settled: Notify::new() })
    }

    /// Notes that an application is about to be written, and gives the revision to write.
    pub(super) fn write(&self, key: Key) -> u64 {
        let mut book = self.book.lock();
        book.last_revision += 1;
        let revision = book.last_revision;
        let progress = Progress { revision, written: Instant::now(), delivered: false, returned: false };
        let before = book.applications.insert(key, progress);
        if before.is_none_or(|before| before.returned) {
            book.unsettled += 1;
        }
        revision
    }

    /// Notes that a revision has been seen on the cluster.
    pub(super) fn delivered(&self, key: &Key, revision: u64) {
        let mut book = self.book.lock();
        let Some(progress) = book.applications.get_mut(key) else { return };
        if progress.revision == revision && !progress.delivered {
            progress.delivered = true;
            let took = progress.written.elapsed();
            record(&mut book.deliveries, took);
        }
    }

    /// Notes that the status for a revision has been seen at the control plane.
    pub(super) fn returned(&self, key: &Key, revision: u64) {
        let mut book = self.book.lock();
        let Some(progress) = book.applications.get_mut(key) else { return };
        if progress.revision == revision && !progress.returned {
            progress.returned = true;
            let took = progress.written.elapsed();
            record(&mut book.round_trips, took);
            self.settle(&mut book);
        }
    }

    /// Notes that an application was deleted at the control plane.
    pub(super) fn forget(&self, key: &Key) {
        let mut book = self.book.lock();
        if book.applications.remove(key).is_some_and(|progress| !progress.returned) {
            self.settle(&mut book);
        }
    }

    fn settle(&self, book: &mut Book) {
        book.unsettled -= 1;
        if book.unsettled == 0 {
            self.settled.notify_waiters();
        }
    }

    /// Waits until the status of every application has come back.
    pub(super) async fn converged(&self) {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            // Registered before the look, so that nothing between the two is missed.
            settled.as_mut().enable();
            if self.book.lock().unsettled == 0 {
                return;
            }
            settled.await;
        }
    }

    /// The applications that are not back yet, in words.
    pub(super) fn outstanding(&self) -> Vec<String> {
        let book = self.book.lock();
        let open = book.applications.iter().filter(|(_, progress)| !progress.returned);
        open.map(|((agent, name), progress)| {
            let what = if progress.delivered { "its status has not come back" } else { "it has not arrived" };
            format!("{agent}/{name}: {what} (revision {})", progress.revision)
        })
        .collect()
    }

    /// The keys of all applications.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.book.lock().applications.keys().cloned().collect()
    }

    /// Counts by agent.
    pub(super) fn counts(&self) -> BTreeMap<String, Counts> {
        let mut counts: BTreeMap<String, Counts> = BTreeMap::new();
        for ((agent, _), progress) in &self.book.lock().applications {
            let entry = counts.entry(agent.clone()).or_default();
            entry.applications += 1;
            entry.delivered += usize::from(progress.delivered);
            entry.returned += usize::from(progress.returned);
        }
        counts
    }

    /// From writing at the control plane to being seen on the cluster, in milliseconds.
    pub(super) fn deliveries(&self) -> Percentiles {
        percentiles(&self.book.lock().deliveries)
    }

    /// From writing at the control plane to the status being seen there, in milliseconds.
    pub(super) fn round_trips(&self) -> Percentiles {
        percentiles(&self.book.lock().round_trips)
    }
}

fn record(histogram: &mut Histogram<u64>, took: Duration) {
    histogram.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
}

fn percentiles(histogram: &Histogram<u64>) -> Percentiles {
    let milliseconds = |microseconds: u64| microseconds as f64 / 1000.0;
    Percentiles {
        p50: milliseconds(histogram.value_at_quantile(0.5)),
        p99: milliseconds(histogram.value_at_quantile(0.99)),
        max: milliseconds(histogram.max()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        ("cluster-1".to_owned(), name.to_owned())
    }

    #[tokio::test]
    async fn everything_has_converged_only_when_the_newest_revision_is_back() {
        let ledger = Ledger::new().unwrap();
        ledger.converged().await;
        let first = ledger.write(key("a"));
        let second = ledger.write(key("a"));
        let other = ledger.write(key("b"));
        ledger.delivered(&key("a"), first);
        ledger.returned(&key("a"), first);
        ledger.returned(&key("b"), other);
        assert_eq!(ledger.outstanding(), ["cluster-1/a: it has not arrived (revision 2)"]);
        ledger.delivered(&key("a"), second);
        ledger.delivered(&key("a"), second);
        assert_eq!(
            ledger.counts()["cluster-1"],
            Counts { applications: 2, delivered: 1, returned: 1 },
            "b was never seen on its way out"
        );
        let waiting = tokio::spawn(async move {
            ledger.converged().await;
            ledger
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        waiting.abort();
    }

    #[tokio::test]
    async fn what_is_deleted_is_not_waited_for() {
        let ledger = Ledger::new().unwrap();
        ledger.write(key("a"));
        ledger.forget(&key("a"));
        ledger.forget(&key("a"));
        ledger.converged().await;
        assert!(ledger.keys().is_empty());
    }
}
