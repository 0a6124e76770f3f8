//! What is told in Kubernetes.

use clap::{ArgAction, Args};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kubernetes")]
pub(super) struct EventOptions {
    /// Write Kubernetes Events about agents and resources on the objects that stand for them
    #[arg(long, env = "TIPHYS_PRINCIPAL_KUBERNETES_EVENTS", action = ArgAction::Set, default_value = "true")]
    pub(super) kubernetes_events: bool,
}
