//! Names the operations that users ask for, before they are passed on.
//!
//! A message that starts an operation can be lost, repeated, or repeated by a principal that was restarted. So that the
//! operation is started once, it gets a name that is kept beside it, and whoever runs it keeps the name of the last that
//! it took.

use std::sync::Arc;
use std::time::Duration;

use tiphys_shared::kube::reconciler::Reconciler;
use tiphys_shared::model::ResourceKey;
use tiphys_shared::process::worklist::Worklist;
use tiphys_shared::protocol::ownership::{self, Decision};
use tokio_util::sync::CancellationToken;

/// How many are named at once.
const WORKERS: usize = 8;
/// Pause before what failed is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Applications whose operation has no name yet.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    unnamed: Worklist<ResourceKey, ()>,
}

impl Requests {
    /// The operation of this Application gets a name, soon. The watch tells of it.
    pub(crate) fn name(&self, key: ResourceKey) {
        self.unnamed.mark(key, ());
    }

    /// Names operations until cancelled.
    pub(crate) async fn run(&self, reconciler: Arc<Reconciler>, cancel: CancellationToken) {
        let reconciler = &reconciler;
        let work = |key: ResourceKey, ()| async move {
            let unique = tiphys_shared::model::event::unique();
            // The watch shall tell of it: what it tells is what is passed on.
            let named = reconciler
                .act_unseen(&key, |existing| {
                    existing.map_or(Decision::Nothing, |it| ownership::name_operation(it, &unique))
                })
                .await;
            if let Err(error) = &named {
                tracing::warn!(%key, %error, "an operation could not be named; trying again");
            }
            named.is_ok()
        };
        self.unnamed.run(WORKERS, PAUSE, cancel, work).await;
    }
}
