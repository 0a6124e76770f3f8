//! One file that keeps what a server has: objects by (group, resource, namespace, name), and how far it has come.
//!
//! A batch of changes is one transaction; once it is committed it is on disk, whatever happens to the process or to
//! the machine. The file says which format it has, and nobody else can have it open.

use crate::fields::Managed;
use crate::store::{Change, Content, Key, Stored};
use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition};
use serde_json::Value;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// (group, resource, namespace, name) to revision and JSON, without kind and version.
const OBJECTS: TableDefinition<'static, ObjectKey<'static>, (u64, &'static [u8])> =
    TableDefinition::new("objects");
/// [`FORMAT`] and the revision of the latest change.
const FACTS: TableDefinition<'static, &'static str, u64> = TableDefinition::new("facts");
const FORMAT_FACT: &str = "format";
const REVISION_FACT: &str = "revision";
/// What the tables mean. Raised when an older program could not read them any more.
const FORMAT: u64 = 1;
/// All of it is in memory already: the pages of a batch or two are enough.
const CACHE: usize = 8 * 1024 * 1024;

type ObjectKey<'a> = (&'a str, &'a str, &'a str, &'a str);
/// Opens the file again after writing to it has failed.
type Reopen = Box<dyn Fn() -> Result<Database, DatabaseError> + Send>;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process, or another server of this one, has it.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is something else. It is left as it is.
    #[error("{} was not written by tiphys: {why}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It is damaged. It is left as it is.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// It comes from a newer program.
    #[error("{} has format {format}, and this program knows formats up to {FORMAT}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u64,
    },
    /// The system refuses.
    #[error("cannot open {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Why a batch is not on disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// There is no room for it.
    #[error("{} cannot grow: {source}", path.display())]
    Full { path: PathBuf, source: io::Error },
    /// Nobody can tell what is on disk now: only a restart, which reads it anew, helps.
    #[error("{} cannot be written to until a restart: {why}", path.display())]
    Lost { path: PathBuf, why: String },
}

/// What was found in a file.
pub(crate) struct Loaded {
    pub(crate) revision: u64,
    pub(crate) objects: Vec<Stored>,
}

/// The file, open.
pub(crate) struct Disk {
    path: PathBuf,
    /// None after a write has failed.
    database: Option<Database>,
    reopen: Reopen,
    /// The revision of the latest change in the file.
    durable: u64,
    /// Why nothing will be written any more.
    lost: Option<String>,
}

impl Disk {
    /// Opens the file, which is made if it is not there.
    ///
    /// # Errors
    /// [`Error`]; the file is then as it was.
    pub(crate) fn open(path: &Path) -> Result<(Self, Loaded), Error> {
        let database = match builder().open(path) {
            Err(DatabaseError::Storage(StorageError::Io(error))) if error.kind() == ErrorKind::NotFound => {
                create(path)?
            }
            opened => opened.map_err(|error| unusable(path, error))?,
        };
        let again = path.to_owned();
        Self::over(path, database, Box::new(move || builder().open(&again)))
    }

    /// The same over a database that is open. `reopen` opens it again after a failure.
    pub(crate) fn over(path: &Path, database: Database, reopen: Reopen) -> Result<(Self, Loaded), Error> {
        let loaded = load(path, &database)?;
        let path = path.to_owned();
        Ok((Self { path, database: Some(database), reopen, durable: loaded.revision, lost: None }, loaded))
    }

    /// Writes changes, after which the latest revision is `revision`. When it returns they are on disk.
    ///
    /// # Errors
    /// [`Failed`]; then none of them is there, as far as anybody can tell.
    pub(crate) fn write<'a>(
        &mut self,
        changes: impl Iterator<Item = &'a Change>,
        revision: u64,
    ) -> Result<(), Failed> {
        // Whoever waits for this must not wait forever, whatever is wrong with the file.
        let attempt =
            AssertUnwindSafe(|| self.database().and_then(|database| write(database, changes, revision)));
        let panicked = |_| Err(redb::Error::Corrupted("its structure is not what it has to be".to_owned()));
        match catch_unwind(attempt).unwrap_or_else(panicked) {
            Ok(()) => {
                self.durable = revision;
                Ok(())
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Tries whether something could be written now.
    ///
    /// # Errors
    /// [`Failed`] if not.
    pub(crate) fn probe(&mut self) -> Result<(), Failed> {
        self.write(std::iter::empty(), self.durable)
    }

    /// The database. One that failed is opened anew, since only that tells what has become of the write.
    fn database(&mut self) -> Result<&Database, redb::Error> {
        if let Some(why) = &self.lost {
            return Err(redb::Error::Corrupted(why.clone()));
        }
        let database = match self.database.take() {
            Some(database) => database,
            None => {
                let database = (self.reopen)()?;
                let found = revision(&database)?;
                if found != self.durable {
                    let why = format!("it has revision {found} instead of {}", self.durable);
                    return Err(redb::Error::Corrupted(why));
                }
                database
            }
        };
        Ok(self.database.insert(database))
    }

    fn failed(&mut self, error: redb::Error) -> Failed {
        self.database = None;
        match error {
            redb::Error::Io(source) if lack_of_space(&source) => {
                Failed::Full { path: self.path.clone(), source }
            }
            error => {
                // After any other error the system may have dropped what it had taken: whatever it says next time
                // cannot be trusted.
                let why = self.lost.get_or_insert_with(|| error.to_string()).clone();
                Failed::Lost { path: self.path.clone(), why }
            }
        }
    }
}

fn lack_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    builder
}

/// Makes the file under another name first, so that under its own there is either nothing or all of it.
fn create(path: &Path) -> Result<Database, Error> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let mut name = OsString::from(path);
    name.push(".creating");
    let unfinished = PathBuf::from(name);
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = file.open(&unfinished).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Err(Error::InUse { path: path.to_owned() }),
        Err(fs::TryLockError::Error(source)) => return Err(failed(source)),
    }
    // What a process left here that was ended in the middle of this.
    file.set_len(0).map_err(failed)?;
    let database = FileBackend::new(file).and_then(|file| builder().create_with_backend(file));
    let database = database.map_err(|error| unusable(path, error))?;
    begin(&database).map_err(|error| not_written(path, error))?;
    // Unlike a rename, this never takes the place of a file that somebody else has just made.
    fs::hard_link(&unfinished, path).map_err(failed)?;
    fs::remove_file(&unfinished).map_err(failed)?;
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(database)
}

/// Makes the tables.
fn begin(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut facts = transaction.open_table(FACTS)?;
        facts.insert(FORMAT_FACT, FORMAT)?;
        facts.insert(REVISION_FACT, 1)?;
        transaction.open_table(OBJECTS)?;
    }
    transaction.commit()?;
    Ok(())
}

fn not_written(path: &Path, error: redb::Error) -> Error {
    match error {
        redb::Error::Io(source) => Error::Io { path: path.to_owned(), source },
        error => Error::Damaged { path: path.to_owned(), why: error.to_string() },
    }
}

fn unusable(path: &Path, error: DatabaseError) -> Error {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => Error::InUse { path },
        DatabaseError::Storage(StorageError::Io(source)) => match source.kind() {
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => {
                Error::Foreign { path, why: source.to_string() }
            }
            _ => Error::Io { path, source },
        },
        DatabaseError::UpgradeRequired(_) => Error::Foreign { path, why: error.to_string() },
        error => Error::Damaged { path, why: error.to_string() },
    }
}

fn load(path: &Path, database: &Database) -> Result<Loaded, Error> {
    let damaged = |why: String| Error::Damaged { path: path.to_owned(), why };
    let foreign = |error: redb::TableError| match error {
        redb::TableError::Storage(error) => damaged(error.to_string()),
        error => Error::Foreign { path: path.to_owned(), why: error.to_string() },
    };
    let bad = |error: StorageError| damaged(error.to_string());
    let transaction = database.begin_read().map_err(|error| damaged(error.to_string()))?;
    let facts = transaction.open_table(FACTS).map_err(foreign)?;
    let fact = |name: &str| -> Result<u64, Error> {
        let found = facts.get(name).map_err(bad)?.map(|value| value.value());
        found.ok_or_else(|| damaged(format!("it does not tell its {name}")))
    };
    let format = fact(FORMAT_FACT)?;
    if format > FORMAT {
        return Err(Error::Newer { path: path.to_owned(), format });
    }
    let revision = fact(REVISION_FACT)?;
    let mut objects = Vec::new();
    let table = transaction.open_table(OBJECTS).map_err(foreign)?;
    for row in table.iter().map_err(bad)? {
        let (key, value) = row.map_err(bad)?;
        let (group, resource, namespace, name) = key.value();
        let (at, json) = value.value();
        let object = decode(json)
            .filter(|_| at <= revision)
            .ok_or_else(|| damaged(format!("{group}/{resource} {namespace}/{name} is not an object")))?;
        let key = Key::new(&format!("{group}/{resource}"), namespace, name);
        objects.push(Stored { key, revision: at, content: object });
    }
    Ok(Loaded { revision, objects })
}

fn revision(database: &Database) -> Result<u64, redb::Error> {
    let facts = database.begin_read()?.open_table(FACTS)?;
    let found = facts.get(REVISION_FACT)?.map(|value| value.value());
    Ok(found.unwrap_or_default())
}

fn write<'a>(
    database: &Database,
    changes: impl Iterator<Item = &'a Change>,
    revision: u64,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut objects = transaction.open_table(OBJECTS)?;
        let mut json = Vec::new();
        for change in changes {
            if let Some(stored) = &change.after {
                json.clear();
                stored.content.write(&mut json, "{", None);
                objects.insert(row(&stored.key), (stored.revision, json.as_slice()))?;
            } else if let Some(stored) = &change.before {
                objects.remove(row(&stored.key))?;
            }
        }
        transaction.open_table(FACTS)?.insert(REVISION_FACT, revision)?;
    }
    transaction.commit()?;
    Ok(())
}

fn row(key: &Key) -> ObjectKey<'_> {
    let (group, resource) = key.storage().split_once('/').unwrap_or_else(|| ("", key.storage()));
    (group, resource, key.namespace(), key.name())
}

fn decode(json: &[u8]) -> Option<Content> {
    let mut value: Value = serde_json::from_slice(json).ok()?;
    let metadata = value.get_mut("metadata")?.as_object_mut()?;
    let managed = match metadata.remove("managedFields") {
        None => Managed::default(),
        Some(list) => Managed::given(&list)?,
    };
    Some(Content::from_value(&value).managed_by(managed))
}

#[cfg(test)]
pub(crate) mod tests;
