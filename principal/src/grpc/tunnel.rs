//! Tunnels to the clusters of agents that have a session.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use tiphys_proto::tunnel::Chunk;
use tiphys_proto::tunnel::tunnel_server::Tunnel;
use tiphys_shared::wire::tunnel::{self, ByteStream, QUEUE};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::gate::Gate;
use crate::agents::{Agent, Agents};

/// Takes tunnels into use.
pub(crate) struct TunnelService {
    pub(crate) gate: Gate,
    pub(crate) agents: Arc<Agents>,
    pub(crate) tasks: TaskTracker,
}

#[tonic::async_trait]
impl Tunnel for TunnelService {
    type OpenStream = Pin<Box<dyn Stream<Item = Result<Chunk, Status>> + Send>>;

    async fn open(&self, request: Request<Streaming<Chunk>>) -> Result<Response<Self::OpenStream>, Status> {
        let subject = self.gate.identify(&request)?;
        let agent = self.agents.get(&subject.agent).filter(|agent| agent.connected_since().is_some());
        let agent =
            agent.ok_or_else(|| Status::failed_precondition("there is no session: call Subscribe first"))?;
        let (outgoing, mut chunks) = mpsc::channel(QUEUE);
        let cut = CancellationToken::new();
        let incoming = request.into_inner().take_until(cut.clone().cancelled_owned());
        self.tasks.spawn(carry(agent, ByteStream::new(incoming, outgoing), cut));
        let stream =
            futures::stream::poll_fn(move |context| chunks.poll_recv(context).map(|next| next.map(Ok)));
        Ok(Response::new(Box::pin(stream)))
    }
}

/// Carries a tunnel until it breaks, or has no session any more. What is under way in it ends when `cut` ends its stream:
/// letting go of the connection alone would wait for it.
async fn carry(agent: Arc<Agent>, io: ByteStream, cut: CancellationToken) {
    let _guard = cut.drop_guard();
    let (requester, carried) = match tunnel::open(io).await {
        Ok(opened) => opened,
        Err(error) => {
            tracing::warn!(agent = %agent.name, %error, "tunnel could not be opened");
            return;
        }
    };
    let Some(cancel) = agent.attach(requester) else { return };
    tracing::info!(agent = %agent.name, "tunnel opened");
    tokio::select! {
        biased;
        () = cancel.cancelled() => tracing::info!(agent = %agent.name, "tunnel ended"),
        outcome = carried => match outcome {
            Ok(()) => tracing::info!(agent = %agent.name, "tunnel ended"),
            Err(error) => tracing::warn!(agent = %agent.name, %error, "tunnel broke"),
        },
    }
}
