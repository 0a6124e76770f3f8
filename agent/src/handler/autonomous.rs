//! What an autonomous cluster lets the control plane do: ask Argo CD to look again, start and stop operations, compare.

use tiphys_shared::model::argocd::annotation;
use tiphys_shared::model::event::Payload;
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Event, EventKind, Kind, Object, Target};
use tiphys_shared::protocol::ownership::Decision;
use tiphys_shared::wire::pump::Outcome;

use super::ClusterSide;

impl ClusterSide {
    pub(super) async fn autonomous(&self, event: &Event) -> Outcome {
        match (&event.target, &event.kind, &event.payload) {
            (Target::Application, EventKind::SpecUpdate, Payload::Object(object)) => {
                self.refresh(object).await
            }
            (
                Target::ResourceResync,
                EventKind::RequestSyncedResourceList,
                Payload::SyncedResourceList(list),
            ) => {
                self.outbound.name_originals(list);
                Outcome::Done
            }
            (Target::ResourceResync, EventKind::RequestUpdate, Payload::RequestUpdate(request)) => {
                self.outbound.compare_original(request);
                Outcome::Done
            }
            (target, kind, _) => {
                Outcome::Refused(format!("an autonomous agent does not take {kind} of {target}"))
            }
        }
    }

    /// Of an update only the wish to look again is taken: all the rest is this cluster's.
    async fn refresh(&self, incoming: &Object) -> Outcome {
        let Some(refresh) = incoming.annotation(annotation::REFRESH) else { return Outcome::Done };
        let key = match self.key(Kind::Application, incoming) {
            Ok(key) => key,
            Err(outcome) => return outcome,
        };
        self.act(&key, incoming, |existing| {
            if existing.annotation(annotation::REFRESH) == Some(refresh) {
                return Ok(Decision::Nothing);
            }
            let mut next = existing.clone();
            next.annotate(annotation::REFRESH, refresh);
            Ok(Decision::Replace(Box::new(next)))
        })
        .await
    }
}
