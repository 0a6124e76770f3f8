//! Agents that ping more often than they may.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tiphys_shared::wire::transport::DialOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::super::fleet::Fleet;
use super::passes;

/// A fleet whose principal takes pings this often.
async fn fleet(apart: Duration) -> Fleet {
    let mut fleet = Fleet::embedded(&["edge"]).await;
    fleet.kill_principal();
    fleet.connections.min_ping_interval = Some(apart);
    fleet.start_principal().await;
    fleet
}

/// Greets the principal over HTTP/2, pings so often, and tells all that it says until it hangs up.
async fn ping(fleet: &Fleet, often: usize) -> Vec<u8> {
    const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0 a ping ";
    let tls = fleet.dial("other").tls.unwrap().current();
    let stream = TcpStream::connect(fleet.address()).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = TlsConnector::from(tls).connect(name, stream).await.unwrap();
    stream.write_all(&[GREETING, &PING.repeat(often)].concat()).await.unwrap();
    let mut said = Vec::new();
    _ = stream.read_to_end(&mut said).await;
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_pings_too_often_is_told_so_and_cut() {
    let mut fleet = fleet(Duration::from_secs(3600)).await;
    passes(&fleet, "edge", "web", "r1").await;
    let said = ping(&fleet, 4).await;
    assert!(said.ends_with(b"\0\0\0\0\0\0\0\x0btoo_many_pings"), "{said:?}");
    // An agent that does so comes back, and loses nothing.
    fleet.kill_agent("edge");
    let often = Duration::from_millis(20);
    fleet.reach = Some(Arc::new(move |dial| DialOptions { keepalive_interval: Some(often), ..dial }));
    fleet.start_agent("edge");
    let first = Fleet::until("a session", async || fleet.principal().agents().first()?.connected_since).await;
    Fleet::until("another session", async || {
        let since = fleet.principal().agents().first()?.connected_since?;
        (since != first).then_some(())
    })
    .await;
    passes(&fleet, "edge", "web", "r2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_keeps_to_it_is_left_alone() {
    let mut fleet = fleet(Duration::from_millis(1)).await;
    fleet.kill_agent("edge");
    let often = Duration::from_millis(20);
    fleet.reach = Some(Arc::new(move |dial| DialOptions { keepalive_interval: Some(often), ..dial }));
    fleet.start_agent("edge");
    passes(&fleet, "edge", "web", "first").await;
    let since = fleet.principal().agents()[0].connected_since.unwrap();
    for round in 0..10 {
        passes(&fleet, "edge", "web", &format!("r{round}")).await;
    }
    assert_eq!(fleet.principal().agents()[0].connected_since, Some(since), "it was cut");
}
