//! A body that came through a tunnel.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::proxy::body::BoxError;

/// A body that came through a tunnel, and ends with an error unless it is whole.
///
/// hyper takes a stream that was reset with CANCEL for one that has ended, which it is for one who asked for it to be
/// cancelled; but half of an answer must not be passed on as all of it.
#[derive(Debug)]
pub struct Received(Incoming);

/// The other end gave the stream up.
#[derive(Debug, thiserror::Error)]
#[error("the other end of the tunnel gave the body up before its end")]
pub struct CutOff;

impl From<Incoming> for Received {
    fn from(incoming: Incoming) -> Self {
        Self(incoming)
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(match ready!(Pin::new(&mut self.0).poll_frame(cx)) {
            None if !self.0.is_end_stream() => Some(Err(CutOff.into())),
            next => next.map(|frame| frame.map_err(Into::into)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
