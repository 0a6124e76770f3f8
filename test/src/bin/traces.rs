//! What traces cost.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use tiphys_test::installation::Servers;
use tiphys_test::load::traces::{Plan, flow, run};
use tiphys_test::program;

/// Sends Applications through a principal and an agent as fast as they go: with nothing registered for traces, with a
/// sampler that wants none, and with every change traced and sent to a collector.
///
/// Two at a time, the first of these beside each of them, in processes with API servers, each on a processor of its own,
/// and then in each other's place. The collector is a part of this program, on loopback, and decodes what it is sent.
#[derive(Parser)]
#[command(name = "traces", version)]
struct Options {
    /// For how many seconds Applications flow each time
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// How often each setting is compared
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Use real kube-apiservers, two for each process, from hack/kube.sh; without it they are embedded
    #[arg(long)]
    real: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Be one of the processes
    #[arg(long, hide = true)]
    flow: Option<u64>,
    /// Where the traces of that one go
    #[arg(long, hide = true, requires = "flow")]
    collector: Option<String>,
}

fn main() -> ExitCode {
    program::run(measure)
}

async fn measure(options: Options) -> anyhow::Result<()> {
    if let Some(seconds) = options.flow {
        let servers = if options.real {
            Servers::real(std::env::var_os("KUBECONFIG").context("there is no KUBECONFIG")?.into())
        } else {
            Servers::Embedded
        };
        println!("{}", serde_json::to_string(&flow(seconds, servers, options.collector.as_deref()).await?)?);
        return Ok(());
    }
    let report = run(&Plan { seconds: options.seconds, rounds: options.rounds, real: options.real }).await?;
    program::print(&report, options.json)
}
