//! Every certificate, CA and key is replaced under a stream of changes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kube::api::PostParams;
use rustls::pki_types::ServerName;
use serde_json::json;
use tiphys_shared::kube::kinds;
use tiphys_shared::model::Kind;
use tiphys_shared::process::clock;
use tiphys_shared::security::pki::{self, Ca};
use tiphys_shared::security::tls::{ClientTls, Material, Policy};
use tiphys_shared::security::token::Issuer;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::super::fleet::{DAY, Fleet, application, merge, revision};
use super::{Edge, NAMESPACE, Stage, figure, put, put_pair};

/// The certificate that a port shows.
async fn shown(address: std::net::SocketAddr, client: &Material) -> String {
    let tls = ClientTls::new(client, Policy::default(), true).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(tls.current()).connect(name, stream).await.unwrap();
    pki::fingerprint(stream.get_ref().1.peer_certificates().unwrap().first().unwrap())
}

fn of(material: &Material) -> String {
    material.leaf().unwrap().unwrap().fingerprint
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_replaced_under_load_without_a_loss_and_each_agent_connects_again_once_at_most() {
    let stage = Stage::start(&[]).await;
    let names = ["edge-0", "edge-1", "edge-2", "edge-3", "edge-4"];
    let mut edges: Vec<Edge> = Vec::new();
    for name in names {
        // So short a life that a connection makes way as soon as there is a newer certificate.
        let short = stage.ca.issue_client::<&str>(name, &[], clock::now(), Duration::from_secs(240)).unwrap();
        let cluster = stage.known_cluster(name, &short).await;
        edges.push(stage.agent(cluster).await);
    }
    let control = stage.control.client();
    let there = |name: &str| kinds::api(&control, Kind::Application, Some(name));
    for name in names {
        there(name).create(&PostParams::default(), &application("app", "0")).await.unwrap();
    }
    let (done, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load = tokio::spawn({
        let (done, written, control) = (Arc::clone(&done), Arc::clone(&written), control.clone());
        async move {
            while !done.load(Ordering::Relaxed) {
                let next = written.load(Ordering::Relaxed) + 1;
                for name in names {
                    let api = kinds::api(&control, Kind::Application, Some(name));
                    let spec = json!({"spec": {"source": {"targetRevision": next.to_string()}}});
                    merge(&api, "app", spec).await;
                }
                written.store(next, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    let (at, figures) = (&stage.control, &stage.figures);
    let client = stage.ca.issue_client::<&str>("edge-0", &[], clock::now(), DAY).unwrap();

    // The principal's certificate, of the same CA; and one that is no pair, which changes nothing.
    let issue = |ca: &Ca| ca.issue_server(&["localhost", "127.0.0.1"], clock::now(), DAY).unwrap();
    let second = issue(&stage.ca);
    put_pair(at, "argocd-agent-principal-tls", &second).await;
    Stage::until_reloaded(figures, "server", 1.0).await;
    assert_eq!(shown(stage.address, &client).await, of(&second));
    let no_pair = Material { key: issue(&stage.ca).key, ..issue(&stage.ca) };
    put_pair(at, "argocd-agent-principal-tls", &no_pair).await;
    Fleet::until("the refusal", async || {
        let labels = "kind=\"server\",outcome=\"refused\"";
        (figure(figures, "tiphys_certificate_reloads_total", labels) >= 1.0).then_some(())
    })
    .await;
    assert_eq!(shown(stage.address, &client).await, of(&second));
    put_pair(at, "argocd-agent-principal-tls", &second).await;

    // A second CA beside the first, on both sides; then what it has signed; then it alone.
    let other = Ca::generate("second", clock::now(), DAY).unwrap();
    let both = format!("{}{}", stage.ca.certificate_pem(), other.certificate_pem());
    let pem = |ca: &Ca| ca.certificate_pem().as_bytes().to_vec();
    put(at, "argocd-agent-ca", &[("ca.crt", both.as_bytes())]).await;
    for edge in &edges {
        put(&edge.cluster, "argocd-agent-ca", &[("ca.crt", both.as_bytes())]).await;
        Stage::until_reloaded(&edge.figures, "client", 1.0).await;
    }
    Stage::until_reloaded(figures, "server", 2.0).await;
    put_pair(at, "argocd-agent-principal-tls", &issue(&other)).await;
    Stage::until_reloaded(figures, "server", 3.0).await;
    for (name, edge) in names.iter().zip(&edges) {
        let long = other.issue_client::<&str>(name, &[], clock::now(), DAY).unwrap();
        put_pair(&edge.cluster, "argocd-agent-client-tls", &long).await;
    }
    let connections = |edge: &Edge| figure(&edge.figures, "argocd_agent_connections_total", "");
    for edge in &edges {
        Fleet::until("the new connection", async || {
            (connections(edge) >= 2.0 && edge.handle.is_connected()).then_some(())
        })
        .await;
    }
    put(at, "argocd-agent-ca", &[("tls.crt", &pem(&other)), ("ca.crt", &pem(&other))]).await;
    for edge in &edges {
        put(&edge.cluster, "argocd-agent-ca", &[("ca.crt", &pem(&other))]).await;
        Stage::until_reloaded(&edge.figures, "client", 3.0).await;
    }
    Stage::until_reloaded(figures, "server", 4.0).await;

    // The key of tokens, and the certificate of the resource proxy.
    put(at, "argocd-agent-jwt", &[("jwt.key", Issuer::generate_key(2048).unwrap().expose())]).await;
    Stage::until_reloaded(figures, "token-key", 1.0).await;
    let proxy = issue(&other);
    put_pair(at, "argocd-agent-resource-proxy-tls", &proxy).await;
    // It has followed its CA twice.
    Fleet::until("the proxy's new certificate", async || {
        let client = other.issue_client::<&str>("edge-0", &[], clock::now(), DAY).unwrap();
        (shown(stage.proxy, &client).await == of(&proxy)).then_some(())
    })
    .await;

    // Some more changes after everything, and then all of them are there.
    let so_far = written.load(Ordering::Relaxed);
    Fleet::until("more changes", async || (written.load(Ordering::Relaxed) > so_far).then_some(())).await;
    done.store(true, Ordering::Relaxed);
    load.await.unwrap();
    let last = written.load(Ordering::Relaxed).to_string();
    for (name, edge) in names.iter().zip(&edges) {
        let here = kinds::api(&edge.cluster.client(), Kind::Application, Some(NAMESPACE));
        Fleet::until_is(&here, "app", &format!("the last change at {name}"), |app| revision(app) == last)
            .await;
        assert_eq!(connections(edge), 2.0, "{name} connected more often than its certificate was replaced");
    }
    let names: BTreeSet<String> =
        stage.principal.agents().iter().map(|agent| agent.name.to_string()).collect();
    assert_eq!(names.len(), edges.len());
    stage.end().await;
}
