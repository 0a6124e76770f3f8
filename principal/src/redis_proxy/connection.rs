//! One connection of Argo CD: commands one way, replies the other, and an agent's answer where one belongs.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use tiphys_shared::model::AgentName;
use tiphys_shared::model::cache_key::CacheKey;
use tiphys_shared::redis::command::{Commands, Malformed, Step};
use tiphys_shared::redis::reply::{Found, Places};
use tiphys_shared::wire::transport::Connection;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::subscriptions::Follower;
use super::{Shared, remote};

/// Bytes that are read at once.
const CHUNK: usize = 32 * 1024;
/// Places that may be expected before no more commands are read.
const EXPECTED: usize = 128;
/// How long Redis may take to come to one of so many.
const STUCK: Duration = Duration::from_secs(60);
/// Channels that one connection may follow.
const FOLLOWED: usize = 1024;
/// How long it may take to say that a connection ends, and why.
const GOODBYE: Duration = Duration::from_secs(2);
/// Bytes that are taken meanwhile.
const LAST_WORDS: u64 = 1 << 20;
/// How long nobody may say anything.
const IDLE: Duration = Duration::from_secs(3600);

/// Why a connection ended that should not have.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("Protocol error: {0}")]
    Malformed(#[from] Malformed),
    #[error("too many commands wait for a reply")]
    Stuck,
    #[error("nothing was said for an hour")]
    Idle,
    #[error(transparent)]
    Broken(#[from] io::Error),
}

impl End {
    fn label(&self) -> &'static str {
        match self {
            Self::Malformed(malformed) => malformed.label(),
            Self::Stuck => "stuck",
            Self::Idle => "idle",
            Self::Broken(_) => "broken",
        }
    }
}

/// What is to happen at a place in the replies.
enum Then {
    /// The answer of an agent takes it.
    Ask { agent: AgentName, key: String },
    /// Redis has begun to tell of a channel.
    Follow(String),
    /// From here on, replies are of this version of the protocol.
    Version3(bool),
}

/// What both directions of one connection know.
struct Session<'a> {
    shared: &'a Shared,
    places: Mutex<Places<Then>>,
    found: Notify,
    followed: Mutex<BTreeMap<String, Follower>>,
    version3: AtomicBool,
    activity: AtomicU64,
}

/// Serves one connection until either side ends it. Without a slot it is turned away.
pub(super) async fn serve(mut client: Connection, shared: &Shared, slot: Option<OwnedSemaphorePermit>) {
    let address = client.peer().address.map(tracing::field::display);
    let refused = &shared.metrics.redis_proxy_refused;
    if slot.is_none() {
        refused.with_label_values(&["connections"]).inc();
        tracing::warn!(address, "too many connections to the redis proxy");
        return part(&mut client, "max number of clients reached").await;
    }
    let mut redis = match shared.redis.dial().await {
        Ok(redis) => redis,
        Err(error) => {
            refused.with_label_values(&["redis"]).inc();
            tracing::warn!(address, redis = %shared.redis.address, %error, "the control plane's redis cannot be reached");
            return part(&mut client, &format!("the control plane's redis cannot be reached: {error}")).await;
        }
    };
    let session = Session {
        shared,
        places: Mutex::default(),
        found: Notify::new(),
        followed: Mutex::default(),
        version3: AtomicBool::new(false),
        activity: AtomicU64::new(0),
    };
    match session.run(&mut client, &mut redis).await {
        Ok(()) => {}
        // Nothing more than that somebody has gone.
        Err(End::Broken(error)) => tracing::debug!(address, %error, "a connection to the redis proxy broke"),
        Err(end) => {
            refused.with_label_values(&[end.label()]).inc();
            tracing::warn!(address, reason = %end, "a connection to the redis proxy is closed");
            part(&mut client, &end.to_string()).await;
        }
    }
}

/// Says why, and closes.
async fn part(client: &mut (impl AsyncRead + AsyncWrite + Unpin), reason: &str) {
    let goodbye = async {
        client.write_all(&error_reply(reason)).await?;
        client.shutdown().await?;
        // What it says meanwhile is taken: a connection that is closed before loses what was said to it last.
        tokio::io::copy(&mut client.take(LAST_WORDS), &mut tokio::io::sink()).await
    };
    // Whoever does not listen has gone.
    _ = tokio::time::timeout(GOODBYE, goodbye).await;
}

fn error_reply(text: &str) -> Vec<u8> {
    let line: String = text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    format!("-ERR {line}\r\n").into_bytes()
}

impl Session<'_> {
    async fn run(
        &self,
        client: &mut (impl AsyncRead + AsyncWrite + Unpin),
        redis: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Result<(), End> {
        let (from_client, to_client) = tokio::io::split(client);
        let (from_redis, to_redis) = tokio::io::split(redis);
        let commands = async {
            match self.commands(from_client, to_redis).await {
                // It may still listen for replies.
                Ok(()) => std::future::pending().await,
                end => end,
            }
        };
        tokio::select! {
            biased;
            end = self.replies(from_redis, to_client) => end,
            end = commands => end,
            () = self.idle() => Err(End::Idle),
        }
    }

    /// Ends when nothing was said for long.
    async fn idle(&self) {
        loop {
            let before = self.activity.load(Ordering::Relaxed);
            tokio::time::sleep(IDLE).await;
            if self.activity.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }

    async fn commands(
        &self,
        mut client: impl AsyncRead + Unpin,
        mut redis: impl AsyncWrite + Unpin,
    ) -> Result<(), End> {
        let mut commands = Commands::default();
        let mut arrived = BytesMut::new();
        loop {
            arrived.reserve(CHUNK);
            let read = client.read_buf(&mut arrived).await?;
            self.activity.fetch_add(1, Ordering::Relaxed);
            if read == 0 {
                // What was not a whole command is Redis' to judge.
                redis.write_all(&arrived).await?;
                return Ok(redis.shutdown().await?);
            }
            let mut next = BytesMut::new();
            let end = loop {
                match commands.next(&arrived) {
                    Ok(Step::More) => break Ok(()),
                    Ok(Step::Pass(len)) => next.unsplit(arrived.split_to(len)),
                    Ok(Step::Command { len, words }) => {
                        let command = arrived.split_to(len);
                        let words: Vec<&[u8]> = words.into_iter().map(|word| &command[word]).collect();
                        match self.instead(&words).await? {
                            Some(other) => next.extend_from_slice(&other),
                            None => next.extend_from_slice(&command),
                        }
                    }
                    Err(malformed) => break Err(malformed),
                }
            };
            redis.write_all(&next).await?;
            redis.flush().await?;
            end?;
        }
    }

    /// Looks at a command: what Redis is to be told instead, if anything.
    async fn instead(&self, words: &[&[u8]]) -> Result<Option<Vec<u8>>, End> {
        let Some((verb, arguments)) = words.split_first() else { return Ok(None) };
        let is = |name: &str| verb.eq_ignore_ascii_case(name.as_bytes());
        match arguments {
            [key] if is("GET") => {
                let Some(key) = std::str::from_utf8(key).ok().and_then(CacheKey::parse) else {
                    return Ok(None);
                };
                let Some(agent) = self.shared.router.agent_of(&key).await else { return Ok(None) };
                let mark = uuid::Uuid::new_v4().to_string();
                let key = key.in_namespace(key.namespace);
                self.expect(mark.as_bytes(), Then::Ask { agent, key }).await?;
                Ok(Some(format!("*2\r\n$4\r\nECHO\r\n${}\r\n{mark}\r\n", mark.len()).into_bytes()))
            }
            channels if is("SUBSCRIBE") => {
                for channel in channels.iter().filter_map(|channel| std::str::from_utf8(channel).ok()) {
                    if CacheKey::parse(channel).is_some() {
                        let said = [b"subscribe\r\n".as_slice(), &Places::<Then>::string(channel.as_bytes())];
                        let said = [b"$9\r\n".as_slice(), &said.concat()].concat();
                        self.expect_bytes(said, Then::Follow(channel.to_owned())).await?;
                    }
                }
                Ok(None)
            }
            channels if is("UNSUBSCRIBE") => {
                let mut followed = self.followed.lock();
                if channels.is_empty() {
                    followed.clear();
                }
                for channel in channels {
                    followed.retain(|name, _| name.as_bytes() != *channel);
                }
                Ok(None)
            }
            [] if is("RESET") => {
                self.followed.lock().clear();
                self.version3.store(false, Ordering::Relaxed);
                Ok(None)
            }
            [version @ (b"2" | b"3"), ..] if is("HELLO") => {
                let said = [b"$5\r\nproto\r\n:".as_slice(), version, b"\r\n"].concat();
                self.expect_bytes(said, Then::Version3(*version == b"3")).await?;
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    async fn expect(&self, string: &[u8], then: Then) -> Result<(), End> {
        self.expect_bytes(Places::<Then>::string(string), then).await
    }

    async fn expect_bytes(&self, bytes: Vec<u8>, then: Then) -> Result<(), End> {
        let room = async {
            while self.places.lock().len() >= EXPECTED {
                self.found.notified().await;
            }
        };
        tokio::time::timeout(STUCK, room).await.map_err(|_| End::Stuck)?;
        self.places.lock().expect(bytes, then);
        Ok(())
    }

    async fn replies(
        &self,
        mut redis: impl AsyncRead + Unpin,
        mut client: impl AsyncWrite + Unpin,
    ) -> Result<(), End> {
        let mut arrived = BytesMut::new();
        loop {
            arrived.reserve(CHUNK);
            let read = redis.read_buf(&mut arrived).await?;
            self.activity.fetch_add(1, Ordering::Relaxed);
            if read == 0 {
                client.write_all(&arrived).await?;
                return Ok(client.shutdown().await?);
            }
            loop {
                let found = self.places.lock().find(&arrived);
                match found {
                    Found::Pass(0) => break,
                    Found::Pass(len) => client.write_all(&arrived.split_to(len)).await?,
                    Found::Place { before, len, what } => {
                        client.write_all(&arrived.split_to(before)).await?;
                        let place = arrived.split_to(len);
                        self.found.notify_one();
                        match what {
                            Then::Ask { agent, key } => {
                                client.flush().await?;
                                self.answer(&agent, &key, &mut client).await?;
                            }
                            Then::Follow(channel) => {
                                self.follow(channel);
                                client.write_all(&place).await?;
                            }
                            Then::Version3(version3) => {
                                self.version3.store(version3, Ordering::Relaxed);
                                client.write_all(&place).await?;
                            }
                        }
                    }
                }
            }
            client.flush().await?;
        }
    }

    fn follow(&self, channel: String) {
        let mut followed = self.followed.lock();
        if followed.len() < FOLLOWED
            && !followed.contains_key(&channel)
            && let Some(follower) = self.shared.subscriptions.follow(&channel)
        {
            followed.insert(channel, follower);
        }
    }

    /// Writes what an agent's cluster keeps under a key.
    async fn answer(
        &self,
        agent: &AgentName,
        key: &str,
        client: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        let metrics = &self.shared.metrics;
        metrics.redis_proxy_requests.with_label_values(&[agent.as_str(), "get"]).inc();
        let answer = match self.shared.router.agents.get(agent) {
            Some(agent) => remote::get(&agent, key).await,
            None => Err(remote::Failure::NotConnected),
        };
        self.activity.fetch_add(1, Ordering::Relaxed);
        match answer {
            Ok(Some(value)) => {
                client.write_all(format!("${}\r\n", value.len()).as_bytes()).await?;
                client.write_all(&value).await?;
                client.write_all(b"\r\n").await
            }
            Ok(None) if self.version3.load(Ordering::Relaxed) => client.write_all(b"_\r\n").await,
            Ok(None) => client.write_all(b"$-1\r\n").await,
            Err(failure) => {
                metrics.redis_proxy_errors.with_label_values(&[agent.as_str(), "get"]).inc();
                tracing::warn!(%agent, key, reason = %failure, "what a cluster keeps in its redis cannot be read");
                client
                    .write_all(&error_reply(&format!("{key} cannot be read from agent {agent}: {failure}")))
                    .await
            }
        }
    }
}
