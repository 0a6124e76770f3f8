//! What the way through the resource proxy costs, against the same API server directly.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tiphys_shared::process::options::duration;
use tiphys_test::load::proxy::{Plan, Role, idle, run, side};
use tiphys_test::program;
use tokio::runtime::Builder;

/// Measures latency, throughput, a large list and many watches, directly and through principal and agent.
///
/// Principal and agent are processes of their own, so that the memory of each can be told. What is written to the clusters
/// is in a namespace of its own, which is deleted in the end.
#[derive(Parser)]
#[command(name = "proxy", version)]
struct Options {
    /// Kubeconfig file with both contexts
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: PathBuf,
    /// Context of the control plane, which must have Argo CD's definitions
    #[arg(long, default_value = "cluster-0")]
    control: String,
    /// Context of the cluster behind the agent; the same
    #[arg(long, default_value = "cluster-1")]
    cluster: String,
    /// How many small GETs one after the other, each way
    #[arg(long, default_value_t = 2000)]
    gets: usize,
    /// How many clients for the throughput
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// How many seconds for each measurement of the throughput, of which there are three each way
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Size of the large list in megabytes
    #[arg(long, default_value_t = 50)]
    list: usize,
    /// Size of each object in it, in bytes
    #[arg(long, default_value_t = 5000)]
    object: usize,
    /// How many watches at once
    #[arg(long, default_value_t = 1000)]
    watches: usize,
    /// Measure nothing: leave an exec, a watch and a followed log idle for so long, and use them again; the clusters need pods
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    idle: Option<Duration>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// What this process is for the one that measures
    #[arg(long, hide = true)]
    role: Option<Role>,
    /// Where that one left what is needed
    #[arg(long, hide = true)]
    folder: Option<PathBuf>,
    /// Where the principal is
    #[arg(long, hide = true, default_value_t = 0)]
    port: u16,
}

fn main() -> ExitCode {
    // As `tiphys agent` and `tiphys principal` have it.
    let runtime = |options: &Options| match options.role {
        Some(Role::Agent) => Builder::new_current_thread().enable_all().build(),
        _ => Builder::new_multi_thread().worker_threads(2).enable_all().build(),
    };
    program::run_in(runtime, act)
}

async fn act(options: Options) -> anyhow::Result<()> {
    if let (Some(role), Some(folder)) = (options.role, options.folder) {
        return side(role, &options.kubeconfig, &options.control, &options.cluster, &folder, options.port)
            .await;
    }
    let plan = Plan {
        kubeconfig: options.kubeconfig,
        control: options.control,
        cluster: options.cluster,
        gets: options.gets,
        clients: options.clients,
        duration: Duration::from_secs(options.seconds),
        list_mb: options.list,
        object: options.object,
        watches: options.watches,
    };
    if let Some(length) = options.idle {
        idle(&plan, length).await?;
        println!("idle for {length:?}, and of use again: an exec, a watch, a followed log");
        return Ok(());
    }
    let report = run(&plan).await?;
    program::print(&report, options.json)
}
