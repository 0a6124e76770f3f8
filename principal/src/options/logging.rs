//! What is logged, and how.

use clap::Args;
use tiphys_shared::process::options::{LogFormat, Logging, Problems};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logging")]
pub(super) struct LoggingOptions {
    /// Level, or component=level, separated by commas
    #[arg(
        long,
        env = "ARGOCD_PRINCIPAL_LOG_LEVEL",
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "info"
    )]
    log_level: Vec<String>,
    /// Form of a log line
    #[arg(
        long,
        env = "ARGOCD_PRINCIPAL_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        ignore_case = true
    )]
    log_format: LogFormat,
}

impl LoggingOptions {
    pub(super) fn check(&self) -> Result<Logging, Problems> {
        Logging::new(&self.log_level, self.log_format)
    }
}
