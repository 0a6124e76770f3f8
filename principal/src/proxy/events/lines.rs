//! A log without the time before each line: an agent of the Go project sends it whether it is wanted or not. Pure.

use bytes::{BufMut as _, Bytes, BytesMut};
use jiff::Timestamp;

/// Longest time in RFC 3339, with nanoseconds and an offset, and some.
const LONGEST: usize = 40;

/// Takes the time off each line of a log that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct Untimed {
    /// The beginning of a line of which it is not known yet whether it is a time.
    head: Vec<u8>,
    in_line: bool,
}

impl Untimed {
    /// What remains of a piece, and of what was held back before it.
    pub(super) fn push(&mut self, mut data: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(self.head.len() + data.len());
        while !data.is_empty() {
            if self.in_line {
                let end = data.iter().position(|byte| *byte == b'\n').map_or(data.len(), |at| at + 1);
                self.in_line = data[end - 1] != b'\n';
                out.put_slice(&data[..end]);
                data = &data[end..];
                continue;
            }
            let room = LONGEST.saturating_sub(self.head.len()).min(data.len());
            match data[..room].iter().position(|byte| [b' ', b'\n'].contains(byte)) {
                Some(at) => {
                    self.head.extend_from_slice(&data[..at]);
                    let separator = data[at];
                    data = &data[at + 1..];
                    let timed = is_time(&self.head);
                    if !timed {
                        out.put_slice(&self.head);
                    }
                    if !timed || separator == b'\n' {
                        out.put_u8(separator);
                    }
                    self.head.clear();
                    self.in_line = separator == b' ';
                }
                None => {
                    self.head.extend_from_slice(&data[..room]);
                    data = &data[room..];
                    if self.head.len() >= LONGEST {
                        out.put_slice(&self.head);
                        self.head.clear();
                        self.in_line = true;
                    }
                }
            }
        }
        out.freeze()
    }

    /// What was held back when the log ends.
    pub(super) fn end(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.head))
    }
}

fn is_time(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.parse::<Timestamp>().is_ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIMED: &str = "2026-11-21T20:00:00.123456789Z one two\n2026-11-21T21:00:00+01:00 \n2026-11-21T20:00:01Z\n\
        not a time\nwordsofmorethanfortycharactersareonelineandnotatime at all\n2026-11-21T20:00:02Z last";
    const PLAIN: &str =
        "one two\n\n\nnot a time\nwordsofmorethanfortycharactersareonelineandnotatime at all\nlast";

    fn untimed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let mut lines = Untimed::default();
        let mut out: Vec<u8> = pieces.into_iter().flat_map(|piece| lines.push(piece)).collect();
        out.extend(lines.end());
        out
    }

    #[test]
    fn the_time_goes_and_nothing_else() {
        assert_eq!(String::from_utf8(untimed([TIMED.as_bytes()])).unwrap(), PLAIN);
        assert_eq!(untimed([&b"\xff\xfe 2026"[..], b"-11\n", b"end"]), b"\xff\xfe 2026-11\nend");
    }

    proptest! {
        #[test]
        fn where_a_log_is_cut_makes_no_difference(cuts in prop::collection::vec(0..TIMED.len(), 0..20)) {
            let mut cuts = cuts;
            cuts.extend([0, TIMED.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| &TIMED.as_bytes()[cut[0]..cut[1]]);
            prop_assert_eq!(untimed(pieces), PLAIN.as_bytes());
        }
    }
}
