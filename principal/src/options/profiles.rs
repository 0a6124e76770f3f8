//! Where profiles are served.

use clap::Args;
use tiphys_shared::process::options::Listen;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Profiles")]
pub(super) struct ProfileOptions {
    /// Port on loopback of profiles for go tool pprof; 0 turns them off
    #[arg(long, env = "ARGOCD_PRINCIPAL_PPROF_PORT", value_name = "PORT", default_value_t = 0)]
    pub(super) pprof_port: u16,
}

impl ProfileOptions {
    /// Nobody but who is on this host already: stacks tell what it does.
    pub(super) fn check(&self) -> Option<Listen> {
        (self.pprof_port != 0).then(|| Listen { host: Some("127.0.0.1".to_owned()), port: self.pprof_port })
    }
}
