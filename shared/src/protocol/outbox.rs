//! What a peer must come to see, and what of it is on its way.
//!
//! An entry is keyed by resource and says "the peer must come to see this resource as it now is", not "this happened":
//! a newer state replaces an older unsent one, so the outbox is bounded by the number of resources, whatever the number
//! of changes. One message per resource is in flight; it leaves by the acknowledgement of its own event id, and is
//! sent again after a while or at once on the next stream. Within a resource the order is delete, state, operation,
//! termination: a delete that is waiting belongs to an earlier life of the name, and an operation makes sense only once
//! its resource is there.
//!
//! Pure: the caller says what time it is, and sends.

mod entry;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use self::entry::{Entry, InFlight};
use crate::model::{EventId, ResourceKey};

/// First wait before an unacknowledged message is sent again; each further wait is [`RESEND_FACTOR`] times longer.
pub const RESEND_FIRST: Duration = Duration::from_secs(5);
/// Growth of the wait between two attempts.
pub const RESEND_FACTOR: u32 = 4;
/// Longest wait between two attempts.
pub const RESEND_MAX: Duration = Duration::from_secs(120);
/// How many messages may wait for their acknowledgement at once. Keeps a burst from being resent while the peer still
/// works on it, and a slow peer from being buried.
pub const WINDOW: usize = 512;

/// Entries from which on a peer's questions and claims add none: one that makes names up cannot make us grow. What is left out
/// is found by the next comparison.
const CROWD: usize = 32 * 1024;
/// The same for requests alone.
const MANY: usize = 1024;

/// What an entry is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A resource, by its name on the sender's side.
    Resource(ResourceKey),
    /// A request of its own, named by the sender. It lives as long as the stream that it was made on.
    Request(String),
}

/// One message to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item<T> {
    /// The resource is gone; `T` is what it last was.
    Delete(T),
    /// The resource as it now is.
    State {
        /// The resource.
        value: T,
        /// The peer has not acknowledged this life of the resource yet, so far as this process knows.
        created: bool,
    },
    /// An operation was requested on the resource.
    Operation(T),
    /// The running operation shall be stopped.
    Terminate(T),
    /// A request.
    Request(T),
}

impl<T> Item<T> {
    /// What kind of message it is, in a word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Delete(_) => "delete",
            Self::State { created: true, .. } => "create",
            Self::State { .. } => "update",
            Self::Operation(_) => "set-operation",
            Self::Terminate(_) => "terminate-operation",
            Self::Request(_) => "request",
        }
    }

    /// The resource or request itself.
    pub fn value(&self) -> &T {
        match self {
            Self::Delete(value)
            | Self::State { value, .. }
            | Self::Operation(value)
            | Self::Terminate(value)
            | Self::Request(value) => value,
        }
    }
}

/// What the peer has acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acked<T> {
    /// What it is about.
    pub key: Key,
    /// The message.
    pub item: Item<T>,
    /// Since when the peer was to come to see it; none if nobody said what time it was.
    pub since: Option<Instant>,
}

/// The outbox of one peer.
#[derive(Debug)]
pub struct Outbox<T> {
    entries: BTreeMap<Key, Entry<T>>,
    ready: VecDeque<Key>,
    in_flight: HashMap<EventId, Key>,
    due: BTreeSet<(Instant, Key)>,
    now: Option<Instant>,
}

impl<T> Default for Outbox<T> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            ready: VecDeque::new(),
            in_flight: HashMap::new(),
            due: BTreeSet::new(),
            now: None,
        }
    }
}

impl<T: Clone> Outbox<T> {
    /// An empty outbox.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is changed from here on is changed at `now`.
    pub fn at(&mut self, now: Instant) {
        self.now = Some(now);
    }

    /// The peer must come to see the resource as `value`. `created` says that this is the start of its life.
    pub fn put(&mut self, key: ResourceKey, value: T, created: bool) {
        let key = Key::Resource(key);
        let entry = self.entries.entry(key.clone()).or_default();
        let created = created || matches!(entry.state, Some((_, true)));
        entry.state = Some((value, created));
        self.enqueue(key);
    }

    /// The peer must come to see that the resource is gone; `last` is what it last was.
    ///
    /// What was not sent of this life of the resource is dropped. A delete that is still waiting or unacknowledged
    /// stands for the life that the peer knows of, and stays.
    pub fn remove(&mut self, key: ResourceKey, last: T) {
        let key = Key::Resource(key);
        let entry = self.entries.entry(key.clone()).or_default();
        entry.state = None;
        entry.operation = None;
        entry.terminate = None;
        let told_already =
            entry.delete.is_some() || matches!(entry.in_flight, Some(InFlight { item: Item::Delete(_), .. }));
        if !told_already {
            entry.delete = Some(last);
        }
        self.enqueue(key);
    }

    /// The peer, whose resource it is, waits for word that nothing of it is left here; `last` is the life that is meant.
    ///
    /// The peer knows all its lives, and waits only for the end of the last one: that replaces what was to be said of an
    /// earlier one, and follows what was said already, if that was not of the `same_life`.
    pub fn report_gone(&mut self, key: ResourceKey, last: T, same_life: impl Fn(&T, &T) -> bool) {
        let key = Key::Resource(key);
        let entry = self.entries.entry(key.clone()).or_default();
        entry.state = None;
        entry.operation = None;
        entry.terminate = None;
        let under_way = entry
            .in_flight
            .as_ref()
            .is_some_and(|flight| matches!(&flight.item, Item::Delete(told) if same_life(told, &last)));
        entry.delete = (!under_way).then_some(last);
        self.enqueue(key);
    }

    /// An operation was requested on the resource. It has an acknowledgement of its own: no later state replaces it.
    pub fn operate(&mut self, key: ResourceKey, value: T) {
        let key = Key::Resource(key);
        self.entries.entry(key.clone()).or_default().operation = Some(value);
        self.enqueue(key);
    }

    /// The operation that runs on the resource shall be stopped.
    pub fn terminate(&mut self, key: ResourceKey, value: T) {
        let key = Key::Resource(key);
        let entry = self.entries.entry(key.clone()).or_default();
        entry.operation = None;
        entry.terminate = Some(value);
        self.enqueue(key);
    }

    /// Sends a request, replacing an unsent one of the same name.
    pub fn request(&mut self, name: impl Into<String>, value: T) {
        let key = Key::Request(name.into());
        self.entries.entry(key.clone()).or_default().request = Some(value);
        self.enqueue(key);
    }

    /// The next message that may be sent now, if any. It must be followed by [`sent`](Self::sent) or, if there is nothing
    /// to say about it after all, by [`skip`](Self::skip).
    pub fn next(&mut self, now: Instant) -> Option<(Key, Item<T>)> {
        while self.due.first().is_some_and(|(due, _)| *due <= now) {
            let Some((_, key)) = self.due.pop_first() else { break };
            if let Some(entry) = self.entries.get_mut(&key)
                && let Some(flight) = entry.in_flight.take()
            {
                self.in_flight.remove(&flight.id);
                entry.attempts = flight.attempts;
                entry.put_back(flight);
                self.enqueue(key);
            }
        }
        if self.in_flight.len() >= WINDOW {
            return None;
        }
        while let Some(key) = self.ready.pop_front() {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.queued = false;
            if entry.in_flight.is_some() {
                continue;
            }
            match entry.take() {
                Some(item) => return Some((key, item)),
                None => _ = self.entries.remove(&key),
            }
        }
        None
    }

    /// The message was handed to the stream under this event id. Returns since when the peer was to come to see it.
    pub fn sent(&mut self, key: Key, item: Item<T>, id: EventId, now: Instant) -> Option<Instant> {
        let entry = self.entries.entry(key.clone()).or_default();
        let attempts = entry.attempts.saturating_add(1);
        entry.attempts = 0;
        let due = now + resend_after(attempts);
        self.due.insert((due, key.clone()));
        if let Some(older) = self.in_flight.insert(id.clone(), key) {
            // Two entries under one event id: a peer could not tell them apart, so the older is acknowledged with it.
            tracing::debug!(event_id = %id, key = ?older, "event id in flight twice");
        }
        let since = if entry.has_unsent() { entry.since } else { entry.since.take() };
        entry.in_flight = Some(InFlight { id, item, since, attempts, due });
        since
    }

    /// There is nothing to say about what [`next`](Self::next) returned.
    pub fn skip(&mut self, key: Key) {
        self.settle(key);
    }

    /// The peer acknowledged the event. Returns what it was, if it was awaited.
    pub fn acked(&mut self, id: &EventId) -> Option<Acked<T>> {
        let key = self.in_flight.remove(id)?;
        let entry = self.entries.get_mut(&key)?;
        let flight = entry.in_flight.take_if(|flight| flight.id == *id)?;
        self.due.remove(&(flight.due, key.clone()));
        if let (Item::State { .. }, Some((_, created))) = (&flight.item, &mut entry.state) {
            // The peer knows this life of the resource now.
            *created = false;
        }
        self.settle(key.clone());
        Some(Acked { key, item: flight.item, since: flight.since })
    }

    /// A new stream: what was in flight is sent again at once, requests of the old stream are forgotten.
    pub fn reconnected(&mut self) {
        self.in_flight.clear();
        self.due.clear();
        let keys: Vec<Key> = self.entries.keys().cloned().collect();
        for key in keys {
            if matches!(key, Key::Request(_)) {
                self.entries.remove(&key);
                continue;
            }
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.attempts = 0;
                if let Some(flight) = entry.in_flight.take() {
                    entry.put_back(flight);
                }
            }
            self.enqueue(key);
        }
        self.ready.retain(|key| self.entries.contains_key(key));
    }

    /// When a message in flight is due to be sent again.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Whether the peer has yet to acknowledge something about the resource.
    pub fn is_pending(&self, key: &ResourceKey) -> bool {
        self.entries
            .get(&Key::Resource(key.clone()))
            .is_some_and(|entry| entry.in_flight.is_some() || entry.has_unsent())
    }

    /// Number of requests that the peer has yet to acknowledge.
    pub fn requests(&self) -> usize {
        let first = Key::Request(String::new());
        self.entries.range(first..).take(MANY).count()
    }

    /// Whether so much waits that nothing more should be added merely because the peer says so.
    pub fn is_crowded(&self) -> bool {
        self.entries.len() >= CROWD || self.requests() >= MANY
    }

    /// Number of resources and requests that the peer has yet to acknowledge.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the peer has acknowledged everything.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Since when the peer has been behind: the oldest change that it has yet to acknowledge.
    pub fn oldest(&self) -> Option<Instant> {
        let flights = |entry: &Entry<T>| entry.in_flight.as_ref().and_then(|flight| flight.since);
        self.entries.values().flat_map(|entry| entry.since.into_iter().chain(flights(entry))).min()
    }

    /// How many messages wait, by what they say: for people and metrics.
    pub fn depths(&self) -> BTreeMap<&'static str, usize> {
        let in_flight = self.in_flight.len();
        BTreeMap::from([("in_flight", in_flight), ("waiting", self.entries.len().saturating_sub(in_flight))])
    }

    fn settle(&mut self, key: Key) {
        match self.entries.get(&key) {
            Some(entry) if entry.in_flight.is_none() && !entry.has_unsent() => _ = self.entries.remove(&key),
            Some(_) => self.enqueue(key),
            None => {}
        }
    }

    fn enqueue(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.has_unsent()) else { return };
        entry.since = entry.since.or(self.now);
        if !entry.queued && entry.in_flight.is_none() {
            entry.queued = true;
            self.ready.push_back(key);
        }
    }
}

fn resend_after(attempts: u32) -> Duration {
    let factor = RESEND_FACTOR.saturating_pow(attempts.saturating_sub(1));
    RESEND_FIRST.saturating_mul(factor).min(RESEND_MAX)
}

#[cfg(test)]
mod tests;
