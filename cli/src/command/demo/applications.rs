//! The applications of the demo, as a user would write them at the control plane.

use futures::stream::{self, StreamExt, TryStreamExt};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

use super::fleet::Fleet;
use super::ledger::{Key, Ledger};
use crate::failure::Failure;

/// How many writes are under way at once.
const WRITERS: usize = 32;

/// How the API server knows applications.
pub(super) fn resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Application"))
}

/// How the API server knows projects.
pub(super) fn project_resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", "AppProject"))
}

/// A project that lets every application go anywhere.
pub(super) fn project() -> DynamicObject {
    DynamicObject::new("default", &project_resource()).data(json!({
        "spec": {
            "description": "Everything may go everywhere",
            "sourceRepos": ["*"],
            "sourceNamespaces": ["*"],
            "destinations": [{ "name": "*", "server": "*", "namespace": "*" }],
            "clusterResourceWhitelist": [{ "group": "*", "kind": "*" }],
        }
    }))
}

/// The revision that an application asks for, if it is one of ours.
pub(super) fn wanted_revision(application: &DynamicObject) -> Option<u64> {
    parse_revision(&application.data["spec"]["source"]["targetRevision"])
}

/// The revision that an application's status is about.
pub(super) fn reported_revision(application: &DynamicObject) -> Option<u64> {
    parse_revision(&application.data["status"]["sync"]["revision"])
}

/// A revision as text.
pub(super) fn revision(number: u64) -> String {
    format!("rev-{number}")
}

fn parse_revision(value: &Value) -> Option<u64> {
    value.as_str()?.strip_prefix("rev-")?.parse().ok()
}

fn application((agent, name): &Key, number: u64) -> DynamicObject {
    DynamicObject::new(name, &resource()).within(agent).data(json!({
        "spec": {
            "project": "default",
            "source": {
                "repoURL": "https://github.com/argoproj/argocd-example-apps",
                "path": "guestbook",
                "targetRevision": revision(number),
            },
            "destination": { "name": agent, "namespace": "guestbook" },
            "syncPolicy": { "automated": { "prune": true, "selfHeal": true } },
        }
    }))
}

/// Writes `count` applications for every agent.
pub(super) async fn write_all(fleet: &Fleet, ledger: &Ledger, count: usize) -> Result<(), Failure> {
    let keys = fleet
        .clusters
        .iter()
        .flat_map(|cluster| (1..=count).map(|number| (cluster.name.clone(), format!("guestbook-{number}"))));
    stream::iter(keys)
        .map(Ok)
        .try_for_each_concurrent(WRITERS, |key| async move {
            let api: Api<DynamicObject> =
                Api::namespaced_with(fleet.control.client.clone(), &key.0, &resource());
            let number = ledger.write(key.clone());
            api.create(&PostParams::default(), &application(&key, number)).await.map(drop)
        })
        .await
        .map_err(|error: kube::Error| Failure::because("cannot write an application", &error))
}

/// Changes the revision of one application.
pub(super) async fn change(fleet: &Fleet, ledger: &Ledger, key: Key) -> Result<(), Failure> {
    let api: Api<DynamicObject> = Api::namespaced_with(fleet.control.client.clone(), &key.0, &resource());
    let number = ledger.write(key.clone());
    let patch = json!({ "spec": { "source": { "targetRevision": revision(number) } } });
    match api.patch(&key.1, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        // Somebody deleted it from the side: that is what a demo is for.
        Err(kube::Error::Api(status)) if status.code == 404 => {
            ledger.forget(&key);
            Ok(())
        }
        Err(error) => Err(Failure::because("cannot change an application", &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_read_back_from_the_application_that_carries_it() {
        let key = ("cluster-1".to_owned(), "guestbook-1".to_owned());
        let mut written = application(&key, 42);
        assert_eq!(wanted_revision(&written), Some(42));
        assert_eq!(reported_revision(&written), None);
        written.data["spec"]["source"]["targetRevision"] = json!("main");
        assert_eq!(wanted_revision(&written), None);
    }
}
