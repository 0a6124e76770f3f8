//! `principal`: the control-plane side.

use clap::{ArgMatches, Args, Command};
use prometheus::Registry;
use tiphys_principal::options::{Options, Settings};
use tiphys_principal::setup;
use tiphys_shared::process::admin::Pages;
use tiphys_shared::process::options;
use tiphys_shared::process::readiness::Readiness;
use tiphys_shared::process::telemetry::{self, Destination, Levels};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Ports};
use crate::command::{log_settings, print_cipher_suites};
use crate::embedded::ControlPlane;
use crate::failure::Failure;
use crate::runtime;

pub(super) fn command(program: &str) -> Command {
    let examples = format!(
        "\
Examples:
  Inside the control plane's cluster, in namespace argocd, with the Secrets that --help names:
    {program} principal --auth 'mtls:subject:CN=([^,]+)'

  Outside of it, for a trial, with certificates from files:
    {program} principal --kubeconfig ~/.kube/config --namespace argocd \\
      --auth 'mtls:subject:CN=([^,]+)' --tls-cert tls.crt --tls-key tls.key --root-ca-path ca.crt

  Without Kubernetes: the control plane is kept in a folder, and served to kubectl and Argo CD:
    {program} principal --embedded ./control-plane

  Options from a file (flags and environment beat it):
    {program} principal --config principal.yaml"
    );
    // What the options say about themselves would otherwise stand in the place of what the command is.
    Options::augment_args(Command::new("principal"))
        .about("Run the control-plane side, to which agents connect")
        .long_about(None::<&str>)
        .after_help(examples)
}

pub(super) fn run(command: &Command, given: &ArgMatches) -> Result<(), Failure> {
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
    runtime::run(2, |stop| serve(settings, levels, stop))
}

async fn serve(settings: Settings, levels: Levels, stop: CancellationToken) -> Result<(), Failure> {
    // Ports first: they are quick to check.
    let (metrics, health, profiles) = (&settings.metrics, &settings.health, &settings.profiles);
    let ports = Ports::open(metrics.as_ref(), health.as_ref(), profiles.as_ref()).await?;
    let watched = Watched { ports, registry: admin::registry()?, levels };
    let Some(embedded) = &settings.embedded else {
        let connecting = setup::connect(&settings, &watched.registry);
        let Some(way) = stop.run_until_cancelled(connecting).await else { return Ok(()) };
        let way = way.map_err(Failure::Setup)?;
        return serve_on(way, None, &settings, watched, stop).await;
    };
    let control_plane = tokio::select! {
        started = ControlPlane::start(embedded, &settings) => started?,
        () = stop.cancelled() => return Ok(()),
    };
    let way = control_plane.way().await?;
    let result = serve_on(way, Some(&control_plane), &settings, watched, stop).await;
    control_plane.end().await;
    result
}

/// What those need who watch over the process.
struct Watched {
    ports: Ports,
    registry: Registry,
    levels: Levels,
}

/// Serves the agents of the control plane to which there is a `way`.
async fn serve_on(
    way: setup::Way,
    embedded: Option<&ControlPlane>,
    settings: &Settings,
    watched: Watched,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let failed = |error: &tiphys_principal::Error| Failure::because("the principal cannot run", error);
    let Watched { ports, registry, levels } = watched;
    // An API server that is slow, or says nothing, does not keep anybody from stopping us.
    let preparing = setup::prepare(settings, way, registry.clone(), &stop);
    let Some(config) = stop.run_until_cancelled(preparing).await else { return Ok(()) };
    let config = config.map_err(Failure::Setup)?;
    let traces = config.traces.clone();
    let bound = tiphys_principal::bind(config).await.map_err(|error| failed(&error))?;
    tracing::info!(address = %bound.address(), namespace = settings.namespace, "principal listens");
    let handle = bound.handle();
    let readiness = handle.readiness();
    let reported = async {
        match embedded {
            Some(control_plane) => control_plane.report(&readiness).await,
            None => std::future::pending().await,
        }
    };
    // As upstream, healthz tells only that the process serves.
    let pages = Pages::new()
        .health("/healthz", Readiness::new())
        .health("/livez", Readiness::new())
        .health("/readyz", handle.readiness())
        .log_levels(levels);
    let admin = ports.serve(registry, pages, stop.clone());
    let result = tokio::select! {
        result = bound.run(stop.clone()) => result.map_err(|error| failed(&error)),
        () = async { admin.await; std::future::pending().await } => Ok(()),
        () = reported => Ok(()),
    };
    admin::close(traces).await;
    result
}
