//! The next message that is to be sent, of each sort.

use std::collections::VecDeque;

use prost::Message as _;
use tiphys_proto::event_stream::Event as WireEvent;
use tokio::time::Instant;

use super::{SharedOutbox, Side};
use crate::model::event::{Event, Payload, Target};
use crate::process::clock;
use crate::wire::codec;
use crate::wire::express::Unsent;

/// Acknowledgements go before news: they are small, and free the peer.
pub(super) fn acknowledgement(acks: &mut VecDeque<Event>) -> Option<WireEvent> {
    while let Some(ack) = acks.pop_front() {
        match codec::encode(&ack) {
            Ok(message) => return Some(message),
            Err(error) => tracing::error!(event_id = %ack.id, %error, "acknowledgement could not be written"),
        }
    }
    None
}

/// What somebody waits for.
pub(super) fn express<S: Side>(
    side: &S,
    outbox: &SharedOutbox,
    max_message_size: usize,
) -> Option<WireEvent> {
    loop {
        let mut waiting = outbox.express.next(Instant::now().into_std())?;
        waiting.event.sent_at = Some(clock::now());
        match codec::encode(&waiting.event) {
            Ok(message) if message.encoded_len() <= max_message_size => {
                side.on_sent(&waiting.event);
                waiting.done(Ok(()));
                return Some(message);
            }
            Ok(_) => waiting.done(Err(Unsent::TooLarge)),
            Err(error) => {
                side.on_unsendable(&waiting.event, &error.to_string());
                waiting.done(Err(Unsent::Unwritable));
            }
        }
    }
}

/// What waits in the outbox, as the peer is to see it.
pub(super) fn message<S: Side>(
    side: &S,
    outbox: &SharedOutbox,
    max_message_size: usize,
) -> Option<WireEvent> {
    loop {
        let (event, since) = {
            let mut outbox = outbox.outbox.lock();
            let now = Instant::now().into_std();
            let (key, item) = outbox.next(now)?;
            match side.render(&key, &item) {
                Some(event) => {
                    // A sign of life is not acknowledged.
                    let since = if event.target == Target::Heartbeat {
                        outbox.skip(key);
                        None
                    } else {
                        outbox.sent(key, item, event.id.clone(), now)
                    };
                    (event, since)
                }
                None => {
                    outbox.skip(key);
                    continue;
                }
            }
        };
        let mut event = event;
        // What is asked for the sake of the protocol is nobody's change.
        if matches!(event.payload, Payload::Object(_)) {
            outbox.journeys.sending(&mut event, since);
        }
        match codec::encode(&event) {
            // What cannot pass is parked until its time to be sent again, and holds up nothing else.
            Ok(message) if message.encoded_len() > max_message_size => {
                side.on_unsendable(&event, "it is larger than --grpc-max-message-size");
            }
            Ok(message) => {
                side.on_sent(&event);
                return Some(message);
            }
            Err(error) => side.on_unsendable(&event, &error.to_string()),
        }
    }
}
