//! Managed mode: the cluster has what the control plane declares, and the control plane shows how it stands.

use serde_json::{Value, json};
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Kind, Object};

use super::super::plan::AgentPlan;
use super::super::world::NAMESPACE;
use super::{View, finalizers, is_ignored, labels, notes, same};

pub(super) fn differences(agent: &AgentPlan, control: &View, cluster: &View, found: &mut Vec<String>) {
    for (key, original) in &control.objects {
        let concerns = match key.kind {
            Kind::Application => key.namespace == agent.name.as_str() && !is_ignored(original),
            Kind::AppProject => original.source_uid().is_none() && may_have(original, agent),
            Kind::Repository => project_of(original, control)
                .is_some_and(|project| project.source_uid().is_none() && may_have(project, agent)),
            Kind::GpgKey => false,
        };
        if !concerns {
            continue;
        }
        if original.is_deleting() {
            found.push(format!("{key}: its deletion does not come to an end"));
            continue;
        }
        let Some(copy) = cluster.get(key.kind, NAMESPACE, &key.name) else {
            found.push(format!("{key} is not at agent {}", agent.name));
            continue;
        };
        same("the life", key, Some(original.uid().to_owned()), copy.source_uid().map(|uid| uid.0), found);
        same("the end", key, false, copy.is_deleting(), found);
        // What users do to these while the agent is away is not seen by upstream's comparison.
        if agent.compares() {
            same("labels", key, labels(original), labels(copy), found);
            same("annotations", key, notes(original), notes(copy), found);
            same("finalizers", key, finalizers(original), finalizers(copy), found);
        }
        let field = key.kind.content_field();
        same("the content", key, Some(&expected(original, key.kind, agent)), copy.field(field), found);
        if key.kind == Kind::Application {
            same("the status", key, copy.field("status"), original.field("status"), found);
            requests(key, original, copy, found);
        }
    }
    for (key, copy) in &cluster.objects {
        let Some(source) = copy.source_uid() else { continue };
        let original = control.objects.values().find(|original| original.uid() == source.0);
        let is_wanted = original.is_some_and(|original| match key.kind {
            Kind::Application => original.namespace() == agent.name.as_str() && !is_ignored(original),
            Kind::AppProject => may_have(original, agent),
            Kind::Repository => project_of(original, control).is_some_and(|project| may_have(project, agent)),
            Kind::GpgKey => false,
        });
        if !is_wanted {
            found.push(format!("{key} at agent {} is a copy of nothing that it should have", agent.name));
        }
    }
}

fn requests(
    key: &tiphys_shared::model::ResourceKey,
    original: &Object,
    copy: &Object,
    found: &mut Vec<String>,
) {
    for (side, object) in [("control plane", original), ("cluster", copy)] {
        if object.field("operation").is_some() {
            found.push(format!("{key}: an operation is still shown at the {side}"));
        }
        if object.annotation("argocd.argoproj.io/refresh").is_some() {
            found.push(format!("{key}: a request to look again is still shown at the {side}"));
        }
    }
}

/// What the agent is to have of the content.
fn expected(original: &Object, kind: Kind, agent: &AgentPlan) -> Value {
    let mut content = original.field(kind.content_field()).cloned().unwrap_or(Value::Null);
    match kind {
        Kind::Application => {
            if let Some(destination) = content["destination"].as_object_mut() {
                destination.insert("name".to_owned(), json!("in-cluster"));
                destination.remove("server");
            }
        }
        Kind::AppProject => {
            if let Some(spec) = content.as_object_mut() {
                spec.remove("roles");
                spec.remove("sourceNamespaces");
            }
            let own: Vec<Value> = content["destinations"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|destination| names(&destination["name"], agent))
                .map(|destination| {
                    json!({
                        "name": "in-cluster", "server": "https://kubernetes.default.svc",
                        "namespace": destination["namespace"],
                    })
                })
                .collect();
            content["destinations"] = json!(own);
        }
        Kind::Repository | Kind::GpgKey => {}
    }
    content
}

/// Whether one of the few patterns that users write here names the agent.
fn names(pattern: &Value, agent: &AgentPlan) -> bool {
    let (pattern, name) = (pattern.as_str().unwrap_or_default(), agent.name.as_str());
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

fn may_have(project: &Object, agent: &AgentPlan) -> bool {
    let list =
        |field: &str| project.at(&["spec", field]).and_then(Value::as_array).cloned().unwrap_or_default();
    let destinations = list("destinations");
    let denied = json!(format!("!{}", agent.name));
    !is_ignored(project)
        && !destinations.iter().any(|destination| destination["name"] == denied)
        && destinations.iter().any(|destination| names(&destination["name"], agent))
        && list("sourceNamespaces").iter().any(|namespace| names(namespace, agent))
}

/// The project of a repository.
fn project_of<'a>(repository: &Object, control: &'a View) -> Option<&'a Object> {
    use base64::Engine as _;

    let encoded = repository.at(&["data", "project"])?.as_str()?;
    let name = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
    control.get(Kind::AppProject, NAMESPACE, std::str::from_utf8(&name).ok()?)
}
