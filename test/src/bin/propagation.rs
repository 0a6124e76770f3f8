//! Writes Applications through one kubeconfig context and sees them arrive through another.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use tiphys_test::load::cluster::Cluster;
use tiphys_test::load::pace::Pace;
use tiphys_test::load::propagation::{Plan, run, sweep};
use tiphys_test::program;

/// Measures how long a change takes from one API server to another, and how long a plain write takes there.
///
/// Writes Applications into --from-namespace of --from and watches them arrive in --to-namespace of --to; then creates
/// the same Applications straight at --to, in --direct-namespace, at the same pace, and compares. Whatever it
/// writes carries the label tiphys.io/load-run and is deleted in the end, also on Ctrl-C.
#[derive(Parser)]
#[command(name = "propagation", version)]
struct Options {
    /// Kubeconfig file with both contexts
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Context of the control plane
    #[arg(long)]
    from: String,
    /// Namespace at the control plane: the agent's name
    #[arg(long)]
    from_namespace: String,
    /// Context of the workload cluster
    #[arg(long)]
    to: String,
    /// Namespace at the workload cluster in which the Applications arrive
    #[arg(long, default_value = "argocd")]
    to_namespace: String,
    /// Namespace at the workload cluster for plain writes; no agent should look at it
    #[arg(long, default_value = "default")]
    direct_namespace: String,
    /// How many Applications
    #[arg(long, short = 'n', default_value_t = 100)]
    count: usize,
    /// How many per second; without it, as fast as they go
    #[arg(long)]
    rate: Option<f64>,
    /// How many writes at the same time, without --rate
    #[arg(long, default_value_t = 8)]
    concurrency: usize,
    /// How many to write before measuring
    #[arg(long, default_value_t = 10)]
    warm_up: usize,
    /// How many seconds to wait for the last one, and for the deletions
    #[arg(long, default_value_t = 120)]
    patience: u64,
    /// Project of the Applications
    #[arg(long, default_value = "default")]
    project: String,
    /// Name of the Applications' destination; the agent's name when not given
    #[arg(long)]
    destination: Option<String>,
    /// Also use API servers that are not on this machine
    #[arg(long)]
    allow_remote: bool,
    /// Only delete what earlier runs have left behind
    #[arg(long)]
    sweep: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    program::run_with_two(measure)
}

async fn measure(options: Options) -> anyhow::Result<()> {
    let kubeconfig = options.kubeconfig.as_deref();
    let plan = Plan {
        from: Cluster::connect(kubeconfig, Some(&options.from), options.allow_remote).await?,
        to: Cluster::connect(kubeconfig, Some(&options.to), options.allow_remote).await?,
        destination: options.destination.unwrap_or_else(|| options.from_namespace.clone()),
        from_namespace: options.from_namespace,
        to_namespace: options.to_namespace,
        direct_namespace: options.direct_namespace,
        count: options.count,
        pace: Pace::new(options.rate, options.concurrency)?,
        warm_up: options.warm_up,
        patience: Duration::from_secs(options.patience),
        run: format!("{:x}-{:x}", std::process::id(), started()?),
        project: options.project,
    };
    if options.sweep {
        println!("deleted {} applications of earlier runs", sweep(&plan).await?);
        return Ok(());
    }
    let interrupted = async {
        program::interrupted().await;
        eprintln!("interrupted: deleting what was written");
    };
    let report = run(&plan, interrupted).await?;
    program::print(&report, options.json)
}

/// Tells runs apart, short enough for names.
fn started() -> anyhow::Result<u64> {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).context("clock before 1970")?;
    Ok(now.as_secs() & 0xff_ffff)
}
