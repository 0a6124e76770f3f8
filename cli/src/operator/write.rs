//! Writing Secrets: all of them or, as far as can be known beforehand, none.

mod loss;

use std::collections::BTreeMap;

use clap::{ArgAction, Args};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use tiphys_shared::kube::private_key;

pub(crate) use self::loss::{BUNDLE, merged};
use super::targets::Site;
use crate::failure::Failure;
use crate::output;

/// The flag that keeps everything as it is.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct DryRun {
    /// Say what would be written, and let the API server check it, but change nothing
    #[arg(long, action = ArgAction::Set, default_value = "false")]
    pub(crate) dry_run: bool,
}

/// What to do about a Secret that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfThere {
    /// Give up; the text says with what flag one would not.
    Refuse(&'static str),
    /// Put the new one in its place, with the labels and annotations of the old one.
    Replace,
    /// The same, and go on believing the CAs in its bundle, if it has one.
    Extend,
}

/// A Secret to be written.
pub(crate) struct Write<'a> {
    pub(crate) site: &'a Site,
    pub(crate) secret: Secret,
    pub(crate) if_there: IfThere,
}

/// A Secret.
pub(crate) fn secret<const N: usize>(name: &str, kind: &str, data: [(&str, &[u8]); N]) -> Secret {
    let mut secret = Secret { type_: Some(kind.to_owned()), ..Secret::default() };
    secret.metadata.name = Some(name.to_owned());
    let entries = data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.to_vec())));
    secret.data = Some(entries.collect::<BTreeMap<_, _>>());
    secret
}

/// Types of Secrets.
pub(crate) const TLS: &str = "kubernetes.io/tls";
pub(crate) const OPAQUE: &str = "Opaque";

/// Reads a Secret, if it is there.
pub(crate) async fn read(site: &Site, name: &str) -> Result<Option<Secret>, Failure> {
    let api: Api<Secret> = Api::namespaced(site.client.clone(), &site.namespace);
    api.get_opt(name).await.map_err(|error| {
        Failure::because(&format!("cannot read Secret {}/{name} at {}", site.namespace, site.server), &error)
    })
}

/// Tries all without effect, for whoever still has to make what is to be written, which may take long.
///
/// # Errors
/// What [`all`] would fail with.
pub(crate) async fn check(writes: Vec<Write<'_>>) -> Result<(), Failure> {
    planned(writes).await.map(drop)
}

async fn planned(writes: Vec<Write<'_>>) -> Result<Vec<Plan>, Failure> {
    let mut plans = Vec::with_capacity(writes.len());
    for write in writes {
        plans.push(Plan::new(write).await?);
    }
    for plan in &plans {
        plan.carry_out(true).await?;
    }
    Ok(plans)
}

/// Writes all. Each is first tried without effect, so that what the API server refuses is known before anything is
/// changed.
///
/// # Errors
/// A Secret that is there is not to be replaced, or holds a private key that would be lost; or an API server refuses.
pub(crate) async fn all(writes: Vec<Write<'_>>, dry_run: DryRun) -> Result<(), Failure> {
    let plans = planned(writes).await?;
    for (done, plan) in plans.iter().enumerate() {
        if !dry_run.dry_run {
            plan.carry_out(false).await.map_err(|failure| {
                if done == 0 {
                    failure
                } else {
                    failure.after(&format!("{done} of {} Secrets were written", plans.len()))
                }
            })?;
        }
        output::say(&plan.story(dry_run.dry_run));
        for remark in &plan.remarks {
            output::say(&format!("  {remark}"));
        }
    }
    Ok(())
}

struct Plan {
    api: Api<Secret>,
    secret: Secret,
    name: String,
    namespace: String,
    replaces: bool,
    /// What is lost, and what is kept.
    remarks: Vec<String>,
}

impl Plan {
    async fn new(write: Write<'_>) -> Result<Self, Failure> {
        let Write { site, mut secret, if_there } = write;
        let name = secret.metadata.name.clone().unwrap_or_default();
        let namespace = site.namespace.clone();
        let there = read(site, &name).await?;
        let mut remarks = Vec::new();
        if let Some(there) = &there {
            if let IfThere::Refuse(hint) = if_there {
                return Err(Failure::new(format!("Secret {namespace}/{name} is there already")).remedy(hint));
            }
            let (old, new) = (there.data.clone().unwrap_or_default(), secret.data.get_or_insert_default());
            if let Some(entry) = private_key::lost(&old, new) {
                return Err(Failure::new(format!(
                    "Secret {namespace}/{name} at {} holds a private key, {entry}, which would be lost",
                    site.server
                ))
                .remedy("that is a control plane's: name another cluster or namespace"));
            }
            if if_there == IfThere::Extend {
                remarks.extend(loss::extend(&old, new));
            }
            remarks.extend(loss::dropped(&old, new));
            let kind = |secret: &Secret| secret.type_.clone().unwrap_or_else(|| OPAQUE.to_owned());
            if kind(there) != kind(&secret) {
                return Err(Failure::new(format!(
                    "Secret {namespace}/{name} has the type {}, must have {}, and a type cannot be changed",
                    kind(there),
                    kind(&secret)
                ))
                .remedy(format!(
                    "if nobody needs what is in it, delete it at {} first: kubectl -n {namespace} delete secret {name}",
                    site.server
                )));
            }
            let wanted = std::mem::take(&mut secret.metadata);
            secret.metadata.name = Some(name.clone());
            secret.metadata.resource_version = there.metadata.resource_version.clone();
            secret.metadata.labels = joined(&there.metadata.labels, wanted.labels);
            secret.metadata.annotations = joined(&there.metadata.annotations, wanted.annotations);
            secret.metadata.owner_references = there.metadata.owner_references.clone();
            secret.metadata.finalizers = there.metadata.finalizers.clone();
        }
        let api = Api::namespaced(site.client.clone(), &site.namespace);
        Ok(Self { api, secret, name, namespace, replaces: there.is_some(), remarks })
    }

    async fn carry_out(&self, dry_run: bool) -> Result<(), Failure> {
        let params = PostParams { dry_run, ..PostParams::default() };
        let written = if self.replaces {
            self.api.replace(&self.name, &params, &self.secret).await
        } else {
            self.api.create(&params, &self.secret).await
        };
        written.map(drop).map_err(|error| {
            Failure::because(&format!("cannot write Secret {}/{}", self.namespace, self.name), &error)
        })
    }

    fn story(&self, dry_run: bool) -> String {
        let verb = match (dry_run, self.replaces) {
            (true, true) => "would replace",
            (true, false) => "would create",
            (false, true) => "replaced",
            (false, false) => "created",
        };
        let keys: Vec<&str> = self.secret.data.iter().flatten().map(|(key, _)| key.as_str()).collect();
        let kind = self.secret.type_.as_deref().unwrap_or(OPAQUE);
        format!("{verb} Secret {}/{} ({kind}: {})", self.namespace, self.name, keys.join(", "))
    }
}

fn joined(
    there: &Option<BTreeMap<String, String>>,
    wanted: Option<BTreeMap<String, String>>,
) -> Option<BTreeMap<String, String>> {
    let mut all = there.clone().unwrap_or_default();
    all.extend(wanted.unwrap_or_default());
    (!all.is_empty()).then_some(all)
}
