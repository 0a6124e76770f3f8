//! The side that is called.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::Incoming as HttpBody;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::ServiceExt as _;

use super::body::{Incoming, Part, Parts};
use super::frame::{self, Frame, Malformed};
use super::socket::{self, Broken, Reader, Writer};
use super::{HTTP_HEAD, Keepalive, PROTOCOL};
use crate::wire::transport::{Connection, HandshakeError, HandshakeFailure, OnFailure, Peer};

/// How long a request may take to be asked.
const ASKED: Duration = Duration::from_secs(10);
/// How long the other side gets to hang up when all has been said.
const LINGER: Duration = Duration::from_secs(1);
/// How long calls may go on when the principal stops.
const GRACE: Duration = Duration::from_secs(2);
/// Largest message of a call for which nothing else is said: what gRPC has by default.
const LARGEST: usize = 4 << 20;

/// What is called, and how.
#[derive(Clone)]
pub struct Calls {
    /// What is called.
    pub routes: Routes,
    /// Paths of methods that take larger messages than others, and how large, in bytes.
    pub largest: Vec<(&'static str, usize)>,
    /// How it is noticed that a caller has vanished.
    pub keepalive: Option<Keepalive>,
    /// Told of connections that came to nothing.
    pub on_failure: Option<OnFailure>,
}

/// Serves calls over WebSocket.
#[derive(Clone)]
pub struct WebSockets {
    calls: Arc<Calls>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

/// Why there is no WebSocket.
struct Refusal {
    status: StatusCode,
    why: &'static str,
}

impl WebSockets {
    /// Calls are tasks of `tasks`, and end soon after `cancel`.
    pub fn new(calls: Calls, tasks: TaskTracker, cancel: CancellationToken) -> Self {
        Self { calls: Arc::new(calls), tasks, cancel }
    }

    /// Serves `connections`.
    pub async fn serve(self, mut connections: mpsc::Receiver<Connection>) {
        loop {
            let connection = tokio::select! {
                biased;
                () = self.cancel.cancelled() => return,
                connection = connections.recv() => connection,
            };
            let Some(connection) = connection else { return };
            self.tasks.spawn(self.clone().connection(connection));
        }
    }

    /// Serves one connection until it is a WebSocket, or has been refused to become one.
    async fn connection(self, connection: Connection) {
        let peer = connection.peer().clone();
        let (address, cancel, this) = (peer.address, self.cancel.clone(), self.clone());
        let service = service_fn(move |request| {
            let answer = self.answer(request, peer.clone());
            async move { Ok::<_, Infallible>(answer) }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(ASKED)
            .max_buf_size(HTTP_HEAD)
            .serve_connection(TokioIo::new(connection), service)
            .with_upgrades();
        let served = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            served = serving => served,
        };
        match served {
            Err(error) if error.is_parse() || error.is_timeout() => this.report(address, error.to_string()),
            Err(error) => tracing::debug!(?address, %error, "an http/1.1 connection broke"),
            Ok(()) => {}
        }
    }

    fn report(&self, address: Option<SocketAddr>, why: String) {
        let failure = HandshakeFailure { address, error: HandshakeError::WebSocket(why) };
        let address = address.map(tracing::field::display);
        tracing::warn!(address, error = %failure.error, "connection came to nothing");
        if let Some(on_failure) = &self.calls.on_failure {
            on_failure(&failure);
        }
    }

    fn answer(&self, mut request: Request<HttpBody>, peer: Peer) -> Response<Full<Bytes>> {
        let accepted = match accept(request.method(), request.headers()) {
            Ok(accepted) => accepted,
            Err(Refusal { status, why }) => {
                self.report(peer.address, why.to_owned());
                return refused(status, why);
            }
        };
        let upgrade = hyper::upgrade::on(&mut request);
        self.tasks.spawn(self.clone().call(upgrade, inner(request, peer)));
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
        headers.insert(SEC_WEBSOCKET_ACCEPT, accepted);
        response
    }

    /// Carries a call to its end.
    async fn call(self, upgrade: OnUpgrade, request: Request<()>) {
        let upgraded = match upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => return tracing::debug!(%error, "a connection broke before it was a websocket"),
        };
        let path = request.uri().path();
        let largest =
            self.calls.largest.iter().find(|(of, _)| *of == path).map_or(LARGEST, |(_, size)| *size);
        let address = request.extensions().get::<Peer>().and_then(|peer| peer.address);
        let (mut writer, mut reader, life) =
            socket::open(upgraded, Role::Server, largest, self.calls.keepalive).await;
        let (incoming, parts, wanted) = Incoming::new();
        let request = request.map(|()| Body::new(incoming));
        let outcome = tokio::select! {
            biased;
            said = say(&mut writer, self.calls.routes.clone(), request) => said,
            broken = hear(&mut reader, wanted, &parts) => Err(broken),
            broken = life.ended() => Err(broken),
            () = too_long(&self.cancel) => Err(Broken::Body(Status::unavailable("the principal stops"))),
        };
        let goodbye = match &outcome {
            Ok(()) => Some((CloseCode::Normal, String::new())),
            Err(broken) => {
                tracing::debug!(?address, error = %broken, "a call over websocket broke");
                let fault = broken.fault();
                if fault.is_some() {
                    self.report(address, broken.to_string());
                }
                fault.map(|code| (code, broken.to_string()))
            }
        };
        if let Some((code, reason)) = goodbye {
            let parting = async {
                writer.close(code, &reason).await?;
                // Hanging up with something unread would take what was said last from the other side.
                reader.end().await;
                Ok::<_, Broken>(())
            };
            // However it ends, it is over.
            _ = timeout(LINGER, parting).await;
        }
    }
}

async fn too_long(cancel: &CancellationToken) {
    cancel.cancelled().await;
    tokio::time::sleep(GRACE).await;
}

/// Whether a request is one for a WebSocket; the proof that it was understood.
fn accept(method: &Method, headers: &HeaderMap) -> Result<HeaderValue, Refusal> {
    let refuse = |status, why| Err(Refusal { status, why });
    let says = |name: HeaderName, word: &str| {
        let values = headers.get_all(name);
        values
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
    };
    if !says(SEC_WEBSOCKET_PROTOCOL, PROTOCOL) {
        return refuse(
            StatusCode::UPGRADE_REQUIRED,
            "this port speaks grpc over http/2, or over websocket with the protocol grpc-ws",
        );
    }
    if !says(CONNECTION, "upgrade") || !says(UPGRADE, "websocket") {
        return refuse(
            StatusCode::BAD_REQUEST,
            "the headers that ask for the upgrade are missing: a proxy in between does not pass websockets",
        );
    }
    if method != Method::GET {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "a websocket is asked for by GET");
    }
    if !says(SEC_WEBSOCKET_VERSION, "13") {
        return refuse(StatusCode::BAD_REQUEST, "only version 13 of websocket is spoken here");
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).filter(|key| key.len() == 24);
    match key.map(|key| HeaderValue::try_from(derive_accept_key(key))) {
        Some(Ok(accepted)) => Ok(accepted),
        _ => refuse(StatusCode::BAD_REQUEST, "the handshake has no key, or none of 24 letters"),
    }
}

fn refused(status: StatusCode, why: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(why));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    // Said here, and not for the whole connection: beside an upgrade it would make Go's clients see neither.
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    if status == StatusCode::UPGRADE_REQUIRED {
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    response
}

/// The gRPC request that a handshake stands for.
fn inner(request: Request<HttpBody>, peer: Peer) -> Request<()> {
    const OF_HANDSHAKE: [HeaderName; 9] = [
        HOST,
        CONNECTION,
        UPGRADE,
        CONTENT_LENGTH,
        SEC_WEBSOCKET_ACCEPT,
        SEC_WEBSOCKET_EXTENSIONS,
        SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION,
    ];
    let (mut head, _) = request.into_parts();
    for name in OF_HANDSHAKE {
        head.headers.remove(name);
    }
    head.method = Method::POST;
    head.version = Version::HTTP_2;
    head.extensions.clear();
    head.extensions.insert(peer);
    Request::from_parts(head, ())
}

/// Says the answer.
async fn say(writer: &mut Writer, routes: Routes, request: Request<Body>) -> Result<(), Broken> {
    let answered = writer.meanwhile(routes.oneshot(request)).await?;
    let response = answered.map_err(|error| Broken::Body(Status::internal(error.to_string())))?;
    let (mut head, body) = response.into_parts();
    if head.status != StatusCode::OK {
        // What is no answer in gRPC's sense has to become one.
        let status = Status::unknown(format!("the principal answers with {}", head.status));
        _ = status.add_header(&mut head.headers);
    }
    let is_all = head.headers.contains_key("grpc-status");
    writer.say(frame::metadata(&head.headers)).await?;
    if is_all {
        return Ok(());
    }
    let trailers = writer.body(body).await?;
    let trailers = trailers.ok_or_else(|| Broken::Body(Status::internal("the answer has no trailers")))?;
    writer.say(frame::metadata(&trailers)).await
}

/// Hears a call until its caller leaves; to the end if there is one, for only so it is known whether somebody is still there.
/// Nothing is read before somebody wants it.
async fn hear(reader: &mut Reader, wanted: oneshot::Receiver<()>, parts: &Parts) -> Broken {
    // Whoever does not want it has left it.
    _ = wanted.await;
    let mut is_over = false;
    let broken: Broken = loop {
        let part = match reader.next().await {
            Ok(Frame::Message(message)) if !is_over => Part::Message(message),
            Ok(Frame::Metadata(lines)) if !is_over && lines.is_empty() => Part::End,
            Ok(Frame::Metadata(_)) if !is_over => break Malformed::Order("a caller says metadata").into(),
            Ok(_) => break Malformed::Order("a caller goes on after its end").into(),
            Err(broken) => break broken,
        };
        is_over = matches!(part, Part::End);
        // A call that has heard enough may still be answered.
        _ = parts.send(Ok(part)).await;
    };
    // There is room unless the call does not listen, and then it need not know.
    _ = parts.try_send(Err(broken.status()));
    broken
}
