//! What is logged, and where metrics and health are served.

use clap::Args;
use tiphys_shared::process::options::{LogFormat, Logging, Problems, check_ports};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logging, metrics, health")]
pub(super) struct ProcessOptions {
    /// Level, or component=level, separated by commas
    #[arg(
        long,
        env = "ARGOCD_AGENT_LOG_LEVEL",
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "info"
    )]
    log_level: Vec<String>,
    /// Form of a log line
    #[arg(
        long,
        env = "ARGOCD_AGENT_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        ignore_case = true
    )]
    log_format: LogFormat,
    /// Port of the Prometheus metrics; 0 turns them off
    #[arg(long, env = "ARGOCD_AGENT_METRICS_PORT", value_name = "PORT", default_value_t = 8181)]
    pub(super) metrics_port: u16,
    /// Port of the health checks; 0 turns them off
    #[arg(long, env = "ARGOCD_AGENT_HEALTH_CHECK_PORT", value_name = "PORT", default_value_t = 8001)]
    pub(super) healthz_port: u16,
}

impl ProcessOptions {
    pub(super) fn check(&self, pprof_port: u16) -> Result<Logging, Problems> {
        let mut problems = Problems(check_ports(&[
            ("--metrics-port", self.metrics_port),
            ("--healthz-port", self.healthz_port),
            ("--pprof-port", pprof_port),
        ]));
        match problems.absorb(Logging::new(&self.log_level, self.log_format)) {
            Some(logging) if problems.is_empty() => Ok(logging),
            _ => Err(problems),
        }
    }
}
