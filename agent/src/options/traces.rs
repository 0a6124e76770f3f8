//! Where traces are sent.

use clap::{ArgAction, Args};
use tiphys_shared::process::options::{self, Collector, Problem};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Traces")]
pub(super) struct TraceOptions {
    /// Host and port of a collector of OpenTelemetry traces, over OTLP and gRPC; without it none are made
    #[arg(long, env = "ARGOCD_AGENT_OTLP_ADDRESS", value_name = "HOST:PORT")]
    otlp_address: Option<String>,
    /// Send traces without TLS
    #[arg(long, env = "ARGOCD_AGENT_OTLP_INSECURE", action = ArgAction::Set, default_value = "false")]
    otlp_insecure: bool,
}

impl TraceOptions {
    pub(super) fn check(&self) -> Result<Option<Collector>, Problem> {
        options::collector(self.otlp_address.as_deref(), self.otlp_insecure)
    }
}
