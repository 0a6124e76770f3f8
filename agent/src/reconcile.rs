//! Brings this cluster to what the control plane wants, one resource at a time.
//!
//! Two things lead here: an event changed what is wanted, or a change in the cluster left what is wanted. Both end in the
//! same decision, and for one resource never at once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use parking_lot::Mutex;
use tiphys_shared::kube::backend::{Backend, Decision, Done, Error};
use tiphys_shared::kube::informer::Stores;
use tiphys_shared::model::{Object, ResourceKey};
use tiphys_shared::protocol::mirror::Mirror;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::handler::ownership::{self, Policy};

/// How many resources are mended at once.
const WORKERS: usize = 8;

/// Reconciles.
#[derive(Debug)]
pub(crate) struct Reconciler {
    pub(crate) stores: Stores,
    pub(crate) mirror: Mutex<Mirror>,
    backend: Backend,
    policy: Policy,
    busy: Mutex<HashMap<ResourceKey, Arc<tokio::sync::Mutex<()>>>>,
    dirty: Mutex<HashSet<ResourceKey>>,
    marked: Notify,
}

impl Reconciler {
    pub(crate) fn new(stores: Stores, backend: Backend, policy: Policy) -> Self {
        Self {
            stores,
            mirror: Mutex::default(),
            backend,
            policy,
            busy: Mutex::default(),
            dirty: Mutex::default(),
            marked: Notify::new(),
        }
    }

    pub(crate) fn policy(&self) -> Policy {
        self.policy
    }

    /// What is to be done about the resource as it is in `existing`.
    pub(crate) fn decide(&self, key: &ResourceKey, existing: Option<&Object>) -> Decision {
        let wanted = self.mirror.lock().get(key).cloned();
        ownership::decide(key.kind, existing, wanted.as_ref(), self.policy)
    }

    /// Makes the resource what is wanted now.
    pub(crate) async fn reconcile(&self, key: &ResourceKey) -> Result<Done, Error> {
        self.act(key, |existing| self.decide(key, existing)).await
    }

    /// Makes the resource what `decide` says. Two acts on one resource follow each other.
    pub(crate) async fn act(
        &self,
        key: &ResourceKey,
        decide: impl Fn(Option<&Object>) -> Decision,
    ) -> Result<Done, Error> {
        let turn = Arc::clone(self.busy.lock().entry(key.clone()).or_default());
        let outcome = {
            let _mine = turn.lock().await;
            let store = self.stores.of(key.kind);
            let outcome = self.backend.reconcile(key, store.get(key), decide).await;
            if let Ok(done) = &outcome {
                store.wrote(done);
            }
            outcome
        };
        drop(turn);
        let mut busy = self.busy.lock();
        if busy.get(key).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            busy.remove(key);
        }
        outcome
    }

    /// The resource is not what is wanted: somebody here changed or deleted it.
    pub(crate) fn mark(&self, key: ResourceKey) {
        self.dirty.lock().insert(key);
        self.marked.notify_one();
    }

    /// Mends what is marked until cancelled. What cannot be mended now is tried again.
    pub(crate) async fn mend(&self, cancel: CancellationToken, on_done: impl Fn(&ResourceKey, &Done)) {
        let mut running = FuturesUnordered::new();
        let mut failed: Vec<ResourceKey> = Vec::new();
        loop {
            while running.len() < WORKERS {
                let next = {
                    let mut dirty = self.dirty.lock();
                    let next = dirty.iter().next().cloned();
                    next.inspect(|key| _ = dirty.remove(key))
                };
                let Some(key) = next else { break };
                running.push(async move { (self.reconcile(&key).await, key) });
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                Some((outcome, key)) = running.next(), if !running.is_empty() => match outcome {
                    Ok(done) => on_done(&key, &done),
                    Err(error) => {
                        tracing::warn!(%key, %error, "cannot undo a local change; trying again");
                        failed.push(key);
                    }
                },
                () = self.marked.notified(), if running.len() < WORKERS => {}
                () = tokio::time::sleep(Duration::from_secs(2)), if !failed.is_empty() => {
                    self.dirty.lock().extend(failed.drain(..));
                }
            }
        }
    }
}
