//! What is awaited of one agent: an answer in an event, or the stream that is to carry it. Each has the uuid of its request,
//! and is kept with the agent: no other can answer.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use tiphys_shared::model::Event;
use tiphys_shared::proxy::refusal::Refusal;
use tiphys_shared::wire::express::Unsent;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::forward::bad;
use crate::agents::Agent;

/// How long an agent may take for an answer, or to open a stream for it. The Go project's own gives up on its API server
/// after 5 s.
const PATIENCE: Duration = Duration::from_secs(30);
/// Answers of one sort that may be awaited of one agent at once. Each may be as large as a message.
const AWAITED: usize = 64;

/// What is awaited of one agent.
pub(crate) struct Awaited<T> {
    answers: Mutex<HashMap<String, oneshot::Sender<T>>>,
}

impl<T> Default for Awaited<T> {
    fn default() -> Self {
        Self { answers: Mutex::default() }
    }
}

impl<T> fmt::Debug for Awaited<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Awaited").field("answers", &self.answers.lock().len()).finish()
    }
}

impl<T> Awaited<T> {
    /// Takes an answer. One that nobody waits for, or not any more, is handed back.
    pub(crate) fn take(&self, uuid: &str, answer: T) -> Result<(), T> {
        let awaited = self.answers.lock().remove(uuid);
        match awaited {
            Some(awaited) => awaited.send(answer),
            None => Err(answer),
        }
    }
}

/// Waits no more when it is dropped.
struct Forget<'a, T> {
    awaited: &'a Awaited<T>,
    uuid: String,
}

impl<T> Drop for Forget<'_, T> {
    fn drop(&mut self) {
        self.awaited.answers.lock().remove(&self.uuid);
    }
}

/// The session of an agent that is to be asked.
pub(super) fn session(agent: &Agent) -> Result<CancellationToken, Refusal> {
    agent.session_token().ok_or_else(|| ended(agent))
}

/// The refusal when a session ends before its time.
pub(super) fn ended(agent: &Agent) -> Refusal {
    let why = format!("the connection of agent {} ended before it answered", agent.name);
    Refusal::new(StatusCode::BAD_GATEWAY, "tunnel_broken", why)
}

/// Asks an agent, and waits for what comes under the event's name.
pub(super) async fn ask<T>(agent: &Agent, awaited: &Awaited<T>, event: Event) -> Result<T, Refusal> {
    let name = &agent.name;
    let late = || {
        let why = format!(
            "agent {name} did not answer within {PATIENCE:?}; an agent of argocd-agent with --enable-resource-proxy=false never does"
        );
        Refusal::new(StatusCode::GATEWAY_TIMEOUT, "timeout", why)
    };
    let session = session(agent)?;
    let until = Instant::now() + PATIENCE;
    let uuid = event.id.0.clone();
    let (sender, answer) = oneshot::channel();
    {
        let mut answers = awaited.answers.lock();
        if answers.len() >= AWAITED {
            let why = format!("{AWAITED} requests to agent {name} are under way already");
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", why));
        }
        answers.insert(uuid.clone(), sender);
    }
    let _forget = Forget { awaited, uuid };
    let sent = agent.outbox.express(event, until);
    let answered = async {
        sent.await.map_err(|unsent| match unsent {
            Unsent::Late => late(),
            Unsent::NoStream => ended(agent),
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
        answer.await.map_err(|_| ended(agent))
    };
    tokio::select! {
        biased;
        answer = answered => answer,
        () = session.cancelled() => Err(ended(agent)),
        () = tokio::time::sleep_until(until) => Err(late()),
    }
}
