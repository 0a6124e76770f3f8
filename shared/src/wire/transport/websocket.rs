//! gRPC over WebSocket, for paths that let HTTP/1.1 pass and nothing else: one WebSocket per call.
//!
//! As the Go project has it. The handshake is a GET of the method's path with the subprotocol `grpc-ws`; the call's
//! metadata are its headers. From then on each binary message is a frame: a flag, a length and as many bytes.
//!
//! ```text
//! client ─▶ message, message, …, end of the stream
//!        ◀─ metadata, message, message, …, trailers, close
//!    or  ◀─ metadata with a grpc-status, close
//! ```
//!
//! There is no HTTP/2 in it: flow control is TCP's, signs of life are WebSocket's pings, and whoever gives a call up hangs up.

mod body;
mod client;
mod frame;
mod server;
mod socket;

use std::time::Duration;

pub use self::client::Client;
pub use self::server::{Calls, WebSockets};

/// The subprotocol's name.
const PROTOCOL: &str = "grpc-ws";
/// Largest message on the wire with its head, in bytes: what the Go project takes.
const LARGEST: usize = 64 << 20;
/// Largest gRPC message that passes, in bytes.
pub const LARGEST_MESSAGE: usize = LARGEST - frame::HEAD;
/// Longest head of a request or an answer, in bytes.
const HTTP_HEAD: usize = 64 << 10;

/// How it is found out that the other side has vanished.
#[derive(Clone, Copy, Debug)]
pub struct Keepalive {
    /// A sign of life is asked for this often.
    pub interval: Duration,
    /// How long it may take.
    pub timeout: Duration,
}

#[cfg(test)]
mod tests;
