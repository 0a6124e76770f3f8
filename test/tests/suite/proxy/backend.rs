//! A cluster of the test's own, for what the embedded API server cannot do: it upgrades connections, answers without end or
//! not at all, and tells what it was asked.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value};
use tiphys_shared::kube::api_server::ApiServer;
use tiphys_shared::proxy::body::{self, Body};
use tiphys_shared::proxy::channels::{Channel, Ended, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, Semaphore};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::task::AbortOnDropHandle;

/// A piece of an answer that is large.
const PIECE: usize = 64 << 10;
/// How many of them one has.
pub(super) const PIECES: usize = 512;

/// It lasts as long as the handle.
pub(super) struct Backend {
    address: SocketAddr,
    /// Permits for watches that have ended.
    pub(super) ended: Arc<Semaphore>,
    /// Lets an answer break that is half told.
    pub(super) breaks: Arc<Notify>,
    _task: AbortOnDropHandle<()>,
}

impl Backend {
    pub(super) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let ended = Arc::new(Semaphore::new(0));
        let breaks = Arc::new(Notify::new());
        let (counted, told) = (Arc::clone(&ended), Arc::clone(&breaks));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (ended, breaks) = (Arc::clone(&counted), Arc::clone(&told));
                let service = service_fn(move |request| {
                    let (ended, breaks) = (Arc::clone(&ended), Arc::clone(&breaks));
                    async move { Ok::<_, Infallible>(answer(request, ended, breaks).await) }
                });
                let server = hyper::server::conn::http1::Builder::new();
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service).with_upgrades());
            }
        });
        Self { address, ended, breaks, _task: AbortOnDropHandle::new(task) }
    }

    /// A way to it as an agent has it, with credentials of the agent's own.
    pub(super) fn api_server(&self) -> ApiServer {
        let mut config = kube::Config::new(format!("http://{}", self.address).parse().unwrap());
        config.auth_info.username = Some("agent".to_owned());
        config.auth_info.password = Some("secret".to_owned().into());
        ApiServer::connect(&config).unwrap()
    }
}

struct CountOnDrop(Arc<Semaphore>);

impl Drop for CountOnDrop {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

/// Says back what it is told and how large its terminal is, until it is told no more: then it ends with exit code 3.
fn shell(mut request: Request<Incoming>, ended: Arc<Semaphore>) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let accept = derive_accept_key(request.headers()[SEC_WEBSOCKET_KEY].as_bytes());
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let _guard = CountOnDrop(ended);
        let io = TokioIo::new(upgrade.await.unwrap());
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
        socket.send(Message::Binary(Channel::Stdout.message(query.as_bytes()))).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            let reply = match Channel::split(message.into_data()) {
                Some((Channel::Stdin, data)) => Channel::Stdout.message(&data),
                Some((Channel::Resize, data)) => Channel::Stderr.message(&data),
                Some((Channel::Close, data)) if Channel::Stdin.is_ended_by(&data) => {
                    let outcome = Channel::Outcome.message(Ended::Exit(3).status().to_string().as_bytes());
                    socket.send(Message::Binary(outcome)).await.unwrap();
                    // What it has said may come after how it ended.
                    Channel::Stdout.message(b"bye")
                }
                _ => return,
            };
            let is_last = reply.ends_with(b"bye");
            socket.send(Message::Binary(reply)).await.unwrap();
            if is_last {
                socket.close(None).await.unwrap();
            }
        }
    });
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept.parse().unwrap());
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(Version::V5.as_str()));
    response
}

async fn answer(
    mut request: Request<Incoming>,
    ended: Arc<Semaphore>,
    breaks: Arc<Notify>,
) -> Response<Body> {
    match request.uri().path() {
        "/version" => Response::new(body::full("{}")),
        "/api/v1/namespaces/a/pods/p/exec" if request.headers().contains_key(UPGRADE) => {
            let protocol = request.headers()[UPGRADE].clone();
            let upgrade = hyper::upgrade::on(&mut request);
            // Says back what it has heard once it has heard all of it: only who can end one direction hears that.
            tokio::spawn(async move {
                let mut io = TokioIo::new(upgrade.await.unwrap());
                let mut heard = Vec::new();
                io.write_all(b"ready").await.unwrap();
                io.read_to_end(&mut heard).await.unwrap();
                io.write_all(&heard).await.unwrap();
                io.shutdown().await.unwrap();
            });
            let mut response = Response::new(body::empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            response.headers_mut().insert(UPGRADE, protocol);
            response.headers_mut().insert("x-stream-protocol-version", HeaderValue::from_static("v4"));
            response
        }
        // Says its query, and goes on for ever if it is followed.
        "/api/v1/namespaces/a/pods/p/log" => {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let follows = query.contains("follow=true");
            let line = Bytes::from(format!("{query}\n"));
            let first = futures::stream::iter([Ok::<_, Infallible>(Frame::data(line))]);
            if !follows {
                return Response::new(body::boxed(StreamBody::new(first)));
            }
            let guard = CountOnDrop(ended);
            let rest = futures::stream::pending().map(move |frame| {
                _ = &guard;
                frame
            });
            Response::new(body::boxed(StreamBody::new(first.chain(rest))))
        }
        "/api/v1/namespaces/a/pods/shell/exec" => shell(request, ended),
        // What is refused, and what is answered without an upgrade though one was asked for.
        "/api/v1/namespaces/a/pods/refused/exec" => {
            let mut response = Response::new(body::full("not here"));
            *response.status_mut() = StatusCode::FORBIDDEN;
            response
        }
        "/api/v1/namespaces/a/pods/plain/exec" => Response::new(body::full("plain")),
        "/api/v1/namespaces/a/pods/p/proxy/head" => {
            let mut head = Map::new();
            for (name, value) in request.headers() {
                let values = head.entry(name.as_str()).or_insert_with(|| Value::Array(Vec::new()));
                values.as_array_mut().unwrap().push(String::from_utf8_lossy(value.as_bytes()).into());
            }
            head.insert(":target".to_owned(), request.uri().to_string().into());
            Response::new(body::full(Value::Object(head).to_string()))
        }
        "/api/v1/namespaces/a/pods/p/proxy/length" => {
            let mut length = 0;
            let mut body = request.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                length += frame.into_data().map_or(0, |data| data.len());
            }
            Response::new(body::full(length.to_string()))
        }
        "/api/v1/pods" => {
            let guard = CountOnDrop(ended);
            let first = futures::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from("{}\n")))]);
            let rest = futures::stream::pending().map(move |frame| {
                _ = &guard;
                frame
            });
            Response::new(body::boxed(StreamBody::new(first.chain(rest))))
        }
        "/api/v1/configmaps" => {
            let piece = Bytes::from(vec![b'x'; PIECE]);
            let pieces = (0..PIECES).map(move |_| Ok::<_, Infallible>(Frame::data(piece.clone())));
            Response::new(body::boxed(StreamBody::new(futures::stream::iter(pieces))))
        }
        // Breaks off in the middle.
        "/api/v1/secrets" => {
            let first = futures::stream::iter([Ok(Frame::data(Bytes::from("half of ")))]);
            let broken = futures::stream::once(async move {
                breaks.notified().await;
                Err(std::io::Error::other("broken"))
            });
            Response::new(body::boxed(StreamBody::new(first.chain(broken))))
        }
        "/api/v1/nodes" => std::future::pending().await,
        other => {
            let mut response = Response::new(body::full(format!("nothing at {other}")));
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    }
}
