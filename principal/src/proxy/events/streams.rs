//! Streams that an agent of the Go project opens to answer what it was asked by an event: one for each log and each terminal.

use std::sync::Arc;

use http::StatusCode;
use tiphys_proto::log_stream::LogStreamData;
use tiphys_proto::terminal_stream::TerminalStreamData;
use tiphys_shared::proxy::refusal::Refusal;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::awaited::Awaited;

/// Logs and terminals of one agent that may be under way.
const ASKED: usize = 128;
/// Streams that one agent may have open, those included that answer nothing yet.
const OPENED: usize = 160;

/// Logs and terminals of one agent.
#[derive(Debug)]
pub(crate) struct Streams {
    /// Those that are awaited.
    pub(crate) logs: Awaited<LogStream>,
    /// Those that are awaited.
    pub(crate) terminals: Awaited<Terminal>,
    asked: Arc<Semaphore>,
    opened: Arc<Semaphore>,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            logs: Awaited::default(),
            terminals: Awaited::default(),
            asked: Arc::new(Semaphore::new(ASKED)),
            opened: Arc::new(Semaphore::new(OPENED)),
        }
    }
}

impl Streams {
    /// A place for a request, kept until it is answered to the end.
    pub(super) fn reserve(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.asked).try_acquire_owned().map_err(|_| {
            let why = format!("{ASKED} logs and terminals of this agent are under way already");
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", why)
        })
    }

    /// A place for a stream that the agent opens, kept until it ends.
    pub(crate) fn admit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.opened).try_acquire_owned().ok()
    }
}

/// A stream that brings a log.
#[derive(Debug)]
pub(crate) struct LogStream {
    /// What came first, and named the request.
    pub(crate) first: LogStreamData,
    /// What follows.
    pub(crate) messages: Streaming<LogStreamData>,
    /// Ends the stream. Dropped: whoever reads the log has left.
    pub(crate) end: oneshot::Sender<Result<(), Status>>,
    /// Ends the stream although nobody reads any more what is on it.
    pub(crate) cut: CancellationToken,
}

/// A stream between a client and a command.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// What came first, and named the request.
    pub(crate) first: TerminalStreamData,
    /// What follows.
    pub(crate) messages: Streaming<TerminalStreamData>,
    /// What the command is told. Dropped: the stream ends.
    pub(crate) outgoing: mpsc::Sender<Result<TerminalStreamData, Status>>,
}
