//! What a cluster does by itself once its controllers run: objects go with their owners, and namespaces with what
//! is in them. Nothing else; there are no kubelets, and nothing is scheduled or scaled.
//!
//! One task per server. It hears of every change, and does what follows from it through the same writes that
//! clients make.

mod garbage;
mod namespaces;

use crate::resource::{Resource, Verbs};
use crate::status::Failure;
use crate::store::{Change, Key};
use crate::write::{Call, FieldValidation, Part};
use crate::{Inner, builtin};
use garbage::Garbage;
use namespaces::Namespaces;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// In whose name controllers write.
const MANAGER: &str = "kube-controller-manager";
/// After so many objects others on the same thread get a turn.
const BATCH: usize = 64;

/// Runs until `cancel`. After changes were lost that the disk did not take, all is looked at anew.
pub(crate) async fn run(server: Arc<Inner>, cancel: CancellationToken) {
    while !cancel.is_cancelled() {
        follow(&server, &cancel).await;
    }
}

async fn follow(server: &Inner, cancel: &CancellationToken) {
    let (snapshot, mut changes) = server.store.observe();
    let mut work = Work { server, garbage: Garbage::default(), namespaces: Namespaces::default() };
    for stored in snapshot.range("", None) {
        work.hear(&Change { revision: stored.revision, before: None, after: Some(stored.clone()) });
    }
    drop(snapshot);
    loop {
        while work.step() {
            tokio::task::yield_now().await;
            if cancel.is_cancelled() {
                return;
            }
            while let Ok(change) = changes.try_recv() {
                work.hear(&change);
            }
        }
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            change = changes.recv() => match change {
                Some(change) => work.hear(&change),
                // The store has let go of us: it wants us to begin again.
                None => return,
            },
        }
    }
}

struct Work<'a> {
    server: &'a Inner,
    garbage: Garbage,
    namespaces: Namespaces,
}

impl Work<'_> {
    fn hear(&mut self, change: &Change) {
        self.garbage.hear(self.server, change);
        self.namespaces.hear(change);
    }

    /// Does some of what is to be done; false if there was nothing.
    fn step(&mut self) -> bool {
        let mut busy = false;
        for _ in 0..BATCH {
            // Both get a turn.
            let collected = self.garbage.step(self.server);
            if !(self.namespaces.step(self.server) || collected) {
                break;
            }
            busy = true;
        }
        busy
    }
}

/// The resource in whose storage an object is kept, in any version that is served.
fn resource_of(server: &Inner, storage: &str) -> Option<Arc<Resource>> {
    let here = |resource: &&Arc<Resource>| resource.storage.as_ref() == storage;
    let built_in = builtin::RESOURCES.values().find(here).cloned();
    built_in.or_else(|| server.registry().resources().find(here).cloned())
}

/// The resource of a kind, in any version that is served.
fn resource_of_kind(server: &Inner, group: &str, kind: &str) -> Option<Arc<Resource>> {
    let named = |resource: &&Arc<Resource>| {
        resource.group == group && resource.kind == kind && resource.verbs == Verbs::All
    };
    let built_in = builtin::RESOURCES.values().find(named).cloned();
    built_in.or_else(|| server.registry().resources().find(named).cloned())
}

/// A write of a controller.
fn call<'a>(server: &'a Inner, resource: &'a Arc<Resource>, key: &'a Key, part: Part) -> Call<'a> {
    Call {
        server,
        resource,
        namespace: key.namespace(),
        name: key.name(),
        part,
        dry_run: false,
        validation: FieldValidation::Ignore,
        manager: Some(MANAGER.to_owned()),
        subresource: match part {
            Part::Whole => "",
            Part::Status => "status",
            Part::Finalize => "finalize",
        },
    }
}

/// Tells of a write that did not succeed. That the object is gone or another one by now is no failure: then a
/// change has told so, and what follows from it is done.
fn tell(key: &Key, failure: &Failure) {
    if failure.code != 404 && failure.code != 409 {
        tracing::warn!(object = key.path(), message = failure.message, "a controller could not write");
    }
}
