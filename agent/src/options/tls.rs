//! How the connection to the principal is protected.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use tiphys_shared::process::options::{self, KeyPair, Problem, Problems};
use tiphys_shared::security::tls::{Policy, Version};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "TLS")]
pub(super) struct TlsOptions {
    /// Secret with the certificate of the CA that signed the principal
    #[arg(long, env = "ARGOCD_AGENT_TLS_ROOT_CA_SECRET_NAME", value_name = "NAME")]
    #[arg(default_value = "argocd-agent-ca")]
    root_ca_secret_name: String,
    /// File with the certificate of the CA that signed the principal, instead of the Secret
    #[arg(long, env = "ARGOCD_AGENT_TLS_ROOT_CA_PATH", value_name = "FILE")]
    root_ca_path: Option<PathBuf>,
    /// Secret with this agent's certificate and key
    #[arg(long, env = "ARGOCD_AGENT_TLS_SECRET_NAME", value_name = "NAME")]
    #[arg(default_value = "argocd-agent-client-tls")]
    tls_secret_name: String,
    /// File with this agent's certificate in PEM, instead of the Secret
    #[arg(long, env = "ARGOCD_AGENT_TLS_CLIENT_CERT_PATH", value_name = "FILE")]
    tls_client_cert: Option<PathBuf>,
    /// File with this agent's private key in PEM, instead of the Secret
    #[arg(long, env = "ARGOCD_AGENT_TLS_CLIENT_KEY_PATH", value_name = "FILE")]
    tls_client_key: Option<PathBuf>,
    /// INSECURE: take whatever certificate the principal shows
    #[arg(long, env = "ARGOCD_AGENT_TLS_INSECURE", action = ArgAction::Set, default_value = "false")]
    insecure_tls: bool,
    /// INSECURE: connect without TLS, for use behind a service mesh that brings its own
    #[arg(long, env = "ARGOCD_AGENT_INSECURE_PLAINTEXT", action = ArgAction::Set, default_value = "false")]
    pub(super) insecure_plaintext: bool,
    /// Oldest TLS version to accept: tls1.2 or tls1.3; by default tls1.2
    #[arg(long, env = "ARGOCD_AGENT_TLS_MIN_VERSION", value_name = "VERSION")]
    tls_min_version: Option<String>,
    /// Newest TLS version to accept: tls1.2 or tls1.3
    #[arg(long, env = "ARGOCD_AGENT_TLS_MAX_VERSION", value_name = "VERSION")]
    tls_max_version: Option<String>,
    /// Cipher suites to accept, separated by commas; "list" shows them and exits
    #[arg(long, env = "ARGOCD_AGENT_TLS_CIPHERSUITES", value_name = "LIST", value_delimiter = ',')]
    pub(super) tls_ciphersuites: Vec<String>,
}

/// How the connection to the principal is protected.
#[derive(Debug, Clone)]
pub enum Transport {
    /// Not at all; a service mesh does it.
    Plaintext,
    /// By TLS.
    Tls {
        /// What the principal's certificate is checked against.
        roots: Roots,
        /// This agent's own certificate.
        identity: KeyPair,
        /// Versions and cipher suites.
        policy: Policy,
    },
}

/// What the principal's certificate is checked against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// Nothing: any certificate will do.
    Unverified,
    /// A PEM file.
    File(PathBuf),
    /// A Secret, under `ca.crt` or `tls.crt`.
    Secret(String),
}

impl TlsOptions {
    pub(super) fn check(&self, notices: &mut Vec<String>) -> Result<Transport, Problems> {
        let mut problems = Problems::default();
        let policy = problems.absorb(options::policy(
            self.tls_min_version.as_deref(),
            self.tls_max_version.as_deref(),
            &self.tls_ciphersuites,
            Version::Tls12,
        ));
        let identity = problems.absorb(self.identity());
        let roots = problems.keep(match (&self.root_ca_path, self.insecure_tls) {
            (Some(_), true) => Err(Problem::new(
                "--insecure-tls is set together with --root-ca-path",
                "choose one: leave out --insecure-tls to verify the principal",
            )),
            (Some(path), false) => {
                options::check_certificates("--root-ca-path", path).map(|()| Roots::File(path.clone()))
            }
            (None, true) => Ok(Roots::Unverified),
            (None, false) => Ok(Roots::Secret(self.root_ca_secret_name.clone())),
        });
        let files = [&self.tls_client_cert, &self.tls_client_key, &self.root_ca_path];
        if self.insecure_plaintext && (self.insecure_tls || files.iter().any(|file| file.is_some())) {
            problems.add(
                "--insecure-plaintext is set together with options for TLS",
                "choose one: leave out --insecure-plaintext to use TLS, or leave out the others",
            );
        }
        let (Some(policy), Some(identity), Some(roots), true) =
            (policy, identity, roots, problems.is_empty())
        else {
            return Err(problems);
        };
        if self.insecure_plaintext {
            notices.push("INSECURE: connecting without TLS; a service mesh has to bring it".to_owned());
            return Ok(Transport::Plaintext);
        }
        if roots == Roots::Unverified {
            notices.push("INSECURE: not verifying the principal's certificate".to_owned());
        }
        Ok(Transport::Tls { roots, identity, policy })
    }

    fn identity(&self) -> Result<KeyPair, Problems> {
        let half = |given: &str, missing: &str| {
            Problem::new(
                format!("{given} is set, but {missing} is not"),
                format!("set both, or neither to use the Secret {}", self.tls_secret_name),
            )
        };
        match (&self.tls_client_cert, &self.tls_client_key) {
            (Some(certificate), Some(key)) => {
                options::check_key_pair(("--tls-client-cert", certificate), ("--tls-client-key", key))
                    .map(|()| KeyPair::Files { certificate: certificate.clone(), key: key.clone() })
            }
            (None, None) => Ok(KeyPair::Secret(self.tls_secret_name.clone())),
            (Some(_), None) => Err(half("--tls-client-cert", "--tls-client-key").into()),
            (None, Some(_)) => Err(half("--tls-client-key", "--tls-client-cert").into()),
        }
    }
}
