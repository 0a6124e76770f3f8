//! Where the API server serves each [`Kind`].

use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};

use crate::model::{Kind, Object};

/// The API resource that holds objects of `kind`.
pub fn api_resource(kind: Kind) -> ApiResource {
    match kind {
        Kind::Application => argo("Application", "applications"),
        Kind::AppProject => argo("AppProject", "appprojects"),
        Kind::Repository => {
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Secret"), "secrets")
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
