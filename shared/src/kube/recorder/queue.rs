//! What is to be written, and when. Pure.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use tokio::time::Instant;

use super::{Event, Limits, Regarding};

/// What is one write however often it is told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) regarding: Regarding,
    pub(super) reason: &'static str,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// This is to be written now.
    Write(Key, Event),
    /// Nothing before then, unless something is put down.
    Wait(Instant),
    /// Nothing, until something is put down.
    Idle,
}

/// What waits, in the order in which it was first told; of each key the newest word.
#[derive(Debug)]
pub(super) struct Queue {
    limits: Limits,
    waiting: IndexMap<Key, Event>,
    /// What was written within the last pause, and when.
    written: BTreeMap<Key, Instant>,
    /// When the writes so far are paid for, at one for each interval.
    paid: Option<Instant>,
}

impl Queue {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, waiting: IndexMap::new(), written: BTreeMap::new(), paid: None }
    }

    /// Puts it down. False if there is no room.
    pub(super) fn put(&mut self, key: Key, event: Event) -> bool {
        let room = if event.is_warning { self.limits.waiting } else { self.limits.waiting / 2 };
        if self.waiting.len() >= room && !self.waiting.contains_key(&key) {
            return false;
        }
        self.waiting.insert(key, event);
        true
    }

    /// What is to be done now. What is to be written counts as written.
    pub(super) fn next(&mut self, now: Instant) -> Step {
        let pause = self.limits.pause;
        self.written.retain(|_, at| now < *at + pause);
        let ripe = |key: &Key| self.written.get(key).map_or(now, |at| *at + pause);
        let Some((index, at)) =
            self.waiting.keys().map(&ripe).enumerate().min_by_key(|(index, at)| (*at, *index))
        else {
            return Step::Idle;
        };
        let credit = self.limits.interval * self.limits.burst.saturating_sub(1);
        let paced = self.paid.and_then(|paid| paid.checked_sub(credit)).map_or(now, |from| from.max(now));
        if at.max(paced) > now {
            return Step::Wait(at.max(paced));
        }
        let Some((key, event)) = self.waiting.shift_remove_index(index) else { return Step::Idle };
        self.paid = Some(self.paid.map_or(now, |paid| paid.max(now)) + self.limits.interval);
        self.written.insert(key.clone(), now);
        Step::Write(key, event)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::AgentName;

    const LIMITS: Limits =
        Limits { pause: Duration::from_secs(60), burst: 3, interval: Duration::from_secs(1), waiting: 8 };

    fn key(agent: &str, reason: &'static str) -> Key {
        Key { regarding: Regarding::ClusterOf(AgentName::new(agent).unwrap()), reason }
    }

    fn warning(note: &str) -> Event {
        Event::warning("Gone", "Go", note)
    }

    fn written(queue: &mut Queue, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| match queue.next(now) {
            Step::Write(_, event) => Some(event.note),
            Step::Wait(_) | Step::Idle => None,
        })
        .collect()
    }

    #[test]
    fn what_repeats_itself_is_written_once_for_each_pause_with_its_newest_word() {
        let (mut queue, start) = (Queue::new(LIMITS), Instant::now());
        assert_eq!(queue.next(start), Step::Idle);
        assert!(queue.put(key("a", "Gone"), warning("1")));
        assert_eq!(written(&mut queue, start), ["1"]);
        for note in ["2", "3"] {
            assert!(queue.put(key("a", "Gone"), warning(note)));
        }
        assert!(queue.put(key("a", "Came"), warning("other reason")));
        assert!(queue.put(key("b", "Gone"), warning("other object")));
        assert_eq!(written(&mut queue, start), ["other reason", "other object"]);
        let ripe = start + LIMITS.pause;
        assert_eq!(queue.next(start), Step::Wait(ripe));
        assert_eq!(written(&mut queue, ripe), ["3"]);
        assert_eq!(queue.next(ripe), Step::Idle);
    }

    #[test]
    fn all_together_keep_to_a_pace_after_a_burst() {
        let (mut queue, start) = (Queue::new(LIMITS), Instant::now());
        for agent in ["a", "b", "c", "d", "e"] {
            assert!(queue.put(key(agent, "Gone"), warning(agent)));
        }
        assert_eq!(written(&mut queue, start), ["a", "b", "c"]);
        assert_eq!(queue.next(start), Step::Wait(start + LIMITS.interval));
        assert_eq!(written(&mut queue, start + LIMITS.interval), ["d"]);
        assert_eq!(written(&mut queue, start + 2 * LIMITS.interval), ["e"]);
        // Silence gives the burst back, and no more than that.
        let later = start + LIMITS.pause * 10;
        for agent in ["a", "b", "c", "d", "e"] {
            assert!(queue.put(key(agent, "Gone"), warning(agent)));
        }
        assert_eq!(written(&mut queue, later), ["a", "b", "c"]);
    }

    #[test]
    fn what_waits_is_bounded_and_warnings_have_room_that_the_rest_has_not() {
        let mut queue = Queue::new(LIMITS);
        let agents: Vec<String> = (0..2 * LIMITS.waiting).map(|n| format!("a{n}")).collect();
        let fitting = |queue: &mut Queue, event: &Event| {
            agents.iter().filter(|agent| queue.put(key(agent, event.reason), event.clone())).count()
        };
        assert_eq!(fitting(&mut queue, &Event::normal("Came", "Come", "")), LIMITS.waiting / 2);
        assert_eq!(fitting(&mut queue, &warning("")), LIMITS.waiting / 2);
        assert!(queue.put(key("a0", "Gone"), warning("news of what waits")), "it takes no more room");
        let start = Instant::now();
        for n in 0..4 * LIMITS.waiting {
            _ = queue.next(start + LIMITS.interval * u32::try_from(n).unwrap());
        }
        assert!(queue.waiting.is_empty());
        assert!(queue.written.len() <= LIMITS.waiting);
    }
}
