//! Runs the deterministic simulation over many seeds.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use parking_lot::Mutex;
use tiphys_test::simulation::{Outcome, Selection, Simulation};

/// Runs real control planes and agents in virtual time, while users act and everything breaks that can break; then looks
/// whether what is promised holds. The last line of the output tells how many seeds ran and how many violated a promise.
#[derive(Debug, Parser)]
#[command(name = "simulate")]
struct Options {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Modes of the agents.
    #[arg(long, value_enum, default_value_t = Selection::Any)]
    mode: Selection,
    /// Threads; as many as there are processors if not given.
    #[arg(long)]
    threads: Option<usize>,
    /// Runs this seed alone and prints everything that happened.
    #[arg(long)]
    trace: Option<u64>,
    /// Runs each seed twice and compares.
    #[arg(long)]
    twice: bool,
    /// Prints what the two sides log.
    #[arg(long)]
    log: bool,
}

/// Lines of what happened that are printed for a seed that failed.
const TAIL: usize = 60;

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    if options.log {
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter("info").init();
    }
    let simulation = Simulation::new()?;
    if let Some(seed) = options.trace {
        let outcome = simulation.run(seed, options.mode)?;
        for line in &outcome.trace {
            println!("{line}");
        }
        describe(&outcome, 0);
        println!("1 seeds, {} violations", u64::from(!outcome.violations.is_empty()));
        return Ok(code(outcome.violations.is_empty()));
    }
    let threads = options.threads.or_else(|| std::thread::available_parallelism().ok().map(Into::into));
    let (next, violations) = (AtomicU64::new(0), AtomicU64::new(0));
    let (failure, slowest) = (Mutex::new(None), Mutex::new(std::time::Duration::ZERO));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads.unwrap_or(1) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= options.seeds || failure.lock().is_some() {
                        return;
                    }
                    let seed = options.first + index;
                    let outcome = match simulation.run(seed, options.mode) {
                        Ok(outcome) => outcome,
                        Err(error) => {
                            *failure.lock() = Some(error.context(format!("seed {seed}")));
                            return;
                        }
                    };
                    let mut bad = !outcome.violations.is_empty();
                    if bad {
                        describe(&outcome, TAIL);
                    }
                    if options.twice {
                        match simulation.run(seed, options.mode) {
                            Ok(again) if again.hash == outcome.hash => {}
                            Ok(again) => {
                                bad = true;
                                println!(
                                    "seed {seed} ran otherwise the second time: {}",
                                    fork(&outcome, &again)
                                );
                            }
                            Err(error) => *failure.lock() = Some(error),
                        }
                    }
                    let failed = violations.fetch_add(u64::from(bad), Ordering::Relaxed) + u64::from(bad);
                    {
                        let mut slowest = slowest.lock();
                        *slowest = (*slowest).max(outcome.settled);
                    }
                    if (index + 1) % 200 == 0 {
                        let rate = (index + 1) as f64 / began.elapsed().as_secs_f64();
                        eprintln!(
                            "{} of {} seeds, {failed} violations, {rate:.0} seeds/s",
                            index + 1,
                            options.seeds
                        );
                    }
                }
            });
        }
    });
    if let Some(error) = failure.into_inner() {
        return Err(error);
    }
    let violations = violations.into_inner();
    println!("slowest agreement after the faults stopped: {:.0?} of virtual time", slowest.into_inner());
    println!("{} seeds, {violations} violations", options.seeds);
    Ok(code(violations == 0))
}

fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn describe(outcome: &Outcome, tail: usize) {
    use std::fmt::Write as _;

    let mut text = format!("seed {}: {}\n", outcome.seed, outcome.plan);
    for line in outcome.trace.iter().skip(outcome.trace.len().saturating_sub(tail)) {
        if tail > 0 {
            _ = writeln!(text, "    {line}");
        }
    }
    for violation in &outcome.violations {
        _ = writeln!(text, "  VIOLATION {violation}");
    }
    _ = write!(
        text,
        "  agreed after {:?}, hash {:016x}, {} events",
        outcome.settled, outcome.hash, outcome.events
    );
    println!("{text}");
}

/// Where two runs of one seed part.
fn fork(one: &Outcome, other: &Outcome) -> String {
    let first = one.trace.iter().zip(&other.trace).find(|(one, other)| one != other);
    match first {
        Some((one, other)) => format!("first\n  {one}\n  {other}"),
        None => format!("{} events instead of {}", other.trace.len(), one.trace.len()),
    }
}
