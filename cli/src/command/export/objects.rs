//! What of an object goes elsewhere, and when. Pure.

use kube::api::DynamicObject;
use kube::discovery::ApiResource;
use serde_json::Value;

use crate::embedded::API_CA;

/// The order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Definition,
    Namespace,
    /// What agents are told. It is there before the keys by which they are let in: who is let in while nothing is there
    /// deletes everything.
    Declared,
    Rest,
}

/// When objects of a kind go, if they do: what reports and what is held for a moment stays.
pub(super) fn stage(resource: &ApiResource) -> Option<Stage> {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("apiextensions.k8s.io", "customresourcedefinitions") => Some(Stage::Definition),
        ("", "namespaces") => Some(Stage::Namespace),
        ("" | "events.k8s.io", "events") | ("coordination.k8s.io", "leases") | ("", "nodes") => None,
        ("argoproj.io", _) => Some(Stage::Declared),
        _ => Some(Stage::Rest),
    }
}

/// The object without what a server sets; none if it is not to be taken along.
pub(super) fn carried(
    mut object: DynamicObject,
    resource: &ApiResource,
    has_status: bool,
) -> Option<DynamicObject> {
    let stage = stage(resource)?;
    let name = object.metadata.name.clone()?;
    let every_cluster_has_it =
        ["default", "kube-node-lease", "kube-public", "kube-system"].contains(&name.as_str());
    if stage == Stage::Namespace && every_cluster_has_it {
        return None;
    }
    let is_own = resource.plural == "secrets"
        && (object.metadata.namespace.as_deref(), name.as_str()) == (Some(API_CA.0), API_CA.1);
    if is_own || object.metadata.deletion_timestamp.is_some() {
        return None;
    }
    object.types =
        Some(kube::api::TypeMeta { api_version: resource.api_version.clone(), kind: resource.kind.clone() });
    let metadata = &mut object.metadata;
    metadata.uid = None;
    metadata.resource_version = None;
    metadata.generation = None;
    metadata.creation_timestamp = None;
    metadata.managed_fields = None;
    metadata.self_link = None;
    metadata.owner_references = None;
    if stage == Stage::Definition {
        metadata.finalizers = None;
    }
    if let Value::Object(fields) = &mut object.data {
        if has_status || stage < Stage::Declared {
            fields.remove("status");
        }
        if stage == Stage::Namespace {
            fields.remove("spec");
        }
    }
    Some(object)
}

/// Whether a definition is served.
pub(super) fn is_established(definition: &DynamicObject) -> bool {
    let conditions = definition.data["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|one| one["type"] == "Established" && one["status"] == "True")
}

#[cfg(test)]
mod tests {
    use kube::api::GroupVersionKind;
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_agents_are_told_is_there_before_they_are_let_in() {
        let stage_of = |group, version, kind| {
            stage(&ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))).unwrap()
        };
        for kind in ["Application", "AppProject"] {
            assert!(stage_of("argoproj.io", "v1alpha1", kind) < stage_of("", "v1", "Secret"));
            assert!(stage_of("argoproj.io", "v1alpha1", kind) > stage_of("", "v1", "Namespace"));
        }
    }

    #[test]
    fn what_a_server_sets_stays_behind() {
        let application =
            ApiResource::from_gvk(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Application"));
        let there = object(json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
            "metadata": {
                "name": "a", "namespace": "edge-1", "uid": "u", "resourceVersion": "7", "generation": 2,
                "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"team": "x"}, "finalizers": ["f.example.com/x"],
                "managedFields": [{"manager": "m"}],
                "ownerReferences": [{"apiVersion": "v1", "kind": "ApplicationSet", "name": "s", "uid": "o"}],
            },
            "spec": {"project": "default"}, "status": {"sync": {"status": "Synced"}},
        }));
        let taken = serde_json::to_value(carried(there.clone(), &application, false).unwrap()).unwrap();
        assert_eq!(
            taken,
            json!({
                "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
                "metadata": {"name": "a", "namespace": "edge-1", "labels": {"team": "x"}, "finalizers": ["f.example.com/x"]},
                "spec": {"project": "default"}, "status": {"sync": {"status": "Synced"}},
            })
        );
        assert_eq!(carried(there, &application, true).unwrap().data.get("status"), None);
    }

    #[test]
    fn definitions_come_first_and_namespaces_before_what_is_in_them() {
        let of = |group: &str, kind: &str| {
            stage(&ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind)))
        };
        let definition = of("apiextensions.k8s.io", "CustomResourceDefinition");
        assert!(definition < of("", "Namespace") && of("", "Namespace") < of("", "Secret"));
        assert_eq!((of("", "Event"), of("coordination.k8s.io", "Lease")), (None, None));
    }

    #[test]
    fn what_every_cluster_has_and_what_goes_is_left_out() {
        let namespaces = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Namespace"));
        let secrets = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Secret"));
        let named =
            |name: &str| object(json!({"metadata": {"name": name}, "spec": {"finalizers": ["kubernetes"]}}));
        assert_eq!(carried(named("kube-system"), &namespaces, true), None);
        let taken = carried(named("edge-1"), &namespaces, true).unwrap();
        assert_eq!(taken.data.get("spec"), None);
        let own = object(json!({"metadata": {"name": API_CA.1, "namespace": API_CA.0}}));
        assert_eq!(carried(own, &secrets, false), None);
        let mut going = named("s");
        going.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(tiphys_shared::process::clock::now()));
        assert_eq!(carried(going, &secrets, false), None);
    }
}
