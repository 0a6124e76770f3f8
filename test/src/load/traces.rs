//! What traces cost: Applications that go through a principal and an agent without them, with a sampler that wants none,
//! and with all of them sent to a collector.
//!
//! Two settings run at the same time, each in a process of its own on a processor of its own, and then change places. So
//! whatever else slows the machine down, and whatever one processor has before the other, is in both. Where API servers
//! are real, each process has two of its own, on the same processor.

pub mod collector;
mod flow;
mod report;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

pub use self::flow::{Flow, flow};
pub use self::report::Report;

/// How long it may take until Applications flow, and until all is quiet again.
const PATIENCE: Duration = Duration::from_secs(120);

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// For how long Applications flow.
    pub seconds: u64,
    /// How often each setting is compared.
    pub rounds: usize,
    /// Whether API servers are real.
    pub real: bool,
}

/// How traces are set. Each is compared with a process in which no collector is named, so that nothing is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Setting {
    /// The same: what two equal settings differ by is the noise of the machine.
    Nothing,
    /// There is a collector, and a sampler that takes none of them: `always_off` would register nothing.
    NoneSampled,
    /// There is a collector, and every change is traced.
    All,
}

impl Setting {
    /// Every one, in the order of a round.
    pub const ALL: [Self; 3] = [Self::Nothing, Self::NoneSampled, Self::All];
}

/// Two flows at the same time.
#[derive(Clone, Copy, Debug)]
struct Pair {
    setting: Setting,
    with: Flow,
    without: Flow,
}

/// Measures all settings in turns.
///
/// # Errors
/// What kept one from being measured.
pub async fn run(plan: &Plan) -> anyhow::Result<Report> {
    ensure!((1..=100).contains(&plan.rounds), "between 1 and 100 rounds");
    ensure!((1..=60).contains(&plan.seconds), "between 1 and 60 seconds");
    let spans = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&spans);
    let collector = collector::serve(move |_, _| _ = counted.fetch_add(1, Ordering::Relaxed)).await?;
    let mut pairs = Vec::new();
    for round in 0..plan.rounds {
        for setting in Setting::ALL {
            for place in [0, 1] {
                let measured = pair(plan, setting, place, collector).await;
                let pair = measured.with_context(|| format!("round {round}, {setting:?}"))?;
                tracing::info!(round, ?pair, "measured");
                pairs.push(pair);
            }
        }
    }
    Report::new(plan, &pairs, spans.load(Ordering::Relaxed))
}

/// Runs a setting on one of the first two processors, and nothing registered on the other.
async fn pair(plan: &Plan, setting: Setting, place: usize, collector: SocketAddr) -> anyhow::Result<Pair> {
    let mut with = Process::start(plan, setting, place, collector)?;
    let mut without = Process::start(plan, Setting::Nothing, 1 - place, collector)?;
    timeout(PATIENCE, async { tokio::try_join!(with.ready(), without.ready()) })
        .await
        .context("they never became ready")??;
    with.go().await?;
    without.go().await?;
    let ended = async { tokio::try_join!(with.end(), without.end()) };
    let (with, without) =
        timeout(Duration::from_secs(plan.seconds) + PATIENCE, ended).await.context("no end")??;
    Ok(Pair { setting, with, without })
}

/// A flow in a process of its own. It says a line when it is ready, begins at the first line it is told, and then says
/// what it was like.
struct Process {
    child: Child,
    said: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl Process {
    fn start(plan: &Plan, setting: Setting, processor: usize, collector: SocketAddr) -> anyhow::Result<Self> {
        let mut command = Command::new("taskset");
        command.arg("--cpu-list").arg(processor.to_string());
        if plan.real {
            let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            command.arg(repository.join("hack/kube.sh")).args(["up", "--clusters=2", "--crds"]);
            command.arg(repository.join("manifests/crds")).arg("--");
        }
        command.arg(std::env::current_exe()?).arg("--flow").arg(plan.seconds.to_string());
        if plan.real {
            command.arg("--real");
        }
        command.env_remove("OTEL_TRACES_SAMPLER").env_remove("OTEL_SDK_DISABLED");
        if setting != Setting::Nothing {
            command.arg("--collector").arg(collector.to_string());
        }
        if setting == Setting::NoneSampled {
            command.env("OTEL_TRACES_SAMPLER", "traceidratio").env("OTEL_TRACES_SAMPLER_ARG", "0");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        let mut child = command.spawn().context("cannot start taskset, which util-linux has")?;
        let said = BufReader::new(child.stdout.take().context("no output")?).lines();
        Ok(Self { child, said })
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        self.said.next_line().await?.context("it ended before it was ready")?;
        Ok(())
    }

    async fn go(&mut self) -> anyhow::Result<()> {
        let input = self.child.stdin.as_mut().context("no input")?;
        input.write_all(b"go\n").await?;
        Ok(())
    }

    async fn end(&mut self) -> anyhow::Result<Flow> {
        let line = self.said.next_line().await?.context("it did not say what it was like")?;
        let status = self.child.wait().await?;
        ensure!(status.success(), "it ended with {status}");
        Ok(serde_json::from_str(&line)?)
    }
}
