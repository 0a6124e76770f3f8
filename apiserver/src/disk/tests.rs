#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use super::*;
use crate::store::{Store, Window, Write};
use proptest::prelude::*;
use redb::StorageBackend;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// A disk on which faults can be called up.
#[derive(Debug, Default)]
pub(crate) struct Platter {
    bytes: Mutex<Vec<u8>>,
    /// What every write is answered with.
    fault: Mutex<Option<ErrorKind>>,
    syncs: AtomicUsize,
    /// Is it closed, and how many wait before it?
    gate: Mutex<(bool, usize)>,
    moved: Condvar,
}

impl Platter {
    pub(crate) fn fail(&self, fault: Option<ErrorKind>) {
        *self.fault.lock().unwrap() = fault;
    }

    pub(crate) fn syncs(&self) -> usize {
        self.syncs.load(Ordering::SeqCst)
    }

    /// From now on nothing gets onto the disk.
    pub(crate) fn close_gate(&self) {
        self.gate.lock().unwrap().0 = true;
    }

    pub(crate) fn open_gate(&self) {
        self.gate.lock().unwrap().0 = false;
        self.moved.notify_all();
    }

    /// Returns when somebody waits before the closed gate.
    pub(crate) fn wait_for_writer(&self) {
        let mut gate = self.gate.lock().unwrap();
        while gate.1 == 0 {
            gate = self.moved.wait(gate).unwrap();
        }
    }

    /// Opens what is on it.
    pub(crate) fn open(self: &Arc<Self>) -> Result<(Disk, Loaded), Error> {
        let platter = self.clone();
        let reopen = move || builder().create_with_backend(Head(platter.clone()));
        let path = Path::new("platter");
        let is_new = self.bytes.lock().unwrap().is_empty();
        let database = reopen().map_err(|error| unusable(path, error))?;
        if is_new {
            begin(&database).unwrap();
        }
        Disk::over(path, database, Box::new(reopen))
    }
}

#[derive(Debug)]
struct Head(Arc<Platter>);

impl Head {
    fn check(&self) -> io::Result<()> {
        self.0.fault.lock().unwrap().map_or(Ok(()), |kind| Err(kind.into()))
    }
}

impl StorageBackend for Head {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.bytes.lock().unwrap();
        let from = offset as usize;
        out.copy_from_slice(bytes.get(from..from + out.len()).ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.0.bytes.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        let mut gate = self.0.gate.lock().unwrap();
        gate.1 += 1;
        self.0.moved.notify_all();
        while gate.0 {
            gate = self.0.moved.wait(gate).unwrap();
        }
        gate.1 -= 1;
        self.0.syncs.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        let from = offset as usize;
        self.0.bytes.lock().unwrap()[from..from + data.len()].copy_from_slice(data);
        Ok(())
    }
}

const WINDOW: Window = Window { changes: 100, bytes: usize::MAX };

/// Whole objects by path, with their revisions.
type Objects = BTreeMap<String, (u64, Value)>;

fn loaded(path: &Path) -> (u64, Objects) {
    let (_disk, loaded) = Disk::open(path).unwrap();
    let object =
        |stored: Stored| (stored.key.path().to_owned(), (stored.revision, stored.content.to_whole(None)));
    (loaded.revision, loaded.objects.into_iter().map(object).collect())
}

fn key(name: u8) -> Key {
    match name % 3 {
        0 => Key::new("/namespaces", "", &format!("n{name}")),
        1 => Key::new("/configmaps", "a", &format!("n{name}")),
        _ => Key::new("argoproj.io/applications", "a-b", &format!("n{name}")),
    }
}

fn content(name: u8, step: usize) -> Content {
    let object = json!({
        "metadata": {"name": format!("n{name}"), "uid": format!("u{step}"), "labels": {"step": step.to_string()}},
        "spec": {"text": "ü\u{0}\"", "number": 1.5, "none": null},
    });
    let managers = json!([{
        "manager": "kubectl", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:spec": {"f:text": {}}},
    }]);
    let managed =
        if step.is_multiple_of(2) { Managed::given(&managers).unwrap() } else { Managed::default() };
    Content::from_value(&object).managed_by(managed)
}

/// What to do with one of a few objects, and whether the file is closed and opened afterwards.
fn steps() -> impl Strategy<Value = Vec<(u8, bool, bool)>> {
    proptest::collection::vec((0..6u8, proptest::bool::weighted(0.7), proptest::bool::weighted(0.1)), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_was_settled_is_there_again(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let open = || {
            let (disk, loaded) = Disk::open(&path).unwrap();
            Store::kept(WINDOW, disk, loaded, || panic!("nothing is lost")).unwrap()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut store = open();
        let mut expected = Objects::new();
        for (number, (name, put, again)) in steps.into_iter().enumerate() {
            let key = key(name);
            let present = expected.get(key.path()).map(|(revision, _)| *revision);
            let write = match put {
                true => Write::Put(content(name, number)),
                false if present.is_some() => Write::Remove,
                false => continue,
            };
            let ticket = store.ticket();
            let change = store.commit(&key, present, write).unwrap();
            match change.after {
                Some(after) => expected.insert(key.path().to_owned(), (after.revision, after.content.to_whole(None))),
                None => expected.remove(key.path()),
            };
            if again {
                runtime.block_on(store.settled(ticket)).unwrap();
                prop_assert_eq!(store.revision(), change.revision);
                drop(store);
                prop_assert_eq!(loaded(&path), (change.revision, expected.clone()));
                store = open();
                prop_assert_eq!(store.revision(), change.revision);
            }
        }
        let last = store.newest().revision;
        // Whoever closes it waits for what is staged.
        drop(store);
        prop_assert_eq!(loaded(&path), (last, expected));
    }
}

#[test]
fn one_file_has_one_user() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let first = Disk::open(&path).unwrap();
    assert!(matches!(Disk::open(&path), Err(Error::InUse { .. })));
    drop(first);
    Disk::open(&path).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "there are secrets in it");
}

#[test]
fn what_a_beginning_left_that_was_cut_off_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    fs::write(folder.path().join("state.creating"), [0; 5000]).unwrap();
    Disk::open(&path).unwrap();
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["state"]);
}

fn refused(path: &Path) -> Error {
    let before = fs::read(path).unwrap();
    let Err(error) = Disk::open(path) else { panic!("it was taken") };
    assert!(before == fs::read(path).unwrap(), "it is not touched: {error}");
    error
}

#[test]
fn a_file_of_somebody_else_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    for bytes in [&b""[..], b"x", b"SQLite format 3\0 and more of it", &[0; 8192]] {
        fs::write(&path, bytes).unwrap();
        assert!(matches!(refused(&path), Error::Foreign { .. }), "{bytes:?}");
    }
    fs::remove_file(&path).unwrap();
    let other = Database::create(&path).unwrap();
    let transaction = other.begin_write().unwrap();
    transaction.open_table(TableDefinition::<u8, u8>::new("theirs")).unwrap();
    transaction.commit().unwrap();
    drop(other);
    let Err(Error::Foreign { why, .. }) = Disk::open(&path) else { panic!("it was taken") };
    assert!(why.contains("facts"), "{why}");
}

#[test]
fn a_newer_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    drop(Disk::open(&path).unwrap());
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(FACTS).unwrap().insert(FORMAT_FACT, FORMAT + 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(matches!(Disk::open(&path), Err(Error::Newer { format, .. }) if format == FORMAT + 1));
}

#[test]
fn a_damaged_object_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    drop(Disk::open(&path).unwrap());
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let row = ("", "secrets", "argocd", "half");
    transaction.open_table(OBJECTS).unwrap().insert(row, (1, &b"{\"metadata\":"[..])).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let Err(Error::Damaged { why, .. }) = Disk::open(&path) else { panic!("it was taken") };
    assert_eq!(why, "/secrets argocd/half is not an object");
}

#[test]
fn flipped_bits_and_a_lost_end_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let (disk, empty) = Disk::open(&path).unwrap();
    let store = Store::kept(WINDOW, disk, empty, || {}).unwrap();
    for name in 0..200 {
        store
            .commit(&Key::new("/configmaps", "a", &format!("n{name}")), None, Write::Put(content(0, 0)))
            .unwrap();
    }
    drop(store);
    let whole = fs::read(&path).unwrap();
    let text = whole.windows(9).position(|window| window == b"\"labels\":").unwrap();
    let mut flipped = whole.clone();
    flipped[text + 2] ^= 0x20;
    fs::write(&path, flipped).unwrap();
    assert!(matches!(Disk::open(&path), Err(Error::Damaged { .. })));
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(Disk::open(&path).is_err());
    fs::write(&path, &whole).unwrap();
    assert_eq!(loaded(&path).1.len(), 200);
}
