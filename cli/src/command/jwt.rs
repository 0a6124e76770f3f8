//! `jwt`: the key that signs the tokens of agents.

use clap::{ArgAction, Args, Command, FromArgMatches, Subcommand};
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::Api;
use kube::api::DeleteParams;
use serde::Serialize;
use tiphys_shared::security::secret::Secret;
use tiphys_shared::security::token::{Issuer, inspect_key};

use super::Program;
use super::pki::rfc1123;
use crate::failure::Failure;
use crate::operator::confirm::Consent;
use crate::operator::targets::Targets;
use crate::operator::write::{self, DryRun, IfThere, OPAQUE, Write, secret};
use crate::operator::{self, names};
use crate::output::{self, Format, Table};

/// As upstream.
const BITS: usize = 4096;

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make the key and store it at the control plane
    #[command(name = "create-key")]
    Create(CreateKey),
    /// Show what is known of the key
    #[command(name = "inspect-key")]
    Inspect(InspectKey),
    /// Delete the key
    #[command(name = "delete-key")]
    Delete(DeleteKey),
}

#[derive(Debug, Args)]
struct CreateKey {
    /// Replace a key that is there
    #[arg(long, short, action = ArgAction::Set, default_value = "false")]
    upsert: bool,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Debug, Args)]
struct InspectKey {
    /// Form of the answer
    #[arg(long, short, value_name = "FORMAT")]
    output: Option<Format>,
}

#[derive(Debug, Args)]
struct DeleteKey {
    /// Do not ask
    #[arg(long, short, action = ArgAction::Set, default_value = "false")]
    force: bool,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    key_type: &'static str,
    key_length: usize,
    created: String,
    sha256: String,
}

pub(super) fn command() -> Command {
    Verb::augment_subcommands(Command::new("jwt"))
        .about("Manage the key that signs the tokens of agents")
        .subcommand_required(true)
        .arg_required_else_help(true)
}

pub(super) fn run(program: Program, given: &clap::ArgMatches, targets: Targets) -> Result<(), Failure> {
    let verb = Verb::from_arg_matches(given).map_err(Failure::Usage)?;
    operator::run(async move {
        match verb {
            Verb::Create(options) => create(&targets, options).await,
            Verb::Inspect(options) => inspect(program, &targets, options).await,
            Verb::Delete(options) => delete(&targets, options).await,
        }
    })
}

async fn create(targets: &Targets, options: CreateKey) -> Result<(), Failure> {
    let site = targets.control_plane().await?;
    let if_there = if options.upsert {
        IfThere::Replace
    } else {
        IfThere::Refuse("give --upsert to replace it: agents log in again then")
    };
    let write = |key: &[u8]| {
        let secret = secret(names::JWT, OPAQUE, [(names::JWT_KEY, key)]);
        vec![Write { site: &site, secret, if_there }]
    };
    write::check(write(b"")).await?;
    output::say("making a key, which takes a moment");
    let key = Issuer::generate_key(BITS).map_err(|error| Failure::because("cannot make a key", &error))?;
    write::all(write(key.expose()), options.dry_run).await
}

async fn inspect(program: Program, targets: &Targets, options: InspectKey) -> Result<(), Failure> {
    let site = targets.control_plane().await?;
    let at = format!("{}/{}", site.namespace, names::JWT);
    let found = write::read(&site, names::JWT).await?;
    let found = found.ok_or_else(|| {
        Failure::new(format!("there is no Secret {at}")).remedy("make the key with `jwt create-key`")
    })?;
    let key = found.data.as_ref().and_then(|data| data.get(names::JWT_KEY)).ok_or_else(|| {
        Failure::new(format!("Secret {at} has no {}", names::JWT_KEY))
            .remedy("make the key anew with `jwt create-key --upsert`")
    })?;
    let facts = inspect_key(&Secret::new(key.0.as_slice())).map_err(|error| {
        Failure::because(&format!("the key in Secret {at} is no use"), &error)
            .remedy("make it anew with `jwt create-key --upsert`")
    })?;
    let created = found.metadata.creation_timestamp.map(|time| rfc1123(time.0)).unwrap_or_default();
    let summary = Summary { key_type: "RSA", key_length: facts.bits, created, sha256: facts.fingerprint };
    options.output.unwrap_or_else(|| program.machine_format()).print(&summary, || {
        let mut table = Table::new(&["KEY", "BITS", "CREATED", "SHA-256 OF THE PUBLIC KEY"]);
        table.row([
            summary.key_type.to_owned(),
            summary.key_length.to_string(),
            summary.created.clone(),
            summary.sha256.clone(),
        ]);
        table
    })
}

async fn delete(targets: &Targets, options: DeleteKey) -> Result<(), Failure> {
    let site = targets.control_plane().await?;
    let at = format!("{}/{}", site.namespace, names::JWT);
    if write::read(&site, names::JWT).await?.is_none() {
        output::say(&format!("there is no Secret {at}"));
        return Ok(());
    }
    if options.dry_run.dry_run {
        output::say(&format!("would delete Secret {at}"));
        return Ok(());
    }
    let consent = Consent { yes: options.consent.yes || options.force };
    let what = format!(
        "this deletes the key in Secret {at} at {}: the principal does not start without one",
        site.server
    );
    consent.obtain(&what).await?;
    let api: Api<KubeSecret> = Api::namespaced(site.client.clone(), &site.namespace);
    api.delete(names::JWT, &DeleteParams::default())
        .await
        .map_err(|error| Failure::because(&format!("cannot delete Secret {at}"), &error))?;
    output::say(&format!("deleted Secret {at}"));
    Ok(())
}
