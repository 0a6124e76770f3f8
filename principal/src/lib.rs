//! The control-plane side: hands resources to agents and takes in what they say.
//!
//! ```text
//! informer ─▶ outbound ─▶ outbox(agent) ══▶ stream ══▶ handler ─▶ backend
//! proxy ══▶ tunnel(agent)
//! ```
//!
//! [`options`] reads what the user wants, [`setup`] turns it into a [`Config`], [`bind`] opens the port and [`Bound::run`]
//! serves. Nothing of what an agent should have is remembered beside the informers' stores.

mod agents;
pub mod blocklist;
mod cluster_view;
mod clusters;
mod control_plane;
mod enrolment;
mod grpc;
mod handler;
mod identity;
mod metrics;
mod news;
pub mod options;
mod outbound;
mod problems;
mod proxy;
mod redis_proxy;
mod registration;
mod requests;
mod server;
pub mod setup;
mod web;

/// Which agent gets what, as the principal itself decides it. Pure.
pub mod routing {
    pub use crate::outbound::mapping::{Mapping, Rule, project_of_repository};
}

use std::net::SocketAddr;

pub use agents::AgentStatus;
pub use cluster_view::ClusterViewConfig;
pub use control_plane::{ControlPlane, ControlPlaneConfig};
pub use enrolment::EnrolmentConfig;
pub use grpc::connections::Connections;
pub use metrics::describe as metrics;
pub use proxy::{Operator, ProxyConfig};
pub use redis_proxy::RedisProxyConfig;
pub use registration::RegistrationConfig;
pub use server::{Bound, Config, Handle, Onboarding, bind};
pub use web::{Access, WebConfig};

/// Why a principal cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port cannot be had.
    #[error("cannot listen on {address}: {source}; stop what uses the port, or choose another with {option}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The option that chooses another.
        option: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// The port of the Redis proxy cannot be had.
    #[error(
        "cannot listen on {address}: {source}; stop what uses the port, choose another with --redis-proxy-port, or turn the \
         Redis proxy off with --disable-redis-proxy"
    )]
    BindRedisProxy {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The identity of the control plane could not be read or made.
    #[error("cannot read or create the config map {name} in namespace {namespace}: {source}")]
    Identity {
        /// Name of the config map.
        name: &'static str,
        /// Its namespace.
        namespace: String,
        /// What the API server says.
        source: Box<kube::Error>,
    },
    /// Two metrics of one name.
    #[error(transparent)]
    Metrics(#[from] tiphys_shared::process::metrics::Error),
    /// The gRPC server failed.
    #[error("the grpc server failed: {0}")]
    Serve(#[source] tonic::transport::Error),
}
