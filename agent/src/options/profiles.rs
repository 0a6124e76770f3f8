//! Where profiles are served: to nobody but who is on this host already, for stacks tell what it does.

use clap::Args;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Profiles")]
pub(super) struct ProfileOptions {
    /// Port on loopback of profiles for go tool pprof; 0 turns them off
    #[arg(long, env = "ARGOCD_AGENT_PPROF_PORT", value_name = "PORT", default_value_t = 0)]
    pub(super) pprof_port: u16,
}
