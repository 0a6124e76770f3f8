//! Names and passwords: the principal's file of bcrypt hashes, the agent's own credentials.

mod credentials;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use self::credentials::{CLIENT_ID, CLIENT_SECRET, Credentials};
use super::secret::Secret;
use crate::model::agent::AgentName;

/// bcrypt's cost where there is no file to take it from.
const DEFAULT_COST: u32 = 10;
/// A hash dearer than this takes minutes to check and would let one log-in after another starve the rest.
const MAX_COST: u32 = 16;

/// Why names and passwords cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not there or cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The agent's file has another form.
    #[error("{path} has no line of the form user:password")]
    BadCredentials {
        /// The file.
        path: String,
    },
    /// The agent's `--creds` names no method.
    #[error("credentials {0:?} have no known method: expected userpass:FILE, mtls: or header:")]
    UnknownMethod(String),
    /// The agent's `--creds` lacks the file.
    #[error("credentials {0:?} name no file: expected userpass:FILE")]
    NoFile(String),
    /// Wrong name or password; which one is not said.
    #[error("unknown user or wrong password")]
    Refused,
    /// Hashing failed.
    #[error("cannot hash: {0}")]
    Hash(String),
}

/// A file of `user:bcrypt` lines. Clones share it.
#[derive(Clone)]
pub struct Passwords {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    users: RwLock<Users>,
    /// bcrypt takes tens of milliseconds of a core: a flood of log-ins must not take all of them.
    slots: Semaphore,
}

#[derive(Default)]
struct Users {
    content: String,
    hashes: HashMap<String, String>,
    /// Checked in place of the hash of a user that does not exist, so that both take the same time.
    decoy: String,
}

impl Passwords {
    /// Reads the file.
    pub async fn load(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let content = read(&path).await?;
        let users = Users::parse(content, &path).await?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let slots = Semaphore::new(cores);
        Ok(Self { inner: Arc::new(Inner { path, users: RwLock::new(users), slots }) })
    }

    /// How many users can log in.
    pub fn len(&self) -> usize {
        self.inner.users.read().hashes.len()
    }

    /// Whether nobody can log in.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Checks a name and its password. Takes as long for a name that does not exist.
    pub async fn verify(&self, user: &str, password: &str) -> Result<AgentName, Error> {
        let (known, hash) = {
            let users = self.inner.users.read();
            match users.hashes.get(user) {
                Some(hash) => (true, hash.clone()),
                None => (false, users.decoy.clone()),
            }
        };
        let password = password.to_owned();
        let _slot = self.inner.slots.acquire().await.map_err(|e| Error::Hash(e.to_string()))?;
        let matches = tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash).unwrap_or(false))
            .await
            .map_err(|e| Error::Hash(e.to_string()))?;
        if known && matches { AgentName::new(user).map_err(|_| Error::Refused) } else { Err(Error::Refused) }
    }

    /// Reads the file again. Returns whether it had changed; on an error the old users stay.
    pub async fn reload(&self) -> Result<bool, Error> {
        let content = read(&self.inner.path).await?;
        if content == self.inner.users.read().content {
            return Ok(false);
        }
        let users = Users::parse(content, &self.inner.path).await?;
        *self.inner.users.write() = users;
        Ok(true)
    }

    /// Re-reads the file every `interval` until `stop`; a failure is logged once.
    pub async fn watch(&self, interval: Duration, stop: CancellationToken) {
        let mut failed = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
            }
            match self.reload().await {
                Ok(changed) => {
                    failed = false;
                    if changed {
                        tracing::info!(users = self.len(), "password file changed and was read again");
                    }
                }
                Err(error) if !failed => {
                    failed = true;
                    tracing::warn!(%error, "password file cannot be read; the users read before stay");
                }
                Err(_) => {}
            }
        }
    }
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passwords").field("path", &self.inner.path).field("users", &self.len()).finish()
    }
}

/// The hash of a password, for a line of the file. Takes tens of milliseconds: not for an async thread.
pub fn hash(password: &Secret) -> Result<String, Error> {
    bcrypt::hash(password.expose(), DEFAULT_COST).map_err(|e| Error::Hash(e.to_string()))
}

async fn read(path: &Path) -> Result<String, Error> {
    tokio::fs::read_to_string(path)
        .await
        .map_err(|source| Error::Read { path: path.display().to_string(), source })
}

impl Users {
    async fn parse(content: String, path: &Path) -> Result<Self, Error> {
        let mut hashes = HashMap::new();
        for (index, line) in content.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') || line.starts_with("//") {
                continue;
            }
            let entry = line.split_once(':').filter(|(user, _)| AgentName::new(*user).is_ok());
            match entry {
                Some((user, hash)) if cost(hash).is_some_and(|cost| cost <= MAX_COST) => {
                    if hashes.insert(user.to_owned(), hash.to_owned()).is_some() {
                        tracing::warn!(path = %path.display(), user, "user is there more than once; the last line counts");
                    }
                }
                _ => tracing::warn!(
                    path = %path.display(),
                    line = index + 1,
                    "line ignored: expected agent:hash with a bcrypt hash, as htpasswd -B writes it"
                ),
            }
        }
        let usual = hashes.values().filter_map(|hash| cost(hash)).max().unwrap_or(DEFAULT_COST);
        let decoy = tokio::task::spawn_blocking(move || bcrypt::hash(uuid::Uuid::new_v4().as_bytes(), usual))
            .await
            .map_err(|e| Error::Hash(e.to_string()))?
            .map_err(|e| Error::Hash(e.to_string()))?;
        Ok(Self { content, hashes, decoy })
    }
}

/// The cost of a bcrypt hash, `$2y$10$…`; None when it is not one.
fn cost(hash: &str) -> Option<u32> {
    hash.parse::<bcrypt::HashParts>().ok().map(|parts| parts.get_cost())
}

#[cfg(test)]
mod tests;
