use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn start(pages: Pages) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
    let server = Server::bind(LOOPBACK).await.unwrap();
    let (address, stop) = (server.address(), CancellationToken::new());
    let running = tokio::spawn(server.serve(pages, stop.clone()));
    (address, stop, running)
}

#[tokio::test]
async fn metrics_and_health_are_served_with_reasons() {
    let ready = Readiness::new();
    let registry = metrics::registry().unwrap();
    let sent = prometheus::IntCounter::new("agent_events_sent", "events").unwrap();
    metrics::register(&registry, sent).unwrap().inc();
    let guard = ready.guard("informer applications");
    let pages = Pages::new().metrics(registry).health("/livez", Readiness::new()).health("/readyz", ready);
    let (address, stop, running) = start(pages).await;

    let metrics = ask(address, "GET /metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    assert!(metrics.contains("text/plain; version=0.0.4"), "{metrics}");
    assert!(metrics.contains("agent_events_sent 1"), "{metrics}");

    let unready = ask(address, "GET /readyz").await;
    assert!(unready.starts_with("HTTP/1.1 503"), "{unready}");
    assert!(unready.ends_with("informer applications: starting\n"), "{unready}");
    let verbose = ask(address, "GET /readyz?verbose").await;
    assert!(
        verbose.ends_with("[-]informer applications failed: starting\nreadyz check failed\n"),
        "{verbose}"
    );
    assert!(ask(address, "GET /livez?verbose").await.starts_with("HTTP/1.1 200"));
    guard.ready();
    assert!(ask(address, "HEAD /readyz").await.starts_with("HTTP/1.1 200"));
    let verbose = ask(address, "GET /readyz?verbose=1").await;
    assert!(verbose.ends_with("[+]informer applications ok\nreadyz check passed\n"), "{verbose}");

    assert!(ask(address, "GET /nothing").await.starts_with("HTTP/1.1 404"));
    assert!(ask(address, "POST /metrics").await.starts_with("HTTP/1.1 405"));
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_busy_port_is_an_error_that_says_so() {
    let first = Server::bind(LOOPBACK).await.unwrap();
    let error = Server::bind(first.address()).await.unwrap_err();
    assert!(error.is_busy());
    assert!(error.to_string().contains(&first.address().to_string()), "{error}");
}

#[tokio::test]
async fn a_client_that_says_nothing_does_not_keep_others_out() {
    let (address, stop, running) = start(Pages::new().health("/livez", Readiness::new())).await;
    let _silent: Vec<_> = {
        let mut all = Vec::new();
        for _ in 0..MAX_CONNECTIONS - 1 {
            all.push(TcpStream::connect(address).await.unwrap());
        }
        all
    };
    assert!(ask(address, "GET /livez").await.starts_with("HTTP/1.1 200"));
    stop.cancel();
    running.await.unwrap();
}

async fn put(pages: &Pages, from: &str, body: String) -> Page {
    let request = Request::put("/x").body(Full::new(Bytes::from(body))).unwrap();
    pages.make(request, from.parse().unwrap()).await
}

#[tokio::test]
async fn a_change_is_taken_from_the_same_host_only_and_is_bounded() {
    let pages = Pages::new()
        .page("/x", || Page::text(StatusCode::OK, "old"))
        .change("/x", |text| Page::text(StatusCode::OK, format!("new {text}")));
    for here in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
        let page = put(&pages, here, "y".to_owned()).await;
        assert_eq!((page.status, page.body), (StatusCode::OK, Bytes::from("new y")), "{here}");
    }
    for there in ["10.0.0.1", "::ffff:10.0.0.1", "fe80::1"] {
        assert_eq!(put(&pages, there, "y".to_owned()).await.status, StatusCode::FORBIDDEN, "{there}");
    }
    let long = put(&pages, "127.0.0.1", "y".repeat(BODY + 1)).await;
    assert_eq!(long.status, StatusCode::BAD_REQUEST, "{:?}", long.body);
    let request = Request::put("/y").body(Full::new(Bytes::new())).unwrap();
    assert_eq!(pages.make(request, "127.0.0.1".parse().unwrap()).await.status, StatusCode::NOT_FOUND);
}
