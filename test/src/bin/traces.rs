//! What traces cost.

use std::process::ExitCode;

use clap::Parser;
use tiphys_test::load::traces::{Plan, burst, run};
use tiphys_test::program;

/// Sends bursts of Applications through a principal and an agent: with nothing registered for traces, with a sampler that
/// wants none, and with every change traced and sent to a collector, in turns.
///
/// The collector is a part of this program, on loopback, and decodes what it is sent; so it takes its share of the same
/// processors. Each burst is a process of its own with embedded API servers.
#[derive(Parser)]
#[command(name = "traces", version)]
struct Options {
    /// Applications of a burst
    #[arg(long, default_value_t = 3000)]
    applications: usize,
    /// How often each setting gets its turn
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Be one burst
    #[arg(long, hide = true)]
    burst: Option<usize>,
    /// Where the traces of that burst go
    #[arg(long, hide = true, requires = "burst")]
    collector: Option<String>,
}

fn main() -> ExitCode {
    program::run(measure)
}

async fn measure(options: Options) -> anyhow::Result<()> {
    if let Some(applications) = options.burst {
        println!("{}", serde_json::to_string(&burst(applications, options.collector.as_deref()).await?)?);
        return Ok(());
    }
    let report = run(&Plan { applications: options.applications, rounds: options.rounds }).await?;
    program::print(&report, options.json)
}
