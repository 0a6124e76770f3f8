//! What a peer said and has not been handled yet: in order per lane, lanes side by side.
//!
//! A lane is the resource that an event is about. Pure: the caller runs what [`Inbox::take`] hands out.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Events waiting for their handlers, and lanes that are being handled.
#[derive(Debug)]
pub struct Inbox<K, T> {
    lanes: HashMap<K, Lane<T>>,
    ready: VecDeque<K>,
    waiting: usize,
    running: usize,
    limits: Limits,
}

/// How much an inbox holds and hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Events that may wait. When as many do, the caller stops reading, and the peer feels it.
    pub waiting: usize,
    /// Lanes that may be handled at once.
    pub running: usize,
}

#[derive(Debug)]
struct Lane<T> {
    waiting: VecDeque<T>,
    running: bool,
}

impl<K: Clone + Eq + Hash, T> Inbox<K, T> {
    /// An empty inbox.
    pub fn new(limits: Limits) -> Self {
        Self { lanes: HashMap::new(), ready: VecDeque::new(), waiting: 0, running: 0, limits }
    }

    /// Whether the caller should stop reading for now.
    pub fn is_full(&self) -> bool {
        self.waiting >= self.limits.waiting
    }

    /// Number of events that wait or are being handled.
    pub fn len(&self) -> usize {
        self.waiting + self.running
    }

    /// Whether nothing waits and nothing is being handled.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds an event to the end of its lane.
    pub fn push(&mut self, lane: K, event: T) {
        let entry = self
            .lanes
            .entry(lane.clone())
            .or_insert_with(|| Lane { waiting: VecDeque::new(), running: false });
        if !entry.running && entry.waiting.is_empty() {
            self.ready.push_back(lane);
        }
        entry.waiting.push_back(event);
        self.waiting += 1;
    }

    /// Hands out the first event of a lane that is not being handled. Each must be followed by [`done`](Self::done).
    pub fn take(&mut self) -> Option<(K, T)> {
        if self.running >= self.limits.running {
            return None;
        }
        let lane = self.ready.pop_front()?;
        let entry = self.lanes.get_mut(&lane)?;
        let event = entry.waiting.pop_front()?;
        entry.running = true;
        self.waiting -= 1;
        self.running += 1;
        Some((lane, event))
    }

    /// The event handed out for this lane has been handled.
    pub fn done(&mut self, lane: &K) {
        let Some(entry) = self.lanes.get_mut(lane).filter(|entry| entry.running) else { return };
        self.running -= 1;
        entry.running = false;
        if entry.waiting.is_empty() {
            self.lanes.remove(lane);
        } else {
            self.ready.push_back(lane.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push(u8),
        Take,
        Finish(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        proptest::collection::vec(
            prop_oneof![
                (0_u8..4).prop_map(Step::Push),
                Just(Step::Take),
                (0_usize..4).prop_map(Step::Finish)
            ],
            0..200,
        )
    }

    proptest! {
        #[test]
        fn each_lane_is_handled_in_order_one_at_a_time_and_nothing_is_lost(steps in steps()) {
            let mut inbox = Inbox::new(Limits { waiting: 1000, running: 3 });
            let mut pushed = HashMap::<u8, Vec<usize>>::new();
            let mut handled = HashMap::<u8, Vec<usize>>::new();
            let mut running: Vec<u8> = Vec::new();
            let mut total = 0;
            for step in steps {
                match step {
                    Step::Push(lane) => {
                        inbox.push(lane, total);
                        pushed.entry(lane).or_default().push(total);
                        total += 1;
                    }
                    Step::Take => {
                        if let Some((lane, event)) = inbox.take() {
                            prop_assert!(!running.contains(&lane), "lane {lane} handled twice at once");
                            running.push(lane);
                            prop_assert!(running.len() <= 3);
                            handled.entry(lane).or_default().push(event);
                        }
                    }
                    Step::Finish(nth) if !running.is_empty() => {
                        let lane = running.remove(nth % running.len());
                        inbox.done(&lane);
                    }
                    Step::Finish(_) => {}
                }
            }
            loop {
                for lane in running.drain(..) {
                    inbox.done(&lane);
                }
                let Some((lane, event)) = inbox.take() else { break };
                handled.entry(lane).or_default().push(event);
                running.push(lane);
            }
            prop_assert!(inbox.is_empty());
            prop_assert_eq!(handled, pushed);
        }
    }

    #[test]
    fn a_slow_lane_delays_only_itself() {
        let mut inbox = Inbox::new(Limits { waiting: 10, running: 2 });
        inbox.push("slow", 1);
        inbox.push("slow", 2);
        inbox.push("quick", 3);
        assert_eq!(inbox.take(), Some(("slow", 1)));
        assert_eq!(inbox.take(), Some(("quick", 3)));
        inbox.done(&"quick");
        assert_eq!(inbox.take(), None, "the slow lane was handled twice at once");
        inbox.done(&"slow");
        assert_eq!(inbox.take(), Some(("slow", 2)));
    }
}
