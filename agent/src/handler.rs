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
use tiphys_shared::process::persist::persist;
use tiphys_shared::protocol::mirror::Wanted;
use tiphys_shared::protocol::outbox::{Acked, Item, Key};
use tiphys_shared::protocol::ownership::{self, Decision};
use tiphys_shared::protocol::resync::exchange::{Query, Report};
use tiphys_shared::wire::pump::{Outcome, Outgoing, Side};

use crate::news::News;
use crate::outbound::Outbound;
use crate::proxy::Events;
use crate::redis_proxy::RedisProxy;

/// How long a write is tried before the principal is left to say it again.
const PATIENCE: Duration = Duration::from_secs(30);

/// This cluster's side of the stream.
#[derive(Debug)]
pub(crate) struct ClusterSide {
    pub(crate) outbound: Arc<Outbound>,
    /// What is told of resources in Kubernetes.
    pub(crate) news: News,
    /// Mean pause between two comparisons with a Tiphys principal.
    pub(crate) resync_interval: Option<Duration>,
    /// What the principal may read of this cluster's Redis.
    pub(crate) redis_proxy: RedisProxy,
    /// What a Go principal may ask of this cluster's API.
    pub(crate) resources: Events,
}

/// Events of one lane are handled in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    Resource(Kind, String, String),
    Other,
}

/// What is in the way of what the principal asks for.
#[derive(Clone, Copy, Debug)]
enum Obstacle {
    /// It goes away by itself.
    Passing(&'static str),
    /// It does not, unless another copy is on its way here.
    Lasting(&'static str),
}

impl ClusterSide {
    async fn dispatch(&self, event: &Event) -> Outcome {
        match (&event.target, &event.kind, &event.payload) {
            (Target::Heartbeat, _, _) => Outcome::Done,
            (Target::Application, EventKind::SetOperation, Payload::Object(object)) => {
                self.start(object, object.annotation(annotation::OPERATION_REQUESTED)).await
            }
            (Target::Application, EventKind::TerminateOperation, Payload::Object(object)) => {
                self.stop(object).await
            }
            (Target::Redis, EventKind::RedisRequest, Payload::RedisRequest(request)) => {
                self.redis_proxy.take(request.clone());
                Outcome::Done
            }
            (Target::Resource, EventKind::Verb(_), Payload::ResourceRequest(request)) => {
                self.resources.take(request.clone());
                Outcome::Done
            }
            (Target::ContainerLog, EventKind::Verb(_), Payload::LogRequest(request)) => {
                self.resources.take_log(request.clone());
                Outcome::Done
            }
            (Target::Terminal, EventKind::TerminalRequest, Payload::TerminalRequest(request)) => {
                self.resources.take_terminal(request.clone());
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
        let key = match self.key(Kind::Application, object) {
            Ok(key) => key,
            Err(outcome) => return outcome,
        };
        let Some(operation) = object.field("operation") else { return Outcome::Done };
        let outcome = self
            .act(&key, object, |existing| {
                if has_to_wait(existing, request) {
                    return Err(Obstacle::Passing("the operation before it waits, or is being stopped"));
                }
                // What it takes until then goes with it.
                if existing.is_deleting() && self.is_coming(&key, object) {
                    return Err(Obstacle::Passing("the copy that is here goes, and another comes"));
                }
                Ok(ownership::set_operation(existing, operation, request))
            })
            .await;
        // A request that was carried out before is repeated by a principal that has not heard how it ended.
        if let (Outcome::Done, Some(request)) = (&outcome, request) {
            self.report_end(&key, request);
        }
        outcome
    }

    /// The resource that is here under the name that an event of the principal is about.
    fn concerned(&self, event: &Event) -> Option<(Kind, Arc<Object>)> {
        let kind = Kind::of_target(&event.target)?;
        let Payload::Object(object) = &event.payload else { return None };
        let key = self.key(kind, object).ok()?;
        Some((kind, self.outbound.reconciler.stores.of(kind).get(&key)?))
    }

    /// The resource here that an event of the principal is about.
    fn key(&self, kind: Kind, object: &Object) -> Result<ResourceKey, Outcome> {
        self.outbound
            .namespaces
            .key(kind, object.namespace(), object.name())
            .map_err(|error| Outcome::Refused(error.to_string()))
    }

    /// Stops the operation that runs.
    async fn stop(&self, object: &Object) -> Outcome {
        match self.key(Kind::Application, object) {
            Ok(key) => self.act(&key, object, |existing| Ok(ownership::terminate_operation(existing))).await,
            Err(outcome) => outcome,
        }
    }

    /// Acts on the Application that the principal speaks of, if this is that one.
    async fn act(
        &self,
        key: &ResourceKey,
        of: &Object,
        decide: impl Fn(&Object) -> Result<Decision, Obstacle>,
    ) -> Outcome {
        let obstacle = parking_lot::Mutex::new(None);
        let done = persist(PATIENCE, Error::is_transient, || {
            self.outbound.reconciler.act(key, |existing| {
                let decision = self.meant(existing, of).and_then(&decide);
                *obstacle.lock() = decision.as_ref().err().copied();
                decision.unwrap_or(Decision::Nothing)
            })
        })
        .await;
        match (done, obstacle.into_inner()) {
            (Err(error), _) => failed(&error),
            (Ok(_), None) => Outcome::Done,
            (Ok(_), Some(Obstacle::Passing(reason))) => Outcome::Later(reason.to_owned()),
            // An earlier life of it has to go first.
            (Ok(_), Some(Obstacle::Lasting(reason))) if self.is_coming(key, of) => {
                Outcome::Later(reason.to_owned())
            }
            (Ok(_), Some(Obstacle::Lasting(reason))) => Outcome::Refused(reason.to_owned()),
        }
    }

    /// Tells how an Application stands whose last operation was this one, if it is over.
    fn report_end(&self, key: &ResourceKey, request: &str) {
        let is_over = |application: &Object| {
            application.field("operation").is_none()
                && application.annotation(annotation::OPERATION_TAKEN) == Some(request)
        };
        if let Some(application) = self.outbound.reconciler.stores.applications.get(key)
            && is_over(&application)
        {
            self.outbound.put(key.kind, &application, false);
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
    fn meant<'a>(&self, existing: Option<&'a Object>, of: &Object) -> Result<&'a Object, Obstacle> {
        let existing = existing.ok_or(Obstacle::Lasting("the application is not here"))?;
        let same = match self.outbound.mode {
            Mode::Managed => existing.source_uid() == Some(of.origin()),
            Mode::Autonomous => of.source_uid().is_none_or(|life| life.0 == existing.uid()),
        };
        if same {
            Ok(existing)
        } else {
            Err(Obstacle::Lasting("the application here is not the one that is meant"))
        }
    }
}

/// Whether an operation that was not taken yet has to wait: for Argo CD to take up the one before it, or to stop it.
fn has_to_wait(application: &Object, request: Option<&str>) -> bool {
    (ownership::phase(application) == Some("Terminating") || application.field("operation").is_some())
        && request.is_some()
        && application.annotation(annotation::OPERATION_TAKEN) != request
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
        if let Outcome::Refused(reason) = &outcome
            && let Some((kind, here)) = self.concerned(&event)
        {
            self.news.refused(kind, &here, reason);
        }
        let status = match &outcome {
            Outcome::Done => "success",
            Outcome::Refused(_) => "discarded",
            Outcome::Later(_) => "failure",
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

    fn on_acked(&self, acked: &Acked<Outgoing>, lag: Duration, refused: Option<&str>) {
        if let Key::Resource(key) = &acked.key {
            let refused = refused.map(|_| (acked.item.word(), key.kind));
            self.outbound.metrics.acknowledged(lag, refused);
        }
        if let (Some(reason), Outgoing::Object(object)) = (refused, acked.item.value()) {
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
