//! `principal`: the control-plane side.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use clap::{ArgMatches, Args, Command};
use tiphys_principal::options::{Options, Settings};
use tiphys_principal::setup;
use tiphys_shared::process::admin::Pages;
use tiphys_shared::process::options;
use tiphys_shared::process::telemetry::{self, Destination};
use tokio_util::sync::CancellationToken;

use crate::admin;
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
    telemetry::init(&settings.logging, Destination::Split)
        .map_err(|error| Failure::because("cannot log", &error))?;
    log_settings(&loaded.settings);
    for notice in &settings.notices {
        tracing::warn!("{notice}");
    }
    runtime::run(2, |stop| serve(settings, stop))
}

async fn serve(settings: Settings, stop: CancellationToken) -> Result<(), Failure> {
    let Some(embedded) = &settings.embedded else {
        let client = setup::connect(&settings).await.map_err(Failure::Setup)?;
        return serve_on(client, &settings, || None, stop).await;
    };
    let control_plane = tokio::select! {
        started = ControlPlane::start(embedded, &settings) => started?,
        () = stop.cancelled() => return Ok(()),
    };
    let trouble = control_plane.trouble();
    let obstacle = move || trouble().map(|_| "the control plane's file takes no changes, the log says why");
    let result = serve_on(control_plane.client(), &settings, obstacle, stop).await;
    control_plane.end().await;
    result
}

/// Serves agents of the control plane behind `client`. It is not ready while that has an `obstacle`.
async fn serve_on(
    client: kube::Client,
    settings: &Settings,
    obstacle: impl Fn() -> Option<&'static str> + Send + Sync + 'static,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let failed = |error: &tiphys_principal::Error| Failure::because("the principal cannot run", error);
    // Ports first: they are quick to check, and a probe that comes early is answered.
    let metrics = admin::listen("--metrics-port", settings.metrics.as_ref()).await?;
    let health = admin::listen("--healthz-port", settings.health.as_ref()).await?;
    let registry = admin::registry()?;
    let config = setup::prepare(settings, client, registry.clone(), &stop).await.map_err(Failure::Setup)?;
    let bound = tiphys_principal::bind(config).await.map_err(|error| failed(&error))?;
    tracing::info!(address = %bound.address(), namespace = settings.namespace, "principal listens");
    let handle = bound.handle();
    let is_ready = Arc::new(AtomicBool::new(false));
    let ready = Arc::clone(&is_ready);
    let unread = move || (!ready.load(Relaxed)).then_some("the control plane has not been read yet");
    let not_ready = move || unread().or_else(&obstacle);
    // As upstream, healthz tells only that the process serves.
    let pages = Pages::new()
        .page("/healthz", || admin::check(|| None))
        .page("/livez", || admin::check(|| None))
        .page("/readyz", move || admin::check(&not_ready));
    let admin = admin::serve((metrics, Pages::new().metrics(registry)), (health, pages), stop.clone());
    let readiness = async {
        handle.ready().await;
        is_ready.store(true, Relaxed);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = bound.run(stop.clone()) => result.map_err(|error| failed(&error)),
        () = async { tokio::join!(admin, readiness) ; } => Ok(()),
    }
}
