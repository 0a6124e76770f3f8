//! The way to the principal: dial, authenticate, subscribe, pump; and again, after a pause that grows.

mod answers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use tiphys_proto::auth::authentication_client::AuthenticationClient;
use tiphys_proto::auth::{AuthRequest, AuthResponse};
use tiphys_proto::event_stream::Event as WireEvent;
use tiphys_proto::event_stream::event_stream_client::EventStreamClient;
use tiphys_proto::tunnel::tunnel_client::TunnelClient;
use tiphys_shared::model::Mode;
use tiphys_shared::model::feature::{Feature, Features, METADATA_KEY};
use tiphys_shared::process::backoff::{Backoff, Schedule};
use tiphys_shared::process::clock;
use tiphys_shared::process::readiness::Condition;
use tiphys_shared::security::passwords::{Credentials, Error as CredentialsError};
use tiphys_shared::security::pki::Certificate;
use tiphys_shared::security::tls::ClientTls;
use tiphys_shared::security::token;
use tiphys_shared::wire::transport::{self, Channel, DialOptions};
use tiphys_shared::wire::{pump, tunnel};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};

pub use self::answers::Answers;
use crate::handler::ClusterSide;
use crate::metrics::Metrics;
use crate::proxy::{self, Proxy};

/// Messages between the pump and the connection. Small: what waits belongs into the outbox, where newer replaces older.
const OUTGOING: usize = 32;
/// Largest answer to an RPC that is not the stream.
const SMALL: usize = 64 * 1024;
/// How long the principal may take for a small RPC.
const PATIENCE: Duration = Duration::from_secs(30);
/// Part of a certificate's life that is left when its connection makes way for one with a newer certificate.
const LEAVE: u32 = 10;
/// A tunnel that is silent for longer is asked for a sign of life, so that one that is dead is replaced.
const TUNNEL_KEEPALIVE: Duration = Duration::from_secs(30);

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
    /// The certificate of the connection is about to end, and there is another.
    #[error("the client certificate was replaced, and the one of this connection is about to end")]
    Renewed,
    /// The principal sent a token that cannot be sent back.
    #[error("the principal sent a token that is not ascii")]
    BadToken,
}

impl Error {
    /// A short fixed word for metrics.
    fn word(&self) -> &'static str {
        match self {
            Self::Dial(error) if error.is_transient() => "unreachable",
            Self::Dial(_) => "not-trusted",
            Self::Credentials(_) => "credentials",
            Self::Refused(_) => "refused",
            Self::TimedOut => "timeout",
            Self::Ended(pump::End::Silent) => "silent",
            Self::Ended(pump::End::Broken(_)) => "broken",
            Self::Ended(_) => "closed",
            Self::Renewed => "renewed",
            Self::BadToken => "bad-token",
        }
    }
}

/// Why a call came to nothing: over WebSocket each has a connection of its own, which may be the reason.
fn refused(status: Status) -> Error {
    match transport::Error::behind(&status) {
        Some(error) => Error::Dial(error),
        None => Error::Refused(Box::new(status)),
    }
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

    /// Opens a tunnel, beside the stream and never in its way. Asked of a link only if its principal wants one.
    fn tunnel(&self, _: Mode) -> impl Future<Output = Result<tunnel::ByteStream, Error>> + Send {
        std::future::pending()
    }

    /// Opens a way for logs and terminals, beside the stream and never in its way. Asked of a link only if its principal asks for
    /// one.
    fn answers(&self, _: Mode) -> impl Future<Output = Result<Answers, Error>> + Send {
        std::future::pending()
    }

    /// Ends when a stream that was opened just now should make way for another, with a newer certificate.
    fn outlived(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
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

/// Who is told whether there is a stream, and why there is none.
#[derive(Debug)]
pub(crate) struct Presence {
    pub(crate) connected: watch::Sender<bool>,
    pub(crate) principal: Condition,
}

impl Presence {
    fn here(&self) {
        self.connected.send_replace(true);
        self.principal.ready();
    }

    /// Returns whether there was one.
    fn away(&self, reason: impl Into<String>) -> bool {
        self.principal.not_ready(reason);
        self.connected.send_replace(false)
    }
}

/// Keeps a stream open until cancelled.
///
/// # Errors
/// What no time will mend, if it is so from the start: something else answers there, or our own options are wrong.
/// Certificates are followed while we run, on both sides, so those that are refused are tried again.
pub(crate) async fn keep(
    link: impl Link,
    side: Arc<ClusterSide>,
    proxy: Option<Arc<Proxy>>,
    heartbeat: Option<Duration>,
    presence: Presence,
    cancel: CancellationToken,
) -> Result<(), transport::Error> {
    let mut was_connected = false;
    let mut backoff = Backoff::random(Schedule::default());
    let metrics = &side.outbound.metrics;
    let link = Arc::new(link);
    loop {
        let began = tokio::time::Instant::now();
        let outcome = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(()),
            outcome = session(&link, &side, proxy.as_ref(), heartbeat, &presence, &cancel) => outcome,
        };
        let worked =
            if presence.away(format!("not connected: {outcome}")) { began.elapsed() } else { Duration::ZERO };
        metrics.connection_status.set(0);
        metrics.connection_start.set(0.0);
        if matches!(outcome, Error::Refused(_)) {
            metrics.auth_failures.inc();
        }
        if cancel.is_cancelled() {
            return Ok(());
        }
        metrics.connection_failures.with_label_values(&[outcome.word()]).inc();
        let outcome = match outcome {
            Error::Dial(error) if !was_connected && error.is_lasting() => return Err(error),
            other => other,
        };
        was_connected |= !worked.is_zero();
        if matches!(outcome, Error::Renewed) {
            tracing::info!(reason = %outcome, "connecting again");
            continue;
        }
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
    link: &Arc<impl Link>,
    side: &Arc<ClusterSide>,
    proxy: Option<&Arc<Proxy>>,
    heartbeat: Option<Duration>,
    presence: &Presence,
    cancel: &CancellationToken,
) -> Error {
    let outbound = &side.outbound;
    let offer = match proxy {
        Some(_) => Features::all(),
        None => Features::all().without(Feature::Tunnel),
    };
    let opened = match link.open(outbound.mode, offer).await {
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
    presence.here();
    // In a task of its own, so that what goes through it does not hold up events; and no longer than the session.
    let _tunnel = proxy.map(|proxy| {
        let (link, proxy, mode) = (Arc::clone(link), Arc::clone(proxy), outbound.mode);
        let features = opened.features.clone();
        AbortOnDropHandle::new(tokio::spawn(async move { proxy::keep(&*link, mode, &proxy, features).await }))
    });
    // The same for what a principal of the Go project asks for.
    let _answers = {
        let (link, events, mode) = (Arc::clone(link), side.resources.clone(), outbound.mode);
        AbortOnDropHandle::new(tokio::spawn(async move { events.answer_by_streams(&*link, mode).await }))
    };
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
        () = link.outlived() => return Error::Renewed,
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

        let limit = channel.largest_message(self.max_message_size);
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

    async fn tunnel(&self, mode: Mode) -> Result<tunnel::ByteStream, Error> {
        let mut dial = self.dial.clone();
        dial.stream_window = Some(tunnel::LINK_WINDOW);
        dial.connection_window = Some(tunnel::LINK_WINDOW);
        dial.max_frame_size = Some(tunnel::LINK_FRAME);
        dial.keepalive_interval = dial.keepalive_interval.or(Some(TUNNEL_KEEPALIVE));
        let channel = transport::dial(&dial).await?;
        // A token of its own: that of the stream may be long expired when a tunnel has to be replaced.
        let answer = self.authenticate(mode, channel.clone()).await?;
        let (outgoing, mut chunks) = mpsc::channel(tunnel::QUEUE);
        let mut request = Request::new(futures::stream::poll_fn(move |context| chunks.poll_recv(context)));
        let token = answer.access_token.parse().map_err(|_| Error::BadToken)?;
        request.metadata_mut().insert("authorization", token);
        let mut client = TunnelClient::new(channel);
        let opened = tokio::time::timeout(PATIENCE, client.open(request)).await;
        let response = opened.map_err(|_| Error::TimedOut)?;
        let incoming = response.map_err(refused)?.into_inner();
        Ok(tunnel::ByteStream::new(incoming, outgoing))
    }

    async fn answers(&self, mode: Mode) -> Result<Answers, Error> {
        let channel = transport::dial(&self.dial).await?;
        let answer = self.authenticate(mode, channel.clone()).await?;
        Answers::new(channel, &answer.access_token)
    }

    async fn outlived(&self) {
        match &self.dial.tls {
            Some(tls) => outlived(tls).await,
            None => std::future::pending().await,
        }
    }
}

/// Waits until little is left of the certificate that is in use now, and there is another.
async fn outlived(tls: &ClientTls) {
    let mut own = tls.own();
    let Some(used) = own.borrow_and_update().clone() else { return std::future::pending().await };
    let end = used.near_end(LEAVE);
    loop {
        let left = Duration::try_from(end.duration_since(clock::now())).unwrap_or_default();
        if left.is_zero() {
            break;
        }
        // Clocks are set: a timer for months would not notice.
        tokio::time::sleep(left.min(Duration::from_secs(3600))).await;
    }
    let is_newer = |now: &Option<Arc<Certificate>>| {
        now.as_ref().is_some_and(|now| now.fingerprint != used.fingerprint && now.not_after > used.not_after)
    };
    if own.wait_for(is_newer).await.is_err() {
        std::future::pending().await
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
        Ok(answer.map_err(refused)?.into_inner())
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
            biased;
            () = cancel.cancelled() => return,
            _ = tick.tick() => {}
        }
        for kind in tiphys_shared::model::Kind::ALL {
            metrics.listed(kind, stores.of(kind).len());
        }
    }
}
