//! Watching: a watcher remembers a revision and looks into the store's window when told that something changed.
//!
//! Nothing is queued for a watcher, so a slow one costs nothing; one that falls out of the window is told so.

use crate::Inner;
use crate::resource::Resource;
use crate::selector::Filter;
use crate::serve::present::{Form, Presenter};
use crate::status::Failure;
use crate::store::{Change, Content, Pull, Stored};
use bytes::Bytes;
use futures::Stream;
use serde_json::json;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How often a quiet watch is told how far it has come.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// Changes taken from the window at a time.
const BATCH: usize = 128;
/// Events are joined to chunks of about this size.
const CHUNK: usize = 64 * 1024;

/// A type of event, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Added,
    Modified,
    Deleted,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// What to watch.
pub(crate) struct Watch {
    pub(crate) server: Arc<Inner>,
    pub(crate) resource: Arc<Resource>,
    /// Only objects whose path starts so.
    pub(crate) prefix: String,
    pub(crate) filter: Filter,
    /// Objects to tell of at first, as added.
    pub(crate) initial: VecDeque<Arc<Stored>>,
    /// Whether the end of these is marked.
    pub(crate) mark_initial: bool,
    /// The revision after which changes are told.
    pub(crate) position: u64,
    pub(crate) bookmarks: bool,
    pub(crate) timeout: Duration,
    pub(crate) form: Form,
    /// Ends the watch from outside.
    pub(crate) shutdown: CancellationToken,
}

/// What a change means for somebody who sees only what `filter` lets through.
pub(crate) fn transition<'a>(change: &'a Change, filter: &Filter) -> Option<(Kind, &'a Content)> {
    let before = change.before.as_ref().filter(|s| filter.matches(s));
    let after = change.after.as_ref().filter(|s| filter.matches(s));
    match (before, after) {
        (None, Some(after)) => Some((Kind::Added, &after.content)),
        (Some(_), Some(after)) => Some((Kind::Modified, &after.content)),
        (Some(before), None) => Some((Kind::Deleted, &before.content)),
        (None, None) => None,
    }
}

struct Cursor {
    watch: Watch,
    presenter: Presenter,
    signal: Arc<Notify>,
    epoch: u64,
    deadline: Instant,
    next_bookmark: Instant,
    ended: bool,
}

/// The events as lines of JSON, several to a chunk if they come together.
pub(crate) fn stream(watch: Watch) -> impl Stream<Item = Bytes> + Send {
    let (signal, epoch) = watch.server.store.subscribe(&watch.resource.storage);
    let now = Instant::now();
    let presenter = Presenter::new(watch.resource.clone(), watch.form, watch.server.now().as_second());
    let cursor = Cursor {
        deadline: now + watch.timeout,
        next_bookmark: now + BOOKMARK_PERIOD,
        ended: false,
        watch,
        presenter,
        signal,
        epoch,
    };
    futures::stream::unfold(cursor, |mut cursor| async move {
        let chunk = cursor.next().await?;
        Some((chunk, cursor))
    })
}

impl Cursor {
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut out = Vec::new();
        self.presenter.set_now(self.watch.server.now().as_second());
        while let Some(stored) = self.watch.initial.pop_front() {
            self.presenter.event(&mut out, Kind::Added.word(), &stored.content, stored.revision);
            if out.len() >= CHUNK {
                return Some(out.into());
            }
        }
        if std::mem::take(&mut self.watch.mark_initial) {
            self.bookmark(&mut out, true);
        }
        let signal = Arc::clone(&self.signal);
        loop {
            // What happens from here on is not missed.
            let changed = signal.notified();
            let storage = &self.watch.resource.storage;
            match self.watch.server.store.changes_after(storage, self.watch.position, self.epoch, BATCH) {
                Pull::Changes(changes, seen) => {
                    self.presenter.set_now(self.watch.server.now().as_second());
                    let more = !changes.is_empty();
                    self.watch.position = seen;
                    for change in &changes {
                        self.tell(change, &mut out);
                    }
                    if more && out.len() < CHUNK {
                        continue;
                    }
                }
                Pull::Expired { oldest } => {
                    self.ended = true;
                    let failure = Failure::expired(self.watch.position, oldest);
                    self.presenter.error(&mut out, &failure);
                    return Some(out.into());
                }
                Pull::Closed => {
                    self.ended = true;
                    return (!out.is_empty()).then(|| out.into());
                }
            }
            if !out.is_empty() {
                return Some(out.into());
            }
            tokio::select! {
                biased;
                () = self.watch.shutdown.cancelled() => {
                    self.ended = true;
                    return None;
                }
                () = changed => {}
                () = sleep_until(self.deadline) => {
                    self.ended = true;
                    self.bookmark(&mut out, false);
                    return (!out.is_empty()).then(|| out.into());
                }
                () = sleep_until(self.next_bookmark), if self.watch.bookmarks => {
                    self.next_bookmark = Instant::now() + BOOKMARK_PERIOD;
                    self.bookmark(&mut out, false);
                }
            }
        }
    }

    fn tell(&mut self, change: &Change, out: &mut Vec<u8>) {
        let key = change.after.as_ref().or(change.before.as_ref()).map(|s| &s.key);
        if !key.is_some_and(|key| key.path().starts_with(&self.watch.prefix)) {
            return;
        }
        if let Some((kind, content)) = transition(change, &self.watch.filter) {
            self.presenter.event(out, kind.word(), content, change.revision);
        }
    }

    fn bookmark(&mut self, out: &mut Vec<u8>, initial_end: bool) {
        if !self.watch.bookmarks {
            return;
        }
        let resource = &self.watch.resource;
        let mut metadata = json!({
            "resourceVersion": self.watch.position.to_string(),
            "creationTimestamp": null,
        });
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = json!({
            "kind": resource.kind,
            "apiVersion": resource.api_version(),
            "metadata": metadata,
        });
        self.presenter.bookmark(out, &object);
    }
}
