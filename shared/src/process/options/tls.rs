//! TLS as options describe it: where keys and certificates are, which versions and suites may be used.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::value::Invalid;
use super::{Problem, Problems};
use crate::security::tls::{self, Policy, Version};

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

/// Reads the three options that limit what a connection may be negotiated to; empty texts leave the defaults: from
/// `default_minimum` to the newest version, all suites.
///
/// Upstream also knows `tls1.1`. Nothing here can speak it: as a minimum it asks for no more than 1.2 gives, as a
/// maximum it is refused.
pub fn policy(
    minimum: Option<&str>,
    maximum: Option<&str>,
    suites: &[String],
    default_minimum: Version,
) -> Result<Policy, Problems> {
    let mut problems = Problems::default();
    let version = |option: &str, text: Option<&str>, default: Version| match text {
        None | Some("") => Ok(default),
        Some("tls1.1") if option == "--tls-min-version" => Ok(Version::Tls12),
        Some(text) => text.parse().map_err(|error: tls::Error| {
            let reason = match error {
                tls::Error::ObsoleteVersion(_) => "is obsolete",
                _ => "does not exist",
            };
            Problem::new(format!("{option}: TLS version {text:?} {reason}"), "use tls1.2 or tls1.3")
        }),
    };
    let max_version = problems.keep(version("--tls-max-version", maximum, Version::Tls13));
    let min_version = problems.keep(version("--tls-min-version", minimum, default_minimum));
    let mut cipher_suites = Vec::new();
    for name in suites {
        let suite = tls::cipher_suite(name).map_err(|_| {
            Problem::new(
                format!("--tls-ciphersuites: there is no cipher suite {name:?}"),
                "run with --tls-ciphersuites list to see those that there are",
            )
        });
        cipher_suites.extend(problems.keep(suite));
    }
    let (Some(min_version), Some(max_version)) = (min_version, max_version) else { return Err(problems) };
    if min_version > max_version {
        problems.add(
            format!("--tls-min-version {min_version} is newer than --tls-max-version {max_version}"),
            "raise the maximum or lower the minimum",
        );
    } else {
        for suite in &cipher_suites {
            let version = if suite.tls13().is_some() { Version::Tls13 } else { Version::Tls12 };
            if !(min_version..=max_version).contains(&version) {
                problems.add(
                    format!(
                        "--tls-ciphersuites: {:?} belongs to {version}, which is not allowed",
                        suite.suite()
                    ),
                    "leave it out, or widen --tls-min-version and --tls-max-version",
                );
            }
        }
    }
    if problems.is_empty() {
        Ok(Policy { min_version, max_version, cipher_suites, ..Policy::default() })
    } else {
        Err(problems)
    }
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
pub fn check_key_pair(certificate: (&str, &Path), key: (&str, &Path)) -> Result<(), Problems> {
    let mut problems = Problems::default();
    problems.keep(check_certificates(certificate.0, certificate.1));
    problems.keep(check_private_key(key.0, key.1));
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

    fn limits(min: &str, max: &str, suites: &[&str]) -> Result<Policy, Problems> {
        let suites: Vec<_> = suites.iter().map(ToString::to_string).collect();
        policy(Some(min), Some(max), &suites, Version::Tls13)
    }

    #[test]
    fn versions_go_from_the_minimum_to_the_maximum() {
        assert_eq!(limits("", "", &[]), Ok(Policy::default()));
        let range = |min, max| limits(min, max, &[]).map(|policy| (policy.min_version, policy.max_version));
        assert_eq!(range("tls1.2", ""), Ok((Version::Tls12, Version::Tls13)));
        assert_eq!(range("tls1.1", "tls1.2"), Ok((Version::Tls12, Version::Tls12)));
        assert_eq!(range("tls1.3", "tls1.2").unwrap_err().0.len(), 1);
        assert_eq!(limits("1.3", "tls1.1", &["x"]).unwrap_err().0.len(), 3);
    }

    #[test]
    fn suites_outside_the_versions_are_named() {
        let both = ["TLS_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"];
        assert_eq!(limits("tls1.2", "", &both).unwrap().cipher_suites.len(), 2);
        let problems = limits("tls1.3", "", &both).unwrap_err();
        assert_eq!(
            problems.0[0].what,
            "--tls-ciphersuites: TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 belongs to tls1.2, which is not allowed"
        );
    }

    #[test]
    fn files_without_certificate_or_key_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("empty.pem");
        std::fs::write(&path, "nothing").unwrap();
        let problems = check_key_pair(("--tls-cert", &path), ("--tls-key", &path)).unwrap_err().0;
        assert!(problems[0].what.ends_with("empty.pem holds no certificate"), "{}", problems[0]);
        assert!(problems[1].what.ends_with("empty.pem holds no private key"), "{}", problems[1]);
        let missing = check_certificates("--root-ca-path", Path::new("/no/such")).unwrap_err();
        assert!(missing.what.starts_with("--root-ca-path: /no/such cannot be read"), "{missing}");
    }
}
