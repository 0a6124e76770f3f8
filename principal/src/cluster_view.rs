//! Argo CD's cluster view: which agents are connected, and what is on their clusters.
//!
//! Argo CD keeps that in its Redis, where entries live for ten minutes. Nothing is written from where something happens:
//! an agent is marked, and what is true when its turn comes is written. So a late word of an old stream cannot overwrite
//! what a newer one said, and Redis may be away for as long as it likes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tiphys_shared::model::AgentName;
use tiphys_shared::model::cluster::{ClusterInfo, Compression, ConnectionState, Counts};
use tiphys_shared::process::clock;
use tiphys_shared::redis::{self, Redis};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::agents::Agents;
use crate::clusters::Clusters;

/// How long Argo CD believes an entry.
const LIFE: Duration = Duration::from_secs(600);
/// How often entries are written that have not changed.
const REFRESH: Duration = Duration::from_secs(180);
/// Pause between two rounds of writing, so that an agent whose figures change all the time does not keep Redis busy.
const PACE: Duration = Duration::from_millis(200);

/// Where Argo CD's cluster view is kept.
#[derive(Clone, Debug)]
pub struct ClusterViewConfig {
    /// Argo CD's Redis.
    pub redis: redis::Config,
    /// How entries are packed there.
    pub compression: Compression,
}

/// What is to be written, shared with those who know.
#[derive(Debug, Default)]
pub(crate) struct ClusterView {
    marked: Mutex<BTreeMap<AgentName, Mark>>,
    counts: Mutex<BTreeMap<AgentName, Counts>>,
    changed: Notify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// It may have another cluster Secret than before.
    LookUp,
    /// Only what is known of it has changed.
    Changed,
}

impl ClusterView {
    /// An agent has come or gone.
    pub(crate) fn came_or_went(&self, agent: &AgentName) {
        self.mark(agent, Mark::LookUp);
    }

    /// An agent tells what is on its cluster.
    pub(crate) fn note_counts(&self, agent: &AgentName, counts: Counts) {
        if self.counts.lock().insert(agent.clone(), counts) != Some(counts) {
            self.mark(agent, Mark::Changed);
        }
    }

    fn mark(&self, agent: &AgentName, mark: Mark) {
        let mut marked = self.marked.lock();
        let known = marked.entry(agent.clone()).or_insert(mark);
        if mark == Mark::LookUp {
            *known = mark;
        }
        drop(marked);
        self.changed.notify_one();
    }
}

/// The one who writes.
pub(crate) struct Writer {
    pub(crate) view: Arc<ClusterView>,
    pub(crate) agents: Arc<Agents>,
    clusters: Clusters,
    redis: Redis,
    compression: Compression,
    /// Server URLs; none for an agent without a cluster Secret.
    servers: BTreeMap<AgentName, Option<String>>,
    secrets_unreadable: bool,
}

/// Something has to be tried again later.
struct Later;

impl Writer {
    pub(crate) fn new(config: ClusterViewConfig, agents: Arc<Agents>, clusters: Clusters) -> Self {
        Self {
            view: Arc::default(),
            agents,
            clusters,
            redis: Redis::new(config.redis),
            compression: config.compression,
            servers: BTreeMap::new(),
            secrets_unreadable: false,
        }
    }

    /// Writes until cancelled.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let view = Arc::clone(&self.view);
        let mut refresh = tokio::time::interval_at(Instant::now() + REFRESH, REFRESH);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut all = false;
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                _ = refresh.tick() => all = true,
                () = view.changed.notified() => {}
            }
            loop {
                let outcome = tokio::select! {
                    biased;
                    () = cancel.cancelled() => return,
                    outcome = self.round(all) => outcome,
                };
                let pause = match outcome {
                    Ok(()) => PACE,
                    Err(Later) => self.redis.pause(),
                };
                all &= outcome.is_err();
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                if outcome.is_ok() {
                    break;
                }
            }
        }
    }

    /// Writes what is marked; everything, if that is wanted.
    async fn round(&mut self, all: bool) -> Result<(), Later> {
        if all {
            let found = self.clusters.servers().await;
            let servers = self.check(found)?;
            self.servers = servers.into_iter().map(|(agent, server)| (agent, Some(server))).collect();
            let mut marked = self.view.marked.lock();
            for agent in self.servers.keys() {
                marked.entry(agent.clone()).or_insert(Mark::Changed);
            }
        }
        loop {
            let next = self.view.marked.lock().first_key_value().map(|(agent, mark)| (agent.clone(), *mark));
            let Some((agent, mark)) = next else { return Ok(()) };
            // What changes while it is written marks it once more.
            self.view.marked.lock().remove(&agent);
            if let Err(later) = self.write(&agent, mark).await {
                self.view.mark(&agent, mark);
                return Err(later);
            }
        }
    }

    async fn write(&mut self, agent: &AgentName, mark: Mark) -> Result<(), Later> {
        if mark == Mark::LookUp || !self.servers.contains_key(agent) {
            let found = self.clusters.of(agent).await;
            let cluster = self.check(found)?;
            self.servers.insert(agent.clone(), cluster.map(|cluster| cluster.server));
        }
        let server = self.servers.get(agent).and_then(Option::as_deref).filter(|server| !server.is_empty());
        let Some(server) = server else {
            tracing::debug!(%agent, "there is no cluster secret for the agent, so argocd does not show it");
            return Ok(());
        };
        let key = ClusterInfo::key(server, self.compression);
        let kept = self.redis.get(&key).await.map_err(|_| Later)?;
        let kept = kept.and_then(|entry| ClusterInfo::decode(&entry, self.compression).ok());
        let session = self.agents.get(agent).map(|agent| agent.connected_since());
        let counts = self.view.counts.lock().get(agent).copied();
        let Some(info) = merge(agent, kept, session, counts, clock::now()) else { return Ok(()) };
        match info.encode(self.compression) {
            Ok(entry) => self.redis.set(&key, &entry, LIFE).await.map_err(|_| Later),
            Err(error) => {
                tracing::error!(%agent, %error, "the state of the agent's cluster cannot be written");
                Ok(())
            }
        }
    }

    /// Says once that cluster Secrets cannot be read.
    fn check<T>(&mut self, found: Result<T, kube::Error>) -> Result<T, Later> {
        match found {
            Ok(found) => {
                self.secrets_unreadable = false;
                Ok(found)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.secrets_unreadable, true) {
                    tracing::warn!(%error, "cluster secrets cannot be read, so argocd's cluster view is not kept current; trying on");
                }
                Err(Later)
            }
        }
    }
}

/// What is true of an agent's cluster now. Nothing, if there is nothing to say: it never came, and nothing is shown of it.
///
/// `session` is none for an agent that has not come since this process started, and tells since when it is connected
/// otherwise.
fn merge(
    agent: &AgentName,
    kept: Option<ClusterInfo>,
    session: Option<Option<Timestamp>>,
    counts: Option<Counts>,
    now: Timestamp,
) -> Option<ClusterInfo> {
    if session.is_none() && kept.is_none() {
        return None;
    }
    let mut info = kept.unwrap_or_default();
    match session.flatten() {
        Some(since) => info.connection_state = ConnectionState::connected(agent.as_str(), since),
        None => {
            let state = ConnectionState::disconnected(agent.as_str(), now);
            // When it went is known better by who wrote it first.
            if !info.connection_state.says_the_same(&state) {
                info.connection_state = state;
            }
        }
    }
    if let Some(counts) = counts {
        info.set_counts(counts);
    }
    Some(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SINCE: Timestamp = Timestamp::UNIX_EPOCH;

    fn later() -> Timestamp {
        SINCE + jiff::SignedDuration::from_secs(60)
    }

    fn agent() -> AgentName {
        AgentName::new("edge-1").unwrap()
    }

    #[test]
    fn an_agent_that_comes_and_goes_is_shown_so_with_the_figures_that_it_told() {
        let counts = Counts { applications_count: 1, apis_count: 2, resources_count: 3 };
        let came = merge(&agent(), None, Some(Some(SINCE)), Some(counts), later()).unwrap();
        assert_eq!(came.connection_state, ConnectionState::connected("edge-1", SINCE));
        let went = merge(&agent(), Some(came), Some(None), Some(counts), later()).unwrap();
        assert_eq!(went.connection_state, ConnectionState::disconnected("edge-1", later()));
        assert_eq!(went.counts(), counts);
        let again = later() + jiff::SignedDuration::from_secs(60);
        let refreshed = merge(&agent(), Some(went.clone()), Some(None), Some(counts), again).unwrap();
        assert_eq!(refreshed, went, "a refresh moves the time of the end");
    }

    #[test]
    fn an_agent_that_did_not_come_back_after_a_restart_is_not_shown_as_connected() {
        assert_eq!(merge(&agent(), None, None, None, later()), None);
        let mut kept = ClusterInfo {
            connection_state: ConnectionState::connected("edge-1", SINCE),
            ..ClusterInfo::default()
        };
        kept.cache_info.last_cache_sync_time = Some("2026-11-21T15:00:00Z".to_owned());
        kept.applications_count = 7;
        let info = merge(&agent(), Some(kept.clone()), None, None, later()).unwrap();
        assert_eq!(info.connection_state, ConnectionState::disconnected("edge-1", later()));
        assert_eq!((info.applications_count, info.cache_info), (7, kept.cache_info));
    }

    #[test]
    fn figures_that_do_not_change_are_not_written_again() {
        let view = ClusterView::default();
        let counts = Counts { applications_count: 1, ..Counts::default() };
        view.note_counts(&agent(), counts);
        assert_eq!(view.marked.lock().remove(&agent()), Some(Mark::Changed));
        view.note_counts(&agent(), counts);
        assert!(view.marked.lock().is_empty());
        view.came_or_went(&agent());
        view.note_counts(&agent(), Counts::default());
        assert_eq!(view.marked.lock().get(&agent()), Some(&Mark::LookUp), "the secret is not looked up");
    }
}
