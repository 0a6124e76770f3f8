//! What a client says to Redis, cut into commands as it arrives.
//!
//! Nothing is copied, and no more than [`LONGEST`] bytes need be at hand at once: a command that is longer passes in pieces,
//! whatever length it declares. Where the pieces end is what is found here; a client's commands are arrays of strings, or a
//! line of words.

use std::ops::Range;

/// Longest command that is shown whole, in bytes.
pub const LONGEST: usize = 8 * 1024;
/// Longest string that Redis takes, in bytes.
const LONGEST_WORD: usize = 512 << 20;
/// Most strings that Redis takes in one command.
const MOST_WORDS: usize = 1 << 20;
/// Longest line that declares a length: a sign, ten digits, and its end.
const LONGEST_LENGTH: usize = 13;

/// What the beginning of what has arrived is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing can be said before more arrives.
    More,
    /// So many bytes, at least one, belong to a command that is too long to be looked at.
    Pass(usize),
    /// A whole command.
    Command {
        /// Its length in bytes.
        len: usize,
        /// Where its words are. None for a line that only Redis can take apart.
        words: Vec<Range<usize>>,
    },
}

/// Not what a client says to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It begins like nothing that there is.
    #[error("neither an array nor a line of words")]
    Unknown,
    /// A length is no number, or too large.
    #[error("invalid length")]
    Length,
    /// A line goes on and on.
    #[error("too long a line")]
    Line,
    /// A string does not end where it should.
    #[error("a string has another length than it says")]
    End,
}

impl Malformed {
    /// The word for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Length => "length",
            Self::Line => "line",
            Self::End => "end",
        }
    }
}

/// Where in a command that passes in pieces we are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rest {
    /// Bytes of the present string, its end included.
    bytes: usize,
    /// Strings after it.
    words: usize,
}

/// Cuts one connection.
#[derive(Debug, Default)]
pub struct Commands {
    rest: Rest,
}

impl Commands {
    /// Looks at what has arrived and was not taken yet. What it says is passed, or a command, has to be taken before it is
    /// asked again.
    ///
    /// # Errors
    /// [`Malformed`]; then the connection makes no sense any more.
    pub fn next(&mut self, arrived: &[u8]) -> Result<Step, Malformed> {
        if self.rest != Rest::default() {
            return self.pass(arrived);
        }
        match arrived.first() {
            None => Ok(Step::More),
            Some(b'*') => self.array(arrived),
            Some(byte)
                if byte.is_ascii_alphabetic() || byte.is_ascii_whitespace() || b"\"'".contains(byte) =>
            {
                line(arrived)
            }
            Some(_) => Err(Malformed::Unknown),
        }
    }

    fn array(&mut self, arrived: &[u8]) -> Result<Step, Malformed> {
        let Some((count, mut at)) = length(arrived, MOST_WORDS)? else { return Ok(Step::More) };
        let mut words = Vec::new();
        for seen in 0..count {
            let rest = &arrived[at..];
            if at >= LONGEST {
                self.rest = Rest { bytes: 0, words: count - seen };
                return Ok(Step::Pass(at));
            }
            match rest.first() {
                None => return Ok(Step::More),
                Some(b'$') => {}
                Some(_) => return Err(Malformed::Length),
            }
            let Some((bytes, header)) = length(rest, LONGEST_WORD)? else { return Ok(Step::More) };
            let (start, end) = (at + header, at + header + bytes);
            if end + 2 > LONGEST {
                self.rest = Rest { bytes: bytes + 2, words: count - seen - 1 };
                return Ok(Step::Pass(start));
            }
            match arrived.get(end..end + 2) {
                None => return Ok(Step::More),
                Some(b"\r\n") => {}
                Some(_) => return Err(Malformed::End),
            }
            words.push(start..end);
            at = end + 2;
        }
        Ok(Step::Command { len: at, words })
    }

    fn pass(&mut self, arrived: &[u8]) -> Result<Step, Malformed> {
        if arrived.is_empty() {
            return Ok(Step::More);
        }
        if self.rest.bytes > 0 {
            let passed = self.rest.bytes.min(arrived.len());
            self.rest.bytes -= passed;
            return Ok(Step::Pass(passed));
        }
        if arrived[0] != b'$' {
            return Err(Malformed::Length);
        }
        let Some((bytes, header)) = length(arrived, LONGEST_WORD)? else { return Ok(Step::More) };
        self.rest = Rest { bytes: bytes + 2, words: self.rest.words - 1 };
        Ok(Step::Pass(header))
    }
}

/// Reads a line that declares a length: what it declares, less than nothing being nothing, and how long the line is.
fn length(arrived: &[u8], most: usize) -> Result<Option<(usize, usize)>, Malformed> {
    let is_string = arrived.first() == Some(&b'$');
    let line = &arrived[..arrived.len().min(LONGEST_LENGTH)];
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        return if line.len() < LONGEST_LENGTH { Ok(None) } else { Err(Malformed::Length) };
    };
    let digits = line.get(1..end.saturating_sub(1)).filter(|_| line[end - 1] == b'\r');
    let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok()).filter(|it| !it.starts_with('+'));
    let number: i64 = digits.and_then(|digits| digits.parse().ok()).ok_or(Malformed::Length)?;
    // An array of less than nothing is an empty one to Redis; a string of less than nothing it does not take.
    match usize::try_from(number) {
        Ok(number) if number <= most => Ok(Some((number, end + 1))),
        Err(_) if !is_string => Ok(Some((0, end + 1))),
        _ => Err(Malformed::Length),
    }
}

fn line(arrived: &[u8]) -> Result<Step, Malformed> {
    let Some(end) = arrived.iter().take(LONGEST).position(|byte| *byte == b'\n') else {
        return if arrived.len() < LONGEST { Ok(Step::More) } else { Err(Malformed::Line) };
    };
    let text = &arrived[..end];
    let mut words = Vec::new();
    // Quotes and what they hold are for Redis.
    if !text.iter().any(|byte| b"\"'\\".contains(byte)) {
        let mut start = None;
        for (at, byte) in text.iter().chain(b"\n").enumerate() {
            match (byte.is_ascii_whitespace(), start) {
                (false, None) => start = Some(at),
                (true, Some(from)) => {
                    words.push(from..at);
                    start = None;
                }
                _ => {}
            }
        }
    }
    Ok(Step::Command { len: end + 1, words })
}

#[cfg(test)]
mod tests;
