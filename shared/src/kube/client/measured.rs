//! Requests to the API server, counted under the names that Kubernetes' own clients use.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use http::{Method, Request, Response, Uri};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::process::metrics::{Error, Register, register};

/// The counters. Clones share them.
#[derive(Clone, Debug)]
pub struct RequestMetrics {
    requests: IntCounterVec,
    duration: HistogramVec,
}

impl RequestMetrics {
    /// Registers the counters.
    ///
    /// # Errors
    /// [`Error`] if they are there already.
    pub fn new(registry: &impl Register) -> Result<Self, Error> {
        let requests = IntCounterVec::new(
            Opts::new(
                "rest_client_requests_total",
                "Number of requests to the API server, by status; the code is \"error\" where no answer came",
            ),
            &["code", "method", "host"],
        )?;
        let duration = HistogramVec::new(
            HistogramOpts::new(
                "rest_client_request_duration_seconds",
                "Seconds from a request to the API server to the beginning of its answer",
            ),
            &["verb", "host"],
        )?;
        Ok(Self { requests: register(registry, requests)?, duration: register(registry, duration)? })
    }

    pub(super) fn layer(&self, server: &Uri) -> Counting {
        let host = server.authority().map(ToString::to_string).unwrap_or_default();
        Counting { metrics: self.clone(), host }
    }

    fn note(&self, method: &Method, host: &str, code: Option<u16>, began: Instant) {
        let method = label(method);
        let code = code.map_or_else(|| "error".to_owned(), |code| code.to_string());
        self.requests.with_label_values(&[code.as_str(), method, host]).inc();
        self.duration.with_label_values(&[method, host]).observe(began.elapsed().as_secs_f64());
    }
}

/// Requests that are passed on could have any method.
fn label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// Counts what goes through a client.
#[derive(Clone, Debug)]
pub(super) struct Counting {
    metrics: RequestMetrics,
    host: String,
}

impl<S> Layer<S> for Counting {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, counting: self.clone() }
    }
}

/// A client whose requests are counted.
#[derive(Clone, Debug)]
pub(super) struct Counted<S> {
    inner: S,
    counting: Counting,
}

impl<S, B, R> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (counting, method, began) = (self.counting.clone(), request.method().clone(), Instant::now());
        let answer = self.inner.call(request);
        async move {
            let answer = answer.await;
            let code = answer.as_ref().ok().map(|answer| answer.status().as_u16());
            counting.metrics.note(&method, &counting.host, code, began);
            answer
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;
    use tower::ServiceExt as _;

    use super::*;
    use crate::process::metrics::render;

    #[tokio::test]
    async fn answers_are_counted_by_code_and_failures_as_such() {
        let registry = Registry::new();
        let metrics = RequestMetrics::new(&registry).unwrap();
        let server = tower::service_fn(|request: Request<()>| async move {
            match request.uri().path() {
                "/there" => Ok(Response::new(())),
                _ => Err(std::io::Error::other("away")),
            }
        });
        let client = metrics.layer(&Uri::from_static("https://api:6443/")).layer(server);
        for path in ["/there", "/there", "/not"] {
            _ = client.clone().oneshot(Request::get(path).body(()).unwrap()).await;
        }
        let text = render(&registry).unwrap();
        let line =
            |code| format!("rest_client_requests_total{{code=\"{code}\",host=\"api:6443\",method=\"GET\"}}");
        assert!(text.contains(&format!("{} 2\n", line("200"))), "{text}");
        assert!(text.contains(&format!("{} 1\n", line("error"))), "{text}");
        assert!(
            text.contains("rest_client_request_duration_seconds_count{host=\"api:6443\",verb=\"GET\"} 3"),
            "{text}"
        );
    }
}
