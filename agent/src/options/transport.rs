//! What the way to the principal leads over.

use clap::{ArgAction, Args};
use tiphys_shared::process::options::{HostPort, Problem};
use tiphys_shared::wire::transport::proxy::{BadProxy, Proxy};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection to the principal")]
pub(super) struct TransportOptions {
    /// Reach the principal over WebSocket, where something in between lets no HTTP/2 pass
    #[arg(long, env = "ARGOCD_AGENT_ENABLE_WEBSOCKET", action = ArgAction::Set, default_value = "false")]
    pub(super) enable_websocket: bool,
}

/// The proxy of the environment through which the principal is reached, if it is not reached straight.
pub(super) fn proxy(
    server: &HostPort,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Proxy>, Problem> {
    Proxy::find(variable, &server.host, server.port).map_err(|(name, error)| {
        let remedy = match error {
            BadProxy::NoUrl => "write http://HOST:PORT, or http://USER:PASSWORD@HOST:PORT",
            BadProxy::Scheme => "name a proxy that takes CONNECT without TLS, as http://HOST:PORT",
        };
        Problem::new(format!("the environment variable {name} cannot be used: {error}"), remedy)
    })
}
