//! `pki`: the installation's own certificate authority, and what it issues.

mod inspect;
mod issue;

use clap::{ArgAction, Args, Command, FromArgMatches, Subcommand};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::DeleteParams;
use tiphys_shared::process::clock;
use tiphys_shared::security::pki::Ca;

pub(crate) use self::inspect::rfc1123;
pub(crate) use self::issue::{LEAF_DAYS, issue};
use super::Program;
use crate::failure::Failure;
use crate::operator::confirm::Consent;
use crate::operator::keys::{KeyOptions, days};
use crate::operator::targets::{Site, Targets};
use crate::operator::write::{self, BUNDLE, DryRun, IfThere, OPAQUE, TLS, Write, merged, secret};
use crate::operator::{self, names};
use crate::output::{self, Format};

/// What upstream gives a CA: ten years.
const CA_DAYS: u32 = 3650;

const EXAMPLES: &str = "\
Examples:
  tiphys pki init                                            make the CA
  tiphys pki issue principal --dns principal.example.com     what agents connect to
  tiphys pki issue resource-proxy --dns argocd-agent-resource-proxy
  tiphys pki issue agent edge-1 --agent-context edge-1       a certificate for an agent, on its cluster
  tiphys pki inspect                                         what there is, and until when it is good";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make the CA and store it at the control plane
    Init(Init),
    /// Show the CA and the principal's certificates
    Inspect(Inspect),
    /// Print the CA in PEM
    Dump(Dump),
    /// Issue certificates that the CA signs
    #[command(subcommand, visible_alias = "new-cert")]
    Issue(issue::Issue),
    /// Give an agent's cluster the certificate of the CA
    Propagate(Propagate),
    /// Delete the CA
    Delete(Delete),
}

#[derive(Debug, Args)]
struct Init {
    /// Replace a CA that is there: what it has signed is refused from then on, unless its certificate is in ca.crt
    #[arg(long, short, action = ArgAction::Set, default_value = "false")]
    force: bool,
    /// Days for which the CA is good
    #[arg(long, value_name = "DAYS", default_value_t = CA_DAYS, value_parser = clap::value_parser!(u32).range(1..=36500))]
    days: u32,
    #[command(flatten)]
    key: KeyOptions,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Debug, Args)]
struct Inspect {
    /// Form of the answer
    #[arg(long, short, value_name = "FORMAT")]
    output: Option<Format>,
    /// Print the certificates themselves, in PEM
    #[arg(long, short, action = ArgAction::Set, default_value = "false")]
    full: bool,
}

#[derive(Debug, Args)]
struct Dump {
    /// Print both
    #[arg(long, action = ArgAction::Set, default_value = "false")]
    all: bool,
    /// Print the private key
    #[arg(long, action = ArgAction::Set, default_value = "false")]
    key: bool,
    /// Print the certificate
    #[arg(long, action = ArgAction::Set, default_value = "false")]
    cert: bool,
}

#[derive(Debug, Args)]
struct Propagate {
    /// Replace what is there
    #[arg(long, short, action = ArgAction::Set, default_value = "false")]
    force: bool,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Debug, Args)]
struct Delete {
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    dry_run: DryRun,
}

pub(super) fn command() -> Command {
    Verb::augment_subcommands(Command::new("pki"))
        .about("Manage the certificate authority of an installation, and what it issues")
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .arg_required_else_help(true)
}

pub(super) fn run(program: Program, given: &clap::ArgMatches, targets: Targets) -> Result<(), Failure> {
    let verb = Verb::from_arg_matches(given).map_err(Failure::Usage)?;
    operator::run(async move {
        match verb {
            Verb::Init(options) => init(&targets, options).await,
            Verb::Inspect(options) => inspect::run(program, &targets, options).await,
            Verb::Dump(options) => dump(&targets, options).await,
            Verb::Issue(issue) => issue.run(&targets).await,
            Verb::Propagate(options) => propagate(&targets, options).await,
            Verb::Delete(options) => delete(&targets, options).await,
        }
    })
}

/// The CA of a control plane.
pub(crate) async fn ca(site: &Site) -> Result<Ca, Failure> {
    authority(site).await.map(|authority| authority.ca)
}

/// Who signs at a control plane, and who is believed.
struct Authority {
    ca: Ca,
    /// The CA, and those that `ca.crt` names besides, in PEM: while a CA is replaced, two are believed.
    believed: Vec<u8>,
}

async fn authority(site: &Site) -> Result<Authority, Failure> {
    let at = format!("{}/{}", site.namespace, names::CA);
    let found = write::read(site, names::CA).await?;
    let found = found.ok_or_else(|| {
        Failure::new(format!("there is no CA: Secret {at} is not there"))
            .remedy("make one with `pki init`, or check --principal-context and --principal-namespace")
    })?;
    let data = found.data.unwrap_or_default();
    let part = |key: &str| {
        data.get(key).map(|bytes| bytes.0.as_slice()).ok_or_else(|| {
            Failure::new(format!("the CA in Secret {at} has no {key}"))
                .remedy("issue with the tool that has the CA's key, or make a CA with `pki init --force`")
        })
    };
    let ca = Ca::from_pem(part("tls.crt")?, part("tls.key")?).map_err(|error| {
        Failure::because(&format!("the CA in Secret {at} cannot be used"), &error)
            .remedy("mend the Secret, or make a CA with `pki init --force`")
    })?;
    let own = ca.certificate_pem().as_bytes();
    let believed = match data.get(BUNDLE) {
        None => own.to_vec(),
        Some(bundle) => merged(&bundle.0, own).map_err(|error| {
            Failure::because(&format!("{BUNDLE} in Secret {at} cannot be read"), &error)
                .remedy("put certificates in PEM there, or take it out: then the CA alone is believed")
        })?,
    };
    Ok(Authority { ca, believed })
}

async fn init(targets: &Targets, options: Init) -> Result<(), Failure> {
    let algorithm = options.key.algorithm()?;
    let site = targets.control_plane().await?;
    let if_there = if options.force {
        IfThere::Extend
    } else {
        IfThere::Refuse(
            "give --force to replace it: what it has signed is refused from then on, unless its certificate is in ca.crt",
        )
    };
    let write = |certificate: &[u8], key: &[u8]| {
        let secret = secret(names::CA, TLS, [("tls.crt", certificate), ("tls.key", key)]);
        vec![Write { site: &site, secret, if_there }]
    };
    if options.key.takes_a_moment() {
        write::check(write(b"", b"")).await?;
        output::say("making a key, which takes a moment");
    }
    let made = Ca::generate_with(algorithm, names::CA, clock::now(), days(options.days))
        .map_err(|error| Failure::because("cannot make the CA", &error))?;
    let pair = write(made.certificate_pem().as_bytes(), made.key_pem().expose());
    write::all(pair, options.dry_run).await
}

async fn dump(targets: &Targets, options: Dump) -> Result<(), Failure> {
    let (key, certificate) = (options.key || options.all, options.cert || options.all);
    if !key && !certificate {
        return Err(Failure::usage("it is not said what to print").remedy("give --cert, --key or --all"));
    }
    let ca = ca(&targets.control_plane().await?).await?;
    if certificate {
        output::text(ca.certificate_pem())?;
    }
    if key {
        output::text(ca.key_pem().expose_str().unwrap_or_default())?;
    }
    Ok(())
}

/// The Secret that an agent's cluster needs of the CA.
fn trust(authority: &Authority) -> Secret {
    secret(names::CA, OPAQUE, [(BUNDLE, authority.believed.as_slice())])
}

/// The CA itself must never be overwritten by its certificate.
async fn check_apart(control: &Site, edge: &Site) -> Result<(), Failure> {
    if control.is(edge).await? {
        return Err(Failure::usage(format!(
            "control plane and agent are the same namespace {} of the same cluster, where Secret {} holds the CA with its key",
            control.namespace,
            names::CA
        ))
        .remedy("name another --agent-context or --agent-namespace"));
    }
    Ok(())
}

async fn propagate(targets: &Targets, options: Propagate) -> Result<(), Failure> {
    let (control, edge) = (targets.control_plane().await?, targets.agent_cluster().await?);
    check_apart(&control, &edge).await?;
    let authority = authority(&control).await?;
    let if_there =
        if options.force { IfThere::Replace } else { IfThere::Refuse("give --force to replace it") };
    write::all(vec![Write { site: &edge, secret: trust(&authority), if_there }], options.dry_run).await
}

async fn delete(targets: &Targets, options: Delete) -> Result<(), Failure> {
    let site = targets.control_plane().await?;
    let at = format!("{}/{}", site.namespace, names::CA);
    let found = write::read(&site, names::CA).await?;
    let found = found.ok_or_else(|| {
        Failure::new(format!("there is no Secret {at}"))
            .remedy("check --principal-context and --principal-namespace")
    })?;
    if options.dry_run.dry_run {
        output::say(&format!("would delete Secret {at}"));
        return Ok(());
    }
    let what = format!(
        "this deletes the CA in Secret {at} at {}: without its key nothing more can be signed",
        site.server
    );
    options.consent.obtain(&what).await?;
    // The one that was seen, and no other that took its place meanwhile.
    let only = kube::api::Preconditions { uid: found.metadata.uid, ..Default::default() };
    let params = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
    let api: Api<Secret> = Api::namespaced(site.client.clone(), &site.namespace);
    api.delete(names::CA, &params)
        .await
        .map_err(|error| Failure::because(&format!("cannot delete Secret {at}"), &error))?;
    output::say(&format!("deleted Secret {at}"));
    Ok(())
}
