//! The small HTTP server for metrics and health.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::metrics;
use super::readiness::Readiness;

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
    pub body: String,
}

impl Page {
    /// Plain text.
    pub fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }
}

type Handler = Arc<dyn Fn() -> Page + Send + Sync>;

/// The pages of a server, by path.
#[derive(Clone, Default)]
pub struct Pages {
    handlers: BTreeMap<&'static str, Handler>,
}

impl Pages {
    /// No pages.
    pub fn new() -> Self {
        Self::default()
    }

    /// A page at `path`, made anew for each request.
    #[must_use]
    pub fn page(mut self, path: &'static str, make: impl Fn() -> Page + Send + Sync + 'static) -> Self {
        self.handlers.insert(path, Arc::new(make));
        self
    }

    /// `/metrics`.
    #[must_use]
    pub fn metrics(self, registry: Registry) -> Self {
        self.page("/metrics", move || match metrics::render(&registry) {
            Ok(body) => Page { status: StatusCode::OK, content_type: metrics::CONTENT_TYPE, body },
            Err(error) => Page::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        })
    }

    /// `/livez` asks `live`, `/readyz` asks `ready`, `/healthz` asks both. Whatever is not well is listed.
    #[must_use]
    pub fn health(self, live: Readiness, ready: Readiness) -> Self {
        let both = vec![live.clone(), ready.clone()];
        self.page("/livez", move || health(std::slice::from_ref(&live)))
            .page("/readyz", move || health(std::slice::from_ref(&ready)))
            .page("/healthz", move || health(&both))
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let page = match self.handlers.get(request.uri().path()) {
            None => Page::text(StatusCode::NOT_FOUND, "not found\n"),
            Some(_) if !matches!(*request.method(), Method::GET | Method::HEAD) => {
                Page::text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n")
            }
            Some(make) => make(),
        };
        let mut response = Response::new(Full::new(Bytes::from(page.body)));
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

fn health(parts: &[Readiness]) -> Page {
    let reasons: Vec<String> = parts.iter().flat_map(Readiness::reasons).map(|r| format!("{r}\n")).collect();
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
                    Ok((stream, _)) => {
                        let pages = pages.clone();
                        clients.spawn(async move {
                            serve_client(stream, pages).await;
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

async fn serve_client(stream: TcpStream, pages: Pages) {
    let service = service_fn(move |request| {
        let response = pages.answer(&request);
        async move { Ok::<_, Infallible>(response) }
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
