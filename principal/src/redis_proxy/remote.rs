//! Asks a cluster's Redis, by way of its agent.
//!
//! What is awaited of an agent is kept with that agent: no other can answer it. Questions travel as events that are sent once, and
//! whatever happens they end within [`PATIENCE`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tiphys_shared::model::event::unique;
use tiphys_shared::model::redis::{RedisAnswer, RedisCommand, RedisRequest, RedisResponse};
use tiphys_shared::model::{Event, EventKind, Payload, Target};
use tiphys_shared::wire::express::Unsent;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agents::Agent;

/// How long an agent may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often an agent is told that a subscription is still wanted. It gives up after ten times as long.
const PING: Duration = Duration::from_secs(60);
/// Answers that may be awaited of one agent at once.
const AWAITED: usize = 512;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the agent is not connected")]
    NotConnected,
    #[error("the agent's connection ended before it answered")]
    Ended,
    #[error("the agent did not answer in time")]
    TimedOut,
    #[error("too many answers of the agent are awaited already")]
    Busy,
    #[error("the request was not sent to the agent: {0}")]
    Unsent(#[from] Unsent),
    #[error("the agent says: {0}")]
    Refused(String),
    #[error("the agent answered something else")]
    Nonsense,
}

/// What is awaited of one agent.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    answers: Mutex<HashMap<String, oneshot::Sender<RedisAnswer>>>,
    subscriptions: Mutex<HashMap<String, Arc<Notify>>>,
}

impl Awaited {
    /// Takes what the agent says. What nobody waits for any more is dropped.
    pub(crate) fn take(&self, response: RedisResponse) {
        let RedisResponse { uuid, connection, body } = response;
        if matches!(body, RedisAnswer::PushFromSubscribe { .. }) {
            match self.subscriptions.lock().get(&connection) {
                Some(published) => published.notify_one(),
                None => tracing::debug!(connection, "the agent tells of a subscription that has ended"),
            }
            return;
        }
        let awaited = self.answers.lock().remove(&uuid);
        if awaited.is_none_or(|awaited| awaited.send(body).is_err()) {
            tracing::debug!(uuid, "an answer of the agent's redis that nobody waits for");
        }
    }
}

/// Takes an entry out of a map when it is dropped.
struct Forget<'a, T> {
    from: &'a Mutex<HashMap<String, T>>,
    name: String,
}

impl<T> Drop for Forget<'_, T> {
    fn drop(&mut self) {
        self.from.lock().remove(&self.name);
    }
}

async fn ask(agent: &Agent, connection: String, command: RedisCommand) -> Result<RedisAnswer, Failure> {
    let session = agent.session_token().ok_or(Failure::NotConnected)?;
    let until = Instant::now() + PATIENCE;
    let mut event = Event::request(Target::Redis, EventKind::RedisRequest, Payload::Empty);
    let uuid = event.id.0.clone();
    event.payload = Payload::RedisRequest(RedisRequest { uuid: uuid.clone(), connection, body: command });
    let (sender, answer) = oneshot::channel();
    {
        let mut answers = agent.redis.answers.lock();
        if answers.len() >= AWAITED {
            return Err(Failure::Busy);
        }
        answers.insert(uuid.clone(), sender);
    }
    let _forget = Forget { from: &agent.redis.answers, name: uuid };
    let sent = agent.outbox.express(event, until);
    let answered = async {
        sent.await?;
        answer.await.map_err(|_| Failure::Ended)
    };
    tokio::select! {
        biased;
        answer = answered => answer,
        () = session.cancelled() => Err(Failure::Ended),
        () = tokio::time::sleep_until(until) => Err(Failure::TimedOut),
    }
}

/// An empty error is none; a long one is cut.
fn refused(error: &str) -> Result<(), Failure> {
    if error.is_empty() { Ok(()) } else { Err(Failure::Refused(error.chars().take(300).collect())) }
}

/// What is kept under a key of the control plane at the agent's cluster.
///
/// # Errors
/// [`Failure`] if that is not known.
pub(crate) async fn get(agent: &Agent, key: &str) -> Result<Option<Vec<u8>>, Failure> {
    match ask(agent, unique(), RedisCommand::Get { key: key.to_owned() }).await? {
        RedisAnswer::Get { bytes, hit, error } => {
            refused(&error)?;
            Ok(hit.then(|| bytes.unwrap_or_default()))
        }
        _ => Err(Failure::Nonsense),
    }
}

/// A channel of the control plane to which an agent listens at its cluster.
#[derive(Debug)]
pub(crate) struct Subscription {
    agent: Arc<Agent>,
    session: CancellationToken,
    connection: String,
    published: Arc<Notify>,
}

impl Subscription {
    /// Has an agent listen.
    ///
    /// # Errors
    /// [`Failure`] if it does not.
    pub(crate) async fn begin(agent: Arc<Agent>, channel: &str) -> Result<Self, Failure> {
        let session = agent.session_token().ok_or(Failure::NotConnected)?;
        // There is no way to end a subscription but to ping its connection no more: each has one of its own.
        let connection = unique();
        let published = Arc::new(Notify::new());
        agent.redis.subscriptions.lock().insert(connection.clone(), Arc::clone(&published));
        let subscription = Self { agent, session, connection, published };
        let command = RedisCommand::Subscribe { channel: channel.to_owned() };
        match ask(&subscription.agent, subscription.connection.clone(), command).await? {
            RedisAnswer::SubscribeResponse { error } => refused(&error).map(|()| subscription),
            _ => Err(Failure::Nonsense),
        }
    }

    /// Waits until something is published. Cancel safe.
    pub(crate) async fn published(&self) {
        self.published.notified().await;
    }

    /// Waits until the agent does not listen any more. Keeps it listening until then.
    pub(crate) async fn lost(&self) -> Failure {
        let keep = async {
            loop {
                tokio::time::sleep(PING).await;
                match ask(&self.agent, self.connection.clone(), RedisCommand::Ping {}).await {
                    Ok(RedisAnswer::Pong {}) => {}
                    Ok(_) => return Failure::Nonsense,
                    Err(failure) => return failure,
                }
            }
        };
        tokio::select! {
            biased;
            () = self.session.cancelled() => Failure::Ended,
            failure = keep => failure,
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.agent.redis.subscriptions.lock().remove(&self.connection);
    }
}
