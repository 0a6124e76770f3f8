//! The cluster side: applies what the control plane wants, undoes what others change, and tells how things stand.
//!
//! ```text
//! informer ─▶ outbound ─▶ outbox ══▶ stream
//!                │ what left the wanted state
//!                ▼
//! stream ══▶ handler ─▶ mirror ─▶ reconciler ─▶ backend
//! tunnel ══▶ proxy ─▶ API server
//! ```
//!
//! [`options`] reads what the user wants, [`setup`] turns it into a [`Config`], and [`Agent::run`] works until it is cancelled.

mod cluster_cache;
pub mod connection;
mod handler;
pub mod join;
mod metrics;
mod namespaces;
mod news;
pub mod options;
mod outbound;
mod pace;
mod proxy;
mod redis_proxy;
mod renewal;
mod server;
pub mod setup;

pub use cluster_cache::ClusterCacheConfig;
pub use metrics::describe as metrics;
pub use proxy::{AllowList, Policy as ProxyPolicy, ProxyConfig};
pub use server::{Agent, Config, Handle};

/// Why an agent cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Two metrics of one name.
    #[error(transparent)]
    Metrics(#[from] tiphys_shared::process::metrics::Error),
    /// The principal was never reached, and trying again would not help.
    #[error("cannot reach the principal: {0}")]
    Unreachable(#[source] tiphys_shared::wire::transport::Error),
}
