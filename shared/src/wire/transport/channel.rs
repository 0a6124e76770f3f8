//! Calls, whatever they travel over.

use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::StdError;
use tower::Service;

use super::failure::Error;
use super::websocket;

/// What clients call a principal on. Clones share it.
#[derive(Clone, Debug)]
pub struct Channel(Way);

#[derive(Clone, Debug)]
enum Way {
    Http2(tonic::transport::Channel),
    WebSocket(websocket::Client),
}

impl From<tonic::transport::Channel> for Channel {
    fn from(channel: tonic::transport::Channel) -> Self {
        Self(Way::Http2(channel))
    }
}

impl From<websocket::Client> for Channel {
    fn from(client: websocket::Client) -> Self {
        Self(Way::WebSocket(client))
    }
}

impl Channel {
    /// Largest message that passes, in bytes, of those that are to.
    pub fn largest_message(&self, wanted: usize) -> usize {
        match &self.0 {
            Way::Http2(_) => wanted,
            Way::WebSocket(_) => wanted.min(websocket::LARGEST_MESSAGE),
        }
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = StdError;
    type Future = BoxFuture<'static, Result<Response<Body>, StdError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        match &mut self.0 {
            Way::Http2(channel) => Service::<Request<Body>>::poll_ready(channel, cx).map_err(Into::into),
            Way::WebSocket(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match &mut self.0 {
            Way::Http2(channel) => {
                let answer = channel.call(request);
                Box::pin(async move { Ok(answer.await?) })
            }
            Way::WebSocket(client) => {
                let answer = client.clone().call(request);
                Box::pin(async move { Ok(answer.await?) })
            }
        }
    }
}

impl Error {
    /// Why there was no connection, if that is why a call has failed.
    pub fn behind(status: &Status) -> Option<Self> {
        let source = std::error::Error::source(status)?;
        source.downcast_ref::<Self>().cloned()
    }
}
