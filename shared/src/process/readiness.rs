//! What has to be true before the process is ready, and why it is not.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

/// Answers "ready?" and "why not?". Clones share the answer.
#[derive(Clone, Debug)]
pub struct Readiness {
    pending: Arc<watch::Sender<Pending>>,
}

#[derive(Debug, Default)]
struct Pending {
    next: u64,
    reasons: BTreeMap<u64, Reason>,
}

/// One thing that is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// What is not ready.
    pub name: String,
    /// Why, or what it waits for.
    pub detail: String,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.detail)
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// Ready, as long as nothing is pending.
    pub fn new() -> Self {
        Self { pending: Arc::new(watch::Sender::new(Pending::default())) }
    }

    /// A part that is not ready yet. It becomes ready by [`Guard::ready`]; a guard that is dropped before that, by
    /// a task that failed say, keeps the process unready and says so.
    pub fn guard(&self, name: impl Into<String>) -> Guard {
        Guard { condition: self.condition(name, "starting"), done: false }
    }

    /// A part whose readiness comes and goes. It begins unready because of `detail`.
    pub fn condition(&self, name: impl Into<String>, detail: impl Into<String>) -> Condition {
        let name = name.into();
        let mut id = 0;
        self.pending.send_modify(|pending| {
            id = pending.next;
            pending.next += 1;
            pending.reasons.insert(id, Reason { name: name.clone(), detail: detail.into() });
        });
        Condition { readiness: self.clone(), id, name }
    }

    /// Whether nothing is pending.
    pub fn is_ready(&self) -> bool {
        self.pending.borrow().reasons.is_empty()
    }

    /// What is pending, oldest first.
    pub fn reasons(&self) -> Vec<Reason> {
        self.pending.borrow().reasons.values().cloned().collect()
    }

    /// Waits until nothing is pending.
    pub async fn wait(&self) {
        // The sender lives as long as self, so waiting cannot fail.
        let _ = self.pending.subscribe().wait_for(|pending| pending.reasons.is_empty()).await;
    }

    fn set(&self, id: u64, reason: Option<Reason>) {
        self.pending.send_if_modified(|pending| {
            let before = pending.reasons.get(&id).cloned();
            let changed = before != reason;
            match reason {
                Some(reason) => drop(pending.reasons.insert(id, reason)),
                None => drop(pending.reasons.remove(&id)),
            }
            changed
        });
    }
}

/// Keeps the process unready until [`Guard::ready`].
#[derive(Debug)]
pub struct Guard {
    condition: Condition,
    done: bool,
}

impl Guard {
    /// Says what it waits for.
    pub fn waiting_for(&self, detail: impl Into<String>) {
        self.condition.not_ready(detail);
    }

    /// This part is ready, for good.
    pub fn ready(mut self) {
        self.done = true;
        self.condition.ready();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.done {
            self.condition.not_ready("gave up before it was ready");
        }
    }
}

/// A part whose readiness comes and goes.
#[derive(Debug)]
pub struct Condition {
    readiness: Readiness,
    id: u64,
    name: String,
}

impl Condition {
    /// This part is ready.
    pub fn ready(&self) {
        self.readiness.set(self.id, None);
    }

    /// This part is not ready, because of `detail`.
    pub fn not_ready(&self, detail: impl Into<String>) {
        self.readiness.set(self.id, Some(Reason { name: self.name.clone(), detail: detail.into() }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_that_nothing_is_pending_and_what_is_pending_has_a_name() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let informer = readiness.guard("informer applications");
        let upstream = readiness.condition("principal", "not connected");
        informer.waiting_for("first list");
        let texts: Vec<String> = readiness.reasons().iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["informer applications: first list", "principal: not connected"]);
        upstream.ready();
        informer.ready();
        assert!(readiness.is_ready());
        upstream.not_ready("connection lost");
        assert!(!readiness.is_ready());
    }

    #[test]
    fn a_guard_whose_task_died_does_not_count_as_ready() {
        let readiness = Readiness::new();
        drop(readiness.guard("server"));
        assert_eq!(readiness.reasons()[0].to_string(), "server: gave up before it was ready");
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_by_the_last_guard() {
        let readiness = Readiness::new();
        let (a, b) = (readiness.guard("a"), readiness.guard("b"));
        let waiter = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.wait().await }
        });
        a.ready();
        b.ready();
        waiter.await.unwrap();
    }
}
