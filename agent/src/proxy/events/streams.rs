//! Logs and terminals for a principal of the Go project: asked for by an event, answered over a stream that the agent opens.
//! None outlives the session in which it was opened.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderValue;
use http::{Method, Request, Response, StatusCode};
use parking_lot::Mutex;
use serde_json::Value;
use tiphys_shared::model::Mode;
use tiphys_shared::model::api_request::ApiRequest;
use tiphys_shared::model::event::ResourceRequest;
use tiphys_shared::model::streamed::{LogRequest, TerminalRequest};
use tiphys_shared::proxy::audit::Record;
use tiphys_shared::proxy::body::{self, Body};
use tiphys_shared::proxy::headers::REQUEST_ID;
use tiphys_shared::proxy::refusal::Refusal;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::super::Proxy;
use super::{PATIENCE, cut, logs, terminal, translate};
use crate::connection::{Answers, Link};

/// Logs and terminals that are sent at once.
const SENT: usize = 128;
/// Those that may wait for it.
const WAITING: usize = 64;
/// Largest piece that is sent, in bytes.
pub(super) const PIECE: usize = 64 << 10;
/// Largest refusal of an API server that is read, in bytes.
const REFUSAL: usize = 64 << 10;
/// How long a principal may take to take leave.
pub(super) const LEAVE: Duration = Duration::from_secs(10);

/// What is asked for.
pub(super) enum Wish {
    Log(LogRequest),
    Terminal(TerminalRequest),
}

/// What waits to be answered.
pub(super) struct Wishes {
    sender: mpsc::Sender<(Instant, Wish)>,
    /// Of the session that there is.
    waiting: tokio::sync::Mutex<mpsc::Receiver<(Instant, Wish)>>,
    recent: Mutex<super::Recent>,
}

impl fmt::Debug for Wishes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wishes").field("places", &self.sender.capacity()).finish_non_exhaustive()
    }
}

impl Default for Wishes {
    fn default() -> Self {
        let (sender, waiting) = mpsc::channel(WAITING);
        Self { sender, waiting: tokio::sync::Mutex::new(waiting), recent: Mutex::default() }
    }
}

impl Wishes {
    /// Takes a wish, unless it came before.
    pub(super) fn add(&self, wish: Wish) {
        let uuid = match &wish {
            Wish::Log(request) => &request.uuid,
            Wish::Terminal(request) => &request.uuid,
        };
        let uuid = cut(uuid);
        if !self.recent.lock().is_new(&uuid) {
            tracing::info!(uuid, "a request for a log or a terminal came once more");
        } else if self.sender.try_send((Instant::now() + PATIENCE, wish)).is_err() {
            tracing::warn!(
                uuid,
                "too many requests for logs and terminals wait already; one is not answered"
            );
        }
    }

    /// Answers for as long as a session lasts. Dropping the future ends all that is under way.
    pub(super) async fn grant(&self, link: &impl Link, mode: Mode, proxy: Option<&Arc<Proxy>>) -> Infallible {
        let mut waiting = self.waiting.lock().await;
        let mut running = JoinSet::new();
        let mut way: Option<Answers> = None;
        loop {
            tokio::select! {
                biased;
                Some(sent) = running.join_next(), if !running.is_empty() => {
                    if !matches!(sent, Ok(Sent::Done)) {
                        way = None;
                    }
                }
                Some((until, wish)) = waiting.recv(), if running.len() < SENT => {
                    if until <= Instant::now() {
                        tracing::warn!("a request for a log or a terminal waited too long");
                        continue;
                    }
                    let answers = match way.take().filter(Answers::is_fresh) {
                        Some(answers) => answers,
                        None => match link.answers(mode).await {
                            Ok(answers) => answers,
                            Err(error) => {
                                tracing::warn!(%error, "no way to send a log or open a terminal");
                                continue;
                            }
                        },
                    };
                    way = Some(answers.clone());
                    let proxy = proxy.cloned();
                    running.spawn(async move {
                        match wish {
                            Wish::Log(request) => logs::answer(proxy, &answers, request).await,
                            Wish::Terminal(request) => {
                                terminal::answer(proxy, &answers, request).await
                            }
                        }
                    });
                }
            }
        }
    }
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It ended as it should, or because nobody wanted it any more.
    Done,
    /// The way to the principal broke.
    Broken,
}

impl Sent {
    pub(super) fn of(uuid: &str, outcome: Result<(), Status>) -> Self {
        let Err(status) = outcome else { return Self::Done };
        let (code, reason) = (status.code(), status.message());
        match code {
            // A Go principal repeats an error that it was told.
            Code::Cancelled | Code::NotFound | Code::Internal => {
                tracing::debug!(uuid = cut(uuid), ?code, reason, "the principal ended a log or a terminal");
                Self::Done
            }
            _ => {
                tracing::warn!(uuid = cut(uuid), ?code, reason, "a log or a terminal broke off");
                Self::Broken
            }
        }
    }
}

/// Why nothing can be had, if this cluster's API is not served.
pub(super) fn not_served() -> Refusal {
    let why = "the agent does not serve its cluster's API (--enable-resource-proxy false)";
    Refusal::new(StatusCode::FORBIDDEN, "not_served", why)
}

impl Proxy {
    /// Judges a request about a pod, and passes it to the API server.
    pub(super) async fn ask_pod(
        &self,
        record: &mut Record,
        (namespace, pod, subresource): (&str, &str, &str),
        pairs: &[(&str, String)],
        headers: &[(http::HeaderName, HeaderValue)],
    ) -> Result<Response<Body>, Refusal> {
        let bad = |why: String| Refusal::new(StatusCode::BAD_REQUEST, "bad_request", why);
        let about = ResourceRequest {
            version: "v1".to_owned(),
            namespace: namespace.to_owned(),
            resource: "pods".to_owned(),
            name: pod.to_owned(),
            subresource: subresource.to_owned(),
            ..ResourceRequest::default()
        };
        let path = translate::path(&about)?;
        record.path.clone_from(&path);
        let query = translate::query(pairs.iter().map(|(name, value)| (*name, value.as_str())))?;
        let asked = ApiRequest::read(&Method::GET, &path, query.as_deref())
            .map_err(|error| bad(error.to_string()))?;
        record.verb = asked.verb;
        self.check_caller()?;
        let must_be_managed = self.judge(&asked)?;
        let uri = query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
        let mut request = Request::get(uri);
        if !record.id.is_empty() {
            request = request.header(REQUEST_ID, record.id.as_str());
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(body::empty()).map_err(|error| bad(error.to_string()))?;
        let answer = tokio::time::timeout(PATIENCE, self.pass(&asked, must_be_managed, request)).await;
        let answer = answer.map_err(|_| {
            let why = format!("the cluster's API server did not begin to answer within {PATIENCE:?}");
            Refusal::new(StatusCode::GATEWAY_TIMEOUT, "timeout", why)
        })??;
        if answer.status().is_success() || answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(answer);
        }
        let (head, body) = answer.into_parts();
        let text = match body::whole(body, REFUSAL).await {
            Ok(bytes) => serde_json::from_slice::<Value>(&bytes)
                .ok()
                .and_then(|status| Some(status["message"].as_str()?.to_owned()))
                .unwrap_or_else(|| String::from_utf8_lossy(&bytes).chars().take(1024).collect()),
            Err(error) => format!("{}, and its answer cannot be read: {error}", head.status),
        };
        Err(Refusal::new(head.status, "api_server", text))
    }
}
