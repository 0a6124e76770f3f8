//! The operator's commands, over API servers on loopback.

use std::os::unix::process::CommandExt as _;
use std::path::Path;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};

use crate::serve::{Cluster, cluster};
use crate::{Run, tiphys};

/// A control plane and the cluster of an agent, empty.
pub(crate) struct Operator {
    pub(crate) control: Cluster,
    pub(crate) edge: Cluster,
    _folder: tempfile::TempDir,
}

pub(crate) async fn operator() -> Operator {
    let folder = tempfile::tempdir().unwrap();
    let path: &Path = folder.path();
    let (control, edge) = (cluster(path, "control").await, cluster(path, "edge").await);
    Operator { control, edge, _folder: folder }
}

impl Operator {
    /// Runs a command under `name` and waits for its end, away from the threads that serve the clusters.
    async fn run_as(&self, name: &'static str, line: &str) -> Run {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let clusters = ["--kubeconfig".to_owned(), self.control.kubeconfig.clone()];
        tokio::task::spawn_blocking(move || {
            tiphys()
                .arg0(name)
                .args(arguments)
                .args(clusters)
                .stdin(std::process::Stdio::null())
                .output()
                .unwrap()
                .into()
        })
        .await
        .unwrap()
    }

    pub(crate) async fn run(&self, line: &str) -> Run {
        self.run_as("tiphys", line).await
    }

    /// Runs a command that has to succeed.
    pub(crate) async fn does(&self, line: &str) -> Run {
        let run = self.run(line).await;
        assert_eq!(run.code, Some(0), "{line}: {}", run.stderr);
        run
    }

    /// Runs a command about both clusters, which has to succeed.
    pub(crate) async fn does_to_agent(&self, line: &str) -> Run {
        self.does(&format!("{line} --agent-kubeconfig {}", self.edge.kubeconfig)).await
    }

    /// Everything that is kept on both clusters.
    pub(crate) async fn kept(&self) -> Vec<(String, Option<String>)> {
        let mut kept = Vec::new();
        for cluster in [&self.control, &self.edge] {
            let secrets: Api<Secret> = Api::all(cluster.client.clone());
            for secret in secrets.list(&ListParams::default()).await.unwrap() {
                kept.push((secret.metadata.name.unwrap(), secret.metadata.resource_version));
            }
            let maps: Api<ConfigMap> = Api::all(cluster.client.clone());
            for map in maps.list(&ListParams::default()).await.unwrap() {
                kept.push((map.metadata.name.unwrap(), map.metadata.resource_version));
            }
        }
        kept
    }

    pub(crate) async fn secret(&self, cluster: &Cluster, name: &str) -> Secret {
        Api::namespaced(cluster.client.clone(), "argocd").get(name).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn principal_and_agent_start_from_what_the_commands_made_and_meet() {
    let operator = operator().await;
    operator.control.create_namespace("edge-1").await;
    operator.does("pki init").await;
    operator.does("pki issue principal --dns localhost --ip 127.0.0.1").await;
    operator.does("pki issue resource-proxy --dns argocd-agent-resource-proxy,localhost").await;
    operator.does("jwt create-key").await;
    operator.does_to_agent("pki issue agent edge-1").await;
    operator.does("agent create edge-1 --label env=test").await;
    let types = [
        (&operator.control, "argocd-agent-ca", "kubernetes.io/tls"),
        (&operator.control, "argocd-agent-principal-tls", "kubernetes.io/tls"),
        (&operator.control, "argocd-agent-resource-proxy-tls", "kubernetes.io/tls"),
        (&operator.control, "argocd-agent-jwt", "Opaque"),
        (&operator.control, "cluster-edge-1", "Opaque"),
        (&operator.edge, "argocd-agent-client-tls", "kubernetes.io/tls"),
        (&operator.edge, "argocd-agent-ca", "Opaque"),
    ];
    for (cluster, name, kind) in types {
        assert_eq!(operator.secret(cluster, name).await.type_.as_deref(), Some(kind), "{name}");
    }
    let keys = operator.secret(&operator.edge, "argocd-agent-ca").await.data.unwrap();
    assert_eq!(keys.keys().collect::<Vec<_>>(), ["ca.crt"], "the CA's key does not travel");

    let (mut principal, port) = operator.control.principal();
    let mut agent = operator.edge.agent(&port, &[]);
    agent.wait_for("connected to the principal");
    principal.wait_for("agent connected");

    let report: Value = serde_json::from_str(&operator.does("pki inspect -o json").await.stdout).unwrap();
    assert_eq!(report["ca"]["keyType"], "ECDSA");
    assert_eq!(report["principal"]["subject"], "CN=argocd-agent-principal");
    assert_eq!(report["principal"]["dns"], json!(["localhost"]));
    assert_eq!(report["resourceProxy"]["sha256"].as_str().unwrap().len(), 64);
    let key: Value = serde_json::from_str(&operator.does("jwt inspect-key -o json").await.stdout).unwrap();
    assert_eq!((key["keyType"].as_str(), key["keyLength"].as_u64()), (Some("RSA"), Some(4096)));
    let inspected = operator.does("agent inspect edge-1 -o json").await.stdout;
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected["server"], "https://argocd-agent-resource-proxy:9090?agentName=edge-1");
    assert!(operator.does("agent print-tls edge-1 -t key").await.stdout.contains("PRIVATE KEY"));
    assert!(operator.does("agent list -l env=test").await.stdout.contains("edge-1"));
    assert_eq!(operator.does("agent list -l env=other").await.stdout, "");
    // As upstream's tool they answer in its forms.
    let list = operator.run_as("/usr/local/bin/argocd-agentctl", "agent list").await;
    assert_eq!(list.stdout, "edge-1\n", "{}", list.stderr);
    let report = operator.run_as("argocd-agentctl", "--principal-namespace argocd pki inspect").await;
    assert!(serde_json::from_str::<Value>(&report.stdout).is_ok(), "{}", report.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_hostile_and_contradictory_arguments_change_nothing_and_are_answered() {
    let operator = operator().await;
    operator.does("pki init").await;
    operator.does("pki issue principal").await;
    operator.does("agent create edge-1").await;
    operator.control.create_secret("broken", &[("tls.crt", b"x")]).await;
    let before = operator.kept().await;
    let agent = format!("--agent-kubeconfig {}", operator.edge.kubeconfig);
    let here = format!("--agent-kubeconfig {}", operator.control.kubeconfig);
    let cases = [
        ("pki init".to_owned(), "--force"),
        ("pki init --force --days 0".into(), "0 is not in 1..=36500"),
        ("pki init --force --key-algorithm rsa --key-size 1024".into(), "2048, 3072 or 4096"),
        ("pki init --force --key-algorithm des".into(), "ecdsa-p256"),
        ("pki dump".into(), "--cert, --key or --all"),
        ("pki issue".into(), "resource-proxy"),
        ("pki issue principal".into(), "--upsert"),
        ("pki issue principal --upsert --ip 300.1.2.3".into(), "is not an IP address"),
        ("pki issue principal --upsert --dns 10.0.0.1".into(), "--ip"),
        ("pki issue principal --upsert --dns a/../b".into(), "cannot be put into a certificate"),
        ("pki issue principal --upsert --days 4000".into(), "longer than the CA is good"),
        ("pki issue resource-proxy".into(), "--dns or --ip"),
        ("pki issue resource-proxy --no-san --dns x".into(), "contradicts"),
        (format!("pki issue agent ../kube-system {agent}"), "DNS-1123"),
        (format!("pki issue agent {agent}"), "<NAME>"),
        (format!("pki issue agent edge-1 {here}"), "holds the CA with its key"),
        (format!("pki issue agent edge-1 --agent-namespace other {here}"), "--same-context"),
        ("pki issue agent edge-1".into(), "--agent-context"),
        (format!("pki issue agent edge-1 --agent-namespace missing {agent}"), "missing"),
        (format!("pki propagate {here}"), "holds the CA with its key"),
        ("pki delete".into(), "--yes"),
        ("pki inspect -o xml".into(), "json"),
        ("pki inspect --principal-context nowhere".into(), "--principal-context"),
        ("pki inspect --principal-namespace ../x".into(), "not the name of a namespace"),
        ("pki inspect --config /no/such/ctl.conf".into(), "--config"),
        ("jwt delete-key --force=perhaps".into(), "perhaps"),
        ("jwt inspect-key".into(), "jwt create-key"),
        ("agent create".into(), "<NAME>"),
        ("agent create Edge_1".into(), "DNS-1123"),
        ("agent create edge-1".into(), "agent reconfigure"),
        ("agent create edge-2 --label argocd.argoproj.io/secret-type=x".into(), "by this command itself"),
        ("agent create edge-2 --label a!b=c".into(), "cannot write Secret"),
        ("agent create edge-2 --resource-proxy-server proxy".into(), "HOST:PORT"),
        ("agent create edge-2 --tls-from-secret broken".into(), "--ca-from-secret"),
        ("agent create edge-2 --tls-from-secret broken --ca-from-secret broken".into(), "has no tls.key"),
        (
            "agent create edge-2 --tls-from-secret a --ca-from-secret b --key-size 2048".into(),
            "have no effect",
        ),
        ("agent inspect edge-3".into(), "agent list"),
        ("agent print-tls edge-1 -t all".into(), "cert"),
        ("agent reconfigure edge-1 --key-size 2048".into(), "--reissue-client-cert"),
        (
            "agent reconfigure edge-1 --resource-proxy-server https://x:1?agentName=edge-2".into(),
            "another agent",
        ),
        ("blocklist tls add".into(), "FINGERPRINT"),
        ("blocklist tls add 1234".into(), "64 hexadecimal digits"),
        ("blocklist tls add --file /no/such".into(), "/no/such"),
        ("config add agent --name x --context y --namespace".into(), "--namespace"),
    ];
    for (line, answer) in cases {
        let run = operator.run(&line).await;
        assert!(matches!(run.code, Some(1 | 2)), "{line}: {:?} {}", run.code, run.stderr);
        assert!(run.stderr.contains(answer), "{line}: {}", run.stderr);
        assert_eq!(run.stdout, "", "{line}");
        assert_eq!(operator.kept().await, before, "{line} changed something");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_says_what_would_be_written_and_writes_nothing() {
    let operator = operator().await;
    let run = operator.does("pki init --dry-run").await;
    assert!(run.stderr.contains("would create Secret argocd/argocd-agent-ca"), "{}", run.stderr);
    assert_eq!(operator.kept().await, []);
    operator.does("pki init").await;
    let before = operator.kept().await;
    operator.does("pki issue principal --dry-run").await;
    operator.does("jwt create-key --dry-run").await;
    operator.does("agent create edge-1 --dry-run").await;
    operator.does_to_agent("pki issue agent edge-1 --dry-run").await;
    operator.does("pki delete --dry-run").await;
    operator.does(&format!("blocklist tls add {} --dry-run", "ab".repeat(32))).await;
    assert_eq!(operator.kept().await, before);
    operator.does("pki delete --yes").await;
    assert_eq!(operator.kept().await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_replaced_keeps_its_labels_and_reissued_certificates_are_new() {
    let operator = operator().await;
    operator.does("pki init --key-algorithm ecdsa-p384").await;
    operator.does("agent create edge-1 --label env=test").await;
    let fingerprint = async || {
        let run = operator.does("agent inspect edge-1 -o json").await;
        let summary: Value = serde_json::from_str(&run.stdout).unwrap();
        (summary["fingerprint"].clone(), summary["server"].clone())
    };
    let before = fingerprint().await;
    operator.does("agent reconfigure edge-1 --reissue-client-cert --resource-proxy-server proxy:1").await;
    let after = fingerprint().await;
    assert_ne!(before.0, after.0);
    assert_eq!(after.1, "https://proxy:1?agentName=edge-1");
    let labels = operator.secret(&operator.control, "cluster-edge-1").await.metadata.labels.unwrap();
    assert_eq!(labels["env"], "test");
    operator.does_to_agent("pki propagate").await;
    assert_eq!(
        operator.run(&format!("pki propagate --agent-kubeconfig {}", operator.edge.kubeconfig)).await.code,
        Some(1)
    );
    operator.does_to_agent("pki propagate --force").await;
    operator.does_to_agent("pki issue agent edge-1 --key-size 2048").await;
    operator.does_to_agent("pki issue agent edge-1 --upsert").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_blocklist_is_upstreams_config_map() {
    let operator = operator().await;
    let (first, second) = ("ab".repeat(32), "CD".repeat(32));
    operator.does(&format!("blocklist tls add {first} --reason stolen")).await;
    operator.does(&format!("blocklist tls add {second}")).await;
    let again = operator.does(&format!("blocklist tls add {}", first.to_uppercase())).await;
    assert!(again.stderr.contains("already"), "{}", again.stderr);
    let api: Api<ConfigMap> = Api::namespaced(operator.control.client.clone(), "argocd");
    let data = api.get("argocd-agent-tls-blocklist").await.unwrap().data.unwrap();
    assert_eq!(data.keys().collect::<Vec<_>>(), [&first.to_uppercase(), &second]);
    let list: Value =
        serde_json::from_str(&operator.does("blocklist tls list -o json").await.stdout).unwrap();
    assert_eq!(list[0]["reason"], "stolen");
    operator.does(&format!("blocklist tls remove {second}")).await;
    let data = api.get("argocd-agent-tls-blocklist").await.unwrap().data.unwrap();
    assert_eq!(data.len(), 1);
}

#[test]
fn the_local_configuration_is_kept_as_upstream_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ctl.conf");
    let config = |line: &str| -> Run {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        tiphys().arg("config").args(arguments).arg("--config").arg(&file).output().unwrap().into()
    };
    assert_eq!(config("add principal --name hub --context c --namespace argocd --set-default").code, Some(0));
    assert_eq!(config("add agent --name edge --context d --namespace argocd").code, Some(0));
    assert_eq!(config("add agent --name edge --context d --namespace argocd").code, Some(2));
    assert_eq!(config("edit agent --name edge --namespace other").code, Some(0));
    let text = std::fs::read_to_string(&file).unwrap();
    for part in ["default-principal: hub", "kube-context: d", "namespace: other"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(config("list").stdout.contains("hub"));
    let refused = config("delete principal --name hub");
    assert!(refused.code == Some(2) && refused.stderr.contains("remedy"), "{}", refused.stderr);
    assert_eq!(config("delete agent --name edge").code, Some(0));
    assert!(!config("list").stdout.contains("edge"));
}

#[test]
fn manual_pages_are_written_for_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let run: Run = tiphys().args(["man", "--dir"]).arg(folder.path()).output().unwrap().into();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    for page in
        ["tiphys", "tiphys-principal", "tiphys-agent", "tiphys-agent-create", "tiphys-pki-issue-agent"]
    {
        let text = std::fs::read_to_string(folder.path().join(format!("{page}.1"))).unwrap();
        assert!(text.contains(".TH"), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_options_of_a_workload_are_read_to_explain_validate_and_show() {
    let operator = operator().await;
    let control = &operator.control;
    control.create_namespace("edge-1").await;
    let params = json!({
        "metadata": {"name": "argocd-agent-params"},
        "data": {"principal.allowed-namespaces": "edge-*", "principal.auth": "mtls:subject:CN=([^,]+)"},
    });
    let maps: Api<ConfigMap> = Api::namespaced(control.client.clone(), "argocd");
    maps.create(&PostParams::default(), &serde_json::from_value(params).unwrap()).await.unwrap();
    let variable = |name: &str, key: &str| {
        json!({"name": name, "valueFrom": {"configMapKeyRef":
            {"name": "argocd-agent-params", "key": key, "optional": true}}})
    };
    let deployment = json!({
        "metadata": {"name": "argocd-agent-principal"},
        "spec": {
            "selector": {"matchLabels": {"app": "principal"}},
            "template": {
                "metadata": {"labels": {"app": "principal"}},
                "spec": {"containers": [{
                    "name": "principal",
                    "image": "quay.io/argoprojlabs/argocd-agent:latest",
                    "args": ["principal", "--listen-port=9443"],
                    "env": [
                        variable("ARGOCD_PRINCIPAL_ALLOWED_NAMESPACES", "principal.allowed-namespaces"),
                        variable("ARGOCD_PRINCIPAL_AUTH", "principal.auth"),
                        variable("ARGOCD_PRINCIPAL_LOG_LEVEL", "principal.log.level"),
                    ],
                }]},
            },
        },
    });
    let deployments: Api<Deployment> = Api::namespaced(control.client.clone(), "argocd");
    deployments.create(&PostParams::default(), &serde_json::from_value(deployment).unwrap()).await.unwrap();
    let project = json!({ "spec": {
        "sourceNamespaces": ["team-*"],
        "destinations": [{ "name": "edge-1", "namespace": "*" }],
    }});
    control.create("argocd", "AppProject", "default", project).await;
    let application = json!({ "spec": {
        "project": "default",
        "source": { "repoURL": "https://example.com/repository", "path": "." },
        "destination": { "name": "edge-1", "namespace": "app" },
    }});
    control.create("edge-1", "Application", "guestbook", application).await;

    let json = async |line: &str, code: i32| -> Value {
        let run = operator.run(line).await;
        assert_eq!(run.code, Some(code), "{line}: {}", run.stderr);
        serde_json::from_str(&run.stdout).unwrap()
    };
    let explained = json("explain edge-1 application guestbook -o json", 0).await;
    assert_eq!(explained["belongs"], true, "{explained}");
    let other = json("explain edge-2 application edge-1/guestbook -o json", 0).await;
    assert_eq!(
        other["rules"][2],
        json!({"rule": "names the agent", "holds": false, "because": "its namespace names edge-1"})
    );
    let edge =
        format!("explain edge-1 project default -o json --agent-kubeconfig {}", operator.edge.kubeconfig);
    let project = json(&edge, 0).await;
    assert_eq!((&project["belongs"], &project["isThere"]), (&json!(false), &json!(false)));
    assert_eq!(operator.run("explain edge-1 application nothing").await.code, Some(1));

    let shown = json("config show principal -o json", 0).await;
    let row = |option: &str| shown.as_array().unwrap().iter().find(|row| row["option"] == option).cloned();
    assert_eq!(row("listen-port").unwrap()["origin"], "flag");
    let allowed = row("allowed-namespaces").unwrap();
    assert_eq!(allowed["value"], "edge-*");
    assert!(allowed["origin"].as_str().unwrap().starts_with("config map argocd-agent-params"), "{allowed}");
    assert_eq!(row("log-level"), None);

    let report = json("validate principal -o json", 1).await;
    let checks: Vec<&str> =
        report["findings"].as_array().unwrap().iter().map(|it| it["check"].as_str().unwrap()).collect();
    assert!(checks.contains(&"secret-missing") && checks.contains(&"jwt-missing"), "{report}");
    assert!(!checks.contains(&"options-invalid"), "{report}");
    let status = operator.run("status").await;
    assert!(status.code == Some(1) && status.stderr.contains("--metrics-url"), "{}", status.stderr);
    let top = operator.run("top --metrics-url http://127.0.0.1:1").await;
    assert!(top.code == Some(2) && top.stderr.contains("not a terminal"), "{}", top.stderr);
}
