//! What traces cost.

use std::process::ExitCode;

use clap::Parser;
use tiphys_test::load::traces::{Plan, burst, run};

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

#[tokio::main]
async fn main() -> ExitCode {
    match measure(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(options: Options) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    if let Some(applications) = options.burst {
        println!("{}", serde_json::to_string(&burst(applications, options.collector.as_deref()).await?)?);
        return Ok(());
    }
    let report = run(&Plan { applications: options.applications, rounds: options.rounds }).await?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    Ok(())
}
