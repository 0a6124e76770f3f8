//! Names and passwords: the principal's file of bcrypt hashes, the agent's own credentials.

mod credentials;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::Semaphore;

pub use self::credentials::{CLIENT_ID, CLIENT_SECRET, Credentials};
use super::secret::Secret;
use crate::model::agent::AgentName;

/// bcrypt's cost where there is no file to take it from.
const DEFAULT_COST: u32 = 10;
/// A hash dearer than this takes minutes to check and would let one log-in after another starve the rest.
const MAX_COST: u32 = 16;

/// Characters of a bcrypt hash behind its cost.
const SALT_AND_DIGEST: usize = 53;

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
    /// The file is not text.
    #[error("{path} is not UTF-8 text")]
    NotText {
        /// The file.
        path: String,
    },
    /// The file that is to replace another has nothing in it, as one that is being written.
    #[error("{path} is empty: a line that begins with # says that nobody is meant")]
    Blank {
        /// The file.
        path: String,
    },
    /// The file that is to replace another has a line that is no user.
    #[error("line {line} of {path} is not user:hash with a bcrypt hash, as htpasswd -B writes it")]
    BadLine {
        /// The file.
        path: String,
        /// Counted from one.
        line: usize,
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

/// A file of `user:bcrypt` lines, as it was last read. Clones share it.
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

struct Users {
    hashes: HashMap<String, String>,
    /// Checked in place of the hash of a user that does not exist, so that both take the same time.
    decoy: String,
    /// Lines that are no users, with their numbers, counted from one.
    ignored: Vec<(usize, String)>,
    /// How many have been in use before these.
    generation: u64,
}

impl Passwords {
    /// Takes the users from the `content` of the file at `path`. Lines that are no users are left out, and told of.
    ///
    /// # Errors
    /// [`Error::NotText`]
    pub fn new(path: impl Into<PathBuf>, content: &Secret) -> Result<Self, Error> {
        let path = path.into();
        let users = Users::parse(text(content, &path)?, 0);
        for (line, _) in &users.ignored {
            tracing::warn!(
                path = %path.display(),
                line,
                "line ignored: expected user:hash with a bcrypt hash, as htpasswd -B writes it"
            );
        }
        if users.hashes.is_empty() {
            tracing::warn!(path = %path.display(), "there is no user in it, so that nobody can log in");
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let slots = Semaphore::new(cores);
        Ok(Self { inner: Arc::new(Inner { path, users: RwLock::new(users), slots }) })
    }

    /// Takes the users from new content of the file. On an error those that are known stay: a file that is half written, or
    /// has a line that is no user and was not there before, is not what somebody wanted.
    ///
    /// # Errors
    /// [`Error::NotText`], [`Error::Blank`] or [`Error::BadLine`]
    pub fn replace(&self, content: &Secret) -> Result<(), Error> {
        let path = &self.inner.path;
        let text = text(content, path)?;
        if text.trim().is_empty() {
            return Err(Error::Blank { path: path.display().to_string() });
        }
        let mut known = self.inner.users.write();
        let users = Users::parse(text, known.generation.wrapping_add(1));
        let tolerated: HashSet<&str> = known.ignored.iter().map(|(_, line)| line.as_str()).collect();
        if let Some((line, _)) = users.ignored.iter().find(|(_, line)| !tolerated.contains(line.as_str())) {
            return Err(Error::BadLine { path: path.display().to_string(), line: *line });
        }
        *known = users;
        Ok(())
    }

    /// Changes whenever the users do: what was found out before is worth nothing then.
    pub fn generation(&self) -> u64 {
        self.inner.users.read().generation
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
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passwords")
            .field("path", &self.inner.path)
            .field("users", &self.inner.users.read().hashes.len())
            .finish()
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

fn text<'a>(content: &'a Secret, path: &Path) -> Result<&'a str, Error> {
    content.expose_str().ok_or_else(|| Error::NotText { path: path.display().to_string() })
}

impl Users {
    fn parse(text: &str, generation: u64) -> Self {
        let mut hashes = HashMap::new();
        let mut ignored = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') || line.starts_with("//") {
                continue;
            }
            let entry = line.split_once(':').filter(|(user, hash)| {
                AgentName::new(*user).is_ok() && cost(hash).is_some_and(|cost| cost <= MAX_COST)
            });
            match entry {
                Some((user, hash)) => {
                    if hashes.insert(user.to_owned(), hash.to_owned()).is_some() {
                        tracing::warn!(
                            user,
                            line = index + 1,
                            "user is there more than once; the last line counts"
                        );
                    }
                }
                None => ignored.push((index + 1, line.to_owned())),
            }
        }
        let usual = hashes.values().filter_map(|hash| cost(hash)).max().unwrap_or(DEFAULT_COST);
        Self { hashes, decoy: decoy(usual), ignored, generation }
    }
}

/// A hash that no password is known to have: all bits of salt and digest are zero.
fn decoy(cost: u32) -> String {
    format!("$2b${cost:02}${}", ".".repeat(SALT_AND_DIGEST))
}

/// The cost of a bcrypt hash, `$2y$10$…`; None when it is not one.
fn cost(hash: &str) -> Option<u32> {
    hash.parse::<bcrypt::HashParts>().ok().map(|parts| parts.get_cost())
}

#[cfg(test)]
mod tests;
