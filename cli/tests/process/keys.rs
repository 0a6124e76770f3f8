//! Private keys and those who are believed: no command loses them on the way.

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tiphys_shared::model::AgentName;
use tiphys_shared::process::clock;
use tiphys_shared::security::join_token::JoinToken;
use tiphys_shared::security::pki::{Ca, Certificate};

use crate::operator::{Operator, operator};
use crate::serve::DAY;

const CA: &str = "argocd-agent-ca";

/// A CA as `kubectl create secret generic` stores it: without the type that would protect it.
fn plain_pair() -> Ca {
    Ca::generate("kept", clock::now(), DAY).unwrap()
}

impl Operator {
    /// The kubeconfig of the control plane with another URL of the same server.
    fn by_another_name(&self) -> String {
        let path = &self.control.kubeconfig;
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains("127.0.0.1"), "{text}");
        let other = format!("{path}.other");
        std::fs::write(&other, text.replace("127.0.0.1", "localhost")).unwrap();
        other
    }

    /// Whom the agent's cluster believes.
    async fn believed(&self) -> Vec<String> {
        let data = self.secret(&self.edge, CA).await.data.unwrap();
        let bundle = Certificate::all_from_pem(&data["ca.crt"].0).unwrap();
        bundle.into_iter().map(|one| one.fingerprint).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_of_a_ca_is_never_overwritten_by_its_certificate() {
    let operator = operator().await;
    operator.does("pki init").await;
    let mut replaced = operator.secret(&operator.control, CA).await;
    let api: Api<Secret> = Api::namespaced(operator.control.client.clone(), "argocd");
    api.delete(CA, &kube::api::DeleteParams::default()).await.unwrap();
    replaced.type_ = Some("Opaque".to_owned());
    replaced.metadata.resource_version = None;
    api.create(&PostParams::default(), &replaced).await.unwrap();
    let own = plain_pair();
    let pair = [("tls.crt", own.certificate_pem().as_bytes()), ("tls.key", own.key_pem().expose())];
    operator.edge.create_secret(CA, &pair).await;
    let before = operator.kept().await;

    let edge = format!("--agent-kubeconfig {}", operator.edge.kubeconfig);
    let here = format!("--agent-kubeconfig {}", operator.by_another_name());
    let token = JoinToken::generate(AgentName::new("edge-1").unwrap(), own.certificate_pem().as_bytes());
    let join = format!("join --server 127.0.0.1:1 --token {}", token.unwrap());
    for (line, answer) in [
        // The agent's cluster is a control plane of its own.
        (format!("pki issue agent edge-1 {edge}"), "holds a private key, tls.key"),
        (format!("pki issue agent edge-1 --upsert {edge}"), "holds a private key, tls.key"),
        (format!("pki propagate --force {edge}"), "holds a private key, tls.key"),
        // It is the control plane itself, under another URL.
        (format!("pki issue agent edge-1 {here}"), "holds the CA with its key"),
        (format!("pki propagate --force {here}"), "holds the CA with its key"),
        (format!("pki issue agent edge-1 --agent-namespace default {here}"), "--same-context"),
        (join.clone(), "holds a private key, tls.key"),
        (format!("{join} --replace"), "--agent-namespace"),
    ] {
        let run = operator.run(&line).await;
        assert!(matches!(run.code, Some(1 | 2)), "{line}: {:?} {}", run.code, run.stderr);
        assert!(run.stderr.contains(answer), "{line}: {}", run.stderr);
        assert!(!run.stderr.contains("kubectl"), "{line} has the CA deleted: {}", run.stderr);
        assert_eq!(operator.kept().await, before, "{line} changed something");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_is_replaced_by_commands_while_both_are_believed() {
    let operator = operator().await;
    operator.does("pki init").await;
    operator.does_to_agent("pki issue agent edge-1").await;
    let [old] = &operator.believed().await[..] else { panic!("one CA is believed") };

    let ca = operator.secret(&operator.control, CA).await.data.unwrap()["tls.crt"].clone();
    let api: Api<Secret> = Api::namespaced(operator.control.client.clone(), "argocd");
    let bundle = Patch::Merge(json!({"data": {"ca.crt": ca}}));
    api.patch(CA, &PatchParams::default(), &bundle).await.unwrap();
    let run = operator.does("pki init --force").await;
    assert!(run.stderr.contains(&format!("ca.crt still has the CA CN=argocd-agent-ca with SHA-256 {old}")));
    let data = operator.secret(&operator.control, CA).await.data.unwrap();
    let new = Certificate::from_pem(&data["tls.crt"].0).unwrap().fingerprint;
    let bundle: Vec<String> = Certificate::all_from_pem(&data["ca.crt"].0)
        .unwrap()
        .into_iter()
        .map(|one| one.fingerprint)
        .collect();
    assert_eq!(bundle, [old.clone(), new.clone()]);

    operator.does_to_agent("pki propagate --force").await;
    assert_eq!(operator.believed().await, bundle);
    operator.does_to_agent("pki issue agent edge-1 --upsert").await;
    assert_eq!(operator.believed().await, bundle, "the overlap ends when a certificate is issued");

    let alone = Patch::Merge(json!({"data": {"ca.crt": null}}));
    api.patch(CA, &PatchParams::default(), &alone).await.unwrap();
    let run = operator.does_to_agent("pki issue agent edge-1 --upsert").await;
    assert!(run.stderr.contains(&format!("still has the CA CN=argocd-agent-ca with SHA-256 {old}")));
    assert_eq!(operator.believed().await, bundle);
    let run = operator.does_to_agent("pki propagate --force").await;
    assert!(run.stderr.contains(&format!("no longer has the CA CN=argocd-agent-ca with SHA-256 {old}")));
    assert_eq!(operator.believed().await, [new]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_nobody_could_verify_is_not_issued() {
    let operator = operator().await;
    operator.does("pki init").await;
    operator.does("pki issue principal").await;
    let before = operator.kept().await;
    let run = operator.run("pki issue principal --upsert --dns= --ip=").await;
    assert_eq!(run.code, Some(2), "{}", run.stderr);
    assert!(run.stderr.contains("give --dns or --ip"), "{}", run.stderr);
    assert_eq!(operator.kept().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_is_made_that_cannot_be_stored_and_people_are_told_what_takes_long() {
    let operator = operator().await;
    operator.does("pki init").await;
    operator.control.create_secret("argocd-agent-jwt", &[("jwt.key", b"kept")]).await;
    for line in
        ["jwt create-key", "pki init --key-algorithm rsa", "jwt create-key --principal-namespace none"]
    {
        let run = operator.run(line).await;
        assert_eq!(run.code, Some(1), "{line}: {}", run.stderr);
        assert!(!run.stderr.contains("making a key"), "{line}: {}", run.stderr);
    }
    let run = operator.does("pki init --force --key-size 2048").await;
    assert!(run.stderr.starts_with("making a key, which takes a moment\n"), "{}", run.stderr);
    let run = operator.does("pki init --force").await;
    assert!(!run.stderr.contains("making a key"), "{}", run.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_certificate_that_cannot_be_read_does_not_hide_the_others() {
    let operator = operator().await;
    operator.does("pki init").await;
    operator.does("pki issue resource-proxy --dns proxy").await;
    operator.control.create_secret("argocd-agent-principal-tls", &[("tls.crt", b"rubbish")]).await;
    let run = operator.run("pki inspect").await;
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stdout.contains("CN=argocd-agent-ca") && run.stdout.contains("proxy"), "{}", run.stdout);
    assert!(run.stdout.contains("cannot be read"), "{}", run.stdout);
    assert!(run.stderr.contains("argocd/argocd-agent-principal-tls"), "{}", run.stderr);
    let run = operator.run("pki inspect -o json").await;
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["ca"]["subject"], "CN=argocd-agent-ca");
    assert_eq!(report["resourceProxy"]["dns"], json!(["proxy"]));
    assert_eq!(report.get("principal"), None);
    assert!(report["unreadable"]["principal"].as_str().unwrap().contains("cannot be read"), "{report}");
    let run = operator.run("pki inspect --full").await;
    assert_eq!((run.code, run.stdout.matches("BEGIN CERTIFICATE").count()), (Some(1), 2), "{}", run.stderr);
}
