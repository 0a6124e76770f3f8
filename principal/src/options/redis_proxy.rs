//! Where and how the Redis proxy is served.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use tiphys_shared::process::options::{self, KeyPair, Listen, Problems};
use tiphys_shared::security::tls::{Alpn, ClientCertificate, Policy};

use super::tls::half;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Redis proxy, for what Argo CD shows of Applications at clusters")]
pub(super) struct RedisProxyOptions {
    /// Do not serve the Redis proxy
    #[arg(long, env = "ARGOCD_PRINCIPAL_DISABLE_REDIS_PROXY", action = ArgAction::Set, default_value = "false")]
    disable_redis_proxy: bool,
    /// Port of the Redis proxy; 0 lets the kernel choose
    #[arg(long, env = "TIPHYS_PRINCIPAL_REDIS_PROXY_PORT", value_name = "PORT", default_value_t = 6379)]
    redis_proxy_port: u16,
    /// File with the Redis proxy's certificate in PEM, instead of the Secret; used with --redis-tls-enabled
    #[arg(long, env = "ARGOCD_PRINCIPAL_REDIS_PROXY_SERVER_TLS_CERT_PATH", value_name = "FILE")]
    redis_proxy_server_tls_cert: Option<PathBuf>,
    /// File with the Redis proxy's private key in PEM, instead of the Secret
    #[arg(long, env = "ARGOCD_PRINCIPAL_REDIS_PROXY_SERVER_TLS_KEY_PATH", value_name = "FILE")]
    redis_proxy_server_tls_key: Option<PathBuf>,
    /// Secret with the Redis proxy's certificate and key
    #[arg(long, env = "ARGOCD_PRINCIPAL_REDIS_PROXY_SERVER_TLS_SECRET_NAME", value_name = "NAME")]
    #[arg(default_value = "argocd-redis-proxy-tls")]
    redis_proxy_server_tls_secret_name: String,
}

/// How the Redis proxy is served.
#[derive(Debug, Clone)]
pub struct RedisProxy {
    /// Where it listens.
    pub listen: Listen,
    /// Its certificate, and what TLS insists on; plaintext without it.
    pub tls: Option<(KeyPair, Policy)>,
}

impl RedisProxyOptions {
    /// The port that has to be free.
    pub(super) fn port(&self) -> Option<u16> {
        (!self.disable_redis_proxy).then_some(self.redis_proxy_port)
    }

    /// `policy` is that of the principal's other ports; none of it without `tls`.
    pub(super) fn check(&self, tls: bool, policy: Policy) -> Result<Option<RedisProxy>, Problems> {
        let Some(port) = self.port() else { return Ok(None) };
        // Manifests name a certificate also where TLS is not turned on; its files need not be there then.
        let tls = if tls {
            let policy = Policy { client_certificate: ClientCertificate::None, alpn: Alpn::None, ..policy };
            Some((self.identity()?, policy))
        } else {
            None
        };
        Ok(Some(RedisProxy { listen: Listen::everywhere(port), tls }))
    }

    fn identity(&self) -> Result<KeyPair, Problems> {
        const CERTIFICATE: &str = "--redis-proxy-server-tls-cert";
        const KEY: &str = "--redis-proxy-server-tls-key";
        let secret = &self.redis_proxy_server_tls_secret_name;
        let filled = |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
        match (filled(&self.redis_proxy_server_tls_cert), filled(&self.redis_proxy_server_tls_key)) {
            (Some(certificate), Some(key)) => {
                options::check_key_pair((CERTIFICATE, &certificate), (KEY, &key))
                    .map(|()| KeyPair::Files { certificate, key })
            }
            (None, None) => Ok(KeyPair::Secret(secret.clone())),
            (Some(_), None) => Err(half(CERTIFICATE, KEY, secret)),
            (None, Some(_)) => Err(half(KEY, CERTIFICATE, secret)),
        }
    }
}
