//! Principal and agents as processes, under faults, while users act on all sides.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use tiphys_test::chaos::{Plan, run};
use tiphys_test::program;
use tokio::signal::unix::{SignalKind, signal};

/// Runs a principal and agents as processes, kills them, breaks their connections, lets users act on all sides, and
/// checks that in the end every owner's word stands everywhere.
///
/// Needs the built program beside this one. Works on real kube-apiservers, which hack/kube.sh starts, or with
/// --embedded on our own ones. Everything stays on loopback and ends with this program.
#[derive(Parser)]
#[command(name = "chaos", version)]
struct Options {
    /// How many minutes faults happen; what is needed to start and to compare comes on top
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// How many seconds faults happen until everything must agree, before they go on
    #[arg(long, default_value_t = 120.0)]
    round: f64,
    /// What the choices depend on; a new one each time when not given
    #[arg(long)]
    seed: Option<u64>,
    /// How many agents: managed and autonomous by turns
    #[arg(long, default_value_t = 2)]
    agents: usize,
    /// Use the embedded API servers instead of real ones
    #[arg(long)]
    embedded: bool,
    /// Leave the connections to API servers in peace
    #[arg(long)]
    calm_api: bool,
    /// The program to test; the one beside this one when not given
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Folder for logs, to be kept; a temporary one, kept only if something went wrong, when not given
    #[arg(long, value_name = "FOLDER")]
    logs: Option<PathBuf>,
}

fn main() -> ExitCode {
    program::run_with_two(chaos)
}

async fn chaos(options: Options) -> anyhow::Result<()> {
    let positive = |number: f64| number.is_finite() && number > 0.0 && number < 1e6;
    ensure!(positive(options.minutes) && positive(options.round), "--minutes and --round must be above 0");
    ensure!((1..=32).contains(&options.agents), "--agents must be between 1 and 32");
    let program = built_program(options.program)?;
    let temporary = tempfile::Builder::new().prefix("tiphys-chaos-").tempdir()?;
    let folder = match &options.logs {
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            folder.clone()
        }
        None => temporary.path().to_owned(),
    };
    println!("{} minutes, {}", options.minutes, program.display());
    let plan = Plan {
        duration: Duration::from_secs_f64(options.minutes * 60.0),
        round: Duration::from_secs_f64(options.round),
        seed: program::seed(options.seed),
        agents: options.agents,
        embedded: options.embedded,
        api_faults: !options.calm_api,
        program,
        folder: std::path::absolute(&folder)?,
    };
    let (mut terminate, mut hang_up) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let interrupted = async {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
        eprintln!("interrupted");
    };
    let outcome = run(&plan, interrupted).await;
    let failed = outcome.as_ref().map_or(true, |outcome| !outcome.all_well());
    if failed && options.logs.is_none() {
        println!("logs are kept in {}", temporary.keep().display());
    }
    let outcome = outcome?;
    for line in outcome.verdict.all() {
        println!("{line}");
    }
    let mut ended = BTreeMap::<&str, u32>::new();
    for line in &outcome.ended {
        *ended.entry(line).or_default() += 1;
    }
    for (line, times) in ended {
        println!("{times} times: {line}");
    }
    for panic in &outcome.panics {
        println!("panicked: {panic}");
    }
    println!("{outcome}");
    ensure!(outcome.all_well(), "not everything agreed in the end");
    Ok(())
}

/// The built program.
fn built_program(given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let program = match given {
        Some(program) => std::path::absolute(program)?,
        None => {
            let own = std::env::current_exe().context("cannot tell where this program is")?;
            own.with_file_name("tiphys")
        }
    };
    if !program.is_file() {
        let profile = if cfg!(debug_assertions) { "cargo build" } else { "cargo build --release" };
        bail!("there is no {}: run {profile} first, or name the program with --program", program.display());
    }
    Ok(program)
}
