//! What the principal says, checked and carried out.

mod autonomous;
pub(crate) mod localise;
mod managed;

use std::sync::Arc;
use std::time::Duration;

use tiphys_shared::kube::backend::Error;
use tiphys_shared::model::argocd::annotation;
use tiphys_shared::model::event::Payload;
use tiphys_shared::model::feature::{Feature, Features};
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Event, EventKind, Kind, Mode, Object, ResourceKey, Target};
use tiphys_shared::protocol::mirror::Wanted;
use tiphys_shared::protocol::outbox::{Item, Key};
use tiphys_shared::protocol::ownership::{self, Decision};
use tiphys_shared::protocol::resync::exchange::{Query, Report};
use tiphys_shared::wire::pump::{Outcome, Outgoing, Side, persist};

use crate::outbound::Outbound;
use crate::redis_proxy::RedisProxy;

/// How long a write is tried before the principal is left to say it again.
const PATIENCE: Duration = Duration::from_secs(30);

/// This cluster's side of the stream.
#[derive(Debug)]
pub(crate) struct ClusterSide {
    pub(crate) outbound: Arc<Outbound>,
    /// Mean pause between two comparisons with a Tiphys principal.
    pub(crate) resync_interval: Option<Duration>,
    /// What the principal may read of this cluster's Redis.
    pub(crate) redis_proxy: RedisProxy,
}

/// Events of one lane are handled in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    Resource(Kind, String, String),
    Other,
}

impl ClusterSide {
    async fn dispatch(&self, event: &Event) -> Outcome {
        match (&event.target, &event.kind, &event.payload) {
            (Target::Heartbeat, _, _) => Outcome::Done,
            (Target::Application, EventKind::SetOperation, Payload::Object(object)) => {
                self.start(object, object.annotation(annotation::OPERATION_REQUESTED)).await
            }
            (Target::Application, EventKind::TerminateOperation, Payload::Object(object)) => {
                self.operation(object, ownership::terminate_operation).await
            }
            (Target::Redis, EventKind::RedisRequest, Payload::RedisRequest(request)) => {
                self.redis_proxy.take(request.clone());
                Outcome::Done
            }
            (Target::ResourceResync, EventKind::ResyncQuery, Payload::Document(document)) => {
                Outcome::of_document(document, |query: Query| self.outbound.answer(&query))
            }
            (Target::ResourceResync, EventKind::ResyncReport, Payload::Document(document)) => {
                Outcome::of_document(document, |report: Report| self.outbound.judge(&report))
            }
            _ => match self.outbound.mode {
                Mode::Managed => self.managed(event).await,
                Mode::Autonomous => self.autonomous(event).await,
            },
        }
    }

    /// Starts an operation that the principal asks for, once.
    async fn start(&self, object: &Object, request: Option<&str>) -> Outcome {
        if self.has_to_wait(object, request) {
            return Outcome::Later("the operation before it waits, or is being stopped".to_owned());
        }
        if self.is_going(object) {
            return Outcome::Later("the copy that is here goes, and another comes".to_owned());
        }
        let outcome = self
            .operation(object, |existing| match object.field("operation") {
                None => Decision::Nothing,
                Some(operation) => ownership::set_operation(existing, operation, request),
            })
            .await;
        // A request that was carried out before is repeated by a principal that has not heard how it ended.
        if let (Outcome::Done, Some(request)) = (&outcome, request)
            && let Ok(key) = self.key(Kind::Application, object)
        {
            self.report_end(key, request);
        }
        outcome
    }

    /// The resource here that an event of the principal is about.
    fn key(&self, kind: Kind, object: &Object) -> Result<ResourceKey, Outcome> {
        self.outbound
            .namespaces
            .key(kind, object.namespace(), object.name())
            .map_err(|error| Outcome::Refused(error.to_string()))
    }

    async fn operation(&self, incoming: &Object, decide: impl Fn(&Object) -> Decision) -> Outcome {
        let key = match self.key(Kind::Application, incoming) {
            Ok(key) => key,
            Err(outcome) => return outcome,
        };
        self.act(&key, incoming, decide).await
    }

    /// Acts on the Application that the principal speaks of, if this is that one.
    async fn act(&self, key: &ResourceKey, of: &Object, decide: impl Fn(&Object) -> Decision) -> Outcome {
        let refusal = parking_lot::Mutex::new(None);
        let done = persist(PATIENCE, Error::is_transient, || {
            self.outbound.reconciler.act(key, |existing| match self.meant(existing, of) {
                Ok(existing) => decide(existing),
                Err(reason) => {
                    *refusal.lock() = Some(reason);
                    Decision::Nothing
                }
            })
        })
        .await;
        match (done, refusal.into_inner()) {
            (Err(error), _) => failed(&error),
            // An earlier life of it has to go first.
            (Ok(_), Some(reason)) if self.is_coming(key, of) => Outcome::Later(reason.to_owned()),
            (Ok(_), Some(reason)) => Outcome::Refused(reason.to_owned()),
            (Ok(_), None) => Outcome::Done,
        }
    }

    /// Whether the copy of the Application that is here was deleted, and not by the control plane: it comes back, but what it
    /// takes until then goes with it.
    fn is_going(&self, of: &Object) -> bool {
        self.key(Kind::Application, of).is_ok_and(|key| {
            let here = self.outbound.reconciler.stores.applications.get(&key);
            here.is_some_and(|application| application.is_deleting()) && self.is_coming(&key, of)
        })
    }

    /// Whether an operation that was not taken yet has to wait: for Argo CD to take up the one before it, or to stop it.
    fn has_to_wait(&self, of: &Object, request: Option<&str>) -> bool {
        let Ok(key) = self.key(Kind::Application, of) else { return false };
        self.outbound.reconciler.stores.applications.get(&key).is_some_and(|application| {
            (ownership::phase(&application) == Some("Terminating")
                || application.field("operation").is_some())
                && request.is_some()
                && application.annotation(annotation::OPERATION_TAKEN) != request
        })
    }

    /// Tells how an Application stands whose last operation was this one, if it is over.
    fn report_end(&self, key: ResourceKey, request: &str) {
        let is_over = |application: &Object| {
            application.field("operation").is_none()
                && application.annotation(annotation::OPERATION_TAKEN) == Some(request)
        };
        if let Some(application) = self.outbound.reconciler.stores.applications.get(&key)
            && is_over(&application)
        {
            self.outbound.outbox.fill(|outbox| outbox.put(key, Outgoing::Object(application), false));
        }
    }

    /// Whether the Application that the principal speaks of is wanted here, and not yet as it is to be.
    fn is_coming(&self, key: &ResourceKey, of: &Object) -> bool {
        match self.outbound.reconciler.mirror.lock().get(key) {
            Some(Wanted::Present(wanted)) => wanted.source_uid() == Some(of.origin()),
            _ => false,
        }
    }

    /// A managed cluster acts on the copy of the principal's Application only; an autonomous one on the original that the
    /// principal's copy says to be of. A Go principal's copy may not say that.
    fn meant<'a>(&self, existing: Option<&'a Object>, of: &Object) -> Result<&'a Object, &'static str> {
        let existing = existing.ok_or("the application is not here")?;
        let same = match self.outbound.mode {
            Mode::Managed => existing.source_uid() == Some(of.origin()),
            Mode::Autonomous => of.source_uid().is_none_or(|life| life.0 == existing.uid()),
        };
        if same { Ok(existing) } else { Err("the application here is not the one that is meant") }
    }
}

fn failed(error: &Error) -> Outcome {
    if error.is_transient() { Outcome::Later(error.to_string()) } else { Outcome::Refused(error.to_string()) }
}

impl Side for ClusterSide {
    type Lane = Lane;

    fn on_open(&self) {}

    fn compare(&self, peer: &Features) -> Option<Duration> {
        self.outbound.note_peer(peer);
        if !peer.has(Feature::Resync) {
            self.outbound.compare_by_list();
            return None;
        }
        match self.outbound.mode {
            Mode::Managed => {
                self.outbound.report_sum();
                self.resync_interval.map(tiphys_shared::process::backoff::jittered)
            }
            // The principal holds the copies, and begins.
            Mode::Autonomous => None,
        }
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
        self.outbound.metrics.processed(status, self.outbound.mode, &event, began.elapsed());
        outcome
    }

    fn on_sent(&self, _event: &Event) {
        self.outbound.metrics.events_sent.inc();
    }

    fn on_unsendable(&self, event: &Event, reason: &str) {
        let subject = event.subject.as_deref().unwrap_or_default();
        tracing::error!(event_id = %event.id, subject, reason, "an event cannot be sent; others pass");
        self.outbound.metrics.errors.with_label_values(&["unsendable"]).inc();
    }

    fn on_received(&self, event: &Event) {
        self.outbound.metrics.received(event);
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
        self.outbound.metrics.errors.with_label_values(&["refused"]).inc();
    }
}
