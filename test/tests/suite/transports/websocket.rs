//! gRPC over WebSocket between our own sides.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use serde_json::json;
use tiphys_shared::model::event::Payload;
use tiphys_shared::model::{Event, EventKind, Kind, Mode, Target};
use tiphys_shared::process::clock;
use tiphys_shared::wire::transport::{self, DialOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::super::fleet::{Cluster, Fleet};
use super::super::proxy::client_of;
use super::super::raw::{self, Raw};
use super::passes;
use super::relay::Relay;

/// A fleet whose agents come over WebSocket, through a relay.
async fn fleet(agents: &[&str], autonomous: &[&str]) -> (Fleet, Relay) {
    let clusters: BTreeMap<_, _> =
        agents.iter().map(|name| ((*name).to_owned(), Cluster::embedded())).collect();
    let mut fleet = Fleet::prepare(Cluster::embedded(), clusters, autonomous, 16 << 20).await;
    fleet.connections.websocket = true;
    for name in agents {
        super::super::fleet::create_namespace(&fleet.control.client(), name).await;
    }
    fleet.start_principal().await;
    let relay = Relay::start(fleet.address()).await;
    let port = relay.address.port();
    fleet.reach = Some(Arc::new(move |dial| DialOptions { websocket: true, port, ..dial }));
    for name in agents {
        fleet.start_agent(name);
    }
    (fleet, relay)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_and_requests_pass_over_websocket() {
    let (fleet, relay) = fleet(&["edge", "own"], &["own"]).await;
    passes(&fleet, "edge", "web", "r1").await;
    passes(&fleet, "edge", "web", "r2").await;
    let here = fleet.at_cluster(Kind::Application, "own");
    here.create(&Default::default(), &super::super::fleet::application("mine", "main")).await.unwrap();
    Fleet::until_is(&fleet.at_control(Kind::Application, "own"), "mine", "the mirror", |_| true).await;

    let client = client_of(&fleet, "edge").await;
    let direct = fleet.cluster("edge").client();
    assert_eq!(client.list_api_groups().await.unwrap(), direct.list_api_groups().await.unwrap());
    fleet.until_quiet().await;
    // Each call has a connection: a login and a stream for the events, and the same for the tunnel,
    // which nobody has waited for with the second agent.
    Fleet::until("eight connections", async || (relay.taken() >= 8).then_some(())).await;
    assert_eq!(fleet.figure("tiphys_principal_handshake_failures_total"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_is_made_anew_and_nothing_is_lost() {
    let (mut fleet, relay) = fleet(&["edge"], &[]).await;
    for round in 0..3 {
        passes(&fleet, "edge", "web", &format!("r{round}")).await;
        let before = relay.taken();
        relay.cut();
        passes(&fleet, "edge", "other", &format!("r{round}")).await;
        assert!(relay.taken() > before, "nothing was connected again");
    }
    fleet.kill_principal();
    fleet.start_principal().await;
    passes(&fleet, "edge", "web", "after").await;
    client_of(&fleet, "edge").await.apiserver_version().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_over_http2_come_to_the_same_port() {
    let (mut fleet, _relay) = fleet(&["edge", "far"], &[]).await;
    fleet.kill_agent("far");
    fleet.reach = None;
    fleet.start_agent("far");
    passes(&fleet, "far", "web", "r1").await;
    passes(&fleet, "edge", "web", "r1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_principal_that_takes_none_says_so() {
    let mut fleet = Fleet::embedded(&["edge"]).await;
    fleet.kill_agent("edge");
    fleet.reach = Some(Arc::new(|dial| DialOptions { websocket: true, ..dial }));
    let error = transport::dial(&fleet.dial("edge")).await.unwrap_err();
    assert!(error.to_string().contains("set --enable-websocket there too"), "{error}");
    assert!(!error.is_transient());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_over_websocket_is_who_its_certificate_and_its_token_say() {
    let (fleet, _relay) = fleet(&["edge", "far"], &[]).await;
    let edge = raw::channel(&fleet, "edge").await;
    let token = raw::token(&edge, Mode::Managed).await;
    let far = raw::channel(&fleet, "far").await;
    let mut client = tiphys_proto::version::version_client::VersionClient::new(far);
    let request = raw::with_token(tiphys_proto::version::VersionRequest {}, &token);
    assert_eq!(client.version(request).await.unwrap_err().code(), tonic::Code::PermissionDenied);
    let mut client = tiphys_proto::version::version_client::VersionClient::new(edge);
    let nobody = client.version(tiphys_proto::version::VersionRequest {}).await.unwrap_err();
    assert_eq!(nobody.code(), tonic::Code::Unauthenticated);
}

/// An event about an Application that is not there.
fn event_of(size: usize) -> Event {
    let application = json!({
        "metadata": {"name": "absent", "namespace": "other"},
        "status": {"conditions": [{"type": "Large", "message": "x".repeat(size)}]},
    });
    let payload = Payload::Object(serde_json::from_value(application).unwrap());
    let mut event = Event::request(Target::Application, EventKind::StatusUpdate, payload);
    event.sent_at = Some(clock::now());
    event
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_as_large_as_are_taken_pass_and_no_larger() {
    let (fleet, _relay) = fleet(&["edge"], &[]).await;
    // Not as the agent that is there: one would take the other's place.
    let mut raw = Raw::connect(&fleet, "other").await;
    let fits = event_of(15 << 20);
    raw.say(&fits).await;
    raw.hear_ack(&fits.id).await;
    raw.say(&event_of(17 << 20)).await;
    let end = loop {
        match raw.hear.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended well"),
            Err(status) => break status,
        }
    };
    assert!(end.message().contains("1009"), "{end}");
}

/// Says `bytes` over TLS as an agent, and tells what the principal says.
async fn say(fleet: &Fleet, bytes: &[u8]) -> String {
    let mut config = (*fleet.dial("edge").tls.unwrap().current()).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = TcpStream::connect(fleet.address()).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    // It may have heard enough before all is said.
    _ = stream.write_all(bytes).await;
    let mut said = Vec::new();
    _ = stream.read_to_end(&mut said).await;
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_refused_counted_and_harms_nobody() {
    let (fleet, _relay) = fleet(&["edge"], &[]).await;
    passes(&fleet, "edge", "web", "before").await;
    assert!(say(&fleet, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.starts_with("HTTP/1.1 426 "));
    assert!(say(&fleet, b"SSH-2.0-x\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    let handshake = "GET /eventstreamapi.EventStream/Subscribe HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\n\
                     upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-protocol: grpc-ws\r\n\
                     sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\ncontent-type: application/grpc\r\n";
    // Without a token nothing that is said is even read.
    let said = say(&fleet, format!("{handshake}\r\n").as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 101 ") && said.contains("grpc-status: 16"), "{said}");
    let token = fleet.access_token("edge");
    let handshake = format!("{handshake}authorization: {token}\r\n\r\n");
    for frame in [&b"\x81\x82\0\0\0\0hi"[..], b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", &[0; 64]] {
        let said = say(&fleet, &[handshake.as_bytes(), frame].concat()).await;
        assert!(said.starts_with("HTTP/1.1 101 "), "{said}");
    }
    Fleet::until("the counter", async || {
        (fleet.figure("tiphys_principal_handshake_failures_total") >= 5).then_some(())
    })
    .await;
    // The session of somebody who takes its name was ended by its own; it comes back by itself.
    passes(&fleet, "edge", "web", "after").await;
}
