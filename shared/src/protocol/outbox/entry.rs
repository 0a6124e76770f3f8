//! One entry of an outbox.

use std::time::Instant;

use super::Item;
use crate::model::EventId;

/// A message that was sent.
#[derive(Debug)]
pub(super) struct InFlight<T> {
    pub(super) id: EventId,
    pub(super) item: Item<T>,
    pub(super) since: Option<Instant>,
    pub(super) attempts: u32,
    pub(super) due: Instant,
}

/// What is to be said about one resource, and in which order.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) delete: Option<T>,
    pub(super) state: Option<(T, bool)>,
    pub(super) operation: Option<T>,
    pub(super) terminate: Option<T>,
    pub(super) request: Option<T>,
    pub(super) in_flight: Option<InFlight<T>>,
    /// When the oldest change was made that was not sent yet.
    pub(super) since: Option<Instant>,
    pub(super) attempts: u32,
    pub(super) queued: bool,
}

impl<T> Default for Entry<T> {
    fn default() -> Self {
        Self {
            delete: None,
            state: None,
            operation: None,
            terminate: None,
            request: None,
            in_flight: None,
            since: None,
            attempts: 0,
            queued: false,
        }
    }
}

impl<T> Entry<T> {
    pub(super) fn has_unsent(&self) -> bool {
        self.delete.is_some()
            || self.state.is_some()
            || self.operation.is_some()
            || self.terminate.is_some()
            || self.request.is_some()
    }

    pub(super) fn take(&mut self) -> Option<Item<T>> {
        if let Some(value) = self.delete.take() {
            return Some(Item::Delete(value));
        }
        if let Some((value, created)) = self.state.take() {
            return Some(Item::State { value, created });
        }
        if let Some(value) = self.operation.take() {
            return Some(Item::Operation(value));
        }
        if let Some(value) = self.terminate.take() {
            return Some(Item::Terminate(value));
        }
        self.request.take().map(Item::Request)
    }

    /// Puts back what was in flight, unless something newer has come that contains it.
    pub(super) fn put_back(&mut self, flight: InFlight<T>) {
        self.since = flight.since.into_iter().chain(self.since).min();
        match flight.item {
            Item::Delete(value) => _ = self.delete.get_or_insert(value),
            Item::State { value, created } => match &mut self.state {
                // The newer state is yet to introduce the resource if the older one was not acknowledged.
                Some((_, newer_created)) => *newer_created |= created,
                // The resource has died since; the peer need not hear how it was before.
                None if self.delete.is_some() => {}
                None => self.state = Some((value, created)),
            },
            // So has what it was to do.
            Item::Operation(_) | Item::Terminate(_) if self.delete.is_some() => {}
            Item::Operation(value) => _ = self.operation.get_or_insert(value),
            Item::Terminate(value) => _ = self.terminate.get_or_insert(value),
            Item::Request(value) => _ = self.request.get_or_insert(value),
        }
    }
}
