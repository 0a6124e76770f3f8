//! The demo, as a newcomer starts it.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use k8s_openapi::api::core::v1::Namespace;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::Value;

use crate::tiphys;

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn once_converges_tells_figures_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let output = tiphys()
        .args(["demo", "--agents", "4", "--apps", "3", "--once", "--json"])
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&figures["agents"], &figures["applications"]), (&4.into(), &12.into()));
    assert_eq!(figures["converged"], true);
    assert!(figures["events"]["sent"].as_u64().unwrap() >= 12, "{figures}");
    assert!(figures["delivery_ms"]["p50"].as_f64().unwrap() > 0.0, "{figures}");
    assert!(is_empty(folder.path()));
}

#[test]
fn json_without_a_summary_is_refused() {
    let run = crate::run(&["demo", "--json"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("remedy: add --once"), "{}", run.stderr);
    assert_eq!(crate::run(&["demo", "--agents", "0"]).code, Some(2));
}

#[tokio::test]
async fn every_cluster_can_be_reached_and_ctrl_c_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = tiphys()
        .args(["demo", "--agents", "2", "--apps", "2"])
        .env("TMPDIR", folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("Ctrl-C") {
        assert_ne!(lines.read_line(&mut said).unwrap(), 0, "the demo ended early: {said}");
    }
    let kubeconfig = said.split_whitespace().find(|word| word.ends_with("/kubeconfig")).unwrap();
    let config: Value = serde_json::from_slice(&std::fs::read(kubeconfig).unwrap()).unwrap();
    let contexts = config["contexts"].as_array().unwrap();
    assert_eq!(contexts.len(), 5, "a context per cluster, and one per cluster of an agent through the proxy");
    for context in contexts {
        let options =
            KubeConfigOptions { context: context["name"].as_str().map(str::to_owned), ..Default::default() };
        let access = Kubeconfig::read_from(kubeconfig).unwrap();
        let access = Config::from_custom_kubeconfig(access, &options).await.unwrap();
        assert_eq!(access.default_namespace, "argocd");
        let client = Client::try_from(access).unwrap();
        // Over TLS, with the CA of the file, and its token or certificate.
        Api::<Namespace>::all(client).get("argocd").await.unwrap();
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    lines.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{said}");
    assert!(is_empty(folder.path()), "the temporary folder is still there");
}

#[test]
fn a_reader_that_goes_away_ends_the_demo_cleanly() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = tiphys()
        .args(["demo", "--agents", "1", "--apps", "1"])
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(is_empty(folder.path()), "the temporary folder is still there");
}

#[test]
fn a_start_that_fails_is_explained_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_tiphys");
    // Neither the soft nor the hard limit leaves room for so many clusters.
    let script = format!("ulimit -n 64 && exec {program} demo --agents 200 --once");
    let output = Command::new("sh").args(["-c", &script]).env("TMPDIR", folder.path()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("remedy: allow more open files with ulimit -n"), "{stderr}");
    assert!(is_empty(folder.path()), "the temporary folder is still there");
}
