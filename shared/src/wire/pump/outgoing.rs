//! What one side has to say, shared by those who say it and the pump that sends it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::model::event::{Event, EventId};
use crate::model::{Object, ResourceKey};
use crate::protocol::outbox::{Acked, Outbox};
use crate::wire::express::{Express, Unsent};
use crate::wire::traces::Journeys;

/// What waits in an outbox.
#[derive(Clone, Debug)]
pub enum Outgoing {
    /// A resource as its sender has it. What the peer may see of it is decided when it is sent.
    Object(Arc<Object>),
    /// A message of its own.
    Message(Box<Event>),
}

/// A peer's outbox, shared by those who fill it and the pump that empties it. Outlives every stream.
#[derive(Debug, Default)]
pub struct SharedOutbox {
    pub(super) outbox: Mutex<Outbox<Outgoing>>,
    pub(super) express: Express,
    pub(super) filled: Notify,
    pub(super) acked: Notify,
    /// The traces of what goes through it, and of what is heard in return.
    pub(super) journeys: Journeys,
    /// Held by the pump that empties it: a new stream waits for the last word of the one before.
    pub(super) pumping: tokio::sync::Mutex<()>,
}

impl SharedOutbox {
    /// An empty one whose events are traced.
    pub fn new(journeys: Journeys) -> Self {
        Self { journeys, ..Self::default() }
    }

    /// Changes the outbox and wakes the pump.
    pub fn fill<R>(&self, change: impl FnOnce(&mut Outbox<Outgoing>) -> R) -> R {
        let mut outbox = self.outbox.lock();
        outbox.at(Instant::now().into_std());
        let result = change(&mut outbox);
        drop(outbox);
        self.filled.notify_one();
        result
    }

    /// Sends a message that somebody waits for: ahead of most that waits, once, and not after `until`. It is on its way when
    /// this returns; what is returned need be awaited only by who wants to know.
    ///
    /// # Errors
    /// [`Unsent`] if it will not arrive. That it was sent does not mean that it will.
    pub fn express(&self, event: Event, until: Instant) -> impl Future<Output = Result<(), Unsent>> + use<> {
        let outcome = self.express.add(event, until.into_std());
        self.filled.notify_one();
        async move { outcome.await.unwrap_or(Err(Unsent::NoStream)) }
    }

    /// Waits until the peer has acknowledged everything about the resource.
    pub async fn settled(&self, key: &ResourceKey) {
        loop {
            let acked = self.acked.notified();
            if !self.outbox.lock().is_pending(key) {
                return;
            }
            acked.await;
        }
    }

    /// How long the peer has been behind: the age of the oldest change that it has yet to acknowledge.
    pub fn behind(&self) -> Duration {
        let oldest = self.outbox.lock().oldest();
        oldest.map(age).unwrap_or_default()
    }

    pub(super) fn acknowledge(&self, id: &EventId) -> Option<Acked<Outgoing>> {
        let settled = self.outbox.lock().acked(id);
        self.acked.notify_waiters();
        settled
    }

    /// Looks at the outbox.
    pub fn read<R>(&self, look: impl FnOnce(&Outbox<Outgoing>) -> R) -> R {
        look(&self.outbox.lock())
    }
}

/// How long ago that was.
pub(super) fn age(since: std::time::Instant) -> Duration {
    Instant::from_std(since).elapsed()
}
