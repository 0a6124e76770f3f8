//! Subscriptions of Argo CD to what changes at clusters: each channel that anybody follows is a task, which sees to it that the
//! agent listens, whatever becomes of the agent, its connection and its Application, for as long as somebody follows.
//!
//! Followers have subscribed to the control plane's Redis; what is heard of a cluster is published there.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::IntGauge;
use tiphys_shared::model::cache_key::CacheKey;
use tiphys_shared::process::backoff::{Backoff, Schedule};
use tiphys_shared::redis::{self, Redis};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::remote::{Failure, Subscription};
use super::route::Router;
use crate::agents::Agent;
use crate::metrics::Metrics;

/// Channels that are followed at once.
const CHANNELS: usize = 16 * 1024;

/// Who follows what.
pub(super) struct Subscriptions {
    /// Number of followers of each channel.
    wanted: Mutex<BTreeMap<String, usize>>,
    changed: Notify,
    news: Arc<News>,
    router: Arc<Router>,
    metrics: Arc<Metrics>,
    redis: redis::Config,
}

/// Channels of which followers are to be told.
#[derive(Default)]
struct News {
    channels: Mutex<BTreeSet<String>>,
    added: Notify,
}

impl News {
    fn add(&self, channel: &str) {
        self.channels.lock().insert(channel.to_owned());
        self.added.notify_one();
    }
}

/// Follows a channel until it is dropped.
pub(super) struct Follower {
    channel: String,
    of: Arc<Subscriptions>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut wanted = self.of.wanted.lock();
        if let Some(followers) = wanted.get_mut(&self.channel) {
            *followers -= 1;
            if *followers == 0 {
                wanted.remove(&self.channel);
                self.of.changed.notify_one();
            }
        }
    }
}

impl Subscriptions {
    pub(super) fn new(redis: redis::Config, router: Arc<Router>, metrics: Arc<Metrics>) -> Self {
        Self {
            wanted: Mutex::default(),
            changed: Notify::new(),
            news: Arc::default(),
            router,
            metrics,
            redis,
        }
    }

    /// Follows a channel. None if too many are followed already.
    pub(super) fn follow(self: &Arc<Self>, channel: &str) -> Option<Follower> {
        let mut wanted = self.wanted.lock();
        if wanted.len() >= CHANNELS && !wanted.contains_key(channel) {
            self.metrics.redis_proxy_refused.with_label_values(&["channels"]).inc();
            return None;
        }
        let followers = wanted.entry(channel.to_owned()).or_default();
        *followers += 1;
        if *followers == 1 {
            self.changed.notify_one();
        }
        Some(Follower { channel: channel.to_owned(), of: Arc::clone(self) })
    }

    /// Sees to all of it. Whatever runs for it ends with it.
    pub(super) async fn run(&self) {
        tokio::join!(self.supervise(), self.publish());
    }

    async fn supervise(&self) {
        let mut tasks: BTreeMap<String, AbortOnDropHandle<()>> = BTreeMap::new();
        loop {
            let wanted: BTreeSet<String> = self.wanted.lock().keys().cloned().collect();
            tasks.retain(|channel, task| wanted.contains(channel) && !task.is_finished());
            for channel in wanted {
                tasks.entry(channel).or_insert_with_key(|channel| {
                    let followed = Followed {
                        channel: channel.clone(),
                        news: Arc::clone(&self.news),
                        router: Arc::clone(&self.router),
                        metrics: Arc::clone(&self.metrics),
                    };
                    AbortOnDropHandle::new(tokio::spawn(followed.run()))
                });
            }
            self.metrics.redis_proxy_channels.set(i64::try_from(tasks.len()).unwrap_or(i64::MAX));
            self.changed.notified().await;
        }
    }

    /// Tells followers. What cannot be told now is told when Redis is back.
    async fn publish(&self) {
        let mut redis = Redis::new(self.redis.clone());
        loop {
            let next = self.news.channels.lock().pop_first();
            match next {
                None => self.news.added.notified().await,
                Some(channel) => {
                    if redis.publish(&channel).await.is_err() {
                        self.news.add(&channel);
                        tokio::time::sleep(redis.pause()).await;
                    }
                }
            }
        }
    }
}

/// One channel that is followed.
struct Followed {
    channel: String,
    news: Arc<News>,
    router: Arc<Router>,
    metrics: Arc<Metrics>,
}

/// Counts what listens.
struct Listening(IntGauge);

impl Listening {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Followed {
    async fn run(self) {
        let mut moves = self.router.agents.moves();
        let mut backoff = Backoff::random(Schedule::default());
        let mut missed = false;
        let mut told = false;
        loop {
            moves.borrow_and_update();
            let Some(agent) = self.agent().await else {
                missed = true;
                if moves.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let began = Instant::now();
            let failure = match self.subscribe(&agent).await {
                Err(failure) => failure,
                Ok(subscription) => {
                    // What was published meanwhile is not known; our own agents tell so themselves when they begin.
                    if std::mem::replace(&mut missed, true) || !agent.is_tiphys() {
                        self.news.add(&self.channel);
                    }
                    if std::mem::take(&mut told) {
                        tracing::info!(agent = %agent.name, channel = self.channel, "the agent listens again");
                    }
                    match self.listen(&agent, subscription, &mut moves).await {
                        Some(failure) => failure,
                        None => continue,
                    }
                }
            };
            let worked = began.elapsed();
            missed = true;
            self.metrics.redis_proxy_errors.with_label_values(&[agent.name.as_str(), "subscribe"]).inc();
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(
                    agent = %agent.name, channel = self.channel, reason = %failure,
                    "the agent does not listen; trying on"
                );
            }
            let pause = match failure {
                // There will be word of the next connection.
                Failure::NotConnected | Failure::Ended => Duration::MAX,
                _ => backoff.next_delay(worked),
            };
            tokio::select! {
                biased;
                changed = moves.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// The agent that the channel belongs to, if it is connected.
    async fn agent(&self) -> Option<Arc<Agent>> {
        let name = self.router.agent_of(&CacheKey::parse(&self.channel)?).await?;
        self.router.agents.get(&name).filter(|agent| agent.session_token().is_some())
    }

    async fn subscribe(&self, agent: &Arc<Agent>) -> Result<Subscription, Failure> {
        self.metrics.redis_proxy_requests.with_label_values(&[agent.name.as_str(), "subscribe"]).inc();
        Subscription::begin(Arc::clone(agent), &self.channel).await
    }

    /// Passes on what is heard until the agent does not listen any more; nothing, if the channel is not the agent's any more.
    async fn listen(
        &self,
        agent: &Arc<Agent>,
        subscription: Subscription,
        moves: &mut tokio::sync::watch::Receiver<u64>,
    ) -> Option<Failure> {
        let _listening = Listening::new(&self.metrics.redis_proxy_listening);
        let mut lost = pin!(subscription.lost());
        loop {
            tokio::select! {
                biased;
                failure = &mut lost => return Some(failure),
                () = subscription.published() => self.news.add(&self.channel),
                changed = moves.changed() => {
                    let same = self.agent().await.is_some_and(|now| Arc::ptr_eq(&now, agent));
                    if changed.is_err() || !same {
                        return None;
                    }
                }
            }
        }
    }
}
