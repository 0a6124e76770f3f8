//! The server as its clients see it, in process.

mod controllers;
mod definitions;
mod deletion;
mod histories;
mod kept;
mod lists;
mod repeatable;
mod sockets;
mod watches;
mod writes;

use crate::{ApiServer, Options};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, PostParams};
use serde_json::{Value, json};
use tower::ServiceExt;

fn server() -> ApiServer {
    fastrand::seed(7);
    ApiServer::new(Options::default())
}

/// An answer, read whole.
struct Reply {
    status: StatusCode,
    headers: http::HeaderMap,
    body: Value,
}

async fn send(server: &ApiServer, method: Method, path: &str, content_type: &str, body: Value) -> Reply {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", content_type)
        .body(kube::client::Body::from(if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        }))
        .unwrap();
    let response = server.service().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
    Reply { status: head.status, headers: head.headers, body }
}

async fn get(server: &ApiServer, path: &str) -> Reply {
    send(server, Method::GET, path, "application/json", Value::Null).await
}

async fn post(server: &ApiServer, path: &str, body: Value) -> Reply {
    send(server, Method::POST, path, "application/json", body).await
}

async fn put(server: &ApiServer, path: &str, body: Value) -> Reply {
    send(server, Method::PUT, path, "application/json", body).await
}

async fn merge(server: &ApiServer, path: &str, body: Value) -> Reply {
    send(server, Method::PATCH, path, "application/merge-patch+json", body).await
}

async fn delete(server: &ApiServer, path: &str, body: Value) -> Reply {
    send(server, Method::DELETE, path, "application/json", body).await
}

fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

const THINGS: &str = "/apis/example.com/v1/namespaces/default/things";

/// A definition with a status subresource, a required field, defaults and printer columns.
fn thing_definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "shortNames": ["th"]},
            "versions": [{
                "name": "v1",
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                    {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
                ],
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "required": ["spec"],
                    "properties": {
                        "spec": {
                            "type": "object",
                            "required": ["size"],
                            "properties": {
                                "size": {"type": "integer", "minimum": 1},
                                "colour": {"type": "string", "default": "red"},
                            },
                        },
                        "status": {
                            "type": "object",
                            "properties": {"phase": {"type": "string"}},
                        },
                    },
                }},
            }],
        },
    })
}

fn thing(name: &str, size: i64) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": name}, "spec": {"size": size}})
}

async fn server_with_things() -> ApiServer {
    let server = server();
    server.install_crds(&thing_definition().to_string()).unwrap();
    server
}

fn things(client: kube::Client) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Thing"));
    Api::namespaced_with(client, "default", &kind)
}

#[tokio::test]
async fn a_kube_client_works_without_a_socket() {
    use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
    let client = server().client();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let names: Vec<String> = namespaces
        .list(&Default::default())
        .await
        .unwrap()
        .items
        .into_iter()
        .filter_map(|n| n.metadata.name)
        .collect();
    assert_eq!(names, ["default", "kube-node-lease", "kube-public", "kube-system"]);
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let map: ConfigMap = serde_json::from_value(config_map("a", json!({"k": "v"}))).unwrap();
    let created = maps.create(&PostParams::default(), &map).await.unwrap();
    assert_eq!(maps.get("a").await.unwrap(), created);
    assert!(created.metadata.uid.is_some());
    maps.delete("a", &Default::default()).await.unwrap();
    let error = maps.get("a").await.unwrap_err();
    let kube::Error::Api(status) = error else { panic!("{error}") };
    assert_eq!((status.code, status.reason.as_str()), (404, "NotFound"));
    assert_eq!(status.message, "configmaps \"a\" not found");
}

#[tokio::test]
async fn an_empty_server_takes_little_memory() {
    let server = server();
    let kept: usize = {
        let snapshot = server.inner.store.snapshot("/namespaces", None).unwrap();
        snapshot.range("/", None).map(|s| s.content.len()).sum()
    };
    assert!(kept < 4096, "{kept}");
}
