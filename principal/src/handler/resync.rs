//! A managed agent asks whether what it has is what it should have.
//!
//! The answers are ordinary events from the outbox: what is missing or differs is sent, what should not be there is
//! deleted. Nothing is deleted unless the control plane's copy is complete.

use tiphys_shared::model::event::{Payload, RequestUpdate, SyncedResourceList};
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Kind, ResourceKey, SourceUid};
use tiphys_shared::protocol::checksum;
use tiphys_shared::wire::pump::Outcome;

use super::ManagedAgent;

impl ManagedAgent {
    pub(super) fn resync(&self, payload: &Payload) -> Outcome {
        if Kind::ALL.into_iter().any(|kind| !self.outbound.stores.of(kind).is_synced()) {
            return Outcome::Later("the control plane has not been read yet".to_owned());
        }
        match payload {
            Payload::SyncedResourceList(list) => self.compare_set(list),
            Payload::RequestUpdate(request) => self.compare_one(request),
            _ => return Outcome::Refused("not a request that a managed agent may make".to_owned()),
        }
        Outcome::Done
    }

    /// The agent's set of resources differs: everything it must have is sent, and what it has already changes nothing there.
    fn compare_set(&self, list: &SyncedResourceList) {
        let belongings = self.outbound.belongings(&self.agent.name);
        let names: Vec<(Kind, String, SourceUid)> = belongings
            .iter()
            .map(|(kind, object)| (*kind, object.name().to_owned(), object.origin()))
            .collect();
        let ours = checksum::set(names.iter().map(|(kind, name, uid)| (*kind, name.as_str(), uid)));
        if ours == list.checksum {
            return;
        }
        for (kind, object) in belongings {
            self.agent.put(kind, &object, true);
        }
    }

    fn compare_one(&self, request: &RequestUpdate) {
        let Some(kind) = Kind::parse(&request.kind) else {
            tracing::debug!(agent = %self.agent.name, kind = request.kind, "agent asks about a kind that is not synchronised");
            return;
        };
        let mapping = &self.outbound.mapping;
        let namespace = match kind {
            Kind::Application if mapping.by_destination => request.namespace.as_str(),
            Kind::Application => self.agent.name.as_str(),
            Kind::AppProject | Kind::Repository => mapping.namespace.as_str(),
        };
        let key = ResourceKey::new(kind, namespace, request.name.as_str());
        let held = SourceUid(request.uid.clone());
        let own = self
            .outbound
            .stores
            .of(kind)
            .get(&key)
            .filter(|own| self.outbound.concerns(kind, own, &self.agent.name));
        match own {
            None => self.agent.remove_unknown(key, &held),
            Some(own) => {
                let projected = crate::outbound::projection::project(
                    kind,
                    &own,
                    &self.agent.name,
                    mapping.by_destination,
                );
                let same = own.origin() == held
                    && !own.is_deleting()
                    && checksum::content(kind, &projected) == request.checksum;
                if !same {
                    self.agent.put(kind, &own, own.origin() != held);
                }
            }
        }
    }
}
