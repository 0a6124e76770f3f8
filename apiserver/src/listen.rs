//! Serving on a socket.

use crate::Inner;
use crate::serve::{self, Arrival};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// How long a client may take for its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long requests may take to end once the server is told to.
const DRAIN: Duration = Duration::from_secs(5);
/// Pause after an accept that failed, for instance for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing can be bound to the address.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

/// An open socket that is not served yet: connections wait.
pub struct Bound {
    inner: Arc<Inner>,
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
}

impl Bound {
    pub(crate) async fn new(
        inner: Arc<Inner>,
        address: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let tls = tls.map(|config| {
            let mut config = (*config).clone();
            if config.alpn_protocols.is_empty() {
                config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            }
            TlsAcceptor::from(Arc::new(config))
        });
        Ok(Self { inner, listener, address, tls })
    }

    /// The address that clients reach it by.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `cancel`, then ends watches, lets running requests finish, and returns.
    pub async fn run(self, cancel: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let (inner, tls, cancel) = (self.inner.clone(), self.tls.clone(), cancel.clone());
                    connections.spawn(async move { connection(inner, stream, peer, tls, cancel).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        let drained = timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            tracing::warn!(connections = connections.len(), "connections did not end in time");
            connections.shutdown().await;
        }
    }
}

async fn connection(
    inner: Arc<Inner>,
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    cancel: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "cannot switch off delays");
    }
    let Some(tls) = tls else { return serve(inner, stream, peer, cancel).await };
    let handshake = tokio::select! {
        biased;
        () = cancel.cancelled() => return,
        handshake = timeout(HANDSHAKE, tls.accept(stream)) => handshake,
    };
    match handshake {
        Ok(Ok(stream)) => serve(inner, stream, peer, cancel).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "tls handshake failed"),
        Err(_) => tracing::debug!(%peer, "tls handshake took too long"),
    }
}

async fn serve<S>(inner: Arc<Inner>, stream: S, peer: SocketAddr, cancel: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let arrival = Arrival { in_process: false, shutdown: cancel.clone() };
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (inner, arrival) = (inner.clone(), arrival.clone());
        async move { Ok::<_, Infallible>(serve::handle(inner, arrival, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(250);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        biased;
        () = cancel.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        ended = &mut connection => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, error, "connection ended");
    }
}
