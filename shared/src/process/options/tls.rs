//! TLS as options describe it: where keys and certificates are, which versions and suites may be used.

use std::fmt;
use std::path::{Path, PathBuf};

use rustls::SupportedCipherSuite;
use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Problem;
use super::value::Invalid;

/// Where a certificate chain and its private key are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPair {
    /// In two PEM files.
    Files {
        /// The chain, leaf first.
        certificate: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// In a Secret of type `kubernetes.io/tls` in the process's own namespace.
    Secret(String),
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls12 => "tls1.2",
            Self::Tls13 => "tls1.3",
        })
    }
}

/// What a connection may be negotiated to.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Oldest version.
    pub minimum: TlsVersion,
    /// Newest version.
    pub maximum: TlsVersion,
    /// Suites, in order of preference; none means the provider's own choice.
    pub cipher_suites: Vec<SupportedCipherSuite>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { minimum: TlsVersion::Tls13, maximum: TlsVersion::Tls13, cipher_suites: Vec::new() }
    }
}

impl Limits {
    /// Reads the three options; empty texts leave the defaults: from `minimum` to the newest version, all suites.
    ///
    /// Upstream also knows `tls1.1`. Nothing here can speak it: as a minimum it asks for no more than 1.2 gives,
    /// as a maximum it is refused.
    pub fn new(
        minimum: Option<&str>,
        maximum: Option<&str>,
        suites: &[String],
        default_minimum: TlsVersion,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let version = |option: &str, text: Option<&str>, default: TlsVersion| match text {
            None => Ok(default),
            Some("tls1.3") => Ok(TlsVersion::Tls13),
            Some("tls1.2") => Ok(TlsVersion::Tls12),
            Some("tls1.1") if option == "--tls-min-version" => Ok(TlsVersion::Tls12),
            Some(other) => Err(Problem::new(
                format!("{option}: TLS version {other:?} is not supported"),
                "use tls1.2 or tls1.3",
            )),
        };
        let maximum = version("--tls-max-version", maximum, TlsVersion::Tls13).map_err(|p| problems.push(p));
        let minimum = version("--tls-min-version", minimum, default_minimum).map_err(|p| problems.push(p));
        let mut cipher_suites = Vec::new();
        for name in suites {
            match ALL_CIPHER_SUITES.iter().find(|suite| suite_name(suite) == *name) {
                Some(suite) => cipher_suites.push(*suite),
                None => problems.push(Problem::new(
                    format!("--tls-ciphersuites: there is no cipher suite {name:?}"),
                    "run with --tls-ciphersuites list to see those that there are",
                )),
            }
        }
        let (Ok(minimum), Ok(maximum)) = (minimum, maximum) else { return Err(problems) };
        if minimum > maximum {
            problems.push(Problem::new(
                format!("--tls-min-version {minimum} is newer than --tls-max-version {maximum}"),
                "raise the maximum or lower the minimum",
            ));
        } else if !suites.is_empty() && problems.is_empty() {
            let usable = cipher_suites.iter().any(|suite| (minimum..=maximum).contains_version(suite));
            if !usable {
                problems.push(Problem::new(
                    format!("--tls-ciphersuites: none of them works with {minimum} to {maximum}"),
                    "add suites of these versions; --tls-ciphersuites list shows which are which",
                ));
            }
        }
        if problems.is_empty() { Ok(Self { minimum, maximum, cipher_suites }) } else { Err(problems) }
    }

    /// The versions as rustls wants them.
    pub fn versions(&self) -> Vec<&'static rustls::SupportedProtocolVersion> {
        let mut versions = Vec::new();
        if self.maximum == TlsVersion::Tls13 {
            versions.push(&rustls::version::TLS13);
        }
        if self.minimum == TlsVersion::Tls12 {
            versions.push(&rustls::version::TLS12);
        }
        versions
    }
}

trait ContainsVersion {
    fn contains_version(&self, suite: &SupportedCipherSuite) -> bool;
}

impl ContainsVersion for std::ops::RangeInclusive<TlsVersion> {
    fn contains_version(&self, suite: &SupportedCipherSuite) -> bool {
        self.contains(&version_of(suite))
    }
}

fn version_of(suite: &SupportedCipherSuite) -> TlsVersion {
    if suite.tls13().is_some() { TlsVersion::Tls13 } else { TlsVersion::Tls12 }
}

/// The name under which the registry of TLS (and Go) knows a suite.
fn suite_name(suite: &SupportedCipherSuite) -> String {
    // rustls marks the suites of TLS 1.3 in their names, the registry does not.
    format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1)
}

/// Every cipher suite that can be named, with the version that it belongs to.
pub fn cipher_suites() -> impl Iterator<Item = (String, TlsVersion)> {
    ALL_CIPHER_SUITES.iter().map(|suite| (suite_name(suite), version_of(suite)))
}

/// Checks that `path` holds at least one certificate in PEM.
pub fn check_certificates(option: &str, path: &Path) -> Result<(), Problem> {
    let pem = read(option, path)?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        certificate.map_err(|error| {
            Problem::new(
                format!("{option}: {} is not valid PEM: {error}", path.display()),
                "give a file of certificates in PEM (-----BEGIN CERTIFICATE-----)",
            )
        })?;
        count += 1;
    }
    if count == 0 {
        return Err(Problem::new(
            format!("{option}: {} holds no certificate", path.display()),
            "give a file of certificates in PEM (-----BEGIN CERTIFICATE-----)",
        ));
    }
    Ok(())
}

/// Checks that two files hold a certificate and a private key in PEM.
pub fn check_key_pair(certificate: (&str, &Path), key: (&str, &Path)) -> Result<(), Vec<Problem>> {
    let mut problems = Vec::new();
    problems.extend(check_certificates(certificate.0, certificate.1).err());
    problems.extend(check_private_key(key.0, key.1).err());
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// Checks that `path` holds a private key in PEM.
pub fn check_private_key(option: &str, path: &Path) -> Result<(), Problem> {
    let pem = read(option, path)?;
    PrivateKeyDer::from_pem_slice(&pem).map(drop).map_err(|_| {
        // What the parser says could quote the file.
        Problem::new(
            format!("{option}: {} holds no private key", path.display()),
            "give an unencrypted private key in PEM (PKCS#8, PKCS#1 or SEC1)",
        )
    })
}

/// Reads a text file that an option names.
pub fn read_text(option: &str, path: &Path) -> Result<String, Problem> {
    String::from_utf8(read(option, path)?).map_err(|_| {
        Problem::new(
            format!("{option}: {} is not a text file", path.display()),
            "check that the path is right",
        )
    })
}

fn read(option: &str, path: &Path) -> Result<Vec<u8>, Problem> {
    std::fs::read(path).map_err(|error| {
        Problem::new(
            format!("{option}: {} cannot be read: {error}", path.display()),
            "check the path and its permissions",
        )
    })
}

impl From<(&str, Invalid)> for Problem {
    fn from((option, invalid): (&str, Invalid)) -> Self {
        Self::new(format!("{option}: {}", invalid.what), invalid.remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(min: &str, max: &str, suites: &[&str]) -> Result<Limits, Vec<Problem>> {
        let text = |text: &'static str| (!text.is_empty()).then_some(text);
        let (min, max) = (String::from(min).leak(), String::from(max).leak());
        let suites: Vec<_> = suites.iter().map(ToString::to_string).collect();
        Limits::new(text(min), text(max), &suites, TlsVersion::Tls13)
    }

    #[test]
    fn versions_go_from_the_minimum_to_the_maximum() {
        assert_eq!(limits("", "", &[]), Ok(Limits::default()));
        assert_eq!(limits("tls1.2", "", &[]).unwrap().versions().len(), 2);
        assert_eq!(limits("tls1.1", "tls1.2", &[]).unwrap().versions(), [&rustls::version::TLS12]);
        assert_eq!(limits("tls1.3", "tls1.2", &[]).unwrap_err().len(), 1);
        assert_eq!(limits("1.3", "tls1.1", &["x"]).unwrap_err().len(), 3);
    }

    #[test]
    fn suites_have_the_names_that_go_gives_them() {
        let limits_ok =
            limits("tls1.2", "", &["TLS_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"]);
        assert_eq!(limits_ok.unwrap().cipher_suites.len(), 2);
        let none = limits("tls1.3", "", &["TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"]).unwrap_err();
        assert!(none[0].what.contains("none of them works"), "{}", none[0]);
        assert!(cipher_suites().any(|(name, version)| name == "TLS_CHACHA20_POLY1305_SHA256"
            && version == TlsVersion::Tls13));
    }

    #[test]
    fn files_without_certificate_or_key_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("empty.pem");
        std::fs::write(&path, "nothing").unwrap();
        let problems = check_key_pair(("--tls-cert", &path), ("--tls-key", &path)).unwrap_err();
        assert!(problems[0].what.ends_with("empty.pem holds no certificate"), "{}", problems[0]);
        assert!(problems[1].what.ends_with("empty.pem holds no private key"), "{}", problems[1]);
        let missing = check_certificates("--root-ca-path", Path::new("/no/such")).unwrap_err();
        assert!(missing.what.starts_with("--root-ca-path: /no/such cannot be read"), "{missing}");
    }
}
