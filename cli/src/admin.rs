//! What those learn that watch over the process: metrics, health, traces and profiles.

use prometheus::Registry;
use tiphys_shared::process::admin::{Pages, Server};
use tiphys_shared::process::metrics;
use tiphys_shared::process::options::Listen;
use tiphys_shared::process::profile::endpoint;
use tiphys_shared::wire::traces::Traces;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

/// Opens the port that `option` names, if it names one.
async fn listen(option: &str, listen: Option<&Listen>) -> Result<Option<Server>, Failure> {
    let Some(listen) = listen else { return Ok(None) };
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Failure::because(&format!("cannot listen on {listen}"), error)
            .remedy(format!("stop what uses the port, or choose another with {option} (0 turns it off)"))
    };
    let address = listen.address().map_err(|error| failed(&error))?;
    // The server's error names the address again: its cause is what is new.
    Server::bind(address).await.map(Some).map_err(|error| failed(&error.source))
}

/// A registry that has the process's own figures, and those of the runtime that this is called in.
pub(crate) fn registry() -> Result<Registry, Failure> {
    let failed = |error: metrics::Error| Failure::because("cannot register metrics", &error);
    let registry = metrics::registry().map_err(failed)?;
    metrics::runtime(&registry, Some(tokio::runtime::Handle::current())).map_err(failed)?;
    Ok(registry)
}

/// The ports of a process that others watch over.
pub(crate) struct Ports {
    metrics: Option<Server>,
    health: Option<Server>,
    profiles: Option<Server>,
}

impl Ports {
    /// Opens those that are given.
    pub(crate) async fn open(
        metrics: Option<&Listen>,
        health: Option<&Listen>,
        profiles: Option<&Listen>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            metrics: listen("--metrics-port", metrics).await?,
            health: listen("--healthz-port", health).await?,
            profiles: listen("--pprof-port", profiles).await?,
        })
    }

    /// Serves figures, what `health` tells, and profiles until `stop`.
    pub(crate) async fn serve(self, registry: Registry, health: Pages, stop: CancellationToken) {
        let one = |server: Option<Server>, pages: Pages| {
            let stop = stop.clone();
            async move {
                if let Some(server) = server {
                    server.serve(pages, stop).await;
                }
            }
        };
        let metrics = one(self.metrics, Pages::new().metrics(registry));
        tokio::join!(metrics, one(self.health, health), one(self.profiles, endpoint::pages()));
    }
}

/// Sends the traces that were not sent yet.
pub(crate) async fn close(traces: Traces) {
    if let Err(error) = tokio::task::spawn_blocking(move || traces.close()).await {
        tracing::warn!(%error, "the last traces could not be sent");
    }
}
