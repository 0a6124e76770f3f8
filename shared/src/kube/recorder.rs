//! Kubernetes Events on the objects that people look at.
//!
//! Whoever has something to tell puts it down and goes on; one task writes. What is told again of the same object within a
//! pause is one write, and all writes together keep to a pace. So neither a peer that comes and goes nor a fleet that comes
//! back at once is a burden on the API server, and what Kubernetes keeps of them for an hour stays small.

mod queue;
mod writer;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use parking_lot::Mutex;
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::queue::{Key, Queue, Step};
use self::writer::{Outcome, Writer};
use super::kinds::api_resource;
use crate::model::object::ObjectExt as _;
use crate::model::{AgentName, Kind, Object};
use crate::process::metrics::{self, Register, register};

/// Longest note that an API server takes, in bytes.
const NOTE: usize = 1024;
/// How long the API server may take for one write.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an Event is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Regarding {
    /// An object.
    Object(Place),
    /// The Secret by which Argo CD knows an agent's cluster. Without one there is nothing to write on.
    ClusterOf(AgentName),
}

/// An object as Kubernetes names it. Its Events are written in its namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    api_version: String,
    kind: String,
    namespace: String,
    name: String,
    /// Empty if it is not known.
    uid: String,
}

impl Place {
    fn secret(namespace: &str, name: &str, uid: String) -> Self {
        Self {
            api_version: "v1".to_owned(),
            kind: "Secret".to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid,
        }
    }
}

impl Regarding {
    /// An object of `kind`.
    pub fn object(kind: Kind, object: &Object) -> Self {
        let resource = api_resource(kind);
        Self::Object(Place {
            api_version: resource.api_version,
            kind: resource.kind,
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
            uid: object.uid().to_owned(),
        })
    }

    /// A Secret.
    pub fn secret(namespace: &str, name: &str) -> Self {
        Self::Object(Place::secret(namespace, name, String::new()))
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    is_warning: bool,
    reason: &'static str,
    action: &'static str,
    note: String,
}

impl Event {
    /// Something that is as it should be. `reason` and `action` are words in camel case; `note` is for people, and may have
    /// a peer's words in it.
    pub fn normal(reason: &'static str, action: &'static str, note: &str) -> Self {
        Self { is_warning: false, reason, action, note: clean(note) }
    }

    /// Something that somebody may have to look at.
    pub fn warning(reason: &'static str, action: &'static str, note: &str) -> Self {
        Self { is_warning: true, ..Self::normal(reason, action, note) }
    }
}

/// One line, no longer than what an API server takes.
fn clean(note: &str) -> String {
    let line: String = note.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line[..line.floor_char_boundary(NOTE)].to_owned()
}

/// How much is written.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Pause between two writes of one reason about one object.
    pub pause: Duration,
    /// How many writes may follow each other at once after a silence.
    pub burst: u32,
    /// Pause between two writes beyond that.
    pub interval: Duration,
    /// How many may wait; what is as it should be gets half of the room.
    pub waiting: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { pause: Duration::from_secs(60), burst: 50, interval: Duration::from_millis(200), waiting: 500 }
    }
}

/// Takes Events, and never makes anybody wait. Clones share everything; the default takes none.
#[derive(Clone, Default)]
pub struct Recorder {
    shared: Option<Arc<Shared>>,
}

struct Shared {
    queue: Mutex<Queue>,
    woken: Notify,
    outcomes: IntCounterVec,
}

/// What became of Events.
fn outcomes(registry: &impl Register) -> Result<IntCounterVec, metrics::Error> {
    let outcomes = Opts::new(
        "tiphys_kubernetes_events_total",
        "Number of Kubernetes Events that were written, had no object to be written on (homeless), were one too many \
         (dropped), or were refused by the API server (failed)",
    );
    register(registry, IntCounterVec::new(outcomes, &["outcome"])?)
}

/// Registers the figures of a [`Recorder`], to be described.
///
/// # Errors
/// [`metrics::Error`] if there are such figures already.
pub fn describe(registry: &impl Register) -> Result<(), metrics::Error> {
    outcomes(registry).map(drop)
}

impl Recorder {
    /// Writes in the name of `reporter` until `cancel`, or nothing without `limits`. Cluster Secrets are looked for in
    /// `namespace`.
    ///
    /// # Errors
    /// [`metrics::Error`] if the registry has these figures already.
    pub fn start(
        client: Client,
        namespace: &str,
        reporter: &'static str,
        limits: Option<Limits>,
        registry: &Registry,
        cancel: &CancellationToken,
    ) -> Result<Self, metrics::Error> {
        let Some(limits) = limits else { return Ok(Self::default()) };
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::new(limits)),
            woken: Notify::new(),
            outcomes: outcomes(registry)?,
        });
        let writer = Writer::new(client, namespace, reporter);
        tokio::spawn(cancel.clone().run_until_cancelled_owned(write(Arc::clone(&shared), writer)));
        Ok(Self { shared: Some(shared) })
    }

    /// Tells what happened to an object.
    pub fn tell(&self, regarding: Regarding, event: Event) {
        let Some(shared) = &self.shared else { return };
        let key = Key { regarding, reason: event.reason };
        if shared.queue.lock().put(key, event) {
            shared.woken.notify_one();
        } else {
            shared.count("dropped");
        }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("writes", &self.shared.is_some()).finish()
    }
}

impl Shared {
    fn count(&self, outcome: &str) {
        self.outcomes.with_label_values(&[outcome]).inc();
    }
}

async fn write(shared: Arc<Shared>, mut writer: Writer) {
    loop {
        let step = shared.queue.lock().next(Instant::now());
        let (key, event) = match step {
            Step::Write(key, event) => (key, event),
            Step::Idle => {
                shared.woken.notified().await;
                continue;
            }
            Step::Wait(until) => {
                tokio::select! {
                    () = shared.woken.notified() => {}
                    () = tokio::time::sleep_until(until) => {}
                }
                continue;
            }
        };
        let outcome = tokio::time::timeout(PATIENCE, writer.write(&key, &event)).await;
        shared.count(match outcome {
            Ok(Outcome::Written) => "written",
            Ok(Outcome::Homeless) => "homeless",
            Ok(Outcome::Failed) | Err(_) => "failed",
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_one_line_that_an_api_server_takes() {
        let event = Event::warning("Refused", "Refuse", &format!("a\nb{}", "ä".repeat(NOTE)));
        assert!(event.note.starts_with("a bä"), "{}", event.note);
        assert_eq!(event.note.len(), NOTE - 1, "cut within a letter");
    }
}
