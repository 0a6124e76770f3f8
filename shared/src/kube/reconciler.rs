//! Brings copies to what their owner wants, one resource at a time.
//!
//! Two things lead here: an event changed what is wanted, or a change on this side left what is wanted. Both end in the
//! same decision, and for one resource never at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backend::{Backend, Done, Error};
use super::informer::Stores;
use crate::model::object::ObjectExt as _;
use crate::model::{Kind, Object, ResourceKey, SourceUid};
use crate::process::options::NamePattern;
use crate::process::restraint::Restraint;
use crate::process::worklist::Worklist;
use crate::protocol::mirror::{Mirror, Wanted};
use crate::protocol::ownership::{self, AdoptionPolicy, Decision, Policy};
use crate::protocol::resync::digest::Scope;

/// How many resources are mended at once.
const WORKERS: usize = 8;
/// Pause before what could not be mended is tried again.
const PAUSE: Duration = Duration::from_secs(2);

/// Which namespaces are created when a resource needs them.
#[derive(Clone, Debug, Default)]
pub struct NamespaceCreation {
    /// Those that match; all without it.
    pub pattern: Option<NamePattern>,
    /// Labels that they get.
    pub labels: BTreeMap<String, String>,
}

/// Why a copy is to be mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It was changed here.
    Changed,
    /// What its owner wants was given up before it was written.
    Unwritten,
    /// A copy of this life was deleted here.
    Deleted(SourceUid),
}

/// How copies are held.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What of them follows the owner.
    pub scope: Scope,
    /// How conflicts about a name are settled.
    pub policy: Policy,
    /// Kinds that are never taken over, whatever the policy.
    pub never_adopted: &'static [Kind],
    /// Whether namespaces are created.
    pub namespaces: Option<NamespaceCreation>,
    /// The operation that an Application starts with when it comes back after it was deleted here.
    pub on_return: Option<Value>,
}

/// Something that the owner wants, and that has not been written yet.
#[derive(Debug)]
pub struct Unfinished<'a> {
    reconciler: &'a Reconciler,
    key: Option<ResourceKey>,
}

impl Cause {
    /// What was undone by what was `done`, if it was somebody's doing here.
    pub fn undone(&self, done: &Done) -> Option<Undone> {
        match (self, done) {
            (Self::Changed, Done::Updated { object, .. }) => Some(Undone::Change(Arc::clone(object))),
            // Otherwise it is another one that took its place.
            (Self::Deleted(life), Done::Created(object)) if object.source_uid().as_ref() == Some(life) => {
                Some(Undone::Deletion(Arc::clone(object)))
            }
            _ => None,
        }
    }
}

/// What somebody did here and had no right to, with the object as it now is again.
#[derive(Clone, Debug, PartialEq)]
pub enum Undone {
    /// A change.
    Change(Arc<Object>),
    /// A deletion.
    Deletion(Arc<Object>),
}

impl Unfinished<'_> {
    /// It is written, or never will be.
    pub fn finish(mut self) {
        self.key = None;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.reconciler.mark(key, Cause::Unwritten);
        }
    }
}

/// Reconciles.
#[derive(Debug)]
pub struct Reconciler {
    /// What is here.
    pub stores: Stores,
    /// What the owner wants.
    pub mirror: Mutex<Mirror>,
    /// How copies are held.
    pub rules: Rules,
    backend: Backend,
    busy: Mutex<HashMap<ResourceKey, Arc<tokio::sync::Mutex<()>>>>,
    dirty: Worklist<ResourceKey, Cause>,
    mended: Restraint<ResourceKey>,
}

impl Reconciler {
    /// A reconciler that knows of nothing wanted yet.
    pub fn new(stores: Stores, backend: Backend, rules: Rules) -> Self {
        Self {
            stores,
            mirror: Mutex::default(),
            rules,
            backend,
            busy: Mutex::default(),
            dirty: Worklist::default(),
            mended: Restraint::default(),
        }
    }

    /// What is to be done about the resource as it is in `existing`.
    pub fn decide(&self, key: &ResourceKey, existing: Option<&Object>) -> Decision {
        let wanted = self.mirror.lock().wanted_of(key, existing);
        ownership::decide(key.kind, self.rules.scope, existing, wanted.as_ref(), self.policy(key.kind))
    }

    /// How conflicts about a name of this kind are settled.
    pub fn policy(&self, kind: Kind) -> Policy {
        let adoption = if self.rules.never_adopted.contains(&kind) {
            AdoptionPolicy::Never
        } else if kind == Kind::Application {
            self.rules.policy.adoption
        } else {
            // Argo CD itself makes a default project and an empty set of keys.
            AdoptionPolicy::Always
        };
        Policy { adoption, ..self.rules.policy }
    }

    /// Makes the resource what is wanted now.
    ///
    /// # Errors
    /// As [`Backend::reconcile`].
    pub async fn reconcile(&self, key: &ResourceKey) -> Result<Done, Error> {
        self.act(key, |existing| self.decide(key, existing)).await
    }

    /// Makes the resource what `decide` says. Two acts on one resource follow each other.
    ///
    /// # Errors
    /// As [`Backend::reconcile`].
    pub async fn act(
        &self,
        key: &ResourceKey,
        decide: impl Fn(Option<&Object>) -> Decision,
    ) -> Result<Done, Error> {
        self.in_turn(key, async {
            let store = self.stores.of(key.kind);
            let began = store.moment();
            let done = self.write(key, decide).await?;
            store.wrote(&done, began);
            Ok(done)
        })
        .await
    }

    /// The same, but the watch's own word of it shall be news.
    ///
    /// # Errors
    /// As [`Backend::reconcile`].
    pub async fn act_unseen(
        &self,
        key: &ResourceKey,
        decide: impl Fn(Option<&Object>) -> Decision,
    ) -> Result<Done, Error> {
        self.in_turn(key, self.write(key, decide)).await
    }

    /// Whether a copy of this life is here, by the API server's own word: the store may be behind.
    ///
    /// # Errors
    /// As [`Backend::get`].
    pub async fn holds(&self, key: &ResourceKey, life: &SourceUid) -> Result<bool, Error> {
        Ok(self.backend.get(key).await?.is_some_and(|object| object.source_uid().as_ref() == Some(life)))
    }

    async fn in_turn<T>(&self, key: &ResourceKey, act: impl Future<Output = T>) -> T {
        let turn = Arc::clone(self.busy.lock().entry(key.clone()).or_default());
        let outcome = {
            let _mine = turn.lock().await;
            act.await
        };
        drop(turn);
        let mut busy = self.busy.lock();
        if busy.get(key).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            busy.remove(key);
        }
        outcome
    }

    async fn write(
        &self,
        key: &ResourceKey,
        decide: impl Fn(Option<&Object>) -> Decision,
    ) -> Result<Done, Error> {
        let store = self.stores.of(key.kind);
        match self.backend.reconcile(key, store.get(key), &decide).await {
            Err(error) if error.is_missing_namespace() && self.creates(&key.namespace) => {
                let labels = self.rules.namespaces.as_ref().map(|creation| creation.labels.clone());
                self.backend.create_namespace(key, &labels.unwrap_or_default()).await?;
                tracing::info!(namespace = key.namespace, "created a namespace");
                self.backend.reconcile(key, store.get(key), &decide).await
            }
            outcome => outcome,
        }
    }

    fn creates(&self, namespace: &str) -> bool {
        self.rules.namespaces.as_ref().is_some_and(|creation| {
            creation.pattern.as_ref().is_none_or(|pattern| pattern.matches(namespace))
        })
    }

    /// Takes in what the owner wants now. Should the write that follows be given up, with the stream that asked for it, it is
    /// made in the background: what was accepted counts as held.
    pub fn accept(&self, key: &ResourceKey, accept: impl FnOnce(&mut Mirror)) -> Unfinished<'_> {
        accept(&mut self.mirror.lock());
        Unfinished { reconciler: self, key: Some(key.clone()) }
    }

    /// Makes the resource what is wanted, soon and in the background: somebody here changed or deleted it.
    pub fn mark(&self, key: ResourceKey, cause: Cause) {
        self.dirty.mark(key, cause);
    }

    /// Marks what is wanted and not here: it may have come and gone while no watch was up.
    fn mark_missing(&self) {
        let missing: Vec<ResourceKey> = {
            let mirror = self.mirror.lock();
            let wanted = mirror.all().filter(|(_, wanted)| matches!(wanted, Wanted::Present(_)));
            wanted
                .map(|(key, _)| key)
                .filter(|key| self.stores.of(key.kind).get(key).is_none())
                .cloned()
                .collect()
        };
        for key in missing {
            self.dirty.mark_also(key, Cause::Changed);
        }
    }

    async fn mend_one(&self, key: &ResourceKey, cause: &Cause) -> Result<Done, Error> {
        self.act(key, |existing| match (self.decide(key, existing), cause, &self.rules.on_return) {
            (Decision::Create(mut object), Cause::Deleted(life), Some(operation))
                if key.kind == Kind::Application && object.source_uid().as_ref() == Some(life) =>
            {
                object.set_field("operation", Some(operation.clone()));
                Decision::Create(object)
            }
            (decision, ..) => decision,
        })
        .await
    }

    /// Mends what is marked, and what turns out to be missing, until cancelled. What cannot be mended now is tried again, and
    /// what somebody changes again and again is mended less often. `on_mended` is told what was done.
    pub async fn mend(&self, cancel: CancellationToken, on_mended: impl Fn(&ResourceKey, &Cause, &Done)) {
        let on_mended = &on_mended;
        let work = |key: ResourceKey, cause| async move {
            if self.mended.must_wait(&key, Instant::now()) {
                tracing::warn!(%key, "is changed here again and again; undone less often from now on");
                return false;
            }
            match self.mend_one(&key, &cause).await {
                Ok(Done::Unchanged) => {}
                Ok(done) => {
                    self.mended.note(key.clone(), Instant::now());
                    on_mended(&key, &cause, &done);
                }
                Err(error) => {
                    tracing::warn!(%key, %error, "cannot undo a local change; trying again");
                    return false;
                }
            }
            true
        };
        let look = async {
            loop {
                self.stores.relisted.notified().await;
                self.mark_missing();
            }
        };
        tokio::select! {
            biased;
            () = look => {}
            () = self.dirty.run(WORKERS, PAUSE, cancel, work) => {}
        }
    }
}
