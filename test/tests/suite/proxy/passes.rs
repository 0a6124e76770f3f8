//! Whatever Kubernetes' API can do passes.

use futures::StreamExt as _;
use http::header::{CONNECTION, UPGRADE};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, ResourceExt as _, WatchEvent, WatchParams,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::backend::PIECES;
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_nothing_can_reach_is_used_like_any_other() {
    let fleet = Fleet::embedded(&["edge"]).await;
    let client = client_of(&fleet, "edge").await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &fleet.namespace);
    let direct: Api<ConfigMap> = Api::namespaced(fleet.cluster("edge").client(), &fleet.namespace);

    let map: ConfigMap = serde_json::from_value(config_map("one", &[("key", "value")])).unwrap();
    let created = maps.create(&PostParams::default(), &map).await.unwrap();
    assert_eq!(direct.get("one").await.unwrap().uid(), created.uid());
    assert_eq!(maps.get("one").await.unwrap(), direct.get("one").await.unwrap());
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 1);

    let version = created.resource_version().unwrap();
    let mut changes = maps.watch(&WatchParams::default(), &version).await.unwrap().boxed();
    let patch = Patch::Merge(json!({"data": {"key": "other"}}));
    let patched = maps.patch("one", &PatchParams::default(), &patch).await.unwrap();
    let Some(Ok(WatchEvent::Modified(seen))) = changes.next().await else { panic!("no change was seen") };
    assert_eq!(seen, patched);
    let apply = PatchParams::apply("me").force();
    let applied = maps.patch("two", &apply, &Patch::Apply(config_map("two", &[]))).await.unwrap();
    let Some(Ok(WatchEvent::Added(seen))) = changes.next().await else { panic!("no creation was seen") };
    assert_eq!(seen.uid(), applied.uid());
    // What changes at the cluster by other ways is seen as well.
    direct.delete("one", &DeleteParams::default()).await.unwrap();
    let Some(Ok(WatchEvent::Deleted(_))) = changes.next().await else { panic!("no deletion was seen") };

    let missing = maps.get("one").await.unwrap_err();
    let kube::Error::Api(status) = missing else { panic!("{missing}") };
    assert_eq!((status.code, status.reason.as_str()), (404, "NotFound"));
    let direct = fleet.cluster("edge").client();
    assert_eq!(client.apiserver_version().await.unwrap(), direct.apiserver_version().await.unwrap());
    let groups = client.list_api_groups().await.unwrap();
    assert_eq!(groups, direct.list_api_groups().await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_pass_whole_and_what_breaks_off_is_not_taken_for_whole() {
    let (fleet, backend) = with_backend().await;
    let client = client_of(&fleet, "edge").await;
    let answer = client.send(request(Method::GET, "/api/v1/configmaps", "")).await.unwrap();
    let (mut body, mut length) = (answer.into_body(), 0);
    while let Some(frame) = body.frame().await {
        length += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(length, PIECES * (64 << 10));

    let upload = request(Method::POST, "/api/v1/namespaces/a/pods/p/proxy/length", vec![b'y'; 10 << 20]);
    assert_eq!(read(client.send(upload).await.unwrap()).await, (200, json!(10 << 20)));

    let broken = client.send(request(Method::GET, "/api/v1/secrets", "")).await.unwrap();
    assert_eq!(broken.status(), 200);
    let mut body = broken.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half of ");
    backend.breaks.notify_one();
    assert!(body.frame().await.unwrap().is_err(), "half of an answer was taken for all of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_upgraded_and_end_one_direction_at_a_time() {
    let (fleet, _backend) = with_backend().await;
    let client = client_of(&fleet, "edge").await;
    for (method, protocol) in [(Method::POST, "SPDY/3.1"), (Method::GET, "websocket")] {
        let answer = client.send(exec("p", &method, protocol)).await.unwrap();
        assert_eq!(answer.status(), 101, "{protocol}");
        assert_eq!(answer.headers()[UPGRADE], protocol);
        assert_eq!(answer.headers()["x-stream-protocol-version"], "v4");
        let mut io = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
        let mut ready = [0; 5];
        io.read_exact(&mut ready).await.unwrap();
        io.write_all(&vec![b'z'; 3 << 20]).await.unwrap();
        io.shutdown().await.unwrap();
        let mut echo = Vec::new();
        io.read_to_end(&mut echo).await.unwrap();
        assert!(echo.len() == 3 << 20 && echo.iter().all(|byte| *byte == b'z'), "{} bytes", echo.len());
    }
    for (pod, status, text) in [("refused", 403, "not here"), ("plain", 200, "plain")] {
        let answer = client.send(exec(pod, &Method::POST, "SPDY/3.1")).await.unwrap();
        assert_eq!(read(answer).await, (status, json!(text)), "{pod}");
    }
    // To another protocol, requests could follow that nobody looks at.
    let (status, refused) = read(client.send(exec("p", &Method::GET, "h2c")).await.unwrap()).await;
    assert_eq!((status, &refused["reason"]), (400, &json!("BadRequest")), "{refused}");
}

fn exec(pod: &str, method: &Method, protocol: &str) -> Request<Body> {
    let mut request =
        request(method.clone(), &format!("/api/v1/namespaces/a/pods/{pod}/exec?command=sh"), "");
    request.headers_mut().insert(CONNECTION, "Upgrade".parse().unwrap());
    request.headers_mut().insert(UPGRADE, protocol.parse().unwrap());
    request
}
