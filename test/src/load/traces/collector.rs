//! A collector of OpenTelemetry traces.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

struct Collector<F>(F);

#[tonic::async_trait]
impl<F: Fn(&str, Span) + Send + Sync + 'static> TraceService for Collector<F> {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.unwrap_or_default().attributes;
            let name = attributes.into_iter().find(|attribute| attribute.key == "service.name");
            let Some(Value::StringValue(service)) = name.and_then(|name| name.value?.value) else {
                return Err(Status::invalid_argument("a service without a name"));
            };
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                (self.0)(&service, span);
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Takes spans on loopback for as long as the runtime lives, and hands each on with the service that has sent it.
///
/// # Errors
/// If there is no port.
pub async fn serve(take: impl Fn(&str, Span) + Send + Sync + 'static) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let incoming = futures::stream::unfold(listener, |listener| async {
        Some((listener.accept().await.map(|(stream, _)| stream), listener))
    });
    let service = TraceServiceServer::new(Collector(take));
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    Ok(address)
}
