//! What a binary message holds: a flag, a length, and as many bytes. Pure.

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Bytes before what a frame holds.
pub(super) const HEAD: usize = 5;
/// The flag of a frame that is no gRPC message.
const METADATA: u8 = 0x80;
/// The flag of what is compressed.
const COMPRESSED: u8 = 0x01;
/// Says that the client has said all.
pub(super) const END: Bytes = Bytes::from_static(&[METADATA, 0, 0, 0, 0]);
/// Lines of metadata that are read.
const LINES: usize = 128;
/// Longest metadata, in bytes.
const TEXT: usize = 64 << 10;

/// One message on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A gRPC message, with its head.
    Message(Bytes),
    /// Header lines. None of them, from a client: it has said all.
    Metadata(Bytes),
}

/// What is wrong with what the other side, or we ourselves, made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("a message of {0} bytes has no head")]
    Short(usize),
    #[error("a message says that it has {said} bytes, and has {has}")]
    Length { said: usize, has: usize },
    #[error("metadata are compressed")]
    Compressed,
    #[error("metadata of {0} bytes are too long")]
    Long(usize),
    #[error("metadata cannot be read: {0}")]
    Lines(String),
    #[error("{0}")]
    Order(&'static str),
    #[error("a message of {0} bytes is too large for grpc over websocket")]
    TooLarge(usize),
}

/// Takes a binary message for what it is.
pub(super) fn parse(message: Bytes) -> Result<Frame, Malformed> {
    let (flag, said) = head(&message).ok_or(Malformed::Short(message.len()))?;
    let has = message.len() - HEAD;
    if said != has {
        return Err(Malformed::Length { said, has });
    }
    match (flag & METADATA != 0, flag & COMPRESSED != 0) {
        (false, _) => Ok(Frame::Message(message)),
        (true, true) => Err(Malformed::Compressed),
        (true, false) if has > TEXT => Err(Malformed::Long(has)),
        (true, false) => Ok(Frame::Metadata(message.slice(HEAD..))),
    }
}

/// Flag and length, if there is a head.
fn head(bytes: &[u8]) -> Option<(u8, usize)> {
    let (flag, length) = bytes.get(..HEAD)?.split_first()?;
    Some((*flag, u32::from_be_bytes(length.try_into().ok()?) as usize))
}

/// A frame of metadata.
pub(super) fn metadata(headers: &HeaderMap) -> Bytes {
    let mut lines = BytesMut::zeroed(HEAD);
    for (name, value) in headers {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value.as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    let length = u32::try_from(lines.len() - HEAD).unwrap_or(u32::MAX);
    lines[0] = METADATA;
    lines[1..HEAD].copy_from_slice(&length.to_be_bytes());
    lines.freeze()
}

/// What header lines say.
pub(super) fn headers(lines: &[u8]) -> Result<HeaderMap, Malformed> {
    let mut text = Vec::with_capacity(lines.len() + 2);
    text.extend_from_slice(lines);
    text.extend_from_slice(b"\r\n");
    let mut found = [httparse::EMPTY_HEADER; LINES];
    let unreadable = |error: &dyn std::fmt::Display| Malformed::Lines(error.to_string());
    let found = match httparse::parse_headers(&text, &mut found).map_err(|error| unreadable(&error))? {
        httparse::Status::Complete((length, found)) if length == text.len() => found,
        _ => return Err(Malformed::Lines("they do not end where they should".to_owned())),
    };
    let mut headers = HeaderMap::with_capacity(found.len());
    for line in found {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|error| unreadable(&error))?;
        let value = HeaderValue::from_bytes(line.value).map_err(|error| unreadable(&error))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// Cuts what is to be said into gRPC messages: a body's pieces begin and end anywhere.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    uncut: BytesMut,
}

impl Cutter {
    /// Takes a piece.
    pub(super) fn push(&mut self, piece: &Bytes) {
        self.uncut.extend_from_slice(piece);
    }

    /// The next message, if it is whole.
    ///
    /// # Errors
    /// [`Malformed::TooLarge`]
    pub(super) fn next(&mut self, largest: usize) -> Result<Option<Bytes>, Malformed> {
        let Some((_, length)) = head(&self.uncut) else { return Ok(None) };
        if length.saturating_add(HEAD) > largest {
            return Err(Malformed::TooLarge(length));
        }
        if self.uncut.len() < HEAD + length {
            return Ok(None);
        }
        let message = self.uncut.split_to(HEAD + length).freeze();
        if !self.uncut.has_remaining() {
            // What a large message has needed is not kept for small ones.
            self.uncut = BytesMut::new();
        }
        Ok(Some(message))
    }

    /// Whether the last message is whole.
    pub(super) fn is_done(&self) -> bool {
        self.uncut.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(flag: u8, said: u32, payload: &[u8]) -> Bytes {
        let mut bytes = vec![flag];
        bytes.extend_from_slice(&said.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes.into()
    }

    #[test]
    fn a_frame_is_what_its_flag_says() {
        let plain = message(0, 3, b"abc");
        assert_eq!(parse(plain.clone()), Ok(Frame::Message(plain)));
        let compressed = message(1, 3, b"abc");
        assert_eq!(parse(compressed.clone()), Ok(Frame::Message(compressed)));
        assert_eq!(parse(message(0x80, 3, b"abc")), Ok(Frame::Metadata("abc".into())));
        assert_eq!(parse(END), Ok(Frame::Metadata(Bytes::new())));
    }

    #[test]
    fn a_frame_that_lies_is_refused() {
        assert_eq!(parse(Bytes::new()), Err(Malformed::Short(0)));
        assert_eq!(parse(Bytes::from_static(b"\0\0\0\0")), Err(Malformed::Short(4)));
        assert_eq!(parse(message(0, 4, b"abc")), Err(Malformed::Length { said: 4, has: 3 }));
        assert_eq!(
            parse(message(0, u32::MAX, b"")),
            Err(Malformed::Length { said: u32::MAX as usize, has: 0 })
        );
        assert_eq!(parse(message(0x81, 3, b"abc")), Err(Malformed::Compressed));
        let long = vec![b'a'; TEXT + 1];
        assert_eq!(parse(message(0x80, (TEXT + 1) as u32, &long)), Err(Malformed::Long(TEXT + 1)));
    }

    #[test]
    fn metadata_are_header_lines() {
        let mut sent = HeaderMap::new();
        sent.append("grpc-status", HeaderValue::from_static("0"));
        sent.append("x-twice", HeaderValue::from_static("one"));
        sent.append("x-twice", HeaderValue::from_static("two"));
        let Ok(Frame::Metadata(lines)) = parse(metadata(&sent)) else { panic!("no metadata") };
        assert_eq!(headers(&lines), Ok(sent));
    }

    #[test]
    fn header_lines_are_read_as_go_writes_them() {
        let read =
            headers(b"Content-Type: application/grpc\r\nGrpc-Status: 5\r\nGrpc-Message: not%20here\r\n");
        let read = read.unwrap();
        assert_eq!(read["content-type"], "application/grpc");
        assert_eq!(
            (&read["grpc-status"], &read["grpc-message"]),
            (&"5".parse().unwrap(), &"not%20here".parse().unwrap())
        );
        assert_eq!(headers(b""), Ok(HeaderMap::new()));
    }

    #[test]
    fn lines_that_are_none_are_refused() {
        for lines in ["no colon\r\n", "a: b\r\n\r\nc: d\r\n", ": b\r\n", "a\0: b\r\n", "a: b"] {
            let read = headers(lines.as_bytes());
            assert!(matches!(read, Err(Malformed::Lines(_))), "{lines:?}: {read:?}");
        }
        let many = "a: b\r\n".repeat(LINES + 1);
        assert!(matches!(headers(many.as_bytes()), Err(Malformed::Lines(_))));
    }

    #[test]
    fn a_message_that_is_too_large_is_not_waited_for() {
        let mut cutter = Cutter::default();
        cutter.push(&message(0, 100, b"a"));
        assert_eq!(cutter.next(104), Err(Malformed::TooLarge(100)));
        assert_eq!(cutter.next(105), Ok(None));
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(
            sizes in prop::collection::vec(0_usize..200, 0..20),
            cuts in prop::collection::vec(1_usize..64, 1..40),
        ) {
            let sent: Vec<_> = sizes.iter().map(|size| message(0, *size as u32, &vec![7; *size])).collect();
            let mut all = Bytes::from(sent.concat());
            let mut cutter = Cutter::default();
            let mut got = Vec::new();
            for cut in cuts.iter().cycle() {
                if all.is_empty() {
                    break;
                }
                cutter.push(&all.split_to((*cut).min(all.len())));
                while let Some(message) = cutter.next(1000).unwrap() {
                    got.push(message);
                }
            }
            prop_assert!(cutter.is_done());
            prop_assert_eq!(got, sent);
        }

        #[test]
        fn nothing_that_comes_does_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(Frame::Metadata(lines)) = parse(bytes.clone().into()) {
                let _ = headers(&lines);
            }
            let _ = headers(&bytes);
        }
    }
}
