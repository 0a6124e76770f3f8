use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tiphys_proto::tunnel::Chunk;
use tiphys_proto::tunnel::tunnel_client::TunnelClient;
use tiphys_proto::tunnel::tunnel_server::{Tunnel, TunnelServer};
use tiphys_proto::version::VersionRequest;
use tiphys_proto::version::version_client::VersionClient;
use tiphys_proto::version::version_server::VersionServer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};

use super::super::tests::{WhoAmI, agent, ca, client_tls, options, server_material, who_am_i};
use super::super::{DialOptions, Error, Limits, OnFailure, dial, listen};
use super::*;
use crate::security::tls::{Alpn, ClientTls, Material, Policy, ServerTls};

const OPEN: &str = "/tiphys.tunnel.Tunnel/Open";

/// Says what it hears. A chunk that is empty ends it, with a status that says so.
struct Echo {
    /// Told when somebody who was listened to has left.
    left: mpsc::UnboundedSender<Code>,
}

#[tonic::async_trait]
impl Tunnel for Echo {
    type OpenStream = Pin<Box<dyn Stream<Item = Result<Chunk, Status>> + Send>>;

    async fn open(&self, request: Request<Streaming<Chunk>>) -> Result<Response<Self::OpenStream>, Status> {
        let word = request.metadata().get("word").cloned();
        let left = self.left.clone();
        let mut said = request.into_inner();
        let (say, mut heard) = mpsc::channel(1);
        // In a task of its own, as sessions are.
        tokio::spawn(async move {
            loop {
                let echo = match said.message().await {
                    Ok(None) => return,
                    Ok(Some(chunk)) if chunk.data.is_empty() => Err(Status::aborted("that was nothing")),
                    Ok(Some(chunk)) => Ok(chunk),
                    Err(status) => return left.send(status.code()).unwrap(),
                };
                if say.send(echo).await.is_err() {
                    return;
                }
            }
        });
        let echo = futures::stream::poll_fn(move |context| heard.poll_recv(context));
        let mut response = Response::new(Box::pin(echo) as Self::OpenStream);
        if let Some(word) = word {
            response.metadata_mut().insert("word", word);
        }
        Ok(response)
    }
}

struct Served {
    port: u16,
    failures: mpsc::UnboundedReceiver<&'static str>,
    left: mpsc::UnboundedReceiver<Code>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A server of both, gRPC over HTTP/2 and over WebSocket.
async fn serve(tls: Option<ServerTls>) -> Served {
    let (sender, failures) = mpsc::unbounded_channel();
    let on_failure: OnFailure = Arc::new(move |failure| _ = sender.send(failure.error.reason()));
    let (left, leaving) = mpsc::unbounded_channel();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let routes = Routes::new(VersionServer::new(WhoAmI)).add_service(TunnelServer::new(Echo { left }));
    let (sender, connections) = mpsc::channel(64);
    let limits = Limits { on_failure: Some(on_failure.clone()), ..Limits::default() };
    let incoming = listen(listener, tls, limits).with_websockets(sender);
    let calls =
        Calls { routes: routes.clone(), largest: Vec::new(), keepalive: None, on_failure: Some(on_failure) };
    tasks.spawn(WebSockets::new(calls, tasks.clone(), stop.clone()).serve(connections));
    let stopped = stop.clone().cancelled_owned();
    tokio::spawn(async move {
        tonic::transport::Server::builder()
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, stopped)
            .await
            .unwrap();
    });
    Served { port, failures, left: leaving, stop, tasks }
}

fn both(material: &Material) -> ServerTls {
    ServerTls::new(material, Policy { alpn: Alpn::H2OrHttp1, ..Policy::mutual() }).unwrap()
}

fn over_websocket(port: u16, tls: Option<ClientTls>) -> DialOptions {
    DialOptions { websocket: true, ..options(port, tls) }
}

/// Opens an echo.
async fn echo(options: &DialOptions) -> Result<(mpsc::Sender<Chunk>, Streaming<Chunk>), Status> {
    let (say, mut said) = mpsc::channel(1);
    let mut request = Request::new(futures::stream::poll_fn(move |context| said.poll_recv(context)));
    request.metadata_mut().insert("word", "as given".parse().unwrap());
    let response = TunnelClient::new(dial(options).await.unwrap()).open(request).await?;
    assert_eq!(response.metadata().get("word").unwrap(), "as given");
    Ok((say, response.into_inner()))
}

fn chunk(data: impl Into<Bytes>) -> Chunk {
    Chunk { data: data.into() }
}

#[tokio::test]
async fn one_port_serves_both_ways_and_knows_who_calls() {
    let ca = ca();
    let served = serve(Some(both(&server_material(&ca)))).await;
    let tls = Some(client_tls(&agent(&ca, "agent-a")));
    assert_eq!(who_am_i(&over_websocket(served.port, tls.clone())).await.unwrap(), "CN=agent-a");
    assert_eq!(who_am_i(&options(served.port, tls)).await.unwrap(), "CN=agent-a");

    let plain = serve(None).await;
    assert_eq!(who_am_i(&over_websocket(plain.port, None)).await.unwrap(), "nobody");
    assert_eq!(who_am_i(&options(plain.port, None)).await.unwrap(), "nobody");
}

#[tokio::test]
async fn a_channel_makes_many_calls() {
    let served = serve(None).await;
    let channel = dial(&over_websocket(served.port, None)).await.unwrap();
    let calls = (0..20).map(|_| {
        let mut client = VersionClient::new(channel.clone());
        async move { client.version(VersionRequest {}).await.unwrap().into_inner().version }
    });
    assert_eq!(futures::future::join_all(calls).await, vec!["nobody"; 20]);
}

#[tokio::test]
async fn both_sides_talk_at_once_in_messages_of_any_size_and_a_status_ends_it() {
    let served = serve(None).await;
    let (say, mut hear) = echo(&over_websocket(served.port, None)).await.unwrap();
    for size in [1, 100, 64 << 10, (64 << 10) + 1, 3 << 20] {
        let data = Bytes::from(vec![size as u8 | 1; size]);
        say.send(chunk(data.clone())).await.unwrap();
        assert_eq!(hear.message().await.unwrap().unwrap().data, data);
    }
    say.send(chunk("")).await.unwrap();
    let status = hear.message().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Aborted, "that was nothing"));
}

#[tokio::test]
async fn a_call_that_has_said_all_is_answered_to_the_end() {
    let served = serve(None).await;
    let (say, mut hear) = echo(&over_websocket(served.port, None)).await.unwrap();
    say.send(chunk("last")).await.unwrap();
    drop(say);
    assert_eq!(hear.message().await.unwrap().unwrap().data, "last");
    assert_eq!(hear.message().await.unwrap(), None);
}

#[tokio::test]
async fn a_method_that_is_not_there_is_told_from_a_port_that_is_not() {
    let served = serve(None).await;
    let channel = dial(&over_websocket(served.port, None)).await.unwrap();
    let mut client = tiphys_proto::auth::authentication_client::AuthenticationClient::new(channel);
    let status = client.authenticate(tiphys_proto::auth::AuthRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
}

#[tokio::test]
async fn whoever_gives_a_call_up_is_noticed() {
    let mut served = serve(None).await;
    let (say, mut hear) = echo(&over_websocket(served.port, None)).await.unwrap();
    say.send(chunk("here")).await.unwrap();
    hear.message().await.unwrap().unwrap();
    drop(hear);
    drop(say);
    assert_eq!(served.left.recv().await, Some(Code::Unavailable));
    // That is nobody's fault.
    served.stop.cancel();
    served.tasks.close();
    served.tasks.wait().await;
    assert!(served.failures.try_recv().is_err());
}

#[tokio::test]
async fn a_server_that_stops_ends_what_is_under_way() {
    let served = serve(None).await;
    let (say, mut hear) = echo(&over_websocket(served.port, None)).await.unwrap();
    say.send(chunk("here")).await.unwrap();
    hear.message().await.unwrap().unwrap();
    served.stop.cancel();
    assert_eq!(hear.message().await.unwrap_err().code(), Code::Unavailable);
    served.tasks.close();
    served.tasks.wait().await;
}

#[tokio::test]
async fn a_client_whose_certificate_is_refused_learns_why() {
    let ca = ca();
    let mut served = serve(Some(both(&server_material(&ca)))).await;
    let mut stranger = agent(&super::super::tests::ca(), "a");
    stranger.ca = ca.certificate_pem().into();
    let bare = Material::ca_only(ca.certificate_pem());
    for (material, word) in [(bare, "client-certificate-required"), (stranger, "client-certificate-rejected")]
    {
        let channel = dial(&over_websocket(served.port, Some(client_tls(&material)))).await.unwrap();
        let status = VersionClient::new(channel).version(VersionRequest {}).await.unwrap_err();
        let error = Error::behind(&status).unwrap_or_else(|| panic!("{status}"));
        assert_eq!(error.reason(), word, "{error}");
        assert!(!error.is_transient());
        served.failures.recv().await.unwrap();
    }
    let other = client_tls(&agent(&super::super::tests::ca(), "a"));
    let error = dial(&over_websocket(served.port, Some(other))).await.unwrap_err();
    assert_eq!(error.reason(), "unknown-issuer", "{error}");
}

/// A server that answers every request with this.
async fn answering(answer: &'static str) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                read_head(&mut stream).await;
                stream.write_all(answer.as_bytes()).await.unwrap();
                _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    port
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Answers the request for a WebSocket, and leaves what is said over it to the test.
async fn become_websocket(stream: &mut TcpStream) {
    let head = read_head(stream).await;
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Yes\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
}

async fn failure(port: u16) -> Error {
    let channel = dial(&over_websocket(port, None)).await.unwrap();
    let status = VersionClient::new(channel).version(VersionRequest {}).await.unwrap_err();
    Error::behind(&status).unwrap_or_else(|| panic!("{status}"))
}

#[tokio::test]
async fn whoever_has_no_websocket_is_told_apart() {
    let page = answering("HTTP/1.1 404 Not Found\r\ncontent-length: 8\r\n\r\nno such\n").await;
    let error = failure(page).await;
    assert!(error.to_string().contains("404 Not Found instead of a websocket (\"no such\")"), "{error}");
    assert!(!error.is_transient());
    let busy = failure(answering("HTTP/1.1 503 Busy\r\ncontent-length: 6\r\n\r\n<html>").await).await;
    assert!(busy.is_transient() && !busy.to_string().contains("html"), "{busy}");
    let endless = "HTTP/1.1 502 Bad\r\ncontent-length: 100000\r\n\r\nand so on";
    assert!(matches!(failure(answering(endless).await).await, Error::WebSocketRefused { .. }));
    let other =
        failure(answering("HTTP/1.1 101 Yes\r\nconnection: upgrade\r\nupgrade: spdy\r\n\r\n").await).await;
    assert!(matches!(other, Error::NotWebSocket { .. }), "{other}");
    let forged =
        "HTTP/1.1 101 Yes\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\n";
    assert!(failure(answering(forged).await).await.to_string().contains("another handshake"));
    let garbage = failure(answering("SSH-2.0-x\r\n").await).await;
    assert!(matches!(garbage, Error::NotWebSocket { .. }), "{garbage}");

    // A server of HTTP/2 alone says so in the handshake.
    let ca = ca();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = ServerTls::new(&server_material(&ca), Policy::mutual()).unwrap();
    let mut incoming = listen(listener, Some(tls), Limits::default());
    let serving = tokio::spawn(async move { incoming.next().await });
    let error = dial(&over_websocket(port, Some(client_tls(&agent(&ca, "a"))))).await.unwrap_err();
    assert!(matches!(error, Error::NotWebSocket { .. }), "{error}");
    serving.abort();
}

#[tokio::test]
async fn silence_ends_a_call() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let silent = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        become_websocket(&mut stream).await;
        let mut heard = Vec::new();
        _ = stream.read_to_end(&mut heard).await;
        heard
    });
    let brief = Duration::from_millis(20);
    let options = DialOptions {
        keepalive_interval: Some(brief),
        keepalive_timeout: brief,
        ..over_websocket(port, None)
    };
    let status = echo(&options).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the other side gave no sign of life"));
    // It was asked for one: a ping has the opcode 9.
    assert_eq!(silent.await.unwrap().first(), Some(&0x89));
}

#[tokio::test]
async fn requests_that_are_no_handshakes_are_refused_and_counted() {
    let mut served = serve(None).await;
    let good = "host: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                sec-websocket-protocol: grpc-ws\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let without = |line: &str| {
        assert!(good.contains(line), "{line}");
        format!("GET {OPEN} HTTP/1.1\r\n{}\r\n", good.replace(line, ""))
    };
    for (request, status, reason) in [
        (without("sec-websocket-protocol: grpc-ws\r\n"), "426", "websocket"),
        (without("upgrade: websocket\r\n"), "400", "websocket"),
        (without("connection: keep-alive, Upgrade\r\n"), "400", "websocket"),
        (without("sec-websocket-version: 13\r\n"), "400", "websocket"),
        (without("sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), "400", "websocket"),
        (without("NhbXBsZSBub25jZQ=="), "400", "websocket"),
        (format!("POST {OPEN} HTTP/1.1\r\n{good}\r\n"), "405", "websocket"),
        (
            "POST /x HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\n\r\n".to_owned(),
            "426",
            "websocket",
        ),
        ("SSH-2.0-x\r\n\r\n".to_owned(), "400", "websocket"),
        (
            format!("GET {OPEN} HTTP/1.1\r\n{}\r\n", format!("a: {}\r\n", "b".repeat(2000)).repeat(40)),
            "431",
            "websocket",
        ),
    ] {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, served.port)).await.unwrap();
        // It may have heard enough before all is said.
        _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) || answer.is_empty() && status == "431",
            "{request}: {answer}"
        );
        assert_eq!(served.failures.recv().await, Some(reason), "{request}");
    }
    assert_eq!(who_am_i(&over_websocket(served.port, None)).await.unwrap(), "nobody");
}

/// A frame as clients send them, masked with nothing.
fn masked(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

/// The code with which the last frame of these says goodbye.
fn code(mut frames: &[u8]) -> Option<u16> {
    while let [kind, length, rest @ ..] = frames {
        let (length, rest) = match length {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            short => (usize::from(*short), rest),
        };
        if *kind == 0x88 {
            return Some(u16::from_be_bytes([rest[0], rest[1]]));
        }
        frames = &rest[length..];
    }
    None
}

#[tokio::test]
async fn frames_that_are_none_end_the_call_and_are_counted() {
    let mut served = serve(None).await;
    let handshake = format!(
        "GET {OPEN} HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-protocol: grpc-ws\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         content-type: application/grpc\r\nte: trailers\r\n\r\n"
    );
    let end = masked(0x82, &frame::END);
    let after = [end.as_slice(), &masked(0x82, b"\0\0\0\0\0")].concat();
    let huge = [&[0x82, 0x80 | 127][..], &(1_u64 << 40).to_be_bytes(), &[0; 4]].concat();
    let large = [&[0x82, 0x80 | 127][..], &((4_u64 << 20) + 6).to_be_bytes(), &[0; 4]].concat();
    for (what, bytes, wanted) in [
        ("text", masked(0x81, b"hello"), 1002),
        ("no mask", vec![0x82, 5, 0, 0, 0, 0, 0], 1002),
        ("a lie", masked(0x82, b"\0\0\0\0\x09abc"), 1002),
        ("too short", masked(0x82, b"\0\0"), 1002),
        ("metadata", masked(0x82, b"\x80\0\0\0\x04a: b"), 1002),
        ("compressed metadata", masked(0x82, b"\x81\0\0\0\0"), 1002),
        ("an opcode that is none", masked(0x83, b"hello"), 1002),
        ("a continuation of nothing", masked(0x80, b"hello"), 1002),
        ("more than there is memory", huge, 1009),
        ("more than is taken", large, 1009),
        ("more after the end", after, 1002),
    ] {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, served.port)).await.unwrap();
        stream.write_all(handshake.as_bytes()).await.unwrap();
        let head = read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{what}");
        // Go's client takes no other word, and no second one.
        let connection: Vec<_> = head.lines().filter(|line| line.starts_with("connection:")).collect();
        assert_eq!(connection, ["connection: Upgrade"], "{what}");
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        _ = stream.read_to_end(&mut answer).await;
        assert_eq!(code(&answer), Some(wanted), "{what}: {answer:?}");
        assert_eq!(served.failures.recv().await, Some("websocket"), "{what}");
    }
    assert_eq!(who_am_i(&over_websocket(served.port, None)).await.unwrap(), "nobody");
}

#[tokio::test]
async fn an_answer_that_is_none_is_an_error() {
    // Metadata missing, then a message that lies.
    for frame in [&b"\x82\x05\0\0\0\0\0"[..], b"\x82\x06\x80\0\0\0\x09a", b"\x81\x02hi"] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answering = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            become_websocket(&mut stream).await;
            stream.write_all(frame).await.unwrap();
            _ = stream.read_to_end(&mut Vec::new()).await;
        });
        let status = echo(&over_websocket(port, None)).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{status}");
        answering.await.unwrap();
    }
}
