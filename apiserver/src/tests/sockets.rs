use super::*;
use crate::Bound;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const LOCALHOST: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A server's configuration, and the certificate to trust it by.
fn certified() -> (Arc<rustls::ServerConfig>, Vec<u8>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    (Arc::new(config), certificate.der().to_vec())
}

fn with_token() -> ApiServer {
    ApiServer::new(Options {
        tokens: BTreeMap::from([("right".into(), "jane".into())]),
        ..Options::default()
    })
}

fn run(bound: Bound) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
    let (address, cancel) = (bound.local_addr(), CancellationToken::new());
    (address, cancel.clone(), tokio::spawn(bound.run(cancel)))
}

fn client(address: SocketAddr, authority: Option<Vec<u8>>, token: Option<&str>) -> kube::Client {
    // Several tests may try; the first one wins and that is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let scheme = if authority.is_some() { "https" } else { "http" };
    let mut config = kube::Config::new(format!("{scheme}://{address}").parse().unwrap());
    config.root_cert = authority.map(|a| vec![a]);
    config.auth_info.token = token.map(|t| t.to_owned().into());
    kube::Client::try_from(config).unwrap()
}

async fn ended(task: JoinHandle<()>) {
    tokio::time::timeout(Duration::from_secs(60), task).await.expect("the server did not end").unwrap();
}

#[tokio::test]
async fn a_client_with_the_token_is_served_over_tls() {
    let (tls, authority) = certified();
    let server = with_token();
    let (address, cancel, task) = run(server.bind(LOCALHOST.into(), Some(tls)).await.unwrap());
    let maps: Api<ConfigMap> =
        Api::default_namespaced(client(address, Some(authority.clone()), Some("right")));
    let map: ConfigMap = serde_json::from_value(config_map("a", json!({"k": "v"}))).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    assert_eq!(maps.list(&Default::default()).await.unwrap().items.len(), 1);
    for token in [None, Some("wrong")] {
        let refused = Api::<Namespace>::all(client(address, Some(authority.clone()), token));
        let error = refused.list(&Default::default()).await.unwrap_err();
        let kube::Error::Api(status) = error else { panic!("{error}") };
        assert_eq!((status.code, status.reason.as_str()), (401, "Unauthorized"));
    }
    cancel.cancel();
    ended(task).await;
}

#[tokio::test]
async fn watches_end_when_the_server_does() {
    use futures::StreamExt;
    let server = server();
    let (address, cancel, task) = run(server.bind(LOCALHOST.into(), None).await.unwrap());
    let maps: Api<ConfigMap> = Api::default_namespaced(client(address, None, None));
    let mut events = maps.watch(&Default::default(), "0").await.unwrap().boxed();
    post(&server, MAPS, config_map("a", json!({}))).await;
    let first = tokio::time::timeout(Duration::from_secs(60), events.next()).await.unwrap();
    assert!(matches!(first, Some(Ok(kube::core::WatchEvent::Added(_)))), "{first:?}");
    cancel.cancel();
    ended(task).await;
    let end = tokio::time::timeout(Duration::from_secs(60), events.next()).await.unwrap();
    assert!(end.is_none(), "{end:?}");
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_client_that_never_speaks_does_not_keep_others_waiting() {
    let (tls, authority) = certified();
    let server = server();
    let (address, cancel, task) = run(server.bind(LOCALHOST.into(), Some(tls)).await.unwrap());
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    let namespaces: Api<Namespace> = Api::all(client(address, Some(authority), None));
    assert_eq!(namespaces.list(&Default::default()).await.unwrap().items.len(), 4);
    cancel.cancel();
    ended(task).await;
    assert_eq!(silent[0].read(&mut [0]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_by_its_address() {
    let server = server();
    let first = server.bind(LOCALHOST.into(), None).await.unwrap();
    let Err(error) = server.bind(first.local_addr(), None).await else { panic!("bound twice") };
    assert_eq!(error.to_string(), format!("cannot listen on {}", first.local_addr()));
}

#[tokio::test]
async fn reviews_tell_who_is_who() {
    let server = with_token();
    let review =
        post(&server, "/apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": {"token": "right"}}))
            .await;
    assert_eq!(review.status, 201, "{}", review.body);
    assert_eq!(review.body["status"]["authenticated"], true);
    assert_eq!(review.body["status"]["user"]["username"], "jane");
    let review =
        post(&server, "/apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": {"token": "wrong"}}))
            .await;
    assert_eq!(review.body["status"].get("authenticated"), None);
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let review =
        post(&server, path, json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}))
            .await;
    assert_eq!(review.body["status"]["allowed"], true, "{}", review.body);
    assert_eq!(post(&server, path, json!({"spec": {}})).await.status, 422);
    assert_eq!(get(&server, path).await.status, 405);
}

#[tokio::test]
async fn a_caller_may_act_as_somebody_else() {
    let server = with_token();
    let review = |user: Option<&str>, group: &str| {
        let mut request = Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews");
        if let Some(user) = user {
            request = request.header("impersonate-user", user);
        }
        let request = request.header("impersonate-group", group).header("content-type", "application/json");
        let service = server.service();
        let body = kube::client::Body::from(b"{}".to_vec());
        async move {
            let response = service.oneshot(request.body(body).unwrap()).await.unwrap();
            let status = response.status();
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            (status, serde_json::from_slice::<Value>(&bytes).unwrap())
        }
    };
    let (status, body) = review(Some("joe"), "devs").await;
    assert_eq!(status, 201);
    assert_eq!(
        body["status"]["userInfo"],
        json!({"username": "joe", "groups": ["devs", "system:authenticated"]})
    );
    assert_eq!(review(None, "devs").await.0, 400);
}

#[test]
fn options_do_not_print_their_tokens() {
    let options = Options { tokens: BTreeMap::from([("right".into(), "jane".into())]), ..Options::default() };
    let printed = format!("{options:?}");
    assert!(printed.contains("jane") && !printed.contains("right"), "{printed}");
}

#[tokio::test]
async fn probes_need_no_token() {
    let server = with_token();
    let (address, cancel, task) = run(server.bind(LOCALHOST.into(), None).await.unwrap());
    let probe = |path: &str| Request::get(path).body(Vec::new()).unwrap();
    let open = client(address, None, None);
    assert_eq!(open.request_text(probe("/readyz")).await.unwrap(), "ok");
    assert!(open.request_text(probe("/api")).await.is_err());
    cancel.cancel();
    ended(task).await;
}
