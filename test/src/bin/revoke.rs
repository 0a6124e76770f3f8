//! Certificates are revoked under load.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;
use tiphys_test::program;
use tiphys_test::rotation::{RevocationPlan, revoke};

/// Starts a principal and agents, lets users change Applications, and meanwhile puts the certificates of some agents on
/// the blocklist, one at a time. Lets them in again in the end.
///
/// Measures from the acknowledged write of the blocklist to the end of the stream as the agent sees it. Fails if that
/// takes longer than a second, if one comes back, if another is cut off, or if a change is lost.
#[derive(Parser)]
#[command(name = "revoke", version)]
struct Options {
    /// How many agents, each with a cluster of its own
    #[arg(long, default_value_t = 100)]
    agents: usize,
    /// How many of them are revoked
    #[arg(long, default_value_t = 50)]
    revoked: usize,
    /// Milliseconds between two of them
    #[arg(long, default_value_t = 200)]
    pause: u64,
    /// Changes per second, over all agents
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// What the choices of users depend on; another one each time when not given
    #[arg(long)]
    seed: Option<u64>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    program::run(measure)
}

async fn measure(options: Options) -> anyhow::Result<()> {
    let plan = RevocationPlan {
        agents: options.agents,
        revoked: options.revoked,
        pause: Duration::from_millis(options.pause),
        rate: options.rate,
        seed: program::seed(options.seed),
    };
    let report = revoke(&plan).await?;
    program::print(&report, options.json)?;
    ensure!(
        report.all_well(),
        "a stream ended late, or somebody came back or was cut off, or a change was lost"
    );
    Ok(())
}
