//! kubectl through the resource proxy, on a real kube-apiserver: whatever it does there directly.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tiphys_shared::process::clock;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

use super::managed::cluster;
use super::suite::fleet::{DAY, Fleet};

/// kubectl with the kubeconfig of somebody who may reach every agent.
pub(super) struct Kubectl {
    folder: tempfile::TempDir,
    namespace: String,
}

impl Kubectl {
    pub(super) fn new(fleet: &Fleet, agent: &str) -> Self {
        let material = fleet.ca.issue_client::<&str>("alice", &[], clock::now(), DAY).unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {
                "server": format!("https://{}/agents/{agent}", fleet.proxy),
                "certificate-authority-data": STANDARD.encode(fleet.ca.certificate_pem()),
            }}],
            "users": [{"name": "proxy", "user": {
                "client-certificate-data": STANDARD.encode(&material.chain),
                "client-key-data": STANDARD.encode(material.key.expose()),
            }}],
            "contexts": [{"name": "proxy", "context": {
                "cluster": "proxy", "user": "proxy", "namespace": fleet.namespace,
            }}],
        });
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config"), config.to_string()).unwrap();
        Self { folder, namespace: fleet.namespace.clone() }
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    pub(super) fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(self.config()).args(line).kill_on_drop(true);
        // Discovery is asked for anew, and not remembered from a cluster of another test.
        command.env("KUBECACHEDIR", self.folder.path().join("cache")).env("HOME", self.folder.path());
        command.env("KUBE_EDITOR", "sed -i s/before/after/");
        command
    }

    /// Runs a command that has to work, and tells what it prints.
    pub(super) async fn run(&self, line: &[&str]) -> String {
        let output = self.command(line).output().await.unwrap();
        let (said, failed) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "kubectl {}: {said}{failed}", line.join(" "));
        said.into_owned()
    }

    async fn feed(&self, line: &[&str], text: &str) -> String {
        let mut child = self
            .command(line)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).await.unwrap();
        let output = child.wait_with_output().await.unwrap();
        let failed = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {}: {failed}", line.join(" "));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

const OBJECTS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {key: before}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: example.com/web}]}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_works_through_the_proxy() {
    let agent = format!("proxied-{}", std::process::id());
    let clusters = BTreeMap::from([(agent.clone(), cluster("cluster-1").await)]);
    let fleet = Fleet::start(cluster("cluster-0").await, clusters, &[]).await;
    let kubectl = Kubectl::new(&fleet, &agent);
    Fleet::until("the tunnel", async || {
        let output = kubectl.command(&["version"]).output().await.unwrap();
        output.status.success().then_some(())
    })
    .await;

    // Discovery and documentation.
    assert!(kubectl.run(&["version"]).await.contains("Server Version"));
    assert!(kubectl.run(&["api-resources"]).await.contains("deployments"));
    assert!(kubectl.run(&["api-versions"]).await.contains("apps/v1"));
    assert!(kubectl.run(&["explain", "deployment.spec.replicas"]).await.contains("replicas"));
    assert!(kubectl.run(&["cluster-info"]).await.contains("/agents/"));
    // What is asked for raw takes the place of the server's whole path.
    let raw = format!("/agents/{agent}/openapi/v3");
    assert!(kubectl.run(&["get", "--raw", &raw]).await.contains("paths"));
    assert_eq!(kubectl.run(&["auth", "can-i", "get", "pods"]).await.trim(), "yes");

    // Writing and reading.
    assert!(kubectl.run(&["get", "namespaces"]).await.contains(&kubectl.namespace));
    assert!(kubectl.feed(&["apply", "-f", "-"], OBJECTS).await.contains("deployment.apps/web created"));
    assert!(kubectl.feed(&["apply", "-f", "-"], OBJECTS).await.contains("configmap/settings unchanged"));
    kubectl.feed(&["apply", "--server-side", "--force-conflicts", "-f", "-"], OBJECTS).await;
    assert!(kubectl.feed(&["diff", "-f", "-"], OBJECTS).await.is_empty());
    assert!(kubectl.run(&["get", "deployment,configmap"]).await.contains("deployment.apps/web"));
    assert!(kubectl.run(&["describe", "deployment", "web"]).await.contains("example.com/web"));
    kubectl.run(&["edit", "configmap", "settings"]).await;
    assert_eq!(kubectl.run(&["get", "configmap", "settings", "-o", "jsonpath={.data.key}"]).await, "after");
    kubectl.run(&["patch", "deployment", "web", "-p", r#"{"spec":{"replicas":2}}"#]).await;
    kubectl.run(&["scale", "deployment", "web", "--replicas=3"]).await;
    kubectl.run(&["label", "deployment", "web", "team=blue"]).await;
    kubectl.run(&["annotate", "deployment", "web", "note=x"]).await;
    let replicas =
        kubectl.run(&["get", "deployment", "-l", "team=blue", "-o", "jsonpath={..spec.replicas}"]).await;
    assert_eq!(replicas, "3");
    kubectl.run(&["get", "events"]).await;

    // Watching and waiting.
    let mut watching = kubectl
        .command(&["get", "configmap", "--watch", "--output-watch-events", "--no-headers"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    kubectl.run(&["create", "configmap", "new"]).await;
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.starts_with("ADDED") && line.contains("new") {
            break;
        }
    }
    let waiting = kubectl.run(&["wait", "--for=jsonpath={.data.done}=yes", "configmap/new", "--timeout=60s"]);
    let done = async {
        kubectl.run(&["patch", "configmap", "new", "--type=merge", "-p", r#"{"data":{"done":"yes"}}"#]).await;
    };
    let (waited, ()) = tokio::join!(waiting, done);
    assert!(waited.contains("condition met"));
    watching.kill().await.unwrap();

    // Deleting, which waits for the end by a watch.
    assert!(kubectl.run(&["delete", "configmap", "new", "settings"]).await.contains("deleted"));
    kubectl.run(&["delete", "deployment", "--all"]).await;
    assert!(!kubectl.run(&["get", "deployment", "--ignore-not-found"]).await.contains("web"));
}
