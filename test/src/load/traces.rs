//! What traces cost: a burst of Applications through a principal and an agent without them, with a sampler that wants none,
//! and with all of them sent to a collector.
//!
//! Each burst is a process of its own, so that none inherits anything from another but the machine. The collector is in the
//! process that starts them, and decodes what it is sent.

pub mod collector;
mod report;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::PostParams;
use kube::runtime::watcher::{self, Event};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Kind, Object};
use tokio::process::Command;
use tokio::time::{Instant, timeout};

pub use self::report::Report;
use crate::chaos::realm::Realm;
use crate::installation::Installation;
use crate::load::procfs;

/// Writes at the same time.
const WRITERS: usize = 8;
/// Applications before those that count.
const WARM_UP: usize = 200;
/// How long a burst may take to arrive.
const PATIENCE: Duration = Duration::from_secs(120);

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Applications of a burst.
    pub applications: usize,
    /// How often each setting gets its turn.
    pub rounds: usize,
}

/// How traces are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Setting {
    /// No collector is named: nothing is registered.
    Nothing,
    /// The same once more: what two equal settings differ by is the noise of the machine.
    NothingAgain,
    /// There is a collector, and `OTEL_TRACES_SAMPLER=always_off`.
    NoneSampled,
    /// There is a collector, and every change is traced.
    All,
}

impl Setting {
    /// Every one, in the order of the first round.
    pub const ALL: [Self; 4] = [Self::Nothing, Self::NoneSampled, Self::All, Self::NothingAgain];
}

/// What one burst was like.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Burst {
    /// Applications per second, from the first write to the last arrival.
    pub rate: f64,
    /// Processor time for each, in milliseconds, of everything in the process: API servers, principal, agent and writers.
    pub cpu_ms: f64,
}

/// Measures all settings in turns.
///
/// # Errors
/// What kept one from being measured.
pub async fn run(plan: &Plan) -> anyhow::Result<Report> {
    ensure!((1..=100).contains(&plan.rounds), "between 1 and 100 rounds");
    ensure!((100..=100_000).contains(&plan.applications), "between 100 and 100000 applications");
    let spans = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&spans);
    let collector = collector::serve(move |_, _| _ = counted.fetch_add(1, Ordering::Relaxed)).await?;
    let mut bursts = Vec::new();
    for round in 0..plan.rounds {
        for turn in 0..Setting::ALL.len() {
            let setting = Setting::ALL[(round + turn) % Setting::ALL.len()];
            let measured = in_a_process(plan.applications, setting, collector).await;
            let burst = measured.with_context(|| format!("round {round}, {setting:?}"))?;
            tracing::info!(round, ?setting, ?burst, "measured");
            bursts.push((setting, burst));
        }
    }
    // Each change is told by one side and handled by the other.
    let made = 2 * (plan.applications + WARM_UP) * plan.rounds;
    Report::new(plan, &bursts, made as u64, spans.load(Ordering::Relaxed))
}

async fn in_a_process(applications: usize, setting: Setting, collector: SocketAddr) -> anyhow::Result<Burst> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--burst").arg(applications.to_string()).env_remove("OTEL_TRACES_SAMPLER");
    if !matches!(setting, Setting::Nothing | Setting::NothingAgain) {
        command.arg("--collector").arg(collector.to_string());
    }
    if setting == Setting::NoneSampled {
        command.env("OTEL_TRACES_SAMPLER", "always_off");
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true).output().await?;
    ensure!(output.status.success(), "the burst ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("the burst did not say what it was like")
}

/// One burst, in this process.
///
/// # Errors
/// What kept it from being measured.
pub async fn burst(applications: usize, collector: Option<&str>) -> anyhow::Result<Burst> {
    let named: Vec<&str> =
        collector.iter().flat_map(|it| ["--otlp-address", it, "--otlp-insecure=true"]).collect();
    let installation = Installation::start(&named).await?;
    let edges = installation.edges(1, &named).await?;
    let realm = installation.realm(edges.first().context("there is no agent")?);
    write_and_see(&realm, "warm", WARM_UP).await?;
    let (before, began) = (procfs::sample_self()?, Instant::now());
    write_and_see(&realm, "app", applications).await?;
    let (took, after) = (began.elapsed(), procfs::sample_self()?);
    // A span ends with its acknowledgement.
    installation.until_quiet(&edges).await?;
    installation.end(edges).await?;
    let cpu = after.cpu.saturating_sub(before.cpu);
    Ok(Burst {
        rate: applications as f64 / took.as_secs_f64(),
        cpu_ms: cpu.as_secs_f64() * 1000.0 / applications as f64,
    })
}

/// Writes Applications at the control plane, and returns when all of them are at the cluster.
async fn write_and_see(realm: &Realm, prefix: &str, count: usize) -> anyhow::Result<()> {
    let arrived = async {
        let watched = watcher::watcher(realm.at_cluster(Kind::Application), watcher::Config::default());
        let mut events = std::pin::pin!(watched);
        let mut seen = BTreeSet::new();
        while seen.len() < count {
            match events.next().await.context("the watch ended")?? {
                Event::Apply(it) | Event::InitApply(it) if it.name().starts_with(prefix) => {
                    seen.insert(it.name().to_owned());
                }
                _ => {}
            }
        }
        anyhow::Ok(())
    };
    let api = realm.at_control(Kind::Application);
    let written = futures::stream::iter(0..count).map(anyhow::Ok).try_for_each_concurrent(WRITERS, |index| {
        let api = api.clone();
        async move {
            api.create(&PostParams::default(), &application(&format!("{prefix}-{index}"))?).await?;
            Ok(())
        }
    });
    timeout(PATIENCE, async { tokio::try_join!(arrived, written) }).await.context("it never arrived")??;
    Ok(())
}

fn application(name: &str) -> anyhow::Result<Object> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": name},
        "spec": {
            "project": "default",
            "source": {"repoURL": "https://git.example.com/app.git", "path": "deploy", "targetRevision": "main"},
            "destination": {"name": "in-cluster", "namespace": "guests"},
        },
    }))?)
}
