//! A command in a container of an agent of the Go project: asked for by an event, and spoken with over a stream. The client
//! speaks WebSocket, as kubectl and Argo CD do.
//!
//! Such an agent sends everything that the command says as its output, and runs terminals in managed mode only.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use http::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Method, Response, StatusCode, request};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tiphys_proto::terminal_stream::TerminalStreamData;
use tiphys_shared::model::api_request::{ApiRequest, ResourcePath};
use tiphys_shared::model::streamed::TerminalRequest;
use tiphys_shared::model::{Event, EventKind, Mode, Payload, Target};
use tiphys_shared::proxy::audit::Record;
use tiphys_shared::proxy::body::{self, Body};
use tiphys_shared::proxy::channels::{self, Channel, Ended, Size, Version};
use tiphys_shared::proxy::refusal::Refusal;
use tiphys_shared::wire::tunnel::upgrade;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::super::Proxy;
use super::super::forward::bad;
use super::awaited;
use super::streams::Terminal;
use super::translate::{cannot, is_on, pairs};
use crate::agents::Agent;

/// Largest piece of input. A Go agent takes no more of one than fits into its buffer, of which this is a half.
const PIECE: usize = 16 << 10;
/// How long a command is given to read its input before it is told that there is no more: a Go agent drops what was not read
/// until then.
const READ: Duration = Duration::from_secs(2);
/// How long a client may take to hear how the command ended.
const CLOSING: Duration = Duration::from_secs(5);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A terminal that is to be carried.
struct Carried {
    on_client: OnUpgrade,
    version: Version,
    request: TerminalRequest,
    terminal: Terminal,
    session: CancellationToken,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Proxy {
    /// Answers a request to run a command.
    pub(super) async fn terminal(
        &self,
        record: Record,
        agent: &Agent,
        asked: &ApiRequest,
        path: &ResourcePath,
        query: Option<&str>,
        mut parts: request::Parts,
    ) -> Response<Body> {
        let (carried, accept) = match self.open_terminal(agent, asked, path, query, &mut parts).await {
            Ok(opened) => opened,
            Err(refusal) => return self.refuse(record, refusal),
        };
        record.begins();
        let mut response = Response::new(body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(carried.version.as_str()));
        tokio::spawn(async move { record.switched(carry(carried).await) });
        response
    }

    /// Asks for a command, and waits until the agent has opened a stream for it.
    async fn open_terminal(
        &self,
        agent: &Agent,
        asked: &ApiRequest,
        path: &ResourcePath,
        query: Option<&str>,
        parts: &mut request::Parts,
    ) -> Result<(Carried, HeaderValue), Refusal> {
        if agent.mode != Mode::Managed {
            return Err(cannot(asked, "it runs commands in managed mode only"));
        }
        let (version, accept) = handshake(asked, &parts.method, &parts.headers)?;
        let on_client = parts.extensions.remove::<OnUpgrade>();
        let on_client = on_client.ok_or_else(|| bad("the connection cannot be upgraded"))?;
        let mut request = wanted(path, query)?;
        let place = agent.streams.reserve()?;
        let session = awaited::session(agent)?;
        let mut event = Event::request(Target::Terminal, EventKind::TerminalRequest, Payload::Empty);
        request.uuid.clone_from(&event.id.0);
        event.payload = Payload::TerminalRequest(request.clone());
        let terminal = awaited::ask(agent, &agent.streams.terminals, event).await?;
        let stop = self.stop.clone();
        Ok((Carried { on_client, version, request, terminal, session, stop, _place: place }, accept))
    }
}

/// Reads what a client wants.
fn wanted(path: &ResourcePath, query: Option<&str>) -> Result<TerminalRequest, Refusal> {
    let pairs = pairs(query)?;
    let of = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let is_on = |name, otherwise| of(name).map_or(otherwise, is_on);
    Ok(TerminalRequest {
        uuid: String::new(),
        namespace: path.namespace.clone(),
        pod_name: path.name.clone(),
        container_name: of("container").unwrap_or_default().to_owned(),
        command: pairs.iter().filter(|(name, _)| name == "command").map(|(_, word)| word.clone()).collect(),
        tty: is_on("tty", false),
        stdin: is_on("stdin", false),
        stdout: is_on("stdout", true),
        stderr: is_on("stderr", true),
    })
}

/// What a WebSocket client is answered (RFC 6455, 4.2.2).
fn handshake(
    asked: &ApiRequest,
    method: &Method,
    headers: &HeaderMap,
) -> Result<(Version, HeaderValue), Refusal> {
    let protocol = upgrade::wanted(headers).and_then(|protocol| protocol.to_str().ok());
    match protocol {
        Some(protocol) if protocol.eq_ignore_ascii_case("websocket") && method == Method::GET => {}
        Some(_) => return Err(cannot(asked, "commands in its pods are spoken with over WebSocket only")),
        None => return Err(bad("the request has to upgrade its connection to websocket")),
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(bad("the version of WebSocket has to be 13"));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or_else(|| bad("the header Sec-WebSocket-Key is missing"))?;
    let version = Version::of(headers).ok_or_else(|| {
        bad("none of the protocols in Sec-WebSocket-Protocol is known: v5.channel.k8s.io and v4.channel.k8s.io are")
    })?;
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()))
        .map_err(|error| bad(format!("the header Sec-WebSocket-Key is unusable: {error}")))?;
    Ok((version, accept))
}

/// Carries what is said between client and command, until either has ended. Returns the bytes to the command, and from it.
async fn carry(carried: Carried) -> io::Result<(u64, u64)> {
    let Carried { on_client, version, request, terminal, session, stop, _place } = carried;
    let Terminal { first, mut messages, outgoing } = terminal;
    let upgraded = on_client.await.map_err(io::Error::other)?;
    let socket =
        Socket::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(channels::config())).await;
    let (mut to_client, mut client) = socket.split();
    let mut input = Input { request: &request, version, outgoing: &outgoing, received: 0 };
    let mut sent = 0;
    let cut = |why: &str| Some((Ended::Failed(why.to_owned()), true));
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => cut("the principal stops"),
        () = session.cancelled() => cut("the connection of the cluster's agent ended"),
        ended = output(&request.uuid, first, &mut messages, &mut to_client, &mut sent) => ended.map(|ended| (ended, false)),
        () = input.carry(&mut client) => None,
    };
    let received = input.received;
    let Some((ended, is_cut)) = ended else {
        // A stream that merely ends is the end of its input for a command. There may be no room for it: then that has to do.
        let left = "the client has left".to_owned();
        _ = outgoing.try_send(Ok(TerminalStreamData { error: left, ..said(&request.uuid) }));
        return Ok((received, sent));
    };
    drop(outgoing);
    close(&ended, to_client, client).await;
    match (is_cut, ended.text()) {
        (true, Some(why)) => Err(io::Error::other(why)),
        _ => Ok((received, sent)),
    }
}

fn said(uuid: &str) -> TerminalStreamData {
    TerminalStreamData { request_uuid: uuid.to_owned(), ..TerminalStreamData::default() }
}

/// Passes on what the command says, until it has ended. None: the client has left.
async fn output(
    uuid: &str,
    first: TerminalStreamData,
    messages: &mut Streaming<TerminalStreamData>,
    to_client: &mut SplitSink<Socket, Message>,
    sent: &mut u64,
) -> Option<Ended> {
    let failed = |why: &str| Some(Ended::Failed(why.to_owned()));
    let mut next: Result<_, Status> = Ok(Some(first));
    loop {
        let message = match next {
            Ok(Some(message)) => message,
            Ok(None) => return failed("the cluster's agent ended the stream before the command ended"),
            Err(status) => {
                let why: String = status.message().chars().take(200).collect();
                return Some(Ended::Failed(format!("the stream of the cluster's agent broke: {why}")));
            }
        };
        if message.request_uuid != uuid {
            return failed("the cluster's agent sent what was not asked for");
        }
        if !message.error.is_empty() {
            return Some(Ended::of_text(&message.error));
        }
        let channel = if message.stream_type == "stderr" { Channel::Stderr } else { Channel::Stdout };
        if !message.data.is_empty() {
            *sent += message.data.len() as u64;
            to_client.send(Message::Binary(channel.message(&message.data))).await.ok()?;
        }
        if message.eof {
            return Some(Ended::Well);
        }
        next = messages.message().await;
    }
}

/// What a client says to a command.
struct Input<'a> {
    request: &'a TerminalRequest,
    version: Version,
    outgoing: &'a mpsc::Sender<Result<TerminalStreamData, Status>>,
    received: u64,
}

impl Input<'_> {
    /// Passes it on until the client has left.
    async fn carry(&mut self, client: &mut SplitStream<Socket>) {
        let mut is_open = self.request.stdin;
        while let Some(Ok(message)) = client.next().await {
            let message: Bytes = match message {
                Message::Binary(data) => data,
                Message::Text(text) => text.into(),
                Message::Close(_) => return,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            let named = said(&self.request.uuid);
            match Channel::split(message) {
                Some((Channel::Stdin, mut data)) if is_open => {
                    self.received += data.len() as u64;
                    while !data.is_empty() {
                        let piece = data.split_to(PIECE.min(data.len()));
                        let stdin = "stdin".to_owned();
                        self.say(TerminalStreamData { data: piece, stream_type: stdin, ..named.clone() })
                            .await;
                    }
                }
                Some((Channel::Resize, data)) if self.request.tty => {
                    let Ok(Size { width, height }) = serde_json::from_slice(&data) else { continue };
                    let (rows, cols) = (height.into(), width.into());
                    self.say(TerminalStreamData { resize: true, rows, cols, ..named }).await;
                }
                Some((Channel::Close, data))
                    if is_open && self.version == Version::V5 && Channel::Stdin.is_ended_by(&data) =>
                {
                    is_open = false;
                    tokio::time::sleep(READ).await;
                    self.say(TerminalStreamData { eof: true, ..named }).await;
                }
                // Nobody listens to it.
                _ => {}
            }
        }
    }

    async fn say(&self, message: TerminalStreamData) {
        // If the stream has ended, its other direction tells.
        _ = self.outgoing.send(Ok(message)).await;
    }
}

/// Tells the client how the command ended.
async fn close(ended: &Ended, mut to_client: SplitSink<Socket, Message>, mut client: SplitStream<Socket>) {
    let telling = async {
        let outcome = Channel::Outcome.message(ended.status().to_string().as_bytes());
        to_client.send(Message::Binary(outcome)).await?;
        // Without a code clients take it for an accident.
        let normal = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
        to_client.send(Message::Close(Some(normal))).await?;
        // What the client still says goes nowhere; but a connection that is cut before may lose what it was told.
        while client.next().await.transpose()?.is_some() {}
        Ok::<_, tokio_tungstenite::tungstenite::Error>(())
    };
    match tokio::time::timeout(CLOSING, telling).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a client left before it heard how its command ended"),
        Err(_) => tracing::debug!("a client took too long to hear how its command ended"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_asked_for_as_the_client_wants_it() {
        let path = ResourcePath { namespace: "n".into(), name: "p".into(), ..ResourcePath::default() };
        let query = "command=sh&command=-c&command=echo+%26&container=c&tty=true&stdin=1&stderr=false";
        let request = TerminalRequest {
            uuid: String::new(),
            namespace: "n".into(),
            pod_name: "p".into(),
            container_name: "c".into(),
            command: ["sh", "-c", "echo &"].map(str::to_owned).into(),
            tty: true,
            stdin: true,
            stdout: true,
            stderr: false,
        };
        assert_eq!(wanted(&path, Some(query)).unwrap(), request);
        let plain = wanted(&path, None).unwrap();
        assert_eq!((plain.tty, plain.stdin, plain.stdout, plain.stderr), (false, false, true, true));
    }

    #[test]
    fn only_what_speaks_a_known_protocol_over_websocket_is_upgraded() {
        let asked = ApiRequest::read(&Method::GET, "/api/v1/namespaces/n/pods/p/exec", None).unwrap();
        let good = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", "v5.channel.k8s.io"),
        ];
        let of = |headers: &[(&'static str, &'static str)]| {
            let headers = headers
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
            headers.collect::<HeaderMap>()
        };
        let (version, accept) = handshake(&asked, &Method::GET, &of(&good)).unwrap();
        assert_eq!((version, accept.to_str().unwrap()), (Version::V5, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        for (left_out, code) in [(0, 400), (1, 400), (2, 400), (3, 400), (4, 400)] {
            let rest: Vec<_> = good
                .iter()
                .enumerate()
                .filter(|(at, _)| *at != left_out)
                .map(|(_, header)| *header)
                .collect();
            let refusal = handshake(&asked, &Method::GET, &of(&rest)).unwrap_err();
            assert_eq!(refusal.code, code, "without {}", good[left_out].0);
        }
        let mut spdy = good;
        spdy[1].1 = "SPDY/3.1";
        assert_eq!(handshake(&asked, &Method::POST, &of(&spdy)).unwrap_err().code, 405);
        assert_eq!(handshake(&asked, &Method::POST, &of(&good)).unwrap_err().code, 405);
    }
}
