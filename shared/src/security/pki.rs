//! Certificates: make a CA, issue with it, read what a peer presented.

mod certificate;
mod key;
mod request;
mod trust;

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

pub use self::certificate::{Certificate, PublicKey, fingerprint};
pub use self::key::KeyAlgorithm;
pub use self::request::Request;
pub use self::trust::{Distrust, judge};
use super::secret::Secret;
use super::tls::Material;

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are not a certificate.
    #[error("not a certificate: {0}")]
    Malformed(String),
    /// The PEM text holds no certificate.
    #[error("no CERTIFICATE block in the pem text")]
    NoCertificate,
    /// The CA's key cannot be used.
    #[error("ca key cannot be used: {0}")]
    BadKey(String),
    /// The certificate is not one that may sign others.
    #[error("certificate {subject:?} is not a ca: it cannot sign other certificates")]
    NotCa {
        /// Whose certificate it is.
        subject: String,
    },
    /// The key and the certificate of the CA are not a pair.
    #[error("ca key does not belong to the ca certificate")]
    KeyMismatch,
    /// The CA's name has a form that an issued certificate would not repeat byte for byte.
    #[error("ca subject {subject:?} has a form that cannot be copied into issued certificates")]
    UnusableName {
        /// Whose certificate it is.
        subject: String,
    },
    /// A name to be certified is not a DNS name, an address or a URI.
    #[error("{name:?} cannot be put into a certificate: {reason}")]
    BadName {
        /// The name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// A request that cannot be granted.
    #[error("the request for a certificate cannot be signed: {reason}")]
    BadRequest {
        /// Why not.
        reason: String,
    },
    /// The CA's own time is over.
    #[error("the ca has ended at {end}: it cannot sign any more")]
    Ended {
        /// When.
        end: Timestamp,
    },
    /// A point in time outside the calendar.
    #[error("validity ends outside the calendar")]
    BadTime,
    /// Making a key or signing failed.
    #[error("cannot make the certificate: {0}")]
    Generate(String),
}

/// How far back a new certificate is dated, for peers whose clocks are late.
const BACKDATE: Duration = Duration::from_secs(3600);

/// Which side of a connection a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// The side that is called.
    Server,
    /// The side that calls.
    Client,
}

/// What a certificate is to say of its holder.
#[derive(Clone, Debug)]
pub struct Leaf<'a> {
    /// `CN` of the subject.
    pub common_name: &'a str,
    /// DNS names and IP addresses.
    pub hosts: &'a [String],
    /// Which side of a connection it is for.
    pub usage: Usage,
    /// The key that is made for it.
    pub key: KeyAlgorithm,
}

/// A certificate authority that can issue.
pub struct Ca {
    certificate: Certificate,
    certificate_pem: String,
    key_pem: Secret,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    /// Makes a new CA with an ECDSA P-256 key.
    pub fn generate(common_name: &str, now: Timestamp, lifetime: Duration) -> Result<Self, Error> {
        Self::generate_with(KeyAlgorithm::default(), common_name, now, lifetime)
    }

    /// Makes a new CA with a key of this kind.
    pub fn generate_with(
        algorithm: KeyAlgorithm,
        common_name: &str,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<Self, Error> {
        let key = algorithm.generate()?;
        let mut params = parameters(common_name, now, lifetime)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).map_err(generate)?;
        let key_pem = key.serialize_pem();
        Self::from_pem(certificate.pem().as_bytes(), key_pem.as_bytes())
    }

    /// Loads a CA from PEM text, as in `tls.crt` and `tls.key` of its secret.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, Error> {
        let parsed = Certificate::from_pem(certificate)?;
        if !parsed.is_ca {
            return Err(Error::NotCa { subject: parsed.subject });
        }
        let key_der = PrivateKeyDer::from_pem_slice(key).map_err(|e| Error::BadKey(e.to_string()))?;
        let pair = KeyPair::try_from(&key_der).map_err(|e| Error::BadKey(e.to_string()))?;
        if !parsed.has_key(&pair) {
            return Err(Error::KeyMismatch);
        }
        let der = rustls::pki_types::CertificateDer::from(parsed.der.to_vec());
        let issuer = Issuer::from_ca_cert_der(&der, pair).map_err(|e| Error::Malformed(e.to_string()))?;
        let key_pem = Secret::new(key);
        let ca = Self { certificate_pem: parsed.to_pem(), certificate: parsed, key_pem, issuer };
        ca.check_name_survives()?;
        Ok(ca)
    }

    /// Chains are matched by the bytes of names. A name that the issuing library would write differently than it
    /// stands in the CA's certificate makes certificates that nobody accepts: find out now, not at a peer.
    fn check_name_survives(&self) -> Result<(), Error> {
        let probe = self.sign(parameters("probe", Timestamp::UNIX_EPOCH, Duration::from_secs(7200))?)?;
        if Certificate::from_pem(&probe.chain)?.issued_by(&self.certificate) {
            Ok(())
        } else {
            Err(Error::UnusableName { subject: self.certificate.subject.clone() })
        }
    }

    /// The CA's own certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The CA's own certificate as PEM text: what peers get as `ca.crt`.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The CA's key as PEM text.
    pub fn key_pem(&self) -> &Secret {
        &self.key_pem
    }

    /// Whether a certificate says that it was issued by this CA.
    pub fn has_issued(&self, certificate: &Certificate) -> bool {
        certificate.issued_by(&self.certificate)
    }

    /// Issues a server's certificate for DNS names and IP addresses; the first one is its common name.
    pub fn issue_server<S: AsRef<str>>(
        &self,
        names: &[S],
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<Material, Error> {
        let first = names.first().map_or("server", AsRef::as_ref);
        let mut params = parameters(first, now, lifetime)?;
        params.subject_alt_names = names.iter().map(|n| host_name(n.as_ref())).collect::<Result<_, _>>()?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// Issues a client's certificate: `CN=name`, with `uris` (SPIFFE ids, say) as further names.
    pub fn issue_client<S: AsRef<str>>(
        &self,
        name: &str,
        uris: &[S],
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<Material, Error> {
        let mut params = parameters(name, now, lifetime)?;
        for uri in uris {
            params.subject_alt_names.push(SanType::URI(ia5(uri.as_ref())?));
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    /// Issues what `leaf` says.
    pub fn issue(&self, leaf: &Leaf<'_>, now: Timestamp, lifetime: Duration) -> Result<Material, Error> {
        let mut params = parameters(leaf.common_name, now, lifetime)?;
        params.subject_alt_names = leaf.hosts.iter().map(|name| host_name(name)).collect::<Result<_, _>>()?;
        params.extended_key_usages = vec![match leaf.usage {
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        self.sign_for(params, &leaf.key.generate()?)
    }

    fn sign(&self, params: CertificateParams) -> Result<Material, Error> {
        self.sign_for(params, &KeyAlgorithm::default().generate()?)
    }

    fn sign_for(&self, mut params: CertificateParams, key: &KeyPair) -> Result<Material, Error> {
        // Said outright, because Go's tools warn where nothing is said.
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(key, &self.issuer).map_err(generate)?;
        Ok(Material::new(certificate.pem(), key.serialize_pem(), self.certificate_pem.as_str()))
    }
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca").field("subject", &self.certificate.subject).finish_non_exhaustive()
    }
}

fn generate(error: rcgen::Error) -> Error {
    Error::Generate(error.to_string())
}

fn parameters(common_name: &str, now: Timestamp, lifetime: Duration) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let start = now.saturating_sub(BACKDATE).map_err(|_| Error::BadTime)?.max(Timestamp::UNIX_EPOCH);
    let end = now.checked_add(lifetime).map_err(|_| Error::BadTime)?;
    // rcgen takes times of the `time` crate; this is the way there without depending on it.
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |t: Timestamp| Duration::from_secs(u64::try_from(t.as_second()).unwrap_or(0));
    params.not_before = epoch + at(start);
    params.not_after = epoch + at(end);
    Ok(params)
}

fn ia5(name: &str) -> Result<rcgen::string::Ia5String, Error> {
    name.try_into().map_err(|e: rcgen::Error| Error::BadName { name: name.into(), reason: e.to_string() })
}

fn host_name(name: &str) -> Result<SanType, Error> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let plain = name.strip_prefix("*.").unwrap_or(name);
    if rustls::pki_types::DnsName::try_from(plain).is_err() {
        return Err(Error::BadName { name: name.into(), reason: "neither a dns name nor an address".into() });
    }
    Ok(SanType::DnsName(ia5(name)?))
}

#[cfg(test)]
mod tests;
