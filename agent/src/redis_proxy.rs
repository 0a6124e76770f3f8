//! Lets the control plane read what this cluster's Argo CD keeps in its Redis of the agent's Applications, and hear when it changes.
//!
//! Nothing here holds up the events: what the principal asks is put aside at once, and answered when Redis has answered.

mod subscriptions;
mod translate;

use std::sync::Arc;
use std::time::Duration;

use tiphys_shared::model::event::unique;
use tiphys_shared::model::redis::{RedisAnswer, RedisCommand, RedisRequest, RedisResponse};
use tiphys_shared::model::{Event, EventId, EventKind, Payload, Target};
use tiphys_shared::redis::{self, Redis};
use tiphys_shared::wire::express::Unsent;
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::subscriptions::Subscriptions;
use crate::outbound::Outbound;

/// How long the principal waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Values that are read and sent at once. What is read is in memory until it is sent.
const READERS: usize = 4;
/// Questions that may wait for one of them.
const WAITING: usize = 256;

/// Takes what the principal asks.
#[derive(Clone, Debug)]
pub(crate) struct RedisProxy {
    outbound: Arc<Outbound>,
    /// None, if there is no Redis.
    works: Option<Works>,
}

#[derive(Clone, Debug)]
struct Works {
    questions: mpsc::Sender<Question>,
    subscriptions: Arc<Subscriptions>,
}

/// A value that the principal wants.
#[derive(Debug)]
struct Question {
    uuid: String,
    connection: String,
    key: String,
    until: Instant,
}

impl RedisProxy {
    /// Starts what is needed; it ends with `stop`.
    pub(crate) fn start(
        redis: Option<redis::Config>,
        outbound: &Arc<Outbound>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let works = redis.map(|config| {
            let (questions, waiting) = mpsc::channel(WAITING);
            let waiting = Arc::new(Mutex::new(waiting));
            let first = Redis::new(config.clone());
            for _ in 0..READERS {
                let (outbound, waiting, redis) =
                    (Arc::clone(outbound), Arc::clone(&waiting), first.another());
                tasks.spawn(stop.clone().run_until_cancelled_owned(read(outbound, waiting, redis)));
            }
            let subscriptions = Arc::new(Subscriptions::new(config, Arc::clone(outbound)));
            let listens = Arc::clone(&subscriptions);
            let stop = stop.clone();
            tasks.spawn(stop.run_until_cancelled_owned(async move { listens.run().await }));
            Works { questions, subscriptions }
        });
        Self { outbound: Arc::clone(outbound), works }
    }

    /// Takes a request. Its answer follows.
    pub(crate) fn take(&self, request: RedisRequest) {
        let RedisRequest { uuid, connection, body } = request;
        let label = body.label();
        let metrics = &self.outbound.metrics;
        if !matches!(body, RedisCommand::Ping {}) {
            metrics.redis_proxy_requests.with_label_values(&[label]).inc();
        }
        let is_get = matches!(body, RedisCommand::Get { .. });
        let outcome = match (&self.works, body) {
            (None, _) => Err("the agent has no redis: --redis-addr is none".to_owned()),
            (Some(works), RedisCommand::Ping {}) => {
                works.subscriptions.touch(&connection);
                Ok(Some(RedisAnswer::Pong {}))
            }
            (Some(works), RedisCommand::Subscribe { channel }) => {
                translate::channel(&self.outbound, &channel)
                    .and_then(|local| works.subscriptions.add(local, &channel, &uuid, &connection))
                    .map(|()| Some(RedisAnswer::SubscribeResponse { error: String::new() }))
                    .map_err(|refused| refused.to_string())
            }
            (Some(works), RedisCommand::Get { key }) => {
                let question = Question {
                    uuid: uuid.clone(),
                    connection: connection.clone(),
                    key,
                    until: Instant::now() + PATIENCE,
                };
                match works.questions.try_send(question) {
                    Ok(()) => Ok(None),
                    Err(_) => Err("too many requests wait for the agent's redis".to_owned()),
                }
            }
        };
        let answer = match outcome {
            Ok(None) => return,
            Ok(Some(answer)) => answer,
            Err(error) => {
                metrics.redis_proxy_errors.with_label_values(&[label]).inc();
                tracing::warn!(command = label, error, "refused a request for this cluster's redis");
                match is_get {
                    true => RedisAnswer::Get { bytes: None, hit: false, error },
                    false => RedisAnswer::SubscribeResponse { error },
                }
            }
        };
        // It is small, and if it does not arrive, the principal asks again.
        drop(send(&self.outbound, &uuid, connection, answer, Instant::now() + PATIENCE));
    }
}

/// Sends an answer. It is on its way when this returns.
fn send(
    outbound: &Outbound,
    uuid: &str,
    connection: String,
    body: RedisAnswer,
    until: Instant,
) -> impl Future<Output = Result<(), Unsent>> + use<> {
    outbound.outbox.express(event(uuid, connection, body), until)
}

fn event(uuid: &str, connection: String, body: RedisAnswer) -> Event {
    let response = RedisResponse { uuid: uuid.to_owned(), connection, body };
    let mut event = Event::request(Target::Redis, EventKind::RedisResponse, Payload::RedisResponse(response));
    event.source = crate::outbound::SOURCE.to_owned();
    // A Go principal finds by it what was asked.
    event.id = EventId(uuid.to_owned());
    event.resource_id = unique();
    event
}

/// Answers one question after the other.
async fn read(outbound: Arc<Outbound>, waiting: Arc<Mutex<mpsc::Receiver<Question>>>, mut redis: Redis) {
    loop {
        let Some(question) = waiting.lock().await.recv().await else { return };
        let Question { uuid, connection, key, until } = question;
        if until <= Instant::now() {
            outbound.metrics.redis_proxy_errors.with_label_values(&["get"]).inc();
            continue;
        }
        let value = match translate::key(&outbound, &key) {
            Err(refused) => Err(refused.to_string()),
            // It may be on its way here.
            Ok(None) => Ok(None),
            Ok(Some(local)) => redis.get(&local).await.map_err(|error| format!("redis: {error}")),
        };
        let answer = match value {
            Ok(bytes) => RedisAnswer::Get { hit: bytes.is_some(), bytes, error: String::new() },
            Err(error) => {
                outbound.metrics.redis_proxy_errors.with_label_values(&["get"]).inc();
                tracing::warn!(key, error, "a key of this cluster's redis cannot be read for the principal");
                RedisAnswer::Get { bytes: None, hit: false, error }
            }
        };
        // The value stays in memory until it is sent; so long no other is read.
        if let Err(unsent) = send(&outbound, &uuid, connection.clone(), answer, until).await {
            outbound.metrics.redis_proxy_errors.with_label_values(&["get"]).inc();
            tracing::warn!(key, %unsent, "a value of this cluster's redis was not sent");
            if unsent == Unsent::TooLarge {
                let error = format!("the value is {unsent}");
                let answer = RedisAnswer::Get { bytes: None, hit: false, error };
                drop(send(&outbound, &uuid, connection, answer, until));
            }
        }
    }
}
