//! Which applications are managed, and what is done about those that are in the way.

use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use tiphys_shared::process::options::{self, NamePattern, Problems};
use tiphys_shared::protocol::ownership::{AdoptionPolicy, MismatchPolicy};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Applications")]
pub(super) struct ApplicationOptions {
    /// Namespaces to manage applications in besides the agent's own: names, globs or /regular expressions/
    #[arg(long, env = "ARGOCD_AGENT_ALLOWED_NAMESPACES", value_name = "LIST", value_delimiter = ',')]
    allowed_namespaces: Vec<String>,
    /// Keep each application in the namespace that it has at the control plane
    #[arg(long, env = "ARGOCD_AGENT_DESTINATION_BASED_MAPPING", action = ArgAction::Set, default_value = "false")]
    pub(super) destination_based_mapping: bool,
    /// Create the namespace of an application that needs it; only with --destination-based-mapping
    #[arg(long, env = "ARGOCD_AGENT_CREATE_NAMESPACE", action = ArgAction::Set, default_value = "false")]
    pub(super) create_namespace: bool,
    /// What an application that comes back after somebody deleted it here starts with
    ///
    /// It always starts with what the control plane declares and with a clean status, so that automated sync works;
    /// resync starts a sync, too.
    #[arg(long, env = "ARGOCD_AGENT_ON_APPLICATION_RECREATE", value_name = "POLICY")]
    #[arg(default_value = "ignore", ignore_case = true)]
    pub(super) on_application_recreate: OnRecreate,
    /// When a resource here stems from another source of the same name: recreate it or update it in place
    #[arg(long, env = "ARGOCD_AGENT_SOURCE_UID_MISMATCH_POLICY", value_name = "POLICY")]
    #[arg(default_value = "recreate", ignore_case = true)]
    pub(super) source_uid_mismatch_policy: MismatchPolicy,
    /// Take over resources of the same name that were here before: always or never
    #[arg(long, env = "ARGOCD_AGENT_ADOPTION_POLICY", value_name = "POLICY")]
    #[arg(default_value = "always", ignore_case = true)]
    pub(super) adoption_policy: AdoptionPolicy,
    /// Send changes of one application at most this often, always the newest; 0 sends each at once
    #[arg(long, env = "ARGOCD_AGENT_BUFFER_INFORMER_EVENT_INTERVAL", value_name = "DURATION")]
    #[arg(default_value = "0s", value_parser = options::duration)]
    pub(super) buffer_informer_event_interval: Duration,
    /// Watch only resources that match this label selector
    #[arg(long, env = "ARGOCD_AGENT_LABEL_SELECTOR", value_name = "SELECTOR")]
    pub(super) label_selector: Option<String>,
}

/// What an application that comes back after somebody deleted it here starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OnRecreate {
    /// What the control plane declares, and a clean status.
    Ignore,
    /// The same.
    ClearStatus,
    /// A sync, too.
    Resync,
}

impl ApplicationOptions {
    pub(super) fn check(&self) -> Result<Vec<NamePattern>, Problems> {
        let mut problems = Problems::default();
        let mut allowed = Vec::new();
        for text in &self.allowed_namespaces {
            let pattern = NamePattern::new(text).map_err(|invalid| ("--allowed-namespaces", invalid).into());
            allowed.extend(problems.keep(pattern));
        }
        if let Some(selector) = self.label_selector.as_deref().filter(|selector| !selector.is_empty()) {
            let checked = options::check_label_selector(selector);
            problems.keep(checked.map_err(|invalid| ("--label-selector", invalid).into()));
        }
        if problems.is_empty() { Ok(allowed) } else { Err(problems) }
    }
}
