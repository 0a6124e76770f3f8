//! From a change at the control plane to the outboxes of the agents that it concerns.
//!
//! What an agent must have is a function of the stores, never of the moment of a callback: the same functions answer for a
//! change, for an agent that connects, and for an agent that asks.

mod compare;
pub(crate) mod mapping;
mod mirror;
pub(crate) mod projection;

use std::sync::Arc;

use tiphys_shared::kube::informer::{Change, Stores};
use tiphys_shared::kube::reconciler::Reconciler;
use tiphys_shared::model::argocd::annotation;
use tiphys_shared::model::event::Payload;
use tiphys_shared::model::feature::{Feature, Features};
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{
    AgentName, Event, EventId, EventKind, Kind, Mode, Object, ResourceKey, SourceUid,
};
use tiphys_shared::protocol::outbox::Item;
use tiphys_shared::protocol::ownership::{self, phase};
use tiphys_shared::protocol::resync::cache::Cache;
use tiphys_shared::wire::pump::{Outgoing, resource_ids};

use self::mapping::{Mapping, project_of_repository};
use crate::agents::{Agent, Agents};
use crate::metrics::{Metrics, Verb};
use crate::requests::Requests;

/// Fills outboxes.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) mapping: Mapping,
    pub(crate) stores: Stores,
    pub(crate) agents: Arc<Agents>,
    pub(crate) metrics: Arc<Metrics>,
    /// Identity of this control plane.
    pub(crate) principal_uid: String,
    /// Brings what is shown of autonomous agents to what they have.
    pub(crate) reconciler: Arc<Reconciler>,
    pub(crate) digests: Cache,
    /// Operations that users ask for.
    pub(crate) requests: Requests,
}

impl Outbound {
    fn project(&self, name: &str) -> Option<Arc<Object>> {
        self.stores.projects.get(&ResourceKey::new(Kind::AppProject, self.mapping.namespace.as_str(), name))
    }

    /// Whether `agent`, a managed one, must have `object`.
    pub(crate) fn concerns(&self, kind: Kind, object: &Object, agent: &AgentName) -> bool {
        match kind {
            Kind::Application => self.mapping.agent_of_application(object).as_ref() == Some(agent),
            Kind::AppProject => self.mapping.project_matches(object, agent),
            Kind::Repository => self.mapping.repository_matches(object, agent, |name| self.project(name)),
            Kind::GpgKey => self.mapping.admits(Kind::GpgKey, object),
        }
    }

    /// Everything that `agent`, a managed one, must have.
    pub(crate) fn belongings(&self, agent: &AgentName) -> Vec<(Kind, Arc<Object>)> {
        Kind::ALL
            .into_iter()
            .flat_map(|kind| {
                let store = self.stores.of(kind);
                let candidates = if kind == Kind::Application && !self.mapping.by_destination {
                    store.in_namespace(agent.as_str())
                } else {
                    store.all()
                };
                candidates.into_iter().map(move |object| (kind, object))
            })
            .filter(|(kind, object)| self.concerns(*kind, object, agent))
            .collect()
    }

    /// Takes in a change that an informer tells of.
    pub(crate) fn on_change(&self, kind: Kind, change: &Change) {
        if let Change::Gone(last) = change {
            self.digests.forget(&last.key(kind));
        }
        if kind == Kind::Application && self.may_have_moved(change) {
            self.agents.note_move();
        }
        if self.is_mirror(kind, change.object()) {
            return self.mirror_changed(kind, change);
        }
        if kind == Kind::GpgKey {
            let keys =
                |object: &Object| object.field("data").and_then(|data| data.as_object().map(|it| it.len()));
            self.metrics.gpg_keys(match change {
                Change::Applied { new, .. } => keys(new).unwrap_or_default(),
                Change::Gone(_) => 0,
            });
        }
        match (kind, change) {
            (Kind::Application, Change::Applied { old, new }) => self.application_applied(old.as_ref(), new),
            (Kind::AppProject, change) => self.project_changed(change),
            (kind, Change::Applied { old, new }) => {
                for agent in self.agents.of_mode(Mode::Managed) {
                    let before = old.as_ref().filter(|old| self.concerns(kind, old, &agent.name));
                    self.tell(&agent, kind, before, self.concerns(kind, new, &agent.name).then_some(new));
                }
                self.metrics.count(kind, if old.is_some() { Verb::Updated } else { Verb::Created });
            }
            (kind, Change::Gone(last)) => {
                for agent in self.interested(kind, last) {
                    self.tell(&agent, kind, Some(last), None);
                }
                self.metrics.count(kind, Verb::Deleted);
            }
        }
    }

    fn may_have_moved(&self, change: &Change) -> bool {
        match change {
            Change::Applied { old: Some(old), new } => {
                self.mapping.agent_of_application(old) != self.mapping.agent_of_application(new)
            }
            Change::Applied { old: None, .. } | Change::Gone(_) => true,
        }
    }

    /// A managed agent of this name that has connected.
    fn managed(&self, name: &AgentName) -> Option<Arc<Agent>> {
        self.agents.get(name).filter(|agent| agent.mode == Mode::Managed)
    }

    fn interested(&self, kind: Kind, object: &Object) -> Vec<Arc<Agent>> {
        if kind == Kind::Application {
            return self
                .mapping
                .agent_of_application(object)
                .and_then(|name| self.managed(&name))
                .into_iter()
                .collect();
        }
        self.agents.of_mode(Mode::Managed).filter(|agent| self.concerns(kind, object, &agent.name)).collect()
    }

    fn application_applied(&self, old: Option<&Arc<Object>>, new: &Arc<Object>) {
        let before = old.and_then(|old| self.mapping.agent_of_application(old));
        let after = self.mapping.agent_of_application(new);
        if let (Some(old), Some(before)) = (old, &before)
            && Some(before) != after.as_ref()
            && let Some(agent) = self.managed(before)
        {
            self.tell(&agent, Kind::Application, Some(old), None);
        }
        let Some(agent) = after.as_ref().and_then(|name| self.managed(name)) else { return };
        let old = old.filter(|_| before == after);
        self.tell(&agent, Kind::Application, old, Some(new));
        self.tell_operation(&agent, old, new);
        self.metrics.count(Kind::Application, if old.is_some() { Verb::Updated } else { Verb::Created });
    }

    /// Passes on what users ask of the cluster: an operation once it has a name, and the end of the one that runs.
    fn tell_operation(&self, agent: &Agent, old: Option<&Arc<Object>>, new: &Arc<Object>) {
        let key = new.key(Kind::Application);
        match ownership::requested(new) {
            ownership::Requested::Nothing => {
                // Users took it back: the same asked for again is another one.
                if new.annotation(annotation::OPERATION_REQUESTED).is_some() {
                    self.requests.name(key.clone());
                }
            }
            ownership::Requested::Unnamed => self.requests.name(key.clone()),
            ownership::Requested::Named(request) => {
                let known = old.and_then(|old| old.annotation(annotation::OPERATION_REQUESTED));
                if known != Some(request) || old.is_none_or(|old| old.field("operation").is_none()) {
                    // An agent that was away may not have heard of the Application, and would have nothing to run it on.
                    if agent.mode == Mode::Managed {
                        agent.put(Kind::Application, new, false);
                    }
                    agent
                        .outbox
                        .fill(|outbox| outbox.operate(key.clone(), Outgoing::Object(Arc::clone(new))));
                }
            }
        }
        let was_running = old.and_then(|old| phase(old)).is_some_and(|phase| phase != "Terminating");
        if was_running && phase(new) == Some("Terminating") {
            agent.outbox.fill(|outbox| outbox.terminate(key, Outgoing::Object(Arc::clone(new))));
        }
    }

    fn project_changed(&self, change: &Change) {
        let (old, new) = match change {
            Change::Applied { old, new } => (old.as_ref(), Some(new)),
            Change::Gone(last) => (Some(last), None),
        };
        let name = change.object().name().to_owned();
        let repositories: Vec<Arc<Object>> = self
            .stores
            .repositories
            .all()
            .into_iter()
            .filter(|repository| project_of_repository(repository).as_deref() == Some(name.as_str()))
            .collect();
        for agent in self.agents.of_mode(Mode::Managed) {
            let before = old.filter(|old| self.mapping.project_matches(old, &agent.name));
            let after = new.filter(|new| self.mapping.project_matches(new, &agent.name));
            self.tell(&agent, Kind::AppProject, before, after);
            // Repositories follow their project.
            for repository in &repositories {
                let had = self.mapping.repository_matches(repository, &agent.name, |_| before.cloned());
                let has = self.mapping.repository_matches(repository, &agent.name, |_| after.cloned());
                if had != has {
                    self.tell(&agent, Kind::Repository, had.then_some(repository), has.then_some(repository));
                }
            }
        }
        self.metrics.count(
            Kind::AppProject,
            match (old, new) {
                (None, Some(_)) => Verb::Created,
                (_, Some(_)) => Verb::Updated,
                (_, None) => Verb::Deleted,
            },
        );
    }

    fn tell(&self, agent: &Agent, kind: Kind, before: Option<&Arc<Object>>, after: Option<&Arc<Object>>) {
        match (before, after) {
            (None, Some(new)) => agent.put(kind, new, true),
            (Some(old), Some(new)) if projection::differs(kind, old, new) => agent.put(kind, new, false),
            (Some(old), None) => {
                agent.outbox.fill(|outbox| outbox.remove(old.key(kind), Outgoing::Object(Arc::clone(old))));
            }
            _ => {}
        }
    }

    /// What an agent is told when its stream opens, besides what waits for it. If this process knows nothing of what it
    /// holds, that is what users asked for meanwhile; a Go agent is told everything.
    pub(crate) fn on_open(&self, agent: &Agent, is_first: bool, peer: &Features) {
        if !is_first {
            return;
        }
        if agent.mode == Mode::Autonomous {
            return self.assume_mirrors(agent);
        }
        self.release_mirrors(agent);
        for (kind, object) in self.belongings(&agent.name) {
            // A Go agent compares what it has, and never hears of what it lacks.
            if !peer.has(Feature::Resync) {
                agent.put(kind, &object, true);
            }
            if kind == Kind::Application {
                self.repeat_requests(agent, &object);
            }
        }
    }

    fn repeat_requests(&self, agent: &Agent, application: &Arc<Object>) {
        if application.field("operation").is_some() {
            self.tell_operation(agent, None, application);
        }
        if phase(application) == Some("Terminating") {
            let (key, application) = (application.key(Kind::Application), Arc::clone(application));
            agent.outbox.fill(|outbox| outbox.terminate(key, Outgoing::Object(application)));
        }
        if application.annotation(annotation::REFRESH).is_some() {
            agent.put(Kind::Application, application, false);
        }
    }

    /// Writes the event for what waits in an agent's outbox.
    pub(crate) fn render(
        &self,
        agent: &Agent,
        key_kind: Option<Kind>,
        item: &Item<Outgoing>,
    ) -> Option<Event> {
        let mode = agent.mode;
        let object = match item.value() {
            Outgoing::Message(event) => {
                let mut event = (**event).clone();
                event.sent_at = Some(tiphys_shared::process::clock::now());
                return Some(event);
            }
            Outgoing::Object(object) => object,
        };
        let kind = key_kind?;
        let mut seen = projection::project(kind, object, &agent.name, self.mapping.by_destination);
        let event_kind = match item {
            Item::Delete(_) => EventKind::Delete,
            // What an autonomous agent takes of an update is the wish to look again.
            Item::State { .. } if mode == Mode::Autonomous => EventKind::SpecUpdate,
            // A Go agent takes the deletion time of an update for the order to delete.
            Item::State { created: true, .. } if !object.is_deleting() => EventKind::Create,
            Item::State { .. } | Item::Request(_) => EventKind::SpecUpdate,
            Item::Operation(_) => EventKind::SetOperation,
            Item::Terminate(_) => EventKind::TerminateOperation,
        };
        if event_kind == EventKind::SetOperation {
            seen.set_field("operation", object.field("operation").cloned());
            if let Some(request) = object.annotation(annotation::OPERATION_REQUESTED) {
                seen.annotate(annotation::OPERATION_REQUESTED, request);
            }
        }
        let (id, resource_id) = resource_ids(object.name(), object.uid(), object.resource_version());
        Some(Event {
            source: String::new(),
            target: kind.target(),
            // A repeated acknowledgement of a state must not stand for the operation that followed it.
            id: match event_kind {
                EventKind::SpecUpdate | EventKind::Create => id,
                _ => EventId(format!("{id}_{event_kind}")),
            },
            resource_id,
            subject: Some(format!("{}/{}", object.namespace(), object.name())),
            sent_at: Some(tiphys_shared::process::clock::now()),
            principal_uid: (kind == Kind::Application).then(|| self.principal_uid.clone()),
            extensions: Default::default(),
            payload: Payload::Object(Box::new(seen)),
            kind: event_kind,
        })
    }
}

impl Agent {
    pub(crate) fn put(&self, kind: Kind, object: &Arc<Object>, created: bool) {
        self.outbox
            .fill(|outbox| outbox.put(object.key(kind), Outgoing::Object(Arc::clone(object)), created));
    }

    /// Tells the agent to delete what the control plane does not have, or not for this agent.
    pub(crate) fn remove_unknown(&self, key: ResourceKey, uid: &SourceUid) {
        let mut last = Object::new(&key.name, &tiphys_shared::kube::kinds::api_resource(key.kind));
        last.metadata.namespace = Some(key.namespace.clone());
        last.metadata.uid = Some(uid.0.clone());
        self.outbox.fill(|outbox| outbox.remove(key, Outgoing::Object(Arc::new(last))));
    }
}
