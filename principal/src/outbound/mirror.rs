//! What is shown of autonomous agents: undone when users edit it, and asked of the cluster when they ask for something.

use std::sync::Arc;

use tiphys_shared::kube::informer::Change;
use tiphys_shared::kube::reconciler::Cause;
use tiphys_shared::model::argocd::annotation;
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{AgentName, Kind, Mode, Object};
use tiphys_shared::protocol::mirror::Wanted;
use tiphys_shared::protocol::ownership::{self, Decision};
use tiphys_shared::protocol::resync::digest::{self, Scope};

use super::Outbound;
use crate::agents::Agent;
use crate::handler::mirrored::{Place, agent_of_project};
use crate::metrics::Verb;

impl Outbound {
    /// Where things of an agent are shown.
    pub(crate) fn place<'a>(&'a self, agent: &'a AgentName) -> Place<'a> {
        Place { agent, namespace: &self.mapping.namespace }
    }

    /// The agent whose resource is shown there, if it is autonomous or not known yet.
    fn agent_shown(&self, kind: Kind, object: &Object) -> Option<AgentName> {
        let name = match kind {
            Kind::Application => object.namespace(),
            Kind::AppProject => agent_of_project(object)?,
            Kind::Repository | Kind::GpgKey => return None,
        };
        let name = AgentName::new(name).ok()?;
        let mode = self.agents.get(&name).map(|agent| agent.mode);
        (mode != Some(Mode::Managed)).then_some(name)
    }

    /// Whether this is shown, not owned: it has a source, and its agent is autonomous; or, of an agent that has not come yet
    /// since this process started, it is sealed.
    pub(crate) fn is_mirror(&self, kind: Kind, object: &Object) -> bool {
        if !matches!(kind, Kind::Application | Kind::AppProject) {
            return false;
        }
        // Known as one, until its agent comes as a managed one.
        if self.reconciler.mirror.lock().get(&object.key(kind)).is_some() {
            return true;
        }
        let Some(name) = self.agent_shown(kind, object) else { return false };
        // What names a principal is the copy of a managed agent, which lives on this cluster and sees to it.
        let is_shown = || {
            object.annotation(annotation::SEAL).is_some()
                && object.annotation(annotation::PRINCIPAL_UID).is_none()
        };
        object.source_uid().is_some() && (self.agents.get(&name).is_some() || is_shown())
    }

    /// Takes in a change of what is shown.
    pub(super) fn mirror_changed(&self, kind: Kind, change: &Change) {
        let key = change.object().key(kind);
        let verb = match change {
            Change::Applied { old, new } => {
                if self.is_away(kind, new) {
                    self.heed(kind, new);
                }
                if old.is_none() {
                    self.assume_mirror(kind, new);
                }
                if self.reconciler.decide(&key, Some(new)) != Decision::Nothing {
                    self.reconciler.mark(key, Cause::Changed);
                }
                if kind == Kind::Application
                    && let Some(agent) = self.agent_shown(kind, new).and_then(|name| self.agents.get(&name))
                {
                    self.tell_operation(&agent, old.as_ref(), new);
                    let refresh = |object: &Object| object.annotation(annotation::REFRESH).map(str::to_owned);
                    let wish = refresh(new);
                    if wish.is_some() && wish != old.as_ref().and_then(|old| refresh(old)) {
                        self.pass_refresh(&agent, new);
                    }
                }
                if old.is_some() { Verb::Updated } else { Verb::Created }
            }
            Change::Gone(last) => {
                if self.is_away(kind, last) {
                    self.heed(kind, last);
                }
                let wanted = self.reconciler.mirror.lock().forget_absent(&key, &last.origin());
                if !wanted && self.reconciler.decide(&key, None) != Decision::Nothing {
                    tracing::info!(%key, "was deleted here without its agent's word; it comes back");
                    self.reconciler.mark(key, Cause::Deleted(last.origin()));
                }
                Verb::Deleted
            }
        };
        self.metrics.count(kind, verb);
    }

    fn pass_refresh(&self, agent: &Agent, application: &Arc<Object>) {
        // A Go agent can add the wish to annotations, but make none; it would never acknowledge it, and all that follows
        // would wait.
        let of_original = |key: &String| !key.starts_with("tiphys.io/");
        let has_own = application
            .metadata
            .annotations
            .iter()
            .flat_map(|annotations| annotations.keys())
            .any(|key| of_original(key) && key != annotation::SOURCE_UID && key != annotation::REFRESH);
        if agent.is_tiphys() || has_own {
            agent.put(Kind::Application, application, false);
        } else {
            tracing::warn!(
                agent = %agent.name, application = application.name(),
                "a Go agent cannot refresh an application without annotations; give it one at the cluster"
            );
        }
    }

    /// Whether the agent of what is shown has no session here.
    fn is_away(&self, kind: Kind, object: &Object) -> bool {
        let is_away = |name| self.agents.get(&name).is_none_or(|agent| agent.connected_since().is_none());
        self.agent_shown(kind, object).is_some_and(is_away)
    }

    /// Takes in what another principal has heard from the agent. For a while there may be two, one that begins and one that
    /// ends, or is not heard of; the agent speaks to one of them, and what that one writes is sealed as our own.
    fn heed(&self, kind: Kind, object: &Object) {
        let (key, mirror) = (object.key(kind), &self.reconciler.mirror);
        if digest::is_ended(object) {
            object.source_uid().into_iter().for_each(|life| mirror.lock().end(&key, &life));
            return;
        }
        let is_news = mirror.lock().get(&key).is_none_or(|wanted| !is_sealed_as(wanted, object));
        if is_news
            && let Some(heard) = ownership::assume(kind, Scope::Whole, object)
            && heard.annotation(annotation::SEAL).is_some()
        {
            mirror.lock().accept(key, Wanted::Present(Arc::new(heard)));
        }
    }

    fn assume_mirror(&self, kind: Kind, object: &Object) {
        let (key, mirror) = (object.key(kind), &self.reconciler.mirror);
        let is_known = mirror.lock().get(&key).is_some();
        if !is_known
            && !digest::is_ended(object)
            && let Some(assumed) = ownership::assume(kind, Scope::Whole, object)
        {
            mirror.lock().assume(key, Arc::new(assumed));
        }
    }

    /// The agent came for the first time since this process started: what is shown of it is taken for what it has, until the
    /// comparison says otherwise; and users may have asked for something.
    pub(super) fn assume_mirrors(&self, agent: &Agent) {
        for (kind, object) in self.shown(&agent.name) {
            self.assume_mirror(kind, &object);
            if kind == Kind::Application {
                self.repeat_requests(agent, &object);
            }
        }
    }

    /// The agent is a managed one: what was shown of it, when it was autonomous, is the control plane's own now.
    pub(super) fn release_mirrors(&self, agent: &Agent) {
        let place = self.place(&agent.name);
        self.reconciler.mirror.lock().release(|key, wanted| match wanted {
            Wanted::Present(object) => place.name(object, key.kind).is_some(),
            Wanted::Absent(_) => key.kind == Kind::Application && key.namespace == agent.name.as_str(),
        });
    }

    /// Everything that is shown of an agent.
    pub(super) fn shown(&self, agent: &AgentName) -> Vec<(Kind, Arc<Object>)> {
        let place = self.place(agent);
        let applications = self.stores.applications.in_namespace(agent.as_str());
        let projects = self.stores.projects.in_namespace(&self.mapping.namespace);
        let applications = applications.into_iter().map(|object| (Kind::Application, object));
        let projects = projects.into_iter().map(|object| (Kind::AppProject, object));
        projects
            .chain(applications)
            .filter(|(kind, object)| object.source_uid().is_some() && place.name(object, *kind).is_some())
            .collect()
    }
}

/// Whether both were sealed with the same words: one is the copy of the other, or they say the same.
fn is_sealed_as(wanted: &Wanted, object: &Object) -> bool {
    match wanted {
        Wanted::Present(wanted) => wanted.annotation(annotation::SEAL) == object.annotation(annotation::SEAL),
        Wanted::Absent(_) => false,
    }
}
