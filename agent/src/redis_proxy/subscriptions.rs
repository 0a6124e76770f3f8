//! What the principal listens to in this cluster's Redis: over one connection, which is made again when it is lost, for as long
//! as the principal says that it still listens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tiphys_shared::model::redis::RedisAnswer;
use tiphys_shared::process::backoff::{Backoff, Schedule};
use tiphys_shared::redis::{Config, Error, Subscriber};
use tiphys_shared::wire::pump::Outgoing;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::event;
use super::translate::{Local, Refused, is_shared};
use crate::outbound::Outbound;

/// How long the principal may be silent about a connection.
const SILENCE: Duration = Duration::from_secs(600);
/// How often it is looked whether it is.
const LOOK: Duration = Duration::from_secs(60);
/// Subscriptions that there may be.
const MOST: usize = 16 * 1024;

/// Subscriptions of the principal.
#[derive(Debug)]
pub(super) struct Subscriptions {
    redis: Config,
    outbound: Arc<Outbound>,
    listeners: Mutex<Listeners>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Listeners {
    /// By what the request was called.
    all: BTreeMap<String, Listener>,
    /// When something was heard last of each connection.
    connections: BTreeMap<String, Instant>,
}

#[derive(Clone, Debug)]
struct Listener {
    local: Local,
    /// What the principal calls the channel.
    channel: String,
    connection: String,
}

impl Listeners {
    fn channels(&self) -> BTreeSet<String> {
        self.all.values().map(|listener| listener.local.name.clone()).collect()
    }

    fn expire(&mut self, now: Instant) {
        self.connections.retain(|_, heard| now.duration_since(*heard) < SILENCE);
        let connections = &self.connections;
        self.all.retain(|_, listener| connections.contains_key(&listener.connection));
    }
}

impl Subscriptions {
    pub(super) fn new(redis: Config, outbound: Arc<Outbound>) -> Self {
        Self { redis, outbound, listeners: Mutex::default(), changed: Notify::new() }
    }

    /// The principal still listens on this connection.
    pub(super) fn touch(&self, connection: &str) {
        if let Some(heard) = self.listeners.lock().connections.get_mut(connection) {
            *heard = Instant::now();
        }
    }

    /// The principal listens from now on.
    pub(super) fn add(
        &self,
        local: Local,
        channel: &str,
        uuid: &str,
        connection: &str,
    ) -> Result<(), Refused> {
        let mut listeners = self.listeners.lock();
        if listeners.all.len() >= MOST {
            return Err(Refused::TooMany);
        }
        let (channel, connection) = (channel.to_owned(), connection.to_owned());
        listeners.connections.insert(connection.clone(), Instant::now());
        let listener = Listener { local, channel, connection };
        listeners.all.insert(uuid.to_owned(), listener);
        self.outbound.metrics.redis_proxy_subscriptions.set(count(&listeners));
        drop(listeners);
        self.changed.notify_one();
        Ok(())
    }

    /// Listens, as long as there is anything to listen to.
    pub(super) async fn run(&self) {
        let mut backoff = Backoff::random(Schedule::default());
        let mut is_away = false;
        loop {
            if self.listeners.lock().all.is_empty() {
                self.changed.notified().await;
                continue;
            }
            let began = Instant::now();
            let Err(error) = self.listen(&mut is_away).await else { continue };
            if !std::mem::replace(&mut is_away, true) {
                tracing::warn!(%error, "argocd's redis does not tell what changes; trying on");
            }
            tokio::time::sleep(backoff.next_delay(began.elapsed())).await;
            self.expire();
        }
    }

    /// Listens until there is nothing to listen to any more, or the connection is lost.
    async fn listen(&self, is_away: &mut bool) -> Result<(), Error> {
        let mut redis = Subscriber::connect(&self.redis).await?;
        let mut heard = BTreeSet::new();
        let mut look = tokio::time::interval(LOOK);
        loop {
            let wanted = self.listeners.lock().channels();
            for channel in heard.difference(&wanted) {
                redis.unsubscribe(channel).await?;
            }
            for channel in wanted.difference(&heard) {
                redis.subscribe(channel).await?;
                // What was published before is not known.
                self.tell(channel);
            }
            if std::mem::take(is_away) {
                tracing::info!("argocd's redis tells again what changes");
            }
            if wanted.is_empty() {
                return Ok(());
            }
            heard = wanted;
            tokio::select! {
                biased;
                () = self.changed.notified() => {}
                _ = look.tick() => self.expire(),
                channel = redis.next() => self.tell(&channel?),
            }
        }
    }

    fn expire(&self) {
        let mut listeners = self.listeners.lock();
        listeners.expire(Instant::now());
        self.outbound.metrics.redis_proxy_subscriptions.set(count(&listeners));
    }

    /// Tells the principal that something was published. As often as it is, until that is acknowledged once is enough.
    fn tell(&self, channel: &str) {
        let told: Vec<(String, Listener)> = {
            let listeners = self.listeners.lock();
            let all = listeners.all.iter().filter(|(_, listener)| listener.local.name == channel);
            all.map(|(uuid, listener)| (uuid.clone(), listener.clone())).collect()
        };
        for (uuid, listener) in told {
            if !is_shared(&self.outbound, &listener.local.application) {
                continue;
            }
            let body = RedisAnswer::PushFromSubscribe { channel: listener.channel };
            let event = event(&uuid, listener.connection, body);
            let message = Outgoing::Message(Box::new(event));
            self.outbound.outbox.fill(|outbox| outbox.request(format!("redis/{uuid}"), message));
        }
    }
}

fn count(listeners: &Listeners) -> i64 {
    i64::try_from(listeners.all.len()).unwrap_or(i64::MAX)
}
