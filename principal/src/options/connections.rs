//! How agents may connect.

use std::time::Duration;

use clap::{ArgAction, Args};
use tiphys_shared::process::options;

use crate::Connections;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server")]
pub(super) struct ConnectionOptions {
    /// Take agents over WebSocket, too, where something in between lets no HTTP/2 pass
    #[arg(long, env = "ARGOCD_PRINCIPAL_ENABLE_WEBSOCKET", action = ArgAction::Set, default_value = "false")]
    enable_websocket: bool,
    /// Cut agents whose keepalive pings are closer together than this; 0 lets them ping as often as they like
    #[arg(long, env = "ARGOCD_PRINCIPAL_KEEP_ALIVE_MIN_INTERVAL", value_name = "DURATION")]
    #[arg(default_value = "0s", value_parser = options::duration)]
    keepalive_min_interval: Duration,
}

impl ConnectionOptions {
    pub(super) fn check(&self) -> Connections {
        Connections {
            websocket: self.enable_websocket,
            min_ping_interval: Some(self.keepalive_min_interval).filter(|interval| !interval.is_zero()),
        }
    }
}
