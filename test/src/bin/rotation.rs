//! Every certificate, CA and key is replaced under load.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;
use tiphys_test::program;
use tiphys_test::rotation::{Plan, run};

/// Starts a principal and agents, lets users change Applications, and meanwhile replaces the principal's certificate,
/// every agent's, the CA, the resource proxy's certificate and the key of tokens.
///
/// Everything runs in this process: API servers are embedded, agents connect with mTLS over loopback, and nothing is
/// started twice. Fails if a change is lost, or if an agent connects more than once because of one rotation.
#[derive(Parser)]
#[command(name = "rotation", version)]
struct Options {
    /// How many agents, each with a cluster of its own
    #[arg(long, default_value_t = 100)]
    agents: usize,
    /// Changes per second, over all agents
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// How many minutes users change things; rotations are spread over it
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// What the choices of users depend on; another one each time when not given
    #[arg(long)]
    seed: Option<u64>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    program::run(rotate)
}

async fn rotate(options: Options) -> anyhow::Result<()> {
    ensure!(
        options.minutes.is_finite() && options.minutes > 0.0 && options.minutes <= 600.0,
        "--minutes must be above 0 and up to 600"
    );
    let plan = Plan {
        agents: options.agents,
        rate: options.rate,
        duration: Duration::from_secs_f64(options.minutes * 60.0),
        seed: program::seed(options.seed),
    };
    let report = run(&plan).await?;
    program::print(&report, options.json)?;
    ensure!(report.all_well(), "a change was lost, or an agent had to connect more than once");
    Ok(())
}
