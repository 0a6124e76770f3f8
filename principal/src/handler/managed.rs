//! What a managed agent says: how its cluster's Applications stand.

use tiphys_shared::model::event::{Failure, Payload};
use tiphys_shared::model::feature::Feature;
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Event, EventKind, Kind, Object, ResourceKey, Target};
use tiphys_shared::process::clock;
use tiphys_shared::protocol::resync::exchange::Report;
use tiphys_shared::wire::pump::Outcome;

use super::{AgentSide, status};

impl AgentSide {
    pub(super) async fn managed(&self, event: &Event) -> Outcome {
        match (&event.target, &event.kind, &event.payload) {
            (Target::Application, EventKind::StatusUpdate, Payload::Object(application)) => {
                self.status_update(application).await
            }
            (Target::Application, EventKind::Delete, Payload::Object(application)) => {
                self.finish_deletion(application).await
            }
            (Target::Application, EventKind::Error, Payload::Failure(failure)) => self.failed(failure).await,
            (Target::ResourceResync, EventKind::ResyncReport, Payload::Document(document)) => {
                Outcome::of_document(document, |report: Report| self.outbound.judge(&self.agent, &report))
            }
            (Target::ResourceResync, _, Payload::SyncedResourceList(list)) => {
                self.outbound.compare_set(&self.agent, list);
                Outcome::Done
            }
            (Target::ResourceResync, _, Payload::RequestUpdate(request)) => {
                self.outbound.compare_one(&self.agent, request);
                Outcome::Done
            }
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
        self.with_requests(&key, incoming, |existing, pending| {
            status::take_status(existing, incoming, pending, clock::now())
        })
        .await
    }

    async fn finish_deletion(&self, incoming: &Object) -> Outcome {
        let key = match self.application_key(incoming) {
            Ok(key) => key,
            Err(outcome) => return outcome,
        };
        self.reconcile(&key, |existing| status::finish_deletion(existing, incoming)).await
    }

    async fn failed(&self, failure: &Failure) -> Outcome {
        let mut named =
            Object::new(&failure.resource_name, &tiphys_shared::kube::kinds::api_resource(Kind::Application));
        named.metadata.namespace = Some(failure.resource_namespace.clone());
        let key = match self.application_key(&named) {
            Ok(key) => key,
            Err(outcome) => return outcome,
        };
        // The acknowledgement of an agent that can say so has said it already.
        if !self.features.has(Feature::Refusals)
            && let Some(object) = self.outbound.stores.applications.get(&key)
        {
            let news = &self.outbound.agents.news;
            news.resource_refused(&self.agent.name, Kind::Application, &object, &failure.message);
        }
        let message = format!("agent {}: {}", self.agent.name, failure.message);
        self.reconcile(&key, |existing| status::note_failure(existing, &message, clock::now())).await
    }
}
