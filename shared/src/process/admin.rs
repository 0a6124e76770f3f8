//! The small HTTP server for metrics and health.
//!
//! Whoever reaches it may read. What changes something is taken from the same host only: in Kubernetes that is whoever may
//! forward ports of the pod.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::metrics;
use super::readiness::{Part, Readiness};
use super::telemetry::Levels;

/// How many clients are served at once; probes and one or two scrapers are what is expected.
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take to ask, so that idle ones do not use up the connections.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// The port could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct Error {
    /// Where.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

impl Error {
    /// Whether somebody else has the port.
    pub fn is_busy(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

/// What a page answers.
#[derive(Clone, Debug)]
pub struct Page {
    /// The status.
    pub status: StatusCode,
    /// The type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: Bytes,
}

impl Page {
    /// Plain text.
    pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }
}

type Handler = Arc<dyn Fn(&Query<'_>) -> Page + Send + Sync>;
type Answer = Arc<dyn Fn(&Query<'_>) -> BoxFuture<'static, Page> + Send + Sync>;
type Change = Arc<dyn Fn(&str) -> Page + Send + Sync>;

/// Largest body of a change, in bytes.
const BODY: usize = 4096;

/// What stands behind the question mark.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a>(Option<&'a str>);

impl<'a> Query<'a> {
    /// What stands there, if anything does.
    pub fn new(text: Option<&'a str>) -> Self {
        Self(text)
    }

    /// The value of a word, which may be empty.
    pub fn value(&self, word: &str) -> Option<&'a str> {
        let mut words = self.0.unwrap_or_default().split('&');
        words.find_map(|found| {
            let (name, value) = found.split_once('=').unwrap_or((found, ""));
            (name == word).then_some(value)
        })
    }

    /// Whether it has a word, with or without a value.
    pub fn has(&self, word: &str) -> bool {
        self.value(word).is_some()
    }
}

/// The pages of a server, by path.
#[derive(Clone, Default)]
pub struct Pages {
    handlers: BTreeMap<&'static str, Handler>,
    answers: BTreeMap<&'static str, Answer>,
    changes: BTreeMap<&'static str, Change>,
}

impl Pages {
    /// No pages.
    pub fn new() -> Self {
        Self::default()
    }

    /// A page at `path`, made anew for each request.
    #[must_use]
    pub fn page(self, path: &'static str, make: impl Fn() -> Page + Send + Sync + 'static) -> Self {
        self.page_of(path, move |_| make())
    }

    /// The same for one that depends on the query.
    #[must_use]
    pub fn page_of(
        mut self,
        path: &'static str,
        make: impl Fn(&Query<'_>) -> Page + Send + Sync + 'static,
    ) -> Self {
        self.handlers.insert(path, Arc::new(make));
        self
    }

    /// A page that takes its time. Its making ends when the client goes away.
    #[must_use]
    pub fn async_page<F>(
        mut self,
        path: &'static str,
        make: impl Fn(&Query<'_>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Page> + Send + 'static,
    {
        self.answers.insert(path, Arc::new(move |query| Box::pin(make(query))));
        self
    }

    /// What a PUT at `path` from the same host does with its body.
    #[must_use]
    pub fn change(
        mut self,
        path: &'static str,
        change: impl Fn(&str) -> Page + Send + Sync + 'static,
    ) -> Self {
        self.changes.insert(path, Arc::new(change));
        self
    }

    /// `/loglevel`: which lines are logged, and a PUT of other levels.
    #[must_use]
    pub fn log_levels(self, levels: Levels) -> Self {
        let changed = levels.clone();
        self.page("/loglevel", move || Page::text(StatusCode::OK, format!("{}\n", levels.current()))).change(
            "/loglevel",
            move |text| match changed.set(text) {
                Ok(()) => Page::text(StatusCode::OK, format!("{}\n", changed.current())),
                Err(error) => Page::text(StatusCode::BAD_REQUEST, format!("{error}\n")),
            },
        )
    }

    /// `/metrics`.
    #[must_use]
    pub fn metrics(self, registry: Registry) -> Self {
        self.page("/metrics", move || match metrics::render(&registry) {
            Ok(body) => {
                Page { status: StatusCode::OK, content_type: metrics::CONTENT_TYPE, body: body.into() }
            }
            Err(error) => Page::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        })
    }

    /// A page of this name that tells whether everything is ready, and what is not; with `?verbose` each part, as the API
    /// servers of Kubernetes do it.
    #[must_use]
    pub fn health(self, name: &'static str, readiness: Readiness) -> Self {
        self.page_of(name, move |query| health(name, &readiness, query))
    }

    async fn make<B>(&self, request: Request<B>, from: IpAddr) -> Page
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = request.uri().path();
        if let (&Method::GET, Some(make)) = (request.method(), self.answers.get(path)) {
            return make(&Query(request.uri().query())).await;
        }
        let known = self.handlers.contains_key(path) || self.answers.contains_key(path);
        match (request.method(), self.handlers.get(path), self.changes.get(path)) {
            (&Method::PUT, _, Some(_)) if !from.to_canonical().is_loopback() => {
                Page::text(StatusCode::FORBIDDEN, "only from the same host: forward the port\n")
            }
            (&Method::PUT, _, Some(change)) => {
                match Limited::new(request.into_body(), BODY).collect().await {
                    Ok(body) => change(&String::from_utf8_lossy(&body.to_bytes())),
                    Err(error) => Page::text(StatusCode::BAD_REQUEST, format!("{error}\n")),
                }
            }
            (&Method::GET | &Method::HEAD, Some(make), _) => make(&Query(request.uri().query())),
            (_, _, None) if !known => Page::text(StatusCode::NOT_FOUND, "not found\n"),
            (_, _, None) => Page::text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n"),
            (_, _, Some(_)) => Page::text(StatusCode::METHOD_NOT_ALLOWED, "only GET, HEAD and PUT\n"),
        }
    }

    async fn answer<B>(&self, request: Request<B>, from: IpAddr) -> Response<Full<Bytes>>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let page = self.make(request, from).await;
        let mut response = Response::new(Full::new(page.body));
        *response.status_mut() = page.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(page.content_type));
        headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
        response
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.handlers.keys()).finish()
    }
}

fn health(name: &str, readiness: &Readiness, query: &Query<'_>) -> Page {
    let name = name.trim_start_matches('/');
    let reasons: Vec<String> = readiness.reasons().iter().map(|reason| format!("{reason}\n")).collect();
    if query.has("verbose") {
        // As API servers write it.
        let line = |part: Part| match part.obstacle {
            None => format!("[+]{} ok\n", part.name),
            Some(obstacle) => format!("[-]{} failed: {obstacle}\n", part.name),
        };
        let lines: String = readiness.parts().into_iter().map(line).collect();
        return match reasons.is_empty() {
            true => Page::text(StatusCode::OK, format!("{lines}{name} check passed\n")),
            false => Page::text(StatusCode::SERVICE_UNAVAILABLE, format!("{lines}{name} check failed\n")),
        };
    }
    if reasons.is_empty() {
        Page::text(StatusCode::OK, "ok\n")
    } else {
        Page::text(StatusCode::SERVICE_UNAVAILABLE, reasons.concat())
    }
}

/// A server that has its port.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Takes the port; port 0 takes any.
    pub async fn bind(address: SocketAddr) -> Result<Self, Error> {
        let fail = |source| Error { address, source };
        let listener = TcpListener::bind(address).await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `pages` until `stop`.
    pub async fn serve(self, pages: Pages, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut clients = JoinSet::new();
        loop {
            let accepted = async {
                // The semaphore is never closed.
                let slot = Arc::clone(&slots).acquire_owned().await.ok();
                (self.listener.accept().await, slot)
            };
            tokio::select! {
                () = stop.cancelled() => return,
                Some(_) = clients.join_next() => {}
                (accepted, slot) = accepted => match accepted {
                    Ok((stream, from)) => {
                        let pages = pages.clone();
                        clients.spawn(async move {
                            serve_client(stream, from.ip(), pages).await;
                            drop(slot);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(address = %self.address, %error, "cannot accept");
                        // Out of file descriptors, most likely: trying again at once would spin.
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                }
            }
        }
    }
}

async fn serve_client(stream: TcpStream, from: IpAddr, pages: Pages) {
    let service = service_fn(|request: Request<Incoming>| {
        let pages = &pages;
        async move { Ok::<_, Infallible>(pages.answer(request, from).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "admin client went away");
    }
}

#[cfg(test)]
mod tests;
