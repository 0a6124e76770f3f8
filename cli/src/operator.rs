//! What the operator's commands share: which clusters they speak to, how they write, how they ask.

pub(crate) mod confirm;
pub(crate) mod installation;
pub(crate) mod keys;
pub(crate) mod local;
pub(crate) mod scrape;
pub(crate) mod targets;
pub(crate) mod write;

use std::future::Future;

use crate::failure::Failure;
use crate::runtime;

/// Names that upstream gives to what an installation keeps in its namespaces.
pub(crate) mod names {
    /// Secret of the CA: with its key at the control plane, without it on clusters.
    pub(crate) const CA: &str = "argocd-agent-ca";
    /// Secret with the principal's certificate.
    pub(crate) const PRINCIPAL_TLS: &str = "argocd-agent-principal-tls";
    /// Secret with the resource proxy's certificate.
    pub(crate) const PROXY_TLS: &str = "argocd-agent-resource-proxy-tls";
    /// Secret with an agent's certificate.
    pub(crate) const CLIENT_TLS: &str = "argocd-agent-client-tls";
    /// Secret with the key that signs tokens.
    pub(crate) const JWT: &str = "argocd-agent-jwt";
    /// Its entry.
    pub(crate) const JWT_KEY: &str = "jwt.key";
    /// Config map with the fingerprints of certificates that are refused.
    pub(crate) const BLOCKLIST: &str = "argocd-agent-tls-blocklist";
}

/// Runs `work`. An interruption ends it where it is: everything that is written is written in one request.
pub(crate) fn run<F>(work: F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    runtime::run(1, |stop| async move {
        tokio::select! {
            result = work => result,
            () = stop.cancelled() => Err(Failure::interrupted()),
        }
    })
}
