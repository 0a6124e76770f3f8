//! Logs and terminals of agents of the Go project: streams that they open.

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tiphys_proto::log_stream::log_stream_service_client::LogStreamServiceClient;
use tiphys_proto::log_stream::{LogStreamData, LogStreamResponse};
use tiphys_proto::terminal_stream::TerminalStreamData;
use tiphys_proto::terminal_stream::terminal_stream_service_client::TerminalStreamServiceClient;
use tiphys_shared::model::streamed::{LogRequest, TerminalRequest};
use tiphys_shared::model::{EventKind, Mode, Payload, Target};
use tiphys_shared::proxy::channels::{self, Channel, Ended, Version};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status, Streaming};

use super::super::raw::{self, Raw, with_token};
use super::go_peers::go_agents;
use super::*;

const LOG: &str = "/api/v1/namespaces/a/pods/p/log";
const EXEC: &str = "/api/v1/namespaces/a/pods/p/exec?command=sh&stdin=true&tty=true";

/// What an agent opens streams with.
struct Opener {
    channel: tiphys_shared::wire::transport::Channel,
    token: String,
}

/// A stream that brings a log, and how it ends.
type SentLog = (mpsc::Sender<LogStreamData>, AbortOnDropHandle<Result<LogStreamResponse, Status>>);

impl Opener {
    async fn of(fleet: &Fleet, name: &str) -> Self {
        let channel = raw::channel(fleet, name).await;
        let token = raw::token(&channel, Mode::Managed).await;
        Self { channel, token }
    }

    fn log(&self, uuid: &str) -> SentLog {
        let (say, mut said) = mpsc::channel(16);
        say.try_send(LogStreamData { request_uuid: uuid.to_owned(), ..LogStreamData::default() }).unwrap();
        let said = futures::stream::poll_fn(move |context| said.poll_recv(context));
        let request = with_token(said, &self.token);
        let mut client = LogStreamServiceClient::new(self.channel.clone());
        let task = tokio::spawn(async move { Ok(client.stream_logs(request).await?.into_inner()) });
        (say, AbortOnDropHandle::new(task))
    }

    async fn terminal(
        &self,
        uuid: &str,
    ) -> Result<(mpsc::Sender<TerminalStreamData>, Streaming<TerminalStreamData>), Status> {
        let (say, mut said) = mpsc::channel(16);
        say.try_send(TerminalStreamData { request_uuid: uuid.to_owned(), ..TerminalStreamData::default() })
            .unwrap();
        let said = futures::stream::poll_fn(move |context| said.poll_recv(context));
        let mut client = TerminalStreamServiceClient::new(self.channel.clone());
        Ok((say, client.stream_terminal(with_token(said, &self.token)).await?.into_inner()))
    }
}

fn piece(uuid: &str, text: &str) -> LogStreamData {
    LogStreamData {
        request_uuid: uuid.to_owned(),
        data: Bytes::copy_from_slice(text.as_bytes()),
        ..LogStreamData::default()
    }
}

async fn hear_log(agent: &mut Raw) -> LogRequest {
    let event = agent.hear(|event| event.target == Target::ContainerLog).await;
    agent.ack(&event).await;
    let Payload::LogRequest(request) = event.payload else { panic!("{event:?}") };
    assert_eq!(event.kind, EventKind::Verb("GET".into()));
    assert_eq!((&event.id.0, &event.resource_id), (&request.uuid, &request.uuid));
    request
}

async fn hear_terminal(agent: &mut Raw) -> TerminalRequest {
    let event = agent.hear(|event| event.target == Target::Terminal).await;
    agent.ack(&event).await;
    let Payload::TerminalRequest(request) = event.payload else { panic!("{event:?}") };
    assert_eq!(event.kind, EventKind::TerminalRequest);
    assert_eq!((&event.id.0, &event.resource_id), (&request.uuid, &request.uuid));
    request
}

async fn next(body: &mut Body) -> Option<Result<Bytes, kube::Error>> {
    let frame = body.frame().await?;
    Some(frame.map(|frame| frame.into_data().unwrap()))
}

/// What is refused before it was read is cut off, too, and that may be what is heard first.
#[track_caller]
fn assert_refused(refusal: Code, code: Code) {
    assert!([code, Code::Cancelled].contains(&refusal), "{refusal:?} instead of {code:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_of_a_go_agent_pass_as_they_come() {
    let (fleet, mut edge, _evil) = go_agents().await;
    let client = User { name: "edge", ..User::default() }.client(&fleet).await;
    let opener = Opener::of(&fleet, "edge").await;
    let timed = "2026-11-21T20:00:00.123456789Z ";

    let query = format!("{LOG}?container=c&tailLines=2&sinceSeconds=9&previous=true");
    let answering = async {
        let asked = hear_log(&mut edge).await;
        let (say, sent) = opener.log(&asked.uuid);
        say.send(piece(&asked.uuid, &format!("{timed}one\n{timed}tw"))).await.unwrap();
        say.send(piece(&asked.uuid, "o\n")).await.unwrap();
        say.send(LogStreamData { eof: true, ..piece(&asked.uuid, "") }).await.unwrap();
        (asked, sent.await.unwrap().unwrap())
    };
    let (answer, (asked, sent)) = tokio::join!(get(&client, &query), answering);
    assert_eq!(answer, (200, json!("one\ntwo\n")));
    assert_eq!((sent.request_uuid, sent.status), (asked.uuid.clone(), 200));
    let expected = LogRequest {
        uuid: asked.uuid.clone(),
        namespace: "a".into(),
        pod_name: "p".into(),
        container: "c".into(),
        tail_lines: Some(2),
        since_seconds: Some(9),
        previous: true,
        ..LogRequest::default()
    };
    assert_eq!(asked, expected);

    // What the cluster says instead of a log is known before the answer begins.
    for (error, status) in [("pods \"p\" not found", 404), ("container \"c\" is waiting to start", 400)] {
        let answering = async {
            let asked = hear_log(&mut edge).await;
            let (say, sent) = opener.log(&asked.uuid);
            say.send(LogStreamData { eof: true, error: error.into(), ..piece(&asked.uuid, "") })
                .await
                .unwrap();
            sent.await.unwrap().unwrap_err()
        };
        let (refused, sent) = tokio::join!(get(&client, LOG), answering);
        assert_eq!((refused.0, &refused.1["message"]), (status, &json!(error)), "{}", refused.1);
        assert_eq!(sent.message(), error);
    }

    // A followed log comes piece by piece, and ends when its reader leaves.
    let followed = format!("{LOG}?follow=true&timestamps=true");
    let answering = async {
        let asked = hear_log(&mut edge).await;
        let (say, sent) = opener.log(&asked.uuid);
        say.send(piece(&asked.uuid, &format!("{timed}one\n"))).await.unwrap();
        (asked, say, sent)
    };
    let (answer, (asked, say, sent)) =
        tokio::join!(client.send(request(Method::GET, &followed, "")), answering);
    assert!(asked.follow && asked.timestamps);
    let mut body = answer.unwrap().into_body();
    assert_eq!(next(&mut body).await.unwrap().unwrap(), format!("{timed}one\n"));
    say.send(piece(&asked.uuid, "two\n")).await.unwrap();
    assert_eq!(next(&mut body).await.unwrap().unwrap(), "two\n");
    drop(body);
    assert_eq!(sent.await.unwrap().unwrap_err().code(), Code::Cancelled);

    // No more comes than is wanted, whatever the agent sends.
    let answering = async {
        let asked = hear_log(&mut edge).await;
        let (say, sent) = opener.log(&asked.uuid);
        say.send(piece(&asked.uuid, &format!("{timed}one two three\n"))).await.unwrap();
        (asked, sent.await.unwrap().unwrap_err().code())
    };
    let limited = format!("{LOG}?limitBytes=7");
    let (answer, (asked, code)) = tokio::join!(get(&client, &limited), answering);
    assert_eq!((answer, asked.limit_bytes, code), ((200, json!("one two")), None, Code::Cancelled));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_breaks_off_is_not_taken_for_whole() {
    let (fleet, mut edge, _evil) = go_agents().await;
    let client = User { name: "edge", ..User::default() }.client(&fleet).await;
    let opener = Opener::of(&fleet, "edge").await;
    for end in [
        None,
        Some(LogStreamData { error: "the kubelet is gone".into(), ..LogStreamData::default() }),
        Some(piece("another request", "stolen")),
    ] {
        let answering = async {
            let asked = hear_log(&mut edge).await;
            let (say, sent) = opener.log(&asked.uuid);
            say.send(piece(&asked.uuid, "half\n")).await.unwrap();
            (asked, say, sent)
        };
        let (answer, (asked, say, _sent)) =
            tokio::join!(client.send(request(Method::GET, LOG, "")), answering);
        let mut body = answer.unwrap().into_body();
        assert_eq!(next(&mut body).await.unwrap().unwrap(), "half\n");
        if let Some(mut message) = end {
            if message.request_uuid.is_empty() {
                message.request_uuid = asked.uuid;
            }
            say.send(message).await.unwrap();
        }
        drop(say);
        assert!(next(&mut body).await.unwrap().is_err(), "half of a log was taken for all of it");
    }
    // With the agent's session all of its streams end.
    let answering = async {
        let asked = hear_log(&mut edge).await;
        let (say, sent) = opener.log(&asked.uuid);
        say.send(piece(&asked.uuid, "half\n")).await.unwrap();
        (say, sent)
    };
    let followed = format!("{LOG}?follow=true");
    let (answer, (_say, _sent)) = tokio::join!(client.send(request(Method::GET, &followed, "")), answering);
    let mut body = answer.unwrap().into_body();
    assert_eq!(next(&mut body).await.unwrap().unwrap(), "half\n");
    drop(edge);
    assert!(next(&mut body).await.unwrap().is_err(), "the log outlived its agent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_agent_that_was_asked_can_open_a_stream_for_the_answer() {
    let (fleet, mut edge, _evil) = go_agents().await;
    let client = User { name: "edge", ..User::default() }.client(&fleet).await;
    let opener = Opener::of(&fleet, "edge").await;
    let others = Opener::of(&fleet, "evil").await;
    let stolen = Opener { channel: others.channel.clone(), token: opener.token.clone() };
    let forged = Opener { channel: opener.channel.clone(), token: "forged".to_owned() };
    let answering = async {
        let asked = hear_log(&mut edge).await;
        for (who, code) in
            [(&others, Code::NotFound), (&stolen, Code::PermissionDenied), (&forged, Code::Unauthenticated)]
        {
            let (say, sent) = who.log(&asked.uuid);
            _ = say.send(piece(&asked.uuid, "evil")).await;
            assert_refused(sent.await.unwrap().unwrap_err().code(), code);
            assert_eq!(who.terminal(&asked.uuid).await.unwrap_err().code(), code);
        }
        for uuid in ["", "another"] {
            assert_refused(opener.log(uuid).1.await.unwrap().unwrap_err().code(), Code::NotFound);
        }
        // A log is no terminal.
        assert_eq!(opener.terminal(&asked.uuid).await.unwrap_err().code(), Code::NotFound);
        let (say, sent) = opener.log(&asked.uuid);
        say.send(piece(&asked.uuid, "edge")).await.unwrap();
        say.send(LogStreamData { eof: true, ..piece(&asked.uuid, "") }).await.unwrap();
        sent.await.unwrap().unwrap();
        // Nobody waits for a second one.
        assert_refused(opener.log(&asked.uuid).1.await.unwrap().unwrap_err().code(), Code::NotFound);
        edge
    };
    let (answer, mut edge) = tokio::join!(get(&client, LOG), answering);
    assert_eq!(answer, (200, json!("edge")));

    // An agent that hears and goes.
    let ends = async {
        hear_log(&mut edge).await;
        drop(edge);
    };
    let (answer, ()) = tokio::join!(get(&client, LOG), ends);
    assert_eq!(answer.0, 502, "{}", answer.1);
    assert_eq!(opener.log("any").1.await.unwrap().unwrap_err().code(), Code::FailedPrecondition);
}

/// A request for a command as kubectl makes it.
fn exec() -> Request<Body> {
    let mut request = request(Method::GET, EXEC, "");
    for (name, value) in [
        (CONNECTION, "Upgrade"),
        (UPGRADE, "websocket"),
        (SEC_WEBSOCKET_VERSION, "13"),
        (SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        (SEC_WEBSOCKET_PROTOCOL, Version::OFFER),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    request
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A terminal from end to end.
async fn opened(
    client: &Client,
    agent: &mut Raw,
    opener: &Opener,
) -> (Socket, TerminalRequest, mpsc::Sender<TerminalStreamData>, Streaming<TerminalStreamData>) {
    let opening = async {
        let asked = hear_terminal(agent).await;
        let (say, hear) = opener.terminal(&asked.uuid).await.unwrap();
        (asked, say, hear)
    };
    let (answer, (asked, say, hear)) = tokio::join!(client.send(exec()), opening);
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 101);
    assert_eq!(answer.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(answer.headers()[SEC_WEBSOCKET_PROTOCOL], Version::V5.as_str());
    let io = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    let socket = WebSocketStream::from_raw_socket(io, Role::Client, Some(channels::config())).await;
    (socket, asked, say, hear)
}

async fn hear(socket: &mut Socket) -> Option<(Channel, Bytes)> {
    let heard = tokio::time::timeout(std::time::Duration::from_secs(60), socket.next()).await;
    match heard.expect("nothing was said")?.unwrap() {
        Message::Binary(data) => Some(Channel::split(data).unwrap()),
        // Without a code kubectl takes it for an accident.
        Message::Close(frame) => {
            assert_eq!(frame.unwrap().code, CloseCode::Normal);
            None
        }
        other => panic!("{other:?}"),
    }
}

async fn hear_outcome(socket: &mut Socket) -> Ended {
    let (channel, status) = hear(socket).await.unwrap();
    assert_eq!(channel, Channel::Outcome);
    assert_eq!(hear(socket).await, None);
    Ended::of_status(&status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_on_a_go_agents_cluster_are_spoken_with_in_both_directions() {
    let (fleet, mut edge, _evil) = go_agents().await;
    let client = User { name: "edge", ..User::default() }.client(&fleet).await;
    let opener = Opener::of(&fleet, "edge").await;
    let (mut socket, asked, say, mut told) = opened(&client, &mut edge, &opener).await;
    let expected = TerminalRequest {
        uuid: asked.uuid.clone(),
        namespace: "a".into(),
        pod_name: "p".into(),
        command: vec!["sh".into()],
        tty: true,
        stdin: true,
        stdout: true,
        stderr: true,
        ..TerminalRequest::default()
    };
    assert_eq!(asked, expected);
    let named = TerminalStreamData { request_uuid: asked.uuid.clone(), ..TerminalStreamData::default() };
    for (stream, channel) in [("stdout", Channel::Stdout), ("stderr", Channel::Stderr), ("", Channel::Stdout)]
    {
        let data = Bytes::from("$ ");
        say.send(TerminalStreamData { data, stream_type: stream.into(), ..named.clone() }).await.unwrap();
        assert_eq!(hear(&mut socket).await, Some((channel, Bytes::from("$ "))));
    }
    let mut tell = async |message: Bytes| socket.send(Message::Binary(message)).await.unwrap();
    tell(Channel::Resize.message(br#"{"Width":120,"Height":40}"#)).await;
    let resize = TerminalStreamData { resize: true, rows: 40, cols: 120, ..named.clone() };
    assert_eq!(told.message().await.unwrap().unwrap(), resize);
    // What is larger than a Go agent takes at once comes in pieces.
    tell(Channel::Stdin.message(&vec![b'x'; 100_000])).await;
    let mut length = 0;
    while length < 100_000 {
        let message = told.message().await.unwrap().unwrap();
        assert_eq!((message.stream_type.as_str(), &message.request_uuid), ("stdin", &asked.uuid));
        assert!(message.data.len() <= 32 << 10);
        length += message.data.len();
    }
    // What nobody understands is nobody's input.
    for nonsense in [&b""[..], b"\x07unknown", b"\x04no size", b"\x01stdout"] {
        tell(Bytes::copy_from_slice(nonsense)).await;
    }
    tell(Channel::Stdin.end()).await;
    tell(Channel::Stdin.message(b"after the end")).await;
    assert_eq!(told.message().await.unwrap().unwrap(), TerminalStreamData { eof: true, ..named.clone() });
    say.send(TerminalStreamData { error: "command terminated with exit code 3".into(), ..named })
        .await
        .unwrap();
    assert_eq!(hear_outcome(&mut socket).await, Ended::Exit(3));
    assert_eq!(told.message().await.unwrap(), None);

    let (mut socket, asked, say, _told) = opened(&client, &mut edge, &opener).await;
    say.send(TerminalStreamData { request_uuid: asked.uuid, eof: true, ..TerminalStreamData::default() })
        .await
        .unwrap();
    assert_eq!(hear_outcome(&mut socket).await, Ended::Well);

    // A client that leaves says so to the command.
    let (socket, _, _say, mut told) = opened(&client, &mut edge, &opener).await;
    drop(socket);
    assert_eq!(told.message().await.unwrap().unwrap().error, "the client has left");
    assert_eq!(told.message().await.unwrap(), None);

    // And with the agent's session its terminals end.
    let (mut socket, _, _say, _told) = opened(&client, &mut edge, &opener).await;
    drop(edge);
    assert!(matches!(hear_outcome(&mut socket).await, Ended::Failed(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_is_neither_stolen_nor_opened_in_another_way() {
    let (fleet, mut edge, _evil) = go_agents().await;
    let client = User { name: "edge", ..User::default() }.client(&fleet).await;
    let opener = Opener::of(&fleet, "edge").await;
    let others = Opener::of(&fleet, "evil").await;
    let opening = async {
        let asked = hear_terminal(&mut edge).await;
        assert_eq!(others.terminal(&asked.uuid).await.unwrap_err().code(), Code::NotFound);
        assert_refused(opener.log(&asked.uuid).1.await.unwrap().unwrap_err().code(), Code::NotFound);
        let (say, told) = opener.terminal(&asked.uuid).await.unwrap();
        let strange = TerminalStreamData {
            request_uuid: "another".into(),
            data: Bytes::from("stolen"),
            ..TerminalStreamData::default()
        };
        say.send(strange).await.unwrap();
        (say, told)
    };
    let (answer, _held) = tokio::join!(client.send(exec()), opening);
    let io = TokioIo::new(hyper::upgrade::on(answer.unwrap()).await.unwrap());
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
    assert!(matches!(hear_outcome(&mut socket).await, Ended::Failed(_)));

    // Half of a command is no success.
    let (mut socket, _, say, _told) = opened(&client, &mut edge, &opener).await;
    drop(say);
    assert!(matches!(hear_outcome(&mut socket).await, Ended::Failed(_)));
    // Nor does a client get more room than it needs.
    let (mut socket, _, _say, mut told) = opened(&client, &mut edge, &opener).await;
    _ = socket.send(Message::Binary(vec![0; 2 << 20].into())).await;
    assert_eq!(told.message().await.unwrap().unwrap().error, "the client has left");

    for (header, value, status) in [
        (UPGRADE, "SPDY/3.1", 405),
        (SEC_WEBSOCKET_PROTOCOL, "base64.channel.k8s.io", 400),
        (SEC_WEBSOCKET_VERSION, "8", 400),
    ] {
        let mut request = exec();
        request.headers_mut().insert(header, value.parse().unwrap());
        let (code, refused) = read(client.send(request).await.unwrap()).await;
        assert_eq!((code, &refused["kind"]), (status, &json!("Status")), "{value}: {refused}");
    }
    let (code, refused) = get(&client, EXEC).await;
    assert_eq!((code, &refused["reason"]), (400, &json!("BadRequest")), "{refused}");
    drop(edge);
    let _autonomous = Raw::connect_as(&fleet, "edge", Mode::Autonomous, None).await;
    let (code, refused) = read(client.send(exec()).await.unwrap()).await;
    assert_eq!(code, 405, "{refused}");
}
