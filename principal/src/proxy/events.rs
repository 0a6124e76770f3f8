//! Requests to agents of the Go project, which have no tunnel: each is an event, and so is its answer.
//!
//! What is awaited of an agent is kept with that agent: no other can answer it. An event is sent once, and whatever happens a
//! request ends within [`PATIENCE`].

mod translate;

use std::collections::HashMap;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode, request};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tiphys_shared::model::api_request::ApiRequest;
use tiphys_shared::model::event::{ResourceRequest, ResourceResponse};
use tiphys_shared::model::{Event, EventKind, Payload, Target};
use tiphys_shared::proxy::audit::Record;
use tiphys_shared::proxy::body::{self, Body, Partial};
use tiphys_shared::proxy::refusal::Refusal;
use tiphys_shared::wire::express::Unsent;
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::translate::{Asking, Plan};
use super::Proxy;
use super::caller::Caller;
use super::forward::bad;
use crate::agents::Agent;

/// How long an agent may take for an answer. The Go project's own gives up on its API server after 5 s.
const PATIENCE: Duration = Duration::from_secs(30);
/// Answers that may be awaited of one agent at once. Each may be as large as a message.
const AWAITED: usize = 64;
/// Largest body of a request, as API servers have it.
const BODY: usize = 3 << 20;

/// What is awaited of one agent.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    answers: Mutex<HashMap<String, oneshot::Sender<ResourceResponse>>>,
}

impl Awaited {
    /// Takes an answer. One that nobody waits for any more is dropped.
    pub(crate) fn take(&self, response: ResourceResponse) {
        let awaited = self.answers.lock().remove(&response.uuid);
        if awaited.is_none_or(|awaited| awaited.send(response).is_err()) {
            tracing::debug!("an answer about a resource that nobody waits for");
        }
    }
}

/// Waits no more when it is dropped.
struct Forget<'a> {
    awaited: &'a Awaited,
    uuid: String,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.awaited.answers.lock().remove(&self.uuid);
    }
}

impl Proxy {
    /// Answers a request for the cluster of an agent of the Go project.
    pub(super) async fn by_events(
        &self,
        record: Record,
        agent: &Agent,
        caller: &Caller,
        asked: &ApiRequest,
        parts: request::Parts,
        incoming: Incoming,
    ) -> Response<Body> {
        let content_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let plan = match translate::plan(&parts.method, asked, caller.query.as_deref(), content_type) {
            Ok(plan) => plan,
            Err(refusal) => return self.refuse(record, refusal),
        };
        let (mut asking, text) = match plan {
            Plan::Say(text) => return answer(record, StatusCode::OK, text),
            Plan::Ask(asking) => match body::whole(body::boxed(incoming), BODY).await {
                Ok(bytes) => (asking, bytes),
                Err(error) => return self.refuse(record, unread(&error)),
            },
        };
        if let Err(refusal) = asking.take_body(&text) {
            return self.refuse(record, refusal);
        }
        let Asking { request, form } = *asking;
        match ask(agent, request).await {
            Err(refusal) => self.refuse(record, refusal),
            Ok(response) => {
                if response.status >= 500 {
                    self.count_error(&record, "agent_error");
                }
                let (status, text) = translate::answer(form, response, asked);
                answer(record, status, text)
            }
        }
    }
}

fn answer(record: Record, status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(record.follow(status, body::full(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn unread(error: &Partial) -> Refusal {
    match error {
        Partial::TooLarge(most) => {
            let why = format!("the request's body has more than {most} bytes");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "bad_request", why)
        }
        Partial::Broken(_) => bad(format!("the request's body cannot be read: {error}")),
    }
}

/// Asks an agent, and waits for its answer.
async fn ask(agent: &Agent, mut request: ResourceRequest) -> Result<ResourceResponse, Refusal> {
    let name = &agent.name;
    let ended = || {
        let why = format!("the connection of agent {name} ended before it answered");
        Refusal::new(StatusCode::BAD_GATEWAY, "tunnel_broken", why)
    };
    let late = || {
        let why = format!(
            "agent {name} did not answer within {PATIENCE:?}; an agent of argocd-agent with --enable-resource-proxy=false never does"
        );
        Refusal::new(StatusCode::GATEWAY_TIMEOUT, "timeout", why)
    };
    let session = agent.session_token().ok_or_else(ended)?;
    let until = Instant::now() + PATIENCE;
    let kind = EventKind::Verb(request.method.clone());
    let mut event = Event::request(Target::Resource, kind, Payload::Empty);
    let uuid = event.id.0.clone();
    request.uuid.clone_from(&uuid);
    event.payload = Payload::ResourceRequest(request);
    let (sender, answer) = oneshot::channel();
    {
        let mut answers = agent.resources.answers.lock();
        if answers.len() >= AWAITED {
            let why = format!("{AWAITED} requests to agent {name} are under way already");
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", why));
        }
        answers.insert(uuid.clone(), sender);
    }
    let _forget = Forget { awaited: &agent.resources, uuid };
    let sent = agent.outbox.express(event, until);
    let answered = async {
        sent.await.map_err(|unsent| match unsent {
            Unsent::Late => late(),
            Unsent::NoStream => ended(),
            Unsent::TooLarge => {
                let why = format!("the request to agent {name} is {unsent}");
                Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "bad_request", why)
            }
            Unsent::Full => {
                let why = format!("agent {name} cannot be asked now: {unsent}");
                Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", why)
            }
            Unsent::Unwritable => bad(format!("the request to agent {name}: {unsent}")),
        })?;
        answer.await.map_err(|_| ended())
    };
    tokio::select! {
        biased;
        answer = answered => answer,
        () = session.cancelled() => Err(ended()),
        () = tokio::time::sleep_until(until) => Err(late()),
    }
}
