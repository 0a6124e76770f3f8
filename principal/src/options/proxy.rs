//! The resource proxy: upstream's flags, and ours for what upstream does not have.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use tiphys_shared::process::options::{self, KeyPair, Listen, NamePattern, Problem, Problems};
use tiphys_shared::security::tls::{Alpn, ClientCertificate, Policy};

use super::tls::{Roots, half};
use crate::proxy::Operator;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Resource proxy: the clusters' API, for Argo CD and kubectl")]
pub(super) struct ProxyOptions {
    /// Serve the API of the agents' clusters
    #[arg(long, env = "ARGOCD_PRINCIPAL_ENABLE_RESOURCE_PROXY", action = ArgAction::Set, default_value = "true")]
    pub(super) enable_resource_proxy: bool,
    /// Port of the resource proxy, on the interfaces of --listen-host; 0 lets the kernel choose
    #[arg(
        long,
        env = "TIPHYS_PRINCIPAL_RESOURCE_PROXY_LISTEN_PORT",
        value_name = "PORT",
        default_value_t = 9090
    )]
    pub(super) resource_proxy_listen_port: u16,
    /// Secret with the resource proxy's certificate and key
    #[arg(long, env = "ARGOCD_PRINCIPAL_RESOURCE_PROXY_SECRET_NAME", value_name = "NAME")]
    #[arg(default_value = "argocd-agent-resource-proxy-tls")]
    resource_proxy_secret_name: String,
    /// File with the resource proxy's certificate in PEM, instead of the Secret
    #[arg(long, env = "ARGOCD_PRINCIPAL_RESOURCE_PROXY_TLS_CERT_PATH", value_name = "FILE")]
    resource_proxy_cert_path: Option<PathBuf>,
    /// File with the resource proxy's private key in PEM, instead of the Secret
    #[arg(long, env = "ARGOCD_PRINCIPAL_RESOURCE_PROXY_TLS_KEY_PATH", value_name = "FILE")]
    resource_proxy_key_path: Option<PathBuf>,
    /// Secret with the certificate of the CA that signs the resource proxy's clients
    #[arg(long, env = "ARGOCD_PRINCIPAL_RESOURCE_PROXY_CA_SECRET_NAME", value_name = "NAME")]
    #[arg(default_value = "argocd-agent-ca")]
    resource_proxy_ca_secret_name: String,
    /// File with the certificate of the CA that signs the resource proxy's clients, instead of the Secret
    #[arg(long, env = "ARGOCD_PRINCIPAL_RESOURCE_PROXY_TLS_CA_PATH", value_name = "FILE")]
    resource_proxy_ca_path: Option<PathBuf>,
    /// Common names of client certificates that may reach several agents: NAME, or NAME=AGENTS
    ///
    /// AGENTS is a name, a glob or a /regular expression/; without it, all agents. Such a client names the agent in the
    /// path: /agents/AGENT/api/v1/…
    #[arg(
        long,
        env = "TIPHYS_PRINCIPAL_RESOURCE_PROXY_OPERATORS",
        value_name = "LIST",
        value_delimiter = ','
    )]
    resource_proxy_operators: Vec<String>,
}

/// The resource proxy, checked.
#[derive(Debug, Clone)]
pub struct ProxySettings {
    /// Where it listens.
    pub listen: Listen,
    /// Its certificate.
    pub identity: KeyPair,
    /// The CA of its clients.
    pub roots: Roots,
    /// Versions and cipher suites.
    pub policy: Policy,
    /// Who may reach several agents.
    pub operators: Vec<Operator>,
}

impl ProxyOptions {
    /// `host` and `policy` are those of the principal's other port.
    pub(super) fn check(
        self,
        host: Option<String>,
        policy: Option<Policy>,
    ) -> Result<Option<ProxySettings>, Problems> {
        if !self.enable_resource_proxy {
            return Ok(None);
        }
        let mut problems = Problems::default();
        let secret = &self.resource_proxy_secret_name;
        let identity =
            problems.absorb(match (&self.resource_proxy_cert_path, &self.resource_proxy_key_path) {
                (Some(certificate), Some(key)) => options::check_key_pair(
                    ("--resource-proxy-cert-path", certificate),
                    ("--resource-proxy-key-path", key),
                )
                .map(|()| KeyPair::Files { certificate: certificate.clone(), key: key.clone() }),
                (None, None) => Ok(KeyPair::Secret(secret.clone())),
                (Some(_), None) => {
                    Err(half("--resource-proxy-cert-path", "--resource-proxy-key-path", secret))
                }
                (None, Some(_)) => {
                    Err(half("--resource-proxy-key-path", "--resource-proxy-cert-path", secret))
                }
            });
        let roots = problems.keep(match &self.resource_proxy_ca_path {
            Some(path) => options::check_certificates("--resource-proxy-ca-path", path)
                .map(|()| Roots::File(path.clone())),
            None => Ok(Roots::Secret(self.resource_proxy_ca_secret_name.clone())),
        });
        let mut operators = Vec::new();
        for text in self.resource_proxy_operators.iter().filter(|text| !text.is_empty()) {
            operators.extend(problems.keep(operator(text)));
        }
        match (identity, roots, policy) {
            (Some(identity), Some(roots), Some(policy)) if problems.is_empty() => Ok(Some(ProxySettings {
                listen: Listen { host, port: self.resource_proxy_listen_port },
                identity,
                roots,
                policy: Policy {
                    // As upstream: a token alone does not get in.
                    client_certificate: ClientCertificate::Required,
                    alpn: Alpn::H2OrHttp1,
                    ..policy
                },
                operators,
            })),
            _ => Err(problems),
        }
    }
}

fn operator(text: &str) -> Result<Operator, Problem> {
    let (name, agents) = text.split_once('=').unwrap_or((text, "*"));
    if name.is_empty() {
        return Err(Problem::new(
            format!("--resource-proxy-operators: {text:?} has no common name"),
            "write NAME or NAME=AGENTS, such as alice=edge-*",
        ));
    }
    let agents =
        NamePattern::new(agents).map_err(|invalid| Problem::from(("--resource-proxy-operators", invalid)))?;
    Ok(Operator { name: name.to_owned(), agents })
}
