//! What a managed agent says, checked against what it may say, and carried out.
//!
//! An agent is known by its session alone: namespaces and names in an event choose among its own resources and can
//! never leave them.

pub(crate) mod application;
mod resync;

use std::sync::Arc;
use std::time::Duration;

use tiphys_shared::kube::backend::{Backend, Decision, Error};
use tiphys_shared::model::event::{Failure, Payload};
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Event, EventKind, Kind, Object, ResourceKey, Target};
use tiphys_shared::process::clock;
use tiphys_shared::protocol::outbox::{Item, Key};
use tiphys_shared::wire::pump::{Outcome, Outgoing, Side, persist};

use crate::agents::Agent;
use crate::metrics::Metrics;
use crate::outbound::Outbound;

/// How long a write is tried before the agent is left to say it again.
const PATIENCE: Duration = Duration::from_secs(30);

/// One managed agent's side of the stream.
#[derive(Debug)]
pub(crate) struct ManagedAgent {
    pub(crate) agent: Arc<Agent>,
    pub(crate) outbound: Arc<Outbound>,
    pub(crate) backend: Backend,
    pub(crate) metrics: Arc<Metrics>,
    /// First session of this agent with this process: nothing is known of what the agent holds.
    pub(crate) is_first: bool,
}

/// Events of one lane are handled in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    Resource(Kind, String),
    Other,
}

impl ManagedAgent {
    async fn dispatch(&self, event: &Event) -> Outcome {
        match (&event.target, &event.kind, &event.payload) {
            (Target::Application, EventKind::StatusUpdate, Payload::Object(application)) => {
                self.status_update(application).await
            }
            (Target::Application, EventKind::Delete, Payload::Object(application)) => {
                self.deleted(application).await
            }
            (Target::Application, EventKind::Error, Payload::Failure(failure)) => self.failed(failure).await,
            (Target::ResourceResync, _, payload) => self.resync(payload),
            (Target::Heartbeat, _, _) => Outcome::Done,
            // Figures about the cluster: taken note of, not used yet.
            (Target::ClusterCacheInfo, _, _) => Outcome::Done,
            (target, kind, _) => Outcome::Refused(format!("a managed agent may not send {kind} of {target}")),
        }
    }

    /// The Application that an agent speaks of, as the control plane knows it.
    fn application_key(&self, incoming: &Object) -> Result<ResourceKey, Outcome> {
        let name = incoming.name();
        if name.is_empty() {
            return Err(Outcome::Refused("the application has no name".to_owned()));
        }
        if !self.outbound.mapping.by_destination {
            return Ok(ResourceKey::new(Kind::Application, self.agent.name.as_str(), name));
        }
        let key = incoming.key(Kind::Application);
        match self.outbound.stores.applications.get(&key) {
            Some(own) if self.outbound.concerns(Kind::Application, &own, &self.agent.name) => Ok(key),
            // An application of another agent is none of this one's business: the same answer as for none at all.
            _ => Err(Outcome::Done),
        }
    }

    async fn status_update(&self, incoming: &Object) -> Outcome {
        let key = match self.application_key(incoming) {
            Ok(key) => key,
            Err(outcome) => return outcome,
        };
        let pending = || self.agent.outbox.read(|outbox| outbox.is_pending(&key));
        let take = || {
            self.reconcile(&key, |existing| {
                application::take_status(existing, incoming, pending(), clock::now())
            })
        };
        let outcome = take().await;
        let shown = self.outbound.stores.applications.get(&key);
        if outcome == Outcome::Done && pending() && application::shows_request(shown.as_deref(), incoming) {
            // The cluster may not have heard of the request that it does not show. Once it has, the request is off.
            if tokio::time::timeout(PATIENCE, self.agent.outbox.settled(&key)).await.is_err() {
                return Outcome::Later("the agent has not acknowledged what it was told before".to_owned());
            }
            return take().await;
        }
        outcome
    }

    async fn deleted(&self, incoming: &Object) -> Outcome {
        let key = match self.application_key(incoming) {
            Ok(key) => key,
            Err(outcome) => return outcome,
        };
        self.reconcile(&key, |existing| application::finish_deletion(existing, incoming)).await
    }

    async fn failed(&self, failure: &Failure) -> Outcome {
        let mut named =
            Object::new(&failure.resource_name, &tiphys_shared::kube::kinds::api_resource(Kind::Application));
        named.metadata.namespace = Some(failure.resource_namespace.clone());
        let key = match self.application_key(&named) {
            Ok(key) => key,
            Err(outcome) => return outcome,
        };
        let message = format!("agent {}: {}", self.agent.name, failure.message);
        self.reconcile(&key, |existing| application::note_failure(existing, &message, clock::now())).await
    }

    async fn reconcile(&self, key: &ResourceKey, decide: impl Fn(Option<&Object>) -> Decision) -> Outcome {
        let done = persist(PATIENCE, Error::is_transient, || async {
            let known = self.outbound.stores.of(key.kind).get(key);
            self.backend.reconcile(key, known, &decide).await
        })
        .await;
        match done {
            Ok(done) => {
                self.outbound.stores.of(key.kind).wrote(&done);
                Outcome::Done
            }
            Err(error) if error.is_transient() => Outcome::Later(error.to_string()),
            Err(error) => Outcome::Refused(error.to_string()),
        }
    }
}

impl Side for ManagedAgent {
    type Lane = Lane;

    fn on_open(&self) {
        self.outbound.on_open(&self.agent, self.is_first);
    }

    fn render(&self, key: &Key, item: &Item<Outgoing>) -> Option<Event> {
        let kind = match key {
            Key::Resource(key) => Some(key.kind),
            Key::Request(_) => None,
        };
        self.outbound.render(&self.agent.name, kind, item)
    }

    fn lane(&self, event: &Event) -> Lane {
        match (Kind::of_target(&event.target), &event.payload) {
            (Some(kind), Payload::Object(object)) => Lane::Resource(kind, object.name().to_owned()),
            (Some(kind), Payload::Failure(failure)) => Lane::Resource(kind, failure.resource_name.clone()),
            _ => Lane::Other,
        }
    }

    async fn handle(&self, event: Event) -> Outcome {
        let began = tokio::time::Instant::now();
        let outcome = self.dispatch(&event).await;
        let status = match &outcome {
            Outcome::Done => "success",
            Outcome::Refused(_) => "not-allowed",
            Outcome::Later(_) => "fail",
        };
        self.metrics.processed(status, &self.agent.name, &event.target, began.elapsed());
        outcome
    }

    fn on_sent(&self, _event: &Event) {
        self.metrics.events_sent.with_label_values(&[self.agent.name.as_str()]).inc();
    }

    fn on_received(&self, _event: &Event) {
        self.metrics.events_received.with_label_values(&[self.agent.name.as_str()]).inc();
    }

    fn on_acked(&self, item: &Item<Outgoing>, refused: Option<&str>) {
        if let Outgoing::Message(event) = item.value()
            && event.kind == EventKind::RequestResourceResync
        {
            self.agent.note_asked();
        }
        if let (Some(reason), Outgoing::Object(object)) = (refused, item.value()) {
            tracing::warn!(
                agent = %self.agent.name, namespace = object.namespace(), name = object.name(), reason,
                "agent refused a resource"
            );
        }
    }

    fn on_refused(&self, event: Option<&Event>, reason: &str) {
        let event_id = event.map(|event| event.id.to_string()).unwrap_or_default();
        tracing::warn!(agent = %self.agent.name, event_id, reason, "refused an event");
        self.metrics.errors.with_label_values(&["refused"]).inc();
    }
}
