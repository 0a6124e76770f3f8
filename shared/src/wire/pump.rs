//! One live stream: outbox → wire, wire → inbox → handlers, and the acknowledgements of both.
//!
//! The pump is the same on both sides. It ends with its stream, or when it is cancelled because a newer stream of the
//! same peer took its place; handlers that are under way end with it, unacknowledged, so that the peer says it again.

mod next;
mod outgoing;

use std::collections::VecDeque;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, Stream, StreamExt as _};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tiphys_proto::event_stream::Event as WireEvent;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::outgoing::age;
pub use self::outgoing::{Outgoing, SharedOutbox};
use super::codec::{self, Malformed};
use crate::model::event::{Event, EventId, REFUSED};
use crate::model::feature::{Feature, Features};
use crate::protocol::inbox::{Inbox, Limits};
use crate::protocol::outbox::{Acked, Item, Key, Outbox};

/// How much of one stream is worked on at once.
const LIMITS: Limits = Limits { waiting: 1024, running: 16 };
/// How long a peer may take to say what it can do before it is taken for one that says nothing. A Go principal sends its
/// metadata with its first event, and that may be long in coming.
const SILENCE: Duration = Duration::from_secs(2);
/// How long a Tiphys peer may say nothing while something waits for its acknowledgement. It acknowledges whatever it
/// hears, and comparisons see to it that there is something to hear.
const DEAD: Duration = Duration::from_secs(100);
/// Acknowledgements that may wait before nothing more is read: a peer that does not read cannot make us grow.
const ACKS: usize = 1024;

/// What became of an event at its handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Handled, or nothing to do.
    Done,
    /// It is not allowed or makes no sense, and will not when it is repeated: acknowledged as refused.
    Refused(String),
    /// It could not be handled now. Not acknowledged: the peer will say it again.
    Later(String),
}

impl Outcome {
    /// Reads a message of a comparison and does something with it; refuses what is not one.
    pub fn of_document<T: DeserializeOwned>(document: &Value, then: impl FnOnce(T)) -> Self {
        match T::deserialize(document) {
            Ok(read) => {
                then(read);
                Self::Done
            }
            Err(error) => Self::Refused(format!("not a comparison that this version knows: {error}")),
        }
    }
}

/// What the pump asks of the side that it works for.
pub trait Side: Send + Sync + 'static {
    /// Events of one lane are handled in order.
    type Lane: Clone + Eq + Hash + Send + 'static;

    /// The stream is open, and what was unacknowledged waits to be sent again: the place for requests of this stream.
    fn on_open(&self);
    /// What both sides hold is to be compared now, with a peer of these features; none if it is not ours. Returns after
    /// how long again; never on this stream if none.
    fn compare(&self, peer: &Features) -> Option<Duration>;
    /// Writes the message for an outbox item, or `None` if there is nothing to say about it any more.
    fn render(&self, key: &Key, item: &Item<Outgoing>) -> Option<Event>;
    /// The lane of an event.
    fn lane(&self, event: &Event) -> Self::Lane;
    /// Handles an event. Called for events of one lane in order, for different lanes at once.
    fn handle(&self, event: Event) -> impl Future<Output = Outcome> + Send;
    /// An event was handed to the stream.
    fn on_sent(&self, event: &Event);
    /// An event cannot be sent as it is. It is tried again, in case it changes.
    fn on_unsendable(&self, event: &Event, reason: &str);
    /// An event arrived; acknowledgements do not count.
    fn on_received(&self, event: &Event);
    /// The peer acknowledged this, so long after it was to come to see it; with a reason if it refused it.
    fn on_acked(&self, acked: &Acked<Outgoing>, lag: Duration, refused: Option<&str>);
    /// Something arrived that is not an event, or that no handler would have.
    fn on_refused(&self, event: Option<&Event>, reason: &str);
}

/// Why a pump ended.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// It was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The peer closed the stream.
    #[error("closed by the peer")]
    Closed,
    /// The peer said nothing for long, although it was told something: the connection is half open.
    #[error("the peer has fallen silent")]
    Silent,
    /// The stream broke.
    #[error("broken: {}", why(.0))]
    Broken(Box<tonic::Status>),
}

/// What happened at the bottom: a status, and each layer that it came through, repeats what is below in words for its makers.
fn why(status: &tonic::Status) -> String {
    let message = status.message();
    let status: &dyn std::error::Error = status;
    let below = std::iter::successors(status.source(), |cause| cause.source()).last();
    let text = below.map_or_else(|| message.to_owned(), ToString::to_string);
    // rustls adds a link for those who use it.
    text.split_once(": https://").map_or(text.as_str(), |(said, _)| said).to_owned()
}

/// Runs one stream until it ends.
///
/// `incoming` is what the peer says, `outgoing` what is said to it; `features` may become known while it runs. Everything unacknowledged in the outbox is sent again
/// first. Cancel safe: a pump that is dropped has acknowledged only what its handlers finished.
pub async fn run<S: Side>(
    side: Arc<S>,
    outbox: Arc<SharedOutbox>,
    mut features: watch::Receiver<Option<Features>>,
    max_message_size: usize,
    incoming: impl Stream<Item = Result<WireEvent, tonic::Status>> + Send,
    outgoing: mpsc::Sender<WireEvent>,
    cancel: CancellationToken,
) -> End {
    let _only_one = outbox.pumping.lock().await;
    let _open = outbox.express.open();
    outbox.fill(Outbox::reconnected);
    side.on_open();
    let mut incoming = std::pin::pin!(incoming);
    let mut inbox: Inbox<S::Lane, Event> = Inbox::new(LIMITS);
    let mut running = FuturesUnordered::new();
    let mut acks: VecDeque<Event> = VecDeque::new();
    let mut next: Option<WireEvent> = None;
    let mut hurry = true;
    let mut unknown = features.borrow_and_update().is_none();
    let mut comparison = Some(Instant::now() + if unknown { SILENCE } else { Duration::ZERO });
    let mut heard = Instant::now();
    loop {
        let ours = features.borrow().as_ref().is_some_and(|peer| peer.has(Feature::Resync));
        let reading = !inbox.is_full() && acks.len() < ACKS;
        if ours && reading && heard.elapsed() > DEAD && outbox.read(Outbox::next_due).is_some() {
            return End::Silent;
        }
        while let Some((lane, event)) = inbox.take() {
            let (side, outbox) = (Arc::clone(&side), Arc::clone(&outbox));
            running.push(async move {
                let ack = event.ack();
                let handling = outbox.journeys.handling(&event);
                let outcome = side.handle(event).await;
                outbox.journeys.handled(handling, &outcome);
                (lane, ack, outcome)
            });
        }
        if next.is_none() {
            next = next::acknowledgement(&mut acks);
        }
        // Neither those who wait nor resources hold the other up.
        for _ in 0..2 {
            if next.is_none() {
                next = match hurry {
                    true => next::express(&*side, &outbox, max_message_size),
                    false => next::message(&*side, &outbox, max_message_size),
                };
                hurry = !hurry;
            }
        }
        let due = if next.is_none() { outbox.read(Outbox::next_due).map(Instant::from_std) } else { None };
        tokio::select! {
            biased;
            () = cancel.cancelled() => return End::Cancelled,
            Some((lane, ack, outcome)) = running.next(), if !running.is_empty() => {
                inbox.done(&lane);
                match outcome {
                    Outcome::Done => acks.push_back(ack),
                    Outcome::Refused(reason) => {
                        side.on_refused(Some(&ack), &reason);
                        acks.push_back(refusal(&features, ack, &reason));
                    }
                    Outcome::Later(reason) => {
                        tracing::warn!(event_id = %ack.id, reason, "event not handled; waiting for its repetition");
                    }
                }
            }
            message = incoming.next(), if !inbox.is_full() && acks.len() < ACKS => match message.inspect(|_| heard = Instant::now()) {
                None => return End::Closed,
                Some(Err(status)) => return End::Broken(Box::new(status)),
                Some(Ok(message)) => match codec::decode(message) {
                    Ok(event) if event.is_ack() => {
                        let refused = event.extensions.get(REFUSED).map(String::as_str);
                        outbox.journeys.acknowledged(&event.id, refused);
                        if let Some(acked) = outbox.acknowledge(&event.id) {
                            side.on_acked(&acked, acked.since.map(age).unwrap_or_default(), refused);
                        }
                    }
                    Ok(event) => {
                        side.on_received(&event);
                        inbox.push(side.lane(&event), event);
                    }
                    Err(Malformed { reason, ack }) => {
                        let reason = reason.to_string();
                        side.on_refused(ack.as_deref(), &reason);
                        acks.extend(ack.map(|ack| refusal(&features, *ack, &reason)));
                    }
                },
            },
            permit = outgoing.reserve(), if next.is_some() => match (permit, next.take()) {
                (Ok(permit), Some(message)) => permit.send(message),
                _ => return End::Closed,
            },
            () = outbox.filled.notified(), if next.is_none() => {}
            () = sleep_until(due), if due.is_some() => {}
            Ok(()) = features.changed(), if unknown => {
                unknown = false;
                comparison = Some(Instant::now());
            }
            () = sleep_until(comparison), if comparison.is_some() => {
                let peer = features.borrow().clone().unwrap_or_default();
                comparison = side.compare(&peer).map(|pause| Instant::now() + pause);
            }
        }
    }
}

fn refusal(features: &watch::Receiver<Option<Features>>, ack: Event, reason: &str) -> Event {
    if features.borrow().as_ref().is_some_and(|features| features.has(Feature::Refusals)) {
        codec::refusal(ack, reason)
    } else {
        ack
    }
}

async fn sleep_until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
}

/// Names an event about a resource as the Go project does: `NAME_UID_RESOURCEVERSION`, and `NAME_UID` for the resource.
pub fn resource_ids(name: &str, uid: &str, resource_version: &str) -> (EventId, String) {
    (EventId(format!("{name}_{uid}_{resource_version}")), format!("{name}_{uid}"))
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;
    use crate::model::EventKind;
    use crate::model::event::{Payload, Target};

    /// A side that asks one thing, and takes whatever it is told.
    struct Asking(Arc<SharedOutbox>);

    impl Side for Asking {
        type Lane = ();

        fn on_open(&self) {
            let event = Event::request(Target::ResourceResync, EventKind::ResyncReport, Payload::Empty);
            self.0.fill(|outbox| outbox.request("question", Outgoing::Message(Box::new(event))));
        }

        fn compare(&self, _peer: &Features) -> Option<Duration> {
            None
        }

        fn render(&self, _key: &Key, item: &Item<Outgoing>) -> Option<Event> {
            match item.value() {
                Outgoing::Message(event) => Some((**event).clone()),
                Outgoing::Object(_) => None,
            }
        }

        fn lane(&self, _event: &Event) {}

        async fn handle(&self, _event: Event) -> Outcome {
            Outcome::Done
        }

        fn on_sent(&self, _event: &Event) {}
        fn on_unsendable(&self, _event: &Event, _reason: &str) {}
        fn on_received(&self, _event: &Event) {}
        fn on_acked(&self, _acked: &Acked<Outgoing>, _lag: Duration, _refused: Option<&str>) {}
        fn on_refused(&self, _event: Option<&Event>, _reason: &str) {}
    }

    async fn run_with(
        features: Features,
        incoming: impl Stream<Item = Result<WireEvent, tonic::Status>> + Send,
    ) -> Option<End> {
        let outbox = Arc::new(SharedOutbox::default());
        let (_known, features) = watch::channel(Some(features));
        let (outgoing, _said) = mpsc::channel(1024);
        let side = Arc::new(Asking(Arc::clone(&outbox)));
        let pump = run(side, outbox, features, 1 << 20, incoming, outgoing, CancellationToken::new());
        tokio::time::timeout(Duration::from_secs(3600), pump).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_cut_without_a_word_is_given_up() {
        let end = run_with(Features::all(), stream::pending()).await;
        assert!(matches!(end, Some(End::Silent)), "{end:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_anything_is_alive_and_a_go_peer_is_waited_for() {
        let beat = Event::request(Target::Heartbeat, EventKind::Ping, Payload::Empty);
        let beats = stream::unfold((), move |()| {
            let beat = codec::encode(&beat).map_err(|_| tonic::Status::internal("heartbeat"));
            async move {
                tokio::time::sleep(Duration::from_secs(60)).await;
                Some((beat, ()))
            }
        });
        assert!(run_with(Features::all(), beats).await.is_none());
        assert!(run_with(Features::default(), stream::pending()).await.is_none());
    }

    #[test]
    fn a_stream_that_broke_says_why_in_few_words() {
        let io = std::io::Error::new(
            std::io::ErrorKind::UnexpectedEof,
            "nothing more came: https://example.com/eof",
        );
        let end = End::Broken(Box::new(tonic::Status::from_error(Box::new(io))));
        assert_eq!(end.to_string(), "broken: nothing more came");
        let end = End::Broken(Box::new(tonic::Status::unavailable("the principal drains")));
        assert_eq!(end.to_string(), "broken: the principal drains");
    }
}
