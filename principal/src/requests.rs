//! Names the operations that users ask for, before they are passed on.
//!
//! A message that starts an operation can be lost, repeated, or repeated by a principal that was restarted. So that the
//! operation is started once, it gets a name that is kept beside it, and whoever runs it keeps the name of the last that
//! it took.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use parking_lot::Mutex;
use tiphys_shared::kube::reconciler::Reconciler;
use tiphys_shared::model::ResourceKey;
use tiphys_shared::protocol::ownership::{self, Decision};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How many are named at once.
const WORKERS: usize = 8;
/// Pause before what failed is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Applications whose operation has no name yet.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    unnamed: Mutex<BTreeSet<ResourceKey>>,
    marked: Notify,
}

impl Requests {
    /// The operation of this Application gets a name, soon. The watch tells of it.
    pub(crate) fn name(&self, key: ResourceKey) {
        self.unnamed.lock().insert(key);
        self.marked.notify_one();
    }

    /// Names operations until cancelled.
    pub(crate) async fn run(&self, reconciler: Arc<Reconciler>, cancel: CancellationToken) {
        let mut running = FuturesUnordered::new();
        let mut failed = Vec::new();
        loop {
            while running.len() < WORKERS {
                let Some(key) = self.unnamed.lock().pop_first() else { break };
                let reconciler = Arc::clone(&reconciler);
                running.push(async move {
                    let unique = tiphys_shared::model::event::unique();
                    // The watch shall tell of it: what it tells is what is passed on.
                    let named = reconciler
                        .act_unseen(&key, |existing| {
                            existing.map_or(Decision::Nothing, |it| ownership::name_operation(it, &unique))
                        })
                        .await;
                    (named, key)
                });
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                Some((named, key)) = running.next(), if !running.is_empty() => if let Err(error) = named {
                    tracing::warn!(%key, %error, "an operation could not be named; trying again");
                    failed.push(key);
                },
                () = self.marked.notified(), if running.len() < WORKERS => {}
                () = tokio::time::sleep(PAUSE), if !failed.is_empty() => {
                    self.unnamed.lock().extend(failed.drain(..));
                }
            }
        }
    }
}
