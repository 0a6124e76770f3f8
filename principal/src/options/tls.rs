//! How connections of agents are protected.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use tiphys_shared::process::options::{self, KeyPair, Problem, Problems};
use tiphys_shared::security::subject::AuthRule;
use tiphys_shared::security::tls::{ClientCertificate, Policy, Version};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "TLS")]
pub(super) struct TlsOptions {
    /// Secret with the principal's certificate and key
    #[arg(long, env = "ARGOCD_PRINCIPAL_TLS_SECRET_NAME", value_name = "NAME")]
    #[arg(default_value = "argocd-agent-principal-tls")]
    tls_secret_name: String,
    /// File with the principal's certificate in PEM, instead of the Secret
    #[arg(long, env = "ARGOCD_PRINCIPAL_TLS_SERVER_CERT_PATH", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// File with the principal's private key in PEM, instead of the Secret
    #[arg(long, env = "ARGOCD_PRINCIPAL_TLS_SERVER_KEY_PATH", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// INSECURE: make a certificate at every start, which agents cannot verify
    #[arg(long, env = "ARGOCD_PRINCIPAL_TLS_SERVER_ALLOW_GENERATE", action = ArgAction::Set, default_value = "false")]
    insecure_tls_generate: bool,
    /// INSECURE: serve without TLS, for use behind a service mesh that brings its own
    #[arg(long, env = "ARGOCD_PRINCIPAL_INSECURE_PLAINTEXT", action = ArgAction::Set, default_value = "false")]
    pub(super) insecure_plaintext: bool,
    /// Secret with the certificate of the CA that signs agents
    #[arg(long, env = "ARGOCD_PRINCIPAL_TLS_SERVER_ROOT_CA_SECRET_NAME", value_name = "NAME")]
    #[arg(default_value = "argocd-agent-ca")]
    pub(super) tls_ca_secret_name: String,
    /// File with the certificate of the CA that signs agents, instead of the Secret
    #[arg(long, env = "ARGOCD_PRINCIPAL_TLS_SERVER_ROOT_CA_PATH", value_name = "FILE")]
    root_ca_path: Option<PathBuf>,
    /// Refuse agents without a client certificate, whatever the authentication method
    #[arg(long, env = "ARGOCD_PRINCIPAL_TLS_CLIENT_CERT_REQUIRE", action = ArgAction::Set, default_value = "false")]
    require_client_certs: bool,
    /// Refuse agents whose client certificate is not issued to the name they log in with
    #[arg(long, env = "ARGOCD_PRINCIPAL_TLS_CLIENT_CERT_MATCH_SUBJECT")]
    #[arg(action = ArgAction::Set, default_value = "false")]
    pub(super) client_cert_subject_match: bool,
    /// Oldest TLS version to accept: tls1.2 or tls1.3
    #[arg(long, env = "ARGOCD_PRINCIPAL_TLS_MIN_VERSION", value_name = "VERSION", default_value = "tls1.3")]
    tls_min_version: String,
    /// Newest TLS version to accept: tls1.2 or tls1.3
    #[arg(long, env = "ARGOCD_PRINCIPAL_TLS_MAX_VERSION", value_name = "VERSION")]
    tls_max_version: Option<String>,
    /// Cipher suites to accept, separated by commas; "list" shows them and exits
    #[arg(long, env = "ARGOCD_PRINCIPAL_TLS_CIPHERSUITES", value_name = "LIST", value_delimiter = ',')]
    pub(super) tls_ciphersuites: Vec<String>,
}

/// How connections of agents are protected.
#[derive(Debug, Clone)]
pub enum Transport {
    /// Not at all; a service mesh does it.
    Plaintext,
    /// By TLS.
    Tls {
        /// The principal's own certificate.
        identity: Identity,
        /// The CA that signs agents.
        roots: Roots,
        /// Versions, cipher suites, and whether agents must show a certificate.
        policy: Policy,
    },
}

/// Where the principal's own certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// It is kept somewhere.
    Kept(KeyPair),
    /// It is made at start, signed by itself.
    Generated,
}

/// Where the CA certificate is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// In a PEM file.
    File(PathBuf),
    /// In a Secret, under `tls.crt` or `ca.crt`.
    Secret(String),
}

impl TlsOptions {
    pub(super) fn check(
        &self,
        authentication: Option<&AuthRule>,
        notices: &mut Vec<String>,
    ) -> Result<Transport, Problems> {
        let mut problems = Problems::default();
        let policy = problems.absorb(self.policy());
        let identity = problems.absorb(self.identity());
        let roots = problems.keep(match &self.root_ca_path {
            Some(path) => {
                options::check_certificates("--root-ca-path", path).map(|()| Roots::File(path.clone()))
            }
            None => Ok(Roots::Secret(self.tls_ca_secret_name.clone())),
        });
        if self.insecure_plaintext {
            if self.insecure_tls_generate || self.tls_cert.is_some() || self.tls_key.is_some() {
                problems.add(
                    "--insecure-plaintext is set together with options for a certificate",
                    "choose one: leave --insecure-plaintext out to serve TLS, or leave the certificate out",
                );
            }
            if self.require_client_certs || self.client_cert_subject_match {
                problems.add(
                    "--insecure-plaintext is set, so there are no client certificates to require or match",
                    "leave out --require-client-certs and --client-cert-subject-match, or serve TLS",
                );
            }
        }
        let (Some(policy), Some(identity), Some(roots), true) =
            (policy, identity, roots, problems.is_empty())
        else {
            return Err(problems);
        };
        if self.insecure_plaintext {
            notices.push("INSECURE: serving without TLS; a service mesh has to bring it".to_owned());
            return Ok(Transport::Plaintext);
        }
        if identity == Identity::Generated {
            notices.push("INSECURE: serving a generated certificate that agents cannot verify".to_owned());
        }
        let required = self.require_client_certs || matches!(authentication, Some(AuthRule::Mtls { .. }));
        // A certificate that is shown without being required still has to be right, and can be matched.
        let client_certificate =
            if required { ClientCertificate::Required } else { ClientCertificate::Requested };
        Ok(Transport::Tls { identity, roots, policy: Policy { client_certificate, ..policy } })
    }

    pub(super) fn policy(&self) -> Result<Policy, Problems> {
        options::policy(
            Some(&self.tls_min_version),
            self.tls_max_version.as_deref(),
            &self.tls_ciphersuites,
            Version::Tls13,
        )
    }

    fn identity(&self) -> Result<Identity, Problems> {
        match (&self.tls_cert, &self.tls_key, self.insecure_tls_generate) {
            (Some(_), _, true) | (_, Some(_), true) => Err(Problem::new(
                "--insecure-tls-generate is set together with --tls-cert or --tls-key",
                "choose one: a certificate from files, or a generated one for a trial",
            )
            .into()),
            (None, None, true) => Ok(Identity::Generated),
            (Some(certificate), Some(key), false) => {
                options::check_key_pair(("--tls-cert", certificate), ("--tls-key", key)).map(|()| {
                    Identity::Kept(KeyPair::Files { certificate: certificate.clone(), key: key.clone() })
                })
            }
            (None, None, false) => Ok(Identity::Kept(KeyPair::Secret(self.tls_secret_name.clone()))),
            (Some(_), None, false) => Err(half("--tls-cert", "--tls-key", &self.tls_secret_name)),
            (None, Some(_), false) => Err(half("--tls-key", "--tls-cert", &self.tls_secret_name)),
        }
    }
}

/// Only one of the two files of a pair was named.
pub(super) fn half(given: &str, missing: &str, secret: &str) -> Problems {
    Problem::new(
        format!("{given} is set, but {missing} is not"),
        format!("set both, or neither to use the Secret {secret}"),
    )
    .into()
}
