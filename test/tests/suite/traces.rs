//! Traces of both sides, as a collector receives them.

use std::net::SocketAddr;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use serde_json::json;
use tiphys_shared::model::Kind;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

use super::fleet::{Fleet, merge};

/// Keeps what it is sent, with the service that sent it.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<(String, Span)>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.unwrap_or_default().attributes;
            let name = attributes.into_iter().find(|attribute| attribute.key == "service.name");
            let service = match name.and_then(|name| name.value?.value) {
                Some(Value::StringValue(service)) => service,
                other => panic!("a service without a name: {other:?}"),
            };
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.spans.lock().extend(spans.map(|span| (service.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = futures::stream::unfold(listener, |listener| async {
            Some((listener.accept().await.map(|(stream, _)| stream), listener))
        });
        let service = TraceServiceServer::new(self.clone());
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        address
    }

    /// The span of a service below another.
    fn below(&self, parent: Option<&Span>, service: &str, name: &str) -> Option<Span> {
        let spans = self.spans.lock();
        let found = spans.iter().find(|(of, span)| {
            let fits = parent.is_none_or(|parent| {
                span.parent_span_id == parent.span_id && span.trace_id == parent.trace_id
            });
            of == service && span.name == name && fits
        });
        found.map(|(_, span)| span.clone())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_follows_a_change_to_the_cluster_and_back() {
    let collector = Collector::default();
    let mut fleet = Fleet::embedded(&["edge"]).await;
    fleet.kill_agent("edge");
    fleet.kill_principal();
    fleet.collector = Some(collector.serve().await);
    fleet.start_principal().await;
    fleet.start_agent("edge");
    fleet.until_quiet().await;
    fleet.create("edge", "guestbook").await;
    let here = fleet.at_cluster(Kind::Application, "edge");
    Fleet::until_is(&here, "guestbook", "the copy", |_| true).await;
    merge(&here, "guestbook", json!({"status": {"health": {"status": "Healthy"}}})).await;
    let journey = [
        ("principal", "tell application create"),
        ("agent", "handle application create"),
        ("agent", "tell application status-update"),
        ("principal", "handle application status-update"),
    ];
    let mut parent: Option<Span> = None;
    for (service, name) in journey {
        let what = format!("{name} of {service} below {parent:?}, among {:?}", collector.spans.lock());
        let span = Fleet::until(&what, async || collector.below(parent.as_ref(), service, name)).await;
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano, "{span:?}");
        parent = Some(span);
    }
}
