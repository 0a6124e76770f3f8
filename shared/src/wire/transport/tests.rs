use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use parking_lot::Mutex;
use tiphys_proto::version::version_client::VersionClient;
use tiphys_proto::version::version_server::{Version, VersionServer};
use tiphys_proto::version::{VersionRequest, VersionResponse};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::*;
use crate::security::pki::Ca;
use crate::security::tls::{ClientTls, Material, Policy, ServerTls};

pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// Answers with the subject of whoever asks.
pub(super) struct WhoAmI;

#[tonic::async_trait]
impl Version for WhoAmI {
    async fn version(&self, request: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
        assert!(peer.address.is_some_and(|address| address.ip().is_loopback()));
        let version = peer.certificate.map_or_else(|| "nobody".into(), |c| c.subject.clone());
        Ok(Response::new(VersionResponse { version }))
    }
}

struct Started {
    port: u16,
    failures: mpsc::UnboundedReceiver<&'static str>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Started {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(tls: Option<ServerTls>, limits: Limits) -> Started {
    let (sender, failures) = mpsc::unbounded_channel();
    let on_failure: OnFailure = Arc::new(move |failure| _ = sender.send(failure.error.reason()));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let incoming = listen(listener, tls, Limits { on_failure: Some(on_failure), ..limits });
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    let task = tokio::spawn(async move {
        tonic::transport::Server::builder()
            .add_service(VersionServer::new(WhoAmI))
            .serve_with_incoming_shutdown(incoming, stopped)
            .await
            .unwrap();
    });
    Started { port, failures, stop, task }
}

pub(super) fn ca() -> Ca {
    Ca::generate("test ca", Timestamp::now(), DAY).unwrap()
}

pub(super) fn server_material(ca: &Ca) -> Material {
    ca.issue_server(&["localhost", "127.0.0.1"], Timestamp::now(), DAY).unwrap()
}

pub(super) fn server_tls(ca: &Ca) -> ServerTls {
    ServerTls::new(&server_material(ca), Policy::mutual()).unwrap()
}

pub(super) fn agent(ca: &Ca, name: &str) -> Material {
    ca.issue_client::<&str>(name, &[], Timestamp::now(), DAY).unwrap()
}

pub(super) fn client_tls(material: &Material) -> ClientTls {
    ClientTls::new(material, Policy::default(), false).unwrap()
}

pub(super) fn options(port: u16, tls: Option<ClientTls>) -> DialOptions {
    DialOptions { connect_timeout: Duration::from_secs(20), ..DialOptions::new("127.0.0.1", port, tls) }
}

pub(super) async fn who_am_i(options: &DialOptions) -> Result<String, Error> {
    let channel = dial(options).await?;
    Ok(VersionClient::new(channel).version(VersionRequest {}).await.unwrap().into_inner().version)
}

#[tokio::test]
async fn both_sides_prove_who_they_are() {
    let ca = ca();
    let started = serve(Some(server_tls(&ca)), Limits::default()).await;
    let tls = client_tls(&agent(&ca, "agent-a"));
    assert_eq!(who_am_i(&options(started.port, Some(tls.clone()))).await.unwrap(), "CN=agent-a");
    let by_name = DialOptions::new("localhost", started.port, Some(tls));
    assert_eq!(who_am_i(&by_name).await.unwrap(), "CN=agent-a");
}

#[tokio::test]
async fn plaintext_works_where_both_sides_want_it() {
    let started = serve(None, Limits::default()).await;
    assert_eq!(who_am_i(&options(started.port, None)).await.unwrap(), "nobody");
}

#[tokio::test]
async fn a_server_of_an_unknown_ca_is_not_believed() {
    let mut started = serve(Some(server_tls(&ca())), Limits::default()).await;
    let error = who_am_i(&options(started.port, Some(client_tls(&agent(&ca(), "a"))))).await.unwrap_err();
    assert!(matches!(error, Error::UnknownIssuer { .. }), "{error}");
    assert!(!error.is_transient());
    assert_eq!(started.failures.recv().await, Some("refused"));
}

#[tokio::test]
async fn a_server_of_another_name_is_not_believed() {
    let ca = ca();
    let material = ca.issue_server(&["principal.example"], Timestamp::now(), DAY).unwrap();
    let tls = ServerTls::new(&material, Policy::mutual()).unwrap();
    let started = serve(Some(tls), Limits::default()).await;
    let tls = client_tls(&agent(&ca, "a"));
    let error = who_am_i(&options(started.port, Some(tls.clone()))).await.unwrap_err();
    assert!(error.to_string().contains("principal.example"), "{error}");
    let named =
        DialOptions { server_name: Some("principal.example".into()), ..options(started.port, Some(tls)) };
    who_am_i(&named).await.unwrap();
}

#[tokio::test]
async fn a_server_whose_certificate_has_expired_is_not_believed() {
    let ca = ca();
    let past = Timestamp::now() - 3 * DAY;
    let material = ca.issue_server(&["127.0.0.1"], past, DAY).unwrap();
    let started = serve(Some(ServerTls::new(&material, Policy::mutual()).unwrap()), Limits::default()).await;
    let error = who_am_i(&options(started.port, Some(client_tls(&agent(&ca, "a"))))).await.unwrap_err();
    assert!(matches!(error, Error::Expired { .. }), "{error}");
}

#[tokio::test]
async fn a_client_without_a_certificate_learns_that_it_needs_one() {
    let ca = ca();
    let mut started = serve(Some(server_tls(&ca)), Limits::default()).await;
    let bare = client_tls(&Material::ca_only(ca.certificate_pem()));
    let error = who_am_i(&options(started.port, Some(bare))).await.unwrap_err();
    assert!(matches!(error, Error::ClientCertificateRequired { .. }), "{error}");
    assert_eq!(started.failures.recv().await, Some("no-certificate"));
}

#[tokio::test]
async fn a_client_whose_certificate_is_refused_learns_why() {
    let ca = ca();
    let mut started = serve(Some(server_tls(&ca)), Limits::default()).await;
    let mut stranger = agent(&self::ca(), "a");
    stranger.ca = ca.certificate_pem().into();
    let error = who_am_i(&options(started.port, Some(client_tls(&stranger)))).await.unwrap_err();
    assert!(matches!(error, Error::ClientCertificateRejected { .. }), "{error}");
    assert_eq!(started.failures.recv().await, Some("bad-certificate"));

    let past = Timestamp::now() - 3 * DAY;
    let expired = ca.issue_client::<&str>("a", &[], past, DAY).unwrap();
    let error = who_am_i(&options(started.port, Some(client_tls(&expired)))).await.unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
    assert_eq!(started.failures.recv().await, Some("bad-certificate"));
}

#[tokio::test]
async fn mixing_tls_and_plaintext_is_recognised_on_either_side() {
    let ca = ca();
    let mut secure = serve(Some(server_tls(&ca)), Limits::default()).await;
    let error = who_am_i(&options(secure.port, None)).await.unwrap_err();
    assert!(matches!(error, Error::PlaintextToTls { .. }), "{error}");
    assert_eq!(secure.failures.recv().await, Some("not-tls"));

    let plain = serve(None, Limits::default()).await;
    let error = who_am_i(&options(plain.port, Some(client_tls(&agent(&ca, "a"))))).await.unwrap_err();
    assert!(matches!(error, Error::NotTls { .. }), "{error}");
}

#[tokio::test]
async fn a_port_of_something_else_is_recognised() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            let mut sink = [0; 1024];
            while stream.read(&mut sink).await.is_ok_and(|n| n > 0) {}
        }
    });
    let error = dial(&options(port, None)).await.unwrap_err();
    assert!(matches!(error, Error::NotHttp2 { .. }), "{error}");
    let tls = client_tls(&Material::ca_only(ca().certificate_pem()));
    let error = dial(&options(port, Some(tls))).await.unwrap_err();
    assert!(matches!(error, Error::NotTls { .. }), "{error}");
    server.abort();
}

#[tokio::test]
async fn a_port_without_a_listener_and_a_name_without_an_address_are_told_apart() {
    let port = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let error = dial(&options(port, None)).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }) && error.is_transient(), "{error}");
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
    let nowhere = DialOptions::new("principal.invalid", port, None);
    let error = dial(&nowhere).await.unwrap_err();
    assert!(matches!(error, Error::NameNotFound { .. }), "{error}");
    let error = dial(&DialOptions::new("not a host", port, None)).await.unwrap_err();
    assert!(matches!(error, Error::BadHost { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = client_tls(&Material::ca_only(ca().certificate_pem()));
    for tls in [None, Some(tls)] {
        let options = DialOptions { connect_timeout: Duration::from_millis(50), ..options(port, tls) };
        let error = dial(&options).await.unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
    }
}

#[tokio::test]
async fn slow_and_garbled_handshakes_delay_nobody_and_are_counted() {
    let ca = ca();
    let limits = Limits { handshake_timeout: Duration::from_secs(2), ..Limits::default() };
    let mut started = serve(Some(server_tls(&ca)), limits).await;
    let address = (IpAddr::V4(Ipv4Addr::LOCALHOST), started.port);
    let silent = TcpStream::connect(address).await.unwrap();
    let mut garbled = TcpStream::connect(address).await.unwrap();
    garbled.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let gone = TcpStream::connect(address).await.unwrap();
    drop(gone);
    assert_eq!(who_am_i(&options(started.port, Some(client_tls(&agent(&ca, "a"))))).await.unwrap(), "CN=a");
    let mut reasons = Vec::new();
    while reasons.len() < 3 {
        reasons.push(started.failures.recv().await.unwrap());
    }
    reasons.sort_unstable();
    assert_eq!(reasons, ["closed", "not-tls", "timeout"]);
    drop(silent);
}

#[tokio::test]
async fn handshakes_under_way_are_bounded_and_the_rest_waits() {
    let ca = ca();
    let limits =
        Limits { handshake_timeout: Duration::from_millis(200), max_handshakes: 2, ..Limits::default() };
    let mut started = serve(Some(server_tls(&ca)), limits).await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(TcpStream::connect((Ipv4Addr::LOCALHOST, started.port)).await.unwrap());
    }
    assert_eq!(who_am_i(&options(started.port, Some(client_tls(&agent(&ca, "a"))))).await.unwrap(), "CN=a");
    assert_eq!(started.failures.recv().await, Some("timeout"));
}

#[tokio::test]
async fn new_certificates_are_used_by_the_next_connection_and_old_connections_live_on() {
    let (old, new) = (ca(), ca());
    let tls = server_tls(&old);
    let started = serve(Some(tls.clone()), Limits::default()).await;
    let client = client_tls(&agent(&old, "before"));
    let dial_options = options(started.port, Some(client.clone()));
    let mut before = VersionClient::new(dial(&dial_options).await.unwrap());

    tls.replace(&server_material(&new)).unwrap();
    let error = dial(&dial_options).await.unwrap_err();
    assert!(matches!(error, Error::UnknownIssuer { .. }), "{error}");
    client.replace(&agent(&new, "after")).unwrap();
    assert_eq!(who_am_i(&dial_options).await.unwrap(), "CN=after");
    assert_eq!(before.version(VersionRequest {}).await.unwrap().into_inner().version, "CN=before");
}

#[tokio::test]
async fn a_channel_is_one_connection() {
    let mut started = serve(None, Limits::default()).await;
    let mut client = VersionClient::new(dial(&options(started.port, None)).await.unwrap());
    client.version(VersionRequest {}).await.unwrap();
    started.stop.cancel();
    (&mut started.task).await.unwrap();
    // Even when somebody listens there again.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, started.port)).await.unwrap();
    client.version(VersionRequest {}).await.unwrap_err();
    tokio::select! {
        biased;
        accepted = listener.accept() => panic!("dialled again: {accepted:?}"),
        outcome = client.version(VersionRequest {}) => drop(outcome.unwrap_err()),
    }
}

#[tokio::test]
async fn a_storm_of_connections_gets_through() {
    let ca = ca();
    let limits = Limits { max_handshakes: 4, ..Limits::default() };
    let started = serve(Some(server_tls(&ca)), limits).await;
    let options = options(started.port, Some(client_tls(&agent(&ca, "a"))));
    let seen = Arc::new(Mutex::new(0));
    futures::stream::iter(0..100)
        .for_each_concurrent(50, |_| async {
            assert_eq!(who_am_i(&options).await.unwrap(), "CN=a");
            *seen.lock() += 1;
        })
        .await;
    assert_eq!(*seen.lock(), 100);
}
