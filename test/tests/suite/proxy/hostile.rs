//! What somebody sends who means no good.

use http::HeaderValue;
use http::header::{AUTHORIZATION, CONNECTION, COOKIE};
use rustls::pki_types::ServerName;
use tiphys_shared::model::AgentName;
use tiphys_shared::security::tls::{Alpn, ClientTls, Material, Policy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_reaches_another_agent_than_the_credentials_allow() {
    let fleet = Fleet::embedded(&["core", "edge-1"]).await;
    for name in ["core", "edge-1"] {
        client_of(&fleet, name).await;
        let maps = format!("/api/v1/namespaces/{}/configmaps", fleet.namespace);
        let create = request(Method::POST, &maps, config_map("whose", &[("agent", name)]).to_string());
        fleet.cluster(name).client().send(create).await.unwrap();
    }
    let token = |agent: &str| {
        let agent = AgentName::new(agent).unwrap();
        Some(fleet.issuer.issue_resource_proxy(&agent, clock::now()).unwrap())
    };
    let user = |name, token, path| User { name, token, path };
    let object = format!("/api/v1/namespaces/{}/configmaps/whose", fleet.namespace);
    // Whose object, or which refusal, each gets.
    for (user, query, expected) in [
        (user("core", None, ""), "", "core"),
        (user("core", None, ""), "?agentName=core", "core"),
        (user("core", None, "/agents/core"), "", "core"),
        (user("shared", token("edge-1"), ""), "", "edge-1"),
        (user("shared", token("edge-1"), "/agents/edge-1"), "?agentName=edge-1", "edge-1"),
        (user("alice", None, "/agents/core"), "", "core"),
        (user("alice", None, ""), "?agentName=edge-1", "edge-1"),
        (user("bob", None, "/agents/edge-1"), "", "edge-1"),
        (user("bob", None, "/agents/core"), "", "403"),
        (user("core", None, ""), "?agentName=edge-1", "403"),
        (user("core", None, "/agents/edge-1"), "", "403"),
        (user("core", None, "/agents/core"), "?agentName=edge-1", "400"),
        (user("core", token("edge-1"), "/agents/core"), "", "403"),
        (user("alice", None, ""), "", "400"),
        (user("alice", None, "/agents/core"), "?agentName=edge-1", "400"),
        (user("alice", None, "/agents/nobody"), "", "502"),
        (user("core", Some("nonsense".to_owned()), ""), "", "401"),
        (user("core", Some(fleet.access_token("core")), ""), "", "401"),
        (user("", None, ""), "", "401"),
        (user("nobody", None, ""), "", "502"),
        (user("Not An Agent", None, ""), "", "401"),
    ] {
        let what = format!("{} {} {query}", user.name, user.path);
        let (status, answer) = get(&user.client(&fleet).await, &format!("{object}{query}")).await;
        match expected.parse::<u16>() {
            Ok(refused) => {
                assert_eq!((status, &answer["kind"]), (refused, &json!("Status")), "{what}: {answer}");
            }
            Err(_) => assert_eq!(answer["data"]["agent"], expected, "{what}: {answer}"),
        }
    }
    assert!(fleet.figure("argocd_principal_resource_proxy_errors_total") >= 13);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_the_callers_credentials_reaches_the_cluster() {
    let (fleet, _backend) = with_backend().await;
    let client = client_of(&fleet, "edge").await;
    let path = "/api/v1/namespaces/a/pods/p/proxy/head?agentName=edge&x=1";
    let mut asked = request(Method::GET, path, "");
    let headers = asked.headers_mut();
    headers.insert(AUTHORIZATION, HeaderValue::from_static("Basic aGFja2VyOmhhY2tlcg=="));
    headers.insert(COOKIE, HeaderValue::from_static("session=stolen"));
    headers.insert(CONNECTION, HeaderValue::from_static("tiphys-user, audit-id, x-kept"));
    for name in
        ["tiphys-user", "tiphys-group", "tiphys-method", "x-remote-user", "x-remote-group", "audit-id"]
    {
        headers.insert(name, HeaderValue::from_static("admin"));
    }
    headers.insert("x-forwarded-for", HeaderValue::from_static("10.0.0.1"));
    headers.insert("x-kept", HeaderValue::from_static("named by Connection"));
    headers.insert("accept", HeaderValue::from_static("text/anything"));
    let answer = client.send(asked).await.unwrap();
    let id = answer.headers()["audit-id"].to_str().unwrap().to_owned();
    let (status, seen) = read(answer).await;
    assert_eq!(status, 200);
    assert_ne!(id, "admin");
    assert_eq!(seen["audit-id"], json!([id]));
    assert_eq!(seen["x-forwarded-for"], json!(["127.0.0.1"]));
    assert_eq!(seen["accept"], json!(["text/anything"]));
    assert_eq!(seen[":target"], "/api/v1/namespaces/a/pods/p/proxy/head?x=1");
    // agent:secret, which are the agent's own.
    assert_eq!(seen["authorization"], json!(["Basic YWdlbnQ6c2VjcmV0"]));
    let leaked: Vec<&String> = seen
        .as_object()
        .unwrap()
        .keys()
        .filter(|name| {
            name.starts_with("tiphys-")
                || name.starts_with("x-remote")
                || *name == "cookie"
                || *name == "x-kept"
        })
        .collect();
    assert!(leaked.is_empty(), "{leaked:?}");

    // Who asks to be somebody else must not get what he himself may have.
    let mut asked = request(Method::GET, path, "");
    asked.headers_mut().insert("impersonate-user", HeaderValue::from_static("bob"));
    let (status, refused) = read(client.send(asked).await.unwrap()).await;
    assert_eq!((status, &refused["reason"]), (403, &json!("Forbidden")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_could_be_understood_in_two_ways_is_refused() {
    let fleet = Fleet::embedded(&["edge"]).await;
    let client = client_of(&fleet, "edge").await;
    let huge = "x".repeat(100_000);
    let second = "GET /api/v1/namespaces HTTP/1.1\r\nHost: a\r\n\r\n";
    for (what, head, body, expected) in [
        (
            "both lengths",
            "POST /api/v1/namespaces",
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "both lengths, swapped",
            "POST /api/v1/namespaces",
            "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "two lengths",
            "POST /api/v1/namespaces",
            "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
            400,
        ),
        ("another encoding", "POST /api/v1/namespaces", "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        ("a length with a sign", "POST /api/v1/namespaces", "Content-Length: +5\r\n\r\nabcde", 400),
        ("a space before the colon", "GET /api", "Content-Length : 5\r\n\r\nabcde", 400),
        ("a bare line feed", "GET /api", "X: a\nTransfer-Encoding\t: chunked\r\n\r\n", 400),
        ("dots", "GET /api/v1/../../metrics", "\r\n", 400),
        ("encoded dots", "GET /api/v1/%2e%2e/nodes", "\r\n", 400),
        ("an encoded slash", "GET /api/v1/namespaces/a%2fpods", "\r\n", 400),
        ("a null", "GET /api/v1/namespaces/a%00", "\r\n", 400),
        ("two slashes", "GET //api", "\r\n", 400),
        ("a star", "OPTIONS *", "\r\n", 400),
        ("a method of no use", "TRACE /api", "\r\n", 400),
        (
            "an upgrade with a body",
            "POST /api/v1/namespaces/a/pods/p/exec",
            "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 5\r\n\r\nabcde",
            400,
        ),
        ("a huge header", "GET /api", &format!("X: {huge}\r\n\r\n"), 431),
        ("many headers", "GET /api", &format!("{}\r\n", "A: b\r\n".repeat(1000)), 431),
        ("a huge path", &format!("GET /{huge}"), "\r\n", 431),
    ] {
        let text = format!("{head} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{body}");
        // "Connection" may be there twice: both count.
        let said = say(&fleet, "edge", &text).await;
        let status = said.split(' ').nth(1).and_then(|status| status.parse().ok());
        assert!(
            status == Some(expected) || (expected == 431 && status == Some(414)),
            "{what}: {}",
            said.lines().next().unwrap_or("nothing")
        );
    }
    // A body that looks like a request is a body.
    let text = format!(
        "GET /version HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{second}",
        second.len()
    );
    assert_eq!(say(&fleet, "edge", &text).await.matches("HTTP/1.1 ").count(), 1);
    // The host that a request names is nobody's.
    let text = "GET http://metadata.internal/version HTTP/1.1\r\nHost: metadata.internal\r\nConnection: close\r\n\r\n";
    assert!(say(&fleet, "edge", text).await.starts_with("HTTP/1.1 200"));
    assert_eq!(get(&client, "/version").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_port_is_counted_and_costs_nobody_anything() {
    let fleet = Fleet::embedded(&["edge"]).await;
    let client = client_of(&fleet, "edge").await;
    let before = fleet.figure("argocd_principal_resource_proxy_errors_total");
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 100], b"\x16\x03\x01\xff\xff", b"SSH-2.0-x\r\n"] {
        let mut stream = TcpStream::connect(fleet.proxy).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        // An alert, or nothing; then the end.
        _ = stream.read_to_end(&mut Vec::new()).await;
    }
    // Without a certificate nobody gets in, and garbage after the handshake gets nowhere.
    let tls = ClientTls::new(
        &Material::ca_only(fleet.ca.certificate_pem()),
        Policy { alpn: Alpn::Http1, ..Policy::default() },
        false,
    )
    .unwrap();
    assert!(converse(&fleet, tls, b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n").await.is_empty());
    let said = say(&fleet, "edge", "\u{1}\u{2}\u{3}\r\n\r\n").await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 400"), "{said}");
    Fleet::until("the counter", async || {
        let after = fleet.figure("argocd_principal_resource_proxy_errors_total");
        (after >= before + 5).then_some(())
    })
    .await;
    assert_eq!(get(&client, "/version").await.0, 200);
}

/// Says `text` to the proxy with the certificate of `name`, and tells all that it says.
async fn say(fleet: &Fleet, name: &str, text: &str) -> String {
    let material = fleet.ca.issue_client::<&str>(name, &[], clock::now(), DAY).unwrap();
    let material = Material { ca: fleet.ca.certificate_pem().as_bytes().to_vec(), ..material };
    let policy = Policy { alpn: Alpn::Http1, ..Policy::default() };
    converse(fleet, ClientTls::new(&material, policy, false).unwrap(), text.as_bytes()).await
}

async fn converse(fleet: &Fleet, tls: ClientTls, text: &[u8]) -> String {
    let stream = TcpStream::connect(fleet.proxy).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = TlsConnector::from(tls.current()).connect(name, stream).await.unwrap();
    // It may have hung up before all is said.
    _ = stream.write_all(text).await;
    _ = stream.flush().await;
    let mut said = Vec::new();
    _ = stream.read_to_end(&mut said).await;
    String::from_utf8_lossy(&said).into_owned()
}
