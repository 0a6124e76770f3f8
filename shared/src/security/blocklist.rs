//! Certificates that are refused although their CA has signed them, and the connections that were opened with them.
//!
//! A connection is entered before it is looked up, so that none slips through between the two: it is either refused, or
//! found when its certificate is blocked a moment later.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// The certificate is blocked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("client certificate {fingerprint} has been revoked{}", .reason.as_deref().map(|r| format!(" ({r})")).unwrap_or_default())]
pub struct Blocked {
    /// Which one, as [`fingerprint`] writes it.
    pub fingerprint: String,
    /// Why, if somebody wrote that down.
    pub reason: Option<String>,
}

/// The blocked certificates by fingerprint. Clones share them.
#[derive(Clone, Default)]
pub struct Blocklist {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    blocked: BTreeMap<String, String>,
    /// What ends each open connection, by fingerprint.
    open: HashMap<String, BTreeMap<u64, CancellationToken>>,
    next: u64,
}

impl State {
    fn look(&self, fingerprint: &str) -> Result<(), Blocked> {
        match self.blocked.get(fingerprint) {
            None => Ok(()),
            Some(reason) => Err(Blocked {
                fingerprint: fingerprint.to_owned(),
                reason: Some(reason.clone()).filter(|reason| !reason.is_empty()),
            }),
        }
    }
}

/// The SHA-256 of a certificate as people and tools write it (openssl: `sha256 Fingerprint=AB:CD:…`), as the Go project compares
/// it: in upper case and without separators. None if it is not one.
pub fn fingerprint(text: &str) -> Option<String> {
    let text = text.trim();
    let digits = text.split_once('=').map_or(text, |(_, value)| value);
    let plain: String = digits.chars().filter(|c| *c != ':').map(|c| c.to_ascii_uppercase()).collect();
    (plain.len() == 64 && plain.bytes().all(|b| b.is_ascii_hexdigit())).then_some(plain)
}

impl Blocklist {
    /// Whether a certificate may be used.
    ///
    /// # Errors
    /// [`Blocked`] if it may not.
    pub fn check(&self, fingerprint: &str) -> Result<(), Blocked> {
        self.state.lock().look(fingerprint)
    }

    /// Lets a connection in that was opened with a certificate. It is to end when the pass says so.
    ///
    /// # Errors
    /// [`Blocked`] if it may not be used.
    pub fn admit(&self, fingerprint: &str) -> Result<Pass, Blocked> {
        let mut state = self.state.lock();
        state.look(fingerprint)?;
        state.next += 1;
        let (id, cut) = (state.next, CancellationToken::new());
        state.open.entry(fingerprint.to_owned()).or_default().insert(id, cut.clone());
        Ok(Pass { state: Arc::clone(&self.state), fingerprint: fingerprint.to_owned(), id, cut })
    }

    /// Blocks these and no others, with the reason for each. Returns how many connections end by that.
    pub fn replace(&self, blocked: BTreeMap<String, String>) -> usize {
        let mut state = self.state.lock();
        let doomed: Vec<CancellationToken> = blocked
            .keys()
            .filter_map(|fingerprint| state.open.get(fingerprint))
            .flat_map(|open| open.values().cloned())
            .filter(|cut| !cut.is_cancelled())
            .collect();
        state.blocked = blocked;
        drop(state);
        // Whoever wakes up may let go of its pass at once.
        for cut in &doomed {
            cut.cancel();
        }
        doomed.len()
    }

    /// How many certificates are blocked.
    pub fn len(&self) -> usize {
        self.state.lock().blocked.len()
    }

    /// Whether none is blocked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl std::fmt::Debug for Blocklist {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blocklist").field("blocked", &self.len()).finish_non_exhaustive()
    }
}

/// A connection that was let in.
pub struct Pass {
    state: Arc<Mutex<State>>,
    fingerprint: String,
    id: u64,
    cut: CancellationToken,
}

impl Pass {
    /// Cancelled when the certificate is blocked.
    pub fn cut(&self) -> &CancellationToken {
        &self.cut
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        if let Some(open) = state.open.get_mut(&self.fingerprint) {
            open.remove(&self.id);
            if open.is_empty() {
                state.open.remove(&self.fingerprint);
            }
        }
    }
}

impl std::fmt::Debug for Pass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pass").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocking_ends_what_is_open_with_that_certificate_and_unblocking_lets_it_in_again() {
        let blocklist = Blocklist::default();
        let (one, two, other) =
            (blocklist.admit("A").unwrap(), blocklist.admit("A").unwrap(), blocklist.admit("B").unwrap());
        let blocked = BTreeMap::from([("A".to_owned(), "stolen".to_owned())]);
        assert_eq!(blocklist.replace(blocked.clone()), 2);
        assert!(one.cut().is_cancelled() && two.cut().is_cancelled() && !other.cut().is_cancelled());
        assert_eq!(blocklist.replace(blocked), 0, "connections that end already were counted again");
        assert_eq!(
            blocklist.admit("A").unwrap_err().to_string(),
            "client certificate A has been revoked (stolen)"
        );
        blocklist.replace(BTreeMap::new());
        blocklist.admit("A").unwrap();
        drop((one, two, other));
        assert!(blocklist.state.lock().open.is_empty());
    }

    #[test]
    fn fingerprints_are_taken_as_tools_write_them() {
        let plain = "AB".repeat(32);
        let pairs = ["ab"; 32].join(":");
        assert_eq!(fingerprint(&pairs).as_deref(), Some(plain.as_str()));
        assert_eq!(fingerprint(&format!(" {plain}\n")).as_deref(), Some(plain.as_str()));
        assert_eq!(fingerprint(&format!("sha256 Fingerprint={pairs}\n")).as_deref(), Some(plain.as_str()));
        for wrong in ["", "ab", &"zz".repeat(32), &"ab".repeat(33), "../../etc/passwd"] {
            assert_eq!(fingerprint(wrong), None, "{wrong}");
        }
    }
}
