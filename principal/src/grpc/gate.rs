//! Who is calling: the token of each request, and the certificate of the connection that it came on.

use prometheus::IntCounterVec;
use tiphys_shared::model::AgentName;
use tiphys_shared::security::subject::AuthRule;
use tiphys_shared::security::token::{Issuer, Subject};
use tiphys_shared::wire::transport::Peer;
use tonic::{Code, Request, Status};

/// What a caller is checked by.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) issuer: Issuer,
    pub(crate) rule: AuthRule,
    /// A client certificate, where there is one, must name the agent also when the method does not ask for it.
    pub(crate) match_subject: bool,
    /// Refusals by cause.
    pub(crate) refusals: IntCounterVec,
}

impl Gate {
    /// Counts a refusal.
    pub(super) fn refused(&self, cause: &str) {
        self.refusals.with_label_values(&[cause]).inc();
    }

    /// The agent that makes a request: what its token says, if the connection's certificate says the same.
    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    pub(crate) fn identify<T>(&self, request: &Request<T>) -> Result<Subject, Status> {
        let token = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            // Go agents send the token bare.
            .map(|value| value.strip_prefix("Bearer ").unwrap_or(value))
            .ok_or_else(|| Status::unauthenticated("no access token: call Authenticate first"))
            .inspect_err(|_| self.refused("token"))?;
        let verified = self
            .issuer
            .verify_access(token, tiphys_shared::process::clock::now())
            .map_err(|error| Status::unauthenticated(format!("access token refused: {error}")))
            .inspect_err(|_| self.refused("token"))?;
        self.check_certificate(request, &verified.subject.agent)?;
        Ok(verified.subject)
    }

    /// Refuses a certificate that names somebody else than `agent`.
    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    pub(crate) fn check_certificate<T>(&self, request: &Request<T>, agent: &AgentName) -> Result<(), Status> {
        self.compare_certificate(request, agent).inspect_err(|_| self.refused("certificate"))
    }

    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    fn compare_certificate<T>(&self, request: &Request<T>, agent: &AgentName) -> Result<(), Status> {
        let peer = request.extensions().get::<Peer>();
        let certificate = peer.and_then(|peer| peer.certificate.as_deref());
        let proven = match &self.rule {
            AuthRule::Mtls { .. } => Some(
                self.rule
                    .name_in_certificate(certificate)
                    .map_err(|error| Status::unauthenticated(format!("client certificate refused: {error}")))?
                    .to_string(),
            ),
            _ if self.match_subject => {
                certificate.map(|certificate| certificate.common_name.clone().unwrap_or_default())
            }
            _ => None,
        };
        match proven {
            Some(name) if name != agent.as_str() => Err(Status::new(
                Code::PermissionDenied,
                format!("the client certificate is of {name:?}, the token or user of {:?}", agent.as_str()),
            )),
            _ => Ok(()),
        }
    }
}
