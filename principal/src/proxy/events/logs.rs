//! The log of a container of an agent of the Go project: asked for by an event, and brought by a stream.
//!
//! Such an agent handles no other event while it sends a log that is not followed. So that a client that does not read cannot
//! stop it, that may take [`WHOLE`].

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use jiff::Timestamp;
use tiphys_proto::log_stream::LogStreamData;
use tiphys_shared::model::api_request::{ApiRequest, ResourcePath};
use tiphys_shared::model::streamed::LogRequest;
use tiphys_shared::model::{Event, EventKind, Payload, Target};
use tiphys_shared::proxy::audit::Record;
use tiphys_shared::proxy::body::{Body, BoxError};
use tiphys_shared::proxy::refusal::Refusal;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};

use super::super::Proxy;
use super::super::forward::bad;
use super::awaited;
use super::lines::Untimed;
use super::streams::LogStream;
use super::translate::{cannot, is_on, pairs};
use crate::agents::Agent;

/// How long all of a log may take that is not followed. The Go project's own principal waits as long.
const WHOLE: Duration = Duration::from_secs(180);
/// How long a followed log is waited for before its answer begins: a refusal comes at once, and a container may be silent
/// for hours.
const REFUSAL: Duration = Duration::from_secs(2);
/// Longest text of an agent that is passed on.
const TEXT: usize = 1024;

/// What a client wants of a log.
#[derive(Debug, PartialEq)]
struct Wanted {
    request: LogRequest,
    /// Most bytes that it gets.
    limit: Option<u64>,
}

/// Why a log breaks off.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("{0}")]
    Agent(String),
    #[error("the agent ended the log before its end: {0}")]
    Ended(String),
    #[error("the agent's connection ended")]
    Session,
    #[error("a log that is not followed ends after {WHOLE:?}")]
    Late,
    #[error("the principal stops")]
    Stop,
}

impl Proxy {
    /// Answers a request for a log.
    pub(super) async fn log(
        &self,
        record: Record,
        agent: &Agent,
        asked: &ApiRequest,
        path: &ResourcePath,
        query: Option<&str>,
    ) -> Response<Body> {
        let (first, log) = match self.open_log(agent, asked, path, query).await {
            Ok(opened) => opened,
            Err(refusal) => return self.refuse(record, refusal),
        };
        if asked.lasting {
            record.begins();
        }
        let rest = futures::stream::unfold(log, async |mut log| Some((log.next().await?, log)));
        let pieces = futures::stream::iter(first.map(Ok)).chain(rest);
        let body = StreamBody::new(Box::pin(pieces.map(|piece| Ok::<_, BoxError>(Frame::data(piece?)))));
        let mut response = Response::new(record.follow(StatusCode::OK, body));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        response
    }

    /// Asks for a log, and waits until it is known whether there is one.
    async fn open_log(
        &self,
        agent: &Agent,
        asked: &ApiRequest,
        path: &ResourcePath,
        query: Option<&str>,
    ) -> Result<(Option<Bytes>, Log), Refusal> {
        let Wanted { mut request, limit } = wanted(asked, path, query)?;
        let until = (!request.follow).then(|| Instant::now() + WHOLE);
        let lines = (!request.timestamps).then(Untimed::default);
        let place = agent.streams.reserve()?;
        let session = awaited::session(agent)?;
        let mut event = Event::request(Target::ContainerLog, EventKind::Verb("GET".into()), Payload::Empty);
        request.uuid.clone_from(&event.id.0);
        let uuid = request.uuid.clone();
        event.payload = Payload::LogRequest(request);
        let LogStream { first, messages, end, cut } = awaited::ask(agent, &agent.streams.logs, event).await?;
        // Who does not read does not see that its time is over.
        let limit_task = until.map(|until| {
            AbortOnDropHandle::new(tokio::spawn(async move {
                tokio::time::sleep_until(until).await;
                cut.cancel();
            }))
        });
        let mut log = Log {
            uuid,
            first: Some(first),
            messages,
            end: Some(end),
            lines,
            left: limit,
            until,
            session,
            stop: self.stop.clone(),
            _limit: limit_task,
            _place: place,
        };
        let first = match until {
            Some(_) => log.next().await,
            None => match tokio::time::timeout(REFUSAL, log.next()).await {
                Ok(first) => first,
                Err(_) => return Ok((None, log)),
            },
        };
        match first {
            Some(Err(broken)) => Err(refusal(agent, &broken)),
            Some(Ok(piece)) => Ok((Some(piece), log)),
            None => Ok((None, log)),
        }
    }
}

/// A log on its way.
struct Log {
    uuid: String,
    first: Option<LogStreamData>,
    messages: Streaming<LogStreamData>,
    /// None when it has ended.
    end: Option<oneshot::Sender<Result<(), Status>>>,
    /// None, if the time before each line is wanted.
    lines: Option<Untimed>,
    /// How many bytes may follow.
    left: Option<u64>,
    until: Option<Instant>,
    session: CancellationToken,
    stop: CancellationToken,
    _limit: Option<AbortOnDropHandle<()>>,
    _place: OwnedSemaphorePermit,
}

impl Log {
    /// The next piece. Cancel safe.
    async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        loop {
            if self.end.is_none() || self.left == Some(0) {
                self.end = None;
                return None;
            }
            let message = match self.message().await {
                Ok(message) => message,
                Err(broken) => {
                    self.end = None;
                    return Some(Err(broken));
                }
            };
            if message.request_uuid != self.uuid {
                self.finish(Err(Status::invalid_argument("the stream is of another request")));
                return Some(Err(Broken::Ended("it sent what was not asked for".into())));
            }
            if !message.error.is_empty() {
                let text: String = message.error.chars().take(TEXT).collect();
                self.finish(Err(Status::internal(text.clone())));
                return Some(Err(Broken::Agent(text)));
            }
            let mut piece = match &mut self.lines {
                Some(lines) => lines.push(&message.data),
                None => message.data,
            };
            if message.eof {
                if let Some(rest) = self.lines.as_mut().map(Untimed::end).filter(|rest| !rest.is_empty()) {
                    piece = [piece, rest].concat().into();
                }
                self.finish(Ok(()));
            }
            if let Some(left) = &mut self.left {
                piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= piece.len() as u64;
            }
            if !piece.is_empty() {
                return Some(Ok(piece));
            }
        }
    }

    async fn message(&mut self) -> Result<LogStreamData, Broken> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        let late = async {
            match self.until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Broken::Stop),
            () = self.session.cancelled() => Err(Broken::Session),
            () = late => Err(Broken::Late),
            message = self.messages.message() => match message {
                Ok(Some(message)) => Ok(message),
                Ok(None) => Err(Broken::Ended("without a word".into())),
                Err(status) => Err(Broken::Ended(status.message().chars().take(TEXT).collect())),
            },
        }
    }

    fn finish(&mut self, outcome: Result<(), Status>) {
        if let Some(end) = self.end.take() {
            // The agent may have gone meanwhile.
            _ = end.send(outcome);
        }
    }
}

/// Reads what a client wants.
fn wanted(asked: &ApiRequest, path: &ResourcePath, query: Option<&str>) -> Result<Wanted, Refusal> {
    let mut request = LogRequest {
        namespace: path.namespace.clone(),
        pod_name: path.name.clone(),
        ..LogRequest::default()
    };
    let mut seen = Vec::new();
    for (name, value) in pairs(query)? {
        // The first of a name counts.
        if seen.contains(&name) {
            continue;
        }
        match name.as_str() {
            "container" => request.container = value,
            "follow" => request.follow = is_on(&value),
            "previous" => request.previous = is_on(&value),
            "timestamps" => request.timestamps = is_on(&value),
            "insecureSkipTLSVerifyBackend" => request.insecure_skip_tls_verify_backend = is_on(&value),
            "tailLines" => request.tail_lines = Some(number(&name, &value)?),
            "sinceSeconds" => request.since_seconds = Some(number(&name, &value)?),
            "limitBytes" => request.limit_bytes = Some(number(&name, &value)?),
            // An agent would send everything for a time that it cannot read.
            "sinceTime" => {
                let time: Timestamp =
                    value.parse().map_err(|_| bad("the parameter sinceTime is no time of RFC 3339"))?;
                request.since_time = time.to_string();
            }
            "stream" if value != "All" => return Err(cannot(asked, "it does not tell stdout from stderr")),
            _ => {}
        }
        seen.push(name);
    }
    let limit = match request.limit_bytes {
        Some(limit) => match u64::try_from(limit) {
            Ok(limit @ 1..) => Some(limit),
            _ => return Err(bad("the parameter limitBytes has to be positive")),
        },
        None => None,
    };
    // An agent would count the times before the lines, which are taken off here.
    if !request.timestamps {
        request.limit_bytes = None;
    }
    Ok(Wanted { request, limit })
}

fn number(name: &str, value: &str) -> Result<i64, Refusal> {
    value.parse().map_err(|_| bad(format!("the parameter {name} is no number")))
}

/// What the client is told when there is no log. Of what the cluster has answered, the agent passes on the text only.
fn refusal(agent: &Agent, broken: &Broken) -> Refusal {
    match broken {
        Broken::Agent(text) => Refusal::new(status_of(text), "agent_error", text),
        Broken::Session => awaited::ended(agent),
        Broken::Late => Refusal::new(StatusCode::GATEWAY_TIMEOUT, "timeout", broken.to_string()),
        Broken::Ended(_) | Broken::Stop => {
            Refusal::new(StatusCode::BAD_GATEWAY, "tunnel_broken", broken.to_string())
        }
    }
}

/// The status under which an API server says this.
fn status_of(text: &str) -> StatusCode {
    let of_container = ["container ", "a container name must", "previous terminated container "];
    if of_container.iter().any(|start| text.starts_with(start)) {
        StatusCode::BAD_REQUEST
    } else if text.ends_with(" not found") {
        StatusCode::NOT_FOUND
    } else if text.contains(" is forbidden: ") {
        StatusCode::FORBIDDEN
    } else {
        StatusCode::BAD_GATEWAY
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn read(query: &str) -> Result<Wanted, Refusal> {
        let path = "/api/v1/namespaces/n/pods/p/log";
        let asked = ApiRequest::read(&Method::GET, path, Some(query)).unwrap();
        let tiphys_shared::model::api_request::Target::Resource(path) = &asked.target else { unreachable!() };
        wanted(&asked, path, Some(query))
    }

    #[test]
    fn everything_that_can_be_asked_of_a_log_is_asked() {
        let query = "container=c&follow=1&previous&timestamps=true&tailLines=5&sinceSeconds=6&limitBytes=7\
             &sinceTime=2026-11-21T20:00:00%2B01:00&insecureSkipTLSVerifyBackend=true&follow=false&stream=All&pretty=true";
        let request = LogRequest {
            namespace: "n".into(),
            pod_name: "p".into(),
            container: "c".into(),
            follow: true,
            tail_lines: Some(5),
            since_seconds: Some(6),
            since_time: "2026-11-21T19:00:00Z".into(),
            timestamps: true,
            previous: true,
            insecure_skip_tls_verify_backend: true,
            limit_bytes: Some(7),
            ..LogRequest::default()
        };
        assert_eq!(read(query).unwrap(), Wanted { request, limit: Some(7) });
        let plain = read("limitBytes=7&follow=false").unwrap();
        assert_eq!((plain.request.limit_bytes, plain.limit, plain.request.follow), (None, Some(7), false));
    }

    #[test]
    fn what_an_agent_would_misunderstand_is_refused() {
        for query in
            ["tailLines=x", "sinceSeconds=", "limitBytes=0", "limitBytes=-1", "sinceTime=now", "a=%ff"]
        {
            assert_eq!(read(query).unwrap_err().code, 400, "{query}");
        }
        assert_eq!(read("stream=Stderr").unwrap_err().code, 405);
    }

    #[test]
    fn an_api_servers_words_have_its_status() {
        for (text, status) in [
            ("pods \"p\" not found", 404),
            ("previous terminated container \"c\" in pod \"p\" not found", 400),
            ("container \"c\" in pod \"p\" is waiting to start: ContainerCreating", 400),
            ("a container name must be specified for pod p, choose one of: [a b]", 400),
            ("pods \"p\" is forbidden: User \"a\" cannot get resource \"pods/log\"", 403),
            ("dial tcp: connection refused", 502),
        ] {
            assert_eq!(status_of(text), status, "{text}");
        }
    }
}
