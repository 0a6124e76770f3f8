//! Chaos on real processes: users act on all sides while processes are killed and connections fail, and in the end
//! every owner's word must stand everywhere.
//!
//! Principal and agents are processes of the built program. What goes between them, and between them and their API
//! servers, passes a [`proxy`] that cuts, stalls, delays and forgets connections. [`users`] write to the API servers
//! directly and enter what they did into the [`ledger`]; a [`controller`] in each cluster does what Argo CD would. Then
//! the weather turns calm, and [`verdict`] compares the API servers with the ledger.

pub mod controller;
pub mod history;
pub mod ledger;
pub mod process;
pub mod proxy;
pub mod realm;
pub mod stage;
pub mod users;
pub mod verdict;
mod weather;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::history::History;
use self::ledger::Ledger;
use self::stage::Stage;
use self::verdict::Verdict;

/// How long everything may take to agree once the weather is calm. Longer than the time in which a connection that is
/// half open is found out: 30 s until the principal asks, and 20 s that it waits for the answer.
const PATIENCE: Duration = Duration::from_secs(150);
/// How long agreement must last, so that what a comparison or a repetition does late is seen: longer than the
/// interval between comparisons.
const STEADY: Duration = Duration::from_secs(13);
/// Pause between two looks at all API servers.
const LOOK: Duration = Duration::from_millis(500);
/// Users of each realm that act at the same time, each on names of its own.
const USERS: usize = 2;

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How long faults happen, all rounds together.
    pub duration: Duration,
    /// How long faults happen before everything is compared.
    pub round: Duration,
    /// What the choices depend on. What processes do in the meantime does not repeat.
    pub seed: u64,
    /// How many agents, managed and autonomous by turns.
    pub agents: usize,
    /// Whether the API servers are our own, in this process.
    pub embedded: bool,
    /// Whether connections to API servers fail too.
    pub api_faults: bool,
    /// The built program.
    pub program: PathBuf,
    /// Where logs and kubeconfigs go.
    pub folder: PathBuf,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Changes that users made.
    pub changes: u64,
    /// What was wrong in the end.
    pub verdict: Verdict,
    /// Processes that ended although nobody killed them, with what they said last.
    pub ended: Vec<String>,
    /// What processes said when they panicked.
    pub panics: Vec<String>,
    /// Whether it was stopped before its time.
    pub interrupted: bool,
}

impl Outcome {
    /// Whether every promise was kept.
    pub fn all_well(&self) -> bool {
        self.verdict.is_clean() && self.panics.is_empty() && !self.interrupted && self.changes > 0
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Verdict { lost, duplicated, orphaned } = &self.verdict;
        write!(
            f,
            "{} changes made, {} lost, {} duplicated, {} orphaned",
            self.changes,
            lost.len(),
            duplicated.len(),
            orphaned.len()
        )
    }
}

/// Runs the plan. `interrupted` ends it early.
///
/// # Errors
/// What keeps it from being run at all: API servers that do not start, a program that does not.
pub async fn run(plan: &Plan, interrupted: impl Future<Output = ()>) -> anyhow::Result<Outcome> {
    let stopped = CancellationToken::new();
    let mut outcome = Outcome::default();
    let work = async {
        let mut stage = Stage::start(plan).await?;
        let done = rounds(plan, &mut stage, &mut outcome).await;
        stage.stop().await;
        done
    };
    let ended = tokio::select! {
        ended = work => ended,
        () = interrupted => { stopped.cancel(); Ok(()) }
    };
    outcome.interrupted = stopped.is_cancelled();
    ended?;
    Ok(outcome)
}

async fn rounds(plan: &Plan, stage: &mut Stage, outcome: &mut Outcome) -> anyhow::Result<()> {
    let ledger = Arc::new(Ledger::default());
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let cancel = CancellationToken::new();
    // Whatever way this ends, nobody goes on.
    let _ends = cancel.clone().drop_guard();
    let mut controllers = JoinSet::new();
    let history = History::new(&plan.folder)?;
    let mut histories = JoinSet::new();
    for realm in &stage.realms {
        histories.spawn(history.clone().follow(Arc::clone(realm), cancel.clone()));
        controllers.spawn(controller::run(
            Arc::clone(realm),
            Arc::clone(&ledger),
            rng.fork(),
            cancel.clone(),
        ));
    }
    let mut left = plan.duration;
    let mut round = 0;
    while !left.is_zero() {
        round += 1;
        let time = left.min(plan.round);
        left -= time;
        storm(plan, stage, &ledger, &mut rng, time, round).await?;
        outcome.changes = ledger.changes();
        outcome.verdict = settle(stage, &ledger, round).await?;
        outcome.ended = stage.ended_by_themselves();
        outcome.panics = stage.panics();
        if !outcome.verdict.is_clean() {
            // What follows from it would hide it.
            break;
        }
    }
    cancel.cancel();
    while let Some(ended) = controllers.join_next().await {
        ended.context("a simulated controller failed")??;
    }
    Ok(())
}

/// Users act, processes are killed, connections fail.
async fn storm(
    plan: &Plan,
    stage: &mut Stage,
    ledger: &Arc<Ledger>,
    rng: &mut fastrand::Rng,
    time: Duration,
    round: u32,
) -> anyhow::Result<()> {
    let until = Instant::now() + time;
    let mut users = JoinSet::new();
    for realm in &stage.realms {
        for user in 0..USERS {
            let (realm, ledger, rng) = (Arc::clone(realm), Arc::clone(ledger), rng.fork());
            users.spawn(users::act(realm, ledger, rng, user, USERS, until));
        }
    }
    weather::storm(plan, stage, ledger, rng, until, round).await?;
    while let Some(ended) = users.join_next().await {
        ended.context("a simulated user failed")??;
    }
    stage.calm().await
}

/// Waits until all API servers agree with the ledger and go on doing so; otherwise tells what is wrong.
async fn settle(stage: &mut Stage, ledger: &Ledger, round: u32) -> anyhow::Result<Verdict> {
    let began = Instant::now();
    let mut agreed: Option<Instant> = None;
    loop {
        stage.revive().await?;
        let verdict = verdict::look(&stage.realms, ledger).await?;
        if verdict.is_clean() {
            let since = *agreed.get_or_insert_with(Instant::now);
            if since.elapsed() >= STEADY {
                println!(
                    "round {round}: all agree after {:.1} s; {} changes so far, {} operations, {} resources",
                    (since - began).as_secs_f64(),
                    ledger.changes(),
                    ledger.operations(),
                    ledger.resources()
                );
                return Ok(verdict);
            }
        } else {
            agreed = None;
            // What was done twice will not be undone by waiting.
            let hopeless =
                !verdict.duplicated.is_empty() && verdict.lost.is_empty() && verdict.orphaned.is_empty();
            if hopeless || began.elapsed() >= PATIENCE {
                println!("round {round}: no agreement after {:.0} s", began.elapsed().as_secs_f64());
                return Ok(verdict);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}
