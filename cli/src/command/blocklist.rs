//! `blocklist`: certificates that are refused although the CA signed them.

use std::collections::BTreeMap;

use clap::{Args, Command, FromArgMatches, Subcommand};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde::Serialize;
use serde_json::{Value, json};
use tiphys_shared::security::blocklist::fingerprint as canonical;
use tiphys_shared::security::pki::Certificate;

use crate::failure::Failure;
use crate::operator::targets::{Site, Targets};
use crate::operator::write::DryRun;
use crate::operator::{self, names};
use crate::output::{self, Format, Table};

const EXAMPLES: &str = "\
Examples:
  tiphys blocklist tls add 3F2A…            refuse the certificate with this SHA-256 fingerprint
  tiphys blocklist tls add --file lost.crt --reason 'laptop stolen'
  tiphys blocklist tls list
  tiphys agent inspect edge-1               tells the fingerprint of an agent's certificate for the proxy";

#[derive(Debug, Subcommand)]
enum Verb {
    /// TLS certificates, by their fingerprints
    #[command(subcommand)]
    Tls(Tls),
}

#[derive(Debug, Subcommand)]
enum Tls {
    /// Refuse a certificate, also on streams that are open
    Add(Add),
    /// Take a certificate off the list
    Remove(Remove),
    /// Show what is refused
    List(List),
}

#[derive(Debug, Args)]
struct Add {
    #[command(flatten)]
    which: Which,
    /// Why, for those who read the list later
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Debug, Args)]
struct Remove {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// SHA-256 of the certificate: 64 hexadecimal digits, with or without colons
    #[arg(value_name = "FINGERPRINT")]
    fingerprint: Option<String>,
    /// File with the certificate in PEM
    #[arg(long, value_name = "FILE")]
    file: Option<std::path::PathBuf>,
}

#[derive(Debug, Args)]
struct List {
    /// Form of the answer
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Debug, Serialize)]
struct Entry {
    fingerprint: String,
    reason: String,
}

pub(super) fn command() -> Command {
    Verb::augment_subcommands(Command::new("blocklist"))
        .about("Refuse certificates that are lost")
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .arg_required_else_help(true)
}

pub(super) fn run(given: &clap::ArgMatches, targets: Targets) -> Result<(), Failure> {
    let Verb::Tls(verb) = Verb::from_arg_matches(given).map_err(Failure::Usage)?;
    operator::run(async move {
        match verb {
            Tls::Add(options) => {
                let fingerprint = options.which.fingerprint()?;
                add(&targets.control_plane().await?, &fingerprint, &options.reason, options.dry_run).await
            }
            Tls::Remove(options) => {
                let fingerprint = options.which.fingerprint()?;
                remove(&targets.control_plane().await?, &fingerprint, options.dry_run).await
            }
            Tls::List(options) => list(&targets.control_plane().await?, options.output).await,
        }
    })
}

impl Which {
    fn fingerprint(&self) -> Result<String, Failure> {
        if let Some(path) = &self.file {
            let pem = std::fs::read(path)
                .map_err(|error| Failure::because(&format!("cannot read {}", path.display()), &error))?;
            let certificate = Certificate::from_pem(&pem).map_err(|error| {
                Failure::because(&format!("{} is no certificate", path.display()), &error)
                    .remedy("give a file in PEM (-----BEGIN CERTIFICATE-----)")
            })?;
            return Ok(certificate.fingerprint);
        }
        let text = self.fingerprint.as_deref().unwrap_or_default();
        canonical(text).ok_or_else(|| {
            Failure::usage(format!("{text:?} is not a SHA-256 fingerprint")).remedy(
                "write 64 hexadecimal digits, as `openssl x509 -noout -fingerprint -sha256` prints them",
            )
        })
    }
}

fn api(site: &Site) -> Api<ConfigMap> {
    Api::namespaced(site.client.clone(), &site.namespace)
}

async fn read(site: &Site) -> Result<Option<BTreeMap<String, String>>, Failure> {
    let found = api(site).get_opt(names::BLOCKLIST).await.map_err(|error| failed(site, "read", &error))?;
    Ok(found.map(|map| map.data.unwrap_or_default()))
}

fn failed(site: &Site, verb: &str, error: &kube::Error) -> Failure {
    Failure::because(&format!("cannot {verb} config map {}/{}", site.namespace, names::BLOCKLIST), error)
}

/// The keys of a list that stand for a certificate, however they are written.
fn same<'a>(entries: &'a BTreeMap<String, String>, fingerprint: &str) -> Vec<&'a str> {
    entries.keys().filter(|key| canonical(key).as_deref() == Some(fingerprint)).map(String::as_str).collect()
}

async fn add(site: &Site, fingerprint: &str, reason: &str, dry_run: DryRun) -> Result<(), Failure> {
    let there = read(site).await?;
    let dry = dry_run.dry_run;
    if let Some(entries) = &there
        && let [key, ..] = same(entries, fingerprint).as_slice()
    {
        let known = entries.get(*key).map(String::as_str).unwrap_or_default();
        if reason.is_empty() || reason == known {
            output::say(&format!("{fingerprint} is on the blocklist already"));
            return Ok(());
        }
        let patch = Patch::Merge(json!({"data": {*key: reason}}));
        let params = PatchParams { dry_run: dry, ..PatchParams::default() };
        let written = api(site).patch(names::BLOCKLIST, &params, &patch).await;
        written.map_err(|error| failed(site, "write", &error))?;
        let verb = if dry { "would be" } else { "is" };
        output::say(&format!(
            "{fingerprint} is on the blocklist already; its reason {verb} {reason:?} now, after {known:?}"
        ));
        return Ok(());
    }
    // One entry is merged in: what others add at the same time stays.
    let written = if there.is_some() {
        let patch = json!({"data": {fingerprint: reason}});
        api(site)
            .patch(
                names::BLOCKLIST,
                &PatchParams { dry_run: dry, ..PatchParams::default() },
                &Patch::Merge(patch),
            )
            .await
    } else {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(names::BLOCKLIST.to_owned());
        map.data = Some([(fingerprint.to_owned(), reason.to_owned())].into());
        api(site).create(&PostParams { dry_run: dry, ..PostParams::default() }, &map).await
    };
    written.map_err(|error| failed(site, "write", &error))?;
    output::say(&format!("{} {fingerprint}", if dry { "would block" } else { "blocked" }));
    Ok(())
}

async fn remove(site: &Site, fingerprint: &str, dry_run: DryRun) -> Result<(), Failure> {
    let there = read(site).await?.unwrap_or_default();
    let keys = same(&there, fingerprint);
    if keys.is_empty() {
        output::say(&format!("{fingerprint} is not on the blocklist"));
        return Ok(());
    }
    let gone: serde_json::Map<String, Value> =
        keys.into_iter().map(|key| (key.to_owned(), Value::Null)).collect();
    let params = PatchParams { dry_run: dry_run.dry_run, ..PatchParams::default() };
    let patch = Patch::Merge(json!({"data": gone}));
    api(site)
        .patch(names::BLOCKLIST, &params, &patch)
        .await
        .map_err(|error| failed(site, "write", &error))?;
    let verb = if dry_run.dry_run { "would take" } else { "took" };
    output::say(&format!("{verb} {fingerprint} off the blocklist"));
    Ok(())
}

async fn list(site: &Site, format: Format) -> Result<(), Failure> {
    let entries = read(site).await?.unwrap_or_default();
    let entries: Vec<Entry> =
        entries.into_iter().map(|(fingerprint, reason)| Entry { fingerprint, reason }).collect();
    if entries.is_empty() && format == Format::Table {
        output::say("the blocklist is empty");
        return Ok(());
    }
    format.print(&entries, || {
        let mut table = Table::new(&["FINGERPRINT", "REASON"]);
        for entry in &entries {
            table.row([entry.fingerprint.clone(), entry.reason.clone()]);
        }
        table
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_found_however_it_is_written() {
        let entries: BTreeMap<String, String> =
            [("ab".repeat(32), String::new()), ("note".into(), String::new())].into();
        assert_eq!(same(&entries, &"AB".repeat(32)), ["ab".repeat(32)]);
        assert!(same(&entries, &"CD".repeat(32)).is_empty());
    }
}
