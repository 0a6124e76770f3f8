//! An API server as an HTTP service: requests and answers pass whole, bodies piece by piece, connections may be upgraded.
//!
//! [`kube::Client`] takes a request's body only when all of it is there, and repeats what was answered with 429, 503 or
//! 504. Whoever passes requests on wants neither.

use std::time::Duration;

use futures::future::BoxFuture;
use http::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::Config;
use kube::client::ConfigExt as _;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder, ServiceExt as _};

use super::client::Error;
use crate::proxy::body::{self, Body, BoxError};
use crate::security::tls::ReadAhead;

/// After this long without a word, the system asks whether the API server is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// An API server that takes any request. Clones share its connections.
///
/// HTTP/1.1 towards the server, as many connections as there are requests under way: an API server takes few streams in
/// one HTTP/2 connection, and the watch after the last of them would wait for ever.
#[derive(Clone)]
pub struct ApiServer {
    service: BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>,
}

impl ApiServer {
    /// The API server that `config` leads to. It adds the credentials that are in there.
    ///
    /// # Errors
    /// [`Error::Client`] if TLS cannot be set up, or the credentials cannot be used.
    pub fn connect(config: &Config) -> Result<Self, Error> {
        let wrap = |error| Error::Client(Box::new(error));
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_keepalive(Some(KEEPALIVE));
        connector.set_connect_timeout(config.connect_timeout);
        let connector = connector.map_response(|tcp| TokioIo::new(ReadAhead::new(tcp.into_inner())));
        let connector = config.rustls_https_connector_with_connector(connector).map_err(wrap)?;
        let client: Client<_, Body> = Client::builder(TokioExecutor::new()).build(connector);
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer().map_err(wrap)?)
            .layer(config.extra_headers_layer().map_err(wrap)?)
            .map_err(BoxError::from)
            .service(client);
        Ok(Self::of(service))
    }

    /// The API server behind a service, such as one in this process.
    pub fn of<S, B>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let service = service.map_response(|response| response.map(body::boxed)).map_err(Into::into);
        Self { service: BoxCloneSyncService::new(service) }
    }

    /// Sends a request, of which only path and query tell where to, and waits for the head of its answer. An answer of 101
    /// can be upgraded.
    ///
    /// # Errors
    /// If the API server cannot be reached, or breaks off.
    pub fn send(&self, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, BoxError>> {
        Box::pin(self.service.clone().oneshot(request))
    }
}
