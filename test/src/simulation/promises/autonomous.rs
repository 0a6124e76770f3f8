//! Autonomous mode: the control plane shows exactly what the cluster has.

use serde_json::{Value, json};
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Kind, Object};

use super::super::plan::AgentPlan;
use super::super::world::NAMESPACE;
use super::{View, is_ignored, labels, notes, same};

pub(super) fn differences(agent: &AgentPlan, control: &View, cluster: &View, found: &mut Vec<String>) {
    let name = agent.name.as_str();
    for (key, original) in &cluster.objects {
        if key.kind == Kind::Repository || is_ignored(original) {
            continue;
        }
        if original.is_deleting() {
            found.push(format!("{key} at {name}: its deletion does not come to an end"));
            continue;
        }
        let shown = match key.kind {
            Kind::Application => control.get(key.kind, name, &key.name),
            _ => control.get(key.kind, NAMESPACE, &format!("{name}-{}", key.name)),
        };
        let Some(shown) = shown else {
            found.push(format!("{key} of agent {name} is not shown"));
            continue;
        };
        same("the life", key, Some(original.uid().to_owned()), shown.source_uid().map(|uid| uid.0), found);
        same("the end", key, false, shown.is_deleting(), found);
        same("labels", key, labels(original), labels(shown), found);
        same("annotations", key, notes(original), notes(shown), found);
        if shown.metadata.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty()) {
            found.push(format!("{key} of agent {name} is shown with finalizers"));
        }
        same("the spec", key, Some(&spec(original, key.kind, agent)), shown.field("spec"), found);
        if key.kind == Kind::Application {
            same("the status", key, status(original, agent), shown.field("status").cloned(), found);
            for (side, object) in [("control plane", shown), ("cluster", original)] {
                if object.field("operation").is_some() {
                    found.push(format!("{key}: an operation is still shown at the {side}"));
                }
                // Of a peer that is not ours, some Applications cannot be refreshed.
                if agent.features.is_some() && object.annotation("argocd.argoproj.io/refresh").is_some() {
                    found.push(format!("{key}: a request to look again is still shown at the {side}"));
                }
            }
        }
    }
    for (key, shown) in &control.objects {
        let is_the_agents = match key.kind {
            Kind::Application => key.namespace == name,
            Kind::AppProject => shown.at(&["spec", "sourceNamespaces"]) == Some(&json!([name])),
            _ => false,
        };
        let Some(source) = shown.source_uid().filter(|_| is_the_agents) else { continue };
        let original = cluster.objects.values().find(|original| original.uid() == source.0);
        if original.is_none_or(is_ignored) {
            found.push(format!("{key} shows nothing that agent {name} has"));
        }
    }
}

/// What is shown of a spec.
fn spec(original: &Object, kind: Kind, agent: &AgentPlan) -> Value {
    let mut spec = original.field("spec").cloned().unwrap_or(Value::Null);
    let name = agent.name.as_str();
    if kind == Kind::Application {
        spec["project"] = json!(format!("{name}-{}", spec["project"].as_str().unwrap_or_default()));
        spec["destination"]["name"] = json!(agent.cluster.as_deref().unwrap_or(name));
        if let Some(destination) = spec["destination"].as_object_mut() {
            destination.remove("server");
        }
        return spec;
    }
    spec["sourceNamespaces"] = json!([name]);
    for destination in spec["destinations"].as_array_mut().into_iter().flatten() {
        destination["name"] = json!(name);
        destination["server"] = json!("*");
    }
    let project = format!("{name}-{}", original.name());
    let line = format!("p, proj:{project}:reader, applications, get, {project}/{name}/*, allow");
    spec["roles"] = json!([{"name": "reader", "policies": [line]}]);
    spec
}

fn status(original: &Object, agent: &AgentPlan) -> Option<Value> {
    let mut status = original.field("status").cloned()?;
    for child in status["resources"].as_array_mut().into_iter().flatten() {
        child["namespace"] = json!(agent.name.as_str());
    }
    Some(status)
}
