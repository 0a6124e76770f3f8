//! Connect to a principal.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tonic::transport::{self, Endpoint, Uri};

use super::channel::Channel;
use super::connect::{self, Connected};
use super::failure::Error;
use super::proxy::Proxy;
use super::websocket;
use crate::security::tls::ClientTls;

/// Whom to dial, and how.
#[derive(Clone, Debug)]
pub struct DialOptions {
    /// A host name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The name that the certificate must have, when it is not the host.
    pub server_name: Option<String>,
    /// TLS, or plaintext without it.
    pub tls: Option<ClientTls>,
    /// gRPC over WebSocket instead of HTTP/2.
    pub websocket: bool,
    /// Through whom, if it is not reached straight.
    pub proxy: Option<Proxy>,
    /// How long it may take until the other side speaks HTTP/2.
    pub connect_timeout: Duration,
    /// HTTP/2 pings at this interval, also when idle. None: no pings.
    pub keepalive_interval: Option<Duration>,
    /// How long a ping's answer may take before the connection is given up.
    pub keepalive_timeout: Duration,
    /// Flow-control window of a stream, in bytes.
    pub stream_window: Option<u32>,
    /// Flow-control window of the connection, in bytes.
    pub connection_window: Option<u32>,
    /// Largest frame that is taken, in bytes.
    pub max_frame_size: Option<u32>,
    /// Requests that may wait for the connection.
    pub queue: usize,
    /// What to call ourselves.
    pub user_agent: Option<String>,
}

impl DialOptions {
    /// Options for `host` and `port` with sensible defaults.
    pub fn new(host: impl Into<String>, port: u16, tls: Option<ClientTls>) -> Self {
        Self {
            host: host.into(),
            port,
            server_name: None,
            tls,
            websocket: false,
            proxy: None,
            connect_timeout: Duration::from_secs(10),
            keepalive_interval: None,
            keepalive_timeout: Duration::from_secs(20),
            stream_window: None,
            connection_window: None,
            max_frame_size: None,
            queue: 16,
            user_agent: None,
        }
    }

    /// Host and port as people write them.
    pub(super) fn target(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    pub(super) fn server_name(&self) -> Result<ServerName<'static>, Error> {
        let name = self.server_name.as_deref().unwrap_or(&self.host);
        ServerName::try_from(connect::bare(name))
            .map(|name| name.to_owned())
            .map_err(|_| Error::BadHost { host: self.host.clone() })
    }

    fn endpoint(&self) -> Result<Endpoint, Error> {
        let bad = || Error::BadHost { host: self.host.clone() };
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let uri = format!("{scheme}://{}", self.target());
        let mut endpoint = Endpoint::from_shared(uri)
            .map_err(|_| bad())?
            .buffer_size(self.queue)
            .initial_stream_window_size(self.stream_window)
            .initial_connection_window_size(self.connection_window)
            .max_frame_size(self.max_frame_size);
        if let Some(interval) = self.keepalive_interval {
            endpoint = endpoint
                .http2_keep_alive_interval(interval)
                .keep_alive_timeout(self.keepalive_timeout)
                .keep_alive_while_idle(true);
        }
        if let Some(name) = &self.user_agent {
            endpoint = endpoint.user_agent(name.as_str()).map_err(|_| bad())?;
        }
        Ok(endpoint)
    }
}

/// Connects, and returns what calls can be made on.
///
/// Over HTTP/2 the channel is one connection: when it breaks, requests fail, and the caller dials again. Over WebSocket every
/// call has a connection of its own.
///
/// # Errors
/// [`Error`] if the principal cannot be reached or trusted, or does not trust us. Over WebSocket the last shows at the first
/// call, see [`Error::behind`].
pub async fn dial(options: &DialOptions) -> Result<Channel, Error> {
    if options.websocket {
        return websocket::Client::dial(options).await.map(Channel::from);
    }
    http2(options).await.map(Channel::from)
}

/// Connects, shakes hands with the TLS configuration of this moment, and returns once the other side has
/// spoken HTTP/2.
///
/// With TLS 1.3 a client has done its part before the server has looked at the client's certificate, so that a
/// refusal would only surface at the first request, as a broken transport. Waiting for the first bytes of the
/// server (HTTP/2 servers speak first) turns that into an [`Error`] that says what is wrong.
async fn http2(options: &DialOptions) -> Result<transport::Channel, Error> {
    let deadline = Instant::now() + options.connect_timeout;
    let target = options.target();
    let endpoint = options.endpoint()?;
    let late = |during| Error::Timeout { target: target.clone(), during, after: options.connect_timeout };

    let stream = connect::connect(options, None, deadline).await?;
    let (first, first_bytes) = oneshot::channel();
    let tls = options.tls.is_some();
    let watched = Watched { stream, first: Some(first), head: Vec::new() };
    let once = Arc::new(Mutex::new(Some(TokioIo::new(watched))));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = once.lock().take();
        async move { stream.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the connection is lost")) }
    });
    let channel = match timeout_at(deadline, endpoint.connect_with_connector(connector)).await {
        Err(_) => return Err(late("http/2 handshake")),
        Ok(Ok(channel)) => channel,
        // The reason, if the stream knows one, is better than what tonic makes of it.
        Ok(Err(error)) => {
            return Err(match timeout_at(deadline, first_bytes).await {
                Ok(Ok(First::Failed(error))) => Error::from_tls(&target, error, "before it said anything"),
                _ => Error::from_http2(&target, &error),
            });
        }
    };
    match timeout_at(deadline, first_bytes).await {
        Err(_) => Err(late("http/2 settings")),
        Ok(Ok(First::Http2)) => Ok(channel),
        Ok(Ok(First::Tls)) if !tls => Err(Error::PlaintextToTls { target }),
        Ok(Ok(First::Tls | First::Other)) => Err(Error::NotHttp2 { target }),
        Ok(Ok(First::Failed(error))) => Err(Error::from_tls(&target, error, "before it said anything")),
        Ok(Ok(First::End) | Err(_)) if !tls => Err(Error::NotHttp2 { target }),
        Ok(Ok(First::End) | Err(_)) => Err(Error::Closed { target, during: "after the tls handshake" }),
    }
}

/// A channel that connects when it is first used, and anew when its connection broke: for what need not be known to be there.
/// Must be called within the runtime.
///
/// # Errors
/// [`Error`] if the address is none.
pub fn lazy(options: &DialOptions) -> Result<transport::Channel, Error> {
    let endpoint = options.endpoint()?;
    options.server_name()?;
    let options = options.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let options = options.clone();
        async move {
            let deadline = Instant::now() + options.connect_timeout;
            let stream = connect::connect(&options, None, deadline).await.map_err(io::Error::other)?;
            Ok::<_, io::Error>(TokioIo::new(Watched { stream, first: None, head: Vec::new() }))
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// What the other side said first.
#[derive(Debug)]
enum First {
    Http2,
    Tls,
    Other,
    End,
    Failed(io::Error),
}

/// Tells what the other side said first, then only passes bytes.
struct Watched {
    stream: Connected,
    first: Option<oneshot::Sender<First>>,
    head: Vec<u8>,
}

/// Length, type, flags and stream of a frame.
const FRAME_HEAD: usize = 9;

impl Watched {
    fn observe(&mut self, outcome: Result<&[u8], &io::Error>) {
        let verdict = match outcome {
            Err(error) => First::Failed(connect::copy(error)),
            Ok([]) => First::End,
            Ok(bytes) => {
                let missing = FRAME_HEAD.saturating_sub(self.head.len());
                self.head.extend_from_slice(&bytes[..bytes.len().min(missing)]);
                match self.head.as_slice() {
                    // A TLS alert: 21, then version 3.x.
                    [21, 3, ..] => First::Tls,
                    // A SETTINGS frame (type 4) of a few entries, on stream 0.
                    [0, 0, _, 4, _, 0, 0, 0, 0] => First::Http2,
                    head if head.len() < FRAME_HEAD && head.first() == Some(&0) => return,
                    _ => First::Other,
                }
            }
        };
        if let Some(first) = self.first.take() {
            // Whoever dialled may have given up.
            let _ = first.send(verdict);
            self.head = Vec::new();
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if self.first.is_some() {
            match &outcome {
                Ok(()) => self.observe(Ok(&buf.filled()[before..])),
                Err(error) => self.observe(Err(error)),
            }
        }
        Poll::Ready(outcome)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
