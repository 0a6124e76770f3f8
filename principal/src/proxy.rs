//! The resource proxy: the Kubernetes API of every agent's cluster, for Argo CD and for kubectl.
//!
//! ```text
//! listener ─▶ caller (who, which agent) ─▶ forward ══ tunnel ══▶ agent ─▶ API server
//!                       │                     └──▶ events ─────▶ Go agent ─▶ API server
//!                       └────────── audit ──────┘
//! ```
//!
//! Which agent a request may reach is decided by its credentials alone, in [`caller`]. What may pass is decided by the
//! agent. An agent of the Go project has no tunnel, and is asked by [`events`] for what it can do; logs and terminals it brings
//! over streams of its own.

mod caller;
pub(crate) mod events;
mod forward;
mod listener;

use std::net::SocketAddr;
use std::sync::Arc;

use tiphys_shared::security::tls::ServerTls;
use tiphys_shared::security::token::Issuer;
use tokio_util::sync::CancellationToken;

use crate::agents::Agents;
use crate::metrics::Metrics;

pub use self::caller::Operator;
pub(crate) use self::listener::run;

/// Where the proxy listens, and whom it trusts.
#[derive(Clone)]
pub struct ProxyConfig {
    /// The address.
    pub listen: SocketAddr,
    /// Its certificate, and the CA of its clients.
    pub tls: ServerTls,
    /// Who may reach more than one agent.
    pub operators: Vec<Operator>,
}

/// What requests are served with.
pub(crate) struct Proxy {
    pub(crate) agents: Arc<Agents>,
    pub(crate) issuer: Issuer,
    pub(crate) operators: Vec<Operator>,
    pub(crate) metrics: Arc<Metrics>,
    /// Ends upgraded connections.
    pub(crate) stop: CancellationToken,
}
