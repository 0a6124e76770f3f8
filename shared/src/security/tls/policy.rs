//! What a TLS endpoint insists on.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

use super::Error;

/// A TLS version that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.2
    Tls12,
    /// TLS 1.3
    Tls13,
}

impl FromStr for Version {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "tls1.2" => Ok(Self::Tls12),
            "tls1.3" => Ok(Self::Tls13),
            "tls1.0" | "tls1.1" => Err(Error::ObsoleteVersion(text.into())),
            other => Err(Error::UnknownVersion(other.chars().take(40).collect())),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls12 => "tls1.2",
            Self::Tls13 => "tls1.3",
        })
    }
}

/// What a server wants from a client's certificate. One that is presented is always verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificate {
    /// No certificate, no connection.
    Required,
    /// Asked for; a client without one may connect.
    Requested,
    /// Not asked for.
    #[default]
    None,
}

/// What a client without a certificate asks for in the handshake, in place of HTTP/2.
pub(super) const JOIN: &[u8] = b"tiphys-join";

/// Which HTTP versions are offered in the handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/2 only: gRPC.
    #[default]
    H2,
    /// HTTP/2, else HTTP/1.1.
    H2OrHttp1,
    /// HTTP/1.1 only.
    Http1,
    /// A client that has no certificate yet, and wants one.
    Join,
    /// None: what is spoken has no name in TLS.
    None,
}

impl Alpn {
    /// As the handshake names them.
    pub(crate) fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Self::H2 => vec![b"h2".to_vec()],
            Self::H2OrHttp1 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Self::Http1 => vec![b"http/1.1".to_vec()],
            Self::Join => vec![JOIN.to_vec()],
            Self::None => Vec::new(),
        }
    }
}

/// What a TLS endpoint insists on. The default is TLS 1.3, all its suites, HTTP/2, no client certificate.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The lowest version accepted.
    pub min_version: Version,
    /// The highest version accepted.
    pub max_version: Version,
    /// The suites to choose from; empty means all. As in Go, a list that names none of TLS 1.3 does not restrict
    /// TLS 1.3.
    pub cipher_suites: Vec<SupportedCipherSuite>,
    /// Only looked at by servers.
    pub client_certificate: ClientCertificate,
    /// Which HTTP versions are offered.
    pub alpn: Alpn,
    /// Only looked at by servers: clients that offer [`Alpn::Join`] are let in without a certificate, to where they can get
    /// one.
    pub enrolment: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            min_version: Version::Tls13,
            max_version: Version::Tls13,
            cipher_suites: Vec::new(),
            client_certificate: ClientCertificate::None,
            alpn: Alpn::H2,
            enrolment: false,
        }
    }
}

impl Policy {
    /// The default, with a certificate required from every client.
    pub fn mutual() -> Self {
        Self { client_certificate: ClientCertificate::Required, ..Self::default() }
    }

    pub(super) fn versions(&self) -> Result<Vec<&'static SupportedProtocolVersion>, Error> {
        let (min, max) = (self.min_version, self.max_version);
        if min > max {
            return Err(Error::VersionOrder { min, max });
        }
        let known = [(Version::Tls13, &rustls::version::TLS13), (Version::Tls12, &rustls::version::TLS12)];
        Ok(known.into_iter().filter(|(v, _)| (min..=max).contains(v)).map(|(_, v)| v).collect())
    }

    pub(super) fn provider(&self) -> Result<Arc<CryptoProvider>, Error> {
        let mut provider = aws_lc_rs::default_provider();
        if self.cipher_suites.is_empty() {
            return Ok(Arc::new(provider));
        }
        let (min, max) = (self.min_version, self.max_version);
        if let Some(bad) = self.cipher_suites.iter().find(|suite| !(min..=max).contains(&version_of(**suite)))
        {
            return Err(Error::CipherSuiteOutOfRange { name: iana_name(*bad), min, max });
        }
        let mut chosen = self.cipher_suites.clone();
        if !chosen.iter().any(|suite| version_of(*suite) == Version::Tls13) {
            chosen.extend(provider.cipher_suites.iter().filter(|s| version_of(**s) == Version::Tls13));
        }
        provider.cipher_suites = chosen;
        Ok(Arc::new(provider))
    }
}

/// The suite that Go and IANA call `name`.
pub fn cipher_suite(name: &str) -> Result<SupportedCipherSuite, Error> {
    let name = match name.trim() {
        // Go keeps these two names of its own beside the IANA ones.
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" => "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" => "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        other => other,
    };
    let mut suites = aws_lc_rs::ALL_CIPHER_SUITES.iter();
    let found = suites.find(|suite| iana_name(**suite) == name).copied();
    found.ok_or_else(|| Error::UnknownCipherSuite { name: name.chars().take(80).collect() })
}

/// The names that [`cipher_suite`] knows.
pub fn cipher_suite_names() -> Vec<String> {
    aws_lc_rs::ALL_CIPHER_SUITES.iter().copied().map(iana_name).collect()
}

fn version_of(suite: SupportedCipherSuite) -> Version {
    if suite.tls13().is_some() { Version::Tls13 } else { Version::Tls12 }
}

fn iana_name(suite: SupportedCipherSuite) -> String {
    // rustls marks the suites of TLS 1.3 in their names, the registry does not.
    suite.suite().as_str().unwrap_or_default().replacen("TLS13_", "TLS_", 1)
}
