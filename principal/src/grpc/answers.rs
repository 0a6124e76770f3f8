//! Streams that agents of the Go project open to answer what they were asked by an event.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tiphys_proto::log_stream::log_stream_service_server::LogStreamService;
use tiphys_proto::log_stream::{LogStreamData, LogStreamResponse};
use tiphys_proto::terminal_stream::TerminalStreamData;
use tiphys_proto::terminal_stream::terminal_stream_service_server::TerminalStreamService;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::gate::Gate;
use crate::agents::{Agent, Agents};
use crate::proxy::events::{LogStream, Terminal};

/// Largest message. Agents send 64 KiB of a log at a time.
pub(crate) const LARGEST: usize = 1 << 20;
/// How long a stream may take to name what it answers.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pieces of input that wait for a command.
const WAITING: usize = 16;

/// Brings streams to those who wait for them.
#[derive(Clone)]
pub(crate) struct AnswerService {
    pub(crate) gate: Gate,
    pub(crate) agents: Arc<Agents>,
}

impl AnswerService {
    /// The agent that opens a stream, and a place for it.
    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    fn admit<T>(&self, request: &Request<T>) -> Result<(Arc<Agent>, OwnedSemaphorePermit), Status> {
        let subject = self.gate.identify(request)?;
        let agent = self.agents.get(&subject.agent).filter(|agent| agent.connected_since().is_some());
        let agent =
            agent.ok_or_else(|| Status::failed_precondition("there is no session: call Subscribe first"))?;
        let place = agent.streams.admit().ok_or_else(|| {
            tracing::warn!(agent = %agent.name, "the agent has too many streams open");
            Status::resource_exhausted("too many streams are open already")
        })?;
        Ok((agent, place))
    }
}

/// What a stream says first.
async fn first<T>(messages: &mut Streaming<T>) -> Result<T, Status> {
    match tokio::time::timeout(HANDSHAKE, messages.message()).await {
        Ok(Ok(Some(first))) => Ok(first),
        Ok(Ok(None)) => Err(Status::invalid_argument("the stream ended before it named a request")),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::deadline_exceeded("the stream did not name a request in time")),
    }
}

fn unknown(agent: &Agent, uuid: &str) -> Status {
    let uuid: String = uuid.chars().take(64).collect();
    tracing::warn!(agent = %agent.name, uuid, "the agent opened a stream that nobody waits for");
    Status::not_found("nobody waits for an answer of this agent to such a request")
}

#[tonic::async_trait]
impl LogStreamService for AnswerService {
    async fn stream_logs(
        &self,
        request: Request<Streaming<LogStreamData>>,
    ) -> Result<Response<LogStreamResponse>, Status> {
        let (agent, _place) = self.admit(&request)?;
        let mut messages = request.into_inner();
        let first = first(&mut messages).await?;
        let request_uuid = first.request_uuid.clone();
        let (end, ended) = oneshot::channel();
        let cut = CancellationToken::new();
        let log = LogStream { first, messages, end, cut: cut.clone() };
        if agent.streams.logs.take(&request_uuid, log).is_err() {
            return Err(unknown(&agent, &request_uuid));
        }
        tokio::select! {
            biased;
            outcome = ended => match outcome {
                Ok(outcome) => outcome?,
                // By this an agent knows that it shall not try again.
                Err(_) => return Err(Status::cancelled("whoever read the log has left")),
            },
            () = cut.cancelled() => return Err(Status::cancelled("whoever read the log took too long")),
        }
        Ok(Response::new(LogStreamResponse { request_uuid, status: 200, ..LogStreamResponse::default() }))
    }
}

#[tonic::async_trait]
impl TerminalStreamService for AnswerService {
    type StreamTerminalStream = Pin<Box<dyn Stream<Item = Result<TerminalStreamData, Status>> + Send>>;

    async fn stream_terminal(
        &self,
        request: Request<Streaming<TerminalStreamData>>,
    ) -> Result<Response<Self::StreamTerminalStream>, Status> {
        let (agent, place) = self.admit(&request)?;
        let mut messages = request.into_inner();
        let first = first(&mut messages).await?;
        let uuid = first.request_uuid.clone();
        let (outgoing, mut input) = mpsc::channel(WAITING);
        if agent.streams.terminals.take(&uuid, Terminal { first, messages, outgoing }).is_err() {
            return Err(unknown(&agent, &uuid));
        }
        let stream = futures::stream::poll_fn(move |context| {
            _ = &place;
            input.poll_recv(context)
        });
        Ok(Response::new(Box::pin(stream)))
    }
}
