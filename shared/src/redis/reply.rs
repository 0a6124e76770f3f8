//! Finds, in what Redis says, the few places that matter, and lets everything else pass as it comes.
//!
//! A place is known by its bytes, because we had Redis say them: so Redis itself keeps the order of replies, whatever else a
//! client has under way, and nothing of what it says need be understood.

use std::collections::VecDeque;

/// The places that are yet to come, in order. One that never comes, because Redis refused the command, is given up when a later
/// one is found.
#[derive(Debug)]
pub struct Places<T> {
    expected: VecDeque<(Vec<u8>, T)>,
}

/// What the beginning of what has arrived is.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// So many bytes are nothing of ours; what follows them, if anything, may become a place.
    Pass(usize),
    /// A place.
    Place {
        /// Bytes before it.
        before: usize,
        /// Its length.
        len: usize,
        /// Which one.
        what: T,
    },
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self { expected: VecDeque::new() }
    }
}

impl<T> Places<T> {
    /// A string that Redis is to say, as it writes it.
    pub fn string(text: &[u8]) -> Vec<u8> {
        [format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat()
    }

    /// Expects a place after all others. `bytes` begin with `$`.
    pub fn expect(&mut self, bytes: Vec<u8>, what: T) {
        debug_assert!(bytes.starts_with(b"$"));
        self.expected.push_back((bytes, what));
    }

    /// How many places are yet to come.
    pub fn len(&self) -> usize {
        self.expected.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.expected.is_empty()
    }

    /// Looks at what has arrived and was not passed yet.
    pub fn find(&mut self, arrived: &[u8]) -> Found<T> {
        if self.expected.is_empty() {
            return Found::Pass(arrived.len());
        }
        let signs = arrived.iter().enumerate().filter(|(_, byte)| **byte == b'$');
        for (before, _) in signs {
            let here = &arrived[before..];
            if let Some(nth) = self.expected.iter().position(|(bytes, _)| here.starts_with(bytes)) {
                let found = self.expected.drain(..=nth).next_back();
                if let Some((bytes, what)) = found {
                    return Found::Place { before, len: bytes.len(), what };
                }
            }
            if self.expected.iter().any(|(bytes, _)| bytes.starts_with(here)) {
                return Found::Pass(before);
            }
        }
        Found::Pass(arrived.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is passed, with `<N>` for each place, of bytes that arrive in pieces of this size.
    fn replaced(bytes: &[u8], piece: usize, expected: &[&str]) -> String {
        let mut places = Places::default();
        for (number, text) in expected.iter().enumerate() {
            places.expect(Places::<usize>::string(text.as_bytes()), number);
        }
        let (mut arrived, mut passed) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            arrived.extend_from_slice(piece);
            loop {
                match places.find(&arrived) {
                    Found::Pass(0) => break,
                    Found::Pass(len) => passed.extend(arrived.drain(..len)),
                    Found::Place { before, len, what } => {
                        passed.extend(arrived.drain(..before));
                        drop(arrived.drain(..len));
                        passed.extend(format!("<{what}>").bytes());
                    }
                }
            }
        }
        passed.extend(arrived);
        String::from_utf8(passed).unwrap()
    }

    #[test]
    fn a_reply_that_looks_like_the_beginning_of_a_place_is_held_back_only_so_far() {
        let mut places = Places::default();
        places.expect(Places::<()>::string(b"mark"), ());
        assert_eq!(places.find(b"+OK\r\n$4\r\nma"), Found::Pass(5));
        assert_eq!(places.find(b"$4\r\nmat"), Found::Pass(7));
        assert_eq!(places.find(b"$4\r\nmark\r"), Found::Pass(0));
        assert_eq!(places.find(b"$4\r\nmark\r\n:1"), Found::Place { before: 0, len: 10, what: () });
        assert_eq!(places.find(b"$4\r\nmark\r\n"), Found::Pass(10), "found twice");
    }

    #[test]
    fn what_redis_refused_is_given_up_when_something_later_is_found() {
        let said = "-NOAUTH\r\n$1\r\nb\r\n$1\r\na\r\n";
        assert_eq!(replaced(said.as_bytes(), 3, &["a", "b"]), "-NOAUTH\r\n<1>$1\r\na\r\n");
    }

    proptest! {
        #[test]
        fn places_are_found_wherever_they_are_cut_and_nothing_else_is_touched(
            around in proptest::collection::vec("[$a\r\n1]{0,8}", 4), piece in 1_usize..9,
        ) {
            let marks = ["first-mark", "second-mark", "third-mark"];
            let strings = marks.map(|mark| String::from_utf8(Places::<usize>::string(mark.as_bytes())).unwrap());
            let said = [&around[0], &strings[0], &around[1], &strings[1], &around[2], &strings[2], &around[3]];
            let said = said.map(String::as_str).concat();
            let passed = replaced(said.as_bytes(), piece, &marks);
            let expected = format!("{}<0>{}<1>{}<2>{}", around[0], around[1], around[2], around[3]);
            prop_assert_eq!(passed, expected);
        }
    }
}
