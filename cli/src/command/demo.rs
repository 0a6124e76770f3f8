//! `demo`: the whole of Tiphys in one process, on real parts: API servers, certificates, principal, agents.

mod applications;
mod argocd;
mod fleet;
mod kubeconfig;
mod ledger;
mod summary;
mod verify;
mod view;

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{ArgMatches, Args, Command, value_parser};
use tiphys_shared::process::options::{self, LogFormat, LogLevels, Logging, Problems};
use tiphys_shared::process::telemetry::{self, Destination};
use tokio_util::sync::CancellationToken;

use self::fleet::Fleet;
use self::ledger::Ledger;
use self::summary::{Phases, Summary};
use crate::failure::Failure;
use crate::{output, runtime};

const EXAMPLES: &str = "\
Examples:
  tiphys demo                                  three clusters, until Ctrl-C
  tiphys demo --agents 20 --apps 50            more of them
  tiphys demo --agents 200 --apps 10 --once    a measured run that ends by itself
  tiphys demo --once --json | jq .delivery_ms  the same for machines";

#[derive(Debug, Clone, Args)]
struct Options {
    /// How many clusters, each with an agent
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u16).range(1..=1000))]
    agents: u16,
    /// How many applications per agent
    #[arg(long, value_name = "M", default_value_t = 5, value_parser = value_parser!(u16).range(0..=10_000))]
    apps: u16,
    /// Wait until specs have gone out and statuses have come back, print a summary and end; the exit code is 0 only
    /// if everything converged
    #[arg(long)]
    once: bool,
    /// Print the summary as JSON (with --once)
    #[arg(long)]
    json: bool,
    /// How long --once waits for convergence
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = options::duration)]
    timeout: Duration,
    /// Change an application this often, for something to look at (without --once); 0 changes none
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = options::duration)]
    change_every: Duration,
    /// What to log on stderr: level, or component=level, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "error")]
    log_level: Vec<String>,
}

pub(super) fn command() -> Command {
    Options::augment_args(
        Command::new("demo")
            .about("See it work: a control plane and clusters in this process")
            .after_help(EXAMPLES),
    )
}

pub(super) fn run(command: &Command, given: &ArgMatches) -> Result<(), Failure> {
    let (options, logging) = options::load(command, given, &|name| std::env::var_os(name), check)?.value;
    telemetry::init(&logging, Destination::Stderr).map_err(|error| Failure::because("cannot log", &error))?;
    let workers = std::thread::available_parallelism().map_or(2, usize::from).max(2);
    runtime::run(workers, |stop| play(options, stop))
}

fn check(options: Options) -> Result<(Options, Logging), Problems> {
    let mut problems = Problems::default();
    if options.json && !options.once {
        problems.add("--json is about the summary that --once prints", "add --once, or leave out --json");
    }
    let levels = LogLevels::new(options.log_level.iter().map(String::as_str)).map_err(|invalid| {
        Problems(invalid.into_iter().map(|invalid| ("--log-level", invalid).into()).collect())
    });
    match problems.absorb(levels) {
        Some(levels) if problems.is_empty() => Ok((options, Logging { format: LogFormat::Text, levels })),
        _ => Err(problems),
    }
}

async fn play(options: Options, stop: CancellationToken) -> Result<(), Failure> {
    let begin = Instant::now();
    let ledger = Ledger::new().map(Arc::new).map_err(|error| Failure::because("cannot count", &error))?;
    let starting = Fleet::start(usize::from(options.agents), &ledger);
    let (fleet, mut engine) = tokio::select! {
        started = starting => started?,
        () = stop.cancelled() => return Ok(()),
    };
    let result = tokio::select! {
        result = act(&options, &fleet, &ledger, begin) => result,
        failure = engine.broken() => Err(failure),
        () = stop.cancelled() => Ok(()),
    };
    if stop.is_cancelled() {
        output::say("stopping");
    }
    engine.end().await;
    result
}

/// What happens on the stage once it is built.
async fn act(options: &Options, fleet: &Fleet, ledger: &Arc<Ledger>, begin: Instant) -> Result<(), Failure> {
    let started = begin.elapsed();
    fleet.connected().await;
    let connected = begin.elapsed();
    output::say(&format!(
        "{} API servers, a principal and {} agents run after {:.1} s, connected over mutual TLS",
        fleet.clusters.len() + 1,
        fleet.clusters.len(),
        connected.as_secs_f64()
    ));
    if !options.once {
        output::say(&fleet.invitation());
    }
    applications::write_all(fleet, ledger, usize::from(options.apps)).await?;
    let written = begin.elapsed();
    if !options.once {
        return view::show(options.change_every, fleet, ledger).await;
    }
    let converged = tokio::time::timeout(options.timeout, ledger.converged()).await.is_ok();
    let differences = if converged { verify::differences(fleet).await? } else { ledger.outstanding() };
    let phases = Phases { started, connected, written, converged: begin.elapsed() };
    let summary = Summary::new(fleet, ledger, usize::from(options.apps), &phases, differences.is_empty());
    output::line(&if options.json { summary.json() } else { summary.text() })?;
    if differences.is_empty() {
        return Ok(());
    }
    let shown: Vec<_> = differences.iter().take(10).map(|difference| format!("\n  {difference}")).collect();
    Err(Failure::new(format!("{} applications did not converge:{}", differences.len(), shown.concat()))
        .remedy("run again with --log-level info to see what happened, or with a longer --timeout"))
}
