use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::model::Kind;

/// One state of one life of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    life: u32,
    state: u32,
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8),
    Remove(u8),
    Operate(u8),
    Send,
    Process,
    Ack,
    Reconnect,
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(
        prop_oneof![
            4 => (0_u8..3).prop_map(Step::Put),
            2 => (0_u8..3).prop_map(Step::Remove),
            1 => (0_u8..3).prop_map(Step::Operate),
            4 => Just(Step::Send),
            4 => Just(Step::Process),
            4 => Just(Step::Ack),
            1 => Just(Step::Reconnect),
            1 => (1_u64..200).prop_map(Step::Wait),
        ],
        0..300,
    )
}

fn key(name: u8) -> ResourceKey {
    ResourceKey::new(Kind::Application, "agent", format!("app-{name}"))
}

/// A peer that does what it is told, and a stream that loses its tail when it breaks.
struct World {
    outbox: Outbox<Version>,
    now: Instant,
    next_id: u32,
    lives: u32,
    truth: BTreeMap<ResourceKey, Version>,
    operations: BTreeMap<ResourceKey, u32>,
    wire: VecDeque<(Key, Item<Version>, EventId)>,
    acks: VecDeque<EventId>,
    peer: BTreeMap<ResourceKey, Version>,
    peer_operations: BTreeMap<ResourceKey, u32>,
    unacked: BTreeMap<Key, u32>,
}

impl World {
    fn new() -> Self {
        Self {
            outbox: Outbox::new(),
            now: Instant::now(),
            next_id: 0,
            lives: 0,
            truth: BTreeMap::new(),
            operations: BTreeMap::new(),
            wire: VecDeque::new(),
            acks: VecDeque::new(),
            peer: BTreeMap::new(),
            peer_operations: BTreeMap::new(),
            unacked: BTreeMap::new(),
        }
    }

    fn put(&mut self, name: u8) {
        let key = key(name);
        let created = !self.truth.contains_key(&key);
        if created {
            self.lives += 1;
        }
        let lives = self.lives;
        let version = self.truth.entry(key.clone()).or_insert(Version { life: lives, state: 0 });
        version.state += 1;
        let version = *version;
        self.outbox.put(key, version, created);
    }

    fn remove(&mut self, name: u8) {
        let key = key(name);
        if let Some(last) = self.truth.remove(&key) {
            self.operations.remove(&key);
            self.outbox.remove(key, last);
        }
    }

    fn operate(&mut self, name: u8) {
        let key = key(name);
        if let Some(version) = self.truth.get(&key) {
            self.operations.insert(key.clone(), version.life);
            self.outbox.operate(key, *version);
        }
    }

    fn send(&mut self) -> Result<bool, TestCaseError> {
        let Some((key, item)) = self.outbox.next(self.now) else { return Ok(false) };
        self.next_id += 1;
        let id = EventId(self.next_id.to_string());
        self.outbox.sent(key.clone(), item.clone(), id.clone(), self.now);
        *self.unacked.entry(key.clone()).or_default() += 1;
        self.wire.push_back((key, item, id));
        Ok(true)
    }

    fn process(&mut self) -> Result<bool, TestCaseError> {
        let Some((key, item, id)) = self.wire.pop_front() else { return Ok(false) };
        let Key::Resource(key) = key else { return Ok(true) };
        match item {
            Item::State { value, .. } => {
                if let Some(held) = self.peer.get(&key) {
                    prop_assert!(held.life == value.life, "{key} was born again before it died");
                }
                self.peer.insert(key, value);
            }
            Item::Delete(_) => {
                self.peer.remove(&key);
                self.peer_operations.remove(&key);
            }
            Item::Operation(value) => {
                prop_assert!(self.peer.contains_key(&key), "an operation came before its resource");
                self.peer_operations.insert(key, value.life);
            }
            Item::Terminate(_) | Item::Request(_) => {}
        }
        self.acks.push_back(id);
        Ok(true)
    }

    fn ack(&mut self) -> bool {
        let Some(id) = self.acks.pop_front() else { return false };
        self.outbox.acked(&id);
        true
    }

    fn reconnect(&mut self) {
        self.wire.clear();
        self.acks.clear();
        self.unacked.clear();
        self.outbox.reconnected();
    }

    fn settle(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..10_000 {
            let mut moved = self.send()?;
            moved |= self.process()?;
            moved |= self.ack();
            if !moved {
                return Ok(());
            }
        }
        Err(TestCaseError::fail("the outbox never came to rest"))
    }
}

proptest! {
    #[test]
    fn the_peer_comes_to_see_each_resource_as_it_is_whatever_is_lost(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Put(name) => world.put(name),
                Step::Remove(name) => world.remove(name),
                Step::Operate(name) => world.operate(name),
                Step::Send => _ = world.send()?,
                Step::Process => _ = world.process()?,
                Step::Ack => _ = world.ack(),
                Step::Reconnect => world.reconnect(),
                Step::Wait(seconds) => world.now += Duration::from_secs(seconds),
            }
            prop_assert!(world.outbox.len() <= 3, "more entries than resources");
        }
        world.settle()?;
        // Whatever a broken stream swallowed is sent again on the next.
        world.reconnect();
        world.settle()?;
        prop_assert!(world.outbox.is_empty(), "{:?}", world.outbox);
        prop_assert_eq!(&world.peer, &world.truth);
        for (key, life) in &world.operations {
            if world.truth.get(key).is_some_and(|version| version.life == *life) {
                prop_assert_eq!(world.peer_operations.get(key), Some(life), "an operation was lost");
            }
        }
    }
}

fn value(state: u32) -> Version {
    Version { life: 1, state }
}

fn id(text: &str) -> EventId {
    EventId(text.to_owned())
}

#[test]
fn ten_thousand_updates_of_one_resource_are_one_entry_and_the_newest_is_sent() {
    let mut outbox = Outbox::new();
    for state in 0..10_000 {
        outbox.put(key(1), value(state), state == 0);
    }
    assert_eq!(outbox.len(), 1);
    let now = Instant::now();
    let (sent, item) = outbox.next(now).unwrap();
    assert_eq!(item, Item::State { value: value(9_999), created: true });
    outbox.sent(sent, item, id("a"), now);
    assert_eq!(outbox.next(now), None);
}

#[test]
fn an_acknowledgement_of_an_older_event_does_not_clear_a_newer_one() {
    let mut outbox = Outbox::new();
    let start = Instant::now();
    outbox.put(key(1), value(1), true);
    let (sent, item) = outbox.next(start).unwrap();
    outbox.sent(sent, item, id("first"), start);
    outbox.put(key(1), value(2), false);
    let later = start + RESEND_FIRST;
    let (sent, item) = outbox.next(later).unwrap();
    assert_eq!(
        item,
        Item::State { value: value(2), created: true },
        "the newer state goes instead of the older"
    );
    outbox.sent(sent, item, id("second"), later);
    assert!(outbox.acked(&id("first")).is_none());
    assert!(outbox.is_pending(&key(1)));
    assert!(outbox.acked(&id("second")).is_some());
    assert!(outbox.is_empty());
}

#[test]
fn an_operation_outlives_later_states_and_follows_the_first() {
    let mut outbox = Outbox::new();
    let now = Instant::now();
    outbox.put(key(1), value(1), true);
    outbox.operate(key(1), value(1));
    outbox.put(key(1), value(2), false);
    let (sent, item) = outbox.next(now).unwrap();
    assert_eq!(item, Item::State { value: value(2), created: true });
    outbox.sent(sent, item, id("state"), now);
    assert_eq!(outbox.next(now), None, "the operation overtook its resource");
    outbox.acked(&id("state"));
    assert_eq!(outbox.next(now).unwrap().1, Item::Operation(value(1)));
}

#[test]
fn an_operation_dies_with_its_resource_also_when_it_was_in_flight() {
    let mut outbox = Outbox::new();
    let now = Instant::now();
    outbox.operate(key(1), value(1));
    let (sent, item) = outbox.next(now).unwrap();
    outbox.sent(sent, item, id("operation"), now);
    outbox.remove(key(1), value(1));
    outbox.reconnected();
    let (sent, item) = outbox.next(now).unwrap();
    assert_eq!(item, Item::Delete(value(1)));
    outbox.sent(sent, item, id("delete"), now);
    outbox.acked(&id("delete"));
    assert!(outbox.is_empty(), "the operation came back");
}

#[test]
fn waits_between_attempts_grow_to_two_minutes() {
    let waits: Vec<u64> = (1..6).map(|attempt| resend_after(attempt).as_secs()).collect();
    assert_eq!(waits, [5, 20, 80, 120, 120]);
    let mut outbox = Outbox::new();
    let mut now = Instant::now();
    outbox.put(key(1), value(1), true);
    for (attempt, wait) in waits.iter().enumerate() {
        let (sent, item) = outbox.next(now).unwrap();
        outbox.sent(sent, item, id(&attempt.to_string()), now);
        assert_eq!(outbox.next_due(), Some(now + Duration::from_secs(*wait)));
        assert_eq!(outbox.next(now + Duration::from_secs(wait - 1)), None);
        now += Duration::from_secs(*wait);
    }
}

#[test]
fn requests_end_with_the_stream_that_they_were_made_on() {
    let mut outbox = Outbox::new();
    let now = Instant::now();
    outbox.request("list", value(1));
    let (sent, item) = outbox.next(now).unwrap();
    outbox.sent(sent, item, id("list"), now);
    outbox.reconnected();
    assert!(outbox.is_empty());
    assert_eq!(outbox.next(now), None);
}

#[test]
fn the_window_bounds_what_is_in_flight() {
    let mut outbox = Outbox::new();
    let now = Instant::now();
    for n in 0..WINDOW + 10 {
        outbox.put(ResourceKey::new(Kind::Application, "agent", n.to_string()), value(1), true);
    }
    let mut sent = 0;
    while let Some((key, item)) = outbox.next(now) {
        outbox.sent(key, item, id(&sent.to_string()), now);
        sent += 1;
    }
    assert_eq!(sent, WINDOW);
    outbox.acked(&id("0"));
    assert!(outbox.next(now).is_some());
}

#[test]
fn the_peer_is_behind_since_the_oldest_change_that_it_has_not_acknowledged() {
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    let mut outbox = Outbox::new();
    outbox.at(start);
    outbox.put(key(1), value(1), true);
    outbox.at(after(1));
    outbox.put(key(1), value(2), false);
    assert_eq!(outbox.oldest(), Some(start), "the newer state is younger than the peer's ignorance");
    let (sent, item) = outbox.next(after(2)).unwrap();
    outbox.sent(sent, item, id("first"), after(2));
    outbox.at(after(3));
    outbox.put(key(1), value(3), false);
    outbox.put(key(2), value(1), true);
    assert_eq!(outbox.oldest(), Some(start));
    assert_eq!(outbox.acked(&id("first")).unwrap().since, Some(start));
    assert_eq!(outbox.oldest(), Some(after(3)));
    for _ in 0..2 {
        let (sent, item) = outbox.next(after(4)).unwrap();
        outbox.sent(sent, item, id("lost"), after(4));
        outbox.at(after(5));
        outbox.reconnected();
    }
    assert_eq!(outbox.oldest(), Some(after(3)), "what was lost is as old as it was");
}

#[test]
fn word_of_an_absence_is_about_the_last_life_whatever_was_to_be_said_before() {
    let same = |one: &Version, other: &Version| one.life == other.life;
    let life = |life| Version { life, state: 0 };
    let (mut outbox, now) = (Outbox::new(), Instant::now());
    outbox.report_gone(key(1), life(1), same);
    outbox.report_gone(key(1), life(2), same);
    let (sent, item) = outbox.next(now).unwrap();
    assert_eq!(item, Item::Delete(life(2)));
    outbox.sent(sent, item, id("second"), now);
    // It is told once, and the next life's follows.
    outbox.report_gone(key(1), life(2), same);
    outbox.report_gone(key(1), life(3), same);
    outbox.reconnected();
    let (sent, item) = outbox.next(now).unwrap();
    assert_eq!(item, Item::Delete(life(3)), "what was in flight is outdated");
    outbox.sent(sent, item, id("third"), now);
    outbox.report_gone(key(1), life(3), same);
    outbox.acked(&id("third"));
    assert!(outbox.is_empty());
}
