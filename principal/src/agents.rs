//! Who is connected: a session per agent, fenced by a generation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tiphys_shared::kube::recorder::Recorder;
use tiphys_shared::model::event::ResourceResponse;
use tiphys_shared::model::{AgentName, Mode};
use tiphys_shared::process::clock;
use tiphys_shared::protocol::resync::cache::Trees;
use tiphys_shared::security::blocklist::{Blocked, Blocklist};
use tiphys_shared::wire::pump::SharedOutbox;
use tiphys_shared::wire::traces::{Journeys, Traces};
use tiphys_shared::wire::tunnel::Requester;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::news::News;
use crate::problems::Problems;
use crate::proxy::events;
use crate::redis_proxy::remote::Awaited;

/// How long a tunnel is waited for that an agent opens after its session, in place of one that broke, or once it is back
/// from having gone.
const TUNNEL_PATIENCE: Duration = Duration::from_secs(5);

/// One agent that has connected since this process started. Its outbox outlives its sessions.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) name: AgentName,
    pub(crate) mode: Mode,
    pub(crate) outbox: Arc<SharedOutbox>,
    /// What Argo CD calls its cluster: the destination of what it owns.
    cluster: Mutex<Option<String>>,
    /// It has heard that it shall name what it has; from then on this process knows of every change.
    asked: AtomicBool,
    /// Whether it is of ours, by its last connection.
    tiphys: AtomicBool,
    /// Whether it serves its cluster's API, by its last connection.
    serves: AtomicBool,
    /// Told of each tunnel that is taken into use.
    attached: Notify,
    /// From the change that it acknowledged last to the acknowledgement.
    lag: Mutex<Option<Duration>>,
    /// What it was last compared with.
    pub(crate) trees: Trees,
    /// What is awaited of its cluster's Redis.
    pub(crate) redis: Awaited,
    /// What is awaited of its cluster's API, if it has to be asked by events.
    pub(crate) resources: events::Awaited<ResourceResponse>,
    /// Its logs and terminals, if it is not of ours.
    pub(crate) streams: events::Streams,
    session: Mutex<Session>,
}

impl Agent {
    /// What Argo CD calls its cluster.
    pub(crate) fn cluster(&self) -> String {
        self.cluster.lock().clone().unwrap_or_else(|| self.name.to_string())
    }

    /// Takes note of what Argo CD calls its cluster.
    pub(crate) fn note_cluster(&self, name: String) {
        *self.cluster.lock() = Some(name);
    }

    /// Takes note of how long it took until it acknowledged a change.
    pub(crate) fn note_lag(&self, lag: Duration) {
        *self.lag.lock() = Some(lag);
    }

    /// Since when it is connected; none if it is not.
    pub(crate) fn connected_since(&self) -> Option<Timestamp> {
        self.session.lock().live.as_ref().map(|live| live.since)
    }

    /// Takes a tunnel into use for as long as the session lasts, in place of the one before. Returns what ends it; none if
    /// there is no session.
    pub(crate) fn attach(&self, requester: Requester) -> Option<CancellationToken> {
        let mut session = self.session.lock();
        let live = session.live.as_mut()?;
        let cancel = live.cancel.child_token();
        if let Some(older) = live.tunnel.replace(Tunnel { requester, cancel: cancel.clone() }) {
            older.cancel.cancel();
        }
        self.attached.notify_waiters();
        Some(cancel)
    }

    /// The way to its cluster; one that is about to come is waited for, also if the agent has gone just now: it does so for a
    /// new certificate, and is back at once.
    pub(crate) async fn way(&self) -> Result<Requester, Away> {
        let deadline = tokio::time::Instant::now() + TUNNEL_PATIENCE;
        loop {
            let mut attached = std::pin::pin!(self.attached.notified());
            attached.as_mut().enable();
            let found = self.tunnel();
            let may_come = match &found {
                Ok(_) => false,
                Err(Away::NoTunnel) => true,
                Err(Away::Disconnected { since }) => since
                    .is_some_and(|since| clock::now().duration_since(since).unsigned_abs() < TUNNEL_PATIENCE),
            };
            let waits = may_come && self.serves.load(Ordering::Relaxed);
            if !waits || tokio::time::timeout_at(deadline, attached).await.is_err() {
                return found;
            }
        }
    }

    /// The way to its cluster as it is now.
    fn tunnel(&self) -> Result<Requester, Away> {
        let session = self.session.lock();
        match &session.live {
            None => Err(Away::Disconnected { since: session.ended }),
            Some(Live { tunnel: Some(tunnel), .. }) if !tunnel.requester.is_closed() => {
                Ok(tunnel.requester.clone())
            }
            Some(_) => Err(Away::NoTunnel),
        }
    }

    /// Cancelled when the present connection ends; none if it is not connected.
    pub(crate) fn session_token(&self) -> Option<CancellationToken> {
        self.session.lock().live.as_ref().map(|live| live.cancel.clone())
    }

    /// Whether it is of ours, by its last connection.
    pub(crate) fn is_tiphys(&self) -> bool {
        self.tiphys.load(Ordering::Relaxed)
    }

    /// Takes note of whether it is of ours.
    pub(crate) fn note_tiphys(&self, is_tiphys: bool) {
        self.tiphys.store(is_tiphys, Ordering::Relaxed);
    }

    /// Takes note of whether it serves its cluster's API.
    pub(crate) fn note_serves(&self, serves: bool) {
        self.serves.store(serves, Ordering::Relaxed);
    }

    /// Whether it has heard that it shall name what it has.
    pub(crate) fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// It has heard that it shall name what it has.
    pub(crate) fn note_asked(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Session {
    generation: u64,
    live: Option<Live>,
    /// When the last one ended.
    ended: Option<Timestamp>,
}

#[derive(Debug)]
struct Live {
    cancel: CancellationToken,
    since: Timestamp,
    tunnel: Option<Tunnel>,
}

#[derive(Debug)]
struct Tunnel {
    requester: Requester,
    cancel: CancellationToken,
}

/// Why there is no way to an agent's cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Away {
    /// The agent is not connected.
    Disconnected {
        /// Since then.
        since: Option<Timestamp>,
    },
    /// It is connected, and has no tunnel open.
    NoTunnel,
}

/// A session as its stream holds it. Ends by its own hand, or when a newer one takes its place.
#[derive(Debug)]
pub(crate) struct SessionHandle {
    pub(crate) agent: Arc<Agent>,
    pub(crate) cancel: CancellationToken,
    pub(crate) since: Timestamp,
    /// First session of this agent with this process: nothing is known of what the agent holds.
    pub(crate) is_first: bool,
    generation: u64,
}

impl SessionHandle {
    /// Whether this session was still the agent's newest when it ended.
    pub(crate) fn end(self, now: Timestamp) -> bool {
        let mut session = self.agent.session.lock();
        let newest = session.generation == self.generation;
        // Whoever still waits for an answer on it waits in vain.
        self.cancel.cancel();
        if newest {
            session.live = None;
            session.ended = Some(now);
        }
        newest
    }
}

/// One row of the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentStatus {
    /// Name of the agent.
    pub name: AgentName,
    /// Mode of the agent.
    pub mode: Mode,
    /// Since when it is connected; none if it is not.
    pub connected_since: Option<Timestamp>,
    /// Since when it is not connected any more; none if it is.
    pub disconnected_since: Option<Timestamp>,
    /// Resources that it has yet to acknowledge.
    pub outbox: usize,
    /// Age of the oldest change that it has yet to acknowledge.
    pub behind: Duration,
    /// From the change that it acknowledged last to the acknowledgement.
    pub lag: Option<Duration>,
    /// What it says to be, by its last login; empty if it has not logged in with this process.
    pub version: String,
    /// When the client certificate ends with which it last logged in.
    pub certificate_expiry: Option<Timestamp>,
}

/// What is known of an agent from its login.
#[derive(Clone, Debug, Default)]
pub(crate) struct Login {
    pub(crate) version: String,
    pub(crate) certificate_expiry: Option<Timestamp>,
    /// Of the same certificate.
    pub(crate) fingerprint: Option<String>,
}

/// All agents that have connected since this process started.
#[derive(Debug, Default)]
pub(crate) struct Agents {
    agents: Mutex<BTreeMap<AgentName, Arc<Agent>>>,
    logins: Mutex<BTreeMap<AgentName, Login>>,
    /// Where the traces of what they are told go.
    traces: Traces,
    /// What went wrong with them of late.
    pub(crate) problems: Problems,
    /// What is told of them in Kubernetes.
    pub(crate) news: News,
    /// The certificates that are refused.
    blocklist: Blocklist,
    moves: watch::Sender<u64>,
}

impl Agents {
    /// None yet. What they will be told is traced, and what becomes of them is recorded.
    pub(crate) fn new(traces: Traces, recorder: Recorder, blocklist: Blocklist) -> Self {
        Self { traces, news: News::new(recorder), blocklist, ..Self::default() }
    }

    pub(crate) fn get(&self, name: &AgentName) -> Option<Arc<Agent>> {
        self.agents.lock().get(name).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Agent>> {
        self.agents.lock().values().cloned().collect()
    }

    /// Changes when an agent has come or gone, or an Application may belong to another agent than before.
    pub(crate) fn moves(&self) -> watch::Receiver<u64> {
        self.moves.subscribe()
    }

    /// An agent has come or gone, or an Application may belong to another agent.
    pub(crate) fn note_move(&self) {
        self.moves.send_modify(|moves| *moves = moves.wrapping_add(1));
    }

    /// The agents of one mode.
    pub(crate) fn of_mode(&self, mode: Mode) -> impl Iterator<Item = Arc<Agent>> {
        self.all().into_iter().filter(move |agent| agent.mode == mode)
    }

    pub(crate) fn connected(&self) -> usize {
        self.all().iter().filter(|agent| agent.session.lock().live.is_some()).count()
    }

    /// Takes note of what an agent has shown when it logged in.
    pub(crate) fn note_login(&self, name: &AgentName, login: Login) {
        self.logins.lock().insert(name.clone(), login);
    }

    /// Whether the certificate is blocked now with which it last logged in.
    pub(crate) fn revoked(&self, name: &AgentName) -> Option<Blocked> {
        let logins = self.logins.lock();
        self.blocklist.check(logins.get(name)?.fingerprint.as_deref()?).err()
    }

    /// The version that it told when it last logged in.
    pub(crate) fn version(&self, name: &AgentName) -> String {
        self.logins.lock().get(name).map(|login| login.version.clone()).unwrap_or_default()
    }

    pub(crate) fn status(&self) -> Vec<AgentStatus> {
        let agents = self.all();
        let logins = self.logins.lock();
        let status = |agent: Arc<Agent>| {
            let Login { version, certificate_expiry, .. } =
                logins.get(&agent.name).cloned().unwrap_or_default();
            let (connected_since, ended) = {
                let session = agent.session.lock();
                (session.live.as_ref().map(|live| live.since), session.ended)
            };
            AgentStatus {
                name: agent.name.clone(),
                mode: agent.mode,
                connected_since,
                disconnected_since: ended.filter(|_| connected_since.is_none()),
                outbox: agent.outbox.read(|outbox| outbox.len()),
                behind: agent.outbox.behind(),
                lag: *agent.lag.lock(),
                version,
                certificate_expiry,
            }
        };
        agents.into_iter().map(status).collect()
    }

    /// Opens a session. The one before it, however alive it looks, is cancelled at once.
    pub(crate) fn connect(
        &self,
        name: &AgentName,
        mode: Mode,
        parent: &CancellationToken,
        now: Timestamp,
    ) -> SessionHandle {
        let agent = {
            let mut agents = self.agents.lock();
            match agents.get(name) {
                Some(known) if known.mode == mode => Arc::clone(known),
                known => {
                    // In another mode it owns other things: nothing that waits for it makes sense any more.
                    if let Some(live) = known.and_then(|known| known.session.lock().live.take()) {
                        live.cancel.cancel();
                    }
                    let fresh = Arc::new(Agent {
                        name: name.clone(),
                        mode,
                        outbox: Arc::new(SharedOutbox::new(Journeys::new(
                            self.traces.clone(),
                            name.as_str(),
                            false,
                        ))),
                        cluster: Mutex::default(),
                        asked: AtomicBool::new(false),
                        tiphys: AtomicBool::new(false),
                        serves: AtomicBool::new(false),
                        attached: Notify::new(),
                        lag: Mutex::default(),
                        trees: Trees::default(),
                        redis: Awaited::default(),
                        resources: events::Awaited::default(),
                        streams: events::Streams::default(),
                        session: Mutex::default(),
                    });
                    agents.insert(name.clone(), Arc::clone(&fresh));
                    fresh
                }
            }
        };
        let cancel = parent.child_token();
        let mut session = agent.session.lock();
        session.generation += 1;
        let generation = session.generation;
        if let Some(older) = session.live.replace(Live { cancel: cancel.clone(), since: now, tunnel: None }) {
            tracing::info!(agent = %name, since = %older.since, "a newer connection takes the place of an open one");
            older.cancel.cancel();
        }
        drop(session);
        self.note_move();
        SessionHandle { agent, cancel, since: now, is_first: generation == 1, generation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_changed_its_mode_starts_afresh() {
        let agents = Agents::default();
        let name = AgentName::new("a").unwrap();
        let root = CancellationToken::new();
        let managed = agents.connect(&name, Mode::Managed, &root, Timestamp::UNIX_EPOCH);
        let autonomous = agents.connect(&name, Mode::Autonomous, &root, Timestamp::UNIX_EPOCH);
        assert!(managed.cancel.is_cancelled());
        assert!(autonomous.is_first);
        assert!(!Arc::ptr_eq(&managed.agent.outbox, &autonomous.agent.outbox));
        managed.end(Timestamp::UNIX_EPOCH);
        assert_eq!(agents.connected(), 1);
    }

    #[test]
    fn a_newer_session_fences_the_older_at_once_and_keeps_the_outbox() {
        let agents = Agents::default();
        let name = AgentName::new("a").unwrap();
        let root = CancellationToken::new();
        let first = agents.connect(&name, Mode::Managed, &root, Timestamp::UNIX_EPOCH);
        let second = agents.connect(&name, Mode::Managed, &root, Timestamp::UNIX_EPOCH);
        assert!(first.cancel.is_cancelled());
        assert!(!second.cancel.is_cancelled());
        assert!(first.is_first && !second.is_first);
        assert!(Arc::ptr_eq(&first.agent, &second.agent));
        assert!(!first.end(Timestamp::UNIX_EPOCH), "the end of the older session was taken for the agent's");
        assert_eq!(agents.connected(), 1);
        assert!(second.end(Timestamp::UNIX_EPOCH));
        assert_eq!(agents.connected(), 0);
    }
}
