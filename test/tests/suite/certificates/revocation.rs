//! A certificate that is blocked ends what is open with it, at once, and opens nothing more.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tiphys_principal::blocklist::NAME;
use tiphys_shared::process::clock;
use tiphys_shared::security::tls::{Alpn, ClientTls, Policy};
use tiphys_shared::wire::transport::{self, DialOptions};

use super::super::fleet::{DAY, Fleet};
use super::{NAMESPACE, Stage, figure};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_agent_is_cut_off_and_kept_out_until_it_is_unblocked() {
    let stage = Stage::start(&[]).await;
    let certificate = |name| stage.ca.issue_client::<&str>(name, &[], clock::now(), DAY).unwrap();
    let (doomed, spared) = (certificate("doomed"), certificate("spared"));
    let other = stage.agent(stage.known_cluster("spared", &spared).await).await;
    let edge = stage.agent(stage.known_cluster("doomed", &doomed).await).await;
    let maps: Api<ConfigMap> = Api::namespaced(stage.control.client(), NAMESPACE);
    let secrets: Api<Secret> = Api::namespaced(stage.control.client(), NAMESPACE);
    let secret = json!({"metadata": {"name": "cluster-doomed", "labels": {
        "argocd.argoproj.io/secret-type": "cluster", "argocd-agent.argoproj-labs.io/agent-name": "doomed",
    }}});
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let fingerprint = doomed.leaf().unwrap().unwrap().fingerprint.to_lowercase();
    // One that nobody has, and one that is none, stand in nobody's way.
    let map = json!({"metadata": {"name": NAME}, "data": {"ab".repeat(32): "lost", "rubbish": ""}});
    maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
    let is_connected = |name: &str| {
        let agents = stage.principal.agents();
        agents.iter().any(|agent| agent.name.as_str() == name && agent.connected_since.is_some())
    };
    let blocked = |data: serde_json::Value| Patch::Merge(json!({"data": data}));
    maps.patch(NAME, &PatchParams::default(), &blocked(json!({fingerprint.as_str(): "stolen"})))
        .await
        .unwrap();
    Fleet::until("the end of its stream", async || {
        (!edge.handle.is_connected() && !is_connected("doomed")).then_some(())
    })
    .await;
    assert!(figure(&stage.figures, "tiphys_principal_revoked_connections_total", "") >= 1.0);
    Fleet::until("the refusal of its next attempt", async || {
        let labels = "cause=\"revoked\"";
        (figure(&stage.figures, "tiphys_principal_handshake_failures_total", labels) >= 1.0).then_some(())
    })
    .await;
    let events: Api<Event> = Api::namespaced(stage.control.client(), NAMESPACE);
    Fleet::until("what is told of it", async || {
        let told = events.list(&Default::default()).await.ok()?.items;
        told.into_iter().find(|event| {
            event.reason.as_deref() == Some("AgentRevoked")
                && event.note.as_deref().is_some_and(|note| note.contains("stolen"))
        })
    })
    .await;
    for address in [stage.address, stage.proxy] {
        let tls = ClientTls::new(&doomed, Policy { alpn: Alpn::H2, ..Policy::default() }, false).unwrap();
        let dial = DialOptions::new("127.0.0.1", address.port(), Some(tls));
        let refused = transport::dial(&dial).await.unwrap_err().to_string();
        assert!(refused.contains("it has been revoked"), "{refused}");
    }
    assert!(other.handle.is_connected(), "another agent was cut off");
    assert_eq!(figure(&other.figures, "argocd_agent_connections_total", ""), 1.0);

    maps.patch(NAME, &PatchParams::default(), &blocked(json!({fingerprint.as_str(): null}))).await.unwrap();
    Fleet::until("its return", async || edge.handle.is_connected().then_some(())).await;
    stage.end().await;
}
