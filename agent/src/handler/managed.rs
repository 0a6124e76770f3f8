//! What a managed cluster is told: which resources it is to have.

use std::sync::Arc;

use tiphys_shared::kube::backend::Error;
use tiphys_shared::model::argocd::annotation;
use tiphys_shared::model::event::Payload;
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Event, EventKind, Kind, Object, ResourceKey, SourceUid, Target};
use tiphys_shared::process::persist::persist;
use tiphys_shared::protocol::mirror::{Mirror, Wanted};
use tiphys_shared::protocol::ownership;
use tiphys_shared::wire::pump::Outcome;

use super::localise::localise;
use super::{ClusterSide, PATIENCE, failed};

impl ClusterSide {
    pub(super) async fn managed(&self, event: &Event) -> Outcome {
        match (Kind::of_target(&event.target), &event.kind, &event.payload) {
            (Some(kind), EventKind::Create | EventKind::SpecUpdate, Payload::Object(object)) => {
                self.resource(kind, object, event.principal_uid.as_deref()).await
            }
            (Some(kind), EventKind::Delete, Payload::Object(object)) => {
                self.gone(kind, object, |mirror, key, life| mirror.end(&key, &life)).await
            }
            _ => self.request(event),
        }
    }

    fn request(&self, event: &Event) -> Outcome {
        match (&event.target, &event.kind, &event.payload) {
            (Target::ResourceResync, EventKind::RequestResourceResync, _) => {
                self.outbound.request_resync();
                Outcome::Done
            }
            (Target::ResourceResync, EventKind::ResponseSyncedResource, Payload::SyncedResource(named)) => {
                if let Some(kind) = Kind::parse(&named.kind)
                    && let Ok(key) = self.outbound.namespaces.key(kind, &named.namespace, &named.name)
                {
                    let held = self.outbound.reconciler.stores.of(kind).get(&key);
                    self.outbound.request_update(&key, held.as_deref());
                }
                Outcome::Done
            }
            (target, kind, _) => {
                Outcome::Refused(format!("a managed agent does not take {kind} of {target}"))
            }
        }
    }

    async fn resource(&self, kind: Kind, incoming: &Object, principal_uid: Option<&str>) -> Outcome {
        if incoming.is_deleting() {
            // This is the life that the name has now: whatever was before has ended too.
            let accept = |mirror: &mut Mirror, key, life| mirror.accept(key, Wanted::Absent(life));
            return self.gone(kind, incoming, accept).await;
        }
        let key = match self.key(kind, incoming) {
            Ok(key) => key,
            Err(outcome) => return outcome,
        };
        let namespaces = &self.outbound.namespaces;
        let remapped = kind == Kind::Application && namespaces.is_remapped(incoming.namespace());
        let local = Arc::new(localise(kind, incoming, &key.namespace, principal_uid, remapped));
        let reconciler = &self.outbound.reconciler;
        let existing = reconciler.stores.of(kind).get(&key);
        if ownership::refuses_adoption(existing.as_deref(), reconciler.policy(kind)) {
            let reason = format!(
                "an object of this name is there already, and the adoption policy is never: delete it there, or allow \
                 its adoption with the annotation {}: always",
                annotation::ADOPTION_POLICY
            );
            self.outbound.report_failure(&key, &reason);
            return Outcome::Refused(reason);
        }
        let life = local.source_uid();
        let unfinished = reconciler.accept(&key, |mirror| mirror.accept(key.clone(), Wanted::Present(local)));
        let outcome = self.reconcile(&key, incoming.annotation(annotation::REFRESH)).await;
        if !matches!(outcome, Outcome::Later(_)) {
            unfinished.finish();
        }
        // What was here before stands for another original now, which has not heard how it stands.
        if existing.is_some_and(|existing| existing.source_uid() != life) {
            self.outbound.tell_status(&key, life.as_ref());
        }
        // A Go principal has no other word for an operation that was asked for while it was away.
        match ownership::nameless_request(incoming) {
            Some(request)
                if outcome == Outcome::Done && kind == Kind::Application && !self.outbound.is_tiphys() =>
            {
                self.start(incoming, Some(&request)).await
            }
            _ => outcome,
        }
    }

    async fn gone(
        &self,
        kind: Kind,
        incoming: &Object,
        accept: impl FnOnce(&mut Mirror, ResourceKey, SourceUid),
    ) -> Outcome {
        let key = match self.key(kind, incoming) {
            Ok(key) => key,
            Err(outcome) => return outcome,
        };
        let life = incoming.origin();
        let unfinished =
            self.outbound.reconciler.accept(&key, |mirror| accept(mirror, key.clone(), life.clone()));
        let outcome = self.reconcile(&key, None).await;
        if !matches!(outcome, Outcome::Later(_)) {
            unfinished.finish();
        }
        if outcome != Outcome::Done {
            return outcome;
        }
        let reconciler = &self.outbound.reconciler;
        match persist(PATIENCE, Error::is_transient, || reconciler.holds(&key, &life)).await {
            Ok(true) => {}
            Ok(false) => self.outbound.report_absent(&key, life),
            Err(error) => return failed(&error),
        }
        outcome
    }

    /// Makes the resource what is wanted, and has Argo CD look again if that is asked for. The wish is no part of what is
    /// wanted: Argo CD takes it away when it has looked.
    async fn reconcile(&self, key: &ResourceKey, refresh: Option<&str>) -> Outcome {
        let reconciler = &self.outbound.reconciler;
        let decide = |existing: Option<&Object>| {
            let decision = reconciler.decide(key, existing);
            match refresh {
                Some(refresh) => ownership::with_refresh(decision, existing, refresh),
                None => decision,
            }
        };
        match persist(PATIENCE, Error::is_transient, || reconciler.act(key, decide)).await {
            Ok(_) => Outcome::Done,
            Err(error) => {
                if !error.is_transient() {
                    // What this cluster will not have is not what it holds: the comparison shall find it again.
                    reconciler.mirror.lock().unseal(key);
                    self.outbound.report_failure(key, &error.to_string());
                }
                failed(&error)
            }
        }
    }
}
