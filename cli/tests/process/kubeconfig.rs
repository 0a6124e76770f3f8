//! `tiphys kubeconfig`: what people have in their kubeconfig is theirs.

use std::path::Path;

use serde_json::{Value, json};

use crate::operator::operator;

const THEIRS: &str = "\
current-context: edge-1
clusters: [{name: edge-1, cluster: {server: 'https://10.0.0.1'}}]
users: [{name: edge-1, user: {token: admin}}]
contexts: [{name: edge-1, context: {cluster: edge-1, user: edge-1}}]
";

fn read(path: &Path) -> Value {
    serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_of_others_are_replaced_on_demand_only_and_nothing_useless_is_written() {
    let operator = operator().await;
    operator.does("pki init").await;
    operator.does("agent create edge-1").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeconfig");
    std::fs::write(&file, THEIRS).unwrap();
    let line = format!("kubeconfig --agent edge-1 --output {}", file.display());
    for (more, code, answer) in [
        ("", 1, "has \"edge-1\" as cluster and user already"),
        ("--use", 1, "--replace"),
        ("--context=a\u{1b}b", 2, "--context"),
        ("--server garbage", 2, "https://HOST:PORT"),
        ("--server http://proxy:9090", 2, "https://HOST:PORT"),
        ("--server https://", 2, "https://HOST:PORT"),
        ("--server https://ada@proxy:9090", 2, "https://HOST:PORT"),
        ("--server https://proxy:9090?agentName=edge-2", 2, "https://HOST:PORT"),
        ("--tls-server-name a/b", 2, "--tls-server-name"),
    ] {
        let run = operator.run(&format!("{line} {more}")).await;
        assert_eq!(run.code, Some(code), "{more}: {}", run.stderr);
        assert!(run.stderr.contains(answer), "{more}: {}", run.stderr);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), THEIRS, "{more}");
    }
    // Under another name it is added, and what it has made it makes again.
    operator.does(&format!("{line} --context proxied")).await;
    operator.does(&format!("{line} --context proxied --server https://[::1]:9090")).await;
    let document = read(&file);
    assert_eq!(document["clusters"][0]["cluster"]["server"], "https://10.0.0.1");
    assert_eq!(document["users"][0]["user"], json!({"token": "admin"}));
    assert_eq!(document["clusters"][1]["cluster"]["server"], "https://[::1]:9090");
    assert_eq!(document["contexts"].as_array().unwrap().len(), 2);
    assert_eq!(document["current-context"], "edge-1");
    // kube's own reader takes the file with the marks in it.
    kube::config::Kubeconfig::read_from(&file).unwrap();
    operator.does(&format!("{line} --replace")).await;
    assert_eq!(read(&file)["users"][0]["user"].get("token"), None);

    // For another agent under the same name, somebody has to say so.
    operator.does("agent create edge-2").await;
    let other = format!("kubeconfig --agent edge-2 --context proxied --output {}", file.display());
    assert_eq!(operator.run(&other).await.code, Some(1));
    operator.does(&format!("{other} --replace")).await;
}
