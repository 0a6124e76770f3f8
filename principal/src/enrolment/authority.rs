//! The CA that signs agents.

use std::sync::Arc;
use std::time::Duration;

use tiphys_shared::kube::material::{Place, Places, Reader};
use tiphys_shared::process::clock;
use tiphys_shared::process::options::Problem;
use tiphys_shared::security::pki::{Ca, Certificate};
use tiphys_shared::security::subject::AuthRule;

use super::refusal::Refusal;
use crate::metrics::Metrics;

/// Signs what agents ask for.
pub(crate) struct Authority {
    pub(super) reader: Reader,
    pub(super) ca_secret: String,
    pub(super) authorities: Place,
    pub(super) lifetime: Duration,
    pub(super) rule: AuthRule,
    pub(super) metrics: Arc<Metrics>,
}

impl Authority {
    /// The CAs that agents are to believe, as PEM text.
    pub(super) async fn authorities(&self) -> Result<String, Refusal> {
        let pem = self.reader.read(&self.authorities).await.map_err(Refusal::Authority)?;
        String::from_utf8(pem).map_err(|_| {
            Refusal::Authority(Problem::new("the ca certificates are not text", "keep them in PEM form"))
        })
    }

    /// The CA itself. It is read for each request, so that its key stays in memory no longer than it is needed.
    pub(super) async fn ca(&self) -> Result<Ca, Refusal> {
        let place = |keys| Some(Place::Secret { name: self.ca_secret.clone(), keys });
        let places = Places { chain: place(&["tls.crt"]), key: place(&["tls.key"]), ca: None };
        let kept = self.reader.read_all(&places).await.map_err(Refusal::Authority)?;
        Ca::from_pem(&kept.chain, kept.key.expose()).map_err(|error| {
            Refusal::Authority(Problem::new(
                format!("the CA in Secret {} cannot be used: {error}", self.ca_secret),
                "replace it with a CA certificate and its key",
            ))
        })
    }

    /// Signs a request for `name`. What is signed is good for logging in here as `agent`.
    pub(super) fn sign(
        &self,
        ca: &Ca,
        request: &[u8],
        name: &str,
        uris: &[String],
        agent: &str,
    ) -> Result<(String, Certificate), Refusal> {
        let pem =
            ca.sign_request(request, name, uris, clock::now(), self.lifetime).map_err(Refusal::Request)?;
        let signed = Certificate::from_pem(pem.as_bytes()).map_err(Refusal::Request)?;
        if matches!(self.rule, AuthRule::Mtls { .. }) {
            let found = self.rule.name_in_certificate(Some(&signed)).map_err(Refusal::Rule)?;
            if found.as_str() != agent {
                return Err(Refusal::OtherAgent);
            }
        }
        Ok((pem, signed))
    }

    pub(super) fn count(&self, kind: &str, outcome: &str) {
        self.metrics.enrolments.with_label_values(&[kind, outcome]).inc();
    }
}
