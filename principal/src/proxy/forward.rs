//! One request from a client to an agent and back.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, request};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tiphys_shared::model::AgentName;
use tiphys_shared::model::api_request::ApiRequest;
use tiphys_shared::process::clock;
use tiphys_shared::proxy::audit::Record;
use tiphys_shared::proxy::body::{self, Body, BoxError};
use tiphys_shared::proxy::headers::{self, GROUP, OURS, REQUEST_ID, USER};
use tiphys_shared::proxy::refusal::Refusal;
use tiphys_shared::wire::transport::Peer;
use tiphys_shared::wire::tunnel::{MAX_REQUESTS, Received, Requester, Slot, join, upgrade};
use tokio::time::Instant;

use super::Proxy;
use super::caller::{Caller, Claims};
use crate::agents::{Agent, Away};

/// How long an API server may take to begin an answer. Its own limit for requests is 60 s.
const PATIENCE: Duration = Duration::from_secs(70);
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// A request that may go to an agent's cluster.
struct Admitted {
    caller: Caller,
    asked: ApiRequest,
    way: Way,
}

/// The way to a cluster.
enum Way {
    Tunnel(Requester, Slot),
    /// To an agent of the Go project.
    Events(Arc<Agent>),
}

impl Proxy {
    /// Answers a request of the client at the other end of a connection.
    pub(super) async fn serve(&self, request: Request<Incoming>, peer: &Peer) -> Response<Body> {
        let began = Instant::now();
        let (mut parts, incoming) = request.into_parts();
        let id = uuid::Uuid::new_v4().to_string();
        let mut record = Record::new(id.clone(), parts.method.clone(), parts.uri.path());
        let mut response = match self.admit(&mut record, &parts, peer, &incoming).await {
            Ok(Admitted { caller, asked, way: Way::Events(agent) }) => {
                self.by_events(record, &agent, &caller, &asked, parts, incoming).await
            }
            Ok(Admitted { caller, asked, way: Way::Tunnel(requester, slot) }) => {
                let wanted = upgrade::wanted(&parts.headers).cloned();
                let lasts = asked.lasting || wanted.is_some();
                match rewrite(&mut parts, &caller, &id, peer) {
                    Ok(()) => {
                        if lasts {
                            record.begins();
                        }
                        let request = Request::from_parts(parts, incoming);
                        self.forward(record, &caller.agent, &asked, (requester, slot), request, wanted).await
                    }
                    Err(refusal) => self.refuse(record, refusal),
                }
            }
            Err(refusal) => self.refuse(record, refusal),
        };
        self.metrics.answered(response.status(), began.elapsed());
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        response
    }

    pub(super) fn refuse(&self, record: Record, refusal: Refusal) -> Response<Body> {
        self.count_error(&record, refusal.word);
        record.refused(&refusal);
        refusal.into_response()
    }

    /// An operator may name whom he likes: only agents that have been here get figures of their own.
    pub(super) fn count_error(&self, record: &Record, reason: &str) {
        let known = AgentName::new(record.agent.as_str()).is_ok_and(|name| self.agents.get(&name).is_some());
        let agent = if known { record.agent.as_str() } else { "" };
        self.metrics.proxy_errors.with_label_values(&[agent, reason]).inc();
    }

    /// Everything that can be said against a request before its agent is asked.
    async fn admit(
        &self,
        record: &mut Record,
        parts: &request::Parts,
        peer: &Peer,
        incoming: &Incoming,
    ) -> Result<Admitted, Refusal> {
        let claims = Claims {
            certificate: peer.certificate.as_deref(),
            authorization: parts.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes),
            path: parts.uri.path(),
            query: parts.uri.query(),
        };
        let caller = claims.admit(&self.issuer, &self.operators, clock::now())?;
        record.user.clone_from(&caller.user);
        record.agent = caller.agent.to_string();
        let agent = self.agents.get(&caller.agent);
        if agent.is_some() {
            self.metrics.proxy_requests.with_label_values(&[caller.agent.as_str()]).inc();
        }
        check_head(parts, incoming)?;
        let asked = ApiRequest::read(&parts.method, &caller.path, caller.query.as_deref())
            .map_err(|error| bad(error.to_string()))?;
        record.verb = asked.verb;
        let way = match &agent {
            Some(agent) => agent.way().await,
            None => Err(Away::Disconnected { since: None }),
        };
        let requester = match (way, agent) {
            (Ok(requester), _) => requester,
            (Err(Away::NoTunnel), Some(agent)) if !agent.is_tiphys() => {
                return Ok(Admitted { caller, asked, way: Way::Events(agent) });
            }
            (Err(away), _) => return Err(unreachable(&caller, away)),
        };
        let slot = requester.reserve().ok_or_else(|| {
            let why = format!("{MAX_REQUESTS} requests to agent {} are under way already", caller.agent);
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", why)
        })?;
        Ok(Admitted { caller, asked, way: Way::Tunnel(requester, slot) })
    }

    async fn forward(
        &self,
        record: Record,
        agent: &AgentName,
        asked: &ApiRequest,
        (requester, slot): (Requester, Slot),
        request: Request<Incoming>,
        wanted: Option<HeaderValue>,
    ) -> Response<Body> {
        let (mut parts, incoming) = request.into_parts();
        let switches = wanted.is_some();
        let on_client = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
        let body = match wanted.as_ref().and_then(|protocol| protocol.to_str().ok()) {
            Some(protocol) => {
                upgrade::pack(&mut parts, protocol);
                body::empty()
            }
            None => body::boxed(incoming),
        };
        let sending = requester.send(Request::from_parts(parts, body));
        let answer =
            if asked.lasting { Ok(sending.await) } else { tokio::time::timeout(PATIENCE, sending).await };
        let (mut head, incoming) = match answer {
            Ok(Ok(answer)) => answer.into_parts(),
            Ok(Err(error)) => {
                tracing::debug!(%error, "no answer through the tunnel");
                let why = format!("the connection to agent {agent} broke: {error}");
                return self.refuse(record, Refusal::new(StatusCode::BAD_GATEWAY, "tunnel_broken", why));
            }
            Err(_) => {
                let why = format!("the cluster of agent {agent} did not begin to answer within {PATIENCE:?}");
                return self.refuse(record, Refusal::new(StatusCode::GATEWAY_TIMEOUT, "timeout", why));
            }
        };
        if head.status.is_server_error() {
            self.count_error(&record, "agent_error");
        }
        if switches && upgrade::unpack_answer(&mut head) {
            let on_cluster = head.extensions.remove::<hyper::upgrade::OnUpgrade>();
            let stop = self.stop.clone();
            tokio::spawn(async move {
                let (Some(on_client), Some(on_cluster)) = (on_client, on_cluster) else { return };
                let carried = async {
                    let (client, cluster) =
                        tokio::try_join!(on_client, on_cluster).map_err(std::io::Error::other)?;
                    join(TokioIo::new(client), TokioIo::new(cluster)).await
                };
                let outcome = tokio::select! {
                    outcome = carried => outcome,
                    () = stop.cancelled() => Err(std::io::Error::other("the principal stops")),
                };
                record.switched(outcome);
                drop(slot);
            });
            return Response::from_parts(head, body::empty());
        }
        headers::strip_hop_by_hop(&mut head.headers);
        let body = record.follow(head.status, Held { body: incoming.into(), _slot: slot });
        Response::from_parts(head, body)
    }
}

/// Refuses what could be understood in more ways than one on its way, and what asks to be somebody else.
fn check_head(parts: &request::Parts, incoming: &Incoming) -> Result<(), Refusal> {
    let headers = &parts.headers;
    if headers.contains_key(CONTENT_LENGTH) && headers.contains_key(TRANSFER_ENCODING) {
        return Err(bad("the request has both Content-Length and Transfer-Encoding"));
    }
    if let Some(protocol) = upgrade::wanted(headers) {
        if !protocol.to_str().is_ok_and(upgrade::is_known) {
            return Err(bad("connections are upgraded to websocket and SPDY/3.1 only"));
        }
        if !incoming.is_end_stream() {
            return Err(bad("a request for an upgrade has no body"));
        }
    }
    if headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
        let why =
            "the proxy does not pass on impersonation: use credentials of whom the request is to run as";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "impersonation", why));
    }
    Ok(())
}

/// Makes of a client's head the one that goes to the agent.
fn rewrite(parts: &mut request::Parts, caller: &Caller, id: &str, peer: &Peer) -> Result<(), Refusal> {
    let query = caller.query.as_deref().map(|query| format!("?{query}")).unwrap_or_default();
    // A name in place of a host: HTTP/2 wants one, and the agent knows its API server.
    parts.uri = Uri::try_from(format!("http://cluster{}{query}", caller.path))
        .map_err(|error| bad(error.to_string()))?;
    parts.version = http::Version::HTTP_2;
    let headers = &mut parts.headers;
    headers::strip_hop_by_hop(headers);
    for name in [AUTHORIZATION, COOKIE, HOST, FORWARDED, REQUEST_ID] {
        headers.remove(name);
    }
    for prefix in [OURS, "x-forwarded-", "x-remote-"] {
        headers::strip_prefixed(headers, prefix);
    }
    insert(headers, REQUEST_ID, id)?;
    insert(headers, USER, &caller.user)?;
    for group in &caller.groups {
        headers.append(GROUP, value(group)?);
    }
    if let Some(address) = peer.address {
        insert(headers, X_FORWARDED_FOR, &address.ip().to_string())?;
    }
    Ok(())
}

fn insert(headers: &mut HeaderMap, name: HeaderName, text: &str) -> Result<(), Refusal> {
    headers.insert(name, value(text)?);
    Ok(())
}

fn value(text: &str) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_bytes(text.as_bytes())
        .map_err(|_| bad("the client certificate has a name with characters that no header may have"))
}

fn unreachable(caller: &Caller, away: Away) -> Refusal {
    let agent = &caller.agent;
    let (word, why) = match away {
        Away::Disconnected { since: Some(since) } => {
            ("agent_disconnected", format!("agent {agent} is not connected since {since:.0}"))
        }
        Away::Disconnected { since: None } => (
            "agent_unknown",
            format!("agent {agent} is not connected, and has not been since this principal started"),
        ),
        Away::NoTunnel => (
            "agent_without_tunnel",
            format!(
                "agent {agent} is connected, and does not serve its cluster's API: it cannot open a tunnel, or it was \
                 started with --enable-resource-proxy false"
            ),
        ),
    };
    Refusal::new(StatusCode::BAD_GATEWAY, word, why)
}

pub(super) fn bad(message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "bad_request", message)
}

/// An answer's body, which has its place in the tunnel until it ends.
struct Held {
    body: Received,
    _slot: Slot,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
