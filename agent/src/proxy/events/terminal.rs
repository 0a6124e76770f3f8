//! A command in a container, for a principal of the Go project. The API server speaks WebSocket.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, Peekable, SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use http::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Method, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tiphys_proto::terminal_stream::TerminalStreamData;
use tiphys_shared::model::streamed::TerminalRequest;
use tiphys_shared::proxy::audit::Record;
use tiphys_shared::proxy::channels::{self, Channel, Ended, Size, Version};
use tiphys_shared::proxy::refusal::Refusal;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tonic::Status;

use super::super::Proxy;
use super::cut;
use super::streams::{LEAVE, PIECE, Sent, not_served};
use crate::connection::Answers;

/// Pieces of output that wait to be sent.
const QUEUE: usize = 16;
/// How long the rest of what a command said may take to come after how it ended.
const REST: Duration = Duration::from_secs(5);

type Socket = WebSocketStream<TokioIo<Upgraded>>;
type Incoming = Peekable<BoxStream<'static, Result<TerminalStreamData, Status>>>;
type Outgoing = mpsc::Sender<TerminalStreamData>;

/// Runs a command, and carries what it says and is told, until it or the principal has ended.
pub(super) async fn answer(proxy: Option<Arc<Proxy>>, answers: &Answers, request: TerminalRequest) -> Sent {
    let (say, messages) = mpsc::channel(QUEUE);
    let named = TerminalStreamData { request_uuid: request.uuid.clone(), ..TerminalStreamData::default() };
    // There is room: by this the principal knows that the stream is here.
    _ = say.try_send(named.clone());
    let mut incoming = answers.terminal(messages).peekable();
    let ended = match proxy {
        Some(proxy) => proxy.run(&request, &named, &mut incoming, &say).await,
        None => Err(not_served()),
    };
    let ended = ended.unwrap_or_else(|refusal| Left::Command(Ended::Failed(refusal.message)));
    let outcome = match ended {
        Left::Principal(outcome) => outcome,
        Left::Command(ended) => {
            let last = match ended.text() {
                None => TerminalStreamData { eof: true, ..named },
                Some(error) => TerminalStreamData { error, ..named },
            };
            let leaving = async {
                // If it cannot be said, the stream has ended, and says why itself.
                _ = say.send(last).await;
                drop(say);
                while incoming.next().await.transpose()?.is_some() {}
                Ok(())
            };
            match tokio::time::timeout(LEAVE, leaving).await {
                Ok(outcome) => outcome,
                Err(_) => Err(Status::deadline_exceeded("the principal does not end the stream")),
            }
        }
    };
    Sent::of(&request.uuid, outcome)
}

/// Who has ended first.
enum Left {
    Command(Ended),
    /// The principal, for whom nothing needs to run any more.
    Principal(Result<(), Status>),
}

impl Proxy {
    async fn run(
        &self,
        request: &TerminalRequest,
        named: &TerminalStreamData,
        incoming: &mut Incoming,
        say: &Outgoing,
    ) -> Result<Left, Refusal> {
        self.metrics.proxy_requests.inc();
        let mut record = Record::new(cut(&request.uuid), Method::GET, "");
        let opened = {
            let mut opening = std::pin::pin!(self.exec(&mut record, request));
            tokio::select! {
                biased;
                opened = &mut opening => opened,
                // The stream opens meanwhile. What is said on it waits for the command.
                _ = std::pin::Pin::new(&mut *incoming).peek() => opening.await,
            }
        };
        let (socket, version) = match opened {
            Ok(opened) => opened,
            Err(refusal) => {
                self.metrics.proxy_errors.inc();
                record.refused(&refusal);
                return Err(refusal);
            }
        };
        record.begins();
        let (mut to_command, mut command) = socket.split();
        let (mut received, mut sent) = (0, 0);
        let left = tokio::select! {
            biased;
            ended = output(&mut command, named, say, &mut sent) => Left::Command(ended),
            outcome = input(incoming, &mut to_command, version, &mut received) => Left::Principal(outcome),
        };
        record.switched(Ok((received, sent)));
        Ok(left)
    }

    /// Has the API server run a command.
    async fn exec(
        &self,
        record: &mut Record,
        request: &TerminalRequest,
    ) -> Result<(Socket, Version), Refusal> {
        let key = generate_key();
        let broken = |why: &str| {
            let why = format!("the cluster's API server does not speak WebSocket as expected: {why}");
            Refusal::new(StatusCode::BAD_GATEWAY, "api_server", why)
        };
        let headers = [
            (CONNECTION, HeaderValue::from_static("Upgrade")),
            (UPGRADE, HeaderValue::from_static("websocket")),
            (SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
            (SEC_WEBSOCKET_KEY, HeaderValue::try_from(&key).map_err(|error| broken(&error.to_string()))?),
            (SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(Version::OFFER)),
        ];
        let pod = (request.namespace.as_str(), request.pod_name.as_str(), "exec");
        let mut answer = self.ask_pod(record, pod, &parameters(request), &headers).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(broken("it does not upgrade the connection"));
        }
        let accept = derive_accept_key(key.as_bytes());
        if answer
            .headers()
            .get(SEC_WEBSOCKET_ACCEPT)
            .is_none_or(|value| value.as_bytes() != accept.as_bytes())
        {
            return Err(broken("it accepts another connection than this"));
        }
        let version = Version::of(answer.headers()).ok_or_else(|| broken("it chose no protocol"))?;
        let upgraded = hyper::upgrade::on(&mut answer).await.map_err(|error| broken(&error.to_string()))?;
        let config = Some(channels::config());
        Ok((Socket::from_raw_socket(TokioIo::new(upgraded), Role::Client, config).await, version))
    }
}

fn parameters(request: &TerminalRequest) -> Vec<(&'static str, String)> {
    let flags = [
        ("tty", request.tty),
        ("stdin", request.stdin),
        ("stdout", request.stdout),
        ("stderr", request.stderr),
    ];
    let container = Some(&request.container_name).filter(|name| !name.is_empty());
    let command = request.command.iter().map(|word| ("command", word.clone()));
    command
        .chain(flags.map(|(name, on)| (name, on.to_string())))
        .chain(container.map(|name| ("container", name.clone())))
        .collect()
}

/// Says what the command says, until it has ended.
async fn output(
    command: &mut SplitStream<Socket>,
    named: &TerminalStreamData,
    say: &Outgoing,
    sent: &mut u64,
) -> Ended {
    let mut ended = None;
    // Channels are carried side by side: how a command ended may overtake what it said.
    let mut until = std::pin::pin!(tokio::time::sleep(REST));
    loop {
        let message = tokio::select! {
            biased;
            message = command.next() => message,
            () = &mut until, if ended.is_some() => break,
        };
        let message = match message {
            Some(Ok(Message::Binary(data))) => data,
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
            Some(Ok(Message::Close(_) | Message::Text(_))) | None => break,
            Some(Err(error)) => {
                return ended.unwrap_or_else(|| {
                    Ended::Failed(format!("the connection to the cluster's API server broke: {error}"))
                });
            }
        };
        let (stream_type, mut data) = match Channel::split(message) {
            Some((Channel::Stdout, data)) => ("stdout", data),
            Some((Channel::Stderr, data)) => ("stderr", data),
            Some((Channel::Outcome, data)) if !data.is_empty() => {
                ended = Some(Ended::of_status(&data));
                until.as_mut().reset(tokio::time::Instant::now() + REST);
                continue;
            }
            _ => continue,
        };
        *sent += data.len() as u64;
        while !data.is_empty() {
            let data = data.split_to(PIECE.min(data.len()));
            let piece = TerminalStreamData { data, stream_type: stream_type.to_owned(), ..named.clone() };
            if say.send(piece).await.is_err() {
                // The stream has ended: the other direction tells why.
                return std::future::pending().await;
            }
        }
    }
    // Clients of Kubernetes take it for success when nothing else is said.
    ended.unwrap_or(Ended::Well)
}

/// Tells the command what the principal says, until that ends.
async fn input(
    incoming: &mut Incoming,
    to_command: &mut SplitSink<Socket, Message>,
    version: Version,
    received: &mut u64,
) -> Result<(), Status> {
    let mut is_open = true;
    while let Some(said) = incoming.next().await.transpose()? {
        let message = if !said.error.is_empty() {
            return Ok(());
        } else if said.resize {
            let most = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
            let size = Size { width: most(said.cols), height: most(said.rows) };
            match serde_json::to_vec(&size) {
                Ok(size) => Channel::Resize.message(&size),
                Err(error) => return Err(Status::internal(format!("a size cannot be written: {error}"))),
            }
        } else if said.eof {
            is_open = false;
            match version {
                Version::V5 => Channel::Stdin.end(),
                // It has no word for it.
                Version::V4 => continue,
            }
        } else if is_open && said.stream_type == "stdin" && !said.data.is_empty() {
            *received += said.data.len() as u64;
            Channel::Stdin.message(&said.data)
        } else {
            continue;
        };
        if to_command.send(Message::Binary(message)).await.is_err() {
            // The command has ended: the other direction tells how.
            return std::future::pending().await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_asked_for_word_by_word() {
        let request = TerminalRequest {
            command: ["sh", "-c"].map(str::to_owned).into(),
            container_name: "c".into(),
            tty: true,
            stdout: true,
            ..TerminalRequest::default()
        };
        let expected = [
            ("command", "sh"),
            ("command", "-c"),
            ("tty", "true"),
            ("stdin", "false"),
            ("stdout", "true"),
            ("stderr", "false"),
            ("container", "c"),
        ];
        assert_eq!(parameters(&request), expected.map(|(name, value)| (name, value.to_owned())));
    }
}
