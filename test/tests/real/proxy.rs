//! kubectl through the resource proxy, on a real kube-apiserver: whatever it does there directly.

use std::collections::BTreeMap;

use super::kubectl::Kubectl;
use super::managed::cluster;
use super::suite::fleet::Fleet;

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
    let kubectl = Kubectl::operator(&fleet, &agent);
    kubectl.until_served().await;

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
    let mut watching =
        kubectl.begin(&["get", "configmap", "--watch", "--output-watch-events", "--no-headers"]);
    kubectl.run(&["create", "configmap", "new"]).await;
    watching.line_that(|line| line.starts_with("ADDED") && line.contains("new")).await;
    let waiting = kubectl.run(&["wait", "--for=jsonpath={.data.done}=yes", "configmap/new", "--timeout=60s"]);
    let done = async {
        kubectl.run(&["patch", "configmap", "new", "--type=merge", "-p", r#"{"data":{"done":"yes"}}"#]).await;
    };
    let (waited, ()) = tokio::join!(waiting, done);
    assert!(waited.contains("condition met"));
    drop(watching);

    // Deleting, which waits for the end by a watch.
    assert!(kubectl.run(&["delete", "configmap", "new", "settings"]).await.contains("deleted"));
    kubectl.run(&["delete", "deployment", "--all"]).await;
    assert!(!kubectl.run(&["get", "deployment", "--ignore-not-found"]).await.contains("web"));
}
