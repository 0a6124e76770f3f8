//! What comes over a WebSocket, as the body of a request or an answer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

/// What has come.
#[derive(Debug)]
pub(super) enum Part {
    /// A gRPC message with its head.
    Message(Bytes),
    /// What comes last in an answer.
    Trailers(HeaderMap),
    /// That was all.
    End,
}

/// What has come, or why there is no more.
pub(super) type Parts = mpsc::Sender<Result<Part, Status>>;

/// A body.
#[derive(Debug)]
pub(super) struct Incoming {
    parts: mpsc::Receiver<Result<Part, Status>>,
    /// Is told when the first part is wanted.
    wanted: Option<oneshot::Sender<()>>,
    /// Whoever brings it has no other reason to live.
    _carried: Option<AbortOnDropHandle<()>>,
    is_over: bool,
}

impl Incoming {
    /// A body, and where its parts go. One waits, so that nobody reads further than another has got.
    pub(super) fn new() -> (Self, Parts, oneshot::Receiver<()>) {
        let (sender, parts) = mpsc::channel(1);
        let (wanted, is_wanted) = oneshot::channel();
        (Self { parts, wanted: Some(wanted), _carried: None, is_over: false }, sender, is_wanted)
    }

    /// The same, that ends who brings it when it is given up.
    pub(super) fn carried_by(self, task: AbortOnDropHandle<()>) -> Self {
        Self { _carried: Some(task), ..self }
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(wanted) = self.wanted.take() {
            // Whoever waits for it may have left.
            _ = wanted.send(());
        }
        if self.is_over {
            return Poll::Ready(None);
        }
        let part = ready!(self.parts.poll_recv(cx));
        self.is_over = !matches!(part, Some(Ok(Part::Message(_))));
        Poll::Ready(match part {
            Some(Ok(Part::Message(message))) => Some(Ok(Frame::data(message))),
            Some(Ok(Part::Trailers(trailers))) => Some(Ok(Frame::trailers(trailers))),
            Some(Ok(Part::End)) => None,
            Some(Err(status)) => Some(Err(status)),
            None => Some(Err(Status::unavailable("the websocket broke before all was said"))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }
}
