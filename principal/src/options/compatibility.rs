//! Upstream's options for what this version does not do yet.

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

use Effect::{Ignored, Noticed, Refused};

#[rustfmt::skip]
const TABLE: &[Accepted] = &[
    row("full-detail", "ARGOCD_PRINCIPAL_FULL_DETAIL", "", Kind::List,
        "Log whole objects for these categories",
        Noticed("--full-detail has no effect in this version; --log-level trace shows most")),
    row("event-processors", "ARGOCD_PRINCIPAL_EVENT_PROCESSORS", "10", Kind::Number,
        "How many events are handled at once; Tiphys sets its own limits", Ignored),
    row("ha-enabled", "ARGOCD_PRINCIPAL_HA_ENABLED", "false", Kind::Switch,
        "Run a pair of principals",
        Refused("leave out --ha-enabled and run one principal: pairs are not supported yet")),
    row("ha-preferred-role", "ARGOCD_PRINCIPAL_HA_PREFERRED_ROLE", "primary", Kind::Text,
        "Role of this one of the pair", Ignored),
    row("ha-peer-address", "ARGOCD_PRINCIPAL_HA_PEER_ADDRESS", "", Kind::Text,
        "Address of the other of the pair", Ignored),
    row("ha-failover-timeout", "ARGOCD_PRINCIPAL_HA_FAILOVER_TIMEOUT", "30s", Kind::Duration,
        "Wait this long before taking over", Ignored),
    row("ha-admin-port", "ARGOCD_PRINCIPAL_HA_ADMIN_PORT", "0", Kind::Port,
        "Port of the pair's administration", Ignored),
    row("ha-allowed-replication-clients", "ARGOCD_PRINCIPAL_HA_ALLOWED_REPLICATION_CLIENTS", "", Kind::List,
        "Peers that may replicate", Ignored),
    row("ha-replication-initial-ack-timeout", "ARGOCD_PRINCIPAL_HA_REPLICATION_INITIAL_ACK_TIMEOUT", "0s",
        Kind::Duration, "Wait this long for a replica's first acknowledgement", Ignored),
];
