//! Peers that lie, err or dawdle: they are told so, and harm nobody else.

use std::time::Duration;

use futures::StreamExt as _;
use serde_json::json;
use tiphys_proto::event_stream::Event as WireEvent;
use tiphys_proto::event_stream::event_stream_client::EventStreamClient;
use tiphys_proto::version::VersionRequest;
use tiphys_proto::version::version_client::VersionClient;
use tiphys_shared::model::event::{Payload, REFUSED};
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{AgentName, Event, EventKind, Kind, Mode, Target};
use tiphys_shared::process::clock;
use tiphys_shared::security::token::{Issuer, Subject};
use tiphys_shared::wire::codec;
use tonic::Code;

use super::super::fleet::{Fleet, merge};
use super::super::raw::{Raw, channel, token, with_token};

fn status_update(namespace: &str, name: &str, source_uid: &str) -> Event {
    let mut event = Event::request(
        Target::Application,
        EventKind::StatusUpdate,
        Payload::Object(
            serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": namespace,
                    "annotations": {"argocd.argoproj.io/source-uid": source_uid}},
                "status": {"sync": {"status": "Forged"}},
            }))
            .unwrap(),
        ),
    );
    event.sent_at = Some(clock::now());
    event
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_reaches_nothing_outside_its_namespace_whatever_an_event_says() {
    let fleet = Fleet::embedded(&["victim"]).await;
    let victim = fleet.create("victim", "target").await;
    let mut liar = Raw::connect(&fleet, "liar").await;
    let before = fleet.at_control(Kind::Application, "victim").get("target").await.unwrap();
    for namespace in ["victim", "../victim", "", "kube-system"] {
        for kind in [EventKind::StatusUpdate, EventKind::Delete, EventKind::SpecUpdate, EventKind::Create] {
            let mut event = status_update(namespace, "target", &victim.metadata.uid.clone().unwrap());
            event.kind = kind;
            liar.say(&event).await;
            liar.hear_ack(&event.id).await;
        }
    }
    // Projects are nobody's but the control plane's.
    let mut project = status_update("victim", "default", "x");
    project.target = Target::AppProject;
    project.kind = EventKind::Create;
    liar.say(&project).await;
    assert!(liar.hear_ack(&project.id).await.extensions.contains_key(REFUSED));

    let after = fleet.at_control(Kind::Application, "victim").get("target").await.unwrap();
    assert_eq!(after.resource_version(), before.resource_version(), "a foreign application was touched");
    let projects = fleet.at_control(Kind::AppProject, "victim").list(&Default::default()).await.unwrap();
    assert!(projects.items.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_sent_nothing_that_is_not_its_own() {
    let fleet = Fleet::embedded(&["victim"]).await;
    fleet.create("victim", "secret").await;
    let mut liar = Raw::connect(&fleet, "liar").await;
    // It claims to hold the other's application, and asks for everything.
    for (kind, payload) in [
        (
            EventKind::RequestUpdate,
            json!({"name": "secret", "namespace": "victim", "uid": "", "kind": "Application", "checksum": ""}),
        ),
        (EventKind::RequestSyncedResourceList, json!({"checksum": "AAAA"})),
    ] {
        let event = Event::request(Target::ResourceResync, kind, Payload::Document(payload));
        liar.say(&event).await;
        liar.hear_ack(&event.id).await;
    }
    let last = liar.hear(|event| event.kind == EventKind::Delete).await;
    let Payload::Object(object) = &last.payload else { panic!("not an object: {last:?}") };
    assert_eq!(object.namespace(), "liar");
    assert_eq!(object.field("spec"), None, "the other's spec was told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_event_is_acknowledged_as_bad_and_the_stream_lives_on() {
    let fleet = Fleet::embedded(&[]).await;
    let mut agent = Raw::connect(&fleet, "clumsy").await;
    let good = Event::request(Target::Heartbeat, EventKind::Ping, Payload::Empty);
    for garbage in ["", "{", "[]", "null", "{\"metadata\": 7}", &"[".repeat(100_000)] {
        let mut message = codec::encode(&status_update("clumsy", "a", "b")).unwrap();
        let event = message.event.as_mut().unwrap();
        event.data =
            Some(tiphys_proto::cloudevents::cloud_event::Data::BinaryData(garbage.as_bytes().to_vec()));
        let id = codec::decode(message.clone()).unwrap_err().ack.unwrap().id;
        agent.say.send(message).await.unwrap();
        let ack = agent.hear_ack(&id).await;
        assert!(ack.extensions.contains_key(REFUSED), "{garbage:.20}");
    }
    agent.say.send(WireEvent { event: None }).await.unwrap();
    agent.say(&good).await;
    agent.hear_ack(&good.id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconnect_before_the_old_stream_is_closed_works_at_once() {
    let fleet = Fleet::embedded(&[]).await;
    let mut old = Raw::connect(&fleet, "twice").await;
    let mut new = Raw::connect(&fleet, "twice").await;
    let ping = Event::request(Target::Heartbeat, EventKind::Ping, Payload::Empty);
    new.say(&ping).await;
    new.hear_ack(&ping.id).await;
    let ended = async { while let Some(Ok(_)) = old.hear.next().await {} };
    tokio::time::timeout(Duration::from_secs(30), ended).await.expect("the old stream was left open");
    let status = fleet.principal().agents();
    assert!(status.iter().any(|agent| agent.name.as_str() == "twice" && agent.connected_since.is_some()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_updates_of_one_application_to_a_slow_agent_are_one_entry() {
    let fleet = Fleet::embedded(&[]).await;
    super::super::fleet::create_namespace(&fleet.control.client(), "slow").await;
    let mut slow = Raw::connect(&fleet, "slow").await;
    fleet.create("slow", "busy").await;
    let first = slow.hear(|event| event.target == Target::Application).await;
    let there = fleet.at_control(Kind::Application, "slow");
    for n in 0..10_000 {
        merge(&there, "busy", json!({"spec": {"source": {"targetRevision": format!("r{n}")}}})).await;
    }
    let outbox = |fleet: &Fleet| fleet.principal().agents()[0].outbox;
    // The request for a resync is unanswered as well.
    assert!(outbox(&fleet) <= 2, "{} entries", outbox(&fleet));
    slow.ack(&first).await;
    // Whatever was sent again meanwhile holds back what is newer until it is acknowledged, too.
    loop {
        let update = slow.hear(|event| event.target == Target::Application).await;
        slow.ack(&update).await;
        let Payload::Object(object) = &update.payload else { continue };
        if object.data["spec"]["source"]["targetRevision"] == "r9999" {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_one_agent_with_a_token_of_another_is_refused() {
    let fleet = Fleet::embedded(&[]).await;
    let bob = token(&channel(&fleet, "bob").await, Mode::Managed).await;
    let alice = channel(&fleet, "alice").await;
    let refused =
        VersionClient::new(alice.clone()).version(with_token(VersionRequest {}, &bob)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(refused.message().contains("alice") && refused.message().contains("bob"), "{refused}");
    let empty = futures::stream::pending::<WireEvent>();
    let refused = EventStreamClient::new(alice).subscribe(with_token(empty, &bob)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_foreign_and_malformed_tokens_get_a_clear_error() {
    let fleet = Fleet::embedded(&[]).await;
    let channel = channel(&fleet, "alice").await;
    let subject = Subject { agent: AgentName::new("alice").unwrap(), mode: Mode::Managed };
    let long_ago = clock::now() - jiff::SignedDuration::from_hours(48);
    let expired = fleet.issuer.issue(&subject, long_ago).unwrap().access;
    let pair = fleet.issuer.issue(&subject, clock::now()).unwrap();
    let foreign = Issuer::generate(2048).unwrap().0.issue(&subject, clock::now()).unwrap().access;
    for (token, word) in [
        (expired.as_str(), "expired"),
        (foreign.as_str(), "signature"),
        (pair.refresh.as_deref().unwrap(), "refresh"),
        ("garbage", "token"),
    ] {
        let refused = VersionClient::new(channel.clone())
            .version(with_token(VersionRequest {}, token))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
        assert!(refused.message().contains(word), "{word}: {refused}");
    }
    let refused = VersionClient::new(channel).version(VersionRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}
