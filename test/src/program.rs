//! What the programs of this crate have in common: how they begin, what they print, how they end.

use std::fmt::Display;
use std::future::Future;
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::EnvFilter;

/// Reads a program's options and does its work, with as many threads as there are processors. `RUST_LOG` tells what is
/// logged, to the error output.
pub fn run<O: Parser, F>(work: impl FnOnce(O) -> F) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    log();
    run_in(|_| Builder::new_multi_thread().enable_all().build(), work)
}

/// The same with two threads, as `tiphys principal` has them.
pub fn run_with_two<O: Parser, F>(work: impl FnOnce(O) -> F) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    log();
    run_in(|_| Builder::new_multi_thread().worker_threads(2).enable_all().build(), work)
}

/// The same in a runtime that depends on the options, and without a log.
pub fn run_in<O: Parser, F>(
    runtime: impl FnOnce(&O) -> std::io::Result<Runtime>,
    work: impl FnOnce(O) -> F,
) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    let options = O::parse();
    let outcome = runtime(&options).map_err(anyhow::Error::from);
    match outcome.and_then(|runtime| runtime.block_on(work(options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain of causes; a backtrace would tell users nothing.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn log() {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
}

/// What choices depend on: as given, or another one each time. It is told, so that it can be given again.
pub fn seed(given: Option<u64>) -> u64 {
    let seed = given.unwrap_or_else(|| fastrand::u64(..1_000_000));
    eprintln!("seed {seed}");
    seed
}

/// Prints what came out, for people or as JSON.
///
/// # Errors
/// It has no form in JSON.
pub fn print(report: &(impl Display + Serialize), json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        println!("{report}");
    }
    Ok(())
}

/// Comes when somebody presses Ctrl-C.
pub async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without signals there is nothing to wait for.
        std::future::pending::<()>().await;
    }
}
