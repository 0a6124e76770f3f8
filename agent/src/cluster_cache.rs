//! Tells the control plane what is on this cluster, as this cluster's Argo CD has counted it.

use std::sync::Arc;
use std::time::Duration;

use tiphys_shared::model::argocd::IN_CLUSTER_SERVER;
use tiphys_shared::model::cluster::{ClusterInfo, Compression, Counts};
use tiphys_shared::redis::{self, Redis};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::outbound::Outbound;

/// Where to look, and how often.
#[derive(Clone, Debug)]
pub struct ClusterCacheConfig {
    /// The Redis of this cluster's Argo CD.
    pub redis: redis::Config,
    /// Pause between two looks.
    pub interval: Duration,
}

/// Tells the figures whenever there is a new stream, and when they change, until cancelled.
pub(crate) async fn run(
    config: ClusterCacheConfig,
    outbound: Arc<Outbound>,
    mut connected: watch::Receiver<bool>,
    cancel: CancellationToken,
) {
    let key = ClusterInfo::key(IN_CLUSTER_SERVER, Compression::Gzip);
    let mut redis = Redis::new(config.redis);
    let mut told = None;
    loop {
        let pause = if *connected.borrow_and_update() {
            let found = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                found = look(&mut redis, &key) => found,
            };
            match found {
                Ok(counts) => {
                    if let Some(counts) = counts.filter(|counts| told != Some(*counts)) {
                        outbound.report_counts(counts);
                        told = Some(counts);
                    }
                    Some(config.interval)
                }
                Err(_) => Some(redis.pause().max(config.interval)),
            }
        } else {
            None
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            changed = connected.changed() => match changed {
                // The principal of a new stream may know nothing yet.
                Ok(()) => told = None,
                Err(_) => return,
            },
            () = async { tokio::time::sleep(pause.unwrap_or_default()).await }, if pause.is_some() => {}
        }
    }
}

async fn look(redis: &mut Redis, key: &str) -> Result<Option<Counts>, redis::Error> {
    let Some(entry) = redis.get(key).await? else { return Ok(None) };
    match ClusterInfo::decode(&entry, Compression::Gzip) {
        Ok(info) => Ok(Some(info.counts())),
        Err(error) => {
            tracing::debug!(key, %error, "what argocd keeps of this cluster cannot be read");
            Ok(None)
        }
    }
}
