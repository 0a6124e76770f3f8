//! A resource that an autonomous cluster owns, as the control plane shows it. Pure.

use serde_json::{Value, json};
use tiphys_shared::kube::kinds::api_resource;
use tiphys_shared::model::argocd::annotation;
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{AgentName, Kind, Object, ResourceKey};
use tiphys_shared::protocol::ownership;
use tiphys_shared::protocol::resync::digest::{self, Scope};
use tiphys_shared::protocol::resync::tree::LeafName;

/// Longest name of a Kubernetes object.
const LONGEST: usize = 253;

/// Why a resource cannot be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("a {0} has no place here")]
    Kind(Kind),
    #[error("the resource has no name")]
    NoName,
    #[error("the name of the project is longer than 253 characters once the agent's is put before it")]
    TooLong,
    #[error("the resource has no uid")]
    NoUid,
}

/// Where things of autonomous agents are shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// The agent.
    pub(crate) agent: &'a AgentName,
    /// Where Argo CD lives at the control plane.
    pub(crate) namespace: &'a str,
}

impl Place<'_> {
    /// Where the agent's resource of this name is shown.
    pub(crate) fn key(&self, kind: Kind, name: &str) -> Result<ResourceKey, Error> {
        if name.is_empty() {
            return Err(Error::NoName);
        }
        match kind {
            Kind::Application => Ok(ResourceKey::new(kind, self.agent.as_str(), name)),
            Kind::AppProject => Ok(ResourceKey::new(kind, self.namespace, self.project(name)?)),
            other => Err(Error::Kind(other)),
        }
    }

    /// What the agent calls what is shown there; none for what is not its own.
    pub(crate) fn name(&self, shown: &Object, kind: Kind) -> Option<LeafName> {
        let name = match kind {
            Kind::Application if shown.namespace() == self.agent.as_str() => shown.name(),
            Kind::AppProject if is_project_of(shown, self.agent.as_str()) => {
                shown.name().strip_prefix(self.agent.as_str())?.strip_prefix('-')?
            }
            _ => return None,
        };
        Some(LeafName { kind, namespace: String::new(), name: name.to_owned() })
    }

    fn project(&self, name: &str) -> Result<String, Error> {
        let shown = format!("{}-{name}", self.agent);
        if shown.len() > LONGEST { Err(Error::TooLong) } else { Ok(shown) }
    }

    /// What the agent sent as it is shown, sealed. `cluster` is what Argo CD calls the agent's cluster.
    pub(crate) fn show(&self, kind: Kind, incoming: &Object, cluster: &str) -> Result<Object, Error> {
        let key = self.key(kind, incoming.name())?;
        if incoming.uid().is_empty() {
            return Err(Error::NoUid);
        }
        let mut shown = Object::new(&key.name, &api_resource(kind));
        shown.metadata.namespace = Some(key.namespace);
        shown.metadata.labels = incoming.metadata.labels.clone();
        shown.metadata.annotations = Some(ownership::followed_annotations(incoming));
        shown.annotate(annotation::SOURCE_UID, incoming.uid());
        // Neither finalizers nor owners: deleting what is shown deletes nothing else.
        shown.set_field("spec", incoming.field("spec").cloned());
        match kind {
            Kind::Application => {
                shown.set_field("status", incoming.field("status").cloned());
                self.show_application(&mut shown, cluster)?;
            }
            _ => self.show_project(&mut shown, incoming.name()),
        }
        let owner = digest::digest(kind, Scope::Whole, incoming);
        digest::seal(kind, Scope::Whole, &mut shown, owner);
        Ok(shown)
    }

    fn show_application(&self, shown: &mut Object, cluster: &str) -> Result<(), Error> {
        if let Some(Value::Object(spec)) = shown.data.get_mut("spec") {
            let project = spec.get("project").and_then(Value::as_str).unwrap_or_default();
            let project = self.project(project)?;
            spec.insert("project".to_owned(), json!(project));
            let destination = spec.entry("destination").or_insert_with(|| json!({}));
            if let Value::Object(destination) = destination {
                destination.insert("name".to_owned(), json!(cluster));
                destination.remove("server");
            }
        }
        let children = shown.data.pointer_mut("/status/resources").and_then(Value::as_array_mut);
        for child in children.into_iter().flatten() {
            let is_application = child.get("group").and_then(Value::as_str) == Some("argoproj.io")
                && child.get("kind").and_then(Value::as_str) == Some("Application");
            if let (true, Value::Object(child)) = (is_application, child) {
                child.insert("namespace".to_owned(), json!(self.agent.as_str()));
            }
        }
        Ok(())
    }

    fn show_project(&self, shown: &mut Object, original: &str) {
        let (agent, project) = (self.agent.as_str(), shown.name().to_owned());
        let Some(Value::Object(spec)) = shown.data.get_mut("spec") else {
            shown.set_field("spec", Some(json!({"sourceNamespaces": [agent]})));
            return;
        };
        spec.insert("sourceNamespaces".to_owned(), json!([agent]));
        for destination in spec.get_mut("destinations").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Value::Object(destination) = destination {
                destination.insert("name".to_owned(), json!(agent));
                destination.insert("server".to_owned(), json!("*"));
            }
        }
        for role in spec.get_mut("roles").and_then(Value::as_array_mut).into_iter().flatten() {
            let name = role.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            for policy in role.get_mut("policies").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Value::String(line) = policy {
                    *line = show_policy(line, original, &project, &name, agent);
                }
            }
        }
    }
}

/// The agent whose project is shown.
pub(crate) fn agent_of_project(shown: &Object) -> Option<&str> {
    match shown.at(&["spec", "sourceNamespaces"])?.as_array()?.as_slice() {
        [Value::String(agent)] => Some(agent),
        _ => None,
    }
}

/// Whether what is shown is a project of the agent: it says so, or users have made it say nothing that makes sense, and by
/// its name it may be.
pub(crate) fn is_project_of(shown: &Object, agent: &str) -> bool {
    let is_named_after =
        |agent: &str| shown.name().strip_prefix(agent).is_some_and(|rest| rest.starts_with('-'));
    shown.source_uid().is_some()
        && is_named_after(agent)
        && agent_of_project(shown).is_none_or(|other| other == agent || !is_named_after(other))
}

/// A line of a role's policy: `p, proj:PROJECT:ROLE, RESOURCE, ACTION, PROJECT/OBJECT, EFFECT`. Applications are in
/// another namespace where they are shown, so an object gets that namespace. What is not such a line stays as it is.
fn show_policy(line: &str, original: &str, shown: &str, role: &str, agent: &str) -> String {
    let fields: Vec<&str> = line.split(',').collect();
    let [kind, subject, resource, action, object, effect] = fields.as_slice() else { return line.to_owned() };
    let known = ["applications", "applicationsets", "logs", "exec"];
    if kind.trim() != "p" || !known.contains(&resource.trim()) {
        return line.to_owned();
    }
    let subject = match subject.trim().split(':').collect::<Vec<_>>().as_slice() {
        ["proj", project, of] if *project == original && *of == role => format!(" proj:{shown}:{role}"),
        ["proj", _] => (*subject).to_owned(),
        _ => return line.to_owned(),
    };
    let object = match object.trim().split('/').collect::<Vec<_>>().as_slice() {
        [project, name] if *project == original => format!(" {shown}/{agent}/{name}"),
        [_, _] => return line.to_owned(),
        _ => (*object).to_owned(),
    };
    [*kind, &subject, *resource, *action, &object, *effect].join(",")
}

#[cfg(test)]
mod tests;
