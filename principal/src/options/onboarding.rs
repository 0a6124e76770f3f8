//! How agents come to be known: upstream's flags for cluster Secrets, and ours for joining.

use std::time::Duration;

use clap::{ArgAction, Args};
use tiphys_shared::process::options::{self, Problems};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "New agents, their certificates and their cluster Secrets")]
pub(super) struct OnboardingOptions {
    /// Let clusters join with a token, and agents renew their certificates; the CA's key has to be in its Secret
    #[arg(long, env = "TIPHYS_PRINCIPAL_ENABLE_JOIN", action = ArgAction::Set, default_value = "true")]
    enable_join: bool,
    /// How long the certificates of agents that join, or renew theirs, are good
    #[arg(long, env = "TIPHYS_PRINCIPAL_AGENT_CERTIFICATE_LIFETIME", value_name = "DURATION")]
    #[arg(default_value = "2160h", value_parser = options::duration)]
    agent_certificate_lifetime: Duration,
    /// Address of the resource proxy in cluster Secrets that are made here
    #[arg(long, env = "ARGOCD_PRINCIPAL_RESOURCE_PROXY_ADDRESS", value_name = "HOST:PORT")]
    #[arg(default_value = "argocd-agent-resource-proxy:9090")]
    resource_proxy_address: String,
    /// Make a cluster Secret for every agent that logs in
    #[arg(long, env = "ARGOCD_PRINCIPAL_ENABLE_SELF_CLUSTER_REGISTRATION", action = ArgAction::Set)]
    #[arg(default_value = "false")]
    enable_self_cluster_registration: bool,
    /// Secret with the client certificate in cluster Secrets of agents that log in: tls.crt, tls.key and ca.crt
    #[arg(long, env = "ARGOCD_PRINCIPAL_SELF_REGISTRATION_CLIENT_CERT_SECRET", value_name = "NAME")]
    self_registration_client_cert_secret: Option<String>,
}

/// How agents come to be known, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnboardingSettings {
    /// Certificates are given out.
    pub enrolment: bool,
    /// How long they are good.
    pub lifetime: Duration,
    /// The Secret with the CA that signs them.
    pub ca_secret: String,
    /// Host and port of the resource proxy, as Argo CD reaches it.
    pub proxy_address: String,
    /// The Secret with the client certificate of cluster Secrets that are made for agents that log in, if they are.
    pub client_certificate: Option<String>,
}

/// A certificate that ends sooner is renewed all the time.
const SHORTEST: Duration = Duration::from_secs(60);

impl OnboardingOptions {
    pub(super) fn check(self, has_proxy: bool, ca_secret: &str) -> Result<OnboardingSettings, Problems> {
        let mut problems = Problems::default();
        let certificate = self.self_registration_client_cert_secret.filter(|name| !name.is_empty());
        if self.enable_self_cluster_registration {
            if certificate.is_none() {
                problems.add(
                    "--enable-self-cluster-registration needs --self-registration-client-cert-secret",
                    "name the Secret with the client certificate that Argo CD presents to the resource proxy",
                );
            }
            if !has_proxy {
                problems.add(
                    "--enable-self-cluster-registration makes cluster Secrets that lead to the resource proxy, which is off",
                    "leave out --enable-resource-proxy false",
                );
            }
        }
        let host_and_port = self.resource_proxy_address.rsplit_once(':');
        let is_address = host_and_port.is_some_and(|(host, port)| {
            !host.is_empty() && !host.contains(['/', '?', '@', ' ']) && port.parse::<u16>().is_ok()
        });
        if !is_address {
            problems.add(
                format!("--resource-proxy-address: {:?} is not HOST:PORT", self.resource_proxy_address),
                "give the address at which Argo CD reaches the resource proxy, such as argocd-agent-resource-proxy:9090",
            );
        }
        if self.agent_certificate_lifetime < SHORTEST {
            problems.add(
                "--agent-certificate-lifetime is shorter than a minute",
                "give some days, such as 2160h: agents renew their certificates after two thirds of it",
            );
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(OnboardingSettings {
            enrolment: self.enable_join,
            lifetime: self.agent_certificate_lifetime,
            ca_secret: ca_secret.to_owned(),
            proxy_address: self.resource_proxy_address,
            client_certificate: certificate.filter(|_| self.enable_self_cluster_registration),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> OnboardingOptions {
        OnboardingOptions {
            enable_join: true,
            agent_certificate_lifetime: Duration::from_secs(3600),
            resource_proxy_address: "proxy:9090".to_owned(),
            enable_self_cluster_registration: false,
            self_registration_client_cert_secret: Some("shared".to_owned()),
        }
    }

    #[test]
    fn registration_needs_a_certificate_and_a_proxy() {
        assert_eq!(options().check(true, "ca").unwrap().client_certificate, None);
        let on = OnboardingOptions { enable_self_cluster_registration: true, ..options() };
        assert_eq!(on.clone().check(true, "ca").unwrap().client_certificate.as_deref(), Some("shared"));
        let bare = OnboardingOptions { self_registration_client_cert_secret: None, ..on };
        assert_eq!(bare.check(false, "ca").unwrap_err().0.len(), 2);
    }

    #[test]
    fn what_would_make_bad_secrets_or_certificates_is_refused() {
        for address in ["proxy", "https://proxy:9090", ":9090", "proxy:port"] {
            let wrong = OnboardingOptions { resource_proxy_address: address.to_owned(), ..options() };
            assert!(wrong.check(true, "ca").is_err(), "{address}");
        }
        let short = OnboardingOptions { agent_certificate_lifetime: Duration::from_secs(5), ..options() };
        assert!(short.check(true, "ca").is_err());
    }
}
