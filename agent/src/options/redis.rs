//! Where this cluster's Argo CD keeps what it has counted.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};
use tiphys_shared::process::options::{self, Problems};
use tiphys_shared::redis;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Redis of Argo CD, for the control plane's view of this cluster")]
pub(super) struct RedisOptions {
    /// Address of this cluster's Redis; none tells the control plane nothing of what is counted there
    #[arg(long, env = "REDIS_ADDR", value_name = "HOST:PORT", default_value = "argocd-redis:6379")]
    redis_addr: String,
    /// User of Redis
    #[arg(long, env = "REDIS_USERNAME", value_name = "NAME")]
    redis_username: Option<String>,
    /// Password of Redis
    #[arg(long, env = "REDIS_PASSWORD", value_name = "TEXT", hide_env_values = true)]
    redis_password: Option<String>,
    /// Folder with the file auth that holds the password of Redis, and perhaps auth_username
    #[arg(long, env = "REDIS_CREDS_DIR_PATH", value_name = "FOLDER")]
    redis_creds_dir_path: Option<PathBuf>,
    /// Use TLS towards Redis
    #[arg(long, env = "ARGOCD_AGENT_REDIS_TLS_ENABLED", action = ArgAction::Set, default_value = "false")]
    redis_tls_enabled: bool,
    /// File with the CA of Redis, instead of the Secret
    #[arg(long, env = "ARGOCD_AGENT_REDIS_TLS_CA_PATH", value_name = "FILE")]
    redis_tls_ca_path: Option<PathBuf>,
    /// Secret with the CA of Redis
    #[arg(long, env = "ARGOCD_AGENT_REDIS_TLS_CA_SECRET_NAME", value_name = "NAME")]
    #[arg(default_value = "argocd-redis-tls")]
    redis_tls_ca_secret_name: String,
    /// INSECURE: take whatever certificate Redis shows
    #[arg(long, env = "ARGOCD_AGENT_REDIS_TLS_INSECURE", action = ArgAction::Set, default_value = "false")]
    redis_tls_insecure: bool,
    /// Look this often for what Argo CD has counted on this cluster; what changes is sent
    #[arg(long, env = "ARGOCD_AGENT_CACHE_REFRESH_INTERVAL", value_name = "DURATION")]
    #[arg(default_value = "10s", value_parser = options::duration)]
    pub(super) cache_refresh_interval: Duration,
}

impl RedisOptions {
    pub(super) fn check(&self, notices: &mut Vec<String>) -> Result<Option<redis::Access>, Problems> {
        let mut problems = Problems::default();
        if self.cache_refresh_interval.is_zero() {
            problems.add(
                "--cache-refresh-interval is 0: nobody can look that often",
                "give a duration, such as 10s; --redis-addr none turns looking off",
            );
        }
        let access = options::RedisOptions {
            address: ("--redis-addr", &self.redis_addr),
            username: self.redis_username.as_deref(),
            password: self.redis_password.as_deref(),
            folder: self.redis_creds_dir_path.as_deref(),
            tls: self.redis_tls_enabled,
            insecure: self.redis_tls_insecure,
            ca_path: ("--redis-tls-ca-path", self.redis_tls_ca_path.as_deref()),
            ca_secret: &self.redis_tls_ca_secret_name,
        };
        match problems.absorb(access.check(notices)) {
            Some(access) if problems.is_empty() => Ok(access),
            _ => Err(problems),
        }
    }
}
