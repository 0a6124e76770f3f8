//! One request from the tunnel to the API server and back.

use http::header::{AUTHORIZATION, CONTENT_LENGTH, COOKIE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tiphys_shared::model::api_request::{ApiRequest, ResourcePath};
use tiphys_shared::proxy::audit::Record;
use tiphys_shared::proxy::body::{self, Body};
use tiphys_shared::proxy::gathered::Gathered;
use tiphys_shared::proxy::headers::{self, GROUP, OURS, REQUEST_ID, USER};
use tiphys_shared::proxy::refusal::Refusal;
use tiphys_shared::wire::tunnel::{Received, join, upgrade};
use tokio_util::sync::CancellationToken;

use super::Proxy;
use super::policy::Verdict;

const IMPERSONATE_USER: HeaderName = HeaderName::from_static("impersonate-user");
const IMPERSONATE_GROUP: HeaderName = HeaderName::from_static("impersonate-group");

/// Who calls, as the principal says.
struct Caller {
    user: Option<HeaderValue>,
    groups: Vec<HeaderValue>,
}

impl Proxy {
    /// Answers a request. What it leaves running ends with `scope`.
    pub(super) async fn serve(&self, request: Request<Incoming>, scope: CancellationToken) -> Response<Body> {
        self.metrics.proxy_requests.inc();
        let (mut parts, incoming) = request.into_parts();
        let switched = upgrade::unpack(&mut parts);
        let text = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let id = text(REQUEST_ID).unwrap_or_default().to_owned();
        let mut record = Record::new(id, parts.method.clone(), parts.uri.path());
        record.user = text(USER).unwrap_or_default().to_owned();

        let bad = |reason: String| Refusal::new(StatusCode::BAD_REQUEST, "bad_request", reason);
        let read = ApiRequest::read(&parts.method, parts.uri.path(), parts.uri.query());
        let checked = match (switched, read) {
            (Err(error), _) => Err(bad(error.to_string())),
            (_, Err(error)) => Err(bad(error.to_string())),
            (Ok(switches), Ok(asked)) => Ok((switches, asked)),
        };
        let (switches, asked) = match checked {
            Ok(checked) => checked,
            Err(refusal) => return self.refuse(record, refusal),
        };
        record.verb = asked.verb;
        // What is said over an upgraded connection is nobody's to judge.
        if switches && self.config.read_only {
            let why =
                "the agent serves this cluster read-only, and upgrades no connections (--proxy-read-only)";
            return self.refuse(record, Refusal::new(StatusCode::FORBIDDEN, "policy", why));
        }
        let must_be_managed = match self.judge(&asked) {
            Ok(path) => path,
            Err(refusal) => return self.refuse(record, refusal),
        };
        let caller = take_caller(&mut parts.headers);
        strip_credentials(&mut parts.headers);
        if self.config.impersonate
            && let Err(refusal) = impersonate(&mut parts.headers, caller)
        {
            return self.refuse(record, refusal);
        }
        if asked.lasting || switches {
            record.begins();
        }

        let upstream = self.prepare(parts, incoming, switches);
        let (request, on_client) = match upstream {
            Ok(prepared) => prepared,
            Err(error) => return self.refuse(record, bad(error.to_string())),
        };
        match self.pass(&asked, must_be_managed, request).await {
            Ok(answer) => match on_client {
                Some(on_client) => switch(record, answer, on_client, scope),
                None => {
                    let (mut parts, body) = answer.into_parts();
                    headers::strip_hop_by_hop(&mut parts.headers);
                    let body = record.follow(parts.status, Gathered::new(body));
                    Response::from_parts(parts, body)
                }
            },
            Err(refusal) => self.refuse(record, refusal),
        }
    }

    /// What the policy says: whether it passes only if this object belongs to an application.
    pub(super) fn judge(&self, asked: &ApiRequest) -> Result<Option<ResourcePath>, Refusal> {
        match self.config.policy.borrow().judge(asked, self.config.read_only) {
            Verdict::Allowed => Ok(None),
            Verdict::IfManaged(path) => Ok(Some(path)),
            Verdict::Refused(why) => Err(Refusal::new(StatusCode::FORBIDDEN, "policy", why)),
        }
    }

    /// Asks the API server what has been judged.
    pub(super) async fn pass(
        &self,
        asked: &ApiRequest,
        must_be_managed: Option<ResourcePath>,
        request: Request<Body>,
    ) -> Result<Response<Body>, Refusal> {
        // What only reads may be asked for while it is found out whether it may be told.
        let at_once = asked.only_reads() && !asked.lasting;
        match must_be_managed {
            None => self.ask(request).await,
            Some(path) if at_once => {
                let (managed, answer) = tokio::join!(self.managed.check(&path), self.ask(request));
                managed.and(answer)
            }
            Some(path) => {
                self.managed.check(&path).await?;
                self.ask(request).await
            }
        }
    }

    fn refuse(&self, record: Record, refusal: Refusal) -> Response<Body> {
        self.metrics.proxy_errors.inc();
        record.refused(&refusal);
        refusal.into_response()
    }

    /// The request as the API server gets it, and the caller's end of the connection if it is to be upgraded.
    fn prepare(
        &self,
        mut parts: http::request::Parts,
        incoming: Incoming,
        switches: bool,
    ) -> Result<(Request<Body>, Option<OnUpgrade>), http::Error> {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        parts.uri = Uri::try_from(path)?;
        parts.version = http::Version::HTTP_11;
        if !switches {
            headers::strip_hop_by_hop(&mut parts.headers);
            return Ok((Request::from_parts(parts, body::boxed(Received::from(incoming))), None));
        }
        parts.headers.remove(CONTENT_LENGTH);
        let mut request = Request::from_parts(parts, body::empty());
        let on_client = hyper::upgrade::on(&mut request);
        Ok((request, Some(on_client)))
    }

    async fn ask(&self, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        self.config.api_server.send(request).await.map_err(|error| {
            Refusal::new(
                StatusCode::BAD_GATEWAY,
                "api_server",
                format!("the agent cannot reach its cluster's API server: {}", causes(&*error)),
            )
        })
    }
}

/// Joins the two ends of a connection that the API server has upgraded; passes on what it says instead otherwise.
fn switch(
    record: Record,
    mut answer: Response<Body>,
    on_client: OnUpgrade,
    scope: CancellationToken,
) -> Response<Body> {
    let on_cluster = hyper::upgrade::on(&mut answer);
    let (mut parts, body) = answer.into_parts();
    let switched = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    upgrade::pack_answer(&mut parts);
    headers::strip_hop_by_hop(&mut parts.headers);
    if !switched {
        let body = record.follow(parts.status, body);
        return Response::from_parts(parts, body);
    }
    tokio::spawn(async move {
        let carried = async {
            let (client, cluster) = tokio::try_join!(on_client, on_cluster).map_err(std::io::Error::other)?;
            join(TokioIo::new(client), TokioIo::new(cluster)).await
        };
        let outcome = tokio::select! {
            outcome = carried => outcome,
            () = scope.cancelled() => Err(std::io::Error::other("the tunnel has ended")),
        };
        record.switched(outcome);
    });
    Response::from_parts(parts, body::empty())
}

/// Takes out who calls.
fn take_caller(headers: &mut HeaderMap) -> Caller {
    let groups = headers.get_all(GROUP).iter().cloned().collect();
    Caller { user: headers.remove(USER), groups }
}

/// Takes off whatever an API server could take for a proof of who calls.
fn strip_credentials(headers: &mut HeaderMap) {
    for name in [AUTHORIZATION, COOKIE, HOST] {
        headers.remove(name);
    }
    for prefix in [OURS, "impersonate-", "x-remote-"] {
        headers::strip_prefixed(headers, prefix);
    }
}

/// Tells the API server who calls. Without a name nobody is told, and the request must not run as the agent.
fn impersonate(headers: &mut HeaderMap, caller: Caller) -> Result<(), Refusal> {
    let user = caller.user.filter(|user| !user.is_empty()).ok_or_else(|| {
        let why = "the agent passes on who calls, and the principal does not say who that is";
        Refusal::new(StatusCode::FORBIDDEN, "no_user", why)
    })?;
    // Those are the cluster's own, whatever certificates the control plane issues.
    if [&user].into_iter().chain(&caller.groups).any(|name| name.as_bytes().starts_with(b"system:")) {
        let why = "the agent passes on no user and no group whose name begins with system:";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "system_user", why));
    }
    headers.insert(IMPERSONATE_USER, user);
    for group in caller.groups {
        headers.append(IMPERSONATE_GROUP, group);
    }
    Ok(())
}

/// An error and what led to it, in one line.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
