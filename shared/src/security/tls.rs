//! TLS configuration that can change while the process runs.
//!
//! [`ServerTls`] and [`ClientTls`] are cheap handles. `replace` builds a new rustls configuration from new
//! material and swaps it in for the next handshake; material that does not work leaves the old one in place.
//! Nothing here touches rustls' process-wide default provider, and no session is ever resumed: a resumed
//! session would not look at the peer's certificate again, so that a replaced CA would not be noticed.

mod policy;
mod read_ahead;
mod revocation;
mod verify;

use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::RwLock;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WantsServerCert, WebPkiClientVerifier};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::sync::watch;

pub use self::policy::{Alpn, ClientCertificate, Policy, Version, cipher_suite, cipher_suite_names};
pub use self::read_ahead::ReadAhead;
use super::blocklist::Blocklist;
use super::pki;
use super::secret::Secret;

use self::revocation::Revoking;

/// Why a TLS configuration could not be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A PEM part that must hold certificates holds none.
    #[error("no certificate in {what}: expected PEM text with at least one CERTIFICATE block")]
    NoCertificate {
        /// Which part was read.
        what: &'static str,
    },
    /// A certificate could not be read.
    #[error("bad certificate in {what}: {reason}")]
    BadCertificate {
        /// Which part was read.
        what: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// A certificate's time is over.
    #[error("the certificate of {subject:?} ended at {end}")]
    Ended {
        /// Whose it is.
        subject: String,
        /// When.
        end: Timestamp,
    },
    /// A certificate's time has not come.
    #[error("the certificate of {subject:?} is not good before {begin}")]
    NotYetGood {
        /// Whose it is.
        subject: String,
        /// From then on.
        begin: Timestamp,
    },
    /// The private key is absent or not a key that can be used.
    #[error("private key cannot be used: {0} (expected PEM in PKCS#8, PKCS#1 or SEC1 form, not encrypted)")]
    BadKey(String),
    /// Certificate and key are each fine but not a pair.
    #[error("private key does not belong to the certificate")]
    KeyMismatch,
    /// Client certificates are to be checked and there is nothing to check them with.
    #[error("no ca certificate given, so the peer's certificates cannot be checked")]
    NoCa,
    /// The system's trust store could not be used in place of a CA.
    #[error("no ca certificate given and the system's trust store has none: {0}")]
    NoSystemCa(String),
    /// The version's name means nothing.
    #[error("unknown tls version {0:?}: expected tls1.2 or tls1.3")]
    UnknownVersion(String),
    /// The version exists but is too old.
    #[error("tls version {0} is obsolete (RFC 8996) and not available: use tls1.2 or tls1.3")]
    ObsoleteVersion(String),
    /// The range of versions is empty.
    #[error("minimum tls version {min} is higher than maximum tls version {max}")]
    VersionOrder {
        /// The lower end.
        min: Version,
        /// The upper end.
        max: Version,
    },
    /// The suite's name means nothing.
    #[error("unknown cipher suite {name:?}: available are {}", cipher_suite_names().join(", "))]
    UnknownCipherSuite {
        /// As it was given.
        name: String,
    },
    /// The suite cannot be used with any version in the range.
    #[error("cipher suite {name} cannot be used with tls versions {min} to {max}")]
    CipherSuiteOutOfRange {
        /// As it was given.
        name: String,
        /// The lowest version allowed.
        min: Version,
        /// The highest version allowed.
        max: Version,
    },
    /// rustls refused the combination.
    #[error("tls configuration refused: {0}")]
    Refused(String),
}

/// Certificates and key as issuers write them: PEM text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Material {
    /// The own certificate, leaf first, then intermediates. May be empty on a client.
    pub chain: Vec<u8>,
    /// The own private key. May be empty on a client.
    pub key: Secret,
    /// The certificates that the peer's certificate must lead to; a bundle is fine.
    pub ca: Vec<u8>,
}

/// Until when certificates are good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Validity {
    /// The own certificate, if there is one.
    pub own: Option<Timestamp>,
    /// The one of the authorities that ends first, if there are any.
    pub authorities: Option<Timestamp>,
}

impl Material {
    /// The three parts.
    pub fn new(chain: impl Into<Vec<u8>>, key: impl Into<Secret>, ca: impl Into<Vec<u8>>) -> Self {
        Self { chain: chain.into(), key: key.into(), ca: ca.into() }
    }

    /// Only a CA: what a client without a certificate has.
    pub fn ca_only(ca: impl Into<Vec<u8>>) -> Self {
        Self { ca: ca.into(), ..Self::default() }
    }

    /// The own certificate, if there is one.
    pub fn leaf(&self) -> Result<Option<pki::Certificate>, Error> {
        const WHAT: &str = "the certificate chain";
        if self.chain.is_empty() {
            return Ok(None);
        }
        let chain = certificates(&self.chain, WHAT)?;
        match chain.first() {
            Some(leaf) => pki::Certificate::from_der(leaf)
                .map(Some)
                .map_err(|e| Error::BadCertificate { what: WHAT, reason: e.to_string() }),
            None => Ok(None),
        }
    }

    /// Refuses certificates that are out of their time: an own one that is, and CAs if all of them are.
    ///
    /// # Errors
    /// What is wrong with their time, or that a certificate cannot be read.
    pub fn check(&self, now: Timestamp) -> Result<(), Error> {
        let read = |pem: &[u8], what| {
            pki::Certificate::all_from_pem(pem)
                .map_err(|e| Error::BadCertificate { what, reason: e.to_string() })
        };
        for certificate in read(&self.chain, "the certificate chain")? {
            in_time(&certificate, now)?;
        }
        let roots = read(&self.ca, "the ca bundle")?;
        match roots.iter().map(|root| in_time(root, now)).reduce(Result::or) {
            None => Ok(()),
            Some(outcome) => outcome,
        }
    }

    /// Until when it is good. A part that cannot be read is as if it were not there.
    pub fn validity(&self) -> Validity {
        let authorities = self.authorities().unwrap_or_default();
        Validity {
            own: self.leaf().ok().flatten().map(|leaf| leaf.not_after),
            authorities: authorities.iter().map(|authority| authority.not_after).min(),
        }
    }

    /// The certificates that the peer's must lead to.
    ///
    /// # Errors
    /// [`Error`] if there are some that cannot be read.
    pub fn authorities(&self) -> Result<Vec<pki::Certificate>, Error> {
        const WHAT: &str = "the ca bundle";
        if self.ca.is_empty() {
            return Ok(Vec::new());
        }
        let read = |der: &CertificateDer<'_>| {
            pki::Certificate::from_der(der)
                .map_err(|error| Error::BadCertificate { what: WHAT, reason: error.to_string() })
        };
        certificates(&self.ca, WHAT)?.iter().map(read).collect()
    }

    fn identity(&self) -> Result<Option<Identity>, Error> {
        if self.chain.is_empty() && self.key.is_empty() {
            return Ok(None);
        }
        let chain = certificates(&self.chain, "the certificate chain")?;
        let key =
            PrivateKeyDer::from_pem_slice(self.key.expose()).map_err(|e| Error::BadKey(describe_pem(&e)))?;
        Ok(Some((chain, key)))
    }

    fn roots(&self) -> Result<RootCertStore, Error> {
        const WHAT: &str = "the ca bundle";
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca, WHAT)? {
            roots
                .add(certificate)
                .map_err(|e| Error::BadCertificate { what: WHAT, reason: e.to_string() })?;
        }
        Ok(roots)
    }
}

fn in_time(certificate: &pki::Certificate, now: Timestamp) -> Result<(), Error> {
    let subject = || certificate.subject.clone();
    if now > certificate.not_after {
        Err(Error::Ended { subject: subject(), end: certificate.not_after })
    } else if now < certificate.not_before {
        Err(Error::NotYetGood { subject: subject(), begin: certificate.not_before })
    } else {
        Ok(())
    }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| Error::BadCertificate { what, reason: describe_pem(&e) })?;
    if found.is_empty() { Err(Error::NoCertificate { what }) } else { Ok(found) }
}

fn describe_pem(error: &rustls::pki_types::pem::Error) -> String {
    use rustls::pki_types::pem::Error as Pem;
    match error {
        Pem::NoItemsFound => "no PEM block of the expected kind".into(),
        Pem::MissingSectionEnd { .. } => "a PEM block is cut off".into(),
        Pem::IllegalSectionStart { .. } => "a PEM block begins with a malformed line".into(),
        Pem::Base64Decode(_) => "a PEM block is not base64".into(),
        other => other.to_string(),
    }
}

fn explain(error: rustls::Error) -> Error {
    match error {
        rustls::Error::InconsistentKeys(_) => Error::KeyMismatch,
        rustls::Error::InvalidCertificate(reason) => {
            Error::BadCertificate { what: "the certificate chain", reason: reason.to_string() }
        }
        rustls::Error::General(reason) if reason.contains("private key") => Error::BadKey(reason),
        other => Error::Refused(other.to_string()),
    }
}

/// The server's side of TLS. Clones share one configuration.
#[derive(Clone)]
pub struct ServerTls {
    inner: Arc<ServerInner>,
}

struct ServerInner {
    policy: Policy,
    provider: Arc<CryptoProvider>,
    versions: Vec<&'static SupportedProtocolVersion>,
    blocklist: Blocklist,
    config: RwLock<Configs>,
    validity: RwLock<Validity>,
}

/// For clients as they should be, and for those that have no certificate yet.
#[derive(Clone)]
struct Configs {
    usual: Arc<ServerConfig>,
    enrolment: Option<Arc<ServerConfig>>,
}

impl ServerTls {
    /// Builds the first configuration.
    pub fn new(material: &Material, policy: Policy) -> Result<Self, Error> {
        Self::with_blocklist(material, policy, Blocklist::default())
    }

    /// The same, where client certificates are refused that are or will be blocked.
    pub fn with_blocklist(material: &Material, policy: Policy, blocklist: Blocklist) -> Result<Self, Error> {
        let provider = policy.provider()?;
        let versions = policy.versions()?;
        let config = server_config(material, &policy, &provider, &versions, &blocklist)?;
        Ok(Self {
            inner: Arc::new(ServerInner {
                policy,
                provider,
                versions,
                blocklist,
                config: RwLock::new(config),
                validity: RwLock::new(material.validity()),
            }),
        })
    }

    /// Uses `material` from the next handshake on. On an error the old configuration stays.
    pub fn replace(&self, material: &Material) -> Result<(), Error> {
        let inner = &self.inner;
        let config =
            server_config(material, &inner.policy, &inner.provider, &inner.versions, &inner.blocklist)?;
        *inner.config.write() = config;
        *inner.validity.write() = material.validity();
        Ok(())
    }

    /// Until when what is in use is good.
    pub fn validity(&self) -> Validity {
        *self.inner.validity.read()
    }

    /// The configuration for a handshake that starts now.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.inner.config.read().usual)
    }

    /// The configuration for clients that have no certificate yet, if there are to be any. They say by what they offer that
    /// they are such.
    pub fn enrolment(&self) -> Option<Arc<ServerConfig>> {
        self.inner.config.read().enrolment.clone()
    }

    /// Whether a client offers to be one that has no certificate yet.
    pub fn wants_enrolment(hello: &rustls::server::ClientHello<'_>) -> bool {
        hello.alpn().is_some_and(|mut offered| offered.any(|protocol| protocol == policy::JOIN))
    }

    /// The client certificates that are refused.
    pub fn blocklist(&self) -> &Blocklist {
        &self.inner.blocklist
    }
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls").field("policy", &self.inner.policy).finish_non_exhaustive()
    }
}

fn server_config(
    material: &Material,
    policy: &Policy,
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    blocklist: &Blocklist,
) -> Result<Configs, Error> {
    let Some((chain, key)) = material.identity()? else {
        return Err(Error::NoCertificate { what: "the certificate chain" });
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)
        .map_err(explain)?;
    let builder = match policy.client_certificate {
        ClientCertificate::None => builder.with_no_client_auth(),
        wanted => {
            if material.ca.is_empty() {
                return Err(Error::NoCa);
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(
                Arc::new(material.roots()?),
                Arc::clone(provider),
            );
            let verifier = match wanted {
                ClientCertificate::Requested => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            let by_ca = verifier.build().map_err(|e| Error::Refused(e.to_string()))?;
            builder.with_client_cert_verifier(Arc::new(Revoking { by_ca, blocklist: blocklist.clone() }))
        }
    };
    let enrolment = match policy.enrolment {
        false => None,
        true => {
            let open = ServerConfig::builder_with_provider(Arc::clone(provider))
                .with_protocol_versions(versions)
                .map_err(explain)?
                .with_no_client_auth();
            Some(with_own(open, chain.clone(), key.clone_key(), Alpn::Join)?)
        }
    };
    Ok(Configs { usual: with_own(builder, chain, key, policy.alpn)?, enrolment })
}

fn with_own(
    builder: ConfigBuilder<ServerConfig, WantsServerCert>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    alpn: Alpn,
) -> Result<Arc<ServerConfig>, Error> {
    let mut config = builder.with_single_cert(chain, key).map_err(explain)?;
    config.alpn_protocols = alpn.protocols();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The client's side of TLS. Clones share one configuration.
#[derive(Clone)]
pub struct ClientTls {
    inner: Arc<ClientInner>,
}

struct ClientInner {
    policy: Policy,
    provider: Arc<CryptoProvider>,
    versions: Vec<&'static SupportedProtocolVersion>,
    insecure: bool,
    config: RwLock<Arc<ClientConfig>>,
    own: watch::Sender<Option<Arc<pki::Certificate>>>,
    validity: RwLock<Validity>,
}

impl ClientTls {
    /// Builds the first configuration. Without a CA the system's trust store is used. With `insecure` the
    /// server's certificate is not checked at all: whoever answers is believed.
    pub fn new(material: &Material, policy: Policy, insecure: bool) -> Result<Self, Error> {
        let provider = policy.provider()?;
        let versions = policy.versions()?;
        let config = client_config(material, &policy, &provider, &versions, insecure)?;
        let own = watch::Sender::new(material.leaf()?.map(Arc::new));
        let (config, validity) = (RwLock::new(Arc::new(config)), RwLock::new(material.validity()));
        let inner = ClientInner { policy, provider, versions, insecure, config, own, validity };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Uses `material` from the next handshake on. On an error the old configuration stays.
    pub fn replace(&self, material: &Material) -> Result<(), Error> {
        let inner = &self.inner;
        let config =
            client_config(material, &inner.policy, &inner.provider, &inner.versions, inner.insecure)?;
        let own = material.leaf()?.map(Arc::new);
        *inner.config.write() = Arc::new(config);
        *inner.validity.write() = material.validity();
        inner.own.send_replace(own);
        Ok(())
    }

    /// The own certificate, if there is one, and what takes its place.
    pub fn own(&self) -> watch::Receiver<Option<Arc<pki::Certificate>>> {
        self.inner.own.subscribe()
    }

    /// Until when what is in use is good.
    pub fn validity(&self) -> Validity {
        *self.inner.validity.read()
    }

    /// The configuration for a handshake that starts now.
    pub fn current(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.inner.config.read())
    }
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls")
            .field("policy", &self.inner.policy)
            .field("insecure", &self.inner.insecure)
            .finish_non_exhaustive()
    }
}

fn client_config(
    material: &Material,
    policy: &Policy,
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    insecure: bool,
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)
        .map_err(explain)?;
    let builder = if insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(verify::Anyone::new(provider)))
    } else if material.ca.is_empty() {
        builder.with_root_certificates(verify::system_roots()?)
    } else {
        builder.with_root_certificates(material.roots()?)
    };
    let mut config = match material.identity()? {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(explain)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = policy.alpn.protocols();
    config.resumption = Resumption::disabled();
    Ok(config)
}

#[cfg(test)]
mod tests;
