//! What a side asks of its API server, and what it is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use kube::Client;
use kube::client::{Body, ClientBuilder};
use parking_lot::Mutex;
use tiphys_shared::model::api_request::{ApiRequest, Target};
use tower::{Layer, Service};

/// A verb and the resource that it is done to: `update secrets`.
pub(super) type Use = (String, String);

/// Keeps what went through clients of one identity. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Record {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    uses: BTreeSet<Use>,
    refused: BTreeMap<String, u32>,
}

impl Record {
    /// A client whose requests are kept.
    pub(super) fn client(&self, config: &kube::Config) -> Client {
        ClientBuilder::try_from(config.clone()).unwrap().with_layer(self).build()
    }

    /// What was done.
    pub(super) fn uses(&self) -> BTreeSet<Use> {
        self.kept.lock().uses.clone()
    }

    /// Fails if anything was forbidden.
    pub(super) fn assert_nothing_was_refused(&self, who: &str) {
        let refused = &self.kept.lock().refused;
        assert!(refused.is_empty(), "{who} was refused what it needs: {refused:#?}");
    }
}

impl<S> Layer<S> for Record {
    type Service = Recorded<S>;

    fn layer(&self, service: S) -> Recorded<S> {
        Recorded { service, record: self.clone() }
    }
}

/// A service whose requests are kept.
pub(super) struct Recorded<S> {
    service: S,
    record: Record,
}

impl<S, B> Service<Request<Body>> for Recorded<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let line = format!("{} {}", request.method(), request.uri());
        let read = ApiRequest::read(request.method(), request.uri().path(), request.uri().query()).unwrap();
        let kept = Arc::clone(&self.record.kept);
        let answer = self.service.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            let mut kept = kept.lock();
            if answer.status() == StatusCode::FORBIDDEN {
                *kept.refused.entry(line).or_default() += 1;
            } else if let Target::Resource(path) = read.target {
                kept.uses.insert((read.verb.to_owned(), path.resource));
            }
            drop(kept);
            Ok(answer)
        })
    }
}
