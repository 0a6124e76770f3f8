//! What is told in Kubernetes.

use clap::{ArgAction, Args};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kubernetes")]
pub(super) struct EventOptions {
    /// Write Kubernetes Events about resources on the objects that stand for them
    #[arg(long, env = "TIPHYS_AGENT_KUBERNETES_EVENTS", action = ArgAction::Set, default_value = "true")]
    pub(super) kubernetes_events: bool,
}
