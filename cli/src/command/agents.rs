//! `agent create|list|inspect|reconfigure|print-tls`: what Argo CD knows of agents' clusters.

mod address;
mod create;

use clap::{ArgAction, Args, Command, FromArgMatches, Subcommand};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::ListParams;
use serde::Serialize;
use tiphys_shared::kube::cluster_secret::{self, Cluster};
use tiphys_shared::model::AgentName;
use tiphys_shared::model::argocd::label;
use tiphys_shared::security::pki::{Certificate, Leaf, Usage};
use tiphys_shared::security::tls::Material;

use self::address::server_url;
use self::create::{Create, create};
use super::Program;
use super::agent::token;
use super::pki::{LEAF_DAYS, ca, issue};
use crate::failure::Failure;
use crate::operator;
use crate::operator::keys::KeyOptions;
use crate::operator::targets::{Site, Targets};
use crate::operator::write::{self, DryRun, IfThere, Write};
use crate::output::{self, Format, Table};

/// Names of the verbs, beside which `agent` runs an agent.
pub(super) const VERBS: [&str; 6] = ["create", "list", "inspect", "reconfigure", "print-tls", "token"];

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a new agent known to Argo CD, with a certificate for the resource proxy
    Create(Create),
    /// List the agents that Argo CD knows
    List(List),
    /// Show what Argo CD knows of an agent
    #[command(visible_alias = "show")]
    Inspect(Inspect),
    /// Print the certificate, key or CA with which Argo CD reaches an agent
    #[command(visible_alias = "dump-tls")]
    PrintTls(PrintTls),
    /// Change what Argo CD knows of an agent
    Reconfigure(Reconfigure),
}

#[derive(Debug, Args)]
struct IssueOptions {
    /// Days for which an issued certificate is good
    #[arg(long, value_name = "DAYS", default_value_t = LEAF_DAYS, value_parser = clap::value_parser!(u32).range(1..=36500))]
    days: u32,
    #[command(flatten)]
    key: KeyOptions,
}

#[derive(Debug, Args)]
struct List {
    /// Only agents whose cluster Secrets match this label selector
    #[arg(long, short, value_name = "LIST", value_delimiter = ',')]
    label: Vec<String>,
    /// Form of the answer
    #[arg(long, short, value_name = "FORMAT")]
    output: Option<Format>,
}

#[derive(Debug, Args)]
struct Inspect {
    /// The agent
    #[arg(value_name = "NAME")]
    name: AgentName,
    /// Form of the answer
    #[arg(long, short, value_name = "FORMAT")]
    output: Option<Format>,
}

#[derive(Debug, Args)]
struct PrintTls {
    /// The agent
    #[arg(value_name = "NAME")]
    name: AgentName,
    /// What to print
    #[arg(long = "type", short = 't', value_name = "WHAT", default_value = "cert", ignore_case = true)]
    what: Asset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Asset {
    Cert,
    Key,
    Ca,
}

#[derive(Debug, Args)]
struct Reconfigure {
    /// The agent
    #[arg(value_name = "NAME")]
    name: AgentName,
    /// Where Argo CD reaches the principal's resource proxy: HOST:PORT, or the whole URL
    #[arg(long, value_name = "ADDRESS")]
    resource_proxy_server: Option<String>,
    /// User name that Argo CD shows to the resource proxy
    #[arg(long, value_name = "TEXT")]
    resource_proxy_username: Option<String>,
    /// Its password
    #[arg(long, value_name = "TEXT", env = "ARGOCD_AGENT_RESOURCE_PROXY_PASSWORD", hide_env_values = true)]
    resource_proxy_password: Option<String>,
    /// Issue a new certificate for Argo CD
    #[arg(long, action = ArgAction::Set, default_value = "false")]
    reissue_client_cert: bool,
    #[command(flatten)]
    issue: IssueOptions,
    #[command(flatten)]
    dry_run: DryRun,
}

/// What upstream tells of an agent, under its names.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    server: String,
    name: String,
    not_valid_before: String,
    not_valid_after: String,
    fingerprint: String,
}

/// Adds the verbs to the command `agent`.
pub(super) fn add_verbs(command: Command) -> Command {
    Verb::augment_subcommands(command)
}

pub(super) fn run(program: Program, given: &clap::ArgMatches, targets: Targets) -> Result<(), Failure> {
    if let Some(("token", given)) = given.subcommand() {
        return token::run(given, targets);
    }
    let verb = Verb::from_arg_matches(given).map_err(Failure::Usage)?;
    operator::run(async move {
        let site = targets.control_plane().await?;
        match verb {
            Verb::Create(options) => create(&site, options).await,
            Verb::List(options) => list(program, &site, options).await,
            Verb::Inspect(options) => inspect(program, &site, options).await,
            Verb::PrintTls(options) => print_tls(&site, options).await,
            Verb::Reconfigure(options) => reconfigure(&site, options).await,
        }
    })
}

impl IssueOptions {
    /// A certificate with which Argo CD says to the resource proxy which agent it wants.
    async fn material(&self, site: &Site, agent: &AgentName) -> Result<Material, Failure> {
        let ca = ca(site).await?;
        let leaf = Leaf {
            common_name: agent.as_str(),
            hosts: &[],
            usage: Usage::Client,
            key: self.key.algorithm()?,
        };
        let issued = issue(&ca, self.days, &leaf)?;
        Ok(Material::new(issued.chain, issued.key, issued.ca))
    }

    fn refuse_key_options(&self, because: &str) -> Result<(), Failure> {
        if self.key.are_given() {
            return Err(Failure::usage(format!("--key-algorithm and --key-size have no effect {because}"))
                .remedy("leave them out"));
        }
        Ok(())
    }
}

/// The Secrets that stand for agents.
async fn secrets(site: &Site, selector: &[String]) -> Result<Vec<Secret>, Failure> {
    let mut labels: Vec<&str> = selector.iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
    labels.push(label::AGENT_NAME);
    let api: Api<Secret> = Api::namespaced(site.client.clone(), &site.namespace);
    let found = api.list(&ListParams::default().labels(&labels.join(","))).await.map_err(|error| {
        Failure::because(&format!("cannot list Secrets in namespace {}", site.namespace), &error)
    })?;
    Ok(found.items)
}

/// Names of the agents that Argo CD knows.
pub(super) async fn known_agents(site: &Site) -> Result<Vec<String>, Failure> {
    let secrets = secrets(site, &[]).await?;
    let labels = secrets.into_iter().filter_map(|secret| secret.metadata.labels?.remove(label::AGENT_NAME));
    Ok(labels.collect())
}

async fn list(program: Program, site: &Site, options: List) -> Result<(), Failure> {
    let found = secrets(site, &options.label).await?;
    if found.is_empty() && options.output.is_none_or(|format| format == Format::Table) {
        output::say(&format!(
            "no agents are known in namespace {}: make one known with `agent create`, or check --principal-context and --label",
            site.namespace
        ));
        return Ok(());
    }
    let name_of = |secret: &Secret| {
        let labels = secret.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(label::AGENT_NAME)).cloned().unwrap_or_default()
    };
    if options.output.is_none() && program == Program::ArgocdAgentctl {
        return found.iter().try_for_each(|secret| output::line(&output::visible(&name_of(secret))));
    }
    let summaries: Vec<Summary> = found
        .iter()
        .map(|secret| {
            // One that cannot be read is listed too; `validate` tells what is wrong with it.
            let cluster = Cluster::read(secret).ok();
            let certificate = cluster.as_ref().and_then(Cluster::certificate);
            summary(&name_of(secret), cluster.map(|cluster| cluster.server).unwrap_or_default(), certificate)
        })
        .collect();
    options.output.unwrap_or(Format::Table).print(&summaries, || {
        let mut table = Table::new(&["AGENT", "SERVER", "NOT AFTER"]);
        for agent in &summaries {
            table.row([agent.name.clone(), agent.server.clone(), agent.not_valid_after.clone()]);
        }
        table
    })
}

fn summary(name: &str, server: String, certificate: Option<Certificate>) -> Summary {
    let time = |time: Option<jiff::Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
    Summary {
        server,
        name: name.to_owned(),
        not_valid_before: time(certificate.as_ref().map(|certificate| certificate.not_before)),
        not_valid_after: time(certificate.as_ref().map(|certificate| certificate.not_after)),
        fingerprint: certificate.map(|certificate| certificate.fingerprint).unwrap_or_default(),
    }
}

async fn load(site: &Site, agent: &AgentName) -> Result<(Secret, Cluster), Failure> {
    let name = cluster_secret::name(agent);
    let secret = write::read(site, &name).await?.ok_or_else(|| {
        Failure::new(format!("agent {agent} is not known: there is no Secret {}/{name}", site.namespace))
            .remedy("see `agent list`, make it known with `agent create`, or check --principal-context")
    })?;
    let cluster = Cluster::read(&secret).map_err(|what| {
        Failure::new(format!("Secret {}/{name} {what}", site.namespace))
            .remedy("delete it and make it anew with `agent create`")
    })?;
    Ok((secret, cluster))
}

async fn inspect(program: Program, site: &Site, options: Inspect) -> Result<(), Failure> {
    let (_, cluster) = load(site, &options.name).await?;
    let certificate = cluster.certificate();
    let summary = summary(&cluster.name, cluster.server, certificate);
    options.output.unwrap_or_else(|| program.machine_format()).print(&summary, || {
        let mut table = Table::new(&["AGENT", "SERVER", "NOT BEFORE", "NOT AFTER", "FINGERPRINT"]);
        table.row([
            summary.name.clone(),
            summary.server.clone(),
            summary.not_valid_before.clone(),
            summary.not_valid_after.clone(),
            summary.fingerprint.clone(),
        ]);
        table
    })
}

async fn print_tls(site: &Site, options: PrintTls) -> Result<(), Failure> {
    let (_, cluster) = load(site, &options.name).await?;
    let field = match options.what {
        Asset::Cert => "certData",
        Asset::Key => "keyData",
        Asset::Ca => "caData",
    };
    let pem = cluster.tls_part(field).ok_or_else(|| {
        Failure::new(format!("the cluster Secret of agent {} has no {field}", options.name))
            .remedy("issue credentials with `agent reconfigure --reissue-client-cert`")
    })?;
    output::text(&String::from_utf8_lossy(&pem))
}

async fn reconfigure(site: &Site, options: Reconfigure) -> Result<(), Failure> {
    let name = options.name;
    if !options.reissue_client_cert {
        options.issue.refuse_key_options("without --reissue-client-cert")?;
    }
    let (mut secret, mut cluster) = load(site, &name).await?;
    let before = cluster.clone();
    if let Some(address) = options.resource_proxy_server.filter(|text| !text.is_empty()) {
        cluster.server = server_url(&address, &name)?;
    }
    for (field, value) in
        [("username", options.resource_proxy_username), ("password", options.resource_proxy_password)]
    {
        if let Some(value) = value.filter(|text| !text.is_empty()) {
            cluster.set(field, value);
        }
    }
    if options.reissue_client_cert {
        cluster.set_material(&options.issue.material(site, &name).await?);
    }
    if cluster == before {
        output::say(&format!("nothing of agent {name} is to be changed"));
        return Ok(());
    }
    cluster.write_to(&mut secret);
    write::all(vec![Write { site, secret, if_there: IfThere::Replace }], options.dry_run).await
}
