//! The principal, and how this agent presents itself to it.

use std::path::Path;
use std::time::Duration;

use clap::{ArgAction, Args};
use tiphys_shared::model::agent::Mode;
use tiphys_shared::process::options::{self, HostPort, Problem, Problems};
use tiphys_shared::security::passwords::{self, Credentials};

use super::filled;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection to the principal")]
pub(super) struct ConnectionOptions {
    /// Host name or address of the principal
    #[arg(long, env = "ARGOCD_AGENT_REMOTE_SERVER", value_name = "HOST")]
    server_address: Option<String>,
    /// Port of the principal
    #[arg(long, env = "ARGOCD_AGENT_REMOTE_PORT", value_name = "PORT", default_value_t = 443)]
    server_port: u16,
    /// How this agent proves who it is
    ///
    /// mtls:any uses the client certificate; userpass:FILE reads a user:password line; header leaves it to a service
    /// mesh that adds the header.
    #[arg(long, env = "ARGOCD_AGENT_CREDS", value_name = "METHOD:CONFIG")]
    creds: Option<String>,
    /// Who owns the applications: managed (the control plane) or autonomous (this cluster)
    #[arg(long, env = "ARGOCD_AGENT_MODE", value_name = "MODE", default_value = "autonomous")]
    agent_mode: String,
    /// Send keepalive pings this often; 0 sends none
    #[arg(long, env = "ARGOCD_AGENT_KEEP_ALIVE_PING_INTERVAL", value_name = "DURATION")]
    #[arg(default_value = "0s", value_parser = options::duration)]
    pub(super) keep_alive_ping_interval: Duration,
    /// Send heartbeat events on the stream this often, for meshes that cut silent streams; 0 sends none
    #[arg(long, env = "ARGOCD_AGENT_HEARTBEAT_INTERVAL", value_name = "DURATION")]
    #[arg(default_value = "0s", value_parser = options::duration)]
    pub(super) heartbeat_interval: Duration,
    /// Compare what both sides hold this often, and repair what differs; 0 compares at connect only
    #[arg(long, env = "TIPHYS_AGENT_RESYNC_INTERVAL", value_name = "DURATION")]
    #[arg(default_value = "60s", value_parser = options::duration)]
    pub(super) resync_interval: Duration,
    /// Version to announce to the principal; a Go principal takes agents of its own version only
    #[arg(long, env = "TIPHYS_AGENT_ANNOUNCE_VERSION", value_name = "VERSION", default_value = env!("CARGO_PKG_VERSION"))]
    pub(super) announce_version: String,
    /// Compress what is sent with gzip
    #[arg(long, env = "ARGOCD_AGENT_ENABLE_COMPRESSION", action = ArgAction::Set, default_value = "false")]
    pub(super) enable_compression: bool,
    /// Largest gRPC message that is sent or taken, in bytes
    #[arg(
        long,
        env = "ARGOCD_AGENT_GRPC_MAX_MESSAGE_SIZE",
        value_name = "BYTES",
        default_value_t = 209_715_200
    )]
    pub(super) grpc_max_message_size: u32,
}

impl ConnectionOptions {
    pub(super) fn check(&self) -> Result<(HostPort, Mode), Problems> {
        let mut problems = Problems::default();
        let server = match filled(self.server_address.clone()) {
            Some(host) => {
                HostPort::new(&host, self.server_port).map_err(|invalid| ("--server-address", invalid).into())
            }
            None => Err(Problem::new(
                "--server-address is missing: the principal to connect to",
                "give its host name, such as --server-address principal.example.com",
            )),
        };
        let server = problems.keep(server);
        let mode = problems.keep(match self.agent_mode.parse() {
            Ok(mode) => Ok(mode),
            Err(_) => Err(Problem::new(
                format!("--agent-mode: there is no mode {:?}", self.agent_mode),
                "set --agent-mode managed (the control plane owns the applications) or autonomous (this cluster does)",
            )),
        });
        problems.0.extend(options::check_message_size(self.grpc_max_message_size).err());
        match (server, mode) {
            (Some(server), Some(mode)) if problems.is_empty() => Ok((server, mode)),
            _ => Err(problems),
        }
    }

    pub(super) fn credentials(&self) -> Result<Credentials, Problem> {
        const REMEDY: &str = "write --creds mtls:any, --creds userpass:FILE or --creds header:any";
        let Some(text) = self.creds.as_deref().filter(|text| !text.is_empty()) else {
            return Err(Problem::new("--creds is missing: how this agent proves who it is", REMEDY));
        };
        let credentials: Credentials = text.parse().map_err(|error| {
            let what = match error {
                passwords::Error::NoFile(_) => "names no file".to_owned(),
                passwords::Error::UnknownMethod(_) => "names no known method".to_owned(),
                other => other.to_string(),
            };
            Problem::new(format!("--creds: {text:?} {what}"), REMEDY)
        })?;
        if let Credentials::UserPass { path } = &credentials {
            check_user_pass(path)?;
        }
        Ok(credentials)
    }
}

/// Checks that the first line of a file is `user:password`. The line itself is never shown.
pub(super) fn check_user_pass(path: &Path) -> Result<(), Problem> {
    let text = options::read_text("--creds userpass", path)?;
    match text.lines().next().and_then(|line| line.split_once(':')) {
        Some((user, password)) if !user.is_empty() && !password.is_empty() => Ok(()),
        _ => Err(Problem::new(
            format!("--creds userpass: the first line of {} is not user:password", path.display()),
            "write the agent's name, a colon and its password into the first line",
        )),
    }
}
