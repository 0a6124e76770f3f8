//! A page for people: the fleet at a glance, to look at and nothing else.
//!
//! The page itself has no data in it and is given to everybody; it asks for [`fleet`], and whoever asks has to be allowed to
//! see that. It takes nothing from anywhere else and runs no script but its own.

mod access;
mod fleet;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::header::{self, AUTHORIZATION, HeaderName, HeaderValue};
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tiphys_shared::security::tls::ServerTls;
use tiphys_shared::wire::transport::{self, Connection, Limits};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::access::Access;
use self::access::Refused;
use crate::agents::Agents;
use crate::metrics::Metrics;

/// Connections that may be open.
const CONNECTIONS: usize = 64;
/// How long the head of a request may take to come, and how long a connection may stay without one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest head of a request, in bytes.
const HEAD: usize = 32 << 10;
/// A guess costs this, a mistake not more.
const PAUSE: Duration = Duration::from_millis(200);
/// Nothing from elsewhere, nothing inline, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Says that the page asks, which has its own form for who does.
const FROM_PAGE: &str = "x-tiphys-page";

/// Where the page is served, and who may look.
#[derive(Clone)]
pub struct WebConfig {
    /// The address.
    pub listen: SocketAddr,
    /// Its certificate; plaintext without it.
    pub tls: Option<ServerTls>,
    /// Who may look.
    pub access: Access,
}

/// What requests are served with.
pub(crate) struct Web {
    pub(crate) access: Access,
    pub(crate) agents: Arc<Agents>,
    pub(crate) metrics: Arc<Metrics>,
    /// What else is shown.
    pub(crate) facts: Facts,
}

/// What does not change while a principal runs.
pub(crate) struct Facts {
    pub(crate) namespace: String,
    pub(crate) certificates: Vec<(&'static str, ServerTls)>,
}

/// Serves until `stop`.
pub(crate) async fn run(
    web: Arc<Web>,
    listener: TcpListener,
    tls: Option<ServerTls>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let mut incoming = transport::listen(listener, tls, Limits::default());
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let connection = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            next = incoming.next() => match next {
                Some(Ok(connection)) => connection,
                Some(Err(_)) => continue,
                None => return,
            },
        };
        // One too many is closed: a browser asks again.
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
        let (web, stop) = (Arc::clone(&web), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = serve(&web, connection) => {}
                () = stop.cancelled() => {}
            }
            drop(place);
        });
    }
}

async fn serve(web: &Web, connection: Connection) {
    let from = connection.peer().address;
    let service = service_fn(|request: Request<Incoming>| async move {
        let response = web.answer(request.method(), request.uri().path(), request.headers()).await;
        Ok::<_, Infallible>(response.map(Full::new))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(connection), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(from = from.map(tracing::field::display), %error, "web: a client went away");
    }
}

impl Web {
    async fn answer(&self, method: &Method, path: &str, headers: &http::HeaderMap) -> Response<Bytes> {
        const HTML: &str = "text/html; charset=utf-8";
        const STYLE: &str = "text/css; charset=utf-8";
        const SCRIPT: &str = "text/javascript; charset=utf-8";
        if !matches!(*method, Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        }
        // A page elsewhere may call itself by our address; who looks without a word about himself is known by where he is.
        if self.access.is_open() && !headers.get(header::HOST).is_some_and(is_local) {
            return text(StatusCode::MISDIRECTED_REQUEST, "ask for localhost\n");
        }
        match path {
            "/" => reply(StatusCode::OK, HTML, Bytes::from_static(include_bytes!("web/page/index.html"))),
            "/fleet.css" => {
                reply(StatusCode::OK, STYLE, Bytes::from_static(include_bytes!("web/page/fleet.css")))
            }
            "/fleet.js" => {
                reply(StatusCode::OK, SCRIPT, Bytes::from_static(include_bytes!("web/page/fleet.js")))
            }
            "/api/fleet" => match self.access.check(headers.get(AUTHORIZATION)).await {
                Ok(()) => self.fleet(),
                Err(refused) => self.refuse(&refused, headers.contains_key(FROM_PAGE)).await,
            },
            _ => text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    fn fleet(&self) -> Response<Bytes> {
        match serde_json::to_vec(&fleet::look(&self.agents, &self.metrics, &self.facts)) {
            Ok(json) => reply(StatusCode::OK, "application/json", json.into()),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
        }
    }

    async fn refuse(&self, refused: &Refused, from_page: bool) -> Response<Bytes> {
        let status = match refused {
            Refused::Nobody => StatusCode::UNAUTHORIZED,
            Refused::Unknown => {
                tokio::time::sleep(PAUSE).await;
                StatusCode::UNAUTHORIZED
            }
            Refused::NotAllowed => StatusCode::FORBIDDEN,
            Refused::Unanswered(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        let scheme = self.access.scheme();
        let body = serde_json::json!({ "error": refused.to_string(), "scheme": scheme });
        let mut response = reply(status, "application/json", body.to_string().into());
        if status == StatusCode::UNAUTHORIZED {
            // A browser that hears of a scheme that it knows asks by itself, in front of the page.
            let challenge = match (scheme, from_page) {
                (_, true) => "Tiphys",
                ("Basic", false) => "Basic realm=\"tiphys\", charset=\"UTF-8\"",
                (_, false) => "Bearer realm=\"tiphys\"",
            };
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

fn is_local(host: &HeaderValue) -> bool {
    let authority = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
    authority.is_some_and(|authority| {
        let host = authority.host().trim_matches(['[', ']']);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}

fn text(status: StatusCode, text: &str) -> Response<Bytes> {
    reply(status, "text/plain; charset=utf-8", Bytes::copy_from_slice(text.as_bytes()))
}

fn reply(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_host_are_taken_for_it() {
        let is_local = |host: &'static str| is_local(&HeaderValue::from_static(host));
        assert!(["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080"].into_iter().all(is_local));
        assert!(
            !["evil.example:8080", "127.0.0.1.evil.example", "10.0.0.1", "", "localhost@evil"]
                .into_iter()
                .any(is_local)
        );
    }
}
