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
    // A comparison may have it told twice: one of the two ways goes there and back.
    Fleet::until("the way there and back in one trace", async || {
        let spans = collector.spans.lock().clone();
        let ends = journey.iter().fold(vec![Vec::new()], |parents, (service, name)| {
            let below = |parent: &Vec<u8>| {
                let spans = spans.iter().filter(|(by, span)| by == service && span.name == *name);
                spans
                    .filter(|(_, span)| span.parent_span_id == *parent)
                    .map(|(_, span)| {
                        assert!(span.end_time_unix_nano >= span.start_time_unix_nano, "{span:?}");
                        span.span_id.clone()
                    })
                    .collect::<Vec<_>>()
            };
            parents.iter().flat_map(below).collect()
        });
        (!ends.is_empty()).then_some(())
    })
    .await;
}
