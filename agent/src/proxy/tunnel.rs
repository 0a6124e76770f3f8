//! Keeps a tunnel open for as long as there is a session with a principal that wants one.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::service::service_fn;
use tiphys_shared::model::Mode;
use tiphys_shared::model::feature::{Feature, Features};
use tiphys_shared::process::backoff::{Backoff, Schedule};
use tiphys_shared::wire::tunnel;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Proxy;
use crate::connection::Link;

/// Opens a tunnel once the principal has confirmed that it wants one, and another whenever it breaks. Dropping the future
/// ends it, and all that is under way in it.
pub(crate) async fn keep(
    link: &impl Link,
    mode: Mode,
    proxy: &Arc<Proxy>,
    mut features: watch::Receiver<Option<Features>>,
) -> Infallible {
    let wanted = |features: &Option<Features>| features.as_ref().is_some_and(|set| set.has(Feature::Tunnel));
    if features.wait_for(wanted).await.is_err() {
        return std::future::pending().await;
    }
    let mut backoff = Backoff::random(Schedule::default());
    loop {
        let began = Instant::now();
        match link.tunnel(mode).await {
            Ok(io) => {
                tracing::info!("tunnel opened: the control plane reaches this cluster's api");
                // Upgraded connections are tasks of their own, and end with the tunnel.
                let scope = CancellationToken::new();
                let _guard = scope.clone().drop_guard();
                let proxy = Arc::clone(proxy);
                let service = service_fn(move |request| {
                    let (proxy, scope) = (Arc::clone(&proxy), scope.clone());
                    async move { Ok::<_, Infallible>(proxy.serve(request, scope).await) }
                });
                match tunnel::serve(io, service).await {
                    Ok(()) => tracing::info!("tunnel ended"),
                    Err(error) => tracing::warn!(%error, "tunnel broke"),
                }
            }
            Err(error) => tracing::warn!(%error, "no tunnel to the principal"),
        }
        tokio::time::sleep(backoff.next_delay(began.elapsed())).await;
    }
}
