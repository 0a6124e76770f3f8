//! A resource as an agent may see it. Pure; projecting twice is projecting once.

use serde_json::{Value, json};
use tiphys_shared::model::argocd::{IN_CLUSTER, IN_CLUSTER_SERVER, annotation};
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{AgentName, Kind, Object};

use super::mapping::Destination;

/// Annotations that each side keeps for itself.
const OWN_ANNOTATIONS: [&str; 3] = [annotation::LAST_APPLIED, annotation::LAST_UPDATED, annotation::NOTIFIED];

/// What `agent` may see of `object`.
pub(crate) fn project(
    kind: Kind,
    object: &Object,
    agent: &AgentName,
    keep_source_namespaces: bool,
) -> Object {
    let mut seen = object.clone();
    seen.metadata.managed_fields = None;
    seen.metadata.owner_references = None;
    if let Some(annotations) = &mut seen.metadata.annotations {
        annotations.retain(|key, _| !OWN_ANNOTATIONS.contains(&key.as_str()));
    }
    match kind {
        Kind::Application => {
            // The cluster owns the status, and operations travel on their own.
            seen.set_field("status", None);
            seen.set_field("operation", None);
        }
        Kind::AppProject => {
            seen.set_field("status", None);
            project_app_project(&mut seen, agent, keep_source_namespaces);
        }
        Kind::Repository => {}
    }
    seen
}

fn project_app_project(project: &mut Object, agent: &AgentName, keep_source_namespaces: bool) {
    let Some(Value::Object(spec)) = project.data.get_mut("spec") else { return };
    let destinations: Vec<Value> = spec
        .get("destinations")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|value| is_in_cluster(value) || Destination::of(value).is_of(agent))
        .cloned()
        .map(|mut value| {
            if let Value::Object(fields) = &mut value {
                fields.insert("name".to_owned(), json!(IN_CLUSTER));
                fields.insert("server".to_owned(), json!(IN_CLUSTER_SERVER));
            }
            value
        })
        .collect();
    spec.insert("destinations".to_owned(), Value::Array(destinations));
    if !keep_source_namespaces {
        spec.remove("sourceNamespaces");
    }
    // Roles are for people at the control plane.
    spec.remove("roles");
}

/// Already projected.
fn is_in_cluster(destination: &Value) -> bool {
    destination.get("name").and_then(Value::as_str) == Some(IN_CLUSTER)
        && destination.get("server").and_then(Value::as_str) == Some(IN_CLUSTER_SERVER)
}

/// Whether agents that see both would see a difference.
pub(crate) fn differs(kind: Kind, old: &Object, new: &Object) -> bool {
    let annotations = |object: &Object| -> Vec<(String, String)> {
        object
            .metadata
            .annotations
            .iter()
            .flatten()
            .filter(|(key, _)| !OWN_ANNOTATIONS.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let content = kind.content_field();
    old.uid() != new.uid()
        || old.is_deleting() != new.is_deleting()
        || old.field(content) != new.field(content)
        || old.metadata.labels != new.metadata.labels
        || old.metadata.finalizers != new.metadata.finalizers
        || (kind == Kind::Repository && old.field("type") != new.field("type"))
        || annotations(old) != annotations(new)
}
