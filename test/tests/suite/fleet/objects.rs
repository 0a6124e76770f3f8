//! What users write, and how it is read.

use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::core::DynamicObject;
use serde_json::{Value, json};

/// An Application as a user writes it.
pub(crate) fn application(name: &str, revision: &str) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
        "metadata": {"name": name, "labels": {"team": "blue"}},
        "spec": {
            "project": "default",
            "source": {"repoURL": "https://git.example.com/app.git", "path": "deploy", "targetRevision": revision},
            "destination": {"name": "somewhere", "namespace": "guests"},
        },
    }))
    .unwrap()
}

/// Merges a patch into an object.
pub(crate) async fn merge(api: &Api<DynamicObject>, name: &str, patch: Value) -> DynamicObject {
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap()
}

/// Deletes an object, and lets what it leads to happen by itself.
pub(crate) async fn delete(api: &Api<DynamicObject>, name: &str) {
    api.delete(name, &DeleteParams::background()).await.unwrap();
}

/// The revision that an Application asks for.
pub(crate) fn revision(object: &DynamicObject) -> &str {
    object.data["spec"]["source"]["targetRevision"].as_str().unwrap_or_default()
}

/// The UID of the original that an object says to be a copy of.
pub(crate) fn source_uid(object: &DynamicObject) -> &str {
    object.annotations().get("argocd.argoproj.io/source-uid").map(String::as_str).unwrap_or_default()
}
