//! What is told of agents, and of what they hold, on the Kubernetes objects by which people know them.
//!
//! Of an agent that is the Secret by which Argo CD knows its cluster. Only what has proven to be of an agent is told there.

use tiphys_shared::kube::reconciler::Undone;
use tiphys_shared::kube::recorder::{Event, Recorder, Regarding};
use tiphys_shared::model::{AgentName, Kind, Mode, Object};
use tiphys_shared::security::blocklist::Blocked;
use tiphys_shared::wire::pump::End;

/// Tells.
#[derive(Debug, Default)]
pub(crate) struct News(Recorder);

impl News {
    pub(crate) fn new(recorder: Recorder) -> Self {
        Self(recorder)
    }

    fn of_agent(&self, agent: &AgentName, event: Event) {
        self.0.tell(Regarding::ClusterOf(agent.clone()), event);
    }

    /// It has connected.
    pub(crate) fn connected(&self, agent: &AgentName, mode: Mode, version: &str) {
        let note = format!("agent {agent} connected, in {mode} mode, version {version:?}");
        self.of_agent(agent, Event::normal("AgentConnected", "Connect", &note));
    }

    /// It is not connected any more, and not because of us.
    pub(crate) fn disconnected(&self, agent: &AgentName, end: &End) {
        const REASON: &str = "AgentDisconnected";
        let note = format!("agent {agent} is not connected any more: {end}");
        match end {
            End::Cancelled => {}
            End::Closed => self.of_agent(agent, Event::normal(REASON, "Disconnect", &note)),
            End::Silent | End::Broken(_) => {
                self.of_agent(agent, Event::warning(REASON, "Disconnect", &note));
            }
        }
    }

    /// It was cut off, and will not come back with the certificate that it has.
    pub(crate) fn revoked(&self, agent: &AgentName, blocked: &Blocked) {
        let note = format!("agent {agent} was cut off: {blocked}; it needs another certificate");
        self.of_agent(agent, Event::warning("AgentRevoked", "Disconnect", &note));
    }

    /// It has proven who it is, and was refused.
    pub(crate) fn login_refused(&self, agent: &AgentName, why: &str) {
        let note = format!("agent {agent} may not connect: {why}");
        self.of_agent(agent, Event::warning("AgentRefused", "Connect", &note));
    }

    /// Something that it says was refused.
    pub(crate) fn word_refused(&self, agent: &AgentName, why: &str) {
        let note = format!("what agent {agent} said was refused here: {why}");
        self.of_agent(agent, Event::warning("AgentEventRefused", "Receive", &note));
    }

    /// It does not take a resource, or cannot carry out what was asked for.
    pub(crate) fn resource_refused(&self, agent: &AgentName, kind: Kind, object: &Object, why: &str) {
        let note = format!("agent {agent} refused this: {why}");
        self.0.tell(Regarding::object(kind, object), Event::warning("RefusedByAgent", "Synchronize", &note));
    }

    /// A resource cannot be sent.
    pub(crate) fn unsendable(&self, agent: &AgentName, kind: Kind, object: &Object, why: &str) {
        let note = format!("this cannot be sent to agent {agent}: {why}");
        self.0.tell(Regarding::object(kind, object), Event::warning("NotSent", "Synchronize", &note));
    }

    /// What users made here is an autonomous agent's from now on, which has one of the same name.
    pub(crate) fn taken_over(&self, agent: &AgentName, kind: Kind, object: &Object) {
        let note = format!(
            "agent {agent} is autonomous and owns this from now on: it has one of this name, and what was here before gives way"
        );
        self.0.tell(Regarding::object(kind, object), Event::warning("TakenOver", "Synchronize", &note));
    }

    /// Somebody has changed what is only shown here.
    pub(crate) fn undone(&self, kind: Kind, undone: &Undone) {
        let (object, note) = match undone {
            Undone::Change(object) => {
                (object, "a change made here was undone: the agent's cluster owns this, change it there")
            }
            Undone::Deletion(object) => (
                object,
                "this was deleted here and is shown again: the agent's cluster owns it, delete it there",
            ),
        };
        self.0.tell(Regarding::object(kind, object), Event::warning("ChangeUndone", "Revert", note));
    }
}
