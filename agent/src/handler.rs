//! What the principal says to a managed agent, checked and carried out.

pub(crate) mod ownership;

use std::sync::Arc;
use std::time::Duration;

use tiphys_shared::kube::backend::{Decision, Error};
use tiphys_shared::model::event::Payload;
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Event, EventKind, Kind, Object, ResourceKey, Target};
use tiphys_shared::protocol::mirror::Wanted;
use tiphys_shared::protocol::outbox::{Item, Key};
use tiphys_shared::wire::pump::{Outcome, Outgoing, Side, persist};

use crate::metrics::Metrics;
use crate::namespaces::Namespaces;
use crate::outbound::Outbound;
use crate::reconcile::Reconciler;

/// How long a write is tried before the principal is left to say it again.
const PATIENCE: Duration = Duration::from_secs(30);

/// A managed agent's side of the stream.
#[derive(Debug)]
pub(crate) struct Managed {
    pub(crate) reconciler: Arc<Reconciler>,
    pub(crate) outbound: Arc<Outbound>,
    pub(crate) namespaces: Namespaces,
    pub(crate) metrics: Arc<Metrics>,
}

/// Events of one lane are handled in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    Resource(Kind, String, String),
    Other,
}

impl Managed {
    async fn dispatch(&self, event: &Event) -> Outcome {
        let principal = event.principal_uid.as_deref();
        match (Kind::of_target(&event.target), &event.kind, &event.payload) {
            (Some(kind), EventKind::Create | EventKind::SpecUpdate, Payload::Object(object)) => {
                self.resource(kind, object, principal).await
            }
            (Some(kind), EventKind::Delete, Payload::Object(object)) => self.gone(kind, object).await,
            (Some(Kind::Application), EventKind::SetOperation, Payload::Object(object)) => {
                self.operation(object, ownership::set_operation).await
            }
            (Some(Kind::Application), EventKind::TerminateOperation, Payload::Object(object)) => {
                self.operation(object, ownership::terminate_operation).await
            }
            _ => self.request(event),
        }
    }

    fn request(&self, event: &Event) -> Outcome {
        match (&event.target, &event.kind, &event.payload) {
            (Target::ResourceResync, EventKind::RequestResourceResync, _) => {
                self.outbound.request_resync();
                Outcome::Done
            }
            (Target::ResourceResync, EventKind::ResponseSyncedResource, Payload::SyncedResource(named)) => {
                if let Some(kind) = Kind::parse(&named.kind)
                    && let Ok(key) = self.namespaces.key(kind, &named.namespace, &named.name)
                {
                    let held = self.reconciler.stores.of(kind).get(&key);
                    self.outbound.request_update(&key, held.as_deref());
                }
                Outcome::Done
            }
            (Target::Heartbeat, _, _) => Outcome::Done,
            (target, kind, _) => {
                Outcome::Refused(format!("a managed agent does not take {kind} of {target}"))
            }
        }
    }

    fn key(&self, kind: Kind, object: &Object) -> Result<ResourceKey, Outcome> {
        self.namespaces
            .key(kind, object.namespace(), object.name())
            .map_err(|error| Outcome::Refused(error.to_string()))
    }

    async fn resource(&self, kind: Kind, incoming: &Object, principal_uid: Option<&str>) -> Outcome {
        if incoming.is_deleting() {
            return self.gone(kind, incoming).await;
        }
        let key = match self.key(kind, incoming) {
            Ok(key) => key,
            Err(outcome) => return outcome,
        };
        let local = Arc::new(ownership::localise(kind, incoming, &key.namespace, principal_uid));
        let existing = self.reconciler.stores.of(kind).get(&key);
        if ownership::refuses_adoption(existing.as_deref(), &local, self.reconciler.policy()) {
            let reason = "an object of this name is there already, and the adoption policy is never: delete it there, \
                          or allow its adoption";
            self.outbound.report_failure(&key, reason);
            return Outcome::Refused(reason.to_owned());
        }
        self.reconciler.mirror.lock().accept(key.clone(), Wanted::Present(local));
        self.reconcile(&key).await
    }

    async fn gone(&self, kind: Kind, incoming: &Object) -> Outcome {
        let key = match self.key(kind, incoming) {
            Ok(key) => key,
            Err(outcome) => return outcome,
        };
        let life = incoming.origin();
        {
            let mut mirror = self.reconciler.mirror.lock();
            // Word of the end of an earlier life does not end the present one.
            let present = match mirror.get(&key) {
                Some(Wanted::Present(wanted)) => wanted.source_uid(),
                _ => None,
            };
            if present.is_none_or(|present| present == life) {
                mirror.accept(key.clone(), Wanted::Absent(life.clone()));
            }
        }
        let outcome = self.reconcile(&key).await;
        let is_here = self
            .reconciler
            .stores
            .of(kind)
            .get(&key)
            .is_some_and(|object| object.source_uid().as_ref() == Some(&life));
        if outcome == Outcome::Done && !is_here {
            self.outbound.report_absent(&key, life);
        }
        outcome
    }

    async fn operation(
        &self,
        incoming: &Object,
        decide: impl Fn(Option<&Object>, &Object) -> Result<Decision, String>,
    ) -> Outcome {
        let key = match self.key(Kind::Application, incoming) {
            Ok(key) => key,
            Err(outcome) => return outcome,
        };
        let refusal = parking_lot::Mutex::new(None);
        let done = persist(PATIENCE, Error::is_transient, || {
            self.reconciler.act(&key, |existing| match decide(existing, incoming) {
                Ok(decision) => decision,
                Err(reason) => {
                    *refusal.lock() = Some(reason);
                    Decision::Nothing
                }
            })
        })
        .await;
        match (done, refusal.into_inner()) {
            (Err(error), _) => failed(&error),
            (Ok(_), Some(reason)) => Outcome::Refused(reason),
            (Ok(_), None) => Outcome::Done,
        }
    }

    async fn reconcile(&self, key: &ResourceKey) -> Outcome {
        match persist(PATIENCE, Error::is_transient, || self.reconciler.reconcile(key)).await {
            Ok(_) => Outcome::Done,
            Err(error) => {
                if !error.is_transient() {
                    self.outbound.report_failure(key, &error.to_string());
                }
                failed(&error)
            }
        }
    }
}

fn failed(error: &Error) -> Outcome {
    if error.is_transient() { Outcome::Later(error.to_string()) } else { Outcome::Refused(error.to_string()) }
}

impl Side for Managed {
    type Lane = Lane;

    fn on_open(&self) {
        // What was asked on the stream before is forgotten with it, answered or not.
        self.outbound.request_resync();
    }

    fn render(&self, key: &Key, item: &Item<Outgoing>) -> Option<Event> {
        self.outbound.render(key, item)
    }

    fn lane(&self, event: &Event) -> Lane {
        match (Kind::of_target(&event.target), &event.payload) {
            (Some(kind), Payload::Object(object)) => {
                Lane::Resource(kind, object.namespace().to_owned(), object.name().to_owned())
            }
            _ => Lane::Other,
        }
    }

    async fn handle(&self, event: Event) -> Outcome {
        let began = tokio::time::Instant::now();
        let outcome = self.dispatch(&event).await;
        let status = match &outcome {
            Outcome::Done => "success",
            Outcome::Refused(_) => "discarded",
            Outcome::Later(_) => "fail",
        };
        self.metrics.processed(status, &event, began.elapsed());
        outcome
    }

    fn on_sent(&self, _event: &Event) {
        self.metrics.events_sent.inc();
    }

    fn on_received(&self, event: &Event) {
        self.metrics.received(event);
    }

    fn on_acked(&self, item: &Item<Outgoing>, refused: Option<&str>) {
        if let (Some(reason), Outgoing::Object(object)) = (refused, item.value()) {
            let (namespace, name) = (object.namespace(), object.name());
            tracing::warn!(namespace, name, reason, "principal refused what this agent said of a resource");
        }
    }

    fn on_refused(&self, event: Option<&Event>, reason: &str) {
        let event_id = event.map(|event| event.id.to_string()).unwrap_or_default();
        tracing::warn!(event_id, reason, "refused an event");
        self.metrics.errors.with_label_values(&["refused"]).inc();
    }
}
