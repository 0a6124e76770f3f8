//! How a cluster joins: its key is made here and stays here; a token gets it a certificate.
//!
//! The principal is known by the hash of its CAs in the token, before anything secret is said to it: the CAs are asked for
//! over a connection that believes anybody, compared with the hash, and everything else goes over one that believes
//! nobody else.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::api::{Api, PostParams};
use tiphys_proto::join::join_client::JoinClient;
use tiphys_proto::join::{AuthoritiesRequest, JoinRequest};
use tiphys_shared::kube::private_key;
use tiphys_shared::model::argocd::label;
use tiphys_shared::process::backoff::{Backoff, Schedule};
use tiphys_shared::security::join_token::{self, JoinToken};
use tiphys_shared::security::pki::{self, Certificate, Request};
use tiphys_shared::security::tls::{self, Alpn, ClientTls, Material, Policy, Version};
use tiphys_shared::wire::transport::proxy::{BadProxy, Proxy};
use tiphys_shared::wire::transport::{self, Channel, DialOptions};
use tokio::time::Instant;
use tonic::{Code, Status};

/// The Secret with the agent's certificate and key, as upstream names it.
pub const CERTIFICATE_SECRET: &str = "argocd-agent-client-tls";
/// The Secret with the CAs of the control plane.
pub const CA_SECRET: &str = "argocd-agent-ca";
/// How long the principal may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest answer.
const ANSWER: usize = 256 * 1024;
/// How long a principal is tried that has too many others to see to.
const CROWD: Duration = Duration::from_secs(120);
/// Pauses between attempts: a thousand clusters that come at once come again at different times.
const PAUSES: Schedule = Schedule {
    initial: Duration::from_secs(1),
    max: Duration::from_secs(8),
    factor: 2.0,
    stable_after: Duration::MAX,
};

/// Why a cluster cannot join.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The principal cannot be reached.
    #[error(transparent)]
    Dial(#[from] transport::Error),
    /// The environment names a proxy that is none.
    #[error("the environment variable {variable} cannot be used: {source}")]
    Proxy {
        /// Which.
        variable: &'static str,
        /// What is wrong with it.
        source: BadProxy,
    },
    /// It can be, and does not let anybody join.
    #[error(
        "{target} takes no join requests: it is not a Tiphys principal, runs with --enable-join false, or something in \
         between ends TLS"
    )]
    NotOffered {
        /// Who was dialled.
        target: String,
    },
    /// The CAs are others than the token says.
    #[error(
        "the principal's CAs are not those that the token was made for: somebody is in between, or they were replaced since; \
         if they were, make another token"
    )]
    OtherAuthorities,
    /// The CAs cannot be read.
    #[error("the principal's CAs cannot be read: {0}")]
    Authorities(#[from] join_token::Error),
    /// The principal refused.
    #[error("the principal refused: {}", .0.message())]
    Refused(Box<Status>),
    /// It did not answer in time.
    #[error("the principal did not answer in time")]
    TimedOut,
    /// The key or the request cannot be made.
    #[error("cannot make a key: {0}")]
    Key(#[source] pki::Error),
    /// What came does not go with the key.
    #[error("the certificate that came cannot be used: {0}")]
    Unusable(#[from] tls::Error),
    /// There is a certificate already.
    #[error("Secret {namespace}/{name} is there already: this cluster has joined before")]
    Joined {
        /// Where.
        namespace: String,
        /// Which one.
        name: &'static str,
    },
    /// What is there has a private key, which nobody could bring back.
    #[error(
        "Secret {namespace}/{name} holds a private key, {entry}, which would be lost: it is not that of an agent's cluster"
    )]
    HoldsKey {
        /// Where.
        namespace: String,
        /// Which one.
        name: &'static str,
        /// Its entry with the key.
        entry: String,
    },
    /// This cluster's API server refuses.
    #[error("cannot write Secret {namespace}/{name}: {source}")]
    Write {
        /// Where.
        namespace: String,
        /// Which one.
        name: &'static str,
        /// Why.
        source: Box<kube::Error>,
    },
}

impl Error {
    /// Whether the principal was reached and had too much to do: it goes away by itself. Where nobody listens, a person has to
    /// look.
    fn is_of_a_crowd(&self) -> bool {
        match self {
            Self::Dial(error) => error.is_busy(),
            // What has a source is a broken connection.
            Self::Refused(status) => status.code() == Code::Unavailable || status.source().is_some(),
            Self::TimedOut => true,
            _ => false,
        }
    }

    /// Whether nobody joins with this token, whatever else is mended.
    pub fn wants_another_token(&self) -> bool {
        match self {
            Self::OtherAuthorities => true,
            Self::Refused(status) => matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied),
            _ => false,
        }
    }

    /// Whether the principal itself has said that it could not do it now, so that the token is as good as before.
    fn asks_for_another_try(&self) -> bool {
        matches!(self, Self::Refused(status) if status.code() == Code::Unavailable && status.source().is_none())
    }
}

/// What joining brought.
#[derive(Debug)]
pub struct Joined {
    /// Certificate, key, and the CAs of the control plane.
    pub material: Material,
    /// The certificate.
    pub certificate: Certificate,
    /// Something that a person should know about.
    pub warning: Option<String>,
}

/// Gets a certificate for a token. A principal that has too many others to see to is tried again for two minutes.
///
/// # Errors
/// [`Error`]. The token is used up only if this succeeds, or if the answer is lost on its way.
pub async fn enrol(host: &str, port: u16, token: &JoinToken) -> Result<Joined, Error> {
    let mut crowd = Crowd::new();
    let authorities = loop {
        match authorities(host, port, token).await {
            Err(error) if error.is_of_a_crowd() => crowd.wait(error).await?,
            outcome => break outcome?,
        }
    };
    let request = Request::new(token.agent.as_str()).map_err(Error::Key)?;
    let asked = JoinRequest {
        agent: token.agent.to_string(),
        id: token.id.clone(),
        secret: token.secret.expose_str().unwrap_or_default().to_owned(),
        request: request.der,
    };
    let answer = loop {
        let mut known = match client(host, port, &Material::ca_only(authorities.clone()), false).await {
            Err(error) if error.is_of_a_crowd() => {
                crowd.wait(error).await?;
                continue;
            }
            outcome => outcome?,
        };
        match with_patience(known.join(asked.clone())).await {
            // The token may be used up: an answer that does not come is not asked for again.
            Err(error) if error.asks_for_another_try() => crowd.wait(error).await?,
            outcome => break outcome?,
        }
    };
    let material = Material::new(answer.certificate, request.key, answer.authorities);
    // A certificate for another key would be found out at the first connection only.
    ClientTls::new(&material, Policy::default(), false)?;
    let certificate = material.leaf()?.ok_or(tls::Error::NoCertificate { what: "the answer" })?;
    Ok(Joined { material, certificate, warning: Some(answer.warning).filter(|text| !text.is_empty()) })
}

/// Asks for the CAs of the control plane, and compares them with what the token says.
async fn authorities(host: &str, port: u16, token: &JoinToken) -> Result<Vec<u8>, Error> {
    let mut anybody = client(host, port, &Material::default(), true).await?;
    let asked = with_patience(anybody.authorities(AuthoritiesRequest {})).await?;
    let authorities = asked.authorities.into_bytes();
    if join_token::is_same(&join_token::authorities_hash(&authorities)?, &token.authorities) {
        Ok(authorities)
    } else {
        Err(Error::OtherAuthorities)
    }
}

/// Others who want the same thing at the same time.
struct Crowd {
    until: Instant,
    backoff: Backoff,
}

impl Crowd {
    fn new() -> Self {
        Self { until: Instant::now() + CROWD, backoff: Backoff::random(PAUSES) }
    }

    /// Waits for a better moment; gives up with the reason for this one if it has been too long.
    async fn wait(&mut self, reason: Error) -> Result<(), Error> {
        let pause = self.backoff.next_delay(Duration::ZERO);
        if Instant::now() + pause > self.until {
            return Err(reason);
        }
        tracing::warn!(%reason, retry_in = ?pause, "the principal has too many others to see to");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

async fn client(
    host: &str,
    port: u16,
    material: &Material,
    anybody: bool,
) -> Result<JoinClient<Channel>, Error> {
    let policy = Policy { alpn: Alpn::Join, min_version: Version::Tls12, ..Policy::default() };
    let tls = ClientTls::new(material, policy, anybody)?;
    let mut dial = DialOptions::new(host, port, Some(tls));
    dial.proxy = Proxy::find(|name| std::env::var(name).ok(), host, port)
        .map_err(|(variable, source)| Error::Proxy { variable, source })?;
    let channel = transport::dial(&dial).await.map_err(|error| match error {
        transport::Error::NotHttp2 { target } => Error::NotOffered { target },
        other => Error::Dial(other),
    })?;
    Ok(JoinClient::new(channel).max_decoding_message_size(ANSWER))
}

async fn with_patience<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Error> {
    match tokio::time::timeout(PATIENCE, call).await {
        Err(_) => Err(Error::TimedOut),
        Ok(Err(status)) if status.code() == Code::DeadlineExceeded => Err(Error::TimedOut),
        Ok(answer) => {
            answer.map(tonic::Response::into_inner).map_err(|status| Error::Refused(Box::new(status)))
        }
    }
}

/// Where a cluster keeps what it joined with.
#[derive(Clone)]
pub struct Keeping {
    secrets: Api<KubeSecret>,
    namespace: String,
    replace: bool,
}

impl Keeping {
    /// In Secrets of a namespace; with `replace`, in the place of those that are there.
    pub fn new(client: kube::Client, namespace: &str, replace: bool) -> Self {
        Self { secrets: Api::namespaced(client, namespace), namespace: namespace.to_owned(), replace }
    }

    /// Checks that both Secrets can be written, and writes nothing: a token should not be used up in vain.
    ///
    /// # Errors
    /// What [`Keeping::keep`] would fail with.
    pub async fn check(&self) -> Result<(), Error> {
        let probe = Material::new("probe", "probe", "probe");
        self.write(&probe, &PostParams { dry_run: true, ..PostParams::default() }).await
    }

    /// Writes the Secrets.
    ///
    /// # Errors
    /// [`Error::Write`], [`Error::Joined`] or [`Error::HoldsKey`].
    pub async fn keep(&self, material: &Material) -> Result<(), Error> {
        self.write(material, &PostParams::default()).await
    }

    async fn write(&self, material: &Material, how: &PostParams) -> Result<(), Error> {
        let own = [("tls.crt", material.chain.as_slice()), ("tls.key", material.key.expose())];
        self.put(CERTIFICATE_SECRET, Some("kubernetes.io/tls"), &own, self.replace, how).await?;
        // The CAs may be there before: they are no secret, and those that came are the right ones. What has a key besides
        // is a control plane's.
        self.put(CA_SECRET, None, &[("ca.crt", &material.ca)], true, how).await
    }

    async fn put(
        &self,
        name: &'static str,
        type_: Option<&str>,
        data: &[(&str, &[u8])],
        replace: bool,
        how: &PostParams,
    ) -> Result<(), Error> {
        let namespace = || self.namespace.clone();
        let failed = |source| Error::Write { namespace: namespace(), name, source: Box::new(source) };
        let mut secret = KubeSecret::default();
        secret.metadata.name = Some(name.to_owned());
        secret.metadata.labels = Some(BTreeMap::from([(label::RENEW.to_owned(), "true".to_owned())]));
        secret.type_ = type_.map(str::to_owned);
        let entries = data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.to_vec())));
        secret.data = Some(entries.collect());
        match self.secrets.create(how, &secret).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(failed(error)),
        }
        if !replace {
            return Err(Error::Joined { namespace: namespace(), name });
        }
        let mut current = self.secrets.get(name).await.map_err(failed)?;
        let (there, wanted) = (current.data.take().unwrap_or_default(), secret.data.unwrap_or_default());
        if let Some(entry) = private_key::lost(&there, &wanted) {
            return Err(Error::HoldsKey { namespace: namespace(), name, entry: entry.to_owned() });
        }
        // The type of a Secret cannot be changed.
        current.data = Some(wanted);
        current.metadata.labels.get_or_insert_default().extend(secret.metadata.labels.unwrap_or_default());
        self.secrets.replace(name, how, &current).await.map(drop).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_token_is_asked_for_only_where_this_one_is_at_fault() {
        let refused = |code| Error::Refused(Box::new(Status::new(code, "x")));
        for code in [Code::Unauthenticated, Code::PermissionDenied] {
            assert!(refused(code).wants_another_token(), "{code}");
        }
        // A CA that signs nothing, a rule that knows nobody, an API server that is away.
        for code in [Code::FailedPrecondition, Code::Unavailable, Code::InvalidArgument] {
            assert!(!refused(code).wants_another_token(), "{code}");
        }
        assert!(Error::OtherAuthorities.wants_another_token());
        assert!(!Error::TimedOut.wants_another_token());
    }
}
