//! The stream of events: opens a session and lets the pump run it.

use std::sync::Arc;

use futures::Stream;
use tiphys_proto::event_stream::event_stream_server::EventStream;
use tiphys_proto::event_stream::{Event, PingRequest, PongReply, PushSummary};
use tiphys_shared::model::feature::{Features, METADATA_KEY};
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

use super::gate::Gate;
use crate::control_plane::ControlPlane;

/// Runs one session per agent.
pub(crate) struct EventStreamService {
    pub(crate) gate: Gate,
    pub(crate) control_plane: Arc<ControlPlane>,
    /// What this principal can do.
    pub(crate) features: Features,
}

#[tonic::async_trait]
impl EventStream for EventStreamService {
    type SubscribeStream = std::pin::Pin<Box<dyn Stream<Item = Result<Event, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<Event>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let subject = self.gate.identify(&request)?;
        let offered = request.metadata().get(METADATA_KEY).and_then(|value| value.to_str().ok());
        let features = offered.map(|offered| Features::parse(offered).and(&self.features));
        let mut messages = self.control_plane.connect(&subject, features.clone(), request.into_inner());
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
