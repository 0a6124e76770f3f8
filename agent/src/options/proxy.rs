//! How this cluster's API is served to the control plane: upstream's switch, and ours for what may pass.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use tiphys_shared::process::options::{self, Problem, Problems};

use crate::proxy::policy::{AllowList, PolicyName};

const POLICIES: &str = "write --proxy-policy managed, allow-list or all";

#[derive(Debug, Clone, Args)]
#[command(
    next_help_heading = "Resource proxy: this cluster's API, for Argo CD and kubectl at the control plane"
)]
pub(super) struct ProxyOptions {
    /// Serve this cluster's API to the control plane
    #[arg(long, env = "ARGOCD_AGENT_ENABLE_RESOURCE_PROXY", action = ArgAction::Set, default_value = "true")]
    enable_resource_proxy: bool,
    /// What may pass: managed, allow-list or all
    ///
    /// managed passes single objects that belong to an application, as argocd-agent does; allow-list what
    /// --proxy-policy-file names; all whatever this agent itself may do.
    #[arg(long, env = "TIPHYS_AGENT_PROXY_POLICY", value_name = "POLICY", default_value = "managed")]
    proxy_policy: String,
    /// File with the rules of the allow-list; it may change while the agent runs
    #[arg(long, env = "TIPHYS_AGENT_PROXY_POLICY_FILE", value_name = "FILE")]
    proxy_policy_file: Option<PathBuf>,
    /// Pass nothing that changes anything, whatever the policy says
    #[arg(long, env = "TIPHYS_AGENT_PROXY_READ_ONLY", action = ArgAction::Set, default_value = "false")]
    proxy_read_only: bool,
    /// Tell the API server who calls, so that its own RBAC decides; this agent must be allowed to impersonate
    #[arg(long, env = "TIPHYS_AGENT_PROXY_IMPERSONATE", action = ArgAction::Set, default_value = "false")]
    proxy_impersonate: bool,
}

/// How this cluster's API is served, checked.
#[derive(Debug, Clone)]
pub struct ProxySettings {
    /// What may pass.
    pub policy: PolicySource,
    /// Only reading may pass.
    pub read_only: bool,
    /// The API server is told who calls.
    pub impersonate: bool,
}

/// Where the policy comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicySource {
    /// What belongs to an application.
    Managed,
    /// The rules in this file.
    AllowList(PathBuf),
    /// Everything.
    All,
}

impl ProxyOptions {
    pub(super) fn check(self) -> Result<Option<ProxySettings>, Problems> {
        if !self.enable_resource_proxy {
            return Ok(None);
        }
        let mut problems = Problems::default();
        let name = problems.keep(
            self.proxy_policy
                .parse::<PolicyName>()
                .map_err(|what| Problem::new(format!("--proxy-policy: {what}"), POLICIES)),
        );
        let policy = match (name, self.proxy_policy_file) {
            (Some(PolicyName::Managed), None) => Some(PolicySource::Managed),
            (Some(PolicyName::All), None) => Some(PolicySource::All),
            (Some(PolicyName::AllowList), Some(path)) => {
                problems.keep(read_allow_list(&path)).map(|_| PolicySource::AllowList(path))
            }
            (Some(PolicyName::AllowList), None) => {
                problems.add(
                    "--proxy-policy allow-list is set without --proxy-policy-file",
                    "name the file with the rules, such as one from a mounted config map",
                );
                None
            }
            (Some(_), Some(_)) => {
                problems.add(
                    format!("--proxy-policy-file is set, but --proxy-policy is {}", self.proxy_policy),
                    "set --proxy-policy allow-list, or leave out the file",
                );
                None
            }
            (None, _) => None,
        };
        match policy {
            Some(policy) if problems.is_empty() => Ok(Some(ProxySettings {
                policy,
                read_only: self.proxy_read_only,
                impersonate: self.proxy_impersonate,
            })),
            _ => Err(problems),
        }
    }
}

/// Reads an allow-list.
///
/// # Errors
/// What is wrong with the file.
pub(crate) fn read_allow_list(path: &std::path::Path) -> Result<AllowList, Problem> {
    let text = options::read_text("--proxy-policy-file", path)?;
    AllowList::parse(&text).map_err(|error| {
        Problem::new(
            format!("--proxy-policy-file: {} is no allow-list: {error}", path.display()),
            "write rules: [{verbs: [get, list, watch], apiGroups: [apps], resources: [deployments]}]",
        )
    })
}
