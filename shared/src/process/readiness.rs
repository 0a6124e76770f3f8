//! What has to be true before the process is ready, and why it is not.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

/// Answers "ready?" and "why not?". Clones share the answer.
#[derive(Clone, Debug)]
pub struct Readiness {
    parts: Arc<watch::Sender<Parts>>,
}

#[derive(Debug, Default)]
struct Parts {
    next: u64,
    parts: BTreeMap<u64, Part>,
}

/// One of the things that have to be ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Why it is not ready, if it is not.
    pub obstacle: Option<String>,
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
        Self { parts: Arc::new(watch::Sender::new(Parts::default())) }
    }

    /// A part that is not ready yet. It becomes ready by [`Guard::ready`]; a guard that is dropped before that, by
    /// a task that failed say, keeps the process unready and says so.
    pub fn guard(&self, name: impl Into<String>) -> Guard {
        Guard { condition: self.condition(name, "starting"), done: false }
    }

    /// A part whose readiness comes and goes. It begins unready because of `detail`.
    pub fn condition(&self, name: impl Into<String>, detail: impl Into<String>) -> Condition {
        let name: String = name.into();
        let mut id = 0;
        self.parts.send_modify(|parts| {
            id = parts.next;
            parts.next += 1;
            parts.parts.insert(id, Part { name, obstacle: Some(detail.into()) });
        });
        Condition { readiness: self.clone(), id }
    }

    /// Whether nothing is pending.
    pub fn is_ready(&self) -> bool {
        self.parts.borrow().parts.values().all(|part| part.obstacle.is_none())
    }

    /// What has to be ready, in the order in which it was named.
    pub fn parts(&self) -> Vec<Part> {
        self.parts.borrow().parts.values().cloned().collect()
    }

    /// What is pending, oldest first.
    pub fn reasons(&self) -> Vec<Reason> {
        let reason = |part: Part| Some(Reason { name: part.name, detail: part.obstacle? });
        self.parts().into_iter().filter_map(reason).collect()
    }

    /// Waits until nothing is pending.
    pub async fn wait(&self) {
        // The sender lives as long as self, so waiting cannot fail.
        let all = |parts: &Parts| parts.parts.values().all(|part| part.obstacle.is_none());
        let _ = self.parts.subscribe().wait_for(all).await;
    }

    fn set(&self, id: u64, obstacle: Option<String>) {
        self.parts.send_if_modified(|parts| {
            let Some(part) = parts.parts.get_mut(&id) else { return false };
            let changed = part.obstacle != obstacle;
            part.obstacle = obstacle;
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
}

impl Condition {
    /// This part is ready.
    pub fn ready(&self) {
        self.readiness.set(self.id, None);
    }

    /// This part is not ready, because of `detail`.
    pub fn not_ready(&self, detail: impl Into<String>) {
        self.readiness.set(self.id, Some(detail.into()));
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
