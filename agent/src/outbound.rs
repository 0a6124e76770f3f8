//! From a change in this cluster to the outbox, and to what must be undone.

use std::sync::Arc;

use tiphys_shared::kube::backend::Decision;
use tiphys_shared::kube::informer::Change;
use tiphys_shared::model::argocd::annotation;
use tiphys_shared::model::event::{Checksum, Failure, Payload, RequestUpdate, SyncedResourceList};
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Event, EventId, EventKind, Kind, Object, ResourceKey, SourceUid, Target};
use tiphys_shared::process::clock;
use tiphys_shared::protocol::checksum;
use tiphys_shared::protocol::outbox::{Item, Key};
use tiphys_shared::wire::pump::{Outgoing, SharedOutbox, resource_ids};

use crate::handler::ownership;
use crate::reconcile::Reconciler;

/// What every agent calls itself, as upstream has it. The principal knows agents by their credentials alone.
const SOURCE: &str = "agent://agent-managed";

/// Fills the outbox of a managed agent.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) outbox: Arc<SharedOutbox>,
    pub(crate) reconciler: Arc<Reconciler>,
}

impl Outbound {
    /// Takes in a change that an informer tells of.
    pub(crate) fn on_change(&self, kind: Kind, change: &Change) {
        let key = change.object().key(kind);
        match change {
            Change::Applied { old, new } => {
                if old.is_none()
                    && let Some(assumed) = ownership::assume(kind, new)
                {
                    self.reconciler.mirror.lock().assume(key.clone(), Arc::new(assumed));
                }
                if self.reconciler.decide(&key, Some(new)) != Decision::Nothing {
                    self.reconciler.mark(key.clone());
                }
                if kind == Kind::Application && new.source_uid().is_some() && shows_news(old.as_deref(), new)
                {
                    self.outbox
                        .fill(|outbox| outbox.put(key, Outgoing::Object(Arc::clone(new)), old.is_none()));
                }
            }
            Change::Gone(last) => {
                let wanted_gone = self.reconciler.mirror.lock().forget_absent(&key);
                if wanted_gone.is_some() && kind == Kind::Application {
                    self.outbox.fill(|outbox| outbox.remove(key, Outgoing::Object(Arc::clone(last))));
                } else if wanted_gone.is_none() && self.reconciler.decide(&key, None) != Decision::Nothing {
                    tracing::info!(%key, "was deleted here without the control plane's word; it comes back");
                    self.reconciler.mark(key);
                }
            }
        }
    }

    /// The control plane wants the Application gone, and it is not here: it may finish its own deletion.
    pub(crate) fn report_absent(&self, key: &ResourceKey, life: SourceUid) {
        self.reconciler.mirror.lock().forget_absent(key);
        if key.kind != Kind::Application {
            return;
        }
        let mut last = Object::new(&key.name, &tiphys_shared::kube::kinds::api_resource(key.kind));
        last.metadata.namespace = Some(key.namespace.clone());
        last.annotate(annotation::SOURCE_UID, life.0);
        self.outbox.fill(|outbox| outbox.remove(key.clone(), Outgoing::Object(Arc::new(last))));
    }

    /// Says that something cannot be done.
    pub(crate) fn report_failure(&self, key: &ResourceKey, message: &str) {
        let failure = Failure {
            resource_name: key.name.clone(),
            resource_namespace: key.namespace.clone(),
            message: message.to_owned(),
        };
        self.send(
            format!("error/{key}"),
            Event::request(key.kind.target(), EventKind::Error, Payload::Failure(failure)),
        );
    }

    /// Asks the principal to compare everything that is here with what should be.
    pub(crate) fn request_resync(&self) {
        let copies: Vec<(Kind, Arc<Object>, SourceUid)> = Kind::ALL
            .into_iter()
            .flat_map(|kind| {
                self.reconciler.stores.of(kind).all().into_iter().map(move |object| (kind, object))
            })
            .filter(|(_, object)| !object.is_deleting())
            .filter_map(|(kind, object)| object.source_uid().map(|uid| (kind, object, uid)))
            .collect();
        let list = checksum::set(copies.iter().map(|(kind, object, uid)| (*kind, object.name(), uid)));
        for (kind, object, _) in &copies {
            self.request_update(&object.key(*kind), Some(object));
        }
        self.send(
            "set".to_owned(),
            Event::request(
                Target::ResourceResync,
                EventKind::RequestSyncedResourceList,
                Payload::SyncedResourceList(SyncedResourceList { checksum: list }),
            ),
        );
    }

    /// Asks the principal to compare one resource.
    pub(crate) fn request_update(&self, key: &ResourceKey, held: Option<&Object>) {
        let request = RequestUpdate {
            name: key.name.clone(),
            namespace: key.namespace.clone(),
            uid: held.and_then(|object| object.source_uid()).map(|uid| uid.0).unwrap_or_default(),
            kind: key.kind.as_str().to_owned(),
            checksum: held.map_or_else(Checksum::default, |object| checksum::content(key.kind, object)),
        };
        self.send(
            format!("update/{key}"),
            Event::request(Target::ResourceResync, EventKind::RequestUpdate, Payload::RequestUpdate(request)),
        );
    }

    /// A sign of life.
    pub(crate) fn heartbeat(&self) {
        self.send("heartbeat".to_owned(), Event::request(Target::Heartbeat, EventKind::Ping, Payload::Empty));
    }

    fn send(&self, name: String, event: Event) {
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
        let kind = match item {
            Item::Delete(_) => EventKind::Delete,
            _ => EventKind::StatusUpdate,
        };
        let mut seen = (**object).clone();
        if let Some(annotations) = &mut seen.metadata.annotations {
            annotations.remove(annotation::LAST_APPLIED);
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

/// Whether the control plane would learn something from `new`.
fn shows_news(old: Option<&Object>, new: &Object) -> bool {
    let Some(old) = old else { return new.field("status").is_some() || new.field("operation").is_some() };
    old.field("status") != new.field("status")
        || old.field("operation") != new.field("operation")
        || old.annotation(annotation::REFRESH) != new.annotation(annotation::REFRESH)
        || old.source_uid() != new.source_uid()
}
