//! Upstream's options for what this version does not do yet, or never needs.

use clap::{ArgMatches, Args, Command, FromArgMatches};
use tiphys_shared::process::options::{Accepted, Effect, Kind, Problem, accept, review};

/// What the options without effect lead to.
#[derive(Debug, Clone, Default)]
pub(super) struct Compatibility {
    pub(super) problems: Vec<Problem>,
    pub(super) notices: Vec<String>,
}

impl FromArgMatches for Compatibility {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let (problems, notices) = review(matches, TABLE);
        Ok(Self { problems, notices })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Compatibility {
    fn augment_args(command: Command) -> Command {
        accept(command, TABLE)
    }

    fn augment_args_for_update(command: Command) -> Command {
        accept(command, TABLE)
    }
}

const fn row(
    name: &'static str,
    variable: &'static str,
    default: &'static str,
    kind: Kind,
    about: &'static str,
    effect: Effect,
) -> Accepted {
    Accepted { name, variable, default, kind, about, effect }
}

use Effect::{Ignored, Noticed};

#[rustfmt::skip]
const TABLE: &[Accepted] = &[
    row("full-detail", "ARGOCD_AGENT_FULL_DETAIL", "", Kind::List,
        "Log whole objects for these categories",
        Noticed("--full-detail has no effect in this version; --log-level trace shows most")),
    row("informer-sync-timeout", "ARGOCD_AGENT_INFORMER_SYNC_TIMEOUT", "10s", Kind::Duration,
        "Give up at start when lists take longer; Tiphys waits for them", Ignored),
    row("ignore-unmanaged-apps", "ARGOCD_AGENT_IGNORE_UNMANAGED_APPS", "false", Kind::Switch,
        "Leave applications without a source alone; Tiphys always does in managed mode", Ignored),
];
