//! How agents connect: over HTTP/2, and over WebSocket where that is wanted.

use std::time::Duration;

use tiphys_shared::wire::transport::OnFailure;
use tiphys_shared::wire::transport::websocket::{Calls, Keepalive};
use tonic::service::Routes;

/// Every connection over HTTP/2, and every call over WebSocket, is asked for a sign of life this often.
pub(crate) const KEEPALIVE: Keepalive =
    Keepalive { interval: Duration::from_secs(30), timeout: Duration::from_secs(20) };

/// How agents may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Over WebSocket, too.
    pub websocket: bool,
    /// Over HTTP/2 they may ping this often, and no more.
    pub min_ping_interval: Option<Duration>,
}

/// What is served over WebSocket: the same as over HTTP/2. Only the stream of events has messages of up to `limit` bytes.
pub(crate) fn calls(routes: Routes, limit: usize, on_failure: Option<OnFailure>) -> Calls {
    const EVENTS: &str = "/eventstreamapi.EventStream/Subscribe";
    Calls { routes, largest: vec![(EVENTS, limit)], keepalive: Some(KEEPALIVE), on_failure }
}
