//! `join`: makes this cluster one of the control plane's, with a token.

use std::path::PathBuf;

use clap::{ArgMatches, Args, Command};
use tiphys_agent::join::{self, CA_SECRET, CERTIFICATE_SECRET, Keeping};
use tiphys_shared::kube::client::{self, Access};
use tiphys_shared::process::options::HostPort;
use tiphys_shared::security::join_token::JoinToken;

use crate::failure::{Failure, story};
use crate::{output, runtime};

const EXAMPLES: &str = "\
Examples:
  tiphys join --server principal.example.com:8443 --token tiphys1.edge-1.…
  tiphys join --kubecontext edge-1 --server principal.example.com:8443 --token tiphys1.edge-1.…
  TIPHYS_JOIN_TOKEN=$(cat token) tiphys join --server principal.example.com:8443

The key is made here and does not leave this cluster. The token, from tiphys agent token create at the control plane, says
by which CA the principal is known. Certificate, key and CA become Secrets, with which the agent connects.";

#[derive(Debug, Clone, Args)]
struct Options {
    /// Address of the principal
    #[arg(long, value_name = "HOST:PORT")]
    server: String,
    /// The token
    #[arg(long, env = "TIPHYS_JOIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: String,
    /// Namespace of the agent
    #[arg(long, short, visible_alias = "namespace", value_name = "NAME", default_value = "argocd")]
    agent_namespace: String,
    /// Kubeconfig of this cluster; by default $KUBECONFIG, ~/.kube/config, or the cluster around
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of this cluster, instead of the current one
    #[arg(long, value_name = "NAME")]
    kubecontext: Option<String>,
    /// Replace a certificate that is there already
    #[arg(long)]
    replace: bool,
}

pub(super) fn command() -> Command {
    Options::augment_args(
        Command::new("join")
            .about("Let this cluster join a control plane, with a token")
            .after_help(EXAMPLES),
    )
}

pub(super) fn run(command: &Command, given: &ArgMatches) -> Result<(), Failure> {
    let options: Options = super::load(command, given)?;
    let token: JoinToken = options.token.parse().map_err(|error| {
        Failure::usage(format!("--token cannot be used: {}", story(&error)))
            .remedy("give the whole line that tiphys agent token create has printed")
    })?;
    let address = options.server.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let (host, port) = address.ok_or_else(|| {
        Failure::usage(format!("--server: {:?} is not HOST:PORT", options.server)).remedy(
            "give the address at which agents reach the principal, such as principal.example.com:8443",
        )
    })?;
    let server = HostPort::new(host, port)
        .map_err(|invalid| Failure::usage(format!("--server: {}", invalid.what)).remedy(invalid.remedy))?;
    runtime::run(1, |_| join(options, server, token))
}

async fn join(options: Options, server: HostPort, token: JoinToken) -> Result<(), Failure> {
    let access = Access { kubeconfig: options.kubeconfig, context: options.kubecontext };
    let client = client::connect(&access)
        .await
        .map_err(|error| Failure::because("cannot reach this cluster", &error))?;
    let namespace = options.agent_namespace;
    let keeping = Keeping::new(client, &namespace, options.replace);
    // A token is good once: what would keep us from using what it brings is found out before.
    keeping.check().await.map_err(|error| failure(&error))?;
    let joined = join::enrol(&server.host, server.port, &token).await.map_err(|error| failure(&error))?;
    keeping.keep(&joined.material).await.map_err(|error| {
        failure(&error).remedy("the token is used up: mend this, and join again with another one")
    })?;
    output::say(&format!(
        "joined as {}: Secrets {CERTIFICATE_SECRET} and {CA_SECRET} are in namespace {namespace}, good until {}",
        token.agent, joined.certificate.not_after
    ));
    if let Some(warning) = joined.warning {
        output::say(&format!("warning: {warning}"));
    }
    output::say(&format!(
        "start the agent there with --agent-mode managed (or autonomous, if this cluster is to own its applications) \
         --namespace {namespace} --server-address {} --server-port {} --creds mtls:any",
        server.host, server.port
    ));
    Ok(())
}

fn failure(error: &join::Error) -> Failure {
    let failure = Failure::because("this cluster cannot join", error);
    match error {
        join::Error::Joined { .. } => failure.remedy("give --replace to take a new certificate in its place"),
        join::Error::HoldsKey { .. } => failure
            .remedy("that is a control plane's: name another --agent-namespace, or another --kubecontext"),
        _ if error.wants_another_token() => {
            failure.remedy("make another token with tiphys agent token create at the control plane")
        }
        join::Error::Refused(_) => failure.remedy(
            "mend that at the control plane (see tiphys validate principal), and join again with the same token; once \
             tiphys agent token list names it no more, make another one",
        ),
        join::Error::NotOffered { .. } => {
            failure.remedy("check --server; TLS must reach the principal unbroken")
        }
        _ => failure,
    }
}
