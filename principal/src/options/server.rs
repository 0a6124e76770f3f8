//! Where the principal listens.

use clap::Args;
use tiphys_shared::process::options::{Problem, check_ports};

use super::proxy::ProxyOptions;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server")]
pub(super) struct ServerOptions {
    /// Host name or address of the interface that agents reach; empty means all interfaces
    #[arg(long, env = "ARGOCD_PRINCIPAL_LISTEN_HOST", value_name = "HOST")]
    pub(super) listen_host: Option<String>,
    /// Port that agents reach; 0 lets the kernel choose
    #[arg(long, env = "ARGOCD_PRINCIPAL_LISTEN_PORT", value_name = "PORT", default_value_t = 8443)]
    pub(super) listen_port: u16,
    /// Port of the Prometheus metrics; 0 turns them off
    #[arg(long, env = "ARGOCD_PRINCIPAL_METRICS_PORT", value_name = "PORT", default_value_t = 8000)]
    pub(super) metrics_port: u16,
    /// Port of the health checks; 0 turns them off
    #[arg(long, env = "ARGOCD_PRINCIPAL_HEALTH_CHECK_PORT", value_name = "PORT", default_value_t = 8003)]
    pub(super) healthz_port: u16,
    /// Largest gRPC message that is sent or taken, in bytes
    #[arg(
        long,
        env = "ARGOCD_PRINCIPAL_GRPC_MAX_MESSAGE_SIZE",
        value_name = "BYTES",
        default_value_t = 209_715_200
    )]
    pub(super) grpc_max_message_size: u32,
}

impl ServerOptions {
    pub(super) fn check_ports(
        &self,
        proxy: &ProxyOptions,
        redis_proxy_port: Option<u16>,
        embedded_port: Option<u16>,
        web_port: u16,
        pprof_port: u16,
    ) -> Vec<Problem> {
        let mut ports = vec![
            ("--listen-port", self.listen_port),
            ("--metrics-port", self.metrics_port),
            ("--healthz-port", self.healthz_port),
            ("--redis-proxy-port", redis_proxy_port.unwrap_or_default()),
            ("--embedded-listen-port", embedded_port.unwrap_or_default()),
            ("--web-port", web_port),
            ("--pprof-port", pprof_port),
        ];
        if proxy.enable_resource_proxy {
            ports.push(("--resource-proxy-listen-port", proxy.resource_proxy_listen_port));
        }
        check_ports(&ports)
    }
}
