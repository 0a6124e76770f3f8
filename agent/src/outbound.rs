//! From a change in this cluster to the outbox, and to what must be undone.
//!
//! A managed agent tells how things stand and undoes what others change; an autonomous one tells what this cluster
//! declares, and how it stands.

mod compare;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tiphys_shared::kube::informer::Change;
use tiphys_shared::kube::reconciler::{Cause, Reconciler};
use tiphys_shared::model::argocd::{annotation, label};
use tiphys_shared::model::cluster::Counts;
use tiphys_shared::model::event::{Failure, Payload};
use tiphys_shared::model::feature::{Feature, Features};
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Event, EventId, EventKind, Kind, Mode, Object, ResourceKey, SourceUid, Target};
use tiphys_shared::process::clock;
use tiphys_shared::protocol::outbox::{Item, Key};
use tiphys_shared::protocol::ownership::{self, Decision};
use tiphys_shared::protocol::resync::cache::{Cache, Trees};
use tiphys_shared::protocol::resync::digest::Scope;
use tiphys_shared::wire::pump::{Outgoing, SharedOutbox, resource_ids};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::namespaces::Namespaces;
use crate::pace::Pace;

/// What every agent calls itself, as upstream has it. The principal knows agents by their credentials alone.
pub(crate) const SOURCE: &str = "agent://agent-managed";
/// The kinds that an autonomous cluster shows to the control plane.
const SHOWN: [Kind; 2] = [Kind::AppProject, Kind::Application];

/// Fills the outbox.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) mode: Mode,
    pub(crate) outbox: Arc<SharedOutbox>,
    pub(crate) reconciler: Arc<Reconciler>,
    pub(crate) namespaces: Namespaces,
    pub(crate) digests: Cache,
    pub(crate) trees: Trees,
    pub(crate) metrics: Arc<Metrics>,
    /// What the principal calls this agent, once it has said so.
    pub(crate) name: OnceLock<String>,
    /// Whether the principal is of ours, so far as is known.
    pub(crate) tiphys: AtomicBool,
    /// Holds updates of Applications back, if users want that.
    pub(crate) pace: Option<Mutex<Pace>>,
    pub(crate) held_back: Notify,
}

impl Outbound {
    /// Takes note of what the principal can do.
    pub(crate) fn note_peer(&self, peer: &Features) {
        self.tiphys.store(peer.has(Feature::Resync), Ordering::Relaxed);
    }

    /// Whether the principal is of ours.
    pub(crate) fn is_tiphys(&self) -> bool {
        self.tiphys.load(Ordering::Relaxed)
    }

    /// Takes in a change that an informer tells of. What is `listed` was there before anything was watched, and is compared
    /// as a whole once there is a stream.
    pub(crate) fn on_change(&self, kind: Kind, change: &Change, listed: bool) {
        if let Change::Gone(last) = change {
            self.digests.forget(&last.key(kind));
        }
        match self.mode {
            Mode::Managed => self.copy_changed(kind, change, listed),
            Mode::Autonomous => self.original_changed(kind, change, listed),
        }
    }

    fn copy_changed(&self, kind: Kind, change: &Change, listed: bool) {
        let key = change.object().key(kind);
        match change {
            Change::Applied { old, new } => {
                if old.is_none()
                    && let Some(assumed) = ownership::assume(kind, Scope::Spec, new)
                {
                    self.reconciler.mirror.lock().assume(key.clone(), Arc::new(assumed));
                }
                if self.reconciler.decide(&key, Some(new)) != Decision::Nothing {
                    self.reconciler.mark(key, Cause::Changed);
                }
                if kind == Kind::Application
                    && new.source_uid().is_some()
                    && !listed
                    && shows_news(old.as_deref(), new)
                {
                    self.put_paced(kind, new, old.is_none());
                }
            }
            Change::Gone(last) => {
                self.drop_waiting(&key);
                let wanted_gone = {
                    let mut mirror = self.reconciler.mirror.lock();
                    if let Some(request) = last.annotation(annotation::OPERATION_TAKEN) {
                        mirror.note_taken(&key, &last.origin(), request);
                    }
                    mirror.forget_absent(&key, &last.origin())
                };
                if wanted_gone && kind == Kind::Application {
                    self.report_gone(key, Arc::clone(last));
                } else if !wanted_gone && self.reconciler.decide(&key, None) != Decision::Nothing {
                    tracing::info!(%key, "was deleted here without the control plane's word; it comes back");
                    self.reconciler.mark(key, Cause::Deleted(last.origin()));
                }
            }
        }
    }

    fn original_changed(&self, kind: Kind, change: &Change, listed: bool) {
        match change {
            Change::Applied { old, new } => {
                let was = old.as_ref().filter(|old| shows(kind, old));
                match (was, shows(kind, new)) {
                    (Some(old), false) => {
                        self.drop_waiting(&old.key(kind));
                        self.outbox
                            .fill(|outbox| outbox.remove(old.key(kind), Outgoing::Object(Arc::clone(old))));
                    }
                    (was, true) if !listed && was.is_none_or(|old| self.differs(kind, old, new)) => {
                        self.put_paced(kind, new, was.is_none());
                    }
                    _ => {}
                }
            }
            Change::Gone(last) if shows(kind, last) => {
                self.drop_waiting(&last.key(kind));
                self.outbox.fill(|outbox| outbox.remove(last.key(kind), Outgoing::Object(Arc::clone(last))));
            }
            Change::Gone(_) => {}
        }
    }

    /// Whether the control plane would see a difference between two states of an original.
    fn differs(&self, kind: Kind, old: &Object, new: &Object) -> bool {
        old.uid() != new.uid()
            || old.field("operation").is_some() != new.field("operation").is_some()
            || old.annotation(annotation::REFRESH) != new.annotation(annotation::REFRESH)
            || self.digests.digest_of(kind, Scope::Whole, old)
                != self.digests.digest_of(kind, Scope::Whole, new)
    }

    /// Sends a change of an Application, at the pace that users want.
    fn put_paced(&self, kind: Kind, object: &Arc<Object>, created: bool) {
        if let (Kind::Application, false, Some(pace)) = (kind, created, &self.pace) {
            let now = tokio::time::Instant::now().into_std();
            if !pace.lock().offer(&object.key(kind), object, now) {
                self.held_back.notify_one();
                return;
            }
        }
        self.put(kind, object, created);
    }

    fn drop_waiting(&self, key: &ResourceKey) {
        if let Some(pace) = &self.pace {
            pace.lock().drop_waiting(key);
        }
    }

    /// Sends what was held back, when its time has come, until cancelled.
    pub(crate) async fn release(&self, cancel: CancellationToken) {
        let Some(pace) = &self.pace else { return };
        loop {
            let due = pace.lock().next_due().map(tokio::time::Instant::from_std);
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = async { tokio::time::sleep_until(due.unwrap_or_else(tokio::time::Instant::now)).await },
                    if due.is_some() => {}
                () = self.held_back.notified() => {}
            }
            let released = pace.lock().release(tokio::time::Instant::now().into_std());
            for (key, object) in released {
                self.put(key.kind, &object, false);
            }
        }
    }

    /// Sends how a resource is, unless it is not to be shown.
    pub(crate) fn put(&self, kind: Kind, object: &Arc<Object>, created: bool) {
        if self.mode == Mode::Autonomous && !shows(kind, object) {
            return;
        }
        let (key, object) = (object.key(kind), Outgoing::Object(Arc::clone(object)));
        self.outbox.fill(|outbox| outbox.put(key, object, created));
    }

    /// The control plane wants the Application gone, and it is not here: it may finish its own deletion.
    pub(crate) fn report_absent(&self, key: &ResourceKey, life: SourceUid) {
        self.reconciler.mirror.lock().forget_absent(key, &life);
        if key.kind != Kind::Application {
            return;
        }
        let mut last = Object::new(&key.name, &tiphys_shared::kube::kinds::api_resource(key.kind));
        last.metadata.namespace = Some(key.namespace.clone());
        // So that the words about two lives have names of their own.
        last.metadata.uid = Some(life.0.clone());
        last.annotate(annotation::SOURCE_UID, life.0);
        self.report_gone(key.clone(), Arc::new(last));
    }

    fn report_gone(&self, key: ResourceKey, last: Arc<Object>) {
        let same_life = |one: &Outgoing, other: &Outgoing| match (one, other) {
            (Outgoing::Object(one), Outgoing::Object(other)) => one.origin() == other.origin(),
            _ => false,
        };
        self.outbox.fill(|outbox| outbox.report_gone(key, Outgoing::Object(last), same_life));
    }

    /// Tells how the copy of this original, or of any, stands, if it is here.
    pub(crate) fn tell_status(&self, key: &ResourceKey, life: Option<&SourceUid>) {
        let copy = self.reconciler.stores.of(key.kind).get(key);
        if key.kind == Kind::Application
            && let Some(copy) = copy
            && (life.is_none() || copy.source_uid().as_ref() == life)
        {
            self.put(key.kind, &copy, false);
        }
    }

    /// Says that something cannot be done.
    pub(crate) fn report_failure(&self, key: &ResourceKey, message: &str) {
        // Only Applications have a place where it can be shown.
        if key.kind != Kind::Application {
            tracing::error!(%key, message, "what the control plane wants cannot be had here");
            return;
        }
        let failure = Failure {
            resource_name: key.name.clone(),
            resource_namespace: key.namespace.clone(),
            message: message.to_owned(),
        };
        self.send(format!("error/{key}"), key.kind.target(), EventKind::Error, Payload::Failure(failure));
    }

    /// Tells what is on this cluster.
    pub(crate) fn report_counts(&self, counts: Counts) {
        match serde_json::to_value(counts) {
            Ok(document) => self.send(
                "cluster-cache-info".to_owned(),
                Target::ClusterCacheInfo,
                EventKind::ClusterCacheInfoUpdate,
                Payload::Document(document),
            ),
            Err(error) => tracing::error!(%error, "the figures of this cluster cannot be written"),
        }
    }

    /// A sign of life.
    pub(crate) fn heartbeat(&self) {
        self.send("heartbeat".to_owned(), Target::Heartbeat, EventKind::Ping, Payload::Empty);
    }

    fn send(&self, name: String, target: Target, kind: EventKind, payload: Payload) {
        let event = Event::request(target, kind, payload);
        self.outbox.fill(|outbox| outbox.request(name, Outgoing::Message(Box::new(event))));
    }

    /// Writes the event for what waits in the outbox.
    pub(crate) fn render(&self, key: &Key, item: &Item<Outgoing>) -> Option<Event> {
        let object = match item.value() {
            Outgoing::Message(event) => {
                let mut event = (**event).clone();
                event.source = SOURCE.to_owned();
                event.sent_at = Some(clock::now());
                return Some(event);
            }
            Outgoing::Object(object) => object,
        };
        let Key::Resource(key) = key else { return None };
        let kind = match (item, self.mode) {
            (Item::Delete(_), _) => EventKind::Delete,
            (_, Mode::Managed) => EventKind::StatusUpdate,
            (Item::State { created: true, .. }, Mode::Autonomous) => EventKind::Create,
            (_, Mode::Autonomous) => EventKind::SpecUpdate,
        };
        let mut seen = (**object).clone();
        if let Some(annotations) = &mut seen.metadata.annotations {
            annotations.remove(annotation::LAST_APPLIED);
        }
        if !self.is_tiphys() {
            // A Go principal would take it for one that was asked for there, and ask for it once more.
            seen.set_field("operation", None);
        }
        if key.kind == Kind::Application && self.namespaces.keep {
            seen.metadata.namespace = Some(self.namespaces.theirs(&key.namespace));
        }
        let (id, resource_id) = resource_ids(object.name(), object.uid(), object.resource_version());
        Some(Event {
            source: SOURCE.to_owned(),
            target: key.kind.target(),
            id: if kind == EventKind::Delete { EventId(format!("{id}_{kind}")) } else { id },
            kind,
            resource_id,
            subject: Some(format!("{}/{}", object.namespace(), object.name())),
            sent_at: Some(clock::now()),
            principal_uid: None,
            extensions: Default::default(),
            payload: Payload::Object(Box::new(seen)),
        })
    }
}

/// Whether the control plane would learn something from `new` about a copy that it owns.
fn shows_news(old: Option<&Object>, new: &Object) -> bool {
    let Some(old) = old else { return new.field("status").is_some() || new.field("operation").is_some() };
    old.field("status") != new.field("status")
        || old.field("operation") != new.field("operation")
        || old.annotation(annotation::REFRESH) != new.annotation(annotation::REFRESH)
        || old.source_uid() != new.source_uid()
}

/// Whether an autonomous cluster shows this to the control plane.
pub(crate) fn shows(kind: Kind, object: &Object) -> bool {
    SHOWN.contains(&kind) && object.label(label::IGNORE_SYNC) != Some("true")
}
