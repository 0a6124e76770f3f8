//! The state of a cluster: one revision counter, one ordered map, and per resource a window of past changes.
//!
//! The map is persistent (its clone is a pointer), so a reader lists without holding the lock. An older state is
//! the present one with the changes of the window undone, which is how paged lists stay consistent without
//! anybody keeping snapshots.

mod journal;

use crate::disk::{Disk, Loaded};
use crate::fields::Managed;
use bytes::Bytes;
use imbl::OrdMap;
use journal::{Journal, Staged, Step};
pub(crate) use journal::{Ticket, Trouble};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc, watch};

/// Where an object lives: `storage/namespace/name`, or `storage/name` for cluster-wide kinds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    path: Arc<str>,
    storage_end: u32,
    name_start: u32,
}

impl Key {
    pub(crate) fn new(storage: &str, namespace: &str, name: &str) -> Self {
        let mut path = String::with_capacity(storage.len() + namespace.len() + name.len() + 2);
        path.push_str(storage);
        path.push('/');
        if !namespace.is_empty() {
            path.push_str(namespace);
            path.push('/');
        }
        let name_start = path.len() as u32;
        path.push_str(name);
        Self { path: path.into(), storage_end: storage.len() as u32, name_start }
    }

    /// The whole path; its order is the order of lists.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn storage(&self) -> &str {
        &self.path[..self.storage_end as usize]
    }

    /// Empty for cluster-wide kinds.
    pub(crate) fn namespace(&self) -> &str {
        let from = self.storage_end as usize + 1;
        let to = self.name_start as usize;
        if to > from { &self.path[from..to - 1] } else { "" }
    }

    pub(crate) fn name(&self) -> &str {
        &self.path[self.name_start as usize..]
    }
}

/// One object as of one revision.
///
/// Type and resource version are not part of what is kept: they are put in front when it is sent, so the same
/// bytes serve every version of a kind and the event that tells of its deletion.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) key: Key,
    pub(crate) revision: u64,
    pub(crate) content: Content,
}

/// What is kept of an object.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    labels: BTreeMap<String, String>,
    /// What follows `"metadata":{"resourceVersion":"…","managedFields":…,` in the object's JSON.
    tail: Bytes,
    managed: Managed,
}

/// What an object starts with, for one version of a kind: `{"kind":…,"apiVersion":…,`.
pub(crate) fn type_prefix(api_version: &str, kind: &str) -> String {
    format!("{{\"kind\":{},\"apiVersion\":{},", Value::from(kind), Value::from(api_version))
}

impl Content {
    /// Takes an object apart. Type, resource version and managers are dropped.
    pub(crate) fn from_value(value: &Value) -> Self {
        let empty = Map::new();
        let object = value.as_object().unwrap_or(&empty);
        let mut tail = String::with_capacity(512);
        let mut labels = BTreeMap::new();
        if let Some(metadata) = object.get("metadata").and_then(Value::as_object) {
            let mut first = true;
            let own = |key: &str| key == "resourceVersion" || key == "managedFields";
            for (key, value) in metadata.iter().filter(|(key, _)| !own(key)) {
                if !first {
                    tail.push(',');
                }
                first = false;
                push_member(&mut tail, key, value);
            }
            if let Some(map) = metadata.get("labels").and_then(Value::as_object) {
                labels = map.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect();
            }
        }
        tail.push('}');
        for (key, value) in
            object.iter().filter(|(k, _)| !matches!(k.as_str(), "metadata" | "kind" | "apiVersion"))
        {
            tail.push(',');
            push_member(&mut tail, key, value);
        }
        tail.push('}');
        tail.shrink_to_fit();
        Self { labels, tail: Bytes::from(tail), managed: Managed::default() }
    }

    /// The same, owned by these managers.
    pub(crate) fn managed_by(mut self, managed: Managed) -> Self {
        self.managed = managed;
        self
    }

    /// Whether this word is anywhere in it.
    pub(crate) fn mentions(&self, word: &str) -> bool {
        let (first, rest) = word.as_bytes().split_first().unwrap_or((&0, &[]));
        let tail = &self.tail[..];
        let mut from = 0;
        while let Some(at) = tail.get(from..).and_then(|tail| tail.iter().position(|byte| byte == first)) {
            from += at + 1;
            if tail.get(from..).is_some_and(|tail| tail.starts_with(rest)) {
                return true;
            }
        }
        false
    }

    pub(crate) fn managed(&self) -> &Managed {
        &self.managed
    }

    pub(crate) fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// Writes the whole object. `prefix` comes from [`type_prefix`], or is `{` to leave the type out.
    pub(crate) fn write(&self, out: &mut Vec<u8>, prefix: &str, revision: Option<u64>) {
        self.write_with(out, prefix, revision, &self.managed);
    }

    fn write_with(&self, out: &mut Vec<u8>, prefix: &str, revision: Option<u64>, managed: &Managed) {
        out.reserve(prefix.len() + self.tail.len() + 64);
        out.extend_from_slice(prefix.as_bytes());
        out.extend_from_slice(b"\"metadata\":{");
        if let Some(revision) = revision {
            out.extend_from_slice(b"\"resourceVersion\":\"");
            out.extend_from_slice(revision.to_string().as_bytes());
            out.extend_from_slice(b"\",");
        }
        managed.write(out);
        if self.tail.first() == Some(&b'}') && out.last() == Some(&b',') {
            out.pop();
        }
        out.extend_from_slice(&self.tail);
    }

    /// The object without its type and its managers; what was written by `from_value` always parses.
    pub(crate) fn to_value(&self, revision: Option<u64>) -> Value {
        let mut text = Vec::new();
        self.write_with(&mut text, "{", revision, &Managed::default());
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// The object without its type.
    pub(crate) fn to_whole(&self, revision: Option<u64>) -> Value {
        let mut value = self.to_value(revision);
        if !self.managed.is_empty() {
            value["metadata"]["managedFields"] = self.managed.to_value();
        }
        value
    }

    /// Bytes kept for it, roughly.
    pub(crate) fn len(&self) -> usize {
        self.tail.len() + self.managed.len()
    }
}

fn push_member(out: &mut String, key: &str, value: &Value) {
    use std::fmt::Write;
    // Writing to a string cannot fail.
    let _ = write!(out, "{}:{}", Value::from(key), value);
}

impl Stored {
    pub(crate) fn to_value(&self) -> Value {
        self.content.to_value(Some(self.revision))
    }
}

/// One step of the history of one resource.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) before: Option<Arc<Stored>>,
    pub(crate) after: Option<Arc<Stored>>,
}

impl Change {
    fn size(&self) -> usize {
        self.after.as_ref().map_or(0, |stored| stored.content.len())
    }

    fn key(&self) -> Option<&Key> {
        self.after.as_ref().or(self.before.as_ref()).map(|s| &s.key)
    }
}

struct Ring {
    changes: VecDeque<Change>,
    /// Bytes of the objects in it.
    size: usize,
    /// Changes up to and including this revision are forgotten.
    floor: u64,
    /// Rises when everything that watches has to end.
    epoch: u64,
    /// Wakes in the order in which they wait: whoever repeats a run with the same seed finds the same order again.
    notify: Arc<Notify>,
}

impl Ring {
    fn new(floor: u64) -> Self {
        Self { changes: VecDeque::new(), size: 0, floor, epoch: 0, notify: Arc::default() }
    }

    /// Takes in a change, and forgets the oldest ones beyond the window.
    fn push(&mut self, change: Change, window: Window) {
        self.size += change.size();
        self.changes.push_back(change);
        while self.changes.len() > window.changes
            || (self.size > window.bytes && self.changes.len() > FEWEST_CHANGES.min(window.changes))
        {
            let Some(oldest) = self.changes.pop_front() else { return };
            self.size -= oldest.size();
            self.floor = oldest.revision;
        }
        self.notify.notify_waiters();
    }
}

/// What to do with an object.
pub(crate) enum Write {
    Put(Content),
    Remove,
}

/// The state that a write was made from is no longer the present one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Clash;

type Objects = OrdMap<Arc<str>, Arc<Stored>>;

/// A consistent view at one revision.
pub(crate) struct Snapshot {
    pub(crate) revision: u64,
    objects: Objects,
}

impl Snapshot {
    /// Objects whose path starts with `prefix`, in order, from `start` on.
    pub(crate) fn range<'a>(
        &'a self,
        prefix: &'a str,
        start: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Arc<Stored>> + 'a {
        let from = start.filter(|s| *s > prefix).unwrap_or(prefix);
        self.objects
            .range::<_, str>((Bound::Included(from), Bound::Unbounded))
            .map(|(_, stored)| stored)
            .take_while(move |stored| stored.key.path().starts_with(prefix))
    }
}

/// Why a revision cannot be served.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OutOfRange {
    /// Forgotten; the oldest still known is given.
    Old { oldest: u64 },
    /// Not yet there; the present one is given.
    Future { current: u64 },
}

/// What a watcher finds when it looks.
pub(crate) enum Pull {
    /// Changes after its position, and the revision up to which it then has seen everything.
    Changes(Vec<Change>, u64),
    Expired {
        oldest: u64,
    },
    /// The resource is gone as such.
    Closed,
}

struct State {
    revision: u64,
    objects: Objects,
    rings: BTreeMap<Box<str>, Ring>,
    /// Floor of rings that do not exist yet.
    floor: u64,
    /// Who is told of every change.
    observers: Vec<mpsc::UnboundedSender<Change>>,
    /// What is ahead of this, in a store that is kept on disk.
    staged: Option<Box<Staged>>,
}

impl State {
    fn new(revision: u64) -> Self {
        let revision = revision.max(1);
        Self {
            revision,
            objects: OrdMap::new(),
            rings: BTreeMap::new(),
            floor: if revision > 1 { revision } else { 0 },
            observers: Vec::new(),
            staged: None,
        }
    }

    /// Lets watchers and observers see a change.
    fn tell(&mut self, change: Change, window: Window) {
        let Some(storage) = change.key().map(Key::storage) else { return };
        if !self.rings.contains_key(storage) {
            self.rings.insert(storage.into(), Ring::new(self.floor));
        }
        if let Some(ring) = self.rings.get_mut(storage) {
            ring.push(change.clone(), window);
        }
        self.observers.retain(|observer| observer.send(change.clone()).is_ok());
    }

    fn close(&mut self, storage: &str) {
        if let Some(ring) = self.rings.get_mut(storage) {
            ring.epoch += 1;
            ring.notify.notify_waiters();
        }
    }
}

/// How much of the past of each resource is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) changes: usize,
    /// Beyond this many bytes of objects, only the last few changes are kept.
    pub(crate) bytes: usize,
}

impl Window {
    fn at_least_one(self) -> Self {
        Self { changes: self.changes.max(1), ..self }
    }
}

/// Changes that are kept however large they are.
const FEWEST_CHANGES: usize = 16;

/// The store. Every operation is short and takes one lock.
pub(crate) struct Store {
    window: Window,
    state: Arc<Mutex<State>>,
    journal: Option<Journal>,
}

impl Store {
    /// An empty store whose next change gets a revision above `revision`.
    pub(crate) fn new(window: Window, revision: u64) -> Self {
        let state = Arc::new(Mutex::new(State::new(revision)));
        Self { window: window.at_least_one(), state, journal: None }
    }

    /// A store that is kept on disk. `on_loss` is called after changes were dropped that the disk did not take.
    pub(crate) fn kept(
        window: Window,
        disk: Disk,
        loaded: Loaded,
        on_loss: impl Fn() + Send + 'static,
    ) -> std::io::Result<Self> {
        let window = window.at_least_one();
        let state = Arc::new(Mutex::new(State::loaded(loaded.revision, loaded.objects.into_iter())));
        let journal = Some(Journal::start(state.clone(), window, disk, on_loss)?);
        Ok(Self { window, state, journal })
    }

    pub(crate) fn revision(&self) -> u64 {
        self.state.lock().revision
    }

    /// An object as everybody may see it.
    pub(crate) fn read(&self, key: &Key) -> Option<Arc<Stored>> {
        self.state.lock().objects.get(key.path()).cloned()
    }

    /// An object as writers have to see it, who learn with [`Store::settled`] whether it may be told.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Stored>> {
        let state = self.state.lock();
        state.staged.as_ref().map_or(&state.objects, |staged| &staged.objects).get(key.path()).cloned()
    }

    /// Everything as writers have to see it.
    pub(crate) fn newest(&self) -> Snapshot {
        let state = self.state.lock();
        match &state.staged {
            None => Snapshot { revision: state.revision, objects: state.objects.clone() },
            Some(staged) => Snapshot { revision: staged.revision, objects: staged.objects.clone() },
        }
    }

    /// To be taken before something is written that is to be [`Store::settled`]. None if nothing is kept on disk.
    pub(crate) fn ticket(&self) -> Option<Ticket> {
        self.journal.as_ref().map(Journal::ticket)
    }

    /// Waits until everything is on disk that has been committed by now.
    ///
    /// # Errors
    /// Why changes were dropped since the ticket was taken.
    pub(crate) async fn settled(&self, since: Option<Ticket>) -> Result<(), Trouble> {
        match (&self.journal, since) {
            (Some(journal), Some(since)) => journal.settled(since).await,
            _ => Ok(()),
        }
    }

    /// Marked as changed whenever something got onto the disk or did not.
    pub(crate) fn decisions(&self) -> Option<watch::Receiver<()>> {
        self.journal.as_ref().map(Journal::decisions)
    }

    /// Why nothing can be written at the moment.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.journal.as_ref()?.trouble()
    }

    /// Puts or removes an object if its present revision is `expected` (`None`: it is not there).
    pub(crate) fn commit(&self, key: &Key, expected: Option<u64>, write: Write) -> Result<Change, Clash> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(staged) = &mut state.staged else {
            let change = put(&mut state.objects, &mut state.revision, key, expected, write)?;
            state.tell(change.clone(), self.window);
            return Ok(change);
        };
        let change = put(&mut staged.objects, &mut staged.revision, key, expected, write)?;
        staged.steps.push(Step::Change(change.clone()));
        self.wake();
        Ok(change)
    }

    fn wake(&self) {
        if let Some(journal) = &self.journal {
            journal.wake();
        }
    }

    /// The present state, and every change from here on.
    pub(crate) fn observe(&self) -> (Snapshot, mpsc::UnboundedReceiver<Change>) {
        let (sender, changes) = mpsc::unbounded_channel();
        let mut state = self.state.lock();
        state.observers.push(sender);
        (Snapshot { revision: state.revision, objects: state.objects.clone() }, changes)
    }

    /// The present state, or that of an earlier revision as far as `storage` is concerned.
    pub(crate) fn snapshot(&self, storage: &str, at: Option<u64>) -> Result<Snapshot, OutOfRange> {
        let state = self.state.lock();
        let mut objects = state.objects.clone();
        let Some(at) = at else { return Ok(Snapshot { revision: state.revision, objects }) };
        if at > state.revision {
            return Err(OutOfRange::Future { current: state.revision });
        }
        let Some(ring) = state.rings.get(storage) else {
            if at < state.floor {
                return Err(OutOfRange::Old { oldest: state.floor });
            }
            return Ok(Snapshot { revision: at, objects });
        };
        if at < ring.floor {
            return Err(OutOfRange::Old { oldest: ring.floor });
        }
        let undo: Vec<Change> = ring.changes.iter().rev().take_while(|c| c.revision > at).cloned().collect();
        drop(state);
        for change in undo {
            match (&change.before, change.key()) {
                (Some(before), _) => {
                    objects.insert(before.key.path.clone(), before.clone());
                }
                (None, Some(key)) => {
                    objects.remove(key.path());
                }
                (None, None) => {}
            }
        }
        Ok(Snapshot { revision: at, objects })
    }

    /// A signal for changes of `storage`, with the epoch in which it is taken.
    pub(crate) fn subscribe(&self, storage: &str) -> (Arc<Notify>, u64) {
        let mut state = self.state.lock();
        let floor = state.floor;
        let ring = state.rings.entry(storage.into()).or_insert_with(|| Ring::new(floor));
        (Arc::clone(&ring.notify), ring.epoch)
    }

    /// At most `limit` changes of `storage` after `position`.
    pub(crate) fn changes_after(&self, storage: &str, position: u64, epoch: u64, limit: usize) -> Pull {
        let state = self.state.lock();
        let Some(ring) = state.rings.get(storage) else {
            return Pull::Changes(Vec::new(), state.revision.max(position));
        };
        if position < ring.floor {
            return Pull::Expired { oldest: ring.floor };
        }
        let from = ring.changes.partition_point(|c| c.revision <= position);
        let changes: Vec<Change> = ring.changes.range(from..).take(limit).cloned().collect();
        if changes.is_empty() && ring.epoch != epoch {
            return Pull::Closed;
        }
        let seen = match changes.last() {
            Some(last) if from + changes.len() < ring.changes.len() => last.revision,
            _ => state.revision.max(position),
        };
        Pull::Changes(changes, seen)
    }

    /// Ends everything that watches `storage`, after it has seen what happened up to now.
    pub(crate) fn close(&self, storage: &str) {
        let mut state = self.state.lock();
        match &mut state.staged {
            None => state.close(storage),
            Some(staged) => {
                staged.steps.push(Step::Close(storage.into()));
                self.wake();
            }
        }
    }

    /// Forgets the history of `storage`, as if the window had passed over it.
    pub(crate) fn compact(&self, storage: Option<&str>) {
        let mut state = self.state.lock();
        let revision = state.revision;
        if storage.is_none() {
            state.floor = revision;
        }
        for (_, ring) in state.rings.iter_mut().filter(|(name, _)| storage.is_none_or(|s| s == name.as_ref()))
        {
            ring.changes.clear();
            ring.size = 0;
            ring.floor = revision;
        }
    }
}

fn put(
    objects: &mut Objects,
    revision: &mut u64,
    key: &Key,
    expected: Option<u64>,
    write: Write,
) -> Result<Change, Clash> {
    let before = objects.get(key.path()).cloned();
    if before.as_ref().map(|b| b.revision) != expected {
        return Err(Clash);
    }
    *revision += 1;
    let revision = *revision;
    let after = match write {
        Write::Put(content) => {
            // The key of the first revision is kept, so all revisions share its text.
            let key = before.as_ref().map_or_else(|| key.clone(), |b| b.key.clone());
            let stored = Arc::new(Stored { key, revision, content });
            objects.insert(stored.key.path.clone(), stored.clone());
            Some(stored)
        }
        Write::Remove => {
            objects.remove(key.path());
            None
        }
    };
    Ok(Change { revision, before, after })
}
