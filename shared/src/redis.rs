//! Argo CD's Redis: a connection that is made when it is needed, and made again when it was lost.
//!
//! Redis is a convenience for what Argo CD shows. It may be away, or may not exist; then every call fails within seconds,
//! and one line in the log says so.

pub mod command;
pub mod reply;
mod subscriber;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::kube::material::{Place, Places, Reader};
use crate::process::backoff::{Backoff, Schedule};
use crate::process::options::{HostPort, Problem};
use crate::security::secret::Secret;
use crate::security::tls::{Alpn, ClientTls, Policy, Version};

pub use self::subscriber::Subscriber;

/// How long it may take to connect, with everything that belongs to it.
const CONNECT: Duration = Duration::from_secs(5);
/// How long Redis may take for an answer.
const ANSWER: Duration = Duration::from_secs(3);

/// Where Redis is and who we are there, as options say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Its address.
    pub address: HostPort,
    /// Who we are.
    pub login: Login,
    /// What its certificate is checked against; without TLS, nothing.
    pub trust: Option<Trust>,
}

/// Who we are to Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// Empty parts are left out.
    Given {
        /// The user.
        username: String,
        /// Its password.
        password: Secret,
    },
    /// The files `auth` and, if it is there, `auth_username` of a folder. They are read for every connection, so that they
    /// may change.
    Folder(PathBuf),
}

/// What the certificate of Redis is checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Nothing: any certificate will do.
    Unverified,
    /// A PEM file.
    File(PathBuf),
    /// A Secret, under `ca.crt`.
    Secret(String),
}

/// Why Redis could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user or password could not be read.
    #[error("cannot read {path}: {source}")]
    Login {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// There is no connection.
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    /// Redis took too long.
    #[error("no answer in time")]
    TimedOut,
    /// Redis refused, or the connection broke.
    #[error(transparent)]
    Refused(#[from] redis::RedisError),
}

/// Everything that a connection needs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where Redis is.
    pub address: HostPort,
    /// Who we are.
    pub login: Login,
    /// How the connection is protected, if it is.
    pub tls: Option<ClientTls>,
}

impl Config {
    /// Reads the certificates, and keeps them current until `cancel`.
    ///
    /// # Errors
    /// What is missing, and what to do about it.
    pub async fn prepare(
        access: &Access,
        reader: &Reader,
        cancel: &tokio_util::sync::CancellationToken,
    ) -> Result<Self, Problem> {
        let tls = match &access.trust {
            None => None,
            Some(trust) => Some(Self::tls(trust, reader, cancel).await?),
        };
        Ok(Self { address: access.address.clone(), login: access.login.clone(), tls })
    }

    async fn tls(
        trust: &Trust,
        reader: &Reader,
        cancel: &tokio_util::sync::CancellationToken,
    ) -> Result<ClientTls, Problem> {
        let ca = match trust {
            Trust::Unverified => None,
            Trust::File(path) => Some(Place::File(path.clone())),
            Trust::Secret(name) => Some(Place::Secret { name: name.clone(), keys: &["ca.crt"] }),
        };
        let places = Places { ca, ..Places::default() };
        let material = reader.read_all(&places).await?;
        let policy = Policy { min_version: Version::Tls12, alpn: Alpn::None, ..Policy::default() };
        let tls = ClientTls::new(&material, policy, places.ca.is_none()).map_err(|error| {
            Problem::new(
                format!("the CA of redis cannot be used: {error}"),
                "replace it with the CA that signed the certificate of redis, in PEM",
            )
        })?;
        if places.ca.is_some() {
            let replaced = tls.clone();
            reader
                .keep_current("redis", places, material, cancel, move |material| replaced.replace(material));
        }
        Ok(tls)
    }

    async fn login(&self) -> Result<(String, Secret), Error> {
        let folder = match &self.login {
            Login::Given { username, password } => return Ok((username.clone(), password.clone())),
            Login::Folder(folder) => folder,
        };
        let read = async |name| {
            let path = folder.join(name);
            let text = tokio::fs::read_to_string(&path).await;
            text.map(|text| text.trim().to_owned()).map_err(|source| Error::Login { path, source })
        };
        let username = match read("auth_username").await {
            Err(Error::Login { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                String::new()
            }
            other => other?,
        };
        Ok((username, read("auth").await?.into()))
    }

    /// Opens a stream to Redis on which nothing has been said.
    ///
    /// # Errors
    /// [`Error`] if that cannot be done within seconds.
    pub async fn dial(&self) -> Result<Box<dyn Stream>, Error> {
        tokio::time::timeout(CONNECT, self.open()).await.map_err(|_| Error::TimedOut)?
    }

    async fn open(&self) -> Result<Box<dyn Stream>, Error> {
        let tcp = TcpStream::connect((self.address.host.as_str(), self.address.port));
        let tcp = tcp.await.map_err(Error::Connect)?;
        tcp.set_nodelay(true).map_err(Error::Connect)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(tcp)) };
        let name = ServerName::try_from(self.address.host.clone())
            .map_err(|error| Error::Connect(std::io::Error::other(error)))?;
        let stream = TlsConnector::from(tls.current()).connect(name, tcp).await;
        Ok(Box::new(stream.map_err(Error::Connect)?))
    }

    async fn info(&self) -> Result<RedisConnectionInfo, Error> {
        let (username, password) = self.login().await?;
        let mut info = RedisConnectionInfo::default().set_skip_set_lib_name();
        if !username.is_empty() {
            info = info.set_username(username);
        }
        if let Some(password) = password.expose_str().filter(|password| !password.is_empty()) {
            info = info.set_password(password);
        }
        Ok(info)
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let info = self.info().await?;
        let stream = self.open().await?;
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER));
        let (commands, driver) = MultiplexedConnection::new_with_config(&info, stream, config).await?;
        Ok(Connection { commands, _driver: AbortOnDropHandle::new(tokio::spawn(driver)) })
    }
}

/// A byte stream to Redis.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

struct Connection {
    commands: MultiplexedConnection,
    _driver: AbortOnDropHandle<()>,
}

/// A Redis for one user of it.
pub struct Redis {
    config: Config,
    connection: Option<Connection>,
    backoff: Backoff,
    is_away: Arc<AtomicBool>,
}

impl Redis {
    /// Nothing is connected before something is asked.
    pub fn new(config: Config) -> Self {
        let backoff = Backoff::random(Schedule::default());
        Self { config, connection: None, backoff, is_away: Arc::default() }
    }

    /// The same for another user, with a connection of its own. The log tells only once when it is away.
    pub fn another(&self) -> Self {
        Self { is_away: Arc::clone(&self.is_away), ..Self::new(self.config.clone()) }
    }

    /// What is kept under a key.
    ///
    /// # Errors
    /// [`Error`] if Redis cannot be asked; then it is worth a [`pause`](Self::pause).
    pub async fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.ask(redis::cmd("GET").arg(key)).await
    }

    /// Keeps something under a key for some time.
    ///
    /// # Errors
    /// [`Error`] if Redis cannot be asked; then it is worth a [`pause`](Self::pause).
    pub async fn set(&mut self, key: &str, value: &[u8], lives: Duration) -> Result<(), Error> {
        self.ask(redis::cmd("SET").arg(key).arg(value).arg("EX").arg(lives.as_secs())).await
    }

    /// Tells all subscribers of a channel that something changed.
    ///
    /// # Errors
    /// [`Error`] if Redis cannot be asked; then it is worth a [`pause`](Self::pause).
    pub async fn publish(&mut self, channel: &str) -> Result<(), Error> {
        self.ask(redis::cmd("PUBLISH").arg(channel).arg("")).await
    }

    /// How long to wait before Redis is asked again, longer from failure to failure.
    pub fn pause(&mut self) -> Duration {
        self.backoff.next_delay(Duration::ZERO)
    }

    async fn ask<T: redis::FromRedisValue>(&mut self, command: &redis::Cmd) -> Result<T, Error> {
        // A connection that was not used for long may have been closed, which is no news.
        let outcome = match self.connection.take() {
            Some(connection) => match self.ask_on(connection, command).await {
                Err(Error::Refused(error)) if error.is_connection_dropped() => self.ask_anew(command).await,
                other => other,
            },
            None => self.ask_anew(command).await,
        };
        let address = &self.config.address;
        match &outcome {
            Ok(_) => {
                self.backoff.reset();
                if self.is_away.swap(false, Ordering::Relaxed) {
                    tracing::info!(%address, "argocd's redis answers again");
                }
            }
            Err(error) if !self.is_away.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%address, %error, "argocd's redis does not answer; trying on");
            }
            Err(error) => tracing::debug!(%address, %error, "argocd's redis still does not answer"),
        }
        outcome
    }

    async fn ask_anew<T: redis::FromRedisValue>(&mut self, command: &redis::Cmd) -> Result<T, Error> {
        let connection = tokio::time::timeout(CONNECT, self.config.connect());
        let connection = connection.await.map_err(|_| Error::TimedOut)??;
        self.ask_on(connection, command).await
    }

    async fn ask_on<T: redis::FromRedisValue>(
        &mut self,
        mut connection: Connection,
        command: &redis::Cmd,
    ) -> Result<T, Error> {
        let answer = command.query_async(&mut connection.commands).await?;
        // A connection on which anything failed is not used again.
        self.connection = Some(connection);
        Ok(answer)
    }
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("address", &self.config.address).finish_non_exhaustive()
    }
}
