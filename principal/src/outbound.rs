//! From a change at the control plane to the outboxes of the agents that it concerns.
//!
//! What an agent must have is a function of the stores, never of the moment of a callback: the same functions answer for a
//! change, for an agent that connects, and for an agent that asks.

pub(crate) mod mapping;
pub(crate) mod projection;

use std::sync::Arc;

use tiphys_shared::kube::informer::{Change, Stores};
use tiphys_shared::model::event::Payload;
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{
    AgentName, Event, EventId, EventKind, Kind, Object, ResourceKey, SourceUid, Target,
};
use tiphys_shared::protocol::outbox::Item;
use tiphys_shared::wire::pump::{Outgoing, resource_ids};

use self::mapping::{Mapping, project_of_repository};
use crate::agents::{Agent, Agents};
use crate::metrics::{Metrics, Verb};

/// Fills outboxes.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) mapping: Mapping,
    pub(crate) stores: Stores,
    pub(crate) agents: Arc<Agents>,
    pub(crate) metrics: Arc<Metrics>,
    /// Identity of this control plane.
    pub(crate) principal_uid: String,
}

impl Outbound {
    fn project(&self, name: &str) -> Option<Arc<Object>> {
        self.stores.projects.get(&ResourceKey::new(Kind::AppProject, self.mapping.namespace.as_str(), name))
    }

    /// Whether `agent` must have `object`.
    pub(crate) fn concerns(&self, kind: Kind, object: &Object, agent: &AgentName) -> bool {
        match kind {
            Kind::Application => self.mapping.agent_of_application(object).as_ref() == Some(agent),
            Kind::AppProject => self.mapping.project_matches(object, agent),
            Kind::Repository => self.mapping.repository_matches(object, agent, |name| self.project(name)),
        }
    }

    /// Everything that `agent` must have.
    pub(crate) fn belongings(&self, agent: &AgentName) -> Vec<(Kind, Arc<Object>)> {
        Kind::ALL
            .into_iter()
            .flat_map(|kind| self.stores.of(kind).all().into_iter().map(move |object| (kind, object)))
            .filter(|(kind, object)| self.concerns(*kind, object, agent))
            .collect()
    }

    /// Takes in a change that an informer tells of.
    pub(crate) fn on_change(&self, kind: Kind, change: &Change) {
        match (kind, change) {
            (Kind::Application, Change::Applied { old, new }) => self.application_applied(old.as_ref(), new),
            (Kind::AppProject, change) => self.project_changed(change),
            (kind, Change::Applied { old, new }) => {
                for agent in self.agents.all() {
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

    fn interested(&self, kind: Kind, object: &Object) -> Vec<Arc<Agent>> {
        if kind == Kind::Application {
            return self
                .mapping
                .agent_of_application(object)
                .and_then(|name| self.agents.get(&name))
                .into_iter()
                .collect();
        }
        self.agents.all().into_iter().filter(|agent| self.concerns(kind, object, &agent.name)).collect()
    }

    fn application_applied(&self, old: Option<&Arc<Object>>, new: &Arc<Object>) {
        let before = old.and_then(|old| self.mapping.agent_of_application(old));
        let after = self.mapping.agent_of_application(new);
        if let (Some(old), Some(before)) = (old, &before)
            && Some(before) != after.as_ref()
            && let Some(agent) = self.agents.get(before)
        {
            self.tell(&agent, Kind::Application, Some(old), None);
        }
        let Some(agent) = after.as_ref().and_then(|name| self.agents.get(name)) else { return };
        let old = old.filter(|_| before == after);
        self.tell(&agent, Kind::Application, old, Some(new));
        self.tell_operation(&agent, old, new);
        self.metrics.count(Kind::Application, if old.is_some() { Verb::Updated } else { Verb::Created });
    }

    fn tell_operation(&self, agent: &Agent, old: Option<&Arc<Object>>, new: &Arc<Object>) {
        let key = new.key(Kind::Application);
        let requested = new.field("operation");
        if requested.is_some() && requested != old.and_then(|old| old.field("operation")) {
            agent.outbox.fill(|outbox| outbox.operate(key.clone(), Outgoing::Object(Arc::clone(new))));
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
        for agent in self.agents.all() {
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

    /// What an agent is told when its stream opens, besides what waits for it: if this process knows nothing of what it
    /// holds, its projects and repositories, what is being deleted, and operations that were requested meanwhile; and,
    /// until it has heard it once, that it shall name what it has.
    pub(crate) fn on_open(&self, agent: &Agent, is_first: bool) {
        if is_first {
            for (kind, object) in self.belongings(&agent.name) {
                if kind != Kind::Application || object.is_deleting() {
                    agent.put(kind, &object, true);
                } else if object.field("operation").is_some() {
                    let key = object.key(kind);
                    agent.outbox.fill(|outbox| outbox.operate(key, Outgoing::Object(object)));
                }
            }
        }
        if !agent.was_asked() {
            let nothing = Payload::Document(serde_json::json!({}));
            let ask = Event::request(Target::ResourceResync, EventKind::RequestResourceResync, nothing);
            agent.outbox.fill(|outbox| outbox.request("resync", Outgoing::Message(Box::new(ask))));
        }
    }

    /// Writes the event for what waits in an agent's outbox.
    pub(crate) fn render(
        &self,
        agent: &AgentName,
        key_kind: Option<Kind>,
        item: &Item<Outgoing>,
    ) -> Option<Event> {
        let object = match item.value() {
            Outgoing::Message(event) => {
                let mut event = (**event).clone();
                event.sent_at = Some(tiphys_shared::process::clock::now());
                return Some(event);
            }
            Outgoing::Object(object) => object,
        };
        let kind = key_kind?;
        let mut seen = projection::project(kind, object, agent, self.mapping.by_destination);
        let event_kind = match item {
            Item::Delete(_) => EventKind::Delete,
            // A Go agent takes the deletion time of an update for the order to delete.
            Item::State { created: true, .. } if !object.is_deleting() => EventKind::Create,
            Item::State { .. } | Item::Request(_) => EventKind::SpecUpdate,
            Item::Operation(_) => EventKind::SetOperation,
            Item::Terminate(_) => EventKind::TerminateOperation,
        };
        if event_kind == EventKind::SetOperation {
            seen.set_field("operation", object.field("operation").cloned());
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

fn phase(application: &Object) -> Option<&str> {
    application.at(&["status", "operationState", "phase"])?.as_str()
}
