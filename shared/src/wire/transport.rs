//! Dial and listen: TLS or plaintext below gRPC, over HTTP/2 or [`websocket`].
//!
//! TLS is ours and tonic sees plain byte streams. That gives each handshake the certificates of the moment, the
//! peer's certificate to the handlers ([`Peer`], a request extension), and errors that say what to do.

mod channel;
mod connect;
mod connection;
mod dial;
mod failure;
mod listen;
mod pings;
pub mod proxy;
mod sniff;
pub mod websocket;

pub use self::channel::Channel;
pub use self::connection::{Connection, Peer};
pub use self::dial::{DialOptions, dial, lazy};
pub use self::failure::Error;
pub use self::listen::{HandshakeError, HandshakeFailure, Incoming, Limits, OnFailure, listen};

#[cfg(test)]
mod tests;
