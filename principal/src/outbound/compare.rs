//! Finding out that an agent and the control plane differ.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;
use tiphys_shared::model::argocd::annotation;
use tiphys_shared::model::event::{Checksum, Payload, RequestUpdate, SyncedResource, SyncedResourceList};
use tiphys_shared::model::feature::{Feature, Features};
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Event, EventKind, Kind, Mode, Object, ResourceKey, SourceUid, Target};
use tiphys_shared::protocol::checksum;
use tiphys_shared::protocol::outbox::Outbox;
use tiphys_shared::protocol::resync::digest::{self, Digest, Scope};
use tiphys_shared::protocol::resync::exchange::{self, Query, Report};
use tiphys_shared::protocol::resync::tree::{Leaf, LeafName, Tree};
use tiphys_shared::wire::pump::Outgoing;

use super::{Outbound, projection};
use crate::agents::Agent;

impl Outbound {
    /// Begins a comparison with an agent. Returns whether it is to be done again after a while.
    pub(crate) fn compare(&self, agent: &Agent, peer: &Features) -> bool {
        if peer.has(Feature::Resync) {
            let scope = match agent.mode {
                Mode::Managed => Scope::Status,
                Mode::Autonomous => Scope::Whole,
            };
            agent.trees.clear();
            agent.report(&exchange::summary(scope, &self.tree(agent, scope)));
            self.metrics.compares(&agent.name);
            return true;
        }
        match agent.mode {
            // It compares by itself when it starts, and when it is told to.
            Mode::Managed if agent.was_asked() => {}
            Mode::Managed => {
                let nothing = Payload::Document(serde_json::json!({}));
                agent.send("resync".to_owned(), EventKind::RequestResourceResync, nothing);
            }
            Mode::Autonomous => self.compare_by_list(agent),
        }
        false
    }

    /// What the control plane owns or holds of `scope`, as far as it is the agent's.
    fn tree(&self, agent: &Agent, scope: Scope) -> Arc<Tree> {
        let now = tokio::time::Instant::now().into_std();
        agent.trees.get(scope, now, || self.build_tree(agent, scope))
    }

    fn build_tree(&self, agent: &Agent, scope: Scope) -> Tree {
        match scope {
            Scope::Whole => self.mirror_tree(agent),
            Scope::Spec => self
                .belongings(&agent.name)
                .iter()
                // Of what is ending, only Applications wait for the cluster.
                .filter(|(kind, object)| *kind == Kind::Application || !object.is_deleting())
                .map(|(kind, object)| self.leaf(*kind, object, self.spec_digest(agent, *kind, object)))
                .collect(),
            Scope::Status => self
                .belongings(&agent.name)
                .iter()
                .filter(|(kind, _)| *kind == Kind::Application)
                .map(|(kind, object)| self.leaf(*kind, object, self.digests.digest_of(*kind, scope, object)))
                .collect(),
        }
    }

    fn leaf(&self, kind: Kind, object: &Object, digest: Digest) -> Leaf {
        let namespace = match kind {
            Kind::Application if self.mapping.by_destination => object.namespace().to_owned(),
            _ => String::new(),
        };
        let name = LeafName { kind, namespace, name: object.name().to_owned() };
        Leaf { name, uid: object.origin(), digest }
    }

    fn spec_digest(&self, agent: &Agent, kind: Kind, object: &Object) -> Digest {
        let project = |object: &Object| {
            let seen = projection::project(kind, object, &agent.name, self.mapping.by_destination);
            digest::digest(kind, Scope::Spec, &seen)
        };
        // Each agent sees a project otherwise.
        if kind == Kind::AppProject {
            return project(object);
        }
        self.digests.digest(kind, Scope::Spec, object, project)
    }

    fn mirror_tree(&self, agent: &Agent) -> Tree {
        let place = self.place(&agent.name);
        // Requests that are still shown although the cluster has heard of them, and may be done with them: the cluster shall
        // say again how it is.
        let stale: BTreeSet<String> = self
            .stores
            .applications
            .in_namespace(agent.name.as_str())
            .into_iter()
            .filter(|object| {
                object.field("operation").is_some() || object.annotation(annotation::REFRESH).is_some()
            })
            .filter(|object| !agent.outbox.read(|outbox| outbox.is_pending(&object.key(Kind::Application))))
            .map(|object| object.name().to_owned())
            .collect();
        let mirror = self.reconciler.mirror.lock();
        mirror
            .in_namespace(Kind::Application, agent.name.as_str())
            .chain(mirror.in_namespace(Kind::AppProject, &self.mapping.namespace))
            .filter_map(|(key, wanted)| wanted.leaf(|object| place.name(object, key.kind)))
            .map(|leaf| {
                let is_stale = leaf.name.kind == Kind::Application && stale.contains(&leaf.name.name);
                if is_stale { Leaf { digest: Digest::default(), ..leaf } } else { leaf }
            })
            .collect()
    }

    /// The agent asks for the parts of a sum.
    pub(crate) fn answer(&self, agent: &Agent, query: &Query) {
        if agent.outbox.read(Outbox::is_crowded) {
            return;
        }
        for report in exchange::answer(&self.tree(agent, query.scope), query) {
            agent.report(&report);
        }
    }

    /// A managed agent tells what it holds of what the control plane owns.
    pub(crate) fn judge(&self, agent: &Agent, report: &Report) {
        if agent.outbox.read(Outbox::is_crowded) {
            return;
        }
        let verdict = exchange::compare(&self.tree(agent, Scope::Spec), report);
        if !verdict.ask.is_empty() {
            let first = verdict.ask.first().map(ToString::to_string).unwrap_or_default();
            let query = Query { scope: Scope::Spec, nodes: verdict.ask };
            agent.document(format!("query/{:?}/{first}", query.scope), EventKind::ResyncQuery, &query);
        }
        let unknown = verdict.unknown.into_iter().map(|leaf| (leaf.name, Some(leaf.uid)));
        for (name, life) in verdict.differing.into_iter().map(|name| (name, None)).chain(unknown) {
            let key = self.key_of(agent, name.kind, &name.namespace, &name.name);
            if agent.outbox.read(|outbox| outbox.is_pending(&key)) {
                continue;
            }
            // What is here now counts, not what was here when the comparison began.
            match (self.belonging(agent, &key), life) {
                (Some(object), _) => agent.put(key.kind, &object, true),
                (None, Some(life)) => agent.remove_unknown(key, &life),
                (None, None) => continue,
            }
            self.metrics.repairs(&agent.name);
        }
    }

    fn key_of(&self, agent: &Agent, kind: Kind, namespace: &str, name: &str) -> ResourceKey {
        let namespace = match kind {
            Kind::Application if self.mapping.by_destination => namespace,
            Kind::Application => agent.name.as_str(),
            Kind::AppProject | Kind::Repository | Kind::GpgKey => self.mapping.namespace.as_str(),
        };
        ResourceKey::new(kind, namespace, name)
    }

    fn belonging(&self, agent: &Agent, key: &ResourceKey) -> Option<Arc<Object>> {
        self.stores.of(key.kind).get(key).filter(|own| self.concerns(key.kind, own, &agent.name))
    }

    /// A Go agent's set of resources: if it differs, everything that the agent must have is sent, and what it has already
    /// changes nothing there.
    pub(crate) fn compare_set(&self, agent: &Agent, list: &SyncedResourceList) {
        let belongings = self.belongings(&agent.name);
        let names: Vec<(Kind, String, SourceUid)> = belongings
            .iter()
            .map(|(kind, object)| (*kind, object.name().to_owned(), object.origin()))
            .collect();
        let ours = checksum::set(names.iter().map(|(kind, name, uid)| (*kind, name.as_str(), uid)));
        if ours == list.checksum {
            return;
        }
        for (kind, object) in belongings {
            agent.put(kind, &object, true);
        }
    }

    /// A Go agent asks whether what it has is what it should have. Nothing is deleted unless the control plane's copy is
    /// complete.
    pub(crate) fn compare_one(&self, agent: &Agent, request: &RequestUpdate) {
        let Some(kind) = Kind::parse(&request.kind) else {
            tracing::debug!(agent = %agent.name, kind = request.kind, "agent asks about a kind that is not synchronised");
            return;
        };
        let key = self.key_of(agent, kind, &request.namespace, &request.name);
        let held = SourceUid(request.uid.clone());
        match self.belonging(agent, &key) {
            None if agent.outbox.read(Outbox::is_crowded) => {}
            None => agent.remove_unknown(key, &held),
            Some(own) => {
                let seen = projection::project(kind, &own, &agent.name, self.mapping.by_destination);
                let same = own.origin() == held
                    && !own.is_deleting()
                    && checksum::content(kind, &seen) == request.checksum;
                if !same {
                    agent.put(kind, &own, own.origin() != held);
                }
            }
        }
    }

    /// Asks a Go agent in autonomous mode about everything that is shown of it, and for the names of what it has.
    pub(crate) fn compare_by_list(&self, agent: &Agent) {
        self.ask_about_shown(agent);
        // No set has this sum, so all are named: what is shown has other names than what it stands for.
        let list = SyncedResourceList { checksum: Checksum(vec![0; 32]) };
        agent.send("set".into(), EventKind::RequestSyncedResourceList, Payload::SyncedResourceList(list));
    }

    /// Asks a Go agent in autonomous mode about everything that is shown of it.
    pub(crate) fn ask_about_shown(&self, agent: &Agent) {
        for (kind, object) in self.shown(&agent.name) {
            let uid = object.source_uid().map(|uid| uid.0).unwrap_or_default();
            agent.request_update(&object.key(kind), uid, checksum::content(kind, &object));
        }
    }

    /// A Go agent in autonomous mode names a resource that it has.
    pub(crate) fn named_by_agent(&self, agent: &Agent, named: &SyncedResource) {
        let Some(kind) = Kind::parse(&named.kind) else { return };
        let Ok(key) = self.place(&agent.name).key(kind, &named.name) else { return };
        let is_shown = self
            .stores
            .of(kind)
            .get(&key)
            .is_some_and(|object| object.source_uid().is_some_and(|uid| uid.0 == named.uid));
        if !is_shown {
            let theirs = ResourceKey::new(kind, agent.name.as_str(), named.name.as_str());
            agent.request_update(&theirs, String::new(), Checksum::default());
        }
    }
}

impl Agent {
    fn report(&self, report: &Report) {
        let first = report.nodes.first().map(|node| node.at.to_string()).unwrap_or_default();
        self.document(format!("report/{:?}/{first}", report.scope), EventKind::ResyncReport, report);
    }

    fn document(&self, name: String, kind: EventKind, document: &impl Serialize) {
        match serde_json::to_value(document) {
            Ok(document) => self.send(name, kind, Payload::Document(document)),
            Err(error) => tracing::error!(%error, "a comparison could not be written"),
        }
    }

    fn request_update(&self, key: &ResourceKey, uid: String, checksum: Checksum) {
        let request = RequestUpdate {
            name: key.name.clone(),
            namespace: key.namespace.clone(),
            uid,
            kind: key.kind.as_str().to_owned(),
            checksum,
        };
        self.send(format!("update/{key}"), EventKind::RequestUpdate, Payload::RequestUpdate(request));
    }

    fn send(&self, name: String, kind: EventKind, payload: Payload) {
        let event = Event::request(Target::ResourceResync, kind, payload);
        self.outbox.fill(|outbox| outbox.request(name, Outgoing::Message(Box::new(event))));
    }
}
