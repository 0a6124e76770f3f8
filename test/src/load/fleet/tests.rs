use std::net::Ipv4Addr;
use std::pin::Pin;

use futures::{Stream, StreamExt as _, stream};
use jiff::Timestamp;
use tiphys_proto::auth::authentication_server::{Authentication, AuthenticationServer};
use tiphys_proto::auth::{AuthRequest, AuthResponse, RefreshTokenRequest};
use tiphys_proto::event_stream::event_stream_server::{EventStream, EventStreamServer};
use tiphys_proto::event_stream::{Event, PingRequest, PongReply, PushSummary};
use tiphys_proto::version::version_server::{Version, VersionServer};
use tiphys_proto::version::{VersionRequest, VersionResponse};
use tiphys_shared::security::pki::Ca;
use tiphys_shared::security::tls::{Policy, ServerTls};
use tiphys_shared::wire::transport::{Limits, Peer, listen};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::message::{Received, application_event};
use super::*;

const DAY: Duration = Duration::from_secs(86_400);

/// A principal with one application for everyone.
#[derive(Clone, Default)]
struct Principal {
    /// Ends every stream after its first event.
    hangs_up: bool,
    /// Whether an agent has sent an event.
    spoken_to: Arc<watch::Sender<bool>>,
}

fn subject<T>(request: &Request<T>) -> String {
    let peer = request.extensions().get::<Peer>().and_then(|peer| peer.certificate.clone());
    peer.and_then(|certificate| certificate.common_name.clone()).unwrap_or_else(|| "nobody".into())
}

#[allow(clippy::result_large_err)]
fn check<T>(request: &Request<T>) -> Result<(), Status> {
    let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
    let expected = format!("token-of-{}", subject(request));
    if token == Some(expected.as_str()) { Ok(()) } else { Err(Status::unauthenticated("not your token")) }
}

#[tonic::async_trait]
impl Authentication for Principal {
    async fn authenticate(&self, request: Request<AuthRequest>) -> Result<Response<AuthResponse>, Status> {
        let access_token = format!("token-of-{}", subject(&request));
        if request.into_inner().version != "1" {
            return Err(Status::failed_precondition("version mismatch"));
        }
        Ok(Response::new(AuthResponse { access_token, ..AuthResponse::default() }))
    }

    async fn refresh_token(&self, _: Request<RefreshTokenRequest>) -> Result<Response<AuthResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

#[tonic::async_trait]
impl Version for Principal {
    async fn version(&self, request: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        check(&request)?;
        Ok(Response::new(VersionResponse { version: "1".into() }))
    }
}

#[tonic::async_trait]
impl EventStream for Principal {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<Event, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<Event>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        check(&request)?;
        let first = stream::iter([Ok(application_event("app"))]);
        if self.hangs_up {
            return Ok(Response::new(Box::pin(first)));
        }
        // Acknowledges whatever is not an acknowledgement.
        let spoken_to = Arc::clone(&self.spoken_to);
        let answers = request.into_inner().filter_map(move |event| {
            spoken_to.send_replace(true);
            std::future::ready(match event {
                Ok(event) => Received::new(event)
                    .filter(|event| event.kind() != "processed")
                    .map(|event| Ok(event.acknowledgement())),
                Err(status) => Some(Err(status)),
            })
        });
        Ok(Response::new(Box::pin(first.chain(answers))))
    }

    async fn push(&self, _: Request<Streaming<Event>>) -> Result<Response<PushSummary>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn ping(&self, _: Request<PingRequest>) -> Result<Response<PongReply>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

struct Lab {
    ca: Arc<Ca>,
    port: u16,
}

async fn lab(principal: Principal) -> Lab {
    let ca = Arc::new(Ca::generate("test ca", Timestamp::now(), DAY).unwrap());
    let material = ca.issue_server(&["127.0.0.1"], Timestamp::now(), DAY).unwrap();
    let tls = ServerTls::new(&material, Policy::mutual()).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = Server::builder()
        .add_service(AuthenticationServer::new(principal.clone()))
        .add_service(VersionServer::new(principal.clone()))
        .add_service(EventStreamServer::new(principal))
        .serve_with_incoming(listen(listener, Some(tls), Limits::default()));
    tokio::spawn(async move { server.await.unwrap() });
    Lab { ca, port }
}

impl Lab {
    fn plan(&self, count: usize) -> Plan {
        Plan {
            host: "127.0.0.1".into(),
            port: self.port,
            count,
            mode: Mode::Managed,
            version: "1".into(),
            namespace: "argocd".into(),
            pace: Pace::Burst { concurrency: 8 },
            hold: Duration::from_secs(60),
            status_rate: 0.0,
            connect_timeout: Duration::from_secs(20),
            pid: Some(std::process::id()),
        }
    }

    fn identities(&self, count: usize) -> Identities {
        let trust = Authority::Ca(self.ca.certificate_pem().as_bytes().to_vec());
        Identities::new("load-", count, Login::Mtls(Arc::clone(&self.ca)), trust).unwrap()
    }
}

#[tokio::test]
async fn every_agent_connects_gets_its_application_acknowledges_it_and_reports_status() {
    let lab = lab(Principal::default()).await;
    let plan = Plan { status_rate: 2000.0, hold: Duration::from_secs(1), ..lab.plan(20) };
    let report = run(plan, lab.identities(20), std::future::pending()).await.unwrap();
    assert!(report.all_well(), "{report}");
    assert_eq!((report.connected, report.streams_open), (20, 20));
    assert_eq!(report.received["application create"], 20);
    assert_eq!(report.acks_sent, 20);
    assert!(report.status_updates > 0, "{report}");
    assert!(report.acknowledgement.as_ref().unwrap().count > 0, "{report}");
    assert!(report.principal_holding.as_ref().unwrap().resident_mb > 1.0);
    assert!(report.to_string().starts_with("20 of 20 agents connected"), "{report}");
    serde_json::to_value(&report).unwrap();
}

#[tokio::test]
async fn refusals_are_told_with_their_reasons() {
    let lab = lab(Principal::default()).await;
    let plan = Plan { version: "2".into(), ..lab.plan(3) };
    let error = run(plan, lab.identities(3), std::future::pending()).await.unwrap_err().to_string();
    assert!(error.contains("version mismatch (3 times)"), "{error}");

    let trust = Authority::Ca(lab.ca.certificate_pem().as_bytes().to_vec());
    let nobody = Identities::new("load-", 2, Login::UserPass("pw".into()), trust).unwrap();
    let error = run(lab.plan(2), nobody, std::future::pending()).await.unwrap_err().to_string();
    assert!(error.contains("requires a client certificate"), "{error}");
}

#[tokio::test]
async fn streams_that_end_early_are_counted_and_the_run_is_not_well() {
    let lab = lab(Principal { hangs_up: true, ..Principal::default() }).await;
    let plan = Plan { hold: Duration::from_secs(1), ..lab.plan(4) };
    let report = run(plan, lab.identities(4), std::future::pending()).await.unwrap();
    assert_eq!((report.connected, report.still_connected), (4, 0), "{report}");
    assert_eq!(report.lost.values().sum::<u64>(), 4, "{report}");
    assert!(!report.all_well());
}

#[tokio::test]
async fn an_interrupt_ends_the_holding_and_still_gives_a_report() {
    let principal = Principal::default();
    let mut spoken_to = principal.spoken_to.subscribe();
    let lab = lab(principal).await;
    let plan = Plan { hold: DAY, ..lab.plan(1) };
    let interrupted = async move { drop(spoken_to.wait_for(|spoken_to| *spoken_to).await.unwrap()) };
    let report = run(plan, lab.identities(1), interrupted).await.unwrap();
    assert!(report.all_well(), "{report}");
}
