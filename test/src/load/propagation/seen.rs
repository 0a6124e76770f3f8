//! What a watch has shown, and when.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, bail};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::Api;
use kube::api::{DynamicObject, ListParams, WatchEvent, WatchParams};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::load::application::Names;

/// Looks out for Applications by their names.
pub(super) struct Sightings {
    progress: Progress,
    /// One task; dropping the set ends it.
    watching: JoinSet<anyhow::Result<Vec<Instant>>>,
}

/// How many have been seen.
#[derive(Clone)]
pub(super) struct Progress {
    seen: Arc<AtomicUsize>,
    wanted: usize,
}

impl Progress {
    /// How many have been seen, of how many.
    pub(super) fn seen(&self) -> (usize, usize) {
        (self.seen.load(Ordering::Relaxed), self.wanted)
    }
}

impl Sightings {
    /// Begins to watch; when this returns, nothing that is written will be missed.
    pub(super) async fn start(api: Api<DynamicObject>, names: Names, wanted: usize) -> anyhow::Result<Self> {
        let page = api.list_metadata(&ListParams::default().limit(1)).await;
        let version = page.context("cannot list applications")?.metadata.resource_version.unwrap_or_default();
        let progress = Progress { seen: Arc::default(), wanted };
        let mut watching = JoinSet::new();
        watching.spawn(watch(api, names, version, progress.clone()));
        Ok(Self { progress, watching })
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// When each one was seen, once all have been.
    pub(super) async fn all(mut self) -> anyhow::Result<Vec<Instant>> {
        match self.watching.join_next().await {
            Some(outcome) => outcome?,
            None => bail!("nobody is watching"),
        }
    }
}

async fn watch(
    api: Api<DynamicObject>,
    names: Names,
    mut version: String,
    progress: Progress,
) -> anyhow::Result<Vec<Instant>> {
    let mut seen: Vec<Option<Instant>> = vec![None; progress.wanted];
    loop {
        let params = WatchParams::default().timeout(290);
        let mut events = api.watch(&params, &version).await.context("cannot watch applications")?.boxed();
        while let Some(event) = events.try_next().await.context("the watch broke")? {
            let at = Instant::now();
            let object = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
                    object
                }
                WatchEvent::Bookmark(bookmark) => {
                    version = bookmark.metadata.resource_version;
                    continue;
                }
                // Whatever came in between would count as seen too late: the measurement is void.
                WatchEvent::Error(status) => bail!("the watch was ended by the server: {status}"),
            };
            version = object.metadata.resource_version.unwrap_or_default();
            let name = object.metadata.name.unwrap_or_default();
            let Some(first @ None) = names.index(&name).and_then(|index| seen.get_mut(index)) else {
                continue;
            };
            *first = Some(at);
            if progress.seen.fetch_add(1, Ordering::Relaxed) + 1 == progress.wanted {
                return Ok(seen.into_iter().flatten().collect());
            }
        }
    }
}
