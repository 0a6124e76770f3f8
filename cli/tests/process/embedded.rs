//! A control plane in a folder: it needs nothing else, and survives kill -9.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, ObjectMeta, Patch, PatchParams,
    PostParams, WatchEvent, WatchParams,
};
use kube::{Api, Client};
use serde_json::{Value, json};
use tiphys_shared::kube::client::{self, Access};
use tiphys_shared::process::clock;
use tiphys_shared::security::pki::Ca;
use tokio::sync::Notify;

use crate::serve::{Cluster, DAY, DEADLINE, Process, UNWATCHED, cluster};
use crate::tiphys;

/// Starts the principal on a folder.
pub(crate) fn principal(folder: &Path) -> Process {
    let line = [
        "principal",
        "--embedded",
        folder.to_str().unwrap(),
        "--embedded-listen-port=0",
        "--listen-port=0",
        "--resource-proxy-listen-port=0",
    ];
    Process::start(&[&line[..], &UNWATCHED].concat())
}

pub(crate) async fn connect(folder: &Path) -> Client {
    let access = Access { kubeconfig: Some(folder.join("kubeconfig")), context: None };
    client::connect(&access).await.unwrap()
}

pub(crate) fn argo(client: &Client, namespace: &str, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", kind));
    Api::namespaced_with(client.clone(), namespace, &resource)
}

pub(crate) fn application(name: &str) -> DynamicObject {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Application"));
    DynamicObject::new(name, &resource).data(json!({
        "spec": {
            "project": "default",
            "source": { "repoURL": "https://example.com/repository", "path": "." },
            "destination": { "name": "edge-1", "namespace": "app" },
        },
    }))
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

pub(crate) async fn create_namespace(client: &Client, name: &str) {
    let namespace = Namespace { metadata: named(name), ..Namespace::default() };
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
}

/// Gives the agent edge-1 what it needs, from the CA that the control plane has made.
async fn admit(control: &Client, edge: &Cluster) {
    let secrets: Api<Secret> = Api::namespaced(control.clone(), "argocd");
    let secret = secrets.get("argocd-agent-ca").await.unwrap().data.unwrap();
    let ca = Ca::from_pem(&secret["tls.crt"].0, &secret["tls.key"].0).unwrap();
    edge.create_secret("argocd-agent-ca", &[("ca.crt", ca.certificate_pem().as_bytes())]).await;
    let certificate = ca.issue_client::<&str>("edge-1", &[], clock::now(), DAY).unwrap();
    edge.create_pair("argocd-agent-client-tls", &certificate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_is_all_that_a_control_plane_needs() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("deep/control-plane");
    let mut process = principal(&folder);
    process.wait_for("control plane is served");
    let line: Value = serde_json::from_str(&process.wait_for("principal listens")).unwrap();
    let port = line["address"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();

    let control = connect(&folder).await;
    let edge = cluster(temporary.path(), "edge").await;
    admit(&control, &edge).await;
    let agent = edge.agent(&port, &[]);
    process.wait_for("agent connected");
    create_namespace(&control, "edge-1").await;
    argo(&control, "edge-1", "Application")
        .create(&PostParams::default(), &application("guestbook"))
        .await
        .unwrap();
    let arrived = edge.objects("argocd", "Application");
    let begin = Instant::now();
    while arrived.get_opt("guestbook").await.unwrap().is_none() {
        assert!(begin.elapsed() < DEADLINE, "it did not arrive:\n{}", agent.said.join("\n"));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }

    // Nobody else may have the folder, and nobody may look into it.
    let second = tiphys()
        .args(["principal", "--embedded", folder.to_str().unwrap(), "--listen-port=0"])
        .args(["--metrics-port=0", "--healthz-port=0", "--embedded-listen-port=0"])
        .output()
        .unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("is in use by another process") && said.contains("remedy:"), "{said}");
    let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap()).collect();
    assert_eq!(files.len(), 3, "{files:?}");
    for file in files {
        let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
        assert_eq!(mode & 0o077, 0, "{file:?}");
    }
    let access = Access { kubeconfig: Some(folder.join("kubeconfig")), context: None };
    let mut anonymous = client::configuration(&access).await.unwrap();
    anonymous.auth_info.token = None;
    let refused = client::client(anonymous).unwrap();
    let refused = Api::<Secret>::all(refused).list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 401), "{refused}");

    if let Some(kubectl) = kubectl() {
        let output = Command::new(kubectl)
            .arg("--kubeconfig")
            .arg(folder.join("kubeconfig"))
            .args(["get", "applications", "--all-namespaces", "--output", "name"])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "application.argoproj.io/guestbook\n");
    }

    let secrets: Api<Secret> = Api::namespaced(control.clone(), "argocd");
    let before = secrets.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(before.len(), 4, "CA, two certificates and a key");
    let token = std::fs::read_to_string(folder.join("kubeconfig")).unwrap();
    agent.signal("-TERM");
    process.signal("-TERM");
    assert_eq!(process.exit_code(), Some(0));

    let mut process = principal(&folder);
    process.wait_for("control plane is served");
    let again: Api<Secret> = Api::namespaced(connect(&folder).await, "argocd");
    assert_eq!(again.list(&ListParams::default()).await.unwrap().items, before);
    let line = |text: &str| text.lines().find(|line| line.contains("token:")).map(str::to_owned);
    let kept = std::fs::read_to_string(folder.join("kubeconfig")).unwrap();
    assert!(line(&token).is_some());
    assert_eq!(line(&token), line(&kept), "whoever has the kubeconfig goes on");
}

fn kubectl() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|folder| folder.join("kubectl")).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("no kubectl on PATH: it is not tried");
    }
    found
}

#[test]
fn two_control_planes_and_foreign_folders_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let said = crate::run(&["principal", "--embedded", path, "--kubeconfig", "k", "--kubecontext", "c"]);
    assert_eq!(said.code, Some(2), "{}", said.stderr);
    for option in ["--kubeconfig", "--kubecontext"] {
        assert!(
            said.stderr.contains(&format!("--embedded is set together with {option}")),
            "{}",
            said.stderr
        );
    }
    std::fs::write(folder.path().join("control-plane.redb"), "mine").unwrap();
    let ports = ["--listen-port=0", "--metrics-port=0", "--healthz-port=0", "--embedded-listen-port=0"];
    let said = crate::run(&[&["principal", "--embedded", path][..], &ports].concat());
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    assert!(said.stderr.contains("was not written by tiphys"), "{}", said.stderr);
    assert_eq!(std::fs::read(folder.path().join("control-plane.redb")).unwrap(), b"mine");
    let said = crate::run(&["export", "--embedded", "/nonexistent"]);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    assert!(said.stderr.contains("there is no control plane in /nonexistent"), "{}", said.stderr);
}

/// What a writer was told last about an object: its number, resource version and UID; none if it is not there.
type State = Option<(u64, u64, String)>;

/// What is known of an object from outside.
#[derive(Debug, Clone, Default)]
struct Known {
    acknowledged: State,
    /// A write without an answer: it may have happened.
    unanswered: Option<Attempt>,
    /// The highest number ever tried.
    number: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Attempt {
    Put(u64),
    Delete,
}

/// Both fields and the length say the same number.
fn content(name: &str, number: u64) -> ConfigMap {
    let text = "x".repeat((number * 37 % 3000) as usize);
    let data = [("a", number.to_string()), ("b", number.to_string()), ("text", text)];
    ConfigMap {
        metadata: named(name),
        data: Some(data.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ..ConfigMap::default()
    }
}

fn state(map: &ConfigMap) -> (u64, u64, String) {
    let data = map.data.as_ref().unwrap();
    let number: u64 = data["a"].parse().unwrap();
    let name = map.metadata.name.as_deref().unwrap();
    assert_eq!(Some(data), content(name, number).data.as_ref(), "{name} is torn");
    let version = map.metadata.resource_version.as_deref().unwrap().parse().unwrap();
    (number, version, map.metadata.uid.clone().unwrap())
}

/// Writes to its own objects until nobody answers any more.
async fn write(
    maps: Api<ConfigMap>,
    mut known: BTreeMap<String, Known>,
    acknowledged: Arc<AtomicUsize>,
    heard: Arc<Notify>,
) -> BTreeMap<String, Known> {
    let names: Vec<String> = known.keys().cloned().collect();
    loop {
        let name = fastrand::choice(&names).unwrap();
        let Some(object) = known.get_mut(name) else { unreachable!("names are those of the map") };
        let attempt = match object.acknowledged {
            Some(_) if fastrand::u8(..) < 50 => Attempt::Delete,
            _ => Attempt::Put(object.number + 1),
        };
        object.unanswered = Some(attempt);
        let result = match attempt {
            Attempt::Delete => maps.delete(name, &DeleteParams::default()).await.map(|_| None),
            Attempt::Put(number) => {
                object.number = number;
                let map = content(name, number);
                let written = match object.acknowledged {
                    None => maps.create(&PostParams::default(), &map).await,
                    Some(_) => maps.patch(name, &PatchParams::default(), &Patch::Merge(&map)).await,
                };
                written.map(|map| Some(state(&map)))
            }
        };
        match result {
            Ok(state) => object.acknowledged = state,
            Err(kube::Error::Api(status)) => panic!("{name} was refused: {status:?}"),
            Err(_) => return known,
        }
        object.unanswered = None;
        acknowledged.fetch_add(1, Ordering::SeqCst);
        heard.notify_one();
    }
}

/// The highest resource version that a watcher was shown from `highest` on, and the number of each object with it.
async fn watch(maps: Api<ConfigMap>, mut highest: u64) -> (u64, BTreeMap<String, u64>) {
    let mut numbers = BTreeMap::new();
    let from = highest.to_string();
    let Ok(events) = maps.watch(&WatchParams::default(), &from).await else { return (highest, numbers) };
    let mut events = events.boxed();
    while let Ok(Some(event)) = events.try_next().await {
        if let WatchEvent::Added(map) | WatchEvent::Modified(map) = event {
            let (number, version, _) = state(&map);
            assert!(version >= highest, "version {version} after {highest}");
            highest = version;
            numbers.insert(map.metadata.name.unwrap(), number);
        }
    }
    (highest, numbers)
}

/// Compares what is there with what is known, which is then up to date.
fn verify(known: &mut BTreeMap<String, Known>, present: &[ConfigMap], shown: &BTreeMap<String, u64>) {
    let mut present: BTreeMap<_, _> =
        present.iter().map(|map| (map.metadata.name.clone().unwrap(), state(map))).collect();
    for (name, known) in known.iter_mut() {
        let found = present.remove(name);
        let number = found.as_ref().map(|(number, ..)| *number);
        let as_acknowledged = found == known.acknowledged;
        let as_unanswered = match known.unanswered {
            None => false,
            Some(Attempt::Delete) => found.is_none(),
            Some(Attempt::Put(tried)) => number == Some(tried),
        };
        assert!(as_acknowledged || as_unanswered, "{name} is {found:?}, known is {known:?}");
        if let (Some((_, version, uid)), Some((_, before, known_uid))) = (&found, &known.acknowledged) {
            assert!(version >= before && uid == known_uid, "{name} is {found:?}, known is {known:?}");
        }
        if let (Some(number), Some(shown)) = (number, shown.get(name)) {
            assert!(number >= *shown, "{name} has number {number}, and {shown} was shown");
        }
        known.acknowledged = found;
        known.unanswered = None;
    }
    present.retain(|name, _| name != "kube-root-ca.crt");
    assert!(present.is_empty(), "nobody wrote {present:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_to_kill_9() {
    const WRITERS: usize = 6;
    let kills: usize = std::env::var("TIPHYS_KILLS").map_or(6, |text| text.parse().unwrap());
    let seed = std::env::var("TIPHYS_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    eprintln!("TIPHYS_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().to_owned();
    let mut known: Vec<BTreeMap<String, Known>> = (0..WRITERS)
        .map(|writer| (0..4).map(|name| (format!("w{writer}-{name}"), Known::default())).collect())
        .collect();
    let (mut highest, mut shown, mut total) = (0, BTreeMap::new(), 0);

    // The first start ends in the middle of its beginnings.
    let beginning = principal(&folder);
    let begin = Instant::now();
    while !folder.join("control-plane.redb").exists() {
        assert!(begin.elapsed() < DEADLINE, "it does not begin");
        tokio::task::yield_now().await;
    }
    drop(beginning);

    for kill in 0..=kills {
        if random.u8(..) < 80 {
            // Killed again while it starts: there is something to mend then.
            let mut process = principal(&folder);
            process.wait_for("options given");
            drop(process);
        }
        let mut process = principal(&folder);
        process.wait_for("control plane is served");
        let control = connect(&folder).await;
        let maps: Api<ConfigMap> = Api::namespaced(control.clone(), "default");
        let list = maps.list(&ListParams::default()).await.unwrap();
        let version: u64 = list.metadata.resource_version.unwrap().parse().unwrap();
        assert!(version >= highest, "version {version} after {highest}");
        let mut all: BTreeMap<_, _> = known.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        verify(&mut all, &list.items, &shown);
        if kill == kills {
            break;
        }
        let written = Arc::new(AtomicUsize::new(0));
        let heard = Arc::new(Notify::new());
        let watcher = tokio::spawn(watch(maps.clone(), version));
        let writers: Vec<_> = known
            .drain(..)
            .map(|own| own.into_keys().map(|name| (name.clone(), all[&name].clone())).collect())
            .map(|own| tokio::spawn(write(maps.clone(), own, Arc::clone(&written), Arc::clone(&heard))))
            .collect();
        let enough = random.usize(1..120);
        while written.load(Ordering::SeqCst) < enough {
            heard.notified().await;
        }
        process.child.kill().unwrap();
        for writer in writers {
            known.push(writer.await.unwrap());
        }
        let acknowledged = known.iter().flatten().filter_map(|(_, known)| known.acknowledged.as_ref());
        highest = acknowledged.map(|(_, version, _)| *version).chain([highest]).max().unwrap_or_default();
        let seen;
        (seen, shown) = watcher.await.unwrap();
        highest = highest.max(seen);
        total += written.load(Ordering::SeqCst);
    }
    eprintln!("{total} acknowledged writes survived {kills} kills");
}
