//! What happened, in order, with virtual times; and a hash over it, by which two runs of a seed are compared.

use std::fmt;
use std::hash::{DefaultHasher, Hasher as _};

use parking_lot::Mutex;
use tokio::time::Instant;

/// What happened.
#[derive(Debug)]
pub(crate) struct Journal {
    began: Instant,
    lines: Mutex<Vec<String>>,
}

impl Journal {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), lines: Mutex::default() }
    }

    /// Notes that something happened.
    pub(crate) fn note(&self, who: &str, what: fmt::Arguments<'_>) {
        let at = self.began.elapsed().as_secs_f64();
        self.lines.lock().push(format!("{at:9.3} {who:>10}: {what}"));
    }

    /// Everything, and its hash.
    pub(crate) fn take(&self) -> (Vec<String>, u64) {
        let lines = std::mem::take(&mut *self.lines.lock());
        let mut hash = DefaultHasher::new();
        for line in &lines {
            hash.write(line.as_bytes());
            hash.write_u8(b'\n');
        }
        let hash = hash.finish();
        (lines, hash)
    }
}

/// The beginning of a UID, which tells enough.
pub(crate) fn short(uid: &str) -> &str {
    uid.get(..6).unwrap_or(uid)
}
