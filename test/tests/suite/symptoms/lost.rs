//! Lost, stuck or never sent.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use kube::ResourceExt as _;
use kube::api::{ListParams, PostParams};
use kube::core::DynamicObject;
use serde_json::{Value, json};
use tiphys_agent::connection::{Error, Grpc, Link, Opened};
use tiphys_shared::model::feature::Features;
use tiphys_shared::model::{EventKind, Kind, Mode, Target};
use tiphys_shared::security::passwords::Credentials;
use tiphys_shared::wire::codec;
use tokio_util::sync::CancellationToken;

use super::super::fleet::{Fleet, agent_config, application, delete, merge, revision};
use super::super::raw::Raw;

/// A way to the principal that swallows and acknowledges events about Applications while it is told to.
struct Lossy {
    inner: Grpc,
    lose: Arc<AtomicBool>,
    /// The resources whose events were swallowed.
    lost: Arc<Mutex<BTreeSet<String>>>,
}

impl Link for Lossy {
    async fn open(&self, mode: Mode, offer: Features) -> Result<Opened, Error> {
        let mut opened = self.inner.open(mode, offer).await?;
        let (lose, lost) = (Arc::clone(&self.lose), Arc::clone(&self.lost));
        let answer = opened.outgoing.clone();
        opened.incoming = opened
            .incoming
            .filter_map(move |message| {
                let (lose, lost, answer) = (Arc::clone(&lose), Arc::clone(&lost), answer.clone());
                async move {
                    let event = codec::decode(message.clone().ok()?).ok();
                    match event {
                        Some(event)
                            if lose.load(Ordering::Relaxed) && event.target == Target::Application =>
                        {
                            answer.send(codec::encode(&event.ack()).unwrap()).await.unwrap();
                            lost.lock().unwrap().insert(event.resource_id);
                            None
                        }
                        _ => Some(message),
                    }
                }
            })
            .boxed();
        Ok(opened)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_event_stays_lost_until_the_agent_is_restarted() {
    let mut fleet = Fleet::embedded(&["agent"]).await;
    fleet.kill_agent("agent");
    let (lose, lost) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let inner = Grpc {
        dial: fleet.dial("agent"),
        credentials: Credentials::Mtls,
        namespace: fleet.namespace.clone(),
        version: "test".to_owned(),
        compression: false,
        max_message_size: 16 << 20,
    };
    let config = agent_config(Mode::Managed, fleet.cluster("agent").client(), &fleet.namespace);
    let agent =
        tiphys_agent::Agent::new(config, Lossy { inner, lose: Arc::clone(&lose), lost: Arc::clone(&lost) });
    let stop = CancellationToken::new();
    let running = tokio::spawn(agent.run(stop.clone()));
    for name in ["kept", "doomed"] {
        fleet.create("agent", name).await;
        Fleet::until_is(&fleet.at_cluster(Kind::Application, "agent"), name, "the copy", |_| true).await;
    }

    lose.store(true, Ordering::Relaxed);
    let there = fleet.at_control(Kind::Application, "agent");
    merge(&there, "kept", json!({"spec": {"source": {"targetRevision": "v2"}}})).await;
    delete(&there, "doomed").await;
    fleet.create("agent", "new").await;
    // All three are lost and acknowledged, and nobody has them.
    Fleet::until("all lost", async || (lost.lock().unwrap().len() == 3).then_some(())).await;
    Fleet::until("all acknowledged", async || {
        fleet.principal().agents().iter().all(|agent| agent.outbox == 0).then_some(())
    })
    .await;
    let here = fleet.at_cluster(Kind::Application, "agent");
    lose.store(false, Ordering::Relaxed);

    // Nobody reconnects anything.
    Fleet::until_is(&here, "kept", "the change", |app| revision(app) == "v2").await;
    Fleet::until_is(&here, "new", "the new one", |_| true).await;
    Fleet::until_gone(&here, "doomed").await;
    assert!(fleet.figure("tiphys_principal_resync_repaired_total") >= 3);
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_status_stays_lost_until_the_principal_is_restarted() {
    let fleet = Fleet::embedded(&["agent"]).await;
    fleet.create("agent", "app").await;
    let (here, there) =
        (fleet.at_cluster(Kind::Application, "agent"), fleet.at_control(Kind::Application, "agent"));
    Fleet::until_is(&here, "app", "the copy", |_| true).await;
    let status = json!({"health": {"status": "Healthy"}});
    merge(&here, "app", json!({"status": status})).await;
    Fleet::until_is(&there, "app", "the status", |app| app.data["status"] == status).await;
    fleet.until_quiet().await;
    // As if it had never come: the control plane has another one.
    merge(&there, "app", json!({"status": {"health": {"status": "Unknown"}}})).await;
    Fleet::until_is(&there, "app", "the status again", |app| app.data["status"] == status).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_of_more_than_a_thousand_queued_events_are_dropped() {
    let mut fleet = Fleet::embedded(&["agent"]).await;
    fleet.until_quiet().await;
    fleet.kill_agent("agent");
    for n in 0..1_200 {
        fleet.create("agent", &format!("app-{n}")).await;
    }
    fleet.start_agent("agent");
    let here = fleet.at_cluster(Kind::Application, "agent");
    Fleet::until("all of them", async || {
        (here.list(&ListParams::default()).await.unwrap().items.len() == 1_200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_started_while_the_agent_is_away_never_arrives() {
    let mut fleet = Fleet::embedded(&["agent"]).await;
    fleet.create("agent", "app").await;
    let (here, there) =
        (fleet.at_cluster(Kind::Application, "agent"), fleet.at_control(Kind::Application, "agent"));
    Fleet::until_is(&here, "app", "the copy", |_| true).await;
    fleet.until_quiet().await;
    fleet.kill_agent("agent");
    merge(&there, "app", json!({"operation": {"sync": {"revision": "wanted"}}})).await;
    // A later change of the spec must not take its place, nor the end of the principal.
    merge(&there, "app", json!({"spec": {"source": {"targetRevision": "v2"}}})).await;
    fleet.kill_principal();
    fleet.start_principal().await;
    fleet.start_agent("agent");
    Fleet::until_is(&here, "app", "the operation", |app| {
        app.data["operation"]["sync"]["revision"] == "wanted" && revision(app) == "v2"
    })
    .await;
    // It runs once, though everybody forgets that it was told.
    fleet.kill_principal();
    fleet.kill_agent("agent");
    merge(&here, "app", json!({"operation": null, "status": {"operationState": {"phase": "Succeeded"}}}))
        .await;
    fleet.start_principal().await;
    fleet.start_agent("agent");
    Fleet::until_is(&there, "app", "the request taken off", |app| app.data["operation"].is_null()).await;
    fleet.until_quiet().await;
    assert!(here.get("app").await.unwrap().data["operation"].is_null(), "it was started twice");
    // The same sync asked for again is another one.
    merge(&there, "app", json!({"operation": {"sync": {"revision": "wanted"}}})).await;
    Fleet::until_is(&here, "app", "the second operation", |app| !app.data["operation"].is_null()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_unacknowledged_is_lost_at_reconnect() {
    let mut fleet = Fleet::embedded(&["agent"]).await;
    fleet.create("agent", "app").await;
    let here = fleet.at_cluster(Kind::Application, "agent");
    Fleet::until_is(&here, "app", "the copy", |_| true).await;
    fleet.kill_principal();
    let status = json!({"health": {"status": "Degraded"}});
    merge(&here, "app", json!({"status": status})).await;
    fleet.start_principal().await;
    let there = fleet.at_control(Kind::Application, "agent");
    Fleet::until_is(&there, "app", "the status", |app| app.data["status"] == status).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_half_open_connection_is_sent_into_after_the_agent_came_back() {
    let fleet = Fleet::embedded(&[]).await;
    super::super::fleet::create_namespace(&fleet.control.client(), "agent").await;
    // It reads nothing any more, and its end is never seen.
    let _half_open = Raw::connect(&fleet, "agent").await;
    let mut alive = Raw::connect(&fleet, "agent").await;
    fleet.create("agent", "app").await;
    let event =
        alive.hear(|event| event.target == Target::Application && event.kind == EventKind::Create).await;
    alive.ack(&event).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_oversized_message_stops_everything_behind_it() {
    let fleet = Fleet::with_messages_of(&["agent"], 64 * 1024).await;
    let there = fleet.at_control(Kind::Application, "agent");
    let here = fleet.at_cluster(Kind::Application, "agent");
    let mut large = application("large", "main");
    large.data["spec"]["source"]["helm"] = json!({"values": "x".repeat(100 * 1024)});
    there.create(&PostParams::default(), &large).await.unwrap();
    for n in 0..5 {
        fleet.create("agent", &format!("small-{n}")).await;
        Fleet::until_is(&here, &format!("small-{n}"), "a small one", |_| true).await;
    }
    assert!(here.get_opt("large").await.unwrap().is_none());
    assert!(fleet.figure("principal_errors") >= 1, "nobody was told");
    // Once it fits, it passes.
    merge(&there, "large", json!({"spec": {"source": {"helm": null}}})).await;
    Fleet::until_is(&here, "large", "the large one, smaller", |_| true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_or_project_seen_before_its_agent_came_is_skipped() {
    let mut fleet = Fleet::embedded(&["agent"]).await;
    fleet.kill_agent("agent");
    fleet.kill_principal();
    fleet.create("agent", "app").await;
    fleet
        .at_control(Kind::AppProject, "agent")
        .create(&PostParams::default(), &project("agent"))
        .await
        .unwrap();
    fleet.start_principal().await;
    fleet.start_agent("agent");
    Fleet::until_is(&fleet.at_cluster(Kind::Application, "agent"), "app", "the app", |_| true).await;
    Fleet::until_is(&fleet.at_cluster(Kind::AppProject, "agent"), "shop", "the project", |_| true).await;
}

fn project(agent: &str) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject", "metadata": {"name": "shop"},
        "spec": {"destinations": [{"name": agent, "namespace": "*"}], "sourceNamespaces": [agent], "sourceRepos": ["*"]},
    }))
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_is_not_sent_to_agents_that_are_connected_already() {
    let fleet = Fleet::embedded(&["agent"]).await;
    fleet.until_quiet().await;
    let projects = fleet.at_control(Kind::AppProject, "agent");
    projects.create(&PostParams::default(), &project("elsewhere")).await.unwrap();
    merge(
        &projects,
        "shop",
        json!({"spec": {"destinations": [{"name": "agent", "namespace": "*"}], "sourceNamespaces": ["agent"]}}),
    )
    .await;
    Fleet::until_is(&fleet.at_cluster(Kind::AppProject, "agent"), "shop", "the project", |_| true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ignore_label_is_forgotten_when_the_agent_reconnects() {
    let mut fleet = Fleet::embedded(&["agent"]).await;
    let label = json!({"argocd-agent.argoproj-labs.io/ignore-sync": "true"});
    let keys: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "argocd-gpg-keys-cm"}, "data": {"k": "v"},
    }))
    .unwrap();
    for (kind, mut object) in [
        (Kind::Application, application("app", "main")),
        (Kind::AppProject, project("agent")),
        (Kind::GpgKey, keys),
    ] {
        object.metadata.labels = Some(serde_json::from_value(label.clone()).unwrap());
        fleet.at_control(kind, "agent").create(&PostParams::default(), &object).await.unwrap();
    }
    for round in 0..3 {
        match round {
            0 => {}
            1 => {
                fleet.kill_agent("agent");
                fleet.start_agent("agent");
            }
            _ => {
                fleet.kill_principal();
                fleet.start_principal().await;
            }
        }
        // What comes after it would come behind it.
        let after = format!("after-{round}");
        fleet.create("agent", &after).await;
        Fleet::until_is(&fleet.at_cluster(Kind::Application, "agent"), &after, "the next", |_| true).await;
        fleet.until_quiet().await;
        for (kind, name) in
            [(Kind::Application, "app"), (Kind::AppProject, "shop"), (Kind::GpgKey, "argocd-gpg-keys-cm")]
        {
            let copy = fleet.at_cluster(kind, "agent").get_opt(name).await.unwrap();
            assert!(copy.is_none(), "{kind} {name} was sent in round {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_sends_every_resource_again() {
    let mut fleet = Fleet::embedded(&["agent"]).await;
    for n in 0..100 {
        fleet.create("agent", &format!("app-{n}")).await;
    }
    let here = fleet.at_cluster(Kind::Application, "agent");
    Fleet::until("all copies", async || {
        (here.list(&ListParams::default()).await.unwrap().items.len() == 100).then_some(())
    })
    .await;
    fleet.until_quiet().await;
    for side in ["principal", "agent"] {
        let before = [fleet.figure("principal_events_sent"), fleet.figure("principal_events_received")];
        let mut messages = if side == "principal" {
            fleet.kill_principal();
            fleet.start_principal().await;
            0
        } else {
            fleet.kill_agent("agent");
            fleet.start_agent("agent");
            before[0] + before[1]
        };
        let now = || fleet.figure("principal_events_sent") + fleet.figure("principal_events_received");
        let agents_too = messages + 2;
        Fleet::until("both have compared", async || (now() >= agents_too).then_some(())).await;
        fleet.until_quiet().await;
        messages = now() - messages;
        // Each is acknowledged, and counted without. Where the machine is slow, a further comparison may have begun.
        assert!(messages < 20, "restart of the {side}: {messages} messages besides acknowledgements");
        assert_eq!(fleet.figure("tiphys_principal_resync_repaired_total"), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gpg_keys_come_to_every_managed_agent_and_follow_their_changes() {
    let fleet = Fleet::embedded(&["one", "two"]).await;
    let keys: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "argocd-gpg-keys-cm"}, "data": {"k": "v"},
    }))
    .unwrap();
    // Argo CD has made an empty one there.
    let mut empty = keys.clone();
    empty.data["data"] = Value::Null;
    fleet.at_cluster(Kind::GpgKey, "two").create(&PostParams::default(), &empty).await.unwrap();
    let there = fleet.at_control(Kind::GpgKey, "one");
    there.create(&PostParams::default(), &keys).await.unwrap();
    for agent in ["one", "two"] {
        let here = fleet.at_cluster(Kind::GpgKey, agent);
        Fleet::until_is(&here, "argocd-gpg-keys-cm", "the keys", |map| map.data["data"]["k"] == "v").await;
        merge(&here, "argocd-gpg-keys-cm", json!({"data": {"evil": "key"}})).await;
        Fleet::until_is(&here, "argocd-gpg-keys-cm", "the edit undone", |map| {
            map.data["data"].get("evil").is_none()
        })
        .await;
    }
    merge(&there, "argocd-gpg-keys-cm", json!({"data": {"k": null, "l": "w"}})).await;
    for agent in ["one", "two"] {
        let here = fleet.at_cluster(Kind::GpgKey, agent);
        let map =
            Fleet::until_is(&here, "argocd-gpg-keys-cm", "the change", |map| map.data["data"]["l"] == "w")
                .await;
        assert!(map.data["data"].get("k").is_none());
        assert!(map.annotations().contains_key("argocd.argoproj.io/source-uid"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_status_write_of_a_busy_app_is_a_message() {
    let mut fleet = Fleet::autonomous(&["edge"]).await;
    fleet.kill_agent("edge");
    fleet.buffer_interval = Some(std::time::Duration::from_secs(1));
    fleet.start_agent("edge");
    let here = fleet.at_cluster(Kind::Application, "edge");
    let there = fleet.at_control(Kind::Application, "edge");
    here.create(&PostParams::default(), &application("busy", "main")).await.unwrap();
    Fleet::until_is(&there, "busy", "it to be shown", |_| true).await;
    fleet.until_quiet().await;
    let before = fleet.figure("principal_events_received");
    for n in 0..50 {
        let health = json!({"status": "Progressing", "message": format!("{n}")});
        merge(&here, "busy", json!({"status": {"health": health}})).await;
    }
    Fleet::until_is(&there, "busy", "the newest", |app| app.data["status"]["health"]["message"] == "49")
        .await;
    let messages = fleet.figure("principal_events_received") - before;
    assert!(messages < 10, "{messages} messages for 50 changes");
}
