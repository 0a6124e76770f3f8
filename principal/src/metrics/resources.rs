//! What became of the resources of agents at the control plane.

use prometheus::{IntCounter, IntGauge};
use tiphys_shared::model::Kind;
use tiphys_shared::process::metrics::{Error, Register, register};

/// What happened to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Created,
    Updated,
    Deleted,
}

#[derive(Debug)]
pub(super) struct Resources {
    applications: Lifecycle,
    projects: Lifecycle,
    repositories: Lifecycle,
    gpg_keys: IntGauge,
}

#[derive(Debug)]
struct Lifecycle {
    created: IntCounter,
    updated: IntCounter,
    deleted: IntCounter,
}

impl Lifecycle {
    fn new(registry: &impl Register, resource: &str) -> Result<Self, Error> {
        let counter = |verb: &str| {
            let (name, help) = (
                format!("principal_{resource}_{verb}"),
                format!("Number of {resource} of agents {verb} at the control plane"),
            );
            register(registry, IntCounter::new(name, help)?)
        };
        Ok(Self { created: counter("created")?, updated: counter("updated")?, deleted: counter("deleted")? })
    }
}

impl Resources {
    pub(super) fn new(registry: &impl Register) -> Result<Self, Error> {
        let gpg_keys = IntGauge::new(
            "argocd_principal_gpg_keys_count",
            "Number of GPG keys that agents are given to check commits by",
        )?;
        Ok(Self {
            applications: Lifecycle::new(registry, "applications")?,
            projects: Lifecycle::new(registry, "app_projects")?,
            repositories: Lifecycle::new(registry, "repositories")?,
            gpg_keys: register(registry, gpg_keys)?,
        })
    }

    pub(super) fn count(&self, kind: Kind, verb: Verb) {
        let lifecycle = match kind {
            Kind::Application => &self.applications,
            Kind::AppProject => &self.projects,
            Kind::Repository => &self.repositories,
            Kind::GpgKey => return,
        };
        match verb {
            Verb::Created => lifecycle.created.inc(),
            Verb::Updated => lifecycle.updated.inc(),
            Verb::Deleted => lifecycle.deleted.inc(),
        }
    }

    pub(super) fn gpg_keys(&self, number: usize) {
        self.gpg_keys.set(i64::try_from(number).unwrap_or(i64::MAX));
    }
}
