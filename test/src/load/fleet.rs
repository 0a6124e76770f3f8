//! Many agents of the wire protocol against one principal.

mod agent;
mod identity;
mod message;
mod report;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use parking_lot::Mutex;
use tiphys_shared::model::agent::Mode;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

pub use self::identity::{Authority, Identities, Login, htpasswd};
pub use self::report::Report;
use super::latency::Latencies;
use super::pace::{MOST, Pace};
use super::procfs::{self, Cost, Sample};

/// What to do.
#[derive(Clone)]
pub struct Plan {
    /// The principal's host.
    pub host: String,
    /// The principal's port.
    pub port: u16,
    /// How many agents.
    pub count: usize,
    /// The mode that they declare.
    pub mode: Mode,
    /// The version that they declare. Some principals accept only their own.
    pub version: String,
    /// The namespace that they declare as their own.
    pub namespace: String,
    /// How fast they connect.
    pub pace: Pace,
    /// How long they stay once all are connected.
    pub hold: Duration,
    /// How many status updates per second they send, all together.
    pub status_rate: f64,
    /// How long one may take to connect.
    pub connect_timeout: Duration,
    /// The principal's process, when it runs here.
    pub pid: Option<u32>,
}

/// What all agents write into.
struct Tally {
    dial: Mutex<Latencies>,
    authenticate: Mutex<Latencies>,
    open: Mutex<Latencies>,
    delivery: Mutex<Latencies>,
    acknowledged: Mutex<Latencies>,
    failures: Mutex<BTreeMap<String, u64>>,
    lost: Mutex<BTreeMap<String, u64>>,
    received: Mutex<BTreeMap<String, u64>>,
    acks_sent: AtomicU64,
    updates_sent: AtomicU64,
    updates_held_back: AtomicU64,
    streams_open: AtomicU64,
    /// How many are there at this moment.
    present: AtomicU64,
}

impl Tally {
    fn new() -> anyhow::Result<Self> {
        let latencies = || Latencies::new().map(Mutex::new);
        Ok(Self {
            dial: latencies()?,
            authenticate: latencies()?,
            open: latencies()?,
            delivery: latencies()?,
            acknowledged: latencies()?,
            failures: Mutex::default(),
            lost: Mutex::default(),
            received: Mutex::default(),
            acks_sent: AtomicU64::new(0),
            updates_sent: AtomicU64::new(0),
            updates_held_back: AtomicU64::new(0),
            streams_open: AtomicU64::new(0),
            present: AtomicU64::new(0),
        })
    }

    fn events(&self) -> u64 {
        self.received.lock().values().sum()
    }
}

/// How many different reasons are told apart; the rest is counted together.
const REASONS: usize = 20;

fn count(reasons: &Mutex<BTreeMap<String, u64>>, reason: String) {
    let mut reasons = reasons.lock();
    let reason =
        if reasons.len() < REASONS || reasons.contains_key(&reason) { reason } else { "others".into() };
    *reasons.entry(reason).or_default() += 1;
}

/// What every agent knows.
struct Shared {
    plan: Plan,
    tally: Tally,
    /// Becomes true when they are to leave.
    leave: watch::Sender<bool>,
}

/// Connects them all, holds them, lets them go, and tells what it was like. `interrupted` ends the holding.
pub async fn run(
    plan: Plan,
    identities: Identities,
    interrupted: impl Future<Output = ()>,
) -> anyhow::Result<Report> {
    ensure!((1..=MOST).contains(&plan.count), "between 1 and {MOST} agents");
    ensure!(plan.status_rate >= 0.0 && plan.status_rate <= 100_000.0, "a status rate between 0 and 100000");
    check_open_files(plan.count)?;
    let before = look(plan.pid)?;
    let shared = Arc::new(Shared { plan, tally: Tally::new()?, leave: watch::Sender::new(false) });
    let mut interrupted = std::pin::pin!(interrupted);
    let mut agents = JoinSet::new();

    let began = Instant::now();
    let connecting = connect(&shared, &identities, &mut agents);
    let connected = tokio::select! {
        biased;
        connected = connecting => connected?,
        () = &mut interrupted => bail!("interrupted while connecting"),
    };
    let connect_time = began.elapsed();
    drop(identities);
    if connected == 0 {
        let failures = shared.tally.failures.lock();
        let reasons: Vec<String> =
            failures.iter().map(|(reason, n)| format!("{reason} ({n} times)")).collect();
        bail!("no agent could connect: {}", reasons.join("; "));
    }
    let after_connect = look(shared.plan.pid)?;

    let events_before = shared.tally.events();
    let hold_began = Instant::now();
    tokio::select! {
        () = tokio::time::sleep(shared.plan.hold) => {}
        () = &mut interrupted => {}
    }
    let held = hold_began.elapsed();
    let events_held = shared.tally.events() - events_before;
    let after_hold = look(shared.plan.pid)?;
    let own = procfs::sample_self()?;
    let still = shared.tally.present.load(Ordering::Relaxed);

    shared.leave.send_replace(true);
    let leaving = async { while agents.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(10), leaving).await.is_err() {
        tracing::warn!("some agents did not leave in time");
    }
    let costs = [(&before, &after_connect, connect_time), (&after_connect, &after_hold, held)]
        .map(|(a, b, elapsed)| a.as_ref().zip(b.as_ref()).map(|(a, b)| Cost::between(a, b, elapsed)));
    Ok(Report::new(&shared, connected, still, connect_time, held, events_held, costs, &own))
}

/// Starts them at their pace and waits until each has connected or failed. Returns how many have connected.
async fn connect(
    shared: &Arc<Shared>,
    identities: &Identities,
    agents: &mut JoinSet<()>,
) -> anyhow::Result<u64> {
    let slots = Arc::new(Semaphore::new(shared.plan.pace.in_flight()));
    let connected = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    for index in 0..shared.plan.count {
        if let Some(due) = shared.plan.pace.due(start, index) {
            sleep_until(due).await;
        }
        let slot = Arc::clone(&slots).acquire_owned().await?;
        let identity = identities.get(index)?;
        let (shared, connected) = (Arc::clone(shared), Arc::clone(&connected));
        agents.spawn(async move {
            let session = agent::connect(&shared, &identity, index).await;
            drop(identity);
            match session {
                Ok(session) => {
                    connected.fetch_add(1, Ordering::Relaxed);
                    drop(slot);
                    shared.tally.present.fetch_add(1, Ordering::Relaxed);
                    session.stay(&shared).await;
                    shared.tally.present.fetch_sub(1, Ordering::Relaxed);
                }
                Err(reason) => {
                    drop(slot);
                    count(&shared.tally.failures, format!("{reason:#}"));
                }
            }
        });
    }
    // All slots are free again when nobody is connecting any more.
    let all = u32::try_from(shared.plan.pace.in_flight()).context("too many at a time")?;
    let _idle = slots.acquire_many(all).await?;
    Ok(connected.load(Ordering::Relaxed))
}

fn look(pid: Option<u32>) -> anyhow::Result<Option<Sample>> {
    pid.map(procfs::sample).transpose()
}

fn check_open_files(count: usize) -> anyhow::Result<()> {
    let (limit, needed) = (procfs::open_files_limit()?, count as u64 + 64);
    if limit < needed {
        return Err(anyhow!(
            "{count} agents need {needed} open files, and this process may have {limit}: raise it with `ulimit -n {needed}`"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
