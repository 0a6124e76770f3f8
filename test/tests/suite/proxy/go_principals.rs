//! Logs and terminals for a principal of the Go project: streams that our agent opens.

use bytes::Bytes;
use futures::Stream;
use tiphys_agent::{AllowList, ProxyPolicy};
use tiphys_proto::log_stream::log_stream_service_server::{LogStreamService, LogStreamServiceServer};
use tiphys_proto::log_stream::{LogStreamData, LogStreamResponse};
use tiphys_proto::terminal_stream::TerminalStreamData;
use tiphys_proto::terminal_stream::terminal_stream_service_server::{
    TerminalStreamService, TerminalStreamServiceServer,
};
use tiphys_shared::model::streamed::{LogRequest, TerminalRequest};
use tiphys_shared::model::{Event, EventKind, Payload, Target};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Response, Status, Streaming};

use super::go_peers::GoPrincipal;
use super::*;

/// What an agent proves with that it may open streams.
pub(super) const TOKEN: &str = "token";

/// A stream that an agent has opened.
pub(super) enum Opened {
    Log(Streaming<LogStreamData>, oneshot::Sender<Result<(), Status>>),
    Terminal(Streaming<TerminalStreamData>, mpsc::Sender<Result<TerminalStreamData, Status>>),
}

#[derive(Clone)]
struct Streams(mpsc::Sender<Opened>);

#[tonic::async_trait]
impl LogStreamService for Streams {
    async fn stream_logs(
        &self,
        request: tonic::Request<Streaming<LogStreamData>>,
    ) -> Result<Response<LogStreamResponse>, Status> {
        assert_eq!(request.metadata().get("authorization").unwrap(), TOKEN);
        let (end, ended) = oneshot::channel();
        self.0.send(Opened::Log(request.into_inner(), end)).await.unwrap();
        ended.await.unwrap_or_else(|_| Err(Status::cancelled("gone")))?;
        Ok(Response::new(LogStreamResponse { status: 200, ..LogStreamResponse::default() }))
    }
}

#[tonic::async_trait]
impl TerminalStreamService for Streams {
    type StreamTerminalStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<TerminalStreamData, Status>> + Send>>;

    async fn stream_terminal(
        &self,
        request: tonic::Request<Streaming<TerminalStreamData>>,
    ) -> Result<Response<Self::StreamTerminalStream>, Status> {
        assert_eq!(request.metadata().get("authorization").unwrap(), TOKEN);
        let (outgoing, mut told) = mpsc::channel(16);
        self.0.send(Opened::Terminal(request.into_inner(), outgoing)).await.unwrap();
        Ok(Response::new(Box::pin(futures::stream::poll_fn(move |context| told.poll_recv(context)))))
    }
}

/// A server for such streams, and a way to it.
pub(super) async fn streams() -> (Channel, mpsc::Receiver<Opened>, AbortOnDropHandle<()>) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (opens, opened) = mpsc::channel(16);
    let incoming = futures::stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    let server = Server::builder()
        .add_service(LogStreamServiceServer::new(Streams(opens.clone())))
        .add_service(TerminalStreamServiceServer::new(Streams(opens)))
        .serve_with_incoming(incoming);
    let task = tokio::spawn(async move { server.await.unwrap() });
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    (channel, opened, AbortOnDropHandle::new(task))
}

impl GoPrincipal {
    async fn opened(&mut self) -> Opened {
        let opened = tokio::time::timeout(std::time::Duration::from_secs(60), self.opened.recv()).await;
        opened.expect("no stream was opened").unwrap()
    }

    /// Asks for a log, and gets the stream that brings it.
    async fn ask_log(
        &mut self,
        request: LogRequest,
    ) -> (String, Streaming<LogStreamData>, oneshot::Sender<Result<(), Status>>) {
        let event = log_event(request);
        self.tell(&event).await;
        let Opened::Log(mut messages, end) = self.opened().await else { panic!("a terminal was opened") };
        let first = messages.message().await.unwrap().unwrap();
        assert_eq!((&first.request_uuid, first.data.len(), first.eof), (&event.id.0, 0, false));
        (event.id.0, messages, end)
    }

    /// Asks for a command, and gets the stream that it is spoken with.
    async fn ask_terminal(
        &mut self,
        request: TerminalRequest,
    ) -> (Streaming<TerminalStreamData>, mpsc::Sender<Result<TerminalStreamData, Status>>) {
        let mut event = Event::request(Target::Terminal, EventKind::TerminalRequest, Payload::Empty);
        let uuid = event.id.0.clone();
        event.payload = Payload::TerminalRequest(TerminalRequest { uuid: uuid.clone(), ..request });
        self.tell(&event).await;
        // A principal that did not hear that it arrived says it again.
        self.tell(&event).await;
        let Opened::Terminal(mut messages, outgoing) = self.opened().await else {
            panic!("a log was opened")
        };
        let first = messages.message().await.unwrap().unwrap();
        assert_eq!((first.request_uuid, first.data.len()), (uuid, 0));
        (messages, outgoing)
    }
}

fn log_event(request: LogRequest) -> Event {
    let mut event = Event::request(Target::ContainerLog, EventKind::Verb("GET".into()), Payload::Empty);
    let uuid = event.id.0.clone();
    event.payload = Payload::LogRequest(LogRequest { uuid, ..request });
    event
}

fn of_pod(name: &str) -> LogRequest {
    LogRequest { namespace: "a".into(), pod_name: name.into(), ..LogRequest::default() }
}

async fn peer(policy: ProxyPolicy) -> (Fleet, Backend, GoPrincipal) {
    let backend = Backend::start().await;
    let mut fleet = Fleet::embedded(&["edge"]).await;
    fleet.kill_agent("edge");
    let principal = GoPrincipal::before(&fleet, backend.api_server(), policy).await;
    (fleet, backend, principal)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_go_principal_gets_logs_until_they_end_or_nobody_reads_them() {
    let (_fleet, backend, mut principal) = peer(ProxyPolicy::All).await;
    let wanted = LogRequest { container: "c d".into(), tail_lines: Some(5), timestamps: true, ..of_pod("p") };
    let (uuid, mut messages, end) = principal.ask_log(wanted).await;
    let piece = messages.message().await.unwrap().unwrap();
    assert_eq!(piece.data, "timestamps=true&tailLines=5&container=c%20d\n");
    let last = messages.message().await.unwrap().unwrap();
    assert_eq!((last.request_uuid, last.eof, last.error.as_str()), (uuid, true, ""));
    end.send(Ok(())).unwrap();

    // What is said once more is not done once more.
    let again = log_event(of_pod("p"));
    principal.tell(&again).await;
    principal.tell(&again).await;
    let Opened::Log(mut once, _end) = principal.opened().await else { panic!("a terminal was opened") };
    assert_eq!(once.message().await.unwrap().unwrap().request_uuid, again.id.0);

    let (uuid, mut messages, end) = principal.ask_log(of_pod("nobody")).await;
    let last = messages.message().await.unwrap().unwrap();
    assert_eq!((&last.request_uuid, last.eof), (&uuid, true));
    assert_eq!(last.error, "nothing at /api/v1/namespaces/a/pods/nobody/log");
    end.send(Err(Status::internal(last.error))).unwrap();

    let (_, mut messages, end) = principal.ask_log(LogRequest { follow: true, ..of_pod("p") }).await;
    assert_eq!(messages.message().await.unwrap().unwrap().data, "follow=true\n");
    end.send(Err(Status::cancelled("the reader has left"))).unwrap();
    // The API server hears of it.
    backend.ended.acquire().await.unwrap().forget();

    let (_, mut messages, end) = principal.ask_log(LogRequest { follow: true, ..of_pod("p") }).await;
    assert_eq!(messages.message().await.unwrap().unwrap().data, "follow=true\n");
    // With the session all ends.
    drop(principal);
    backend.ended.acquire().await.unwrap().forget();
    assert!(!matches!(messages.message().await, Ok(Some(_))));
    drop(end);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_go_principal_speaks_with_commands_in_both_directions() {
    let (_fleet, backend, mut principal) = peer(ProxyPolicy::All).await;
    let shell = TerminalRequest {
        namespace: "a".into(),
        pod_name: "shell".into(),
        command: vec!["sh".into(), "-c".into()],
        tty: true,
        stdin: true,
        ..TerminalRequest::default()
    };
    let (mut messages, outgoing) = principal.ask_terminal(shell.clone()).await;
    let hear = async |messages: &mut Streaming<TerminalStreamData>| {
        let message = messages.message().await.unwrap().unwrap();
        (message.stream_type, String::from_utf8(message.data.into()).unwrap(), message.error)
    };
    let said = |stream: &str, text: &str| (stream.to_owned(), text.to_owned(), String::new());
    let query = "command=sh&command=-c&tty=true&stdin=true&stdout=false&stderr=false";
    assert_eq!(hear(&mut messages).await, said("stdout", query));
    let tell = async |message: TerminalStreamData| outgoing.send(Ok(message)).await.unwrap();
    tell(TerminalStreamData {
        data: Bytes::from("ls\n"),
        stream_type: "stdin".into(),
        ..TerminalStreamData::default()
    })
    .await;
    assert_eq!(hear(&mut messages).await, said("stdout", "ls\n"));
    tell(TerminalStreamData { resize: true, rows: 40, cols: 1 << 20, ..TerminalStreamData::default() }).await;
    assert_eq!(hear(&mut messages).await, said("stderr", r#"{"Width":65535,"Height":40}"#));
    tell(TerminalStreamData { eof: true, ..TerminalStreamData::default() }).await;
    assert_eq!(hear(&mut messages).await, said("stdout", "bye"));
    assert_eq!(hear(&mut messages).await.2, "command terminated with exit code 3");
    drop(outgoing);
    assert_eq!(messages.message().await.unwrap(), None);
    backend.ended.acquire().await.unwrap().forget();

    // Who leaves takes the command along, whether he says so or not.
    let (mut messages, outgoing) = principal.ask_terminal(shell.clone()).await;
    assert_eq!(hear(&mut messages).await.1, query);
    outgoing
        .send(Ok(TerminalStreamData { error: "left".into(), ..TerminalStreamData::default() }))
        .await
        .unwrap();
    backend.ended.acquire().await.unwrap().forget();
    let (mut messages, outgoing) = principal.ask_terminal(shell.clone()).await;
    assert_eq!(hear(&mut messages).await.1, query);
    drop(outgoing);
    backend.ended.acquire().await.unwrap().forget();

    for (pod, why) in
        [("refused", "not here"), ("plain", "does not upgrade"), ("../p", "cannot be part of a path")]
    {
        let (mut messages, _outgoing) =
            principal.ask_terminal(TerminalRequest { pod_name: pod.into(), ..shell.clone() }).await;
        let error = hear(&mut messages).await.2;
        assert!(error.contains(why), "{pod}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_and_commands_obey_the_agents_policy() {
    let (_fleet, backend, mut principal) = peer(ProxyPolicy::AllowList(AllowList::default())).await;
    let (_, mut messages, _end) = principal.ask_log(LogRequest { follow: true, ..of_pod("p") }).await;
    let refused = messages.message().await.unwrap().unwrap();
    assert!(refused.eof && refused.error.contains("allow-list"), "{refused:?}");
    let shell =
        TerminalRequest { namespace: "a".into(), pod_name: "shell".into(), ..TerminalRequest::default() };
    let (mut messages, _outgoing) = principal.ask_terminal(shell).await;
    let refused = messages.message().await.unwrap().unwrap();
    assert!(refused.error.contains("allow-list"), "{refused:?}");
    assert_eq!(backend.ended.available_permits(), 0, "the API server was asked");
}
