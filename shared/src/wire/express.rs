//! Messages that somebody waits for: a request, its answer. They overtake what waits in the outbox, but only every other time;
//! they are sent once or not at all, and none outlives its stream or its time.

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::model::Event;

/// How many may wait to be sent.
const WAITING: usize = 256;

/// Why a message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsent {
    /// There is no stream, or it ended before.
    #[error("not connected")]
    NoStream,
    /// Too many wait already.
    #[error("too much waits to be sent")]
    Full,
    /// It is larger than a message may be.
    #[error("larger than --grpc-max-message-size allows")]
    TooLarge,
    /// Its time was over.
    #[error("not sent in time")]
    Late,
    /// What it says cannot be expressed.
    #[error("it cannot be written")]
    Unwritable,
}

/// One that waits to be sent.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) event: Box<Event>,
    until: Instant,
    sent: oneshot::Sender<Result<(), Unsent>>,
}

impl Waiting {
    /// Says what became of it.
    pub(super) fn done(self, outcome: Result<(), Unsent>) {
        // Whoever sent it need not wait.
        _ = self.sent.send(outcome);
    }
}

/// Those that wait, while there is a stream.
#[derive(Debug, Default)]
pub(super) struct Express {
    waiting: Mutex<Option<VecDeque<Waiting>>>,
}

/// Held as long as there is a stream.
pub(super) struct Open<'a>(&'a Express);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.waiting.lock().take();
    }
}

impl Express {
    pub(super) fn open(&self) -> Open<'_> {
        self.waiting.lock().replace(VecDeque::new());
        Open(self)
    }

    /// Adds a message. What is returned ends when the message is sent, or cannot be; it need not be awaited.
    pub(super) fn add(&self, event: Event, until: Instant) -> oneshot::Receiver<Result<(), Unsent>> {
        let (sent, outcome) = oneshot::channel();
        let waiting = Waiting { event: Box::new(event), until, sent };
        match &mut *self.waiting.lock() {
            None => waiting.done(Err(Unsent::NoStream)),
            Some(queue) if queue.len() >= WAITING => waiting.done(Err(Unsent::Full)),
            Some(queue) => queue.push_back(waiting),
        }
        outcome
    }

    /// The next that is worth sending.
    pub(super) fn next(&self, now: Instant) -> Option<Waiting> {
        loop {
            let next = self.waiting.lock().as_mut()?.pop_front()?;
            if next.until > now {
                return Some(next);
            }
            next.done(Err(Unsent::Late));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{EventKind, Payload, Target};

    fn event() -> Event {
        Event::request(Target::Redis, EventKind::RedisRequest, Payload::Empty)
    }

    #[test]
    fn nothing_waits_longer_than_its_stream_or_its_time_or_without_end() {
        let express = Express::default();
        let now = Instant::now();
        let soon = now + Duration::from_secs(1);
        assert_eq!(express.add(event(), soon).try_recv(), Ok(Err(Unsent::NoStream)));
        let stream = express.open();
        let mut late = express.add(event(), now);
        let first = event();
        let mut sent = express.add(first.clone(), soon);
        let mut left = express.add(event(), soon);
        let next = express.next(now).unwrap();
        assert_eq!(late.try_recv(), Ok(Err(Unsent::Late)));
        assert_eq!(*next.event, first);
        next.done(Ok(()));
        assert_eq!(sent.try_recv(), Ok(Ok(())));
        for _ in 1..WAITING {
            assert!(express.add(event(), soon).try_recv().is_err());
        }
        assert_eq!(express.add(event(), soon).try_recv(), Ok(Err(Unsent::Full)));
        drop(stream);
        assert_eq!(left.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert!(express.next(now).is_none());
    }
}
