//! The helpers for API servers, on the embedded one.

use std::sync::Arc;

use kube::api::{Api, PostParams};
use kube::core::DynamicObject;
use serde_json::json;
use tiphys_apiserver::ApiServer;
use tiphys_shared::kube::backend::{Backend, Decision, Done};
use tiphys_shared::kube::informer::{Change, Informer, Scope};
use tiphys_shared::kube::kinds;
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Kind, Object, ResourceKey};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::fleet::{Cluster, Fleet, application, delete, merge};

fn server() -> ApiServer {
    match Cluster::embedded() {
        Cluster::Embedded(server) => server,
    }
}

fn applications(server: &ApiServer) -> Api<DynamicObject> {
    kinds::api(&server.client(), Kind::Application, Some("default"))
}

fn key(name: &str) -> ResourceKey {
    ResourceKey::new(Kind::Application, "default", name)
}

fn scope() -> Scope {
    Scope { kind: Kind::Application, namespace: None, labels: None }
}

fn told(change: &Change) -> String {
    match change {
        Change::Applied { old: None, new } => format!("new {}", new.name()),
        Change::Applied { new, .. } => format!("changed {}", new.name()),
        Change::Gone(last) => format!("gone {}", last.name()),
    }
}

async fn hear(changes: &mut mpsc::UnboundedReceiver<String>) -> String {
    tokio::time::timeout(std::time::Duration::from_secs(30), changes.recv())
        .await
        .expect("nothing was told")
        .unwrap()
}

#[tokio::test]
async fn an_informer_tells_every_change_once() {
    let server = server();
    let api = applications(&server);
    api.create(&PostParams::default(), &application("before", "main")).await.unwrap();
    let informer = Informer::new(&server.client(), scope());
    let store = informer.store();
    let (sender, mut changes) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let task = tokio::spawn({
        let (stop, sender) = (stop.clone(), sender.clone());
        async move { informer.run(stop, move |change| sender.send(told(&change)).unwrap()).await }
    });
    store.synced().await;
    assert_eq!(hear(&mut changes).await, "new before");
    merge(&api, "before", json!({"spec": {"project": "x"}})).await;
    assert_eq!(hear(&mut changes).await, "changed before");
    assert_eq!(store.get(&key("before")).unwrap().at(&["spec", "project"]), Some(&json!("x")));
    api.create(&PostParams::default(), &application("doomed", "main")).await.unwrap();
    assert_eq!(hear(&mut changes).await, "new doomed");
    delete(&api, "doomed").await;
    assert_eq!(hear(&mut changes).await, "gone doomed");
    assert!(store.get(&key("doomed")).is_none());
    stop.cancel();
    task.await.unwrap();
    assert!(changes.try_recv().is_err(), "something was told twice");
}

/// Serves on an address until the token is cancelled.
async fn serve(
    server: &ApiServer,
    address: std::net::SocketAddr,
) -> (std::net::SocketAddr, CancellationToken) {
    let stop = CancellationToken::new();
    let bound = Fleet::until("the port", async || server.bind(address, None).await.ok()).await;
    let address = bound.local_addr();
    tokio::spawn(bound.run(stop.clone()));
    (address, stop)
}

#[tokio::test]
async fn what_vanished_and_came_while_the_watch_was_down_is_told() {
    let server = server();
    let api = applications(&server);
    for name in ["kept", "doomed"] {
        api.create(&PostParams::default(), &application(name, "main")).await.unwrap();
    }
    let (address, serving) = serve(&server, ([127, 0, 0, 1], 0).into()).await;
    let config = kube::Config::new(format!("http://{address}").parse().unwrap());
    let informer = Informer::new(&kube::Client::try_from(config).unwrap(), scope());
    let store = informer.store();
    let (sender, mut changes) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { informer.run(stop, move |change| sender.send(told(&change)).unwrap()).await }
    });
    store.synced().await;
    let mut first = [hear(&mut changes).await, hear(&mut changes).await];
    first.sort();
    assert_eq!(first, ["new doomed", "new kept"]);

    serving.cancel();
    delete(&api, "doomed").await;
    delete(&api, "kept").await;
    api.create(&PostParams::default(), &application("kept", "again")).await.unwrap();
    api.create(&PostParams::default(), &application("fresh", "main")).await.unwrap();
    // Nobody can watch on from before.
    server.compact();
    let (_, serving) = serve(&server, address).await;
    let mut then = Vec::new();
    while then.len() < 4 {
        then.push(hear(&mut changes).await);
    }
    assert!(
        then.iter().position(|word| word == "gone kept") < then.iter().position(|word| word == "new kept")
    );
    then.sort();
    assert_eq!(then, ["gone doomed", "gone kept", "new fresh", "new kept"]);
    stop.cancel();
    running.await.unwrap();
    serving.cancel();
}

#[tokio::test]
async fn what_was_written_here_is_no_news_and_what_others_changed_meanwhile_is() {
    let server = server();
    let api = applications(&server);
    let client = server.client();
    let created = api.create(&PostParams::default(), &application("a", "main")).await.unwrap();
    let informer = Informer::new(&client, scope());
    let store = informer.store();
    let (sender, mut changes) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { informer.run(stop, move |change| sender.send(told(&change)).unwrap()).await }
    });
    store.synced().await;
    assert_eq!(hear(&mut changes).await, "new a");

    // A write based on something that the watch has not told yet is not taken in: the other's change must be told.
    let stale = created.resource_version().to_owned();
    let mut theirs = (*store.get(&key("a")).unwrap()).clone();
    theirs.metadata.resource_version = Some("999999".into());
    store.wrote(&Done::Updated { from: format!("{stale}0"), object: Arc::new(theirs.clone()) });
    assert_ne!(store.get(&key("a")).unwrap().resource_version(), "999999");
    store.wrote(&Done::Updated { from: stale, object: Arc::new(theirs) });
    assert_eq!(store.get(&key("a")).unwrap().resource_version(), "999999");
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_backend_writes_nothing_when_nothing_changes_and_decides_again_on_what_is_new() {
    let server = server();
    let api = applications(&server);
    let backend = Backend::new(server.client());
    let wanted = |existing: Option<&Object>| match existing {
        None => {
            let mut object = application("a", "wanted");
            object.metadata.namespace = Some("default".into());
            Decision::Create(Box::new(object))
        }
        Some(existing) if existing.data["spec"]["source"]["targetRevision"] == "wanted" => Decision::Nothing,
        Some(existing) => {
            let mut next = existing.clone();
            next.data["spec"]["source"]["targetRevision"] = json!("wanted");
            Decision::Replace(Box::new(next))
        }
    };
    assert!(matches!(backend.reconcile(&key("a"), None, wanted).await.unwrap(), Done::Created(_)));
    let revision = server.revision();
    // What it is told to start from may be wrong: then it looks.
    assert_eq!(backend.reconcile(&key("a"), None, wanted).await.unwrap(), Done::Unchanged);
    let current = backend.get(&key("a")).await.unwrap();
    assert_eq!(backend.reconcile(&key("a"), current.clone(), wanted).await.unwrap(), Done::Unchanged);
    assert_eq!(server.revision(), revision, "something was written");

    merge(
        &api,
        "a",
        json!({"spec": {"source": {"targetRevision": "other"}}, "metadata": {"labels": {"their": "label"}}}),
    )
    .await;
    let mut stale = (*current.unwrap()).clone();
    stale.data["spec"]["source"]["targetRevision"] = json!("older");
    let done = backend.reconcile(&key("a"), Some(Arc::new(stale)), wanted).await.unwrap();
    let Done::Updated { object, .. } = done else { panic!("{done:?}") };
    assert_eq!(object.label("their"), Some("label"), "a conflicting change was overwritten");

    let gone = |existing: Option<&Object>| existing.map_or(Decision::Nothing, |_| Decision::Delete);
    assert_eq!(backend.reconcile(&key("a"), Some(object), gone).await.unwrap(), Done::Deleted);
    assert_eq!(backend.reconcile(&key("a"), None, gone).await.unwrap(), Done::Unchanged);
}
