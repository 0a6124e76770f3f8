//! Bad input: the cause and the remedy are named, and the exit code is not zero.

use std::net::TcpListener;

use crate::{kubeconfig, run, tiphys};

#[test]
fn all_mistakes_are_reported_together() {
    let run =
        run(&["agent", "--server-port", "none", "--log-level", "loud", "--tls-client-cert", "/no/cert"]);
    assert_eq!(run.code, Some(2));
    assert_eq!(
        run.stderr,
        "\
error: 6 problems
  1. --server-port: \"none\" is not a number
     remedy: write a whole number up to 65535
  2. --log-level: log level \"loud\" does not exist
     remedy: use one of fatal, error, warn, info, debug, trace
  3. --server-address is missing: the principal to connect to
     remedy: give its host name, such as --server-address principal.example.com
  4. --creds is missing: how this agent proves who it is
     remedy: write --creds mtls:any, --creds userpass:FILE or --creds header:any
  5. --tls-client-cert is set, but --tls-client-key is not
     remedy: set both, or neither to use the Secret argocd-agent-client-tls
  6. there is no Kubernetes API to talk to: no --kubeconfig, no $KUBECONFIG, no ~/.kube/config, and this process \
does not run inside a cluster
     remedy: give a kubeconfig file with --kubeconfig FILE
"
    );
}

#[test]
fn a_mistake_in_a_variable_or_a_file_is_named_by_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.yaml");
    std::fs::write(&file, "server_address: here\nagent-mode: managed\nmetrics-port: yes\n").unwrap();
    let output = tiphys()
        .args(["agent", "--config"])
        .arg(&file)
        .env("ARGOCD_AGENT_KEEP_ALIVE_PING_INTERVAL", "often")
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    let place = file.display();
    assert!(stderr.contains(&format!("{place}: unknown key \"server_address\"")), "{stderr}");
    assert!(stderr.contains("remedy: did you mean \"server-address\"?"), "{stderr}");
    assert!(stderr.contains(&format!("{place}: metrics-port: \"yes\" is not a number")), "{stderr}");
    assert!(
        stderr.contains("$ARGOCD_AGENT_KEEP_ALIVE_PING_INTERVAL: \"often\" is not a duration"),
        "{stderr}"
    );
}

#[test]
fn an_unreadable_kubeconfig_is_named() {
    let run = run(&[
        "principal",
        "-n",
        "argocd",
        "--auth",
        "mtls:subject:CN=(.*)",
        "--kubeconfig",
        "/no/such/file",
    ]);
    assert_eq!(run.code, Some(2));
    assert_eq!(
        run.stderr,
        "error: kubeconfig /no/such/file cannot be read: No such file or directory (os error 2)
  remedy: check the path and its permissions, or give another file with --kubeconfig\n"
    );
}

#[test]
fn a_busy_port_is_named_with_the_flag_that_chooses_another() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = kubeconfig(folder.path(), "http://127.0.0.1:1");
    let taken = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0")).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (side, extra) in [
        ("principal", ["--auth", "mtls:subject:CN=(.*)"].as_slice()),
        ("agent", &["--server-address", "localhost", "--agent-mode", "managed", "--creds", "mtls:any"]),
    ] {
        let line = [&[side, "--kubeconfig", &kubeconfig, "--healthz-port=0", "--metrics-port", &port], extra]
            .concat();
        let run = run(&line);
        assert_eq!(run.code, Some(1), "{}", run.stderr);
        assert!(run.stderr.contains(&format!("cannot listen on *:{port}")), "{}", run.stderr);
        assert!(run.stderr.contains("choose another with --metrics-port"), "{}", run.stderr);
    }
}

#[test]
fn a_ca_that_is_none_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = kubeconfig(folder.path(), "http://127.0.0.1:1");
    let ca = folder.path().join("ca.crt");
    std::fs::write(&ca, "not a certificate").unwrap();
    let run = run(&[
        "agent",
        "--kubeconfig",
        &kubeconfig,
        "--server-address=localhost",
        "--agent-mode=managed",
        "--creds=mtls:any",
        "--root-ca-path",
        ca.to_str().unwrap(),
    ]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("ca.crt holds no certificate\n  remedy: give a file of certificates in PEM"));
}

#[test]
fn an_api_server_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody listens on a port that has just been given back.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let kubeconfig = kubeconfig(folder.path(), &format!("http://{address}"));
    let run = run(&[
        "principal",
        "--kubeconfig",
        &kubeconfig,
        "--auth=mtls:subject:CN=(.*)",
        "--metrics-port=0",
        "--healthz-port=0",
        "--listen-port=0",
    ]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(
        run.stderr.contains("cannot read config map argocd/argocd-agent-tls-blocklist"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("remedy: "), "{}", run.stderr);
}
