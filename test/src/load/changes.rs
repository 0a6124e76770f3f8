//! Users who change Applications at the control plane at a steady pace, and what becomes of every change at the clusters.
//!
//! A change has a number, which its Application then carries as the revision that it asks for. It has arrived when the
//! cluster shows it or a later one of the same Application: sides tell each other states, and a newer one may overtake.

mod ledger;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::StreamExt as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Kind, Object};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::ledger::Ledger;
use super::application::minimal;
use super::latency::{Latencies, Summary, show};
use crate::chaos::realm::Realm;

/// Applications of one agent. Few, so that most changes are changes of what is there.
const NAMES: usize = 8;
/// One of so many changes of what is there takes it away.
const DELETIONS: usize = 8;
/// How long what is under way may take once nothing is added any more.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between two looks at all API servers.
const LOOK: Duration = Duration::from_millis(500);

/// What the users of all agents write into.
struct Tally {
    made: AtomicU64,
    arrivals: Mutex<Latencies>,
}

/// One agent's Applications.
struct Site {
    realm: Realm,
    ledger: Mutex<Ledger>,
}

/// Users at work.
pub struct Changes {
    sites: Vec<Arc<Site>>,
    tally: Arc<Tally>,
    stop: CancellationToken,
    users: JoinSet<anyhow::Result<()>>,
    observers: JoinSet<()>,
    began: Instant,
}

/// What became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Changes made: Applications created, changed, deleted.
    pub made: u64,
    /// How many per second.
    pub rate: f64,
    /// Applications whose last change is not where it should be.
    pub lost: Vec<String>,
    /// From the acknowledged write at the control plane to what the cluster shows.
    pub arrivals: Option<Summary>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} changes, {:.1} a second, {} lost; from the acknowledged write to the cluster:\n  {}",
            self.made,
            self.rate,
            self.lost.len(),
            show(self.arrivals.as_ref())
        )
    }
}

impl Changes {
    /// Begins to make `rate` changes per second, evenly over the agents of all `realms`.
    ///
    /// # Errors
    /// If the rate is none.
    pub fn begin(realms: Vec<Realm>, rate: f64, seed: u64) -> anyhow::Result<Self> {
        ensure!(
            !realms.is_empty() && rate.is_finite() && rate > 0.0 && rate <= 10_000.0,
            "a rate of {rate} changes per second for {} agents is not possible",
            realms.len()
        );
        let tally = Arc::new(Tally { made: AtomicU64::new(0), arrivals: Mutex::new(Latencies::new()?) });
        let (stop, mut random) = (CancellationToken::new(), fastrand::Rng::with_seed(seed));
        let (mut users, mut observers) = (JoinSet::new(), JoinSet::new());
        let every = Duration::from_secs_f64(realms.len() as f64 / rate);
        let began = Instant::now();
        let mut sites = Vec::with_capacity(realms.len());
        for (index, realm) in realms.into_iter().enumerate() {
            let site = Arc::new(Site { realm, ledger: Mutex::default() });
            observers.spawn(observe(Arc::clone(&site), Arc::clone(&tally)));
            let first = began + Duration::from_secs_f64(index as f64 / rate);
            users.spawn(act(
                Arc::clone(&site),
                Arc::clone(&tally),
                random.fork(),
                first,
                every,
                stop.clone(),
            ));
            sites.push(site);
        }
        Ok(Self { sites, tally, stop, users, observers, began })
    }

    /// How many changes were made so far.
    pub fn made(&self) -> u64 {
        self.tally.made.load(Ordering::Relaxed)
    }

    /// Stops the users, waits until everything has arrived, and tells what has not.
    ///
    /// # Errors
    /// If a user could not write, or an API server cannot be read.
    pub async fn end(mut self) -> anyhow::Result<Report> {
        self.stop.cancel();
        while let Some(ended) = self.users.join_next().await {
            ended??;
        }
        let lasted = self.began.elapsed();
        let deadline = Instant::now() + PATIENCE;
        let lost = loop {
            let mut lost = Vec::new();
            for site in &self.sites {
                lost.extend(site.differences().await?);
            }
            if lost.is_empty() || Instant::now() >= deadline {
                break lost;
            }
            tokio::time::sleep(LOOK).await;
        };
        self.observers.shutdown().await;
        let made = self.made();
        let arrivals = self.tally.arrivals.lock().summary();
        Ok(Report { made, rate: made as f64 / lasted.as_secs_f64(), lost, arrivals })
    }
}

impl Site {
    /// Where an API server shows something else than was written.
    async fn differences(&self) -> anyhow::Result<Vec<String>> {
        let wanted = self.ledger.lock().wanted();
        let mut found = Vec::new();
        for (side, api) in [
            ("control plane", self.realm.at_control(Kind::Application)),
            ("cluster", self.realm.at_cluster(Kind::Application)),
        ] {
            let list = api
                .list(&ListParams::default())
                .await
                .with_context(|| format!("cannot list at the {side}"))?;
            let mut there: BTreeMap<String, u64> =
                list.items.iter().map(|it| (it.name().to_owned(), number(it))).collect();
            for (name, number) in &wanted {
                let shown = there.remove(name);
                if shown != *number {
                    found.push(format!(
                        "{}/{name}: the {side} shows {shown:?}, the last change was {number:?}",
                        self.realm.agent
                    ));
                }
            }
            found.extend(
                there.keys().map(|name| format!("{}/{name}: nobody made it at the {side}", self.realm.agent)),
            );
        }
        Ok(found)
    }
}

/// The number of the change that an Application shows.
fn number(application: &Object) -> u64 {
    application.data["spec"]["source"]["targetRevision"].as_str().and_then(|it| it.parse().ok()).unwrap_or(0)
}

/// One user: a change at a time, so that the order of changes of an Application is known.
async fn act(
    site: Arc<Site>,
    tally: Arc<Tally>,
    mut random: fastrand::Rng,
    first: Instant,
    every: Duration,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let api = site.realm.at_control(Kind::Application);
    let mut due = first;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep_until(due) => {}
        }
        due += every;
        let number = tally.made.fetch_add(1, Ordering::Relaxed) + 1;
        let name = format!("app-{}", random.usize(..NAMES));
        let is_there = site.ledger.lock().is_there(&name);
        let deletes = is_there && random.usize(..DELETIONS) == 0;
        site.ledger.lock().begin(&name, number, deletes);
        let written = match (is_there, deletes) {
            (false, _) => api.create(&PostParams::default(), &application(&name, number)?).await.map(drop),
            (true, true) => api.delete(&name, &DeleteParams::background()).await.map(drop),
            (true, false) => {
                let patch = json!({"spec": {"source": {"targetRevision": number.to_string()}}});
                api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
            }
        };
        written.with_context(|| format!("change {number} of {}/{name}", site.realm.agent))?;
        site.ledger.lock().acknowledged(&name, number, Instant::now());
    }
}

/// Sees changes arrive at a cluster.
async fn observe(site: Arc<Site>, tally: Arc<Tally>) {
    let api: Api<Object> = site.realm.at_cluster(Kind::Application);
    let mut events = std::pin::pin!(watcher::watcher(api, watcher::Config::default()));
    while let Some(event) = events.next().await {
        let now = Instant::now();
        let arrived = match &event {
            Ok(Event::Apply(it) | Event::InitApply(it)) => {
                site.ledger.lock().shown(it.name(), number(it), now)
            }
            Ok(Event::Delete(it)) => site.ledger.lock().gone(it.name(), now),
            Ok(Event::Init | Event::InitDone) => continue,
            Err(error) => {
                // The watcher tries again by itself.
                tracing::warn!(agent = site.realm.agent, %error, "cannot see what arrives");
                continue;
            }
        };
        let mut arrivals = tally.arrivals.lock();
        arrived.into_iter().for_each(|latency| arrivals.record(latency));
    }
}

fn application(name: &str, number: u64) -> anyhow::Result<Object> {
    let mut application = minimal(name)?;
    application.data["spec"]["source"]["targetRevision"] = number.to_string().into();
    Ok(application)
}
