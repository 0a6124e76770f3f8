//! Which cluster a command speaks to, and what happens where nobody answers.

use std::net::TcpListener;

use crate::serve::{Process, cluster};
use crate::{Run, kubeconfig, tiphys};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_is_named_outranks_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let there = cluster(folder.path(), "there").await;
    there.create_namespace("elsewhere").await;
    let local = folder.path().join("ctl.conf").display().to_string();
    let run = async |line: &str| -> Run {
        let mut command = tiphys();
        command.args(line.split_whitespace()).args(["--config", &local]).env("KUBECONFIG", &there.kubeconfig);
        command.env("ARGOCD_AGENT_PRINCIPAL_CONTEXT", "nobody");
        tokio::task::spawn_blocking(move || command.output().unwrap().into()).await.unwrap()
    };
    let added = run("config add principal --name main --context here --namespace elsewhere").await;
    assert_eq!(added.code, Some(0), "{}", added.stderr);
    // The variable is of use, and names nobody.
    let unnamed = run("jwt inspect-key").await;
    assert!(unnamed.code == Some(1) && unnamed.stderr.contains("nobody"), "{}", unnamed.stderr);

    let named = run("jwt create-key --principal main").await;
    assert_eq!(named.code, Some(0), "{}", named.stderr);
    let secrets: kube::Api<k8s_openapi::api::core::v1::Secret> =
        kube::Api::namespaced(there.client.clone(), "elsewhere");
    assert!(secrets.get_opt("argocd-agent-jwt").await.unwrap().is_some());
    // What else was named outranks the entry, which has to be there all the same.
    let both = run("jwt inspect-key --principal main --principal-context nobody").await;
    assert!(both.code == Some(1) && both.stderr.contains("nobody"), "{}", both.stderr);
    let unknown = run("jwt inspect-key --principal nosuch --principal-context here").await;
    assert!(unknown.code != Some(0) && unknown.stderr.contains("nosuch"), "{}", unknown.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_in_a_folder_is_judged_by_its_own_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let there = cluster(folder.path(), "there").await;
    let mut command = tiphys();
    command.args(["validate", "principal", "--kubeconfig", &there.kubeconfig]);
    command.args(["--", "--embedded", "/nonexistent/control-plane"]);
    let run: Run = tokio::task::spawn_blocking(move || command.output().unwrap().into()).await.unwrap();
    assert!(!run.stdout.contains("two control planes"), "{}", run.stdout);
    // It has an --auth of its own.
    assert!(!run.stdout.contains("--auth") && run.stdout.contains("argocd-agent-jwt"), "{}", run.stdout);
}

/// An API server that takes connections and says nothing.
fn silent(folder: &std::path::Path) -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let kubeconfig = kubeconfig(folder, &format!("http://{}", listener.local_addr().unwrap()));
    (listener, kubeconfig)
}

#[test]
fn a_side_that_waits_for_its_api_server_ends_when_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let (listener, kubeconfig) = silent(folder.path());
    let principal = ["principal", "--auth=mtls:CN=(.*)", "--listen-port=0"];
    let agent = ["agent", "--server-address=localhost", "--agent-mode=managed", "--creds=mtls:any"];
    for line in [&principal[..], &agent] {
        let ports = ["--kubeconfig", &kubeconfig, "--metrics-port=0", "--healthz-port=0"];
        let process = Process::start(&[line, &ports].concat());
        // It has begun to ask.
        let _asked = listener.accept().unwrap();
        process.signal("-TERM");
        assert_eq!(process.exit_code(), Some(0), "{line:?}");
    }
}
