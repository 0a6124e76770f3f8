//! The stream of events: opens a session and lets the pump run it.

use std::sync::Arc;

use futures::Stream;
use tiphys_proto::event_stream::event_stream_server::EventStream;
use tiphys_proto::event_stream::{Event, PingRequest, PongReply, PushSummary};
use tiphys_shared::kube::backend::Backend;
use tiphys_shared::model::Mode;
use tiphys_shared::model::feature::{Features, METADATA_KEY};
use tiphys_shared::process::clock;
use tiphys_shared::wire::pump;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

use super::gate::Gate;
use crate::agents::{Agents, SessionHandle};
use crate::handler::ManagedAgent;
use crate::metrics::Metrics;
use crate::outbound::Outbound;

/// Messages between the pump and the connection. Small: what waits belongs into the outbox, where newer replaces older.
const OUTGOING: usize = 32;

/// Runs one session per agent.
pub(crate) struct EventStreamService {
    pub(crate) gate: Gate,
    pub(crate) agents: Arc<Agents>,
    pub(crate) outbound: Arc<Outbound>,
    pub(crate) backend: Backend,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl EventStreamService {
    async fn session(
        agents: Arc<Agents>,
        side: Arc<ManagedAgent>,
        session: SessionHandle,
        features: Features,
        incoming: Streaming<Event>,
        outgoing: mpsc::Sender<Event>,
    ) {
        let agent = Arc::clone(&session.agent);
        // The sender stays with the pump: when the pump ends, so does the response.
        let (_confirmed, features) = watch::channel(features);
        let end = pump::run(
            Arc::clone(&side),
            Arc::clone(&agent.outbox),
            features,
            incoming,
            outgoing,
            session.cancel.clone(),
        )
        .await;
        let since = session.since;
        if matches!(end, pump::End::Broken(_)) {
            side.metrics.send_errors.with_label_values(&[agent.name.as_str(), "transport-closing"]).inc();
        }
        let newest = session.end();
        side.metrics.connected_agents.set(i64::try_from(agents.connected()).unwrap_or(i64::MAX));
        tracing::info!(agent = %agent.name, %since, reason = %end, replaced = !newest, "agent's stream ended");
    }
}

#[tonic::async_trait]
impl EventStream for EventStreamService {
    type SubscribeStream = std::pin::Pin<Box<dyn Stream<Item = Result<Event, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<Event>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let subject = self.gate.identify(&request)?;
        if subject.mode != Mode::Managed {
            return Err(Status::failed_precondition("this principal does not take autonomous agents yet"));
        }
        let offered = request.metadata().get(METADATA_KEY).and_then(|value| value.to_str().ok());
        let features = offered.map(Features::parse);
        let session = self.agents.connect(&subject.agent, &self.shutdown, clock::now());
        self.metrics.connected_agents.set(i64::try_from(self.agents.connected()).unwrap_or(i64::MAX));
        self.metrics.agent_connections.with_label_values(&[subject.agent.as_str()]).inc();
        tracing::info!(agent = %subject.agent, mode = %subject.mode, tiphys = features.is_some(), "agent connected");

        let side = Arc::new(ManagedAgent {
            agent: Arc::clone(&session.agent),
            outbound: Arc::clone(&self.outbound),
            backend: self.backend.clone(),
            metrics: Arc::clone(&self.metrics),
            is_first: session.is_first,
        });
        let (outgoing, mut messages) = mpsc::channel(OUTGOING);
        let confirmed = features.clone().unwrap_or_default();
        let agents = Arc::clone(&self.agents);
        self.tasks.spawn(Self::session(agents, side, session, confirmed, request.into_inner(), outgoing));
        let stream =
            futures::stream::poll_fn(move |context| messages.poll_recv(context).map(|next| next.map(Ok)));
        let mut response = Response::new(Box::pin(stream) as Self::SubscribeStream);
        if let Some(features) = features
            && let Ok(value) = MetadataValue::try_from(features.to_metadata())
        {
            response.metadata_mut().insert(METADATA_KEY, value);
        }
        Ok(response)
    }

    async fn push(&self, request: Request<Streaming<Event>>) -> Result<Response<PushSummary>, Status> {
        self.gate.identify(&request)?;
        Err(Status::unimplemented("events are taken on Subscribe only"))
    }

    async fn ping(&self, request: Request<PingRequest>) -> Result<Response<PongReply>, Status> {
        self.gate.identify(&request)?;
        Ok(Response::new(PongReply {}))
    }
}
