//! What an agent says, checked against what it may say, and carried out.
//!
//! An agent is known by its session alone: namespaces and names in an event choose among its own resources and can
//! never leave them.

mod autonomous;
mod managed;
pub(crate) mod mirrored;
mod status;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Deserialize as _;
use serde_json::Value;
use tiphys_shared::kube::backend::Error;
use tiphys_shared::model::cluster::Counts;
use tiphys_shared::model::event::Payload;
use tiphys_shared::model::feature::{Feature, Features};
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Event, EventKind, Kind, Mode, Object, ResourceKey, Target};
use tiphys_shared::process::backoff;
use tiphys_shared::process::persist::persist;
use tiphys_shared::protocol::outbox::{Acked, Item, Key};
use tiphys_shared::protocol::ownership::Decision;
use tiphys_shared::protocol::resync::exchange::Query;
use tiphys_shared::wire::pump::{Outcome, Outgoing, Side};
use tokio::time::Instant;

use crate::agents::Agent;
use crate::cluster_view::ClusterView;
use crate::outbound::Outbound;

/// How long a write is tried before the agent is left to say it again.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a Go agent may take to acknowledge a request before its word is taken as it is.
const SHORT_PATIENCE: Duration = Duration::from_secs(3);

/// One agent's side of the stream.
#[derive(Debug)]
pub(crate) struct AgentSide {
    pub(crate) agent: Arc<Agent>,
    pub(crate) outbound: Arc<Outbound>,
    /// What the agent can do; nothing for one that is not ours.
    pub(crate) features: Features,
    /// First session of this agent with this process: nothing is known of what the agent holds.
    pub(crate) is_first: bool,
    /// What Argo CD shows of clusters, if it is kept current.
    pub(crate) view: Option<Arc<ClusterView>>,
    /// Mean pause between two comparisons with a Tiphys agent.
    pub(crate) resync_interval: Option<Duration>,
    /// Largest message that is sent, in bytes.
    pub(crate) max_message_size: usize,
}

/// Events of one lane are handled in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    Resource(Kind, String),
    Other,
}

impl AgentSide {
    async fn dispatch(&self, event: &Event) -> Outcome {
        match (&event.target, &event.kind, &event.payload) {
            (Target::Heartbeat, _, _) => Outcome::Done,
            (Target::ClusterCacheInfo, EventKind::ClusterCacheInfoUpdate, Payload::Document(document)) => {
                self.counts(document)
            }
            (Target::Redis, EventKind::RedisResponse, _) | (Target::Resource, EventKind::Response, _) => {
                Outcome::Done
            }
            (Target::ResourceResync, EventKind::ResyncQuery, Payload::Document(document)) => {
                Outcome::of_document(document, |query: Query| self.outbound.answer(&self.agent, &query))
            }
            _ => match self.agent.mode {
                Mode::Managed => self.managed(event).await,
                Mode::Autonomous => self.autonomous(event).await,
            },
        }
    }

    /// The agent tells what is on its cluster.
    fn counts(&self, document: &Value) -> Outcome {
        match Counts::deserialize(document) {
            Ok(counts) if counts.are_plausible() => {
                if let Some(view) = &self.view {
                    view.note_counts(&self.agent.name, counts);
                }
                Outcome::Done
            }
            Ok(_) => Outcome::Refused("a number of things is less than none".to_owned()),
            Err(error) => Outcome::Refused(format!("not figures about a cluster: {error}")),
        }
    }

    /// Writes what the agent's word about a request leads to. While the agent may not have heard of a request, its word
    /// does not end the request; once it has, it does.
    async fn with_requests(
        &self,
        key: &ResourceKey,
        incoming: &Object,
        decide: impl Fn(Option<&Object>, bool) -> Decision + Send + Sync,
    ) -> Outcome {
        // What the watch has yet to tell of is not even on its way to the agent, whose next word will be about it.
        let unheard = |existing: Option<&Object>| {
            status::shows_untold(existing, self.outbound.stores.applications.get(key).as_deref())
        };
        // The acknowledgement may come, and another request, while the decision is carried out.
        let pending = AtomicBool::new(false);
        let decided = |existing: Option<&Object>| {
            pending.store(self.agent.outbox.read(|outbox| outbox.is_pending(key)), Ordering::Relaxed);
            decide(existing, pending.load(Ordering::Relaxed) || unheard(existing))
        };
        let ours = self.features.has(Feature::Resync);
        let until = Instant::now() + if ours { PATIENCE } else { SHORT_PATIENCE };
        loop {
            let outcome = self.reconcile(key, decided).await;
            let shown = self.outbound.stores.applications.get(key);
            let is_last_word =
                !pending.load(Ordering::Relaxed) || !status::shows_request(shown.as_deref(), incoming);
            if outcome != Outcome::Done || is_last_word {
                return outcome;
            }
            if tokio::time::timeout_at(until, self.agent.outbox.settled(key)).await.is_err() {
                // A Go agent may never acknowledge it, and shall not be held up for that.
                if !ours {
                    return outcome;
                }
                return Outcome::Later("the agent has not acknowledged what it was told before".to_owned());
            }
        }
    }

    /// The resource here that an event for the agent is about.
    fn original(&self, event: &Event) -> Option<(Kind, Arc<Object>)> {
        let kind = Kind::of_target(&event.target)?;
        let Payload::Object(sent) = &event.payload else { return None };
        Some((kind, self.outbound.stores.of(kind).get(&sent.key(kind))?))
    }

    async fn reconcile(&self, key: &ResourceKey, decide: impl Fn(Option<&Object>) -> Decision) -> Outcome {
        let done =
            persist(PATIENCE, Error::is_transient, || self.outbound.reconciler.act(key, &decide)).await;
        match done {
            Ok(_) => Outcome::Done,
            Err(error) if error.is_transient() => Outcome::Later(error.to_string()),
            Err(error) => Outcome::Refused(error.to_string()),
        }
    }
}

impl Side for AgentSide {
    type Lane = Lane;

    fn on_open(&self) {
        self.outbound.on_open(&self.agent, self.is_first, &self.features);
    }

    fn compare(&self, peer: &Features) -> Option<Duration> {
        let again = self.outbound.compare(&self.agent, peer);
        self.resync_interval.filter(|_| again).map(backoff::jittered)
    }

    fn render(&self, key: &Key, item: &Item<Outgoing>) -> Option<Event> {
        let kind = match key {
            Key::Resource(key) => Some(key.kind),
            Key::Request(_) => None,
        };
        self.outbound.render(&self.agent, kind, item)
    }

    fn lane(&self, event: &Event) -> Lane {
        match (Kind::of_target(&event.target), &event.payload) {
            (Some(kind), Payload::Object(object)) => Lane::Resource(kind, object.name().to_owned()),
            (Some(kind), Payload::Failure(failure)) => Lane::Resource(kind, failure.resource_name.clone()),
            _ => Lane::Other,
        }
    }

    async fn handle(&self, mut event: Event) -> Outcome {
        // Answers may be large, and are not copied.
        match std::mem::replace(&mut event.payload, Payload::Empty) {
            Payload::RedisResponse(response) => self.agent.redis.take(response),
            Payload::ResourceResponse(response) => {
                let uuid = response.uuid.clone();
                if self.agent.resources.take(&uuid, response).is_err() {
                    tracing::debug!("an answer about a resource that nobody waits for");
                }
            }
            other => event.payload = other,
        }
        let began = tokio::time::Instant::now();
        let outcome = self.dispatch(&event).await;
        let status = match &outcome {
            Outcome::Done => "success",
            Outcome::Refused(_) => "not-allowed",
            Outcome::Later(_) => "failure",
        };
        self.outbound.metrics.processed(status, &self.agent.name, &event.target, began.elapsed());
        outcome
    }

    fn on_sent(&self, _event: &Event) {
        self.outbound.metrics.sent(&self.agent.name);
    }

    fn on_unsendable(&self, event: &Event, reason: &str) {
        let subject = event.subject.as_deref().unwrap_or_default();
        tracing::error!(agent = %self.agent.name, event_id = %event.id, subject, reason, "an event cannot be sent; others pass");
        let what = format!("{subject} cannot be sent: {reason}");
        self.outbound.agents.problems.note(Some(&self.agent.name), &what);
        if let Some((kind, object)) = self.original(event) {
            self.outbound.agents.news.unsendable(&self.agent.name, kind, &object, reason);
        }
        self.outbound.metrics.errors.with_label_values(&["unsendable"]).inc();
    }

    fn on_received(&self, _event: &Event) {
        self.outbound.metrics.received(&self.agent.name);
    }

    fn on_acked(&self, acked: &Acked<Outgoing>, lag: Duration, refused: Option<&str>) {
        let (item, metrics) = (&acked.item, &self.outbound.metrics);
        if let Key::Resource(key) = &acked.key {
            metrics.acknowledged(&self.agent.name, lag);
            self.agent.note_lag(lag);
            if refused.is_some() {
                metrics.refused(&self.agent.name, item.word(), key.kind);
            }
        }
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
            let what = format!("refused {}/{}: {reason}", object.namespace(), object.name());
            self.outbound.agents.problems.note(Some(&self.agent.name), &what);
            if let Key::Resource(key) = &acked.key
                && let Some(object) = self.outbound.stores.of(key.kind).get(&object.key(key.kind))
            {
                self.outbound.agents.news.resource_refused(&self.agent.name, key.kind, &object, reason);
            }
        }
    }

    fn on_refused(&self, event: Option<&Event>, reason: &str) {
        let event_id = event.map(|event| event.id.to_string()).unwrap_or_default();
        tracing::warn!(agent = %self.agent.name, event_id, reason, "refused an event");
        let what = format!("an event was refused here: {reason}");
        self.outbound.agents.problems.note(Some(&self.agent.name), &what);
        self.outbound.agents.news.word_refused(&self.agent.name, reason);
        self.outbound.metrics.errors.with_label_values(&["refused"]).inc();
    }
}
