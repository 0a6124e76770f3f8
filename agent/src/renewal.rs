//! The agent's own certificate, renewed before it ends.
//!
//! Only a Secret that joining has labelled is renewed: where cert-manager or a person issues certificates, they do it. The
//! new certificate is written into the Secret, from where it is taken into use like any other change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt as _};
use prometheus::{IntCounterVec, Opts, Registry};
use tiphys_proto::join::RenewRequest;
use tiphys_proto::join::renewal_client::RenewalClient;
use tiphys_shared::model::argocd::label;
use tiphys_shared::process::clock;
use tiphys_shared::process::metrics::{self, Register, register};
use tiphys_shared::security::pki::{self, Certificate, Request};
use tiphys_shared::security::tls::{self, ClientTls, Material, Policy};
use tiphys_shared::wire::transport::{self, DialOptions};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// How long the principal may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Shortest and longest pause before what failed is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));

/// Why a certificate was not renewed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Dial(#[from] transport::Error),
    #[error("the principal refused: {}", .0.message())]
    Refused(Box<Status>),
    #[error("the principal did not answer in time")]
    TimedOut,
    #[error("cannot make a key: {0}")]
    Key(#[source] pki::Error),
    #[error("the certificate that came cannot be used: {0}")]
    Unusable(#[from] tls::Error),
    #[error("the Secret cannot be read or written: {0}")]
    Secret(#[from] kube::Error),
}

/// Keeps a certificate from ending.
pub(crate) struct Renewal {
    secrets: Api<KubeSecret>,
    name: String,
    dial: DialOptions,
    tls: ClientTls,
    outcomes: IntCounterVec,
}

impl Renewal {
    /// Renews the certificate in the Secret `name`, which is in use as `tls`, at the principal that `dial` leads to.
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        name: &str,
        dial: DialOptions,
        tls: ClientTls,
        registry: &Registry,
    ) -> Result<Self, metrics::Error> {
        let outcomes = outcomes(registry)?;
        Ok(Self { secrets: Api::namespaced(client, namespace), name: name.to_owned(), dial, tls, outcomes })
    }

    /// Renews it again and again, until `cancel`.
    pub(crate) async fn run(self, cancel: CancellationToken) {
        _ = cancel.run_until_cancelled(self.keep()).await;
    }

    async fn keep(&self) {
        let mut own = self.tls.own();
        loop {
            let current = own.borrow_and_update().clone();
            let Some(current) = current else {
                if own.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let left = until(current.renew_at());
            if !left.is_zero() {
                // Clocks are set, and the certificate may be replaced by somebody else.
                _ = tokio::time::timeout(left.min(PAUSES.1), own.changed()).await;
                continue;
            }
            let outcome = self.renew(&current).await;
            let pause = (until(current.not_after) / 20).clamp(PAUSES.0, PAUSES.1);
            match outcome {
                Ok(true) => {
                    self.outcomes.with_label_values(&["renewed"]).inc();
                    // It comes into use by way of the Secret.
                    _ = tokio::time::timeout(pause, own.changed()).await;
                }
                Ok(false) => {
                    // It is not ours to renew.
                    if own.changed().await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    self.outcomes.with_label_values(&["failed"]).inc();
                    tracing::warn!(
                        %error, end = %current.not_after, retry_in = ?pause,
                        "the client certificate could not be renewed"
                    );
                    _ = tokio::time::timeout(pause, own.changed()).await;
                }
            }
        }
    }

    /// Asks for the next certificate, and puts it into the Secret. False if the Secret is not labelled for that.
    async fn renew(&self, current: &Arc<Certificate>) -> Result<bool, Error> {
        let mut secret = self.secrets.get(&self.name).await?;
        if secret.labels().get(label::RENEW).is_none_or(|value| value != "true") {
            tracing::info!(
                secret = self.name, end = %current.not_after,
                "the client certificate is to be renewed by whoever issued it: its Secret has no label {}=true",
                label::RENEW
            );
            return Ok(false);
        }
        let channel = transport::dial(&self.dial).await?;
        let request = Request::new(current.common_name.as_deref().unwrap_or_default()).map_err(Error::Key)?;
        let mut client = RenewalClient::new(channel).max_decoding_message_size(256 * 1024);
        let asked = client.renew(RenewRequest { request: request.der });
        let answer = tokio::time::timeout(PATIENCE, asked)
            .await
            .map_err(|_| Error::TimedOut)?
            .map_err(|status| Error::Refused(Box::new(status)))?
            .into_inner();
        let material = Material::new(answer.certificate, request.key, answer.authorities);
        // What does not go together must not take the place of what works.
        ClientTls::new(&material, Policy::default(), false)?;
        let renewed = material.leaf()?.ok_or(tls::Error::NoCertificate { what: "the answer" })?;
        let own = [("tls.crt", material.chain), ("tls.key", material.key.expose().to_vec())];
        let own: BTreeMap<_, _> = own.map(|(key, value)| (key.to_owned(), ByteString(value))).into();
        secret.data.get_or_insert_default().extend(own);
        // Somebody else's change since it was read is a conflict, and then everything is done again.
        self.secrets.replace(&self.name, &PostParams::default(), &secret).await?;
        tracing::info!(
            fingerprint = renewed.fingerprint, end = %renewed.not_after, "client certificate renewed"
        );
        Ok(true)
    }
}

/// How often the next certificate was asked for.
pub(crate) fn outcomes(registry: &impl Register) -> Result<IntCounterVec, metrics::Error> {
    let outcomes = Opts::new(
        "tiphys_agent_certificate_renewals_total",
        "Number of times that this agent asked for its next certificate, by outcome",
    );
    register(registry, IntCounterVec::new(outcomes, &["outcome"])?)
}

/// How long until then; nothing if it has passed.
fn until(moment: Timestamp) -> Duration {
    Duration::try_from(moment.duration_since(clock::now())).unwrap_or_default()
}
