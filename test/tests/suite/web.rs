//! The page about the fleet, as a browser and a program meet it.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tiphys_principal::Access;
use tiphys_shared::model::Kind;
use tiphys_shared::security::passwords::{self, Passwords};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::certificates::{Stage, figure};
use super::fleet::Fleet;

/// An answer: its status, its headers in small letters, and its body.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

async fn ask(fleet: &Fleet, method: &str, path: &str, headers: &str) -> Answer {
    ask_as("localhost", fleet.web.unwrap(), method, path, headers).await
}

async fn ask_as(host: &str, address: SocketAddr, method: &str, path: &str, headers: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

/// A fleet whose page is there for these.
async fn seen_by(viewers: Access) -> Fleet {
    let mut fleet = Fleet::embedded(&["edge", "far"]).await;
    fleet.kill_principal();
    fleet.viewers = Some(viewers);
    fleet.start_principal().await;
    fleet
}

/// A line of the password file.
fn line(user: &str, password: &str) -> String {
    format!("{user}:{}\n", passwords::hash(&password.into()).unwrap())
}

fn basic(user: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(user))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_for_everybody_and_the_fleet_for_those_with_a_password() {
    let users = Passwords::new("users", &line("ada", "secret").into()).unwrap();
    let fleet = seen_by(Access::passwords(users)).await;
    for (path, kind) in [("/", "text/html"), ("/fleet.js", "text/javascript"), ("/fleet.css", "text/css")] {
        let page = ask(&fleet, "GET", path, "").await;
        assert_eq!(page.status, 200, "{path}");
        assert!(page.head.contains(&format!("content-type: {kind}")), "{}", page.head);
        assert!(
            page.head.contains("content-security-policy: default-src 'none'; script-src 'self'"),
            "{}",
            page.head
        );
        let mut words = page.body.split(|c: char| !c.is_alphanumeric());
        assert!(!words.any(|word| word == "edge"), "{path} tells of the fleet");
        // What the policy would not let run or load.
        for inline in ["style=", "onclick", "javascript:", "http://", "https://", "<style", "innerHTML"] {
            assert!(!page.body.contains(inline), "{path} has {inline}");
        }
    }
    for (headers, status) in [
        (String::new(), 401),
        (basic("ada:wrong"), 401),
        (basic("bob:secret"), 401),
        (basic("ada:secret"), 200),
    ] {
        let answer = ask(&fleet, "GET", "/api/fleet", &headers).await;
        assert_eq!(answer.status, status, "{headers}");
        assert_eq!(answer.body.contains("\"agents\""), status == 200, "{}", answer.body);
        assert_eq!(answer.head.contains("www-authenticate: basic"), status == 401, "{}", answer.head);
    }
    let own = ask(&fleet, "GET", "/api/fleet", "X-Tiphys-Page: 1\r\n").await;
    assert!(!own.head.contains("www-authenticate: basic"), "a browser would ask by itself: {}", own.head);
    assert_eq!(own.json()["scheme"], "Basic");
    assert_eq!(ask(&fleet, "POST", "/api/fleet", &basic("ada:secret")).await.status, 405);
    assert_eq!(ask(&fleet, "GET", "/../etc/passwd", "").await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_server_says_who_may_look() {
    let tokens = [("good".to_owned(), "ada".to_owned())].into();
    let server = tiphys_apiserver::ApiServer::new(tiphys_apiserver::Options {
        tokens,
        ..tiphys_apiserver::Options::default()
    });
    let bound = server.bind(([127, 0, 0, 1], 0).into(), None).await.unwrap();
    let url = format!("http://{}", bound.local_addr()).parse().unwrap();
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio::spawn(bound.run(stop));
    let fleet = seen_by(Access::kubernetes(kube::Config::new(url))).await;
    for (token, status) in [("good", 200), ("forged", 401), ("", 401)] {
        let header = format!("Authorization: Bearer {token}\r\n");
        assert_eq!(ask(&fleet, "GET", "/api/fleet", &header).await.status, status, "{token:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_problems_and_certificates_are_shown_as_they_are() {
    let mut fleet = seen_by(Access::everybody()).await;
    let look = async |fleet: &Fleet| ask(fleet, "GET", "/api/fleet", "").await.json();
    fleet.create("edge", "guestbook").await;
    let here = fleet.at_cluster(Kind::Application, "edge");
    Fleet::until_is(&here, "guestbook", "the copy", |_| true).await;
    let shown = Fleet::until("the lag of the agent", async || {
        let shown = look(&fleet).await;
        shown["agents"][0]["lag_seconds"].is_number().then_some(shown)
    })
    .await;
    let edge = &shown["agents"][0];
    assert_eq!((&edge["name"], &edge["mode"]), (&json!("edge"), &json!("managed")));
    assert!(edge["connected_since"].is_string() && edge["disconnected_since"].is_null(), "{edge}");
    assert!(edge["version"] == "test" && edge["certificate_expiry"].is_string(), "{edge}");
    let names: Vec<_> =
        shown["certificates"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, ["server", "server-ca", "resource-proxy", "resource-proxy-ca"]);
    Fleet::until("the other agent", async || {
        look(&fleet).await["agents"][1]["connected_since"].is_string().then_some(())
    })
    .await;
    fleet.kill_agent("far");
    Fleet::until("the agent's absence", async || {
        let shown = look(&fleet).await;
        let far = &shown["agents"][1];
        (far["name"] == "far" && far["disconnected_since"].is_string()).then_some(())
    })
    .await;
    let rebound = ask_as("evil.example", fleet.web.unwrap(), "GET", "/api/fleet", "").await;
    assert_eq!(rebound.status, 421, "another name was taken for this host: {}", rebound.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_password_file_is_read_again_and_a_broken_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    std::fs::write(&file, line("ada", "secret")).unwrap();
    let named = format!("--web-passwords={}", file.display());
    let stage = Stage::start_with(&["--web-port=1", "--web-auth=password", &named], |config| {
        config.web.as_mut().unwrap().listen.set_port(0);
    })
    .await;
    let look = async |user: &str| {
        ask_as("localhost", stage.web.unwrap(), "GET", "/api/fleet", &basic(user)).await.status
    };
    let until = async |outcome: &str| {
        let labels = format!("kind=\"web-passwords\",outcome=\"{outcome}\"");
        Fleet::until(outcome, async || {
            (figure(&stage.figures, "tiphys_certificate_reloads_total", &labels) >= 1.0).then_some(())
        })
        .await;
    };
    assert_eq!((look("ada:secret").await, look("bob:other").await), (200, 401));
    std::fs::write(&file, format!("{}bob:$2y$10$cut", line("ada", "new"))).unwrap();
    until("refused").await;
    assert_eq!((look("ada:secret").await, look("ada:new").await), (200, 401));
    std::fs::write(&file, line("bob", "other")).unwrap();
    until("replaced").await;
    assert_eq!((look("ada:secret").await, look("bob:other").await), (401, 200));
    stage.end().await;
}
