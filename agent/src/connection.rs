//! The way to the principal: dial, authenticate, subscribe, pump; and again, after a pause that grows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use tiphys_proto::auth::authentication_client::AuthenticationClient;
use tiphys_proto::auth::{AuthRequest, AuthResponse};
use tiphys_proto::event_stream::Event as WireEvent;
use tiphys_proto::event_stream::event_stream_client::EventStreamClient;
use tiphys_shared::model::Mode;
use tiphys_shared::model::feature::{Features, METADATA_KEY};
use tiphys_shared::process::backoff::{Backoff, Schedule};
use tiphys_shared::process::clock;
use tiphys_shared::security::passwords::{Credentials, Error as CredentialsError};
use tiphys_shared::security::token;
use tiphys_shared::wire::pump;
use tiphys_shared::wire::transport::{self, DialOptions};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::handler::ClusterSide;
use crate::metrics::Metrics;

/// Messages between the pump and the connection. Small: what waits belongs into the outbox, where newer replaces older.
const OUTGOING: usize = 32;
/// Largest answer to an RPC that is not the stream.
const SMALL: usize = 64 * 1024;
/// How long the principal may take for a small RPC.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The principal could not be reached.
    #[error("cannot reach the principal: {0}")]
    Dial(#[from] transport::Error),
    /// The user and password file could not be read.
    #[error("credentials cannot be read: {0}")]
    Credentials(#[from] CredentialsError),
    /// The principal refused this agent.
    #[error("the principal refused this agent: {} ({:?}){}", .0.message(), .0.code(), remedy(.0))]
    Refused(Box<Status>),
    /// The principal did not answer in time.
    #[error("the principal did not answer in time")]
    TimedOut,
    /// The stream ended.
    #[error("the stream ended: {0}")]
    Ended(#[from] pump::End),
    /// The principal sent a token that cannot be sent back.
    #[error("the principal sent a token that is not ascii")]
    BadToken,
}

/// What a person can do about a refusal.
fn remedy(status: &Status) -> &'static str {
    match (status.code(), status.message()) {
        (Code::FailedPrecondition, message) if message.contains("version") => {
            "; a Go principal takes agents of its own version only: set --announce-version to it"
        }
        (Code::Unauthenticated, _) => "; check --creds, the client certificate and the principal's --auth",
        (Code::PermissionDenied, _) => {
            "; the client certificate and the credentials must name the same agent"
        }
        _ => "",
    }
}

/// A stream that was opened.
pub struct Opened {
    /// What the principal says.
    pub incoming: BoxStream<'static, Result<WireEvent, Status>>,
    /// What is said to it.
    pub outgoing: mpsc::Sender<WireEvent>,
    /// What it can do, once it is known; the empty set for one that is not ours.
    pub features: watch::Receiver<Option<Features>>,
    /// What it calls this agent.
    pub agent: String,
    /// Where Argo CD lives at the control plane.
    pub principal_namespace: String,
    /// Largest message that may be sent, in bytes.
    pub max_message_size: usize,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("agent", &self.agent).finish_non_exhaustive()
    }
}

/// A way to the principal.
pub trait Link: Send + Sync + 'static {
    /// Opens a stream, offering what this agent can do.
    fn open(&self, mode: Mode, offer: Features) -> impl Future<Output = Result<Opened, Error>> + Send;
}

/// The way to a principal over gRPC: where to connect, and as whom.
#[derive(Clone, Debug)]
pub struct Grpc {
    /// Where the principal is.
    pub dial: DialOptions,
    /// How this agent proves who it is.
    pub credentials: Credentials,
    /// Where Argo CD and the agent live.
    pub namespace: String,
    /// The version that it says to be of; a Go principal takes its own only.
    pub version: String,
    /// Whether what is sent is compressed.
    pub compression: bool,
    /// Largest message, in bytes.
    pub max_message_size: usize,
}

/// Keeps a stream open until cancelled.
///
/// # Errors
/// What keeps the principal from being trusted, or it from trusting us, if it does so from the start: then a person has to
/// mend it. Once there was a stream, certificates may be amid a rotation, and everything is tried again.
pub(crate) async fn keep(
    link: impl Link,
    side: Arc<ClusterSide>,
    heartbeat: Option<Duration>,
    connected: watch::Sender<bool>,
    cancel: CancellationToken,
) -> Result<(), transport::Error> {
    let mut was_connected = false;
    let mut backoff = Backoff::random(Schedule::default());
    let metrics = &side.outbound.metrics;
    loop {
        let began = tokio::time::Instant::now();
        let outcome = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(()),
            outcome = session(&link, &side, heartbeat, &connected, &cancel) => outcome,
        };
        let worked = if connected.send_replace(false) { began.elapsed() } else { Duration::ZERO };
        metrics.connection_status.set(0);
        metrics.connection_start.set(0.0);
        if let Error::Refused(status) = &outcome {
            metrics.auth_failures.with_label_values(&[&format!("{:?}", status.code())]).inc();
        }
        if cancel.is_cancelled() {
            return Ok(());
        }
        let outcome = match outcome {
            Error::Dial(error) if !was_connected && !error.is_transient() => return Err(error),
            other => other,
        };
        was_connected |= !worked.is_zero();
        let pause = backoff.next_delay(worked);
        tracing::warn!(reason = %outcome, retry_in = ?pause, "not connected to the principal");
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn session(
    link: &impl Link,
    side: &Arc<ClusterSide>,
    heartbeat: Option<Duration>,
    connected: &watch::Sender<bool>,
    cancel: &CancellationToken,
) -> Error {
    let outbound = &side.outbound;
    let opened = match link.open(outbound.mode, Features::all()).await {
        Ok(opened) => opened,
        Err(error) => return error,
    };
    // The same principal never changes what it calls us.
    _ = outbound.name.set(opened.agent);
    if !opened.principal_namespace.is_empty() {
        _ = outbound.namespaces.principal.set(opened.principal_namespace);
    }
    let metrics = &outbound.metrics;
    metrics.connections.inc();
    metrics.connection_status.set(1);
    metrics.connection_start.set(clock::now().as_millisecond() as f64 / 1000.0);
    connected.send_replace(true);
    let pumping = pump::run(
        Arc::clone(side),
        Arc::clone(&outbound.outbox),
        opened.features,
        opened.max_message_size,
        opened.incoming,
        opened.outgoing,
        cancel.clone(),
    );
    let end = tokio::select! {
        biased;
        end = pumping => end,
        never = beat(heartbeat, side) => never,
    };
    match end {
        pump::End::Broken(status)
            if matches!(
                status.code(),
                Code::Unauthenticated | Code::PermissionDenied | Code::FailedPrecondition
            ) =>
        {
            Error::Refused(status)
        }
        end => Error::Ended(end),
    }
}

impl Link for Grpc {
    async fn open(&self, mode: Mode, offer: Features) -> Result<Opened, Error> {
        let channel = transport::dial(&self.dial).await?;
        let answer = self.authenticate(mode, channel.clone()).await?;

        let limit = self.max_message_size;
        let mut client = EventStreamClient::new(channel)
            .max_decoding_message_size(limit)
            .max_encoding_message_size(limit)
            .accept_compressed(CompressionEncoding::Gzip);
        if self.compression {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        let (outgoing, mut messages) = mpsc::channel(OUTGOING);
        let mut request = Request::new(futures::stream::poll_fn(move |context| messages.poll_recv(context)));
        let agent = token::subject_of(&answer.access_token).map(|subject| subject.agent.to_string());
        // Bare: a Go principal does not know the word Bearer.
        let token = answer.access_token.parse().map_err(|_| Error::BadToken)?;
        request.metadata_mut().insert("authorization", token);
        if let Ok(offer) = MetadataValue::try_from(offer.to_metadata()) {
            request.metadata_mut().insert(METADATA_KEY, offer);
        }
        // A Go principal answers only with its first event: what we have to say must not wait for that.
        let (confirm, features) = watch::channel(None);
        let opened = async move {
            let response = client.subscribe(request).await?;
            let confirmed = response.metadata().get(METADATA_KEY).and_then(|value| value.to_str().ok());
            let confirmed = confirmed.map(Features::parse);
            tracing::info!(tiphys = confirmed.is_some(), "connected to the principal");
            confirm.send_replace(Some(confirmed.unwrap_or_default()));
            Ok::<_, Status>(response.into_inner())
        };
        Ok(Opened {
            incoming: futures::stream::once(opened).try_flatten().boxed(),
            outgoing,
            features,
            agent: agent.unwrap_or_default(),
            principal_namespace: answer.principal_namespace,
            max_message_size: limit,
        })
    }
}

/// Gives signs of life, if that is wanted.
async fn beat(interval: Option<Duration>, side: &ClusterSide) -> pump::End {
    let Some(interval) = interval else { return std::future::pending().await };
    let mut tick = tokio::time::interval(interval);
    loop {
        tick.tick().await;
        side.outbound.heartbeat();
    }
}

impl Grpc {
    async fn authenticate(&self, mode: Mode, channel: Channel) -> Result<AuthResponse, Error> {
        let credentials: BTreeMap<String, String> = self.credentials.load().await?;
        let request = AuthRequest {
            method: self.credentials.method().to_owned(),
            credentials,
            mode: mode.as_str().to_owned(),
            version: self.version.clone(),
            agent_namespace: self.namespace.clone(),
        };
        let mut client = AuthenticationClient::new(channel).max_decoding_message_size(SMALL);
        let answer = tokio::time::timeout(PATIENCE, client.authenticate(request))
            .await
            .map_err(|_| Error::TimedOut)?;
        Ok(answer.map_err(|status| Error::Refused(Box::new(status)))?.into_inner())
    }
}

/// Keeps the numbers of listed resources up to date.
pub(crate) async fn count(
    metrics: Arc<Metrics>,
    stores: tiphys_shared::kube::informer::Stores,
    cancel: CancellationToken,
) {
    let mut tick = tokio::time::interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = tick.tick() => {}
        }
        for kind in tiphys_shared::model::Kind::ALL {
            metrics.listed(kind, stores.of(kind).len());
        }
    }
}
