//! Watches one kind of resource: keeps a copy of it and tells every change once.
//!
//! The copy is never behind what was told: when a [`Change`] is delivered the [`Store`] already holds it. What vanished
//! while no watch was up is found at the end of the next list, and told as [`Change::Gone`].

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::backend::Done;
use super::kinds;
use crate::model::object::ObjectExt as _;
use crate::model::{Kind, Object, ResourceKey};

/// What happened to a resource.
#[derive(Clone, Debug)]
pub enum Change {
    /// It was created or changed.
    Applied {
        /// What it was, if it was known.
        old: Option<Arc<Object>>,
        /// What it is.
        new: Arc<Object>,
    },
    /// It is gone; this is what it last was.
    Gone(Arc<Object>),
}

impl Change {
    /// The resource as it is or last was.
    pub fn object(&self) -> &Arc<Object> {
        match self {
            Self::Applied { new, .. } => new,
            Self::Gone(last) => last,
        }
    }
}

/// A copy of all resources of one kind that an informer watches. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    kind: Kind,
    content: Arc<RwLock<Content>>,
    synced: watch::Receiver<bool>,
}

#[derive(Debug, Default)]
struct Content {
    /// In the order of their keys, so that one namespace is one range.
    objects: BTreeMap<ResourceKey, Arc<Object>>,
    /// Newest resource version that the watch has told of.
    watched: u64,
    /// Odd while a list is under way, and another number for each.
    lists: u64,
}

/// A moment in the life of a [`Store`]: between which of its lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(u64);

impl Store {
    /// The resource as it was last seen.
    pub fn get(&self, key: &ResourceKey) -> Option<Arc<Object>> {
        self.content.read().objects.get(key).cloned()
    }

    /// All resources, by namespace and name.
    pub fn all(&self) -> Vec<Arc<Object>> {
        self.content.read().objects.values().cloned().collect()
    }

    /// All resources of one namespace, by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<Object>> {
        let first = ResourceKey::new(self.kind, namespace, "");
        let content = self.content.read();
        let from_there = content.objects.range(first..);
        from_there
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }

    /// Number of resources.
    pub fn len(&self) -> usize {
        self.content.read().objects.len()
    }

    /// Whether there are no resources.
    pub fn is_empty(&self) -> bool {
        self.content.read().objects.is_empty()
    }

    /// The kind that is kept here.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the first list has arrived.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// The present moment, for a write that begins.
    pub fn moment(&self) -> Moment {
        Moment(self.content.read().lists)
    }

    /// Takes in what this process has just written, before the watch tells of it; the watch's own word of it is then no
    /// news.
    ///
    /// Left out unless it differs from the copy by that write alone: what others changed in between must be told. Left out,
    /// too, if a list was made since the write began: what is deleted before a list is on no list, and no watch tells of it.
    pub fn wrote(&self, done: &Done, began: Moment) {
        let mut content = self.content.write();
        if content.lists != began.0 || began.0 % 2 == 1 {
            return;
        }
        let written = match done {
            Done::Unchanged | Done::Deleted => return,
            Done::Created(written) => {
                if version(written) <= content.watched
                    || content.objects.contains_key(&written.key(self.kind))
                {
                    return;
                }
                written
            }
            Done::Updated { from, object } => {
                let known = content.objects.get(&object.key(self.kind));
                if known.is_none_or(|known| known.resource_version() != from) {
                    return;
                }
                object
            }
        };
        content.objects.insert(written.key(self.kind), Arc::clone(written));
    }

    /// Waits for the first list. Ends, too, when the informer does.
    pub async fn synced(&self) {
        _ = self.synced.clone().wait_for(|synced| *synced).await;
    }
}

/// The copies of everything that is synchronised, on one side.
#[derive(Clone, Debug)]
pub struct Stores {
    /// Applications.
    pub applications: Store,
    /// AppProjects.
    pub projects: Store,
    /// Repositories and their credentials.
    pub repositories: Store,
    /// GPG keys.
    pub gpg_keys: Store,
    /// Told whenever one of them was listed anew: what came and went while no watch was up was never told as a [`Change`].
    pub relisted: Arc<Notify>,
}

impl Stores {
    /// The informers of everything that is synchronised, and the copies that they keep. `namespace` is Argo CD's;
    /// `applications` that of Applications, none for all; `labels` the user's selector.
    pub fn watch(
        client: &kube::Client,
        namespace: &str,
        applications: Option<&str>,
        labels: Option<&str>,
    ) -> (Self, [Informer; 4]) {
        let relisted = Arc::new(Notify::new());
        let informer = |kind, namespace: Option<&str>, labels: Option<String>, fields: Option<String>| {
            let scope = Scope { kind, namespace: namespace.map(str::to_owned), labels, fields };
            Informer { relisted: Arc::clone(&relisted), ..Informer::new(client, scope) }
        };
        let (own, labels) = (Some(namespace), labels.map(str::to_owned));
        let secrets = kinds::repository_selector(labels.as_deref());
        let informers = [
            informer(Kind::GpgKey, own, labels.clone(), Some(kinds::gpg_keys_field_selector())),
            informer(Kind::AppProject, own, labels.clone(), None),
            informer(Kind::Repository, own, Some(secrets), None),
            informer(Kind::Application, applications, labels, None),
        ];
        let stores = Self {
            gpg_keys: informers[0].store(),
            projects: informers[1].store(),
            repositories: informers[2].store(),
            applications: informers[3].store(),
            relisted,
        };
        (stores, informers)
    }

    /// The copies of one kind.
    pub fn of(&self, kind: Kind) -> &Store {
        match kind {
            Kind::Application => &self.applications,
            Kind::AppProject => &self.projects,
            Kind::Repository => &self.repositories,
            Kind::GpgKey => &self.gpg_keys,
        }
    }

    /// Waits for the first list of every kind. Ends, too, when the informers do.
    pub async fn synced(&self) {
        for kind in Kind::ALL {
            self.of(kind).synced().await;
        }
    }
}

/// What an informer watches.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Kind of the resources.
    pub kind: Kind,
    /// One namespace, or all.
    pub namespace: Option<String>,
    /// Label selector in Kubernetes' syntax.
    pub labels: Option<String>,
    /// Field selector in Kubernetes' syntax.
    pub fields: Option<String>,
}

/// Watches until it is cancelled.
#[derive(Debug)]
pub struct Informer {
    api: Api<Object>,
    scope: Scope,
    store: Store,
    synced: watch::Sender<bool>,
    relisted: Arc<Notify>,
}

impl Informer {
    /// An informer that has not begun yet.
    pub fn new(client: &kube::Client, scope: Scope) -> Self {
        let (synced, receiver) = watch::channel(false);
        let store = Store { kind: scope.kind, content: Arc::default(), synced: receiver };
        let api = super::kinds::api(client, scope.kind, scope.namespace.as_deref());
        Self { api, scope, store, synced, relisted: Arc::default() }
    }

    /// The copy that this informer keeps.
    pub fn store(&self) -> Store {
        self.store.clone()
    }

    /// Watches, and calls `on_change` for each change in order, until `cancel`. A server that is away, forgets
    /// (410) or refuses is tried again, with growing pauses; the first and each repeated failure is logged.
    pub async fn run(self, cancel: CancellationToken, mut on_change: impl FnMut(Change) + Send) {
        let mut config = watching();
        if let Some(labels) = &self.scope.labels {
            config = config.labels(labels);
        }
        if let Some(fields) = &self.scope.fields {
            config = config.fields(fields);
        }
        let stream = watcher(self.api.clone(), config).backoff(Pauses::default());
        let mut stream = std::pin::pin!(stream);
        let mut listed: Option<HashSet<ResourceKey>> = None;
        loop {
            let event = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                event = stream.next() => event,
            };
            match event {
                Some(Ok(watcher::Event::Init)) => {
                    listed = Some(HashSet::new());
                    self.store.content.write().lists |= 1;
                }
                Some(Ok(watcher::Event::InitApply(object))) => {
                    if let Some(listed) = &mut listed {
                        listed.insert(object.key(self.scope.kind));
                    }
                    self.apply(object, &mut on_change);
                }
                Some(Ok(watcher::Event::InitDone)) => {
                    if let Some(listed) = listed.take() {
                        self.forget_unlisted(&listed, &mut on_change);
                    }
                    self.synced.send_replace(true);
                    self.relisted.notify_one();
                }
                Some(Ok(watcher::Event::Apply(object))) => self.apply(object, &mut on_change),
                Some(Ok(watcher::Event::Delete(object))) => {
                    let known = {
                        let mut content = self.store.content.write();
                        content.watched = content.watched.max(version(&object));
                        content.objects.remove(&object.key(self.scope.kind))
                    };
                    if known.is_some() {
                        on_change(Change::Gone(Arc::new(trimmed(object))));
                    }
                }
                Some(Err(error)) => {
                    tracing::warn!(kind = %self.scope.kind, error = %error, "watch failed; trying again");
                }
                None => return,
            }
        }
    }

    fn apply(&self, object: Object, on_change: &mut impl FnMut(Change)) {
        let new = Arc::new(trimmed(object));
        let key = new.key(self.scope.kind);
        let old = {
            let mut content = self.store.content.write();
            content.watched = content.watched.max(version(&new));
            // What this process wrote meanwhile is newer than what the watch still has to tell.
            if content
                .objects
                .get(&key)
                .is_some_and(|known| known.uid() == new.uid() && version(known) >= version(&new))
            {
                return;
            }
            content.objects.insert(key, Arc::clone(&new))
        };
        // Another object took the name while no watch was up: one life ended before the next began.
        match old {
            Some(old) if old.uid() != new.uid() => {
                on_change(Change::Gone(old));
                on_change(Change::Applied { old: None, new });
            }
            old => on_change(Change::Applied { old, new }),
        }
    }

    fn forget_unlisted(&self, listed: &HashSet<ResourceKey>, on_change: &mut impl FnMut(Change)) {
        let gone: Vec<Arc<Object>> = {
            let mut content = self.store.content.write();
            content.lists += 1;
            // What was written while the list was made is not here yet.
            content.objects.extract_if(.., |key, _| !listed.contains(key)).map(|(_, object)| object).collect()
        };
        for last in gone {
            on_change(Change::Gone(last));
        }
    }
}

/// Resource versions of one kind are numbers that grow; one that is not a number is older than all.
fn version(object: &Object) -> u64 {
    object.resource_version().parse().unwrap_or(0)
}

/// Who manages which field is of no use to a peer, and can be larger than all the rest.
pub(super) fn trimmed(mut object: Object) -> Object {
    object.metadata.managed_fields = None;
    object
}

/// After so many seconds a watch is begun anew: how long it takes at most until a dead way to the API server is noticed.
const WATCH: u32 = 30;

/// How everything is watched.
fn watching() -> watcher::Config {
    watcher::Config::default().timeout(WATCH)
}

/// Watches the object of this name, as an [`Informer`] watches its kind.
pub fn watch_one<K>(api: Api<K>, name: &str) -> BoxStream<'static, watcher::Result<watcher::Event<K>>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = watching().fields(&format!("metadata.name={name}"));
    watcher(api, config).backoff(Pauses::default()).boxed()
}

/// Pauses between two tries at a watch: 50 ms, doubling to 10 s, each lengthened by chance by up to a half.
#[derive(Debug, Default)]
struct Pauses {
    failures: u32,
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let millis = 50_u64.saturating_mul(1 << self.failures.min(8)).min(10_000);
        self.failures += 1;
        Some(Duration::from_millis(millis + fastrand::u64(0..=millis / 2)))
    }
}

impl kube::runtime::utils::Backoff for Pauses {
    fn reset(&mut self) {
        self.failures = 0;
    }
}
