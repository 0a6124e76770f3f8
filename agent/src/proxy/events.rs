//! Requests of a principal of the Go project, which has no tunnel: each comes as an event, and so goes its answer, but for logs
//! and terminals, which have a stream of their own.
//!
//! Nothing here holds up the other events: a request is put aside at once, and answered when the API server has answered. It is
//! judged and written down as one that comes through a tunnel; who calls is known to nobody.

mod logs;
mod recent;
mod streams;
mod terminal;
mod translate;

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tiphys_shared::model::api_request::ApiRequest;
use tiphys_shared::model::event::{ResourceRequest, ResourceResponse, unique};
use tiphys_shared::model::streamed::{LogRequest, TerminalRequest};
use tiphys_shared::model::{Event, EventId, EventKind, Mode, Payload, Target};
use tiphys_shared::proxy::audit::Record;
use tiphys_shared::proxy::body;
use tiphys_shared::proxy::headers::REQUEST_ID;
use tiphys_shared::proxy::refusal::Refusal;
use tiphys_shared::wire::express::Unsent;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::recent::Recent;
use self::streams::{Wish, Wishes};
use self::translate::Asking;
use super::Proxy;
use crate::connection::Link;
use crate::outbound::Outbound;

/// How long the principal waits for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Requests that are answered at once. An answer is in memory until it is sent.
const ANSWERED: usize = 4;
/// Requests that may be here, answered or waiting.
const WAITING: usize = 256;
/// Largest answer, in bytes.
const LARGEST: usize = 32 << 20;
/// How much of an event's name is written down.
const NAME: usize = 64;

/// Takes what a principal asks by events.
#[derive(Clone)]
pub(crate) struct Events {
    /// None, if this cluster's API is not served.
    proxy: Option<Arc<Proxy>>,
    outbound: Arc<Outbound>,
    tasks: TaskTracker,
    stop: CancellationToken,
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    /// Requests that change something: none is carried out twice.
    changes: Arc<Mutex<Recent>>,
    wishes: Arc<Wishes>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("served", &self.proxy.is_some()).finish_non_exhaustive()
    }
}

impl Events {
    /// Answers by `proxy`; what is under way ends with `stop`.
    pub(crate) fn new(
        proxy: Option<Arc<Proxy>>,
        outbound: &Arc<Outbound>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        Self {
            proxy,
            outbound: Arc::clone(outbound),
            tasks: tasks.clone(),
            stop: stop.clone(),
            places: Arc::new(Semaphore::new(WAITING)),
            turns: Arc::new(Semaphore::new(ANSWERED)),
            changes: Arc::default(),
            wishes: Arc::default(),
        }
    }

    /// Takes a request for a log.
    pub(crate) fn take_log(&self, request: LogRequest) {
        self.wishes.add(Wish::Log(request));
    }

    /// Takes a request for a terminal.
    pub(crate) fn take_terminal(&self, request: TerminalRequest) {
        self.wishes.add(Wish::Terminal(request));
    }

    /// Sends logs and opens terminals by `link` for as long as a session lasts. Dropping the future ends them all.
    pub(crate) async fn answer_by_streams(&self, link: &impl Link, mode: Mode) -> Infallible {
        self.wishes.grant(link, mode, self.proxy.as_ref()).await
    }

    /// Takes a request. Its answer follows, but if it would change something and came before: then its answer was sent or will
    /// be.
    pub(crate) fn take(&self, request: ResourceRequest) {
        if request.method != "GET" && !self.changes.lock().is_new(&request.uuid) {
            tracing::info!(uuid = cut(&request.uuid), "a request for this cluster's api came once more");
            return;
        }
        let until = Instant::now() + PATIENCE;
        let Some(proxy) = self.proxy.clone() else {
            return self.refuse(&request, &streams::not_served(), until);
        };
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let why = format!("{WAITING} requests wait for the agent already");
            let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", why);
            return self.refuse(&request, &refusal, until);
        };
        let this = self.clone();
        let answering = async move {
            let _place = place;
            let late = tokio::time::timeout_at(until, this.answer(&proxy, &request, until)).await.is_err();
            if late {
                tracing::warn!(uuid = %cut(&request.uuid), "a request for this cluster's api was not answered in time");
                this.outbound.metrics.proxy_errors.inc();
            }
        };
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(answering));
    }

    async fn answer(&self, proxy: &Proxy, request: &ResourceRequest, until: Instant) {
        // Never closed.
        let _turn = self.turns.acquire().await;
        let (status, text) = match proxy.answer(request).await {
            Ok((status, text)) => (status, text),
            Err(refusal) => (refusal.code, refusal.status().to_string()),
        };
        if let Err(unsent) = self.send(request, status, text, until).await {
            self.outbound.metrics.proxy_errors.inc();
            tracing::warn!(uuid = %cut(&request.uuid), %unsent, "an answer about this cluster's api was not sent");
            if unsent == Unsent::TooLarge {
                let why = format!("the answer is {unsent}");
                self.refuse(request, &Refusal::new(StatusCode::BAD_GATEWAY, "too_large", why), until);
            }
        }
    }

    /// It is small, and on its way when this returns. If it does not arrive, the client hears of a timeout.
    fn refuse(&self, request: &ResourceRequest, refusal: &Refusal, until: Instant) {
        tracing::warn!(uuid = %cut(&request.uuid), reason = refusal.message, "refused a request for this cluster's api");
        drop(self.send(request, refusal.code, refusal.status().to_string(), until));
    }

    fn send(
        &self,
        request: &ResourceRequest,
        status: StatusCode,
        resource: String,
        until: Instant,
    ) -> impl Future<Output = Result<(), Unsent>> + use<> {
        // A Go principal passes on what has this status only; of all others its clients see the number.
        let status = if status.is_success() { StatusCode::OK } else { status };
        let response = ResourceResponse { uuid: request.uuid.clone(), status: status.as_u16(), resource };
        let payload = Payload::ResourceResponse(response);
        let mut event = Event::request(Target::Resource, EventKind::Response, payload);
        event.source = crate::outbound::SOURCE.to_owned();
        // By it the principal finds what was asked.
        event.id = EventId(request.uuid.clone());
        event.resource_id = unique();
        self.outbound.outbox.express(event, until)
    }
}

fn cut(name: &str) -> String {
    name.chars().take(NAME).collect()
}

impl Proxy {
    /// Judges a request, and passes it to the API server. All of the answer is returned.
    async fn answer(&self, request: &ResourceRequest) -> Result<(StatusCode, String), Refusal> {
        self.metrics.proxy_requests.inc();
        let mut record = Record::new(cut(&request.uuid), Method::GET, "");
        match self.carry(request, &mut record).await {
            Ok((status, text)) => {
                record.answered(status, text.len());
                Ok((status, text))
            }
            Err(refusal) => {
                self.metrics.proxy_errors.inc();
                record.refused(&refusal);
                Err(refusal)
            }
        }
    }

    async fn carry(
        &self,
        request: &ResourceRequest,
        record: &mut Record,
    ) -> Result<(StatusCode, String), Refusal> {
        let asking = translate::read(request)?;
        record.method = asking.method.clone();
        record.path = asking.path.clone();
        self.check_caller()?;
        if asking.path != translate::ALL_GROUPS {
            return self.fetch(asking, record).await;
        }
        // The principal asks the same for /api and for /apis, and expects both in one list.
        let core = self.fetch(Asking::of_path("/api"), record).await?;
        let named = self.fetch(asking, record).await?;
        if !core.0.is_success() {
            return Ok(core);
        }
        if !named.0.is_success() {
            return Ok(named);
        }
        Ok((named.0, merged(&core.1, &named.1).map_err(|error| nonsense(&error))?))
    }

    /// Who calls is known to nobody: refused where it has to be.
    fn check_caller(&self) -> Result<(), Refusal> {
        if self.config.impersonate {
            let why =
                "the agent passes on who calls, and a principal of argocd-agent does not say who that is";
            return Err(Refusal::new(StatusCode::FORBIDDEN, "no_user", why));
        }
        Ok(())
    }

    async fn fetch(&self, asking: Asking, record: &mut Record) -> Result<(StatusCode, String), Refusal> {
        let Asking { method, path, query, content_type, body } = asking;
        let asked = ApiRequest::read(&method, &path, query.as_deref())
            .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, "bad_request", error.to_string()))?;
        record.verb = asked.verb;
        if asked.lasting {
            let why = format!(
                "{} {path} has no end, and a principal of argocd-agent takes one answer only; with a Tiphys principal it passes",
                asked.verb
            );
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "go_principal", why));
        }
        let must_be_managed = self.judge(&asked)?;
        let uri = query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
        let mut request = Request::builder().method(method).uri(uri).header(ACCEPT, translate::JSON);
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        if !record.id.is_empty() {
            request = request.header(REQUEST_ID, record.id.as_str());
        }
        let request = request
            .body(body::full(body))
            .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, "bad_request", error.to_string()))?;
        let (head, body) = self.pass(&asked, must_be_managed, request).await?.into_parts();
        let bytes = body::whole(body, LARGEST).await.map_err(|error| {
            let why = format!("the answer of the cluster's API server cannot be passed on: {error}");
            Refusal::new(StatusCode::BAD_GATEWAY, "too_large", why)
        })?;
        let text = String::from_utf8(bytes.into()).map_err(|_| {
            let why = "the answer of the cluster's API server is no text";
            Refusal::new(StatusCode::BAD_GATEWAY, "api_server", why)
        })?;
        Ok((head.status, text))
    }
}

fn nonsense(error: &serde_json::Error) -> Refusal {
    let why = format!("the cluster's API server does not say what it serves: {error}");
    Refusal::new(StatusCode::BAD_GATEWAY, "api_server", why)
}

/// The core as a group without a name before the others.
fn merged(core: &str, named: &str) -> Result<String, serde_json::Error> {
    let core: Value = serde_json::from_str(core)?;
    let mut named: Value = serde_json::from_str(named)?;
    let versions: Vec<Value> = core["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|version| json!({"groupVersion": version, "version": version}))
        .collect();
    let group = json!({"name": "", "preferredVersion": versions.first(), "versions": versions});
    if let Some(groups) = named["groups"].as_array_mut() {
        groups.insert(0, group);
    }
    serde_json::to_string(&named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_is_a_group_among_others() {
        let named = r#"{"kind":"APIGroupList","groups":[{"name":"apps"}]}"#;
        let merged: Value = serde_json::from_str(&merged(r#"{"versions":["v1"]}"#, named).unwrap()).unwrap();
        let core = json!({"groupVersion": "v1", "version": "v1"});
        assert_eq!(
            merged["groups"],
            json!([{"name": "", "preferredVersion": core, "versions": [core]}, {"name": "apps"}])
        );
    }
}
