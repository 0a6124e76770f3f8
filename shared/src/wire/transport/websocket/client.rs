//! The side that calls.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming as HttpBody;
use hyper::upgrade::Upgraded;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::body::Body;

use super::body::{Incoming, Part, Parts};
use super::frame::{self, Frame, Malformed};
use super::socket::{self, Broken, Life, Reader, Writer};
use super::{HTTP_HEAD, Keepalive, LARGEST_MESSAGE, PROTOCOL};
use crate::security::tls::Alpn;
use crate::wire::transport::connect::{self, Connected};
use crate::wire::transport::{DialOptions, Error};

/// A first connection that waits longer for its call is not used: the other side may have given it up.
const FRESH: Duration = Duration::from_secs(5);
/// How much is read of what somebody says who is asked for a WebSocket, and has none.
const SAID: usize = 1024;
/// How long that may take.
const HEARD: Duration = Duration::from_secs(1);

/// A way to a principal on which every call has a WebSocket, and a connection, of its own.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    options: DialOptions,
    /// Made to see that the principal can be reached, and used by the first call.
    first: Mutex<Option<(Instant, Connected)>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("target", &self.shared.options.target()).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects, so that it is known whether the principal can be reached, and what its certificate is worth. What it thinks
    /// of ours shows at the first call.
    ///
    /// # Errors
    /// [`Error`] if it cannot.
    pub(in crate::wire::transport) async fn dial(options: &DialOptions) -> Result<Self, Error> {
        let deadline = Instant::now() + options.connect_timeout;
        let connected = connect::connect(options, Some(Alpn::Http1), deadline).await?;
        let first = Mutex::new(Some((Instant::now(), connected)));
        Ok(Self { shared: Arc::new(Shared { options: options.clone(), first }) })
    }

    /// Makes a call.
    ///
    /// # Errors
    /// A status: unavailable if there is no connection, and then its source is an [`Error`].
    pub(in crate::wire::transport) async fn call(
        self,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let options = &self.shared.options;
        let (head, body) = request.into_parts();
        let upgraded = self.upgrade(&head).await.map_err(unavailable)?;
        let keepalive = options
            .keepalive_interval
            .map(|interval| Keepalive { interval, timeout: options.keepalive_timeout });
        let opened = socket::open(upgraded, Role::Client, LARGEST_MESSAGE, keepalive).await;
        let (incoming, parts, _) = Incoming::new();
        let (answer, answered) = oneshot::channel();
        let carried = AbortOnDropHandle::new(tokio::spawn(carry(opened, body, answer, parts)));
        let headers = answered.await.map_err(|_| Status::internal("the websocket's task has ended"))??;
        let mut response = Response::new(Body::new(incoming.carried_by(carried)));
        *response.version_mut() = Version::HTTP_2;
        *response.headers_mut() = headers;
        Ok(response)
    }

    async fn upgrade(&self, head: &http::request::Parts) -> Result<Upgraded, Error> {
        let options = &self.shared.options;
        let deadline = Instant::now() + options.connect_timeout;
        let waiting = self.shared.first.lock().take().filter(|(since, _)| since.elapsed() < FRESH);
        let connected = match waiting {
            Some((_, connected)) => connected,
            None => connect::connect(options, Some(Alpn::Http1), deadline).await?,
        };
        let late = |_| Error::Timeout {
            target: options.target(),
            during: "websocket handshake",
            after: options.connect_timeout,
        };
        timeout_at(deadline, shake_hands(options, connected, head)).await.map_err(late)?
    }
}

/// Asks for a WebSocket.
async fn shake_hands(
    options: &DialOptions,
    connected: Connected,
    head: &http::request::Parts,
) -> Result<Upgraded, Error> {
    let target = options.target();
    let broke = |error: hyper::Error| broke(&target, &error);
    let (mut sender, _carried) = connect::http1(connected, HTTP_HEAD).await.map_err(broke)?;
    let key = generate_key();
    let request = question(options, head, &key)?;
    let mut answer = sender.send_request(request).await.map_err(broke)?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = answer.status();
        return Err(Error::WebSocketRefused { target, status, said: said(answer).await });
    }
    let accepts = |name: HeaderName, wanted: &str| {
        answer
            .headers()
            .get(name)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(wanted.as_bytes()))
    };
    // Go's server does not say which protocol it has chosen.
    let names_none = !answer.headers().contains_key(SEC_WEBSOCKET_PROTOCOL);
    if !accepts(UPGRADE, "websocket") || !(names_none || accepts(SEC_WEBSOCKET_PROTOCOL, PROTOCOL)) {
        return Err(Error::NotWebSocket { target, reason: "it upgrades to something else".to_owned() });
    }
    let accepted = answer.headers().get(SEC_WEBSOCKET_ACCEPT);
    if accepted.is_none_or(|value| value.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes()) {
        return Err(Error::NotWebSocket { target, reason: "it answers another handshake".to_owned() });
    }
    hyper::upgrade::on(&mut answer).await.map_err(broke)
}

/// The request for a WebSocket: the call's own headers, and those of the handshake.
fn question(
    options: &DialOptions,
    head: &http::request::Parts,
    key: &str,
) -> Result<Request<Empty<Bytes>>, Error> {
    let target = options.target();
    let bad = |_| Error::BadHost { host: options.host.clone() };
    let mut headers = HeaderMap::with_capacity(head.headers.len() + 7);
    headers.insert(HOST, HeaderValue::try_from(&target).map_err(bad)?);
    if let Some(name) = &options.user_agent
        && let Ok(name) = HeaderValue::try_from(name)
    {
        headers.insert(USER_AGENT, name);
    }
    for (name, value) in &head.headers {
        if ![HOST, CONNECTION, UPGRADE, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name) {
            headers.append(name, value.clone());
        }
    }
    // Go's server wants this one word for word.
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::try_from(key).map_err(bad)?);
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = head.uri.path().parse().map_err(|_| Error::BadHost { host: target })?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// What somebody says who has no WebSocket: a proxy's page may tell more than its number.
async fn said(answer: Response<HttpBody>) -> String {
    let collected = timeout(HEARD, Limited::new(answer.into_body(), SAID).collect()).await;
    let Ok(Ok(body)) = collected else { return String::new() };
    let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    let is_text = !text.trim_start().starts_with('<');
    if is_text { text.trim().chars().filter(|c| !c.is_control()).collect() } else { String::new() }
}

/// Why a connection broke on which there was no answer yet.
fn broke(target: &str, error: &hyper::Error) -> Error {
    let target = target.to_owned();
    if error.is_parse() {
        return Error::NotWebSocket { target, reason: "it does not speak http/1.1".to_owned() };
    }
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(error) = inner.downcast_ref::<io::Error>() {
            return Error::from_tls(&target, connect::copy(error), "during the websocket handshake");
        }
        source = inner.source();
    }
    Error::Closed { target, during: "during the websocket handshake" }
}

fn unavailable(error: Error) -> Status {
    let mut status = Status::unavailable(error.to_string());
    status.set_source(Arc::new(error));
    status
}

type Answer = oneshot::Sender<Result<HeaderMap, Status>>;

/// Carries a call to its end.
async fn carry(
    (mut writer, mut reader, life): (Writer, Reader, Life),
    body: Body,
    answer: Answer,
    parts: Parts,
) {
    let mut answer = Some(answer);
    let outcome = tokio::select! {
        biased;
        heard = hear(&mut reader, &mut answer, &parts) => heard,
        broken = speak(&mut writer, body) => Err(broken),
        broken = life.ended() => Err(broken),
    };
    let Err(broken) = outcome else {
        // The answer is whole: how the goodbye ends makes no difference.
        _ = writer.close(CloseCode::Normal, "").await;
        return;
    };
    tracing::debug!(error = %broken, "a call over websocket broke");
    let status = broken.status();
    // Nobody may be left who would want to know.
    match answer {
        Some(answer) => _ = answer.send(Err(status)),
        None => _ = parts.send(Err(status)).await,
    }
    if let Some(code) = broken.fault() {
        _ = writer.close(code, &broken.to_string()).await;
    }
}

/// Says what there is to be said, and then gives signs of life. Ends only if that fails.
async fn speak(writer: &mut Writer, body: Body) -> Broken {
    let spoken = async {
        writer.body(body).await?;
        writer.say(frame::END).await?;
        writer.meanwhile(std::future::pending::<()>()).await
    };
    match spoken.await {
        Ok(()) => Broken::Closed(String::new()),
        Err(broken) => broken,
    }
}

/// Hears an answer to its end.
async fn hear(reader: &mut Reader, answer: &mut Option<Answer>, parts: &Parts) -> Result<(), Broken> {
    let Frame::Metadata(lines) = reader.next().await? else {
        return Err(Malformed::Order("the answer does not begin with metadata").into());
    };
    let headers = frame::headers(&lines)?;
    let is_all = headers.contains_key("grpc-status");
    let Some(answer) = answer.take() else { return Ok(()) };
    if answer.send(Ok(headers)).is_err() {
        return Ok(());
    }
    loop {
        let part = match is_all {
            true => Part::End,
            false => match reader.next().await? {
                Frame::Message(message) => Part::Message(message),
                Frame::Metadata(lines) => Part::Trailers(frame::headers(&lines)?),
            },
        };
        let is_last = !matches!(part, Part::Message(_));
        if parts.send(Ok(part)).await.is_err() || is_last {
            return Ok(());
        }
    }
}
