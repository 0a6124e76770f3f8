//! This cluster's API for those at the control plane who may have it: requests come through a [tunnel], are judged by the
//! [policy], and go to the API server under the agent's own credentials.
//!
//! ```text
//! tunnel ─▶ policy ─▶ (is it an application's?) ─▶ API server
//! events ───┘
//!    └────── audit ──────────────────────────────────┘
//! ```
//!
//! A principal of the Go project asks by [`events`] instead.
//!
//! Nothing of the caller's credentials reaches the API server. Who calls is known from the principal, and is told to the
//! API server only where impersonation is on.

mod events;
mod managed;
pub(crate) mod policy;
mod serve;
mod tunnel;

use std::sync::Arc;

use tiphys_shared::kube::api_server::ApiServer;
use tokio::sync::watch;

pub(crate) use self::events::Events;
use self::managed::Managed;
pub use self::policy::{AllowList, Policy};
pub(crate) use self::tunnel::keep;
use crate::metrics::Metrics;

/// What of this cluster's API is served, and how.
#[derive(Clone)]
pub struct ProxyConfig {
    /// The API server, with the agent's credentials.
    pub api_server: ApiServer,
    /// What may pass. A new one counts from the next request on.
    pub policy: watch::Receiver<Policy>,
    /// Nothing that changes anything may pass, whatever the policy says.
    pub read_only: bool,
    /// The API server is told who calls, and judges by that.
    pub impersonate: bool,
}

/// The agent's end of the proxy.
pub(crate) struct Proxy {
    config: ProxyConfig,
    managed: Managed,
    metrics: Arc<Metrics>,
}

impl Proxy {
    /// A proxy that asks `client` what belongs to an application of the Argo CD in `namespace`.
    pub(crate) fn new(
        config: ProxyConfig,
        client: kube::Client,
        namespace: &str,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { config, managed: Managed::new(client, namespace), metrics }
    }

    /// Whether what passes depends on what belongs to an application.
    pub(crate) fn asks_what_is_managed(&self) -> bool {
        *self.config.policy.borrow() == Policy::Managed
    }

    /// Follows how applications are told from each other on this cluster.
    pub(crate) fn managed(&self) -> &Managed {
        &self.managed
    }
}
