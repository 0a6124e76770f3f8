//! How often a peer may ping over HTTP/2. As gRPC servers have it: two pings too early are forgiven, the third ends the
//! connection with `too_many_pings`; whenever the peer has been told something, its next ping is free.
//!
//! The HTTP/2 server below gRPC answers pings by itself and tells nobody. So they are seen where its bytes pass: of every frame
//! only the head is looked at.

use std::time::Duration;

use tokio::time::Instant;

/// What a client says before its first frame.
const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
/// Length, type, flags and stream of a frame.
const HEAD: usize = 9;
/// Pings too early that are forgiven.
const FORGIVEN: u32 = 2;
/// Types of frames, and the flag of a ping that is an answer.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
/// Why the connection is ended: the code, and the word that gRPC's clients look for.
const ENHANCE_YOUR_CALM: u32 = 11;
const TOO_MANY: &[u8] = b"too_many_pings";

/// Watches one connection.
#[derive(Debug)]
pub(super) struct Pings {
    min_interval: Duration,
    incoming: Frames,
    outgoing: Frames,
    last: Option<Instant>,
    /// The peer has been told something since its last ping.
    is_free: bool,
    too_early: u32,
    last_stream: u32,
}

impl Pings {
    /// A watch over a connection on which nothing has been said.
    pub(super) fn new(min_interval: Duration) -> Self {
        Self {
            min_interval,
            incoming: Frames { skip: PREFACE, ..Frames::default() },
            outgoing: Frames::default(),
            last: None,
            is_free: false,
            too_early: 0,
            last_stream: 0,
        }
    }

    /// Looks at what the peer says. Whether it has pinged too often.
    pub(super) fn heard(&mut self, bytes: &[u8], now: Instant) -> bool {
        let Self { incoming, min_interval, last, is_free, too_early, last_stream, .. } = self;
        incoming.pass(bytes, |frame| match (frame.kind, frame.flags & ACK) {
            (PING, 0) => {
                let is_early = last.replace(now).is_some_and(|last| now < last + *min_interval);
                if std::mem::take(is_free) {
                    *too_early = 0;
                } else if is_early {
                    *too_early += 1;
                }
            }
            (HEADERS, _) => *last_stream = frame.stream,
            _ => {}
        });
        self.too_early > FORGIVEN
    }

    /// Looks at what the peer is told.
    pub(super) fn said(&mut self, bytes: &[u8]) {
        let is_free = &mut self.is_free;
        self.outgoing.pass(bytes, |frame| *is_free |= matches!(frame.kind, DATA | HEADERS));
    }

    /// The frame that ends the connection, if one can be said just now.
    pub(super) fn goodbye(&self) -> Option<Vec<u8>> {
        if !self.outgoing.is_between() {
            return None;
        }
        let length = 8 + TOO_MANY.len();
        let mut frame = vec![0, 0, u8::try_from(length).ok()?, GOAWAY, 0, 0, 0, 0, 0];
        frame.extend_from_slice(&self.last_stream.to_be_bytes());
        frame.extend_from_slice(&ENHANCE_YOUR_CALM.to_be_bytes());
        frame.extend_from_slice(TOO_MANY);
        Some(frame)
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
}

/// Finds the heads in a stream of frames.
#[derive(Debug, Default)]
struct Frames {
    /// Bytes that are still to come of what is not looked at.
    skip: usize,
    head: [u8; HEAD],
    filled: usize,
}

impl Frames {
    fn pass(&mut self, mut bytes: &[u8], mut see: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            (self.skip, bytes) = (self.skip - skipped, &bytes[skipped..]);
            let taken = (HEAD - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            (self.filled, bytes) = (self.filled + taken, &bytes[taken..]);
            if self.filled == HEAD {
                let [a, b, c, kind, flags, stream @ ..] = self.head;
                see(Frame { kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff });
                (self.filled, self.skip) = (0, u32::from_be_bytes([0, a, b, c]) as usize);
            }
        }
    }

    /// Whether the last frame is whole.
    fn is_between(&self) -> bool {
        self.filled == 0 && self.skip == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, length: usize) -> Vec<u8> {
        let mut frame = u32::try_from(length).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[kind, flags]);
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.resize(HEAD + length, 6);
        frame
    }

    fn ping() -> Vec<u8> {
        frame(PING, 0, 0, 8)
    }

    fn begun(interval: u64) -> (Pings, Instant) {
        let mut pings = Pings::new(Duration::from_secs(interval));
        let now = Instant::now();
        assert!(!pings.heard(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", now));
        (pings, now)
    }

    fn after(now: Instant, seconds: u64) -> Instant {
        now + Duration::from_secs(seconds)
    }

    #[test]
    fn the_third_ping_too_early_is_too_many() {
        let (mut pings, now) = begun(10);
        let heard: Vec<_> = (0..4).map(|second| pings.heard(&ping(), after(now, second))).collect();
        assert_eq!(heard, [false, false, false, true]);
    }

    #[test]
    fn pings_as_often_as_they_may_be_are_never_too_many() {
        let (mut pings, now) = begun(10);
        assert!((0..100).all(|n| !pings.heard(&ping(), after(now, 10 * n))));
    }

    #[test]
    fn answers_to_pings_are_none() {
        let (mut pings, now) = begun(10);
        assert!((0..100).all(|_| !pings.heard(&frame(PING, ACK, 0, 8), now)));
    }

    #[test]
    fn whoever_was_told_something_may_ping() {
        let (mut pings, now) = begun(10);
        for _ in 0..50 {
            pings.said(&frame(DATA, 0, 1, 100));
            assert!(!pings.heard(&ping(), now));
            assert!(!pings.heard(&ping(), now));
        }
        // What is no answer to anything counts for nothing.
        pings.said(&[frame(PING, ACK, 0, 8), frame(8, 0, 0, 4), frame(4, 1, 0, 0)].concat());
        assert!(!pings.heard(&ping(), now));
        assert!(pings.heard(&ping(), now));
    }

    #[test]
    fn the_end_is_said_between_two_frames() {
        let (mut pings, now) = begun(10);
        pings.heard(&frame(HEADERS, 4, 7, 30), now);
        let said = frame(DATA, 0, 7, 100);
        pings.said(&said[..50]);
        assert_eq!(pings.goodbye(), None);
        pings.said(&said[50..]);
        let goodbye = pings.goodbye().unwrap();
        assert_eq!(&goodbye[..HEAD], &frame(GOAWAY, 0, 0, 22)[..HEAD]);
        assert_eq!(&goodbye[HEAD..], b"\0\0\0\x07\0\0\0\x0btoo_many_pings");
    }

    proptest! {
        #[test]
        fn heads_are_found_however_the_bytes_come(
            frames in prop::collection::vec((0_u8..10, any::<u8>(), 0_u32..9, 0_usize..300), 0..20),
            cuts in prop::collection::vec(1_usize..50, 1..20),
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(k, f, s, l)| frame(*k, *f, *s, *l)).collect();
            let mut rest = &bytes[..];
            let (mut found, mut seen) = (Frames::default(), Vec::new());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                found.pass(now, |frame| seen.push((frame.kind, frame.flags, frame.stream)));
                rest = later;
            }
            prop_assert!(found.is_between());
            let sent: Vec<_> = frames.iter().map(|(kind, flags, stream, _)| (*kind, *flags, *stream)).collect();
            prop_assert_eq!(seen, sent);
        }
    }
}
