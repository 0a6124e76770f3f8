//! Agents behind a proxy: by CONNECT, with and without credentials, over HTTP/2 and over WebSocket.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tiphys_shared::wire::transport::proxy::Proxy;
use tiphys_shared::wire::transport::{self, DialOptions};
use tiphys_shared::wire::tunnel::join;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use super::super::fleet::Fleet;
use super::super::proxy::client_of;
use super::passes;

/// "ada:open sesame"
const CREDENTIALS: &str = "Basic YWRhOm9wZW4gc2VzYW1l";

/// A proxy that takes CONNECT to names that end with `.fleet.test`, which are all this machine.
struct ConnectProxy {
    url: String,
    connected: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl ConnectProxy {
    async fn start(credentials: Option<&'static str>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
        let connected = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connected);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let count = Arc::clone(&count);
                // Whoever hangs up in the middle of it is nobody's concern.
                tokio::spawn(async move { _ = serve(stream, credentials, &count).await });
            }
        });
        Self { url, connected, _task: AbortOnDropHandle::new(task) }
    }

    fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    /// The environment of somebody who uses it.
    fn environment(&self, user: &str, no: &str) -> impl Fn(&str) -> Option<String> + use<> {
        let (url, no) = (format!("http://{user}{}", self.url), no.to_owned());
        move |name| match name {
            "HTTPS_PROXY" => Some(url.clone()),
            "no_proxy" => Some(no.clone()),
            _ => None,
        }
    }
}

async fn serve(
    mut stream: TcpStream,
    credentials: Option<&'static str>,
    connected: &AtomicUsize,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    let authorization = head.lines().find_map(|line| line.strip_prefix("proxy-authorization: "));
    let port = target.split_once(".fleet.test:").and_then(|(_, port)| port.parse::<u16>().ok());
    let refusal = match port {
        _ if authorization != credentials => "407 Proxy Authentication Required",
        None => "403 Forbidden",
        Some(port) => match TcpStream::connect(("127.0.0.1", port)).await {
            Err(_) => "502 Bad Gateway",
            Ok(far) => {
                connected.fetch_add(1, Ordering::Relaxed);
                stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
                return join(stream, far).await.map(|_| ());
            }
        },
    };
    let answer = format!("HTTP/1.1 {refusal}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).await
}

/// An agent's way to a principal that is called `host`, as this environment has it.
fn way(dial: DialOptions, host: &str, environment: impl Fn(&str) -> Option<String>) -> DialOptions {
    let proxy = Proxy::find(environment, host, dial.port).unwrap();
    // Where the name leads straight, it has no address: that would be seen.
    DialOptions { host: host.to_owned(), server_name: Some("localhost".to_owned()), proxy, ..dial }
}

/// Has the agents of a fleet come this way from now on.
fn through(fleet: &mut Fleet, proxy: &ConnectProxy, user: &str, websocket: bool) {
    let environment = proxy.environment(user, "other.example");
    fleet.reach = Some(Arc::new(move |dial| DialOptions {
        websocket,
        ..way(dial, "principal.fleet.test", |name| environment(name))
    }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_behind_a_proxy_with_a_password_converges() {
    let mut fleet = Fleet::embedded(&["edge"]).await;
    let proxy = ConnectProxy::start(Some(CREDENTIALS)).await;
    for websocket in [false, true] {
        fleet.kill_agent("edge");
        fleet.kill_principal();
        fleet.connections.websocket = websocket;
        through(&mut fleet, &proxy, "ada:open%20sesame@", websocket);
        fleet.start_principal().await;
        fleet.start_agent("edge");
        passes(&fleet, "edge", "web", if websocket { "r2" } else { "r1" }).await;
        client_of(&fleet, "edge").await.apiserver_version().await.unwrap();
    }
    // Once for the events and once for the tunnel; over WebSocket each twice.
    assert!(proxy.connected() >= 6, "{} connections", proxy.connected());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_refuses_is_told_apart_from_a_principal_that_does() {
    let fleet = Fleet::embedded(&["edge"]).await;
    let proxy = ConnectProxy::start(Some(CREDENTIALS)).await;
    let failure = async |host: &str, user: &str, port: u16| {
        let dial = DialOptions { port, ..fleet.dial("edge") };
        transport::dial(&way(dial, host, proxy.environment(user, ""))).await.unwrap_err()
    };
    let port = fleet.address().port();
    let error = failure("principal.fleet.test", "", port).await;
    assert_eq!((error.reason(), error.is_transient()), ("proxy-credentials", false), "{error}");
    assert!(error.to_string().contains("HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT"), "{error}");

    let error = failure("principal.fleet.test", "ada:wrong@", port).await;
    assert_eq!((error.reason(), error.is_transient()), ("proxy-credentials", false), "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");

    let user = "ada:open%20sesame@";
    let error = failure("elsewhere.test", user, port).await;
    assert_eq!((error.reason(), error.is_transient()), ("proxy-refused", false), "{error}");
    assert!(error.to_string().contains("403 Forbidden") && error.to_string().contains("NO_PROXY"), "{error}");

    // A principal that is away is behind a proxy as it is elsewhere: it may come back.
    let nobody = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap().port();
    let error = failure("principal.fleet.test", user, nobody).await;
    assert_eq!((error.reason(), error.is_transient()), ("proxy-refused", true), "{error}");
    assert!(error.to_string().contains("502 Bad Gateway"), "{error}");
    assert_eq!(proxy.connected(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_is_none_or_away_is_named_without_its_password() {
    let fleet = Fleet::embedded(&["edge"]).await;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let garbled = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"SSH-2.0-x\r\n").await.unwrap();
        _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let environment = |name: &str| (name == "https_proxy").then(|| format!("http://ada:sesame@{address}"));
    let dial = way(fleet.dial("edge"), "principal.fleet.test", environment);
    for _ in 0..2 {
        // The second time nobody listens there any more.
        let error = transport::dial(&dial).await.unwrap_err();
        assert_eq!((error.reason(), error.is_transient()), ("proxy", true), "{error}");
        let said = format!("{error} {error:?} {dial:?}");
        assert!(said.contains(&address.to_string()) && !said.contains("sesame"), "{said}");
        garbled.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_excepted_is_reached_straight() {
    let fleet = Fleet::embedded(&["edge"]).await;
    let proxy = ConnectProxy::start(None).await;
    let dial = fleet.dial("edge");
    let port = dial.port;
    for (host, no) in [
        ("localhost", ""),
        ("127.0.0.1", ""),
        ("principal.fleet.test", ".fleet.test"),
        ("principal.fleet.test", &format!("principal.fleet.test:{port}")),
    ] {
        assert_eq!(way(dial.clone(), host, proxy.environment("", no)).proxy, None, "{host} {no}");
    }
    transport::dial(&way(dial.clone(), "localhost", proxy.environment("", ""))).await.unwrap();
    assert_eq!(proxy.connected(), 0);
    transport::dial(&way(dial, "principal.fleet.test", proxy.environment("", "x"))).await.unwrap();
    assert_eq!(proxy.connected(), 1);
}
