//! What people type. Only in the binary `real`: whoever has the real cluster has kubectl on the path, too.

use std::{path::Path, process::Stdio};

use serde_json::{Value, json};
use tiphys_apiserver::{ApiServer, Options};
use tokio::{io::AsyncWriteExt, process::Command};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::lab::DEADLINE;

/// kubectl with a cluster, a namespace and a home of its own.
struct Kubectl {
    folder: tempfile::TempDir,
    arguments: Vec<String>,
    namespace: String,
    transcript: Vec<Value>,
    /// Ends the embedded server.
    _server: Option<DropGuard>,
}

impl Kubectl {
    async fn embedded() -> Self {
        let server = ApiServer::new(Options::default());
        let crd = include_str!("../../../../manifests/crds/applications.yaml");
        server.install_crds(crd).expect("the definitions of Argo CD are accepted");
        let address = "127.0.0.1:0".parse().expect("an address");
        let bound = server.bind(address, None).await.expect("a socket");
        let url = format!("http://{}", bound.local_addr());
        let cancel = CancellationToken::new();
        tokio::spawn(bound.run(cancel.clone()));
        let mut kubectl = Self::new(vec!["--server".to_owned(), url]);
        kubectl._server = Some(cancel.drop_guard());
        kubectl
    }

    fn real() -> Self {
        let path = std::env::var("TIPHYS_TEST_KUBECONFIG")
            .expect("TIPHYS_TEST_KUBECONFIG names a kubeconfig: run this under hack/kube.sh up -- …");
        Self::new(vec!["--kubeconfig".to_owned(), path, "--context".to_owned(), "cluster-0".to_owned()])
    }

    fn new(arguments: Vec<String>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let namespace = format!("kubectl-{:x}", std::process::id());
        Self { folder, arguments, namespace, transcript: Vec::new(), _server: None }
    }

    /// Runs `kubectl WORDS` with this on its standard input; gives exit code, output and talk.
    async fn run(&mut self, words: &str, input: &str) -> (i32, String) {
        let home: &Path = self.folder.path();
        let mut command = Command::new("kubectl");
        command
            .args(&self.arguments)
            .args(["--namespace", &self.namespace])
            .args(words.split_whitespace())
            .env("HOME", home)
            .env("KUBECACHEDIR", home)
            .env("KUBECTL_EXTERNAL_DIFF", "diff -u -N")
            .env_remove("KUBECONFIG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if !self.arguments.iter().any(|argument| argument == "--kubeconfig") {
            command.env("KUBECONFIG", "/dev/null");
        }
        let mut child = command.spawn().expect("kubectl is on the path");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(input.as_bytes()).await.expect("kubectl reads");
        drop(stdin);
        let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("kubectl {words} did not end")).expect("an exit code");
        let code = output.status.code().unwrap_or(-1);
        let stdout = String::from_utf8_lossy(&output.stdout).replace(&self.namespace, "<ns>");
        let stderr = String::from_utf8_lossy(&output.stderr).replace(&self.namespace, "<ns>");
        let said = format!("{stdout}{stderr}");
        self.transcript.push(json!({"did": format!("kubectl {words}"), "code": code, "said": said}));
        (code, said)
    }

    /// Runs kubectl, which has to succeed and say all of this.
    async fn says(&mut self, words: &str, input: &str, expected: &[&str]) -> String {
        let (code, said) = self.run(words, input).await;
        assert_eq!(code, 0, "kubectl {words}: {said}");
        for part in expected {
            assert!(said.contains(part), "kubectl {words} does not say {part:?} but: {said}");
        }
        said
    }
}

const MAP: &str = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "labels": {"l": "1"}}, "data": {"k": "v"}}"#;
const APPLICATION: &str = "
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: app}
spec:
  project: default
  source: {repoURL: 'https://example.com/r', path: p}
  destination: {name: in-cluster, namespace: guestbook}
";

async fn work(kubectl: &mut Kubectl) {
    let namespace = kubectl.namespace.clone();
    let object =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}).to_string();
    kubectl.says("apply -f -", &object, &["namespace/<ns> created"]).await;
    kubectl.says("apply -f -", MAP, &["configmap/m created"]).await;
    kubectl.says("apply -f -", MAP, &["configmap/m unchanged"]).await;
    let changed = MAP.replace(r#""v"}"#, r#""w"}"#);
    let (code, said) = kubectl.run("diff -f -", &changed).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("-  k: v") && said.contains("+  k: w"), "{said}");
    kubectl.transcript.pop();
    kubectl.says("apply -f -", &changed, &["configmap/m configured"]).await;
    kubectl.says("apply -f - --dry-run=server", MAP, &["configured (server dry run)"]).await;
    kubectl.says("get configmap m -o jsonpath={.data.k}", "", &["w"]).await;
    let (code, said) = kubectl.run("apply -f -", &MAP.replace(r#""data""#, r#""dato""#)).await;
    assert_ne!(code, 0, "an unknown field went through: {said}");
    assert!(said.contains("unknown field"), "{said}");
    kubectl.transcript.pop();

    kubectl.says("patch configmap m --type merge -p {\"data\":{\"a\":\"1\"}}", "", &["patched"]).await;
    kubectl
        .says("patch configmap m --type json -p [{\"op\":\"remove\",\"path\":\"/data/a\"}]", "", &["patched"])
        .await;
    kubectl.says("patch configmap m -p {\"data\":{\"b\":\"2\"}}", "", &["patched"]).await;
    let (_, said) =
        kubectl.run("get configmaps --watch --output-watch-events --request-timeout=2s", "").await;
    assert!(said.contains("EVENT") && said.contains("ADDED"), "{said}");
    kubectl.transcript.pop();
    let (_, said) = kubectl.run("get configmap m --watch --request-timeout=2s", "").await;
    assert!(said.contains("NAME") && said.contains("m "), "{said}");
    kubectl.transcript.pop();
    kubectl.says("label configmap m x=y", "", &["labeled"]).await;
    kubectl.says("annotate configmap m x=y", "", &["annotated"]).await;
    kubectl.says("get configmaps -l x=y -o name", "", &["configmap/m"]).await;
    kubectl
        .says(
            "get configmap m --no-headers -o custom-columns=N:.metadata.name,D:.data.b",
            "",
            &["m ", " 2\n"],
        )
        .await;

    apply_on_the_server(kubectl).await;

    kubectl.says("apply -f -", APPLICATION, &["application.argoproj.io/app created"]).await;
    kubectl.says("get applications", "", &["NAME", "SYNC STATUS", "HEALTH STATUS", "app"]).await;
    kubectl.says("get app app -o jsonpath={.spec.project}", "", &["default"]).await;
    kubectl
        .says(
            "patch app app --type merge -p {\"status\":{\"health\":{\"status\":\"Healthy\"}}}",
            "",
            &["patched"],
        )
        .await;
    kubectl
        .says(
            "wait app/app --for=jsonpath={.status.health.status}=Healthy --timeout=20s",
            "",
            &["condition met"],
        )
        .await;
    kubectl.says("explain applications", "", &["KIND:", "Application", "spec"]).await;
    kubectl.transcript.pop();
    kubectl.says("explain configmap.metadata.labels", "", &["labels"]).await;
    kubectl.transcript.pop();
    kubectl
        .says(
            "api-resources --api-group=argoproj.io --no-headers",
            "",
            &["applications", "app,apps", "argoproj.io/v1alpha1", "true", "Application"],
        )
        .await;
    kubectl.transcript.pop();
    kubectl.says("api-versions", "", &["apps/v1", "argoproj.io/v1alpha1", "v1"]).await;
    kubectl.transcript.pop();

    let secret =
        r#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "b"}}"#;
    kubectl.says("create -f -", secret, &["secret/s created"]).await;
    kubectl.says("get secret s -o jsonpath={.data.a}", "", &["Yg=="]).await;
    kubectl.says("create configmap made --from-literal=a=b", "", &["configmap/made created"]).await;
    kubectl.says("create secret generic t --from-literal=a=b", "", &["secret/t created"]).await;
    kubectl.says("get configmap made -o jsonpath={.data.a}", "", &["b"]).await;
    kubectl.says("replace -f -", &MAP.replace(r#""m""#, r#""made""#), &["configmap/made replaced"]).await;
    kubectl.says("delete configmap made", "", &["deleted"]).await;
    kubectl.says("describe configmap m", "", &["Name:", "m"]).await;
    kubectl.transcript.pop();
    kubectl.says("delete application app --wait", "", &["deleted"]).await;
    kubectl.says("delete configmap m --wait --timeout=20s", "", &["deleted"]).await;
    let (code, said) = kubectl.run("get configmap m", "").await;
    assert_eq!(code, 1);
    assert!(said.contains("NotFound"), "{said}");
    kubectl.says("get configmaps", "", &["No resources found in <ns> namespace."]).await;
}

async fn apply_on_the_server(kubectl: &mut Kubectl) {
    let map = MAP.replace(r#""m""#, r#""ssa""#);
    let changed = map.replace(r#""v"}"#, r#""w"}"#);
    const APPLY: &str = "apply --server-side -f -";
    const OWNERS: &str = "get configmap ssa --show-managed-fields -o jsonpath={range.metadata.managedFields[*]}{.manager}={.operation}={.fieldsV1};{end}";
    kubectl.says(APPLY, &map, &["configmap/ssa serverside-applied"]).await;
    kubectl.says(APPLY, &map, &["configmap/ssa serverside-applied"]).await;
    kubectl.says(OWNERS, "", &["kubectl=Apply="]).await;
    let other = format!("{APPLY} --field-manager=other");
    let (code, said) = kubectl.run(&other, &changed).await;
    assert_ne!(code, 0, "{said}");
    assert!(said.contains("Apply failed with 1 conflict: conflict with \"kubectl\": .data.k"), "{said}");
    kubectl.says(&format!("{other} --force-conflicts"), &changed, &["serverside-applied"]).await;
    kubectl.says(OWNERS, "", &["kubectl=Apply=", "other=Apply="]).await;
    kubectl
        .says(
            &format!("{APPLY} --dry-run=server"),
            &map.replace(r#""v"}"#, r#""w","new":"1"}"#),
            &["server dry run"],
        )
        .await;
    let (code, said) =
        kubectl.run("diff --server-side -f -", &map.replace(r#""v"}"#, r#""w","new":"1"}"#)).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("+  new: \"1\""), "{said}");
    kubectl.transcript.pop();
    let (code, said) = kubectl.run(APPLY, &map.replace(r#""data""#, r#""dato""#)).await;
    assert_ne!(code, 0, "{said}");
    assert!(said.contains("field not declared in schema"), "{said}");
    kubectl.says("delete configmap ssa", "", &["deleted"]).await;

    // From client-side apply to server-side apply.
    kubectl.says("apply -f -", &map, &["configmap/ssa created"]).await;
    kubectl.says(OWNERS, "", &["kubectl-client-side-apply=Update="]).await;
    kubectl.says(APPLY, &changed, &["configmap/ssa serverside-applied"]).await;
    kubectl.says(OWNERS, "", &["kubectl=Apply="]).await;
    kubectl.says(APPLY, &map, &["configmap/ssa serverside-applied"]).await;
    kubectl.says("label configmap ssa x=y", "", &["labeled"]).await;
    kubectl.says(OWNERS, "", &["kubectl-label=Update="]).await;
    kubectl.says("delete configmap ssa", "", &["deleted"]).await;
    let application = APPLICATION.replace("name: app", "name: ssa");
    kubectl.says(APPLY, &application, &["application.argoproj.io/ssa serverside-applied"]).await;
    kubectl.says(APPLY, &application.replace("path: p", "path: q"), &["serverside-applied"]).await;
    kubectl.says("get app ssa -o jsonpath={.spec.source.path}", "", &["q"]).await;
    kubectl.says("delete app ssa", "", &["deleted"]).await;
}

#[tokio::test]
async fn kubectl_says_the_same_of_both_servers() {
    let mut embedded = Kubectl::embedded().await;
    work(&mut embedded).await;
    let mut real = Kubectl::real();
    work(&mut real).await;
    super::known::compare("kubectl", &embedded.transcript, &real.transcript);
}
