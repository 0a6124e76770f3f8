use super::*;
use crate::Definitions;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;

const CRDS: &[&str] = &[
    include_str!("../../../manifests/crds/applications.yaml"),
    include_str!("../../../manifests/crds/applicationsets.yaml"),
    include_str!("../../../manifests/crds/appprojects.yaml"),
];

fn argo_cd() -> Definitions {
    Definitions::parse(&CRDS.join("\n---\n")).unwrap()
}

fn repeatable(definitions: &Definitions) -> ApiServer {
    let definitions = definitions.clone();
    ApiServer::new(Options { definitions, start: Some(Timestamp::UNIX_EPOCH), ..Options::default() })
}

fn data(server: &ApiServer, path: &str) -> impl Future<Output = http_body_util::Collected<bytes::Bytes>> {
    let service = server.service();
    let request = Request::get(path).body(kube::client::Body::empty()).unwrap();
    async move { service.oneshot(request).await.unwrap().into_body().collect().await.unwrap() }
}

/// Everything that a small history shows, byte by byte.
async fn history(seed: u64, definitions: &Definitions) -> Vec<String> {
    fastrand::seed(seed);
    let server = repeatable(definitions);
    let mut seen = Vec::new();
    for n in 0..20 {
        let prefix =
            json!({"metadata": {"generateName": format!("m{}-", n % 7)}, "data": {"n": n.to_string()}});
        seen.push(post(&server, MAPS, prefix).await.body.to_string());
        tokio::time::advance(Duration::from_millis(700)).await;
    }
    for path in [
        "/api/v1/configmaps?watch=true&timeoutSeconds=5",
        "/api/v1/configmaps?limit=3",
        "/api/v1/configmaps",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        "/apis/argoproj.io/v1alpha1",
        "/openapi/v3/apis/argoproj.io/v1alpha1",
        "/openapi/v2",
        "/apis",
    ] {
        seen.push(String::from_utf8(data(&server, path).await.to_bytes().to_vec()).unwrap());
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn one_seed_gives_one_history_and_another_seed_another() {
    let definitions = argo_cd();
    let first = history(1, &definitions).await;
    assert_eq!(first, history(1, &definitions).await);
    assert_ne!(first, history(2, &definitions).await);
    let made: Value = serde_json::from_str(&first[0]).unwrap();
    let uid: uuid::Uuid = made["metadata"]["uid"].as_str().unwrap().parse().unwrap();
    assert_eq!(uid.get_version_num(), 4);
    assert_eq!(made["metadata"]["creationTimestamp"], "1970-01-01T00:00:00Z");
}

#[tokio::test(start_paused = true)]
async fn a_watch_without_a_time_ends_by_the_clock_of_the_runtime() {
    let server = server();
    let begun = tokio::time::Instant::now();
    data(&server, "/api/v1/configmaps?watch=true").await;
    let lasted = begun.elapsed();
    assert!((1800..3601).contains(&lasted.as_secs()), "{lasted:?}");
}

#[tokio::test]
async fn definitions_read_once_are_served_by_many_servers() {
    let definitions = argo_cd();
    assert_eq!(
        definitions.names().collect::<Vec<_>>(),
        ["applications.argoproj.io", "applicationsets.argoproj.io", "appprojects.argoproj.io"]
    );
    let (one, other) = (repeatable(&definitions), repeatable(&definitions));
    let resource = |server: &ApiServer| server.inner.find("argoproj.io", "v1alpha1", "applications").unwrap();
    assert!(Arc::ptr_eq(&resource(&one), &resource(&other)));

    // As if they had been installed into each.
    let installed = server();
    for crd in CRDS {
        installed.install_crds(crd).unwrap();
    }
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/applications.argoproj.io";
    let plain = |mut object: Value| {
        for field in ["uid", "creationTimestamp"] {
            assert!(object["metadata"][field].is_string());
            object["metadata"][field] = Value::Null;
        }
        for condition in object["status"]["conditions"].as_array_mut().unwrap() {
            assert!(condition["lastTransitionTime"].is_string());
            condition["lastTransitionTime"] = Value::Null;
        }
        object["metadata"]["resourceVersion"] = Value::Null;
        object
    };
    let (ours, theirs) = (get(&one, path).await.body, get(&installed, path).await.body);
    assert_ne!(ours["metadata"]["uid"], get(&other, path).await.body["metadata"]["uid"]);
    assert_eq!(plain(ours), plain(theirs));

    // One can lose its definition, and the other keeps it.
    assert_eq!(delete(&one, path, Value::Null).await.status, 200);
    assert_eq!(get(&one, "/apis/argoproj.io/v1alpha1/applications").await.status, 404);
    assert_eq!(get(&other, "/apis/argoproj.io/v1alpha1/applications").await.status, 200);
    assert!(Definitions::parse("kind: Secret").is_err());
}

#[tokio::test]
async fn a_server_that_is_let_go_leaves_nothing() {
    let definitions = argo_cd();
    let server = repeatable(&definitions);
    let left = Arc::downgrade(&server.inner);
    let resources = server.inner.find("argoproj.io", "v1alpha1", "applications").unwrap();
    let client = server.client();
    post(&server, MAPS, config_map("a", json!({"k": "v"}))).await;
    let request = Request::get("/api/v1/configmaps?watch=true").body(kube::client::Body::empty()).unwrap();
    let watch = server.service().oneshot(request).await.unwrap();
    drop((client, watch, server));
    // The buffer in front of a client's service is a task, which ends when it sees that nobody is left.
    for _ in 0..100 {
        if left.strong_count() == 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(left.strong_count(), 0);
    drop(definitions);
    assert_eq!(Arc::strong_count(&resources), 1);
}
