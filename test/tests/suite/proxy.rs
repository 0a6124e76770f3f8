//! The API of agents' clusters through the principal: clients with certificates and tokens as users have them, over TLS, and
//! clusters as embedded API servers, or as servers of the test's own where those cannot do a thing.

mod backend;
mod faults;
mod go_agents;
mod go_peers;
mod go_principals;
mod hostile;
mod passes;
mod policy;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tiphys_shared::process::clock;

use self::backend::Backend;
use super::fleet::{DAY, Fleet};

/// Somebody with a kubeconfig.
#[derive(Clone, Default)]
struct User<'a> {
    /// Common name of the client certificate.
    name: &'a str,
    token: Option<String>,
    /// What the server's URL ends with.
    path: &'a str,
}

impl User<'_> {
    async fn client(&self, fleet: &Fleet) -> Client {
        let material = fleet.ca.issue_client::<&str>(self.name, &[], clock::now(), DAY).unwrap();
        let mut user = json!({
            "client-certificate-data": STANDARD.encode(&material.chain),
            "client-key-data": STANDARD.encode(material.key.expose()),
        });
        if let Some(token) = &self.token {
            user["token"] = json!(token);
        }
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {
                "server": format!("https://{}{}", fleet.proxy, self.path),
                "certificate-authority-data": STANDARD.encode(fleet.ca.certificate_pem()),
            }}],
            "users": [{"name": "proxy", "user": user}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        });
        let config = Kubeconfig::from_yaml(&config.to_string()).unwrap();
        let mut config =
            kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
        config.read_timeout = None;
        // What the proxy answers is looked at, and not what comes of asking again.
        config.default_retry = false;
        Client::try_from(config).unwrap()
    }
}

/// A fleet with an agent in front of a cluster of the test's own.
async fn with_backend() -> (Fleet, Backend) {
    let backend = Backend::start().await;
    let mut fleet = Fleet::embedded(&["edge"]).await;
    fleet.kill_agent("edge");
    fleet.served.api_server = Some(backend.api_server());
    fleet.start_agent("edge");
    (fleet, backend)
}

/// A client with the certificate of an agent, which reaches its cluster.
pub(super) async fn client_of(fleet: &Fleet, agent: &str) -> Client {
    let client = User { name: agent, ..User::default() }.client(fleet).await;
    until_served(&client).await;
    client
}

/// Waits until the agent's tunnel is open.
async fn until_served(client: &Client) {
    Fleet::until("the tunnel", async || {
        let (status, _) = get(client, "/version").await;
        (status == 200).then_some(())
    })
    .await;
}

fn request(method: Method, path: &str, body: impl Into<Vec<u8>>) -> Request<Body> {
    let body: Vec<u8> = body.into();
    Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(Body::from(body))
        .unwrap()
}

/// Status and body of an answer.
async fn read(response: Response<Body>) -> (u16, Value) {
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::String(text)))
}

async fn get(client: &Client, path: &str) -> (u16, Value) {
    read(client.send(request(Method::GET, path, "")).await.unwrap()).await
}

/// A config map with some data.
fn config_map(name: &str, data: &[(&str, &str)]) -> Value {
    let data: BTreeMap<_, _> = data.iter().copied().collect();
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}
