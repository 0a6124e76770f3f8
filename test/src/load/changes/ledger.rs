//! What was written for one agent, and what of it is still on its way. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// What was written for one agent, by name of the Application.
#[derive(Debug, Default)]
pub(super) struct Ledger(BTreeMap<String, Entry>);

#[derive(Debug, Default)]
struct Entry {
    /// The change that it was last written with; none if it was deleted.
    number: Option<u64>,
    /// What the cluster has not shown yet, the oldest first.
    under_way: VecDeque<Change>,
}

#[derive(Debug)]
struct Change {
    number: u64,
    deletes: bool,
    /// When the control plane had it for certain.
    acknowledged: Option<Instant>,
}

impl Ledger {
    /// Whether the Application is there, as far as its users know.
    pub(super) fn is_there(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|entry| entry.number.is_some())
    }

    /// A change is about to be written.
    pub(super) fn begin(&mut self, name: &str, number: u64, deletes: bool) {
        let entry = self.0.entry(name.to_owned()).or_default();
        entry.number = (!deletes).then_some(number);
        entry.under_way.push_back(Change { number, deletes, acknowledged: None });
    }

    /// It was written.
    pub(super) fn acknowledged(&mut self, name: &str, number: u64, now: Instant) {
        let changes = self.0.get_mut(name).into_iter().flat_map(|entry| &mut entry.under_way);
        if let Some(change) = changes.into_iter().find(|change| change.number == number) {
            change.acknowledged = Some(now);
        }
    }

    /// The cluster shows this change. Returns how long it took, and those that it overtook.
    pub(super) fn shown(&mut self, name: &str, number: u64, now: Instant) -> Vec<Duration> {
        self.arrive(name, now, |under_way| under_way.iter().take_while(|it| it.number <= number).count())
    }

    /// The Application is gone from the cluster. Returns how long the oldest deletion took, and what it overtook.
    pub(super) fn gone(&mut self, name: &str, now: Instant) -> Vec<Duration> {
        self.arrive(name, now, |under_way| {
            under_way.iter().position(|change| change.deletes).map_or(0, |index| index + 1)
        })
    }

    fn arrive(
        &mut self,
        name: &str,
        now: Instant,
        how_many: impl Fn(&VecDeque<Change>) -> usize,
    ) -> Vec<Duration> {
        let Some(entry) = self.0.get_mut(name) else { return Vec::new() };
        let count = how_many(&entry.under_way);
        // What is seen before its writer has the answer has taken no time as far as the writer can tell.
        let took = |change: Change| change.acknowledged.map_or(Duration::ZERO, |since| now - since);
        entry.under_way.drain(..count).map(took).collect()
    }

    /// What there should be, by name: the number of the last change; none where it was deleted.
    pub(super) fn wanted(&self) -> BTreeMap<String, Option<u64>> {
        self.0.iter().map(|(name, entry)| (name.clone(), entry.number)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_change_arrives_with_itself_or_with_a_later_one_of_the_same_application() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        for number in 1..=3 {
            ledger.begin("a", number, false);
            ledger.acknowledged("a", number, start + SECOND * u32::try_from(number).unwrap());
        }
        ledger.begin("b", 4, false);
        assert_eq!(ledger.shown("a", 2, start + 5 * SECOND), [4 * SECOND, 3 * SECOND]);
        assert!(ledger.shown("a", 2, start + 6 * SECOND).is_empty(), "it arrived twice");
        assert_eq!(ledger.shown("a", 3, start + 6 * SECOND), [3 * SECOND]);
        assert_eq!(ledger.shown("b", 4, start), [Duration::ZERO], "seen before its writer had the answer");
        assert!(ledger.shown("c", 1, start).is_empty());
    }

    #[test]
    fn a_deletion_arrives_when_the_application_is_gone_and_overtakes_what_was_before_it() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        ledger.begin("a", 1, false);
        assert!(ledger.is_there("a"));
        ledger.begin("a", 2, true);
        assert!(!ledger.is_there("a"));
        ledger.begin("a", 3, false);
        assert_eq!(ledger.gone("a", start).len(), 2);
        assert!(ledger.gone("a", start).is_empty(), "nobody deleted it again");
        assert_eq!(ledger.wanted(), [("a".to_owned(), Some(3))].into());
        ledger.begin("a", 4, true);
        assert_eq!(ledger.wanted(), [("a".to_owned(), None)].into());
    }
}
