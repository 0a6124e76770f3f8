//! The first certificate of an agent, for a token.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::api::PostParams;
use tiphys_proto::join::join_server::Join;
use tiphys_proto::join::{AuthoritiesRequest, AuthoritiesResponse, CertificateResponse, JoinRequest};
use tiphys_shared::kube::client;
use tiphys_shared::kube::cluster_secret::{self, Cluster};
use tiphys_shared::model::AgentName;
use tiphys_shared::process::clock;
use tiphys_shared::process::persist::persist;
use tiphys_shared::security::pki::{self, Ca};
use tiphys_shared::security::tls::Material;
use tiphys_shared::wire::transport::Peer;
use tonic::{Request, Response, Status};

use super::authority::Authority;
use super::refusal::Refusal;
use super::ticket::Tickets;

/// A short pause makes guessing slow, and costs an honest mistake nothing.
const PAUSE: Duration = Duration::from_millis(200);
/// How long the API server is asked to take the cluster Secret.
const PATIENCE: Duration = Duration::from_secs(10);

/// Lets agents join.
pub(crate) struct Joining {
    pub(super) authority: Arc<Authority>,
    pub(super) tickets: Tickets,
    pub(super) proxy: Option<String>,
}

impl Joining {
    async fn enrol(&self, request: &JoinRequest) -> Result<CertificateResponse, Refusal> {
        let JoinRequest { agent, id, secret, request } = request;
        let ticket = self.tickets.look(id, secret, agent, clock::now()).await?;
        // Everything that can fail comes before the token is used up, so that a mistake can be mended.
        let ca = self.authority.ca().await?;
        let authorities = self.authority.authorities().await?;
        let name = ticket.agent.as_str();
        let (certificate, signed) = self.authority.sign(&ca, request, name, &[], name)?;
        self.tickets.use_up(&ticket).await?;
        tracing::info!(
            agent = %ticket.agent, token = id, fingerprint = signed.fingerprint, until = %signed.not_after,
            "agent joined"
        );
        let warning = match self.introduce(&ticket.agent, &ca, &authorities).await {
            Ok(()) => String::new(),
            Err(reason) => {
                tracing::error!(agent = %ticket.agent, reason, "the agent has joined, but has no cluster Secret");
                format!("Argo CD does not know this cluster yet: {reason}; make its cluster Secret by hand")
            }
        };
        Ok(CertificateResponse { certificate, authorities, warning })
    }

    /// Makes the agent's cluster Secret, with a client certificate for the resource proxy whose key stays at the control
    /// plane. One that is there stays.
    async fn introduce(&self, agent: &AgentName, ca: &Ca, authorities: &str) -> Result<(), String> {
        let Some(proxy) = &self.proxy else { return Ok(()) };
        let issued = || -> Result<Material, pki::Error> {
            let lifetime = Duration::try_from(ca.certificate().not_after.duration_since(clock::now()));
            let lifetime = lifetime.unwrap_or_default().min(self.authority.lifetime);
            let own = ca.issue_client::<&str>(agent.as_str(), &[], clock::now(), lifetime)?;
            Ok(Material { ca: authorities.as_bytes().to_vec(), ..own })
        };
        let material = issued().map_err(|error| error.to_string())?;
        let server = cluster_secret::server(proxy, agent);
        let made = Cluster::new(agent, server, &material).into_secret(agent, BTreeMap::new());
        let secrets = self.tickets.secrets();
        let written = persist(PATIENCE, client::may_pass, || async {
            match secrets.create(&PostParams::default(), &made).await {
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
                outcome => outcome.map(|_| true),
            }
        });
        match written.await {
            Ok(true) => Ok(()),
            Ok(false) => {
                tracing::info!(%agent, secret = cluster_secret::name(agent), "its cluster Secret is there already");
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

#[tonic::async_trait]
impl Join for Joining {
    async fn authorities(
        &self,
        _: Request<AuthoritiesRequest>,
    ) -> Result<Response<AuthoritiesResponse>, Status> {
        match self.authority.authorities().await {
            Ok(authorities) => Ok(Response::new(AuthoritiesResponse { authorities })),
            Err(refusal) => {
                tracing::warn!(reason = %refusal, "the ca certificates cannot be told");
                Err(refusal.status())
            }
        }
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<CertificateResponse>, Status> {
        let from = request.extensions().get::<Peer>().and_then(|peer| peer.address);
        match self.enrol(request.get_ref()).await {
            Ok(response) => {
                self.authority.count("join", "issued");
                Ok(Response::new(response))
            }
            Err(refusal) => {
                self.authority.count("join", refusal.reason());
                // What was sent is shown cut to its form: it may be anything.
                let token: String = request.get_ref().id.chars().take(10).collect();
                tracing::warn!(from = from.map(tracing::field::display), token, cause = refusal.reason(), reason = %refusal, "join request refused");
                tokio::time::sleep(PAUSE).await;
                Err(refusal.status())
            }
        }
    }
}
