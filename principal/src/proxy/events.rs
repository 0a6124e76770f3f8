//! Requests to agents of the Go project, which have no tunnel: each is an event. So is its answer, but for logs and
//! terminals, which the agent opens a stream for.
//!
//! What is awaited of an agent is kept with that agent: no other can answer it. An event is sent once, and whatever happens an
//! answer begins in time, or a refusal says why it does not.

mod awaited;
mod lines;
mod logs;
mod streams;
mod terminal;
mod translate;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode, request};
use hyper::body::Incoming;
use tiphys_shared::model::api_request::{ApiRequest, Target as Asked};
use tiphys_shared::model::event::{ResourceRequest, ResourceResponse};
use tiphys_shared::model::{Event, EventKind, Payload, Target};
use tiphys_shared::proxy::audit::Record;
use tiphys_shared::proxy::body::{self, Body, Partial};
use tiphys_shared::proxy::refusal::Refusal;

pub(crate) use self::awaited::Awaited;
pub(crate) use self::streams::{LogStream, Streams, Terminal};
use self::translate::{Asking, Plan};
use super::Proxy;
use super::caller::Caller;
use super::forward::bad;
use crate::agents::Agent;

/// Largest body of a request, as API servers have it.
const BODY: usize = 3 << 20;

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
        let query = caller.query.as_deref();
        if let Asked::Resource(path) = &asked.target
            && path.group.is_empty()
            && path.resource == "pods"
        {
            match path.subresource.as_str() {
                "log" if parts.method == Method::GET => {
                    return self.log(record, agent, asked, path, query).await;
                }
                "exec" => return self.terminal(record, agent, asked, path, query, parts).await,
                _ => {}
            }
        }
        let content_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let plan = match translate::plan(&parts.method, asked, query, content_type) {
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
    let kind = EventKind::Verb(request.method.clone());
    let mut event = Event::request(Target::Resource, kind, Payload::Empty);
    request.uuid.clone_from(&event.id.0);
    event.payload = Payload::ResourceRequest(request);
    awaited::ask(agent, &agent.resources, event).await
}
