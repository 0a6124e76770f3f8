//! The way from the principal to a cluster that nothing can reach: HTTP/2 over a byte stream that the agent opened.
//!
//! ```text
//! client ══TLS══▶ principal ──▶ HTTP/2 client ═╗                           ╔═▶ HTTP/2 server ──▶ agent ══▶ API server
//!                                               ╚═ gRPC stream of chunks ═╝
//! ```
//!
//! The agent dials, and then is the server. HTTP/2 is the multiplexer: each request is a stream with flow control of its
//! own; a body of any size passes piece by piece; a direction can end before the other; whoever loses interest resets the
//! stream, and the other end learns it at once. An upgraded connection is an extended CONNECT, see [`upgrade`].
//!
//! Why not a multiplexer of byte streams, such as yamux, with HTTP/1.1 inside: it would need a pool of streams to save
//! set-up, a second framing of messages, and the one at hand does not tell its peer when a half-closed stream is dropped,
//! and ends the whole connection at one stream too many.

mod join;
mod received;
mod stream;
pub mod upgrade;

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::service::HttpService;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::join::join;
pub use self::received::{CutOff, Received};
pub use self::stream::{ByteStream, QUEUE};
use crate::proxy::body::{Body, BoxError};

/// Requests that may be under way in one tunnel.
pub const MAX_REQUESTS: usize = 2048;
/// Bytes that may be on their way on the gRPC connection around a tunnel: a link of 1 Gbit/s with 130 ms is filled.
///
/// Not left to an estimate of the link: on a short one that is never more than what the first guess lets through.
pub const LINK_WINDOW: u32 = 16 << 20;
/// Largest frame on that connection. A frame of the tunnel passes in one, not in three.
pub const LINK_FRAME: u32 = 64 << 10;
/// Bytes of one stream that may be on their way: 10 MB/s at 100 ms.
const STREAM_WINDOW: u32 = 1 << 20;
/// Bytes of all streams that may be on their way. Far more than one stream's, so that those that nobody reads leave room.
const CONNECTION_WINDOW: u32 = 256 << 20;
/// Larger than HTTP/2's default to have fewer of them, small enough for a small answer to pass between two of a large one.
const FRAME: u32 = 32 << 10;
/// Bytes of one answer that may wait to be sent. Enough for its sender not to be woken for every frame.
const SEND_BUFFER: usize = 512 << 10;
/// Longest head of a message. Larger than what the front door takes, for what is added on the way.
const HEAD: u32 = 128 << 10;

/// The principal's end: sends requests. Clones share the tunnel.
#[derive(Clone, Debug)]
pub struct Requester {
    sender: SendRequest<Body>,
    slots: Arc<Semaphore>,
}

/// Leave to have one request under way. Kept until its answer has been passed on.
#[derive(Debug)]
pub struct Slot(#[allow(dead_code, reason = "is given back when it is dropped")] OwnedSemaphorePermit);

/// Opens the principal's end. The future carries the tunnel, and ends with it.
///
/// # Errors
/// If the stream breaks at once.
pub async fn open(io: ByteStream) -> hyper::Result<(Requester, impl Future<Output = hyper::Result<()>>)> {
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(HEAD)
        .initial_max_send_streams(MAX_REQUESTS)
        // A thousand watches may be dropped at once; what still arrives for them is no fault of the peer's.
        .max_concurrent_reset_streams(2 * MAX_REQUESTS)
        .max_local_error_reset_streams(None)
        .handshake(TokioIo::new(io))
        .await?;
    Ok((Requester { sender, slots: Arc::new(Semaphore::new(MAX_REQUESTS)) }, connection))
}

impl Requester {
    /// Leave to send a request, unless too many are under way.
    pub fn reserve(&self) -> Option<Slot> {
        Arc::clone(&self.slots).try_acquire_owned().ok().map(Slot)
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// If the tunnel breaks, or the other end gives the request up.
    ///
    /// # Cancellation
    /// Dropping the future, or the answer's body, ends the request at the other end.
    pub async fn send(&self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        self.sender.clone().send_request(request).await
    }

    /// Whether the tunnel has ended.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// The agent's end: answers requests until the tunnel ends. Dropping the future ends it, and all that is under way.
///
/// # Errors
/// Why it broke.
pub async fn serve<S>(io: ByteStream, service: S) -> hyper::Result<()>
where
    S: HttpService<Incoming, ResBody = Body> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(HEAD)
        // The other end counts its own; a stream that it has given back may be known here for a moment longer.
        .max_concurrent_streams(2 * MAX_REQUESTS as u32)
        .max_pending_accept_reset_streams(2 * MAX_REQUESTS)
        .max_local_error_reset_streams(None)
        .max_send_buf_size(SEND_BUFFER)
        .auto_date_header(false)
        .enable_connect_protocol()
        .serve_connection(TokioIo::new(io), service)
        .await
}

#[cfg(test)]
mod tests;
