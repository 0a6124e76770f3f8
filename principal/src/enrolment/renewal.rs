//! The next certificate of an agent, for the one that it has.

use std::sync::Arc;

use tiphys_proto::join::renewal_server::Renewal;
use tiphys_proto::join::{CertificateResponse, RenewRequest};
use tiphys_shared::model::AgentName;
use tiphys_shared::process::clock;
use tiphys_shared::security::subject::{AuthRule, Error as SubjectError};
use tiphys_shared::wire::transport::Peer;
use tonic::{Request, Response, Status};

use super::authority::Authority;
use super::refusal::Refusal;

/// Renews certificates.
pub(crate) struct Renewing {
    pub(super) authority: Arc<Authority>,
}

impl Renewing {
    async fn issue(&self, peer: Option<&Peer>, request: &[u8]) -> Result<CertificateResponse, Refusal> {
        let current = peer.and_then(|peer| peer.certificate.as_deref()).ok_or(Refusal::NoCertificate)?;
        if !current.is_valid_at(clock::now()) {
            return Err(Refusal::Ended);
        }
        let name = current.common_name.clone().unwrap_or_default();
        let agent = match &self.authority.rule {
            rule @ AuthRule::Mtls { .. } => {
                rule.name_in_certificate(Some(current)).map_err(Refusal::NotAgents)?
            }
            _ => AgentName::new(name.as_str())
                .map_err(|error| Refusal::NotAgents(SubjectError::from(error)))?,
        };
        let ca = self.authority.ca().await?;
        let authorities = self.authority.authorities().await?;
        let (certificate, signed) =
            self.authority.sign(&ca, request, &name, &current.uris, agent.as_str())?;
        tracing::info!(
            %agent, before = current.fingerprint, fingerprint = signed.fingerprint, until = %signed.not_after,
            "certificate renewed"
        );
        Ok(CertificateResponse { certificate, authorities, warning: String::new() })
    }
}

#[tonic::async_trait]
impl Renewal for Renewing {
    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<CertificateResponse>, Status> {
        let peer = request.extensions().get::<Peer>();
        match self.issue(peer, &request.get_ref().request).await {
            Ok(response) => {
                self.authority.count("renewal", "issued");
                Ok(Response::new(response))
            }
            Err(refusal) => {
                self.authority.count("renewal", refusal.reason());
                let from = peer.and_then(|peer| peer.address);
                tracing::warn!(from = from.map(tracing::field::display), cause = refusal.reason(), reason = %refusal, "renewal refused");
                Err(refusal.status())
            }
        }
    }
}
