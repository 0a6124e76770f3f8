//! Tasks with names, that end when the process ends, and whose death does not go unnoticed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What the end of a task means for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// An error or a panic is logged; the others go on.
    Log,
    /// The process is of no use without it: an error, a panic or an end before shutdown stops all tasks.
    Stop,
}

/// Why everything was stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("task {task} {reason}")]
pub struct Failure {
    /// Which task.
    pub task: String,
    /// What happened to it.
    pub reason: String,
}

/// What a task may return: nothing, or a result.
pub trait Outcome {
    /// The error as text, if it is one.
    fn error(self) -> Option<String>;
}

impl Outcome for () {
    fn error(self) -> Option<String> {
        None
    }
}

impl<E: fmt::Display> Outcome for Result<(), E> {
    fn error(self) -> Option<String> {
        self.err().map(|e| e.to_string())
    }
}

/// Spawns tasks and waits for their end. Clones share the tasks.
#[derive(Clone)]
pub struct Tasks {
    inner: Arc<Inner>,
}

struct Inner {
    tracker: TaskTracker,
    stop: CancellationToken,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    running: BTreeMap<u64, (Cow<'static, str>, Option<AbortHandle>)>,
    failure: Option<Failure>,
}

/// How a [`Tasks::drain`] went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Tasks that did not end in time and were aborted.
    pub aborted: Vec<String>,
    /// Why everything was stopped, when a task was the reason.
    pub failure: Option<Failure>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// No tasks yet.
    pub fn new() -> Self {
        Self::stopped_by(CancellationToken::new())
    }

    /// Tasks that also stop when `stop` is cancelled.
    pub fn stopped_by(stop: CancellationToken) -> Self {
        Self { inner: Arc::new(Inner { tracker: TaskTracker::new(), stop, state: Mutex::default() }) }
    }

    /// Cancelled when the tasks are to end. Each task looks at it by itself.
    pub fn stop_token(&self) -> CancellationToken {
        self.inner.stop.clone()
    }

    /// Asks all tasks to end.
    pub fn stop(&self) {
        self.inner.stop.cancel();
    }

    /// Waits until the tasks are to end.
    pub async fn stopping(&self) {
        self.inner.stop.cancelled().await;
    }

    /// The first failure of a task that the process cannot do without.
    pub fn failure(&self) -> Option<Failure> {
        self.inner.state.lock().failure.clone()
    }

    /// How many tasks there are.
    pub fn len(&self) -> usize {
        self.inner.state.lock().running.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Runs `task`. A panic in it is caught and treated as an error.
    pub fn spawn<F>(&self, name: impl Into<Cow<'static, str>>, on_failure: OnFailure, task: F) -> AbortHandle
    where
        F: Future + Send + 'static,
        F::Output: Outcome,
    {
        let name = name.into();
        let id = {
            let mut state = self.inner.state.lock();
            let id = state.next;
            state.next += 1;
            state.running.insert(id, (name.clone(), None));
            id
        };
        let running = Running { inner: Arc::clone(&self.inner), id };
        let handle = self.inner.tracker.spawn(async move {
            let ended = AssertUnwindSafe(task).catch_unwind().await;
            let reason = match ended {
                Err(panic) => Some(format!("panicked: {}", message(panic.as_ref()))),
                Ok(outcome) => outcome.error().map(|error| format!("failed: {error}")),
            };
            running.ended(&name, on_failure, reason);
        });
        let abort = handle.abort_handle();
        if let Some((_, slot)) = self.inner.state.lock().running.get_mut(&id) {
            *slot = Some(abort.clone());
        }
        abort
    }

    /// Asks all tasks to end, waits for them until `deadline` has passed, and aborts the rest.
    pub async fn drain(&self, deadline: Duration) -> Drained {
        self.inner.stop.cancel();
        self.inner.tracker.close();
        let mut aborted = Vec::new();
        if tokio::time::timeout(deadline, self.inner.tracker.wait()).await.is_err() {
            let late: Vec<_> = self.inner.state.lock().running.values().cloned().collect();
            for (name, abort) in late {
                tracing::warn!(task = %name, ?deadline, "task did not end in time and is aborted");
                if let Some(abort) = abort {
                    abort.abort();
                }
                aborted.push(name.into_owned());
            }
            // A task that blocks its thread cannot be aborted: do not wait for it for ever.
            if tokio::time::timeout(Duration::from_secs(1), self.inner.tracker.wait()).await.is_err() {
                tracing::error!("some tasks block their threads and are left behind");
            }
        }
        Drained { aborted, failure: self.failure() }
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.inner.state.lock();
        let names: Vec<_> = state.running.values().map(|(name, _)| name).collect();
        f.debug_struct("Tasks").field("running", &names).finish_non_exhaustive()
    }
}

/// Takes a task off the list, also when it is aborted or never polled.
struct Running {
    inner: Arc<Inner>,
    id: u64,
}

impl Running {
    fn ended(&self, name: &str, on_failure: OnFailure, reason: Option<String>) {
        let stopping = self.inner.stop.is_cancelled();
        let reason = match (reason, on_failure) {
            (Some(reason), _) => reason,
            (None, OnFailure::Stop) if !stopping => "ended unexpectedly".to_owned(),
            (None, _) => return,
        };
        tracing::error!(task = name, reason, "task failed");
        if on_failure == OnFailure::Stop {
            let failure = Failure { task: name.to_owned(), reason };
            self.inner.state.lock().failure.get_or_insert(failure);
            self.inner.stop.cancel();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.inner.state.lock().running.remove(&self.id);
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "no message"
    }
}

#[cfg(test)]
mod tests;
