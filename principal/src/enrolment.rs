//! How agents get certificates: the first one for a token, each one after it for the one before.
//!
//! ```text
//! tiphys-join (no certificate) ─▶ joining ─▶ ticket ─▶ authority ─▶ cluster Secret
//! agent's connection ───────────▶ renewal ───────────▶ authority
//! ```
//!
//! A token is used up before anything is given for it: of several who come with the same one, one wins.

mod authority;
mod joining;
mod refusal;
mod renewal;
mod ticket;

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tiphys_proto::join::join_server::JoinServer;
use tiphys_proto::join::renewal_server::RenewalServer;
use tiphys_shared::kube::material::{Place, Reader};
use tiphys_shared::wire::transport::Connection;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use self::authority::Authority;
use self::joining::Joining;
use self::renewal::Renewing;
use self::ticket::Tickets;
use crate::grpc::gate::Gate;
use crate::metrics::Metrics;

/// How long such a connection may last.
const AGE: Duration = Duration::from_secs(60);
/// Largest message from them, in bytes.
const MESSAGE: usize = 32 * 1024;

/// What certificates are given out by.
#[derive(Clone)]
pub struct EnrolmentConfig {
    /// Reads the CA.
    pub reader: Reader,
    /// The control plane's API server, with the tokens and cluster Secrets.
    pub client: kube::Client,
    /// The namespace of both.
    pub namespace: String,
    /// The Secret with the CA's certificate and key.
    pub ca_secret: String,
    /// The CAs that agents are to believe.
    pub authorities: Place,
    /// How long a certificate is good.
    pub lifetime: Duration,
    /// Host and port of the resource proxy, as Argo CD reaches it; without it no cluster Secrets are made.
    pub proxy: Option<String>,
    /// Connections of those who have proved nothing yet. As many again wait for a place; the rest is turned away, and comes
    /// again.
    pub places: usize,
}

impl EnrolmentConfig {
    /// How many places there are where nobody says otherwise.
    pub const PLACES: usize = 256;
}

/// Gives out certificates.
pub(crate) struct Enrolment {
    joining: Joining,
    authority: Arc<Authority>,
    places: usize,
}

impl Enrolment {
    pub(crate) fn new(config: EnrolmentConfig, gate: &Gate, metrics: &Arc<Metrics>) -> Self {
        let authority = Arc::new(Authority {
            reader: config.reader,
            ca_secret: config.ca_secret,
            authorities: config.authorities,
            lifetime: config.lifetime,
            rule: gate.rule.clone(),
            metrics: Arc::clone(metrics),
        });
        let tickets = Tickets::new(config.client, config.namespace);
        let joining = Joining { authority: Arc::clone(&authority), tickets, proxy: config.proxy };
        Self { joining, authority, places: config.places }
    }

    /// How many connections may wait for a place.
    pub(crate) fn waiting(&self) -> usize {
        self.places
    }

    /// The service for agents that have a certificate.
    pub(crate) fn renewal(&self) -> RenewalServer<Renewing> {
        RenewalServer::new(Renewing { authority: Arc::clone(&self.authority) })
            .max_decoding_message_size(MESSAGE)
    }

    /// Serves those that have none, until `cancel`.
    pub(crate) async fn serve(self, connections: mpsc::Receiver<Connection>, cancel: CancellationToken) {
        let service = JoinServer::new(self.joining).max_decoding_message_size(MESSAGE);
        let served = tonic::transport::Server::builder()
            .timeout(AGE)
            .concurrency_limit_per_connection(4)
            .max_concurrent_streams(4)
            .max_connection_age(AGE)
            .max_connection_age_grace(AGE)
            .add_service(service)
            .serve_with_incoming_shutdown(bounded(connections, self.places), cancel.cancelled_owned());
        if let Err(error) = served.await {
            tracing::error!(%error, "join requests are not served any more");
        }
    }
}

/// At most so many connections at a time.
fn bounded(
    connections: mpsc::Receiver<Connection>,
    most: usize,
) -> impl Stream<Item = Result<Connection, std::io::Error>> {
    let places = Arc::new(Semaphore::new(most));
    futures::stream::unfold((connections, places), |(mut connections, places)| async move {
        let place = Arc::clone(&places).acquire_owned().await.ok()?;
        let connection = connections.recv().await?;
        Some((Ok(connection.holding(place)), (connections, places)))
    })
}
