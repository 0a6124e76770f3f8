//! Where Argo CD's Redis is.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use tiphys_shared::model::cluster::Compression;
use tiphys_shared::process::options::{self, Problems};
use tiphys_shared::redis;

/// Where Redis is in a cluster with Argo CD, and nowhere else.
const REDIS: &str = "argocd-redis:6379";

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Redis of Argo CD")]
pub(super) struct RedisOptions {
    /// Address of the control plane's Redis; none leaves the view of clusters alone, and there is no Redis proxy
    #[arg(long, env = "ARGOCD_PRINCIPAL_REDIS_SERVER_ADDRESS", value_name = "HOST:PORT")]
    #[arg(default_value = REDIS)]
    redis_server_address: String,
    /// Password of Redis
    #[arg(long, env = "REDIS_PASSWORD", value_name = "TEXT", hide_env_values = true)]
    redis_password: Option<String>,
    /// Folder with the file auth that holds the password of Redis, and perhaps auth_username
    #[arg(long, env = "REDIS_CREDS_DIR_PATH", value_name = "FOLDER")]
    redis_creds_dir_path: Option<PathBuf>,
    /// How Argo CD packs what it keeps in Redis: gzip or none
    #[arg(
        long,
        env = "ARGOCD_PRINCIPAL_REDIS_COMPRESSION_TYPE",
        value_name = "TYPE",
        default_value = "gzip"
    )]
    pub(super) redis_compression_type: Compression,
    /// Use TLS towards Redis, and at the Redis proxy
    #[arg(long, env = "ARGOCD_PRINCIPAL_REDIS_TLS_ENABLED", action = ArgAction::Set, default_value = "false")]
    pub(super) redis_tls_enabled: bool,
    /// File with the CA of Redis, instead of the Secret
    #[arg(long, env = "ARGOCD_PRINCIPAL_REDIS_CA_PATH", value_name = "FILE")]
    redis_ca_path: Option<PathBuf>,
    /// Secret with the CA of Redis
    #[arg(long, env = "ARGOCD_PRINCIPAL_REDIS_CA_SECRET_NAME", value_name = "NAME")]
    #[arg(default_value = "argocd-redis-tls")]
    redis_ca_secret_name: String,
    /// INSECURE: take whatever certificate Redis shows
    #[arg(long, env = "ARGOCD_PRINCIPAL_REDIS_TLS_INSECURE", action = ArgAction::Set, default_value = "false")]
    redis_tls_insecure: bool,
}

impl RedisOptions {
    pub(super) fn check(
        &self,
        is_embedded: bool,
        notices: &mut Vec<String>,
    ) -> Result<Option<redis::Access>, Problems> {
        let none_given = is_embedded && self.redis_server_address == REDIS;
        let address = if none_given { "" } else { self.redis_server_address.as_str() };
        options::RedisOptions {
            address: ("--redis-server-address", address),
            username: None,
            password: self.redis_password.as_deref(),
            folder: self.redis_creds_dir_path.as_deref(),
            tls: self.redis_tls_enabled,
            insecure: self.redis_tls_insecure,
            ca_path: ("--redis-ca-path", self.redis_ca_path.as_deref()),
            ca_secret: &self.redis_ca_secret_name,
        }
        .check(notices)
    }
}
