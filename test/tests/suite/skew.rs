//! Peers of an earlier and of a later release: what they lack is not used, and what they say beyond is passed over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt as _;
use serde_json::{Value, json};
use tiphys_agent::connection::{Error, Grpc, Link, Opened};
use tiphys_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use tiphys_proto::cloudevents::cloud_event::{CloudEventAttributeValue, Data};
use tiphys_proto::event_stream::Event as WireEvent;
use tiphys_proto::event_stream::event_stream_client::EventStreamClient;
use tiphys_shared::model::feature::{Feature, Features, METADATA_KEY};
use tiphys_shared::model::{Kind, Mode};
use tiphys_shared::security::passwords::Credentials;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::fleet::{Fleet, agent_config, delete, merge, revision};
use super::managed;
use super::raw::{channel, token, with_token};

/// A way between two peers, one of which is of another release.
struct Skewed {
    inner: Grpc,
    /// What both know.
    common: Features,
    /// Whether each says more than the other knows.
    says_more: bool,
    /// How many events of the future have been said.
    said: Arc<AtomicU64>,
}

impl Link for Skewed {
    async fn open(&self, mode: Mode, offer: Features) -> Result<Opened, Error> {
        let mut opened = self.inner.open(mode, offer.and(&self.common)).await?;
        if !self.says_more {
            return Ok(opened);
        }
        let said = Arc::clone(&self.said);
        opened.incoming = opened
            .incoming
            .flat_map(move |message| {
                let both = match message {
                    Ok(message) => vec![Ok(of_the_future(&said)), Ok(with_more(message))],
                    Err(status) => vec![Err(status)],
                };
                futures::stream::iter(both)
            })
            .boxed();
        let (outgoing, mut messages) = mpsc::channel(32);
        let (inner, said) = (std::mem::replace(&mut opened.outgoing, outgoing), Arc::clone(&self.said));
        tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                for message in [of_the_future(&said), with_more(message)] {
                    if inner.send(message).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(opened)
    }
}

fn attribute(attr: Attr) -> CloudEventAttributeValue {
    CloudEventAttributeValue { attr: Some(attr) }
}

/// An event of a target and a type that nobody knows yet.
fn of_the_future(said: &AtomicU64) -> WireEvent {
    let id = format!("future-{}", said.fetch_add(1, Ordering::Relaxed));
    let text = |text: &str| attribute(Attr::CeString(text.to_owned()));
    let attributes = [
        ("dataschema", attribute(Attr::CeUri("time-travel".to_owned()))),
        ("eventid", text(&id)),
        ("resourceid", text(&id)),
    ];
    let event = tiphys_proto::cloudevents::CloudEvent {
        id,
        source: "future".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: "io.argoproj.argocd-agent.event.depart".to_owned(),
        attributes: attributes.map(|(name, value)| (name.to_owned(), value)).into(),
        data: Some(Data::BinaryData(br#"{"to": 1985}"#.to_vec())),
    };
    WireEvent { event: Some(event) }
}

/// The same event with more in it than is known.
fn with_more(mut message: WireEvent) -> WireEvent {
    let Some(event) = &mut message.event else { return message };
    for (name, value) in [
        ("futuretext", Attr::CeString("words".to_owned())),
        ("futuretruth", Attr::CeBoolean(true)),
        ("futurenumber", Attr::CeInteger(7)),
        ("futurebytes", Attr::CeBytes(vec![1, 2, 3])),
    ] {
        event.attributes.insert(name.to_owned(), attribute(value));
    }
    if let Some(Data::BinaryData(bytes)) = &mut event.data
        && let Ok(Value::Object(mut fields)) = serde_json::from_slice(bytes)
    {
        fields.insert("future".to_owned(), json!({"fields": [1, {"of": "it"}]}));
        if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
            metadata.insert("future".to_owned(), json!("label"));
        }
        *bytes = serde_json::to_vec(&fields).unwrap();
    }
    message
}

/// Runs the agent `edge` over a way to a peer of another release. Tells how many events of the future were said.
fn run(fleet: &Fleet, common: Features, says_more: bool) -> (CancellationToken, Arc<AtomicU64>) {
    let said = Arc::new(AtomicU64::new(0));
    let inner = Grpc {
        dial: fleet.dial("edge"),
        credentials: Credentials::Mtls,
        namespace: fleet.namespace.clone(),
        version: "test".to_owned(),
        compression: false,
        max_message_size: 16 << 20,
    };
    let link = Skewed { inner, common, says_more, said: Arc::clone(&said) };
    let config = agent_config(Mode::Managed, fleet.cluster("edge").client(), &fleet.namespace);
    let agent = tiphys_agent::Agent::new(config, link);
    let stop = CancellationToken::new();
    tokio::spawn(agent.run(stop.clone()));
    (stop, said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_of_a_later_release_that_says_more_is_understood() {
    let mut fleet = Fleet::embedded(&["edge", "other"]).await;
    fleet.until_quiet().await;
    fleet.kill_agent("edge");
    let (_stop, said) = run(&fleet, Features::all(), true);
    managed::everything(&fleet, "edge", "other").await;
    assert!(said.load(Ordering::Relaxed) > 20, "hardly anything was said");
    assert_eq!(fleet.figure("argocd_principal_agent_connections_total"), 3, "a stream broke");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_features_a_peer_of_an_earlier_release_lacks_nothing_is_lost() {
    let mut fleet = Fleet::embedded(&["edge"]).await;
    fleet.kill_agent("edge");
    let (there, here) =
        (fleet.at_control(Kind::Application, "edge"), fleet.at_cluster(Kind::Application, "edge"));
    let without = |lacking: &[Feature]| {
        lacking.iter().fold(Features::all(), |features, feature| features.without(*feature))
    };
    let releases = [
        Features::all(),
        without(&[Feature::Tunnel]),
        without(&[Feature::Refusals]),
        without(&[Feature::Resync]),
        without(&[Feature::Tunnel, Feature::Resync]),
        without(&[Feature::Tunnel, Feature::Refusals, Feature::Resync]),
        // Upgraded again.
        Features::all(),
    ];
    fleet.create("edge", "kept").await;
    fleet.create("edge", "doomed").await;
    for (round, features) in releases.into_iter().enumerate() {
        let what = format!("{features:?}");
        // It comes in the place of one of another release, and finds that time has gone on.
        let (wanted, fresh) = (format!("v{round}"), format!("new-{round}"));
        merge(&there, "kept", json!({"spec": {"source": {"targetRevision": wanted}}})).await;
        delete(&there, "doomed").await;
        fleet.create("edge", &fresh).await;
        let (stop, _) = run(&fleet, features, false);
        Fleet::until_is(&here, "kept", &what, |app| revision(app) == wanted).await;
        Fleet::until_is(&here, &fresh, &what, |_| true).await;
        Fleet::until_gone(&here, "doomed").await;
        // It is told, it tells, and it undoes.
        fleet.create("edge", "doomed").await;
        Fleet::until_is(&here, "doomed", &what, |_| true).await;
        merge(&here, &fresh, json!({"status": {"health": {"status": "Degraded"}}})).await;
        Fleet::until_is(&there, &fresh, &what, |app| app.data["status"]["health"]["status"] == "Degraded")
            .await;
        merge(&here, "kept", json!({"spec": {"source": {"targetRevision": "edited"}}})).await;
        Fleet::until_is(&here, "kept", &what, |app| revision(app) == wanted).await;
        stop.cancel();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn features_and_metadata_of_the_future_are_left_out_of_what_is_confirmed() {
    let mut fleet = Fleet::embedded(&["edge"]).await;
    fleet.kill_agent("edge");
    let channel = channel(&fleet, "edge").await;
    let token = token(&channel, Mode::Managed).await;
    let (_say, mut said) = mpsc::channel::<WireEvent>(1);
    let mut request = with_token(futures::stream::poll_fn(move |context| said.poll_recv(context)), &token);
    for (key, value) in [(METADATA_KEY, "time-travel,resync"), ("tiphys-future", "yes")] {
        request.metadata_mut().insert(key, value.parse().unwrap());
    }
    let response = EventStreamClient::new(channel).subscribe(request).await.unwrap();
    assert_eq!(response.metadata().get(METADATA_KEY).unwrap(), "resync");
}
