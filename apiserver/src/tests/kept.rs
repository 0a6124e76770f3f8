//! Servers on a file: what is answered is kept, and what is not kept is not seen.

use super::*;
use crate::disk::tests::Platter;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn open(path: &Path) -> ApiServer {
    ApiServer::open(Options::default(), path.to_owned()).await.unwrap()
}

async fn on(platter: &Arc<Platter>) -> ApiServer {
    let (disk, loaded) = platter.open().unwrap();
    ApiServer::open_on(Options::default(), disk, loaded).await.unwrap()
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "1"}})
}

fn things() -> Value {
    json!({
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            }}}],
        },
    })
}

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const THINGS: &str = "/apis/example.com/v1/namespaces/default/things";

/// Everything that is in it.
async fn everything(server: &ApiServer) -> Vec<Value> {
    let mut all = Vec::new();
    for path in ["/api/v1/namespaces", "/api/v1/configmaps", DEFINITIONS, "/apis/example.com/v1/things"] {
        all.push(get(server, path).await.body);
    }
    all
}

#[tokio::test]
async fn a_server_goes_on_where_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let server = open(&path).await;
    assert_eq!(post(&server, DEFINITIONS, things()).await.status, 201);
    let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "one"}, "spec": {"n": 1}});
    assert_eq!(post(&server, THINGS, thing).await.status, 201);
    let first = post(&server, MAPS, map("first")).await.body;
    assert_eq!(post(&server, MAPS, map("gone")).await.status, 201);
    let gone = send(&server, Method::DELETE, &format!("{MAPS}/gone"), "application/json", Value::Null).await;
    assert_eq!(gone.status, 200);
    let before = everything(&server).await;
    let last = server.revision();
    drop(server);

    let server = open(&path).await;
    assert_eq!(everything(&server).await, before, "with uids, times and resource versions");
    assert_eq!(server.revision(), last, "nothing is written by starting");
    // What was watched up to the end goes on; what was not has to begin anew.
    let watch = |from: &str| format!("{MAPS}?watch=true&timeoutSeconds=1&resourceVersion={from}");
    let old = get(&server, &watch(first["metadata"]["resourceVersion"].as_str().unwrap())).await;
    assert_eq!(old.body["object"]["code"], 410, "{}", old.body);
    let task = {
        let (server, path) = (server.clone(), watch(&last.to_string()));
        tokio::spawn(async move { get(&server, &path).await })
    };
    let next = post(&server, MAPS, map("next")).await.body;
    let version: u64 = next["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    assert_eq!(version, last + 1);
    let seen = task.await.unwrap().body;
    assert_eq!((&seen["type"], &seen["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("next")));
}

#[tokio::test]
async fn definitions_of_the_options_are_installed_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let text = json!({"kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1",
        "metadata": things()["metadata"], "spec": things()["spec"]});
    let definitions = crate::Definitions::parse(&text.to_string()).unwrap();
    let options = || Options { definitions: definitions.clone(), ..Options::default() };
    let server = ApiServer::open(options(), path.clone()).await.unwrap();
    let made = get(&server, DEFINITIONS).await.body;
    assert_eq!(made["items"].as_array().unwrap().len(), 1);
    drop(server);
    let server = ApiServer::open(options(), path).await.unwrap();
    assert_eq!(get(&server, DEFINITIONS).await.body, made);
}

#[tokio::test]
async fn nobody_sees_what_is_not_on_disk_and_those_who_wait_share_the_effort() {
    let platter = Arc::<Platter>::default();
    let server = on(&platter).await;
    platter.close_gate();
    let create = |name: String| {
        let server = server.clone();
        tokio::spawn(async move { post(&server, MAPS, map(&name)).await })
    };
    let first = create("first".to_owned());
    tokio::task::yield_now().await;
    tokio::task::spawn_blocking({
        let platter = platter.clone();
        move || platter.wait_for_writer()
    })
    .await
    .unwrap();
    let revision = server.revision();
    let others: Vec<_> = (0..20).map(|n| create(format!("other-{n}"))).collect();
    // Writers see each other: this one is refused, but not before it is certain that the other one is kept.
    let same = create("first".to_owned());
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(get(&server, &format!("{MAPS}/first")).await.status, 404);
    assert_eq!(get(&server, MAPS).await.body["items"], json!([]));
    assert_eq!(server.revision(), revision);
    assert!(!first.is_finished() && !same.is_finished() && others.iter().all(|task| !task.is_finished()));
    let before = platter.syncs();
    platter.open_gate();
    assert_eq!(first.await.unwrap().status, 201);
    assert_eq!(same.await.unwrap().status, 409);
    for task in others {
        assert_eq!(task.await.unwrap().status, 201);
    }
    assert_eq!(get(&server, MAPS).await.body["items"].as_array().unwrap().len(), 21);
    let syncs = platter.syncs() - before;
    assert!(syncs <= 6, "22 writes took {syncs} syncs");
}

#[tokio::test]
async fn a_full_disk_refuses_and_takes_again_when_there_is_room() {
    let platter = Arc::<Platter>::default();
    let server = on(&platter).await;
    assert_eq!(post(&server, MAPS, map("before")).await.status, 201);
    let listed = everything(&server).await;
    platter.fail(Some(ErrorKind::StorageFull));
    let refused = post(&server, MAPS, map("refused")).await;
    assert_eq!(refused.status, 507, "{}", refused.body);
    let message = refused.body["message"].as_str().unwrap();
    assert!(message.contains("cannot be kept: platter cannot grow"), "{message}");
    assert_eq!(post(&server, DEFINITIONS, things()).await.status, 507);
    assert_eq!(get(&server, THINGS).await.status, 404, "what was lost is not served");
    let gone =
        send(&server, Method::DELETE, &format!("{MAPS}/before"), "application/json", Value::Null).await;
    assert_eq!(gone.status, 507);
    assert_eq!(everything(&server).await, listed);
    assert!(server.trouble().unwrap().contains("cannot grow"));

    platter.fail(None);
    // Nobody has to write for the trouble to end; this one may come before that is noticed.
    let taken = post(&server, MAPS, map("refused")).await;
    assert_eq!(taken.status, 201, "{}", taken.body);
    assert_eq!(server.trouble(), None);
    assert_eq!(post(&server, DEFINITIONS, things()).await.status, 201);
    assert_eq!(get(&server, THINGS).await.status, 200);
    let listed = everything(&server).await;
    drop(server);
    assert_eq!(everything(&on(&platter).await).await, listed);
}

#[tokio::test]
async fn after_a_broken_disk_only_a_restart_is_believed() {
    let platter = Arc::<Platter>::default();
    let server = on(&platter).await;
    assert_eq!(post(&server, MAPS, map("before")).await.status, 201);
    let listed = everything(&server).await;
    platter.fail(Some(ErrorKind::Other));
    assert_eq!(post(&server, MAPS, map("refused")).await.status, 500);
    platter.fail(None);
    let still = post(&server, MAPS, map("refused")).await;
    assert_eq!(still.status, 500, "{}", still.body);
    assert!(still.body["message"].as_str().unwrap().contains("until a restart"), "{}", still.body);
    assert_eq!(everything(&server).await, listed);
    drop(server);
    assert_eq!(everything(&on(&platter).await).await, listed);
}

#[tokio::test]
async fn controllers_do_again_what_was_lost() {
    let platter = Arc::<Platter>::default();
    let server = on(&platter).await;
    let stop = CancellationToken::new();
    assert_eq!(post(&server, "/api/v1/namespaces", json!({"metadata": {"name": "edge"}})).await.status, 201);
    assert_eq!(post(&server, "/api/v1/namespaces/edge/configmaps", map("inside")).await.status, 201);
    let edge = "/api/v1/namespaces/edge";
    let deleted = send(&server, Method::DELETE, edge, "application/json", Value::Null).await;
    assert_eq!(deleted.status, 200);
    platter.fail(Some(ErrorKind::StorageFull));
    let controllers = tokio::spawn(server.run_controllers(stop.clone()));
    while server.trouble().is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(get(&server, "/api/v1/namespaces/edge/configmaps/inside").await.status, 200);
    platter.fail(None);
    while get(&server, edge).await.status != 404 {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    controllers.await.unwrap();
}
