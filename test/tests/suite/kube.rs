//! The helpers for API servers, on the embedded one.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use kube::core::DynamicObject;
use serde_json::json;
use tiphys_apiserver::ApiServer;
use tiphys_shared::kube::backend::{Backend, Done};
use tiphys_shared::kube::informer::{Change, Informer, Scope};
use tiphys_shared::kube::kinds;
use tiphys_shared::kube::material::{Place, Places, Reader};
use tiphys_shared::kube::recorder::{self, Recorder};
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Kind, Object, ResourceKey};
use tiphys_shared::process::clock;
use tiphys_shared::protocol::ownership::Decision;
use tiphys_shared::security::pki::Ca;
use tiphys_shared::security::tls::{Material, Policy, ServerTls};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::fleet::{Cluster, DAY, Fleet, application, delete, merge};

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
    Scope { kind: Kind::Application, namespace: None, labels: None, fields: None }
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
    let began = store.moment();
    let stale = created.resource_version().to_owned();
    let mut theirs = (*store.get(&key("a")).unwrap()).clone();
    theirs.metadata.resource_version = Some("999999".into());
    store.wrote(&Done::Updated { from: format!("{stale}0"), object: Arc::new(theirs.clone()) }, began);
    assert_ne!(store.get(&key("a")).unwrap().resource_version(), "999999");
    store.wrote(&Done::Updated { from: stale, object: Arc::new(theirs) }, began);
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

#[tokio::test]
async fn certificates_are_taken_up_as_soon_as_their_secret_changes_and_bad_ones_are_not() {
    let server = server();
    let secrets: Api<Secret> = Api::namespaced(server.client(), "default");
    let ca = Ca::generate("test", clock::now(), DAY).unwrap();
    let content = |material: &Material| -> Secret {
        serde_json::from_value(json!({
            "metadata": {"name": "tls"},
            "stringData": {
                "tls.crt": String::from_utf8(material.chain.clone()).unwrap(),
                "tls.key": material.key.expose_str().unwrap(),
                "ca.crt": ca.certificate_pem(),
            },
        }))
        .unwrap()
    };
    let issue = |name: &str| ca.issue_server(&[name], clock::now(), DAY).unwrap();
    secrets.create(&PostParams::default(), &content(&issue("first"))).await.unwrap();
    let place = |keys| Some(Place::Secret { name: "tls".to_owned(), keys });
    let places = Places { chain: place(&["tls.crt"]), key: place(&["tls.key"]), ca: place(&["ca.crt"]) };
    let registry = prometheus::Registry::new();
    let stop = CancellationToken::new();
    let limits = Some(recorder::Limits::default());
    let recorder = Recorder::start(server.client(), "default", "test", limits, &registry, &stop).unwrap();
    let reader = Reader::new(server.client(), "default", recorder, &registry).unwrap();
    let known = reader.read_all(&places).await.unwrap();
    let tls = ServerTls::new(&known, Policy::default()).unwrap();
    let (sender, mut replaced) = mpsc::unbounded_channel();
    let replace = move |material: &Material| {
        let outcome = tls.replace(material);
        sender.send(format!("{} {}", material.leaf().unwrap().unwrap().subject, outcome.is_ok())).unwrap();
        outcome
    };
    reader.keep_current("server", places, known, &stop, replace);
    let put = async |secret: Secret| {
        let data = serde_json::to_value(&secret).unwrap()["stringData"].clone();
        let patch = kube::api::Patch::Merge(json!({"stringData": data}));
        secrets.patch("tls", &Default::default(), &patch).await.unwrap();
    };
    let second = issue("second");
    put(content(&second)).await;
    assert_eq!(hear(&mut replaced).await, "CN=second true");
    put(content(&Material { key: issue("other").key, ..issue("third") })).await;
    assert_eq!(hear(&mut replaced).await, "CN=third false");
    put(content(&issue("fourth"))).await;
    assert_eq!(hear(&mut replaced).await, "CN=fourth true");
    // One whose time is over, and a Secret that went away, are not even tried.
    let hour = std::time::Duration::from_secs(3600);
    let over = ca.issue_server(&["over"], clock::now() - 2 * hour, hour).unwrap();
    put(content(&over)).await;
    secrets.delete("tls", &Default::default()).await.unwrap();
    secrets.create(&PostParams::default(), &content(&issue("fifth"))).await.unwrap();
    assert_eq!(hear(&mut replaced).await, "CN=fifth true");

    let text = tiphys_shared::process::metrics::render(&registry).unwrap();
    assert!(text.contains("tiphys_certificate_reloads_total{kind=\"server\",outcome=\"refused\"}"), "{text}");
    let events: Api<k8s_openapi::api::core::v1::Event> = Api::namespaced(server.client(), "default");
    let event = Fleet::until("the event", async || {
        events.list(&Default::default()).await.ok()?.items.into_iter().find(|event| {
            event.involved_object.name.as_deref() == Some("tls")
                && event.reason.as_deref() == Some("CertificateRefused")
        })
    })
    .await;
    assert!(event.message.unwrap().contains("old one stays"), "the event does not say what is in use");
    stop.cancel();

    let missing = Place::Secret { name: "nowhere".to_owned(), keys: &["tls.crt"] };
    let problem = reader.read(&missing).await.unwrap_err();
    assert!(problem.what.contains("nowhere") && problem.remedy.contains("tls.crt"), "{problem}");
}
