//! What an autonomous agent says: what its cluster declares, and how it stands.

use std::sync::Arc;

use tiphys_shared::kube::backend::Error;
use tiphys_shared::model::event::Payload;
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Event, EventKind, Kind, Object, ResourceKey, SourceUid, Target};
use tiphys_shared::process::persist::persist;
use tiphys_shared::protocol::mirror::Wanted;
use tiphys_shared::protocol::ownership;
use tiphys_shared::wire::pump::Outcome;

use super::mirrored::is_project_of;
use super::{AgentSide, PATIENCE, status};

impl AgentSide {
    pub(super) async fn autonomous(&self, event: &Event) -> Outcome {
        match (Kind::of_target(&event.target), &event.kind, &event.payload) {
            (
                Some(kind @ (Kind::Application | Kind::AppProject)),
                EventKind::Create | EventKind::SpecUpdate,
                Payload::Object(object),
            ) => self.shown(kind, object).await,
            (
                Some(kind @ (Kind::Application | Kind::AppProject)),
                EventKind::Delete,
                Payload::Object(object),
            ) => self.gone(kind, object).await,
            _ => self.request(event),
        }
    }

    fn request(&self, event: &Event) -> Outcome {
        match (&event.target, &event.kind, &event.payload) {
            (Target::ResourceResync, EventKind::RequestResourceResync, _) => {
                self.outbound.ask_about_shown(&self.agent);
            }
            (Target::ResourceResync, EventKind::ResponseSyncedResource, Payload::SyncedResource(named)) => {
                self.outbound.named_by_agent(&self.agent, named);
            }
            (target, kind, _) => {
                return Outcome::Refused(format!("an autonomous agent may not send {kind} of {target}"));
            }
        }
        Outcome::Done
    }

    async fn shown(&self, kind: Kind, incoming: &Object) -> Outcome {
        let place = self.outbound.place(&self.agent.name);
        let shown = match place.show(kind, incoming, &self.agent.cluster()) {
            Ok(shown) => Arc::new(shown),
            Err(error) => return Outcome::Refused(error.to_string()),
        };
        let key = shown.key(kind);
        if let Err(reason) = self.may_show(&key) {
            return Outcome::Refused(reason);
        }
        let reconciler = &self.outbound.reconciler;
        let stranger = self.outbound.stores.of(kind).get(&key).filter(|there| there.source_uid().is_none());
        let unfinished = reconciler.accept(&key, |mirror| mirror.accept(key.clone(), Wanted::Present(shown)));
        let outcome = self.follow(&key).await;
        if let (Outcome::Done, Some(stranger)) = (&outcome, stranger)
            && !ownership::refuses_adoption(Some(&stranger), reconciler.policy(kind))
        {
            self.took_over(kind, &stranger);
        }
        if !matches!(outcome, Outcome::Later(_)) {
            unfinished.finish();
        }
        if kind != Kind::Application || outcome != Outcome::Done {
            return outcome;
        }
        self.with_requests(&key, incoming, |existing, pending| {
            status::end_requests(existing, incoming, incoming.uid(), pending)
        })
        .await
    }

    fn took_over(&self, kind: Kind, stranger: &Object) {
        let (agent, agents) = (&self.agent.name, &self.outbound.agents);
        let (namespace, name) = (stranger.namespace(), stranger.name());
        tracing::warn!(%agent, namespace, name, "what was made here is the autonomous agent's from now on");
        agents.problems.note(
            Some(agent),
            &format!("took over {namespace}/{name}, which was made here: it is autonomous"),
        );
        agents.news.taken_over(agent, kind, stranger);
    }

    async fn gone(&self, kind: Kind, incoming: &Object) -> Outcome {
        let key = match self.outbound.place(&self.agent.name).key(kind, incoming.name()) {
            Ok(key) => key,
            Err(error) => return Outcome::Refused(error.to_string()),
        };
        if let Err(reason) = self.may_show(&key) {
            return Outcome::Refused(reason);
        }
        let life = SourceUid(incoming.uid().to_owned());
        let unfinished = self.outbound.reconciler.accept(&key, |mirror| mirror.end(&key, &life));
        let outcome = self.follow(&key).await;
        if !matches!(outcome, Outcome::Later(_)) {
            unfinished.finish();
        }
        outcome
    }

    /// Two names of agents and projects can make one: `a` with `b-c` and `a-b` with `c`. Who was first keeps it. And a project
    /// that is the control plane's own is never an agent's.
    fn may_show(&self, key: &ResourceKey) -> Result<(), String> {
        if key.kind != Kind::AppProject {
            return Ok(());
        }
        let there = self.outbound.stores.projects.get(key);
        let wanted = match self.outbound.reconciler.mirror.lock().get(key) {
            Some(Wanted::Present(wanted)) => Some(Arc::clone(wanted)),
            _ => None,
        };
        let agent = self.agent.name.as_str();
        // What users edit is still the agent's.
        if wanted.or(there).is_none_or(|known| is_project_of(&known, agent)) {
            return Ok(());
        }
        Err(format!("the project {} is there already, and is not of agent {agent}", key.name))
    }

    async fn follow(&self, key: &ResourceKey) -> Outcome {
        let reconciler = &self.outbound.reconciler;
        match persist(PATIENCE, Error::is_transient, || reconciler.reconcile(key)).await {
            Ok(_) => Outcome::Done,
            Err(error) if error.is_transient() => Outcome::Later(error.to_string()),
            Err(error) => {
                reconciler.mirror.lock().unseal(key);
                Outcome::Refused(error.to_string())
            }
        }
    }
}
