//! An agent that says what a test tells it to.

use std::time::Duration;

use futures::StreamExt as _;
use tiphys_proto::auth::AuthRequest;
use tiphys_proto::auth::authentication_client::AuthenticationClient;
use tiphys_proto::event_stream::Event as WireEvent;
use tiphys_proto::event_stream::event_stream_client::EventStreamClient;
use tiphys_shared::model::feature::{Features, METADATA_KEY};
use tiphys_shared::model::{Event, EventId, Mode};
use tiphys_shared::wire::codec;
use tiphys_shared::wire::transport::{self, Channel};
use tokio::sync::mpsc;
use tonic::{Request, Streaming};

use super::fleet::Fleet;

/// An agent that says what a test tells it to.
pub(crate) struct Raw {
    pub(crate) say: mpsc::Sender<WireEvent>,
    pub(crate) hear: Streaming<WireEvent>,
}

pub(crate) async fn channel(fleet: &Fleet, name: &str) -> Channel {
    transport::dial(&fleet.dial(name)).await.unwrap()
}

pub(crate) async fn token(channel: &Channel, mode: Mode) -> String {
    let request = AuthRequest {
        method: "mtls".into(),
        mode: mode.as_str().into(),
        version: "test".into(),
        agent_namespace: "argocd".into(),
        ..AuthRequest::default()
    };
    AuthenticationClient::new(channel.clone()).authenticate(request).await.unwrap().into_inner().access_token
}

pub(crate) fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

impl Raw {
    /// A Tiphys agent in managed mode.
    pub(crate) async fn connect(fleet: &Fleet, name: &str) -> Self {
        Self::connect_as(fleet, name, Mode::Managed, Some(Features::all())).await
    }

    /// An agent in a mode, with features; without for one that is not ours.
    pub(crate) async fn connect_as(
        fleet: &Fleet,
        name: &str,
        mode: Mode,
        features: Option<Features>,
    ) -> Self {
        let channel = channel(fleet, name).await;
        let token = token(&channel, mode).await;
        let (say, mut said) = mpsc::channel(64);
        let mut request =
            with_token(futures::stream::poll_fn(move |context| said.poll_recv(context)), &token);
        if let Some(features) = features {
            request.metadata_mut().insert(METADATA_KEY, features.to_metadata().parse().unwrap());
        }
        let response = EventStreamClient::new(channel).subscribe(request).await.unwrap();
        Self { say, hear: response.into_inner() }
    }

    pub(crate) async fn say(&self, event: &Event) {
        self.say.send(codec::encode(event).unwrap()).await.unwrap();
    }

    /// Acknowledges an event.
    pub(crate) async fn ack(&self, event: &Event) {
        self.say(&event.ack()).await;
    }

    /// The next event for which `is_it` holds; everything else is left unacknowledged.
    pub(crate) async fn hear(&mut self, is_it: impl Fn(&Event) -> bool) -> Event {
        let wait = async {
            loop {
                let message = self.hear.next().await.expect("the stream ended").expect("the stream broke");
                let event = codec::decode(message).unwrap();
                if is_it(&event) {
                    return event;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it was never said")
    }

    pub(crate) async fn hear_ack(&mut self, id: &EventId) -> Event {
        self.hear(|event| event.is_ack() && event.id == *id).await
    }
}
