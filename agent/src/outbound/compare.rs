//! Finding out that this cluster and the control plane differ.

use std::sync::Arc;

use tiphys_shared::model::event::{Checksum, Payload, RequestUpdate, SyncedResource, SyncedResourceList};
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{EventKind, Kind, Mode, Object, ResourceKey, SourceUid, Target};
use tiphys_shared::protocol::checksum;
use tiphys_shared::protocol::outbox::Outbox;
use tiphys_shared::protocol::resync::digest::Scope;
use tiphys_shared::protocol::resync::exchange::{self, Query, Report};
use tiphys_shared::protocol::resync::tree::{Leaf, LeafName, Tree};
use tiphys_shared::wire::pump::Outgoing;

use super::{Outbound, SHOWN, shows, shows_news};

impl Outbound {
    /// What the owner of `scope` calls a resource here.
    fn leaf_name(&self, key: &ResourceKey) -> LeafName {
        let namespace = match key.kind {
            Kind::Application if self.namespaces.keep => self.namespaces.theirs(&key.namespace),
            _ => String::new(),
        };
        LeafName { kind: key.kind, namespace, name: key.name.clone() }
    }

    /// The resource here that the owner of `scope` calls so.
    fn key_of(&self, name: &LeafName) -> Option<ResourceKey> {
        let namespace = match self.mode {
            Mode::Managed => name.namespace.as_str(),
            Mode::Autonomous => self.namespaces.own.as_str(),
        };
        self.namespaces.key(name.kind, namespace, &name.name).ok()
    }

    /// What this side holds of `scope`, or owns of it.
    fn tree(&self, scope: Scope) -> Arc<Tree> {
        let now = tokio::time::Instant::now().into_std();
        self.trees.get(scope, now, || self.build_tree(scope))
    }

    fn build_tree(&self, scope: Scope) -> Tree {
        match (self.mode, scope) {
            (Mode::Managed, Scope::Spec) => {
                let mirror = self.reconciler.mirror.lock();
                mirror.all().filter_map(|(key, wanted)| wanted.leaf(|_| Some(self.leaf_name(key)))).collect()
            }
            (Mode::Managed, Scope::Status) => self
                .reconciler
                .stores
                .applications
                .all()
                .iter()
                .filter_map(|object| {
                    let name = self.leaf_name(&object.key(Kind::Application));
                    let digest = self.digests.digest_of(Kind::Application, scope, object);
                    Some(Leaf { name, uid: object.source_uid()?, digest })
                })
                .collect(),
            (Mode::Autonomous, Scope::Whole) => self
                .originals()
                .into_iter()
                .map(|(kind, object)| Leaf {
                    name: self.leaf_name(&object.key(kind)),
                    uid: SourceUid(object.uid().to_owned()),
                    digest: self.digests.digest_of(kind, scope, &object),
                })
                .collect(),
            _ => Tree::default(),
        }
    }

    /// What an autonomous cluster shows.
    fn originals(&self) -> Vec<(Kind, Arc<Object>)> {
        SHOWN
            .into_iter()
            .flat_map(|kind| {
                self.reconciler.stores.of(kind).all().into_iter().map(move |object| (kind, object))
            })
            .filter(|(kind, object)| shows(*kind, object))
            .collect()
    }

    /// Tells a Tiphys principal the sum of what is held here, for it to find what differs.
    pub(crate) fn report_sum(&self) {
        self.trees.clear();
        self.report(&exchange::summary(Scope::Spec, &self.tree(Scope::Spec)));
        self.metrics.resync_rounds.inc();
    }

    fn report(&self, report: &Report) {
        let first = report.nodes.first().map(|node| node.at.to_string()).unwrap_or_default();
        self.document(format!("report/{:?}/{first}", report.scope), EventKind::ResyncReport, report);
    }

    /// The principal asks for the parts of a sum.
    pub(crate) fn answer(&self, query: &Query) {
        if self.outbox.read(Outbox::is_crowded) {
            return;
        }
        for report in exchange::answer(&self.tree(query.scope), query) {
            self.report(&report);
        }
    }

    /// The principal tells what it holds of what this side owns.
    pub(crate) fn judge(&self, report: &Report) {
        if self.outbox.read(Outbox::is_crowded) {
            return;
        }
        let verdict = exchange::compare(&self.tree(report.scope), report);
        if !verdict.ask.is_empty() {
            let first = verdict.ask.first().map(ToString::to_string).unwrap_or_default();
            let query = Query { scope: report.scope, nodes: verdict.ask };
            self.document(format!("query/{:?}/{first}", query.scope), EventKind::ResyncQuery, &query);
        }
        let unknown = verdict.unknown.into_iter().map(|leaf| (leaf.name, Some(leaf.uid)));
        for (name, life) in verdict.differing.into_iter().map(|name| (name, None)).chain(unknown) {
            let Some(key) = self.key_of(&name) else { continue };
            if self.outbox.read(|outbox| outbox.is_pending(&key)) {
                continue;
            }
            // What is here now counts, not what was here when the comparison began.
            match (self.reconciler.stores.of(key.kind).get(&key), self.mode) {
                (Some(object), Mode::Autonomous) if shows(key.kind, &object) => {
                    self.put(key.kind, &object, true);
                }
                (Some(object), Mode::Managed) if object.source_uid().is_some() => {
                    self.put(key.kind, &object, false);
                }
                (_, Mode::Autonomous) => match life {
                    Some(life) => self.remove_unknown(key, &life),
                    None => continue,
                },
                // Whether there is an Application at all is the control plane's to say.
                (_, Mode::Managed) => continue,
            }
            self.metrics.resync_repaired.inc();
        }
    }

    /// Tells the control plane that this cluster does not have what it holds a copy of.
    fn remove_unknown(&self, key: ResourceKey, life: &SourceUid) {
        let mut last = Object::new(&key.name, &tiphys_shared::kube::kinds::api_resource(key.kind));
        last.metadata.namespace = Some(key.namespace.clone());
        last.metadata.uid = Some(life.0.clone());
        self.outbox.fill(|outbox| outbox.remove(key, Outgoing::Object(Arc::new(last))));
    }

    fn document(&self, name: String, kind: EventKind, document: &impl serde::Serialize) {
        match serde_json::to_value(document) {
            Ok(document) => self.send(name, Target::ResourceResync, kind, Payload::Document(document)),
            Err(error) => tracing::error!(%error, "a comparison could not be written"),
        }
    }

    /// Compares, by the Go project's means, everything that is here with what a Go principal has.
    pub(crate) fn compare_by_list(&self) {
        match self.mode {
            Mode::Managed => {
                self.request_resync();
                for object in self.reconciler.stores.applications.all() {
                    if object.source_uid().is_some() && shows_news(None, &object) {
                        self.put(Kind::Application, &object, true);
                    }
                }
            }
            Mode::Autonomous => {
                // A Go principal makes an Application only when it is created, and a project only once.
                for (kind, object) in self.originals() {
                    self.put(kind, &object, kind == Kind::Application);
                }
                let nothing = Payload::Document(serde_json::json!({}));
                self.send("resync".into(), Target::ResourceResync, EventKind::RequestResourceResync, nothing);
            }
        }
    }

    /// Asks the principal to compare everything that is here with what should be.
    pub(crate) fn request_resync(&self) {
        let copies: Vec<(Kind, Arc<Object>, SourceUid)> = Kind::ALL
            .into_iter()
            .flat_map(|kind| {
                self.reconciler.stores.of(kind).all().into_iter().map(move |object| (kind, object))
            })
            .filter(|(_, object)| !object.is_deleting())
            .filter_map(|(kind, object)| object.source_uid().map(|uid| (kind, object, uid)))
            .collect();
        let list = checksum::set(copies.iter().map(|(kind, object, uid)| (*kind, object.name(), uid)));
        for (kind, object, _) in &copies {
            self.request_update(&object.key(*kind), Some(object));
        }
        let list = Payload::SyncedResourceList(SyncedResourceList { checksum: list });
        self.send("set".into(), Target::ResourceResync, EventKind::RequestSyncedResourceList, list);
    }

    /// Asks the principal to compare one resource.
    pub(crate) fn request_update(&self, key: &ResourceKey, held: Option<&Object>) {
        let namespace = match key.kind {
            Kind::Application if self.namespaces.keep => self.namespaces.theirs(&key.namespace),
            _ => key.namespace.clone(),
        };
        let request = RequestUpdate {
            name: key.name.clone(),
            namespace,
            uid: held.and_then(|object| object.source_uid()).map(|uid| uid.0).unwrap_or_default(),
            kind: key.kind.as_str().to_owned(),
            checksum: held.map_or_else(Checksum::default, |object| checksum::content(key.kind, object)),
        };
        let request = Payload::RequestUpdate(request);
        self.send(format!("update/{key}"), Target::ResourceResync, EventKind::RequestUpdate, request);
    }

    /// A Go principal asks which resources an autonomous cluster has, if they are not those that it knows.
    pub(crate) fn name_originals(&self, list: &SyncedResourceList) {
        let originals = self.originals();
        let uids: Vec<SourceUid> =
            originals.iter().map(|(_, object)| SourceUid(object.uid().to_owned())).collect();
        let names = originals.iter().zip(&uids).map(|((kind, object), uid)| (*kind, object.name(), uid));
        if checksum::set(names) == list.checksum {
            return;
        }
        for (kind, object) in originals {
            let named = SyncedResource {
                name: object.name().to_owned(),
                namespace: object.namespace().to_owned(),
                uid: object.uid().to_owned(),
                kind: kind.as_str().to_owned(),
            };
            let named = Payload::SyncedResource(named);
            let name = format!("named/{}", object.key(kind));
            self.send(name, Target::ResourceResync, EventKind::ResponseSyncedResource, named);
        }
    }

    /// A Go principal asks whether its copy is what an autonomous cluster has.
    pub(crate) fn compare_original(&self, request: &RequestUpdate) {
        let Some(kind) = Kind::parse(&request.kind).filter(|kind| SHOWN.contains(kind)) else { return };
        let mut name = request.name.as_str();
        if let (Kind::AppProject, Some(agent)) = (kind, self.name.get()) {
            // The control plane puts the agent's name before the project's.
            let rest = name.strip_prefix(agent.as_str()).and_then(|rest| rest.strip_prefix('-'));
            name = rest.filter(|rest| !rest.is_empty()).unwrap_or(name);
        }
        let key = ResourceKey::new(kind, self.namespaces.own.as_str(), name);
        match self.reconciler.stores.of(kind).get(&key).filter(|object| shows(kind, object)) {
            Some(object) => {
                let same =
                    object.uid() == request.uid && checksum::content(kind, &object) == request.checksum;
                if !same {
                    self.put(kind, &object, request.uid.is_empty());
                }
            }
            None if request.uid.is_empty() || self.outbox.read(Outbox::is_crowded) => {}
            None => self.remove_unknown(key, &SourceUid(request.uid.clone())),
        }
    }
}
