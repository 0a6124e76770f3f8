//! The port: TLS, HTTP/1.1 and HTTP/2, and bounds on what a client may cost before it has proven anything.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tiphys_shared::security::tls::ServerTls;
use tiphys_shared::wire::transport::{self, Connection, HandshakeFailure, Limits};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::Proxy;

/// Connections that may be open. A watch over HTTP/1.1 has one for itself.
const MOST_CONNECTIONS: usize = 10_000;
/// Requests under way in one HTTP/2 connection. Argo CD has a watch for each kind of resource of a cluster.
const MOST_STREAMS: u32 = 1000;
/// How long the head of a request may take to come, and how long a connection may stay without one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest head of a request, in bytes.
const HEAD: usize = 64 << 10;
/// A client that does not answer a ping for this long is gone.
const SILENCE: Duration = Duration::from_secs(30);
/// How long requests get to end by themselves.
const DRAIN: Duration = Duration::from_secs(2);

/// Serves until the proxy is stopped.
pub(crate) async fn run(proxy: Arc<Proxy>, listener: TcpListener, tls: ServerTls, tasks: TaskTracker) {
    let errors = proxy.metrics.proxy_errors.clone();
    let limits = Limits {
        on_failure: Some(Arc::new(move |failure: &HandshakeFailure| {
            errors.with_label_values(&["", failure.error.reason()]).inc();
        })),
        ..Limits::default()
    };
    let mut incoming = transport::listen(listener, Some(tls), limits);
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let connection = tokio::select! {
            biased;
            () = proxy.stop.cancelled() => return,
            next = incoming.next() => match next {
                Some(Ok(connection)) => connection,
                Some(Err(_)) => continue,
                None => return,
            },
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            proxy.metrics.proxy_errors.with_label_values(&["", "too_many_connections"]).inc();
            tracing::warn!(
                from = connection.peer().address.map(tracing::field::display),
                "resource proxy: too many connections"
            );
            continue;
        };
        let proxy = Arc::clone(&proxy);
        tasks.spawn(async move {
            serve(proxy, connection).await;
            drop(place);
        });
    }
}

async fn serve(proxy: Arc<Proxy>, connection: Connection) {
    let peer = connection.peer().clone();
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD as u32)
        .max_concurrent_streams(MOST_STREAMS)
        .keep_alive_interval(SILENCE)
        .keep_alive_timeout(SILENCE);
    let service = service_fn(|request| {
        let (proxy, peer) = (Arc::clone(&proxy), peer.clone());
        async move { Ok::<_, Infallible>(proxy.serve(request, &peer).await) }
    });
    let mut served = std::pin::pin!(server.serve_connection_with_upgrades(TokioIo::new(connection), service));
    let outcome = tokio::select! {
        outcome = served.as_mut() => outcome,
        () = proxy.stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN, served).await {
                Ok(outcome) => outcome,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = outcome {
        // Clients come and go; what was under way is in the audit log.
        tracing::debug!(from = peer.address.map(tracing::field::display), %error, "resource proxy: connection broke");
    }
}
