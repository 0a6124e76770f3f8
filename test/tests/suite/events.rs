//! What people see of agents and resources when they look at Kubernetes objects and their Events.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt as _;
use kube::api::{Api, PostParams};
use serde_json::json;
use tiphys_proto::auth::AuthRequest;
use tiphys_proto::auth::authentication_client::AuthenticationClient;
use tiphys_shared::kube::recorder::Limits;
use tiphys_shared::model::Kind;
use tiphys_shared::process::metrics;
use tiphys_shared::protocol::ownership::AdoptionPolicy;

use super::fleet::{Cluster, Fleet, application, delete, merge};
use super::raw::{Raw, channel};

/// Everything is written at once.
const EAGER: Limits = Limits { pause: Duration::ZERO, burst: 1000, interval: Duration::ZERO, waiting: 1000 };

async fn fleet(agents: &[&str], autonomous: &[&str], limits: Limits) -> Fleet {
    let clusters: BTreeMap<String, Cluster> =
        agents.iter().map(|name| ((*name).to_owned(), Cluster::embedded())).collect();
    let mut fleet = Fleet::prepare(Cluster::embedded(), clusters, autonomous, 16 << 20).await;
    fleet.events = Some(limits);
    fleet
}

/// A cluster Secret as people make it, who give it any name.
async fn known_cluster(fleet: &Fleet, agent: &str, name: &str) -> Secret {
    let secrets: Api<Secret> = Api::namespaced(fleet.control.client(), &fleet.namespace);
    let secret = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {
            "argocd.argoproj.io/secret-type": "cluster",
            "argocd-agent.argoproj-labs.io/agent-name": agent,
        }},
        "stringData": {"name": agent, "server": format!("https://proxy:9090?agentName={agent}")},
    }));
    secrets.create(&PostParams::default(), &secret.unwrap()).await.unwrap()
}

/// Waits for an Event of that reason about that object.
async fn until_told(
    events: &Api<Event>,
    uid: Option<&str>,
    reason: &str,
    is_so: impl Fn(&Event) -> bool,
) -> Event {
    Fleet::until(reason, async || {
        events.list(&Default::default()).await.ok()?.items.into_iter().find(|event| {
            let about = event.regarding.as_ref().and_then(|regarding| regarding.uid.as_deref());
            event.reason.as_deref() == Some(reason) && about == uid && is_so(event)
        })
    })
    .await
}

fn note(event: &Event) -> &str {
    event.note.as_deref().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_comes_goes_and_is_refused_is_told_of_on_its_cluster_secret() {
    let mut fleet = fleet(&["edge", "homeless"], &[], EAGER).await;
    let secret = known_cluster(&fleet, "edge", "my-first-cluster").await;
    let uid = secret.uid();
    fleet.start_all().await;
    let events: Api<Event> = Api::namespaced(fleet.control.client(), &fleet.namespace);
    let came = until_told(&events, uid.as_deref(), "AgentConnected", |_| true).await;
    assert!(note(&came).contains("agent edge") && note(&came).contains("managed"), "{}", note(&came));
    assert_eq!(came.regarding.unwrap().name.as_deref(), Some("my-first-cluster"));
    assert_eq!(came.type_.as_deref(), Some("Normal"));

    fleet.kill_agent("edge");
    let went = until_told(&events, uid.as_deref(), "AgentDisconnected", |_| true).await;
    assert!(note(&went).contains("not connected any more"), "{}", note(&went));
    fleet.start_agent("edge");
    let is_twice = |event: &Event| event.series.as_ref().is_some_and(|series| series.count == 2);
    until_told(&events, uid.as_deref(), "AgentConnected", is_twice).await;

    let request = AuthRequest {
        method: "mtls".into(),
        mode: "both".into(),
        version: "test".into(),
        agent_namespace: "argocd".into(),
        ..AuthRequest::default()
    };
    AuthenticationClient::new(channel(&fleet, "edge").await).authenticate(request).await.unwrap_err();
    let refused = until_told(&events, uid.as_deref(), "AgentRefused", |_| true).await;
    assert!(note(&refused).contains("both"), "{}", note(&refused));
    assert_eq!(refused.type_.as_deref(), Some("Warning"));

    Fleet::until("what has no object", async || {
        metrics::render(&fleet.figures).unwrap().contains("outcome=\"homeless\"").then_some(())
    })
    .await;
    let written = events.list(&Default::default()).await.unwrap();
    assert!(!written.items.iter().any(|event| note(event).contains("homeless")), "{:#?}", written.items);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_agent_refuses_is_told_on_the_application_at_both_sides() {
    let mut fleet = fleet(&["edge"], &[], EAGER).await;
    fleet.adoption = AdoptionPolicy::Never;
    let here = fleet.at_cluster(Kind::Application, "edge");
    let own = here.create(&PostParams::default(), &application("guestbook", "their-own")).await.unwrap();
    fleet.start_all().await;
    let wanted = fleet.create("edge", "guestbook").await;
    let at_control: Api<Event> = Api::namespaced(fleet.control.client(), "edge");
    let told = until_told(&at_control, wanted.uid().as_deref(), "RefusedByAgent", |_| true).await;
    assert!(note(&told).contains("adoption policy"), "{}", note(&told));
    let at_cluster: Api<Event> = Api::namespaced(fleet.cluster("edge").client(), &fleet.namespace);
    let told = until_told(&at_cluster, own.uid().as_deref(), "ControlPlaneRefused", |_| true).await;
    assert!(note(&told).contains("adoption policy"), "{}", note(&told));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_changes_or_deletes_a_copy_is_told_why_it_comes_back() {
    let mut fleet = fleet(&["edge", "own"], &["own"], EAGER).await;
    fleet.start_all().await;
    fleet.create("edge", "guestbook").await;
    let original = application("guestbook", "main");
    fleet.at_cluster(Kind::Application, "own").create(&PostParams::default(), &original).await.unwrap();
    let copies = [
        (
            fleet.at_cluster(Kind::Application, "edge"),
            Api::<Event>::namespaced(fleet.cluster("edge").client(), &fleet.namespace),
            "the control plane owns",
        ),
        (
            fleet.at_control(Kind::Application, "own"),
            Api::<Event>::namespaced(fleet.control.client(), "own"),
            "the agent's cluster owns",
        ),
    ];
    for (copies, events, whose) in copies {
        let copy = Fleet::until_is(&copies, "guestbook", "the copy", |_| true).await;
        merge(&copies, "guestbook", json!({"spec": {"source": {"path": "elsewhere"}}})).await;
        let told = until_told(&events, copy.uid().as_deref(), "ChangeUndone", |_| true).await;
        assert!(note(&told).contains("change") && note(&told).contains(whose), "{}", note(&told));
        delete(&copies, "guestbook").await;
        let again = Fleet::until_is(&copies, "guestbook", "its return", |it| it.uid() != copy.uid()).await;
        let told = until_told(&events, again.uid().as_deref(), "ChangeUndone", |_| true).await;
        assert!(note(&told).contains("deleted") && note(&told).contains(whose), "{}", note(&told));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_made_what_an_autonomous_agent_takes_over_is_told() {
    let mut fleet = fleet(&["own"], &["own"], EAGER).await;
    fleet.start_all().await;
    let made = fleet.create("own", "guestbook").await;
    let original = application("guestbook", "v2");
    fleet.at_cluster(Kind::Application, "own").create(&PostParams::default(), &original).await.unwrap();
    let events: Api<Event> = Api::namespaced(fleet.control.client(), "own");
    let told = until_told(&events, made.uid().as_deref(), "TakenOver", |_| true).await;
    assert!(note(&told).contains("agent own is autonomous"), "{}", note(&told));
    // What is its own already is none's loss.
    merge(
        &fleet.at_cluster(Kind::Application, "own"),
        "guestbook",
        json!({"spec": {"source": {"path": "new"}}}),
    )
    .await;
    fleet.until_quiet().await;
    let all = events.list(&Default::default()).await.unwrap().items;
    let reasons: Vec<_> = all.iter().filter_map(|event| event.reason.as_deref()).collect();
    assert_eq!(reasons, ["TakenOver"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_comes_and_goes_all_the_time_is_told_of_once() {
    let mut fleet = fleet(&["edge"], &[], Limits::default()).await;
    let secret = known_cluster(&fleet, "edge", "cluster-edge").await;
    fleet.start_principal().await;
    for _ in 0..10 {
        drop(Raw::connect(&fleet, "edge").await);
    }
    let events: Api<Event> = Api::namespaced(fleet.control.client(), &fleet.namespace);
    for reason in ["AgentConnected", "AgentDisconnected"] {
        until_told(&events, secret.uid().as_deref(), reason, |_| true).await;
    }
    assert_eq!(fleet.figure("tiphys_kubernetes_events_total"), 2);
    assert_eq!(events.list(&Default::default()).await.unwrap().items.len(), 2);
}
