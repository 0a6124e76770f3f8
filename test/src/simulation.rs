//! A deterministic simulation: the real control plane and the real agents, in virtual time, with everything that can happen.
//!
//! ```text
//! users ─▶ API server ◀─ faults ─ ControlPlane ══ wire ══ Agent ─ faults ─▶ API server ◀─ users, Argo CD
//! ```
//!
//! One seed is one run: a runtime of one thread with paused time, a generator of random numbers, embedded API servers. In
//! the acting phase users change things at all ends while the wire breaks, API calls fail, and both sides crash. Then the
//! faults stop, and soon the promises must hold. The same seed gives the same run, so a violation can be looked
//! at again.

mod api;
mod argocd;
mod faults;
mod heard;
mod journal;
mod plan;
mod promises;
mod sides;
mod users;
mod wire;
mod witness;
mod world;

use std::cell::RefCell;
use std::sync::{Arc, Once};
use std::time::Duration;

use anyhow::Context as _;
use tiphys_apiserver::Definitions;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::plan::Plan;
pub use self::plan::Selection;
use self::world::World;

/// How long the two sides may take, in virtual time, to agree once everything works again. Agents wait up to a minute
/// before they dial again.
const PATIENCE: Duration = Duration::from_secs(900);
/// Pause between two looks at whether they agree.
const LOOK: Duration = Duration::from_secs(5);
/// How long they must go on agreeing, without a write: more than two intervals of comparison.
const REST: Duration = Duration::from_secs(30);

/// Kinds without a schema: what they contain is nobody's business here, and a seed stays cheap.
const DEFINITIONS: &str = include_str!("simulation/definitions.yaml");

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Runs seeds.
#[derive(Clone, Debug)]
pub struct Simulation {
    definitions: Definitions,
}

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What the seed drew, in a line.
    pub plan: String,
    /// What does not hold; empty if all is well.
    pub violations: Vec<String>,
    /// What happened, in order.
    pub trace: Vec<String>,
    /// Hash over what happened: the same for the same seed.
    pub hash: u64,
    /// How long it took, in virtual time, until both sides agreed after the faults stopped.
    pub settled: Duration,
    /// What users, controllers and faults did, and messages on the wire.
    pub events: usize,
}

impl Simulation {
    /// Reads what is the same for every seed.
    ///
    /// # Errors
    /// If the definitions of the resources cannot be read.
    pub fn new() -> anyhow::Result<Self> {
        watch_for_panics();
        let definitions = Definitions::parse(DEFINITIONS).context("the definitions cannot be read")?;
        Ok(Self { definitions })
    }

    /// Runs one seed on this thread.
    ///
    /// # Errors
    /// If there is no runtime to run it in, or the world cannot be set up: not a violation but a fault of the simulation.
    pub fn run(&self, seed: u64, selection: Selection) -> anyhow::Result<Outcome> {
        fastrand::seed(seed);
        PANICS.with_borrow_mut(Vec::clear);
        let plan = Plan::draw(seed, selection);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let description = plan.to_string();
        let mut outcome = runtime.block_on(live(plan, self.definitions.clone()))?;
        drop(runtime);
        outcome.plan = description;
        let panics = PANICS.with_borrow_mut(std::mem::take);
        outcome.violations.extend(panics.into_iter().map(|panic| format!("panic: {panic}")));
        Ok(outcome)
    }
}

async fn live(plan: Plan, definitions: Definitions) -> anyhow::Result<Outcome> {
    let seed = plan.seed;
    let world = Arc::new(World::new(plan, definitions).await?);
    let mut always = JoinSet::new();
    let mut acting = JoinSet::new();
    witness::start(&world, &mut always);
    sides::start(&world);
    argocd::start(&world, &mut always);
    always.spawn(promises::keep_watch(Arc::clone(&world)));
    users::start(&world, &mut acting);
    faults::start(&world, &mut acting);
    while acting.join_next().await.is_some() {}

    faults::stop(&world);
    world.journal.note("world", format_args!("faults stop"));
    let calm = Instant::now();
    let mut agreed: Option<Instant> = None;
    let mut differences;
    let mut settled = Duration::ZERO;
    loop {
        sleep(LOOK).await;
        differences = promises::differences(&world).await?;
        if differences.is_empty() {
            let since = *agreed.get_or_insert_with(Instant::now);
            if since.elapsed() >= REST {
                settled = since - calm;
                break;
            }
        } else if agreed.take().is_some() {
            world.journal.note("world", format_args!("agreement lost: {}", differences.join("; ")));
        }
        if calm.elapsed() > PATIENCE {
            break;
        }
    }
    let mut violations = differences;
    if violations.is_empty() && settled.is_zero() && agreed.is_some_and(|since| since.elapsed() < REST) {
        violations.push("both sides agree for a moment only, again and again".to_owned());
    }
    violations.extend(promises::of_the_whole_run(&world).await?);
    always.abort_all();
    sides::stop(&world);
    let (trace, hash) = world.journal.take();
    let events = trace.len();
    Ok(Outcome { seed, plan: String::new(), violations, trace, hash, settled, events })
}

/// A task that panics ends silently; here it must not.
fn watch_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
            before(info);
        }));
    });
}
