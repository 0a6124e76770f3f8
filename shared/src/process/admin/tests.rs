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
    let (live, ready) = (Readiness::new(), Readiness::new());
    let registry = metrics::registry().unwrap();
    let sent = prometheus::IntCounter::new("agent_events_sent", "events").unwrap();
    metrics::register(&registry, sent).unwrap().inc();
    let guard = ready.guard("informer applications");
    let (address, stop, running) = start(Pages::new().metrics(registry).health(live, ready)).await;

    let metrics = ask(address, "GET /metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    assert!(metrics.contains("text/plain; version=0.0.4"), "{metrics}");
    assert!(metrics.contains("agent_events_sent 1"), "{metrics}");

    let unready = ask(address, "GET /readyz").await;
    assert!(unready.starts_with("HTTP/1.1 503"), "{unready}");
    assert!(unready.ends_with("informer applications: starting\n"), "{unready}");
    assert!(ask(address, "GET /healthz").await.starts_with("HTTP/1.1 503"));
    assert!(ask(address, "GET /livez?verbose").await.starts_with("HTTP/1.1 200"));
    guard.ready();
    assert!(ask(address, "GET /readyz").await.starts_with("HTTP/1.1 200"));
    assert!(ask(address, "HEAD /healthz").await.starts_with("HTTP/1.1 200"));

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
    let (address, stop, running) = start(Pages::new().health(Readiness::new(), Readiness::new())).await;
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
