//! Applications that go through a principal and an agent in one process, as fast as they can.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::PostParams;
use kube::runtime::watcher::{self, Event};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tiphys_shared::model::Kind;
use tiphys_shared::model::object::ObjectExt as _;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::PATIENCE;
use crate::chaos::realm::Realm;
use crate::installation::{Installation, Servers};
use crate::load::application::minimal;
use crate::load::procfs;

/// Writes at the same time.
const WRITERS: usize = 8;
/// Applications before those that count: enough that batches of spans have left, and that what is made once is made.
const WARM_UP: usize = 400;

/// What it was like.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Flow {
    /// Applications per second that arrived at the cluster.
    pub rate: f64,
    /// Processor time for each, in milliseconds, of everything in the process: principal, agent, writers, and API servers
    /// where they are embedded.
    pub cpu_ms: f64,
    /// Applications that were written altogether.
    pub written: u64,
}

/// Lets Applications flow for so many seconds, in this process. Says when it is ready, and begins when it is told to.
///
/// # Errors
/// What kept it from being measured.
pub async fn flow(seconds: u64, servers: Servers, collector: Option<&str>) -> anyhow::Result<Flow> {
    let named: Vec<&str> =
        collector.iter().flat_map(|it| ["--otlp-address", it, "--otlp-insecure=true"]).collect();
    let installation = Installation::start_with(servers, &named, |_| {}).await?;
    let edges = installation.edges(1, &named).await?;
    let realm = installation.realm(edges.first().context("there is no agent")?);
    let writes = Writes::default();
    let watched = async {
        writes.watch(&realm).await?;
        bail!("the watch ended")
    };
    let measured = async {
        writes.make(&realm, || writes.written() < WARM_UP).await?;
        writes.arrive().await?;
        println!("ready");
        spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;

        let (before, seen) = (procfs::sample_self()?, writes.seen());
        let end = Instant::now() + Duration::from_secs(seconds);
        let looked = async {
            sleep_until(end).await;
            Ok((procfs::sample_self()?, writes.seen()))
        };
        let ((after, then), ()) = tokio::try_join!(looked, writes.make(&realm, || Instant::now() < end))?;
        writes.arrive().await?;
        let arrived = (then - seen) as f64;
        let cpu = after.cpu.saturating_sub(before.cpu);
        anyhow::Ok(Flow {
            rate: arrived / seconds as f64,
            cpu_ms: cpu.as_secs_f64() * 1000.0 / arrived,
            written: writes.written() as u64,
        })
    };
    let flow = tokio::select! {
        failed = watched => failed,
        flow = measured => flow,
    }?;
    ensure!(flow.rate > 0.0, "nothing arrived");
    // A span ends with its acknowledgement.
    installation.until_quiet(&edges).await?;
    installation.end(edges).await?;
    Ok(flow)
}

/// Applications that were written at the control plane, and those that were seen at the cluster.
#[derive(Default)]
struct Writes {
    written: AtomicUsize,
    seen: Mutex<BTreeSet<String>>,
}

impl Writes {
    fn written(&self) -> usize {
        self.written.load(Ordering::Relaxed)
    }

    fn seen(&self) -> usize {
        self.seen.lock().len()
    }

    /// Writes for as long as `more` says so.
    async fn make(&self, realm: &Realm, more: impl Fn() -> bool) -> anyhow::Result<()> {
        let api = realm.at_control(Kind::Application);
        let writers = (0..WRITERS).map(|_| async {
            while more() {
                let name = format!("app-{}", self.written.fetch_add(1, Ordering::Relaxed));
                api.create(&PostParams::default(), &minimal(&name)?).await?;
            }
            anyhow::Ok(())
        });
        futures::future::try_join_all(writers).await?;
        Ok(())
    }

    async fn watch(&self, realm: &Realm) -> anyhow::Result<()> {
        let watched = watcher::watcher(realm.at_cluster(Kind::Application), watcher::Config::default());
        watched
            .map(|event| event.context("cannot watch the cluster"))
            .try_for_each(async |event| {
                if let Event::Apply(it) | Event::InitApply(it) = event {
                    self.seen.lock().insert(it.name().to_owned());
                }
                Ok(())
            })
            .await
    }

    /// Waits until everything that was written was seen.
    async fn arrive(&self) -> anyhow::Result<()> {
        let all = async {
            while self.seen() < self.written() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, all).await.context("it never arrived")
    }
}
