//! Why a certificate is not given out.

use tiphys_shared::process::options::Problem;
use tiphys_shared::security::{pki, subject};
use tonic::{Code, Status};

/// Why a certificate is not given out.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// A part of the request cannot be what it should be.
    #[error("the request is malformed: {0}")]
    Malformed(&'static str),
    /// No such token, or another secret: whoever guesses learns nothing from the difference.
    #[error("the token is not known: it has been used, was deleted, or was never made; make another one")]
    Unknown,
    /// The token is known, and its secret is another.
    #[error("the token is not known: it has been used, was deleted, or was never made; make another one")]
    Forged,
    /// Its time is over.
    #[error("the token has expired; make another one")]
    Expired,
    /// It was made for another agent.
    #[error("the token was made for another agent")]
    OtherAgent,
    /// Somebody else came with the same token at the same moment.
    #[error(
        "the token was used by somebody else at this moment; if that was not you, revoke their certificate"
    )]
    Raced,
    /// The request does not ask for what may be given.
    #[error("{0}")]
    Request(pki::Error),
    /// There is no certificate to renew.
    #[error("there is no client certificate to renew: join with a token")]
    NoCertificate,
    /// It ended while the connection was open.
    #[error("the client certificate has ended: join with a token")]
    Ended,
    /// Its name is not one that can be certified.
    #[error("the client certificate cannot be renewed: {0}")]
    NotAgents(subject::Error),
    /// The principal's rule would not find the agent in what is signed.
    #[error("this principal's --auth would not know the agent by the certificate: {0}")]
    Rule(subject::Error),
    /// The CA cannot be used.
    #[error("this principal cannot sign: {}; {}", .0.what, .0.remedy)]
    Authority(Problem),
    /// The API server cannot be asked.
    #[error("this principal cannot look the token up now: {0}; try again")]
    Api(#[from] kube::Error),
}

impl Refusal {
    /// A short fixed word for figures.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Unknown => "unknown",
            Self::Forged => "forged",
            Self::Expired => "expired",
            Self::OtherAgent => "other-agent",
            Self::Raced => "raced",
            Self::Request(_) => "request",
            Self::NoCertificate => "no-certificate",
            Self::Ended => "ended",
            Self::NotAgents(_) => "not-agents",
            Self::Rule(_) => "rule",
            Self::Authority(_) => "authority",
            Self::Api(_) => "api",
        }
    }

    pub(super) fn status(&self) -> Status {
        let code = match self {
            Self::Malformed(_) | Self::Request(_) => Code::InvalidArgument,
            Self::Unknown | Self::Forged | Self::Expired | Self::NoCertificate | Self::Ended => {
                Code::Unauthenticated
            }
            Self::OtherAgent | Self::Raced | Self::NotAgents(_) => Code::PermissionDenied,
            Self::Rule(_) | Self::Authority(_) => Code::FailedPrecondition,
            Self::Api(_) => Code::Unavailable,
        };
        Status::new(code, self.to_string())
    }
}
