//! Where the API server serves each [`Kind`].

use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};

use crate::model::argocd::label;
use crate::model::{Kind, Object};

/// The API resource that holds objects of `kind`.
pub fn api_resource(kind: Kind) -> ApiResource {
    match kind {
        Kind::Application => argo("Application", "applications"),
        Kind::AppProject => argo("AppProject", "appprojects"),
        Kind::Repository => {
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Secret"), "secrets")
        }
        Kind::GpgKey => {
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "ConfigMap"), "configmaps")
        }
    }
}

fn argo(kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", kind), plural)
}

/// The objects of `kind` in one namespace, or in all.
pub fn api(client: &Client, kind: Kind, namespace: Option<&str>) -> Api<Object> {
    let resource = api_resource(kind);
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// Name of the config map with the GPG keys.
pub const GPG_KEYS: &str = "argocd-gpg-keys-cm";

/// Field selector of that config map.
pub fn gpg_keys_field_selector() -> String {
    format!("metadata.name={GPG_KEYS}")
}

/// Label selector of the Secrets with repositories and their credentials, narrowed by the user's.
pub fn repository_selector(labels: Option<&str>) -> String {
    let own = format!("{} in (repository,repo-creds)", label::SECRET_TYPE);
    labels.filter(|labels| !labels.is_empty()).map_or_else(|| own.clone(), |labels| format!("{own},{labels}"))
}
