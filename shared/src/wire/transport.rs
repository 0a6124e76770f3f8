//! Dial and listen: TLS or plaintext below gRPC.
//!
//! TLS is ours and tonic sees plain byte streams. That gives each handshake the certificates of the moment, the
//! peer's certificate to the handlers ([`Peer`], a request extension), and errors that say what to do.

mod connection;
mod dial;
mod failure;
mod listen;

pub use self::connection::{Connection, Peer};
pub use self::dial::{DialOptions, dial, lazy};
pub use self::failure::Error;
pub use self::listen::{HandshakeError, HandshakeFailure, Incoming, Limits, OnFailure, listen};

#[cfg(test)]
mod tests;
