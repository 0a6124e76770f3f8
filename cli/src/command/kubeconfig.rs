//! `kubeconfig`: a context with which kubectl reaches an agent's cluster through the principal.

mod context;

use std::fs;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Args, Command};
use http::Uri;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;
use tiphys_shared::kube::client::{self, Access};
use tiphys_shared::model::AgentName;
use tiphys_shared::model::argocd::label;
use tiphys_shared::process::options::HostPort;

use self::context::{Context, Overrides};
use crate::failure::Failure;
use crate::{file, operator, output};

const EXAMPLES: &str = "\
Examples:
  tiphys kubeconfig --agent edge-1                     adds the context edge-1 to your kubeconfig
  kubectl --context edge-1 get pods --all-namespaces
  tiphys kubeconfig --agent edge-1 --server https://127.0.0.1:9090 --tls-server-name principal
                                                       through a port-forward to the principal
  tiphys kubeconfig --agent edge-1 --output - > edge-1.yaml

The credentials are those of Argo CD's cluster Secret for the agent. Whoever may read that Secret may do on the
cluster what the agent's proxy policy lets pass.";

#[derive(Debug, Clone, Args)]
struct Options {
    /// The agent
    #[arg(long, value_name = "NAME")]
    agent: AgentName,
    /// Namespace of Argo CD at the control plane
    #[arg(
        long,
        short,
        visible_alias = "principal-namespace",
        value_name = "NAME",
        default_value = "argocd",
        env = "ARGOCD_AGENT_PRINCIPAL_NAMESPACE"
    )]
    namespace: AgentName,
    /// Kubeconfig of the control plane; by default $KUBECONFIG, ~/.kube/config, or the cluster around
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the control plane, instead of the current one
    #[arg(
        long,
        visible_alias = "principal-context",
        value_name = "NAME",
        env = "ARGOCD_AGENT_PRINCIPAL_CONTEXT"
    )]
    kubecontext: Option<String>,
    /// Where the principal's resource proxy is reached from here, if not where Argo CD reaches it
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Name that the proxy's certificate has, if not the host of its URL
    #[arg(long, value_name = "NAME")]
    tls_server_name: Option<String>,
    /// Name of the new context; by default the agent's
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// File that gets the context, - for stdout; by default the first of $KUBECONFIG, or ~/.kube/config
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Make it the current context
    #[arg(long = "use")]
    make_current: bool,
    /// Replace a cluster, user or context of the same name, also if it was not made by this command
    #[arg(long)]
    replace: bool,
}

pub(super) fn command() -> Command {
    Options::augment_args(
        Command::new("kubeconfig")
            .about("Write a kubectl context for an agent's cluster")
            .after_help(EXAMPLES),
    )
}

pub(super) fn run(command: &Command, given: &ArgMatches) -> Result<(), Failure> {
    let options: Options = super::load(command, given)?;
    options.check()?;
    operator::run(async {
        let secret = find(&options).await?;
        let overrides = Overrides { server: options.server, tls_server_name: options.tls_server_name };
        let context = Context::read(&options.agent, &secret, overrides).map_err(Failure::from)?;
        let name = options.context.unwrap_or_else(|| options.agent.to_string());
        match options.output {
            Some(path) if path == Path::new("-") => {
                output::text(&written(&context.add_to(Value::Null, &name, true)?)?)
            }
            path => {
                let path = path.map_or_else(default_file, Ok)?;
                let there = read(&path)?;
                let in_the_way = context.in_the_way(&there, &name);
                if !in_the_way.is_empty() && !options.replace {
                    return Err(Failure::new(format!(
                        "{} has {name:?} as {} already, not made by this command for agent {}",
                        path.display(),
                        in_the_way.join(" and "),
                        options.agent
                    ))
                    .remedy("choose another name with --context, or give --replace if nobody needs that"));
                }
                let document = context.add_to(there, &name, options.make_current)?;
                replace(&path, &written(&document)?)?;
                output::say(&format!("context {name} is in {}", path.display()));
                Ok(())
            }
        }
    })
}

impl Options {
    /// What no kubectl could use is not written.
    fn check(&self) -> Result<(), Failure> {
        let is_name = |name: &str| HostPort::new(name, 443).is_ok();
        let is_url = |text: &str| {
            text.parse::<Uri>().is_ok_and(|uri| {
                uri.scheme_str() == Some("https")
                    && uri.host().is_some_and(is_name)
                    && uri.query().is_none()
                    && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            })
        };
        if let Some(server) = self.server.as_deref().filter(|server| !is_url(server)) {
            return Err(Failure::usage(format!("--server {server:?} is not the URL of a resource proxy"))
                .remedy("write https://HOST:PORT"));
        }
        if let Some(name) = self.tls_server_name.as_deref().filter(|name| !is_name(name)) {
            return Err(Failure::usage(format!("--tls-server-name {name:?} is not a name in a certificate"))
                .remedy("write the DNS name or the address that the proxy's certificate is for"));
        }
        let is_no_name = |name: &&str| name.trim().is_empty() || name.chars().any(char::is_control);
        if let Some(name) = self.context.as_deref().filter(is_no_name) {
            return Err(Failure::usage(format!("--context {name:?} is not a name"))
                .remedy("write a name that can be typed after kubectl --context"));
        }
        Ok(())
    }
}

/// The cluster Secret of the agent.
async fn find(options: &Options) -> Result<Secret, Failure> {
    let Options { agent, namespace, .. } = options;
    let access = Access { kubeconfig: options.kubeconfig.clone(), context: options.kubecontext.clone() };
    let client = client::connect(&access)
        .await
        .map_err(|error| Failure::because("cannot reach the control plane", &error))?;
    let labels = format!("{}=cluster,{}={agent}", label::SECRET_TYPE, label::AGENT_NAME);
    let secrets: Api<Secret> = Api::namespaced(client, namespace.as_str());
    let found = secrets.list(&ListParams::default().labels(&labels)).await.map_err(|error| {
        Failure::because(&format!("cannot list Secrets in namespace {namespace}"), &error)
    })?;
    let mut found = found.items;
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Failure::new(format!(
            "there is no cluster Secret for agent {agent} in namespace {namespace}"
        ))
        .remedy(format!("check the name, --namespace and --kubecontext; its labels must be {labels}"))),
        count => Err(Failure::new(format!(
            "there are {count} cluster Secrets for agent {agent} in namespace {namespace}"
        ))
        .remedy(format!("leave one of those with the labels {labels}"))),
    }
}

fn default_file() -> Result<PathBuf, Failure> {
    let named = std::env::var_os("KUBECONFIG").filter(|list| !list.is_empty());
    let first = named
        .as_deref()
        .and_then(|list| std::env::split_paths(list).find(|path| !path.as_os_str().is_empty()));
    first.or_else(|| Some(std::env::home_dir()?.join(".kube").join("config"))).ok_or_else(|| {
        Failure::new("there is no home folder to keep a kubeconfig in").remedy("name a file with --output")
    })
}

fn read(path: &Path) -> Result<Value, Failure> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Value::Null),
        Err(error) => return Err(Failure::because(&format!("cannot read {}", path.display()), &error)),
    };
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_saphyr::from_str(&text).map_err(|error| {
        Failure::new(format!("{} is not YAML: {error}", path.display()))
            .remedy("mend it, or name another with --output")
    })
}

fn written(document: &Value) -> Result<String, Failure> {
    serde_saphyr::to_string(document).map_err(|error| Failure::because("cannot write the kubeconfig", &error))
}

fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    file::replace(path, text)
        .map_err(|error| Failure::because(&format!("cannot write {}", path.display()), &error))
}
