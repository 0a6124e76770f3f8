//! Peers of the Go project: they have no tunnel, and each request is an event.

use std::sync::Arc;

use futures::StreamExt as _;
use parking_lot::Mutex;
use tiphys_agent::ProxyPolicy;
use tiphys_agent::connection::{self, Answers, Error, Link};
use tiphys_proto::event_stream::Event as WireEvent;
use tiphys_shared::kube::api_server::ApiServer;
use tiphys_shared::model::event::{ResourceRequest, ResourceResponse};
use tiphys_shared::model::feature::Features;
use tiphys_shared::model::{Event, EventKind, Mode, Payload, Target};
use tiphys_shared::wire::codec;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;

use super::super::fleet::agent_config;
use super::super::raw::Raw;
use super::go_principals::{Opened, TOKEN, streams};
use super::*;

/// A principal in front of two agents of the Go project, which say what a test tells them to.
pub(super) async fn go_agents() -> (Fleet, Raw, Raw) {
    let mut fleet = Fleet::embedded(&["edge", "evil"]).await;
    for name in ["edge", "evil"] {
        fleet.kill_agent(name);
    }
    let edge = Raw::connect_as(&fleet, "edge", Mode::Managed, None).await;
    let evil = Raw::connect_as(&fleet, "evil", Mode::Managed, None).await;
    (fleet, edge, evil)
}

async fn hear_request(agent: &mut Raw) -> ResourceRequest {
    let event = agent.hear(|event| event.target == Target::Resource).await;
    agent.ack(&event).await;
    let Payload::ResourceRequest(request) = event.payload else { panic!("{event:?}") };
    assert_eq!(event.kind, EventKind::Verb(request.method.clone()));
    assert_eq!((&event.id.0, &event.resource_id), (&request.uuid, &request.uuid));
    request
}

fn answer(request: &ResourceRequest, status: u16, resource: impl ToString) -> Event {
    let response = ResourceResponse { uuid: request.uuid.clone(), status, resource: resource.to_string() };
    let mut event =
        Event::request(Target::Resource, EventKind::Response, Payload::ResourceResponse(response));
    event.id.0.clone_from(&request.uuid);
    event
}

/// What the client gets, and what the agent was asked, if it answers this.
async fn answered(
    client: &Client,
    agent: &mut Raw,
    request: Request<Body>,
    status: u16,
    text: &str,
) -> ((u16, Value), ResourceRequest) {
    let answering = async {
        let asked = hear_request(agent).await;
        agent.say(&answer(&asked, status, text)).await;
        asked
    };
    let (response, asked) = tokio::join!(client.send(request), answering);
    (read(response.unwrap()).await, asked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_go_agent_is_asked_by_events_for_what_it_can_do() {
    let (fleet, mut edge, _evil) = go_agents().await;
    let client = User { name: "edge", ..User::default() }.client(&fleet).await;
    let path = "/api/v1/namespaces/a/configmaps/one";
    let map = config_map("one", &[("key", "value")]);

    let got = answered(&client, &mut edge, request(Method::GET, path, ""), 200, &map.to_string()).await;
    assert_eq!(got.0, (200, map.clone()));
    let asked = ResourceRequest {
        uuid: got.1.uuid.clone(),
        method: "GET".into(),
        version: "v1".into(),
        namespace: "a".into(),
        resource: "configmaps".into(),
        name: "one".into(),
        ..ResourceRequest::default()
    };
    assert_eq!(got.1, asked);

    let post = request(Method::POST, "/api/v1/namespaces/a/configmaps?dryRun=All", map.to_string());
    let (created, asked) = answered(&client, &mut edge, post, 200, &map.to_string()).await;
    assert_eq!((created.0, asked.params.get("dryRun").map(String::as_str)), (200, Some("All")));
    assert_eq!(asked.body_bytes().unwrap(), map.to_string().into_bytes());

    // It says nothing of what it has deleted, nor why it does not do a thing.
    let delete = request(Method::DELETE, path, "");
    let (deleted, asked) = answered(&client, &mut edge, delete, 200, "").await;
    assert_eq!((deleted.0, &deleted.1["status"]), (200, &json!("Success")));
    assert_eq!(asked.body_bytes().unwrap(), b"{}");
    let (missing, _) = answered(&client, &mut edge, request(Method::GET, path, ""), 404, "").await;
    assert_eq!((missing.0, &missing.1["reason"]), (404, &json!("NotFound")), "{}", missing.1);
    assert!(missing.1["message"].as_str().unwrap().contains("argocd-agent"), "{}", missing.1);

    assert!(client.apiserver_version().await.unwrap().git_version.contains("argocd-agent"));
    for (method, path, status) in [
        (Method::GET, "/api/v1/namespaces/a/configmaps", 405),
        (Method::GET, "/api/v1/namespaces/a/configmaps?watch=1", 405),
        (Method::GET, "/api/v1/namespaces/a/pods/p/log?stream=Stderr", 405),
        (Method::POST, "/api/v1/namespaces/a/pods/p/attach", 405),
        (Method::PUT, path, 405),
        (Method::PATCH, path, 415),
        (Method::GET, "/openapi/v3", 404),
    ] {
        let (code, refused) = read(client.send(request(method, path, "")).await.unwrap()).await;
        assert_eq!((code, &refused["kind"]), (status, &json!("Status")), "{path}: {refused}");
        assert!(refused["message"].as_str().unwrap().contains("with a Tiphys agent"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_was_asked_can_answer_and_whose_stream_ends_answers_no_more() {
    let (fleet, mut edge, mut evil) = go_agents().await;
    let client = User { name: "edge", ..User::default() }.client(&fleet).await;
    let path = "/api/v1/namespaces/a/configmaps/one";
    let answers = async {
        let asked = hear_request(&mut edge).await;
        let stolen = answer(&asked, 200, json!("evil"));
        evil.say(&stolen).await;
        evil.hear_ack(&stolen.id).await;
        let mut unknown = answer(&asked, 200, json!("unknown"));
        unknown.id.0 = "unknown".into();
        if let Payload::ResourceResponse(response) = &mut unknown.payload {
            response.uuid = "unknown".into();
        }
        edge.say(&unknown).await;
        edge.hear_ack(&unknown.id).await;
        edge.say(&answer(&asked, 200, json!("edge"))).await;
        edge
    };
    let (heard, mut edge) = tokio::join!(get(&client, path), answers);
    assert_eq!(heard, (200, json!("edge")));

    let ends = async {
        hear_request(&mut edge).await;
        drop(edge);
    };
    let (heard, ()) = tokio::join!(get(&client, path), ends);
    assert_eq!(heard.0, 502, "{}", heard.1);
}

/// A principal of the Go project, which says what a test tells it to.
pub(super) struct GoPrincipal {
    pub(super) say: mpsc::Sender<WireEvent>,
    pub(super) opened: mpsc::Receiver<Opened>,
    hear: mpsc::Receiver<WireEvent>,
    _agent: AbortOnDropHandle<()>,
    _streams: AbortOnDropHandle<()>,
    _known: Arc<watch::Sender<Option<Features>>>,
}

struct Once {
    ends: Mutex<Option<(mpsc::Receiver<WireEvent>, mpsc::Sender<WireEvent>)>>,
    features: watch::Receiver<Option<Features>>,
    streams: Channel,
}

/// Largest message of that principal.
const LARGEST: usize = 64 << 10;

impl Link for Once {
    async fn open(&self, _: Mode, _: Features) -> Result<connection::Opened, Error> {
        let ends = self.ends.lock().take();
        let Some((mut incoming, outgoing)) = ends else { return std::future::pending().await };
        let incoming = futures::stream::poll_fn(move |context| incoming.poll_recv(context)).map(Ok).boxed();
        Ok(connection::Opened {
            incoming,
            outgoing,
            features: self.features.clone(),
            agent: "edge".to_owned(),
            principal_namespace: "argocd".to_owned(),
            max_message_size: LARGEST,
        })
    }

    async fn answers(&self, _: Mode) -> Result<Answers, Error> {
        Answers::new(self.streams.clone().into(), TOKEN)
    }
}

impl GoPrincipal {
    /// With an agent of ours in front of a cluster of `fleet`.
    async fn of(fleet: &Fleet, policy: ProxyPolicy) -> Self {
        Self::before(fleet, fleet.cluster("edge").api_server(), policy).await
    }

    /// The same, where that API server is asked.
    pub(super) async fn before(fleet: &Fleet, api_server: ApiServer, policy: ProxyPolicy) -> Self {
        let (streams, opened, serving) = streams().await;
        let (say, said) = mpsc::channel(64);
        let (saying, hear) = mpsc::channel(64);
        let (known, features) = watch::channel(Some(Features::default()));
        let cluster = fleet.cluster("edge");
        let mut config = agent_config(Mode::Managed, cluster.client(), &fleet.namespace);
        config.proxy = Some(tiphys_agent::ProxyConfig {
            api_server,
            policy: watch::channel(policy).1,
            read_only: false,
            impersonate: false,
        });
        let link = Once { ends: Mutex::new(Some((said, saying))), features, streams };
        let agent = tiphys_agent::Agent::new(config, link);
        let task = tokio::spawn(async move { agent.run(CancellationToken::new()).await.unwrap() });
        Self {
            say,
            opened,
            hear,
            _agent: AbortOnDropHandle::new(task),
            _streams: serving,
            _known: Arc::new(known),
        }
    }

    /// Status and body of what the agent answers.
    async fn ask(&mut self, request: ResourceRequest) -> (u16, Value) {
        let event = asking(request);
        let uuid = event.id.0.clone();
        self.tell(&event).await;
        let answer = async {
            loop {
                let heard = codec::decode(self.hear.recv().await.expect("the agent left")).unwrap();
                match heard.payload {
                    Payload::ResourceResponse(response) if heard.id.0 == uuid => return response,
                    _ => {}
                }
            }
        };
        let response =
            tokio::time::timeout(std::time::Duration::from_secs(60), answer).await.expect("no answer");
        assert_eq!(response.uuid, uuid);
        (response.status, serde_json::from_str(&response.resource).unwrap_or(Value::Null))
    }

    pub(super) async fn tell(&self, event: &Event) {
        self.say.send(codec::encode(event).unwrap()).await.unwrap();
    }
}

fn asking(request: ResourceRequest) -> Event {
    let kind = EventKind::Verb(request.method.clone());
    let mut event = Event::request(Target::Resource, kind, Payload::Empty);
    let uuid = event.id.0.clone();
    event.payload = Payload::ResourceRequest(ResourceRequest { uuid, ..request });
    event
}

fn about(method: &str, namespace: &str, resource: &str, name: &str) -> ResourceRequest {
    ResourceRequest {
        method: method.into(),
        version: "v1".into(),
        namespace: namespace.into(),
        resource: resource.into(),
        name: name.into(),
        ..ResourceRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_go_principal_asks_by_events_and_is_answered() {
    let mut fleet = Fleet::embedded(&["edge"]).await;
    fleet.kill_agent("edge");
    let mut principal = GoPrincipal::of(&fleet, ProxyPolicy::All).await;
    let namespace = fleet.namespace.clone();
    let one = |method: &str| about(method, &namespace, "configmaps", "one");

    let mut create = about("POST", &namespace, "configmaps", "");
    create.set_body(config_map("one", &[("key", "value")]).to_string().as_bytes());
    // A Go principal passes on what has this status only.
    let (status, created) = principal.ask(create).await;
    assert_eq!((status, &created["data"]["key"]), (200, &json!("value")), "{created}");
    assert_eq!(principal.ask(one("GET")).await, (200, created));
    let (status, list) = principal.ask(about("GET", &namespace, "configmaps", "")).await;
    assert_eq!((status, list["items"].as_array().unwrap().len()), (200, 1));

    let mut merge = one("PATCH");
    merge.set_body(br#"{"data": {"key": "merged", "more": "x"}}"#);
    assert_eq!(principal.ask(merge.clone()).await.1["data"], json!({"key": "merged", "more": "x"}));
    let mut steps = one("PATCH");
    steps.set_body(br#"[{"op": "remove", "path": "/data/more"}]"#);
    assert_eq!(principal.ask(steps).await.1["data"], json!({"key": "merged"}));
    merge.params.insert("dryRun".into(), "All".into());
    assert_eq!(principal.ask(merge).await.0, 200);
    assert_eq!(principal.ask(one("GET")).await.1["data"], json!({"key": "merged"}), "a trial was in earnest");

    let mut delete = one("DELETE");
    delete.set_body(b"{}");
    assert_eq!(principal.ask(delete).await.0, 200);
    assert_eq!(principal.ask(one("GET")).await.0, 404);

    let groups = ResourceRequest { method: "GET".into(), ..ResourceRequest::default() };
    let (status, groups) = principal.ask(groups).await;
    let first = &groups["groups"][0];
    assert_eq!((status, &first["name"], &first["versions"][0]["version"]), (200, &json!(""), &json!("v1")));
    let (status, resources) = principal.ask(about("GET", "", "", "")).await;
    assert_eq!((status, &resources["kind"]), (200, &json!("APIResourceList")));

    let mut watch = about("GET", &namespace, "configmaps", "");
    watch.params.insert("watch".into(), "true".into());
    assert_eq!(principal.ask(watch).await.0, 405);
    assert_eq!(principal.ask(about("GET", &namespace, "configmaps", "../secrets")).await.0, 400);
    let mut large = about("POST", &namespace, "configmaps", "");
    large.set_body(config_map("large", &[("key", &"x".repeat(40 << 10))]).to_string().as_bytes());
    assert_eq!(principal.ask(large.clone()).await.0, 200);
    large.set_body(config_map("larger", &[("key", &"x".repeat(40 << 10))]).to_string().as_bytes());
    assert_eq!(principal.ask(large).await.0, 200);
    let (status, refused) = principal.ask(about("GET", &namespace, "configmaps", "")).await;
    assert_eq!(status, 502, "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("--grpc-max-message-size"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agents_policy_counts_for_a_go_principal_as_for_ours() {
    let mut fleet = Fleet::embedded(&["edge"]).await;
    fleet.kill_agent("edge");
    let mut principal = GoPrincipal::of(&fleet, ProxyPolicy::Managed).await;
    let namespace = fleet.namespace.clone();
    let mut create = about("POST", &namespace, "configmaps", "");
    for (name, annotation) in
        [("tracked", "argocd.argoproj.io/tracking-id"), ("nobodys", "example.com/other")]
    {
        let mut map = config_map(name, &[]);
        map["metadata"]["annotations"] = json!({annotation: "app:/ConfigMap:a/tracked"});
        create.set_body(map.to_string().as_bytes());
        assert_eq!(principal.ask(create.clone()).await.0, 200);
    }
    for (method, resource, name, status) in [
        ("GET", "configmaps", "tracked", 200),
        ("GET", "configmaps", "nobodys", 403),
        ("DELETE", "configmaps", "nobodys", 403),
        ("GET", "configmaps", "missing", 404),
        ("GET", "configmaps", "", 403),
        ("DELETE", "configmaps", "", 403),
        ("GET", "events", "", 200),
        ("DELETE", "configmaps", "tracked", 200),
    ] {
        let (code, said) = principal.ask(about(method, &namespace, resource, name)).await;
        assert_eq!(code, status, "{method} {resource} {name}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_go_principal_says_once_more_is_not_done_once_more() {
    let mut fleet = Fleet::embedded(&["edge"]).await;
    fleet.kill_agent("edge");
    let mut principal = GoPrincipal::of(&fleet, ProxyPolicy::All).await;
    let namespace = fleet.namespace.clone();
    let mut create = about("POST", &namespace, "configmaps", "");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "one-"}});
    create.set_body(map.to_string().as_bytes());
    let event = asking(create.clone());
    principal.tell(&event).await;
    principal.tell(&event).await;
    let answered = async {
        while !matches!(
            codec::decode(principal.hear.recv().await.unwrap()).unwrap().payload,
            Payload::ResourceResponse(_)
        ) {}
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), answered).await.expect("no answer");
    principal.tell(&event).await;
    assert_eq!(principal.ask(create).await.0, 200);
    let (_, list) = principal.ask(about("GET", &namespace, "configmaps", "")).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 2, "{list}");
}
