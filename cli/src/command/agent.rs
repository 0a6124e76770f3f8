//! `agent`: the cluster side.

pub(super) mod token;

use clap::{ArgMatches, Args, Command};
use tiphys_agent::options::{Options, Settings};
use tiphys_agent::{Agent, setup};
use tiphys_shared::process::admin::Pages;
use tiphys_shared::process::options;
use tiphys_shared::process::readiness::Readiness;
use tiphys_shared::process::telemetry::{self, Destination, Levels};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Ports};
use crate::command::{log_settings, print_cipher_suites};
use crate::failure::Failure;
use crate::runtime;

pub(super) fn command(program: &str) -> Command {
    let examples = format!(
        "\
Examples:
  Inside a cluster, with the Secrets argocd-agent-ca and argocd-agent-client-tls in namespace argocd:
    {program} agent --server-address principal.example.com --agent-mode managed --creds mtls:any

  Outside of it, for a trial, with certificates from files:
    {program} agent --kubeconfig ~/.kube/config --server-address localhost --server-port 8443 \\
      --agent-mode managed --creds mtls:any \\
      --tls-client-cert tls.crt --tls-client-key tls.key --root-ca-path ca.crt

  Options from a file (flags and environment beat it):
    {program} agent --config agent.yaml"
    );
    let about = "Run the cluster side, which connects to the principal";
    // What the options say about themselves would otherwise stand in the place of what the command is.
    let with_options = |name: &'static str, about: &'static str| {
        Options::augment_args(Command::new(name))
            .about(about)
            .long_about(None::<&str>)
            .after_help(examples.clone())
    };
    with_options("agent", about)
        .args_conflicts_with_subcommands(true)
        .disable_help_subcommand(true)
        .subcommand(with_options("run", "Run the agent (the same as without a verb)"))
        .subcommand(token::command())
}

pub(super) fn run(command: &Command, given: &ArgMatches) -> Result<(), Failure> {
    // `agent run --x` and `agent --x` are the same.
    let (command, given) = match given.subcommand() {
        Some((name, given)) => (command.find_subcommand(name).unwrap_or(command), given),
        None => (command, given),
    };
    let mut wants_suites = false;
    let loaded = options::load(command, given, &|name| std::env::var_os(name), |options: Options| {
        wants_suites = options.lists_cipher_suites();
        options.validate()
    });
    if wants_suites {
        return print_cipher_suites();
    }
    let loaded = loaded?;
    let settings = loaded.value;
    let levels = telemetry::init(&settings.logging, Destination::Split)
        .map_err(|error| Failure::because("cannot log", &error))?;
    log_settings(&loaded.settings);
    for notice in &settings.notices {
        tracing::warn!("{notice}");
    }
    runtime::run(1, |stop| serve(settings, levels, stop))
}

async fn serve(settings: Settings, levels: Levels, stop: CancellationToken) -> Result<(), Failure> {
    let (metrics, health, profiles) = (&settings.metrics, &settings.health, &settings.profiles);
    let ports = Ports::open(metrics.as_ref(), health.as_ref(), profiles.as_ref()).await?;
    let registry = admin::registry()?;
    // An API server that is slow, or says nothing, does not keep anybody from stopping us.
    let preparing = setup::prepare(&settings, registry.clone(), &stop);
    let Some(prepared) = stop.run_until_cancelled(preparing).await else { return Ok(()) };
    let (config, link) = prepared.map_err(Failure::Setup)?;
    tracing::info!(principal = %settings.server, namespace = settings.namespace, mode = %settings.mode, "agent starts");
    let traces = config.traces.clone();
    let agent = Agent::new(config, link);
    let handle = agent.handle();
    // As upstream, healthz tells whether the principal is reached.
    let pages = Pages::new()
        .health("/livez", Readiness::new())
        .health("/healthz", handle.readiness())
        .health("/readyz", handle.readiness())
        .log_levels(levels);
    let admin = ports.serve(registry, pages, stop.clone());
    let result = tokio::select! {
        result = agent.run(stop.clone()) => {
            result.map_err(|error| Failure::because("the agent cannot run", &error))
        }
        () = async { admin.await; std::future::pending().await } => Ok(()),
    };
    admin::close(traces).await;
    result
}
