//! The way to the principal: dial, authenticate, subscribe, pump; and again, after a pause that grows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use tiphys_proto::auth::AuthRequest;
use tiphys_proto::auth::authentication_client::AuthenticationClient;
use tiphys_proto::event_stream::event_stream_client::EventStreamClient;
use tiphys_shared::model::Mode;
use tiphys_shared::model::feature::{Features, METADATA_KEY};
use tiphys_shared::process::backoff::{Backoff, Schedule};
use tiphys_shared::process::clock;
use tiphys_shared::security::passwords::{Credentials, Error as CredentialsError};
use tiphys_shared::wire::pump::{self, SharedOutbox};
use tiphys_shared::wire::transport::{self, DialOptions};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::handler::Managed;
use crate::metrics::Metrics;

/// Messages between the pump and the connection. Small: what waits belongs into the outbox, where newer replaces older.
const OUTGOING: usize = 32;
/// Largest answer to an RPC that is not the stream.
const SMALL: usize = 64 * 1024;
/// How long the principal may take for a small RPC.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot reach the principal: {0}")]
    Dial(#[from] transport::Error),
    #[error("credentials cannot be read: {0}")]
    Credentials(#[from] CredentialsError),
    #[error("the principal refused this agent: {} ({:?}){}", .0.message(), .0.code(), remedy(.0))]
    Refused(Box<Status>),
    #[error("the principal did not answer in time")]
    TimedOut,
    #[error("the stream ended: {0}")]
    Ended(#[from] pump::End),
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

/// Where to connect, and as whom.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) dial: DialOptions,
    pub(crate) credentials: Credentials,
    pub(crate) namespace: String,
    pub(crate) version: String,
    pub(crate) compression: bool,
    pub(crate) max_message_size: usize,
    pub(crate) heartbeat: Option<Duration>,
}

/// Keeps a stream open until cancelled.
///
/// # Errors
/// What keeps the principal from being trusted, or it from trusting us, if it does so from the start: then a person has to
/// mend it. Once there was a stream, certificates may be amid a rotation, and everything is tried again.
pub(crate) async fn keep(
    target: Target,
    side: Arc<Managed>,
    outbox: Arc<SharedOutbox>,
    connected: watch::Sender<bool>,
    cancel: CancellationToken,
) -> Result<(), transport::Error> {
    let mut was_connected = false;
    let mut backoff = Backoff::random(Schedule::default());
    loop {
        let began = tokio::time::Instant::now();
        let outcome = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(()),
            outcome = session(&target, &side, &outbox, &connected, &cancel) => outcome,
        };
        let worked = if connected.send_replace(false) { began.elapsed() } else { Duration::ZERO };
        let metrics = &side.metrics;
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
        tracing::warn!(principal = %target.dial.host, reason = %outcome, retry_in = ?pause, "not connected");
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn session(
    target: &Target,
    side: &Arc<Managed>,
    outbox: &Arc<SharedOutbox>,
    connected: &watch::Sender<bool>,
    cancel: &CancellationToken,
) -> Error {
    match open(target, side, outbox, connected, cancel).await {
        Ok(end) => Error::Ended(end),
        Err(error) => error,
    }
}

async fn open(
    target: &Target,
    side: &Arc<Managed>,
    outbox: &Arc<SharedOutbox>,
    connected: &watch::Sender<bool>,
    cancel: &CancellationToken,
) -> Result<pump::End, Error> {
    let channel = transport::dial(&target.dial).await?;
    let token = authenticate(target, channel.clone()).await?;

    let limit = target.max_message_size;
    let mut client = EventStreamClient::new(channel)
        .max_decoding_message_size(limit)
        .max_encoding_message_size(limit)
        .accept_compressed(CompressionEncoding::Gzip);
    if target.compression {
        client = client.send_compressed(CompressionEncoding::Gzip);
    }
    let (outgoing, mut messages) = mpsc::channel(OUTGOING);
    let mut request = Request::new(futures::stream::poll_fn(move |context| messages.poll_recv(context)));
    // Bare: a Go principal does not know the word Bearer.
    let token = token.parse().map_err(|_| Error::BadToken)?;
    request.metadata_mut().insert("authorization", token);
    if let Ok(offer) = MetadataValue::try_from(Features::all().to_metadata()) {
        request.metadata_mut().insert(METADATA_KEY, offer);
    }
    // A Go principal answers only with its first event: what we have to say must not wait for that.
    let (confirm, features) = watch::channel(Features::default());
    let opened = async move {
        let response = client.subscribe(request).await?;
        let confirmed =
            response.metadata().get(METADATA_KEY).and_then(|value| value.to_str().ok()).map(Features::parse);
        tracing::info!(tiphys = confirmed.is_some(), "connected to the principal");
        confirm.send_replace(confirmed.unwrap_or_default());
        Ok::<_, Status>(response.into_inner())
    };
    let incoming = futures::stream::once(opened).try_flatten();

    side.metrics.connections.inc();
    side.metrics.connection_status.set(1);
    side.metrics.connection_start.set(clock::now().as_millisecond() as f64 / 1000.0);
    connected.send_replace(true);
    let pumping =
        pump::run(Arc::clone(side), Arc::clone(outbox), features, incoming, outgoing, cancel.clone());
    let end = tokio::select! {
        end = pumping => end,
        never = beat(target.heartbeat, side) => never,
    };
    if let pump::End::Broken(status) = &end
        && matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied | Code::FailedPrecondition)
    {
        return Err(Error::Refused(status.clone()));
    }
    Ok(end)
}

/// Gives signs of life, if that is wanted.
async fn beat(interval: Option<Duration>, side: &Managed) -> pump::End {
    let Some(interval) = interval else { return std::future::pending().await };
    let mut tick = tokio::time::interval(interval);
    loop {
        tick.tick().await;
        side.outbound.heartbeat();
    }
}

async fn authenticate(target: &Target, channel: Channel) -> Result<String, Error> {
    let credentials: BTreeMap<String, String> = target.credentials.load().await?;
    let request = AuthRequest {
        method: target.credentials.method().to_owned(),
        credentials,
        mode: Mode::Managed.as_str().to_owned(),
        version: target.version.clone(),
        agent_namespace: target.namespace.clone(),
    };
    let mut client = AuthenticationClient::new(channel).max_decoding_message_size(SMALL);
    let answer =
        tokio::time::timeout(PATIENCE, client.authenticate(request)).await.map_err(|_| Error::TimedOut)?;
    Ok(answer.map_err(|status| Error::Refused(Box::new(status)))?.into_inner().access_token)
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
