//! Holds back updates of one Application that follow each other faster than users want them sent. Pure.
//!
//! The first goes at once. What follows within the interval waits, and only the newest of it goes when the interval ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tiphys_shared::model::{Object, ResourceKey};

/// When each resource may be sent again, and what waits for that.
#[derive(Debug)]
pub(crate) struct Pace {
    interval: Duration,
    resources: BTreeMap<ResourceKey, (Instant, Option<Arc<Object>>)>,
    due: BTreeSet<(Instant, ResourceKey)>,
}

impl Pace {
    /// Lets each resource pass once per interval.
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, resources: BTreeMap::new(), due: BTreeSet::new() }
    }

    /// A new state of the resource. Returns whether it is to be sent now.
    pub(crate) fn offer(&mut self, key: &ResourceKey, object: &Arc<Object>, now: Instant) -> bool {
        match self.resources.get_mut(key) {
            Some((_, waiting)) => {
                *waiting = Some(Arc::clone(object));
                false
            }
            None => {
                self.open(key.clone(), now);
                true
            }
        }
    }

    /// The resource is gone, or is sent for another reason: nothing waits any more.
    pub(crate) fn drop_waiting(&mut self, key: &ResourceKey) {
        if let Some((_, waiting)) = self.resources.get_mut(key) {
            *waiting = None;
        }
    }

    /// What is to be sent now.
    pub(crate) fn release(&mut self, now: Instant) -> Vec<(ResourceKey, Arc<Object>)> {
        let mut released = Vec::new();
        while self.due.first().is_some_and(|(due, _)| *due <= now) {
            let Some((_, key)) = self.due.pop_first() else { break };
            if let Some((_, Some(object))) = self.resources.remove(&key) {
                self.open(key.clone(), now);
                released.push((key, object));
            }
        }
        released
    }

    /// When there may be something to be sent.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    fn open(&mut self, key: ResourceKey, now: Instant) {
        let due = now + self.interval;
        self.due.insert((due, key.clone()));
        self.resources.insert(key, (due, None));
    }
}

#[cfg(test)]
mod tests {
    use tiphys_shared::kube::kinds::api_resource;
    use tiphys_shared::model::Kind;

    use super::*;

    fn state(version: u32) -> Arc<Object> {
        let mut object = Object::new("a", &api_resource(Kind::Application));
        object.metadata.resource_version = Some(version.to_string());
        Arc::new(object)
    }

    #[test]
    fn the_first_goes_at_once_and_then_only_the_newest_once_per_interval() {
        let (key, second) = (ResourceKey::new(Kind::Application, "n", "a"), Duration::from_secs(1));
        let mut pace = Pace::new(second);
        let start = Instant::now();
        assert!(pace.offer(&key, &state(1), start));
        assert!(!pace.offer(&key, &state(2), start));
        assert!(!pace.offer(&key, &state(3), start));
        assert_eq!(pace.next_due(), Some(start + second));
        assert!(pace.release(start + second / 2).is_empty());
        assert_eq!(pace.release(start + second), [(key.clone(), state(3))]);
        assert!(!pace.offer(&key, &state(4), start + second));
        pace.drop_waiting(&key);
        assert!(pace.release(start + 2 * second).is_empty());
        assert!(pace.offer(&key, &state(5), start + 2 * second), "the interval is over");
    }

    #[test]
    fn nothing_is_remembered_of_a_resource_that_rests() {
        let mut pace = Pace::new(Duration::from_secs(1));
        let start = Instant::now();
        for n in 0..100 {
            pace.offer(&ResourceKey::new(Kind::Application, "n", n.to_string()), &state(1), start);
        }
        pace.release(start + Duration::from_secs(1));
        assert!(pace.resources.is_empty() && pace.due.is_empty());
        assert_eq!(pace.next_due(), None);
    }
}
