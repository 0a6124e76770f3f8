//! Issuing certificates with the installation's CA.

use clap::{ArgAction, Args, Subcommand};
use tiphys_shared::model::AgentName;
use tiphys_shared::process::clock;
use tiphys_shared::security::pki::{Ca, Leaf, Usage};
use tiphys_shared::security::tls::Material;

use super::{authority, ca, check_apart, trust};
use crate::failure::Failure;
use crate::operator::keys::{KeyOptions, check_lifetime, days};
use crate::operator::names;
use crate::operator::targets::{Site, Targets};
use crate::operator::write::{self, DryRun, IfThere, TLS, Write, secret};

/// What upstream gives a certificate that is not a CA's.
pub(crate) const LEAF_DAYS: u32 = 180;

#[derive(Debug, Subcommand)]
pub(super) enum Issue {
    /// A certificate for the principal, to which agents connect
    Principal(Principal),
    /// A certificate for the resource proxy, to which Argo CD connects
    ResourceProxy(ResourceProxy),
    /// A certificate for an agent, stored on its cluster together with the CA's
    Agent(Agent),
}

#[derive(Debug, Args)]
pub(super) struct Principal {
    /// IP addresses for which it is good, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "127.0.0.1")]
    ip: Vec<String>,
    /// DNS names for which it is good, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "localhost")]
    dns: Vec<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct ResourceProxy {
    /// IP addresses for which it is good, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    ip: Vec<String>,
    /// DNS names for which it is good, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    dns: Vec<String>,
    /// Put no names into it, although nobody can verify it then
    #[arg(long, action = ArgAction::Set, default_value = "false")]
    no_san: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Agent {
    /// The agent
    #[arg(value_name = "NAME")]
    name: AgentName,
    /// Control plane and agent are on the same cluster, in different namespaces
    #[arg(long, action = ArgAction::Set, default_value = "false")]
    same_context: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// Replace what is there
    #[arg(long, short, action = ArgAction::Set, default_value = "false")]
    upsert: bool,
    /// Days for which it is good
    #[arg(long, value_name = "DAYS", default_value_t = LEAF_DAYS, value_parser = clap::value_parser!(u32).range(1..=36500))]
    days: u32,
    #[command(flatten)]
    key: KeyOptions,
    #[command(flatten)]
    dry_run: DryRun,
}

impl Common {
    fn if_there(&self) -> IfThere {
        if self.upsert { IfThere::Replace } else { IfThere::Refuse("give --upsert to replace it") }
    }

    fn issue(&self, ca: &Ca, common_name: &str, hosts: &[String], usage: Usage) -> Result<Material, Failure> {
        issue(ca, self.days, &Leaf { common_name, hosts, usage, key: self.key.algorithm()? })
    }

    /// Issues a server's certificate and stores it at the control plane.
    async fn server(
        &self,
        targets: &Targets,
        secret_name: &str,
        common_name: &str,
        hosts: &[String],
    ) -> Result<(), Failure> {
        let site = targets.control_plane().await?;
        let ca = ca(&site).await?;
        let issued = self.issue(&ca, common_name, hosts, Usage::Server)?;
        let secret = pair(secret_name, &issued);
        write::all(vec![Write { site: &site, secret, if_there: self.if_there() }], self.dry_run).await
    }
}

/// Issues a certificate that is good for some days.
pub(crate) fn issue(ca: &Ca, wanted: u32, leaf: &Leaf<'_>) -> Result<Material, Failure> {
    let now = clock::now();
    check_lifetime(ca.certificate(), now, wanted)?;
    ca.issue(leaf, now, days(wanted)).map_err(|error| Failure::because("cannot issue a certificate", &error))
}

fn pair(name: &str, issued: &Material) -> k8s_openapi::api::core::v1::Secret {
    secret(name, TLS, [("tls.crt", &issued.chain), ("tls.key", issued.key.expose())])
}

impl Issue {
    pub(super) async fn run(self, targets: &Targets) -> Result<(), Failure> {
        match self {
            Self::Principal(options) => {
                let hosts = hosts(&options.ip, &options.dns)?;
                if hosts.is_empty() {
                    return Err(
                        nameless().remedy("give --dns or --ip: agents verify the name by which they call")
                    );
                }
                options.common.server(targets, names::PRINCIPAL_TLS, "argocd-agent-principal", &hosts).await
            }
            Self::ResourceProxy(options) => {
                let hosts = hosts(&options.ip, &options.dns)?;
                match (hosts.is_empty(), options.no_san) {
                    (true, false) => {
                        return Err(nameless().remedy(
                            "give --dns or --ip, as in the server URL of cluster Secrets, or --no-san",
                        ));
                    }
                    (false, true) => {
                        return Err(Failure::usage("--no-san contradicts --dns and --ip")
                            .remedy("give names, or --no-san"));
                    }
                    _ => {}
                }
                options.common.server(targets, names::PROXY_TLS, "argocd-agent-resource-proxy", &hosts).await
            }
            Self::Agent(options) => options.run(targets).await,
        }
    }
}

impl Agent {
    async fn run(self, targets: &Targets) -> Result<(), Failure> {
        let control = targets.control_plane().await?;
        let edge = if self.same_context && !targets.names_agent_cluster() {
            Site { namespace: targets.agent_namespace(), ..control.clone() }
        } else {
            targets.agent_cluster().await?
        };
        check_apart(&control, &edge).await?;
        if !self.same_context && control.is_on_cluster_of(&edge).await? {
            return Err(Failure::usage(format!("control plane and agent are both at {}", control.server))
                .remedy("name another --agent-context, or give --same-context if that is so on purpose"));
        }
        let authority = authority(&control).await?;
        let issued = self.common.issue(&authority.ca, self.name.as_str(), &[], Usage::Client)?;
        let client =
            Write { site: &edge, secret: pair(names::CLIENT_TLS, &issued), if_there: self.common.if_there() };
        // Who is believed there goes on being believed: the principal may have the other CA's certificate still.
        let ca = Write { site: &edge, secret: trust(&authority), if_there: IfThere::Extend };
        write::all(vec![client, ca], self.common.dry_run).await
    }
}

fn nameless() -> Failure {
    Failure::usage("it is not said for which names the certificate is good")
}

/// Names and addresses, each checked to be what it is given as.
fn hosts(addresses: &[String], dns: &[String]) -> Result<Vec<String>, Failure> {
    let trimmed = |list: &[String]| -> Vec<String> {
        list.iter().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).collect()
    };
    let (addresses, dns) = (trimmed(addresses), trimmed(dns));
    for address in &addresses {
        if address.parse::<std::net::IpAddr>().is_err() {
            return Err(Failure::usage(format!("--ip {address:?} is not an IP address"))
                .remedy("write addresses like 192.0.2.1 or 2001:db8::1; DNS names go into --dns"));
        }
    }
    if let Some(name) = dns.iter().find(|name| name.parse::<std::net::IpAddr>().is_ok()) {
        return Err(Failure::usage(format!("--dns {name:?} is an IP address"))
            .remedy("give it with --ip: clients do not look for addresses among the DNS names"));
    }
    Ok([addresses, dns].concat())
}
