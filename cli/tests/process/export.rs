//! What an embedded control plane has moves to a cluster, and takes nothing from one that is in use.

use std::path::{Path, PathBuf};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tiphys_apiserver::ApiServer;

use crate::embedded::{application, argo, connect, create_namespace, principal};
use crate::serve::Process;
use crate::{Run, tiphys};

/// A control plane in a folder, which its principal still has, with an application.
async fn source(folder: &Path) -> Process {
    let mut process = principal(folder);
    process.wait_for("taking agents");
    let control = connect(folder).await;
    create_namespace(&control, "edge-1").await;
    let applications = argo(&control, "edge-1", "Application");
    let mut owned = application("owned");
    owned.metadata.labels = Some([("team".to_owned(), "edge".to_owned())].into());
    applications.create(&PostParams::default(), &owned).await.unwrap();
    let status = json!({ "status": { "sync": { "status": "Synced" } } });
    applications.patch("owned", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    process
}

/// A cluster that has nothing yet, and its kubeconfig.
async fn target(folder: &Path) -> (ApiServer, String) {
    let target = ApiServer::new(tiphys_apiserver::Options::default());
    let bound = target.bind((std::net::Ipv4Addr::LOCALHOST, 0).into(), None).await.unwrap();
    let kubeconfig = crate::kubeconfig(folder, &format!("http://{}", bound.local_addr()));
    tokio::spawn(bound.run(tokio_util::sync::CancellationToken::new()));
    (target, kubeconfig)
}

async fn export(folder: &Path, arguments: &str) -> Run {
    let folder: PathBuf = folder.to_owned();
    let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
    tokio::task::spawn_blocking(move || {
        let mut command = tiphys();
        command.arg("export").arg("--embedded").arg(folder).args(arguments);
        command.stdin(std::process::Stdio::null()).output().unwrap().into()
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_moves_to_another_cluster_by_one_command() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("control-plane");
    let process = source(&folder).await;
    let export = async |arguments: &str| {
        let run = export(&folder, arguments).await;
        assert_eq!(run.code, Some(0), "{arguments}: {}", run.stderr);
        run
    };
    // From the running principal, and from the folder alone.
    let running = export("").await.stdout;
    process.signal("-TERM");
    assert_eq!(process.exit_code(), Some(0));
    assert_eq!(running, export("").await.stdout);
    let at = |text: &str| running.find(text).unwrap_or_else(|| panic!("{text:?} is missing:\n{running}"));
    assert!(at("kind: CustomResourceDefinition") < at("kind: Namespace"));
    assert!(at("kind: Namespace") < at("name: owned"));
    for own in ["\n  uid:", "resourceVersion:", "managedFields:", "creationTimestamp:", "tiphys-embedded-ca"]
    {
        assert!(!running.contains(own), "{own}");
    }

    // Doing it twice changes nothing, and trying it neither.
    let (target, kubeconfig) = target(temporary.path()).await;
    let apply = format!("--apply --kubeconfig {kubeconfig}");
    let revision = target.revision();
    let tried = export(&format!("{apply} --dry-run")).await;
    assert!(tried.stderr.contains("would create Application edge-1/owned"), "{}", tried.stderr);
    assert!(tried.stderr.contains("0 changed, 0 the same"), "{}", tried.stderr);
    assert_eq!(target.revision(), revision);
    export(&apply).await;
    let revision = target.revision();
    let again = export(&apply).await;
    assert!(again.stderr.contains("0 new, 0 changed"), "{}", again.stderr);
    assert_eq!(target.revision(), revision);
    let moved = argo(&target.client(), "edge-1", "Application").get("owned").await.unwrap();
    assert_eq!(moved.data["spec"], application("owned").data["spec"]);
    assert_eq!(moved.data["status"]["sync"]["status"], "Synced");
    assert_eq!(moved.metadata.labels.unwrap()["team"], "edge");
    let secrets: Api<Secret> = Api::namespaced(target.client(), "argocd");
    assert_eq!(secrets.list(&ListParams::default()).await.unwrap().items.len(), 4);
    argo(&target.client(), "argocd", "AppProject").get("default").await.unwrap();
}

/// A Secret with keys of its own, as an installation has it.
async fn keep(client: &Client, name: &str, kind: &str, entries: &[&str]) {
    let mut secret = Secret { type_: Some(kind.to_owned()), ..Secret::default() };
    secret.metadata.name = Some(name.to_owned());
    secret.data = Some(entries.iter().map(|key| ((*key).to_owned(), ByteString(b"own".to_vec()))).collect());
    let api: Api<Secret> = Api::namespaced(client.clone(), "argocd");
    api.create(&PostParams::default(), &secret).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_in_use_is_not_changed_unasked_and_its_keys_only_on_demand() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("control-plane");
    let process = source(&folder).await;
    let (target, kubeconfig) = target(temporary.path()).await;
    let client = target.client();
    let apply = format!("--apply --kubeconfig {kubeconfig}");
    create_namespace(&client, "argocd").await;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "argocd");
    let unchanged = async |arguments: &str, code: i32, answers: &[&str]| {
        let revision = target.revision();
        let run = export(&folder, &format!("{apply} {arguments}")).await;
        assert_eq!(run.code, Some(code), "{arguments}: {}", run.stderr);
        for answer in answers {
            assert!(run.stderr.contains(answer), "{arguments}: {}", run.stderr);
        }
        assert_eq!(target.revision(), revision, "{arguments} changed something: {}", run.stderr);
    };

    // A type cannot be changed. It is found out before anything is written.
    keep(&client, "argocd-agent-ca", "Opaque", &["tls.crt", "tls.key"]).await;
    unchanged("--yes --replace-keys", 1, &["cannot apply Secret argocd/argocd-agent-ca", "refuses 1 of"])
        .await;
    assert!(Api::<Namespace>::all(client.clone()).get_opt("edge-1").await.unwrap().is_none());
    secrets.delete("argocd-agent-ca", &kube::api::DeleteParams::default()).await.unwrap();

    keep(&client, "argocd-agent-ca", "kubernetes.io/tls", &["tls.crt", "tls.key"]).await;
    keep(&client, "argocd-agent-jwt", "Opaque", &["jwt.key"]).await;
    let own = ["argocd-agent-ca (tls.key)", "argocd-agent-jwt (jwt.key)", "--replace-keys"];
    unchanged("", 1, &own).await;
    unchanged("--yes", 1, &own).await;
    unchanged("--dry-run", 1, &own).await;
    unchanged("--replace-keys", 2, &["changes 2 objects", "--yes"]).await;
    unchanged("--replace-keys --dry-run", 0, &["would change Secret argocd/argocd-agent-ca"]).await;
    let run = export(&folder, &format!("{apply} --replace-keys --yes")).await;
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let moved = secrets.get("argocd-agent-ca").await.unwrap().data.unwrap();
    assert_ne!(moved["tls.key"].0, b"own");

    // What is there and differs is asked about, keys or not.
    let applications = argo(&client, "edge-1", "Application");
    let other = Patch::Merge(json!({ "spec": { "project": "other" } }));
    applications.patch("owned", &PatchParams::default(), &other).await.unwrap();
    unchanged("", 2, &["would change Application edge-1/owned", "--yes"]).await;
    unchanged("--yes=false --dry-run", 0, &["0 new, 1 changed"]).await;
    let run = export(&folder, &format!("{apply} --yes")).await;
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(applications.get("owned").await.unwrap().data["spec"]["project"], "default");

    for flag in ["--yes", "--dry-run", "--replace-keys", "--kubecontext x"] {
        let run = export(&folder, flag).await;
        assert!(run.code == Some(2) && run.stderr.contains("add --apply"), "{flag}: {}", run.stderr);
        assert_eq!(run.stdout, "", "{flag}");
    }
    drop(process);
}
