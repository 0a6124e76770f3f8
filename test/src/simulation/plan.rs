//! What a seed draws before anything happens.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use fastrand::Rng;
use tiphys_shared::model::feature::{Feature, Features};
use tiphys_shared::model::{AgentName, Mode};
use tiphys_shared::protocol::ownership::MismatchPolicy;

/// Which modes the agents of a run are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Selection {
    /// All in managed mode.
    Managed,
    /// All in autonomous mode.
    Autonomous,
    /// One of each.
    Mixed,
    /// The seed says.
    Any,
}

/// The names of agents; one begins like another on purpose.
const NAMES: [&str; 3] = ["edge", "edge-two", "far"];

/// One agent.
#[derive(Clone, Debug)]
pub(crate) struct AgentPlan {
    pub(crate) name: AgentName,
    pub(crate) mode: Mode,
    /// What the two sides can do together; none if one of them is not ours.
    pub(crate) features: Option<Features>,
    pub(crate) mismatch: MismatchPolicy,
    /// What Argo CD at the control plane calls the cluster.
    pub(crate) cluster: Option<String>,
}

impl AgentPlan {
    /// Whether both sides compare all that they hold, again and again. Otherwise they speak upstream's protocol, which
    /// compares the content alone, and only when a side starts.
    pub(crate) fn compares(&self) -> bool {
        self.features.as_ref().is_some_and(|features| features.has(Feature::Resync))
    }
}

/// A run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) agents: Vec<AgentPlan>,
    /// How long users act and things break.
    pub(crate) acting: Duration,
    /// Mean pause of a user between two acts.
    pub(crate) pace: Duration,
    /// Share of API calls that go wrong.
    pub(crate) api: f64,
    /// Mean time between two faults of the wire; none if it never fails.
    pub(crate) wire: Option<Duration>,
    /// Mean time between two crashes; none if nothing crashes.
    pub(crate) crashes: Option<Duration>,
    pub(crate) resync_interval: Duration,
}

impl Plan {
    /// What `seed` draws.
    pub(crate) fn draw(seed: u64, selection: Selection) -> Self {
        let mut rng = Rng::with_seed(seed);
        let selection = match selection {
            Selection::Any => match rng.u8(0..3) {
                0 => Selection::Managed,
                1 => Selection::Autonomous,
                _ => Selection::Mixed,
            },
            selection => selection,
        };
        let modes = match selection {
            Selection::Managed => vec![Mode::Managed; rng.usize(1..=2)],
            Selection::Autonomous => vec![Mode::Autonomous; rng.usize(1..=2)],
            Selection::Mixed | Selection::Any => vec![Mode::Managed, Mode::Autonomous],
        };
        let agents = NAMES
            .into_iter()
            .filter_map(|name| AgentName::new(name).ok())
            .zip(modes)
            .map(|(name, mode)| AgentPlan {
                mode,
                features: match rng.u8(0..10) {
                    0 => None,
                    1 => Some(Features::parse("refusals")),
                    _ => Some(Features::all()),
                },
                mismatch: if rng.bool() { MismatchPolicy::Recreate } else { MismatchPolicy::Upsert },
                cluster: rng.bool().then(|| format!("cluster-of-{name}")),
                name,
            })
            .collect();
        let sometimes = |rng: &mut Rng, from: u64, to: u64| {
            (rng.u8(0..4) > 0).then(|| Duration::from_secs(rng.u64(from..to)))
        };
        Self {
            seed,
            agents,
            acting: Duration::from_secs(rng.u64(20..240)),
            pace: Duration::from_millis(rng.u64(200..8_000)),
            api: match rng.u8(0..4) {
                0 => 0.0,
                1 => 0.02,
                2 => 0.1,
                _ => 0.3,
            },
            wire: sometimes(&mut rng, 3, 60),
            crashes: sometimes(&mut rng, 8, 120),
            resync_interval: Duration::from_secs(10),
        }
    }

    /// Another generator for each purpose, so that what one draws does not depend on what others do.
    pub(crate) fn rng(&self, purpose: &str) -> Rng {
        let mut number = self.seed;
        for byte in purpose.bytes() {
            number = number.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(byte);
        }
        Rng::with_seed(number)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for agent in &self.agents {
            let features = agent.features.as_ref().map_or_else(|| "none".to_owned(), Features::to_metadata);
            write!(f, "{} {} [{features}] {:?}, ", agent.name, agent.mode, agent.mismatch)?;
        }
        write!(
            f,
            "acting {:?} pace {:?} api {} wire {:?} crashes {:?}",
            self.acting, self.pace, self.api, self.wire, self.crashes
        )
    }
}

/// A pause of `mean` on average: most are shorter, some much longer.
pub(crate) fn pause(rng: &mut Rng, mean: Duration) -> Duration {
    let share = -(1.0 - rng.f64()).ln();
    mean.mul_f64(share.min(8.0))
}
