//! Which agent may have which resource. Pure.

use tiphys_shared::model::argocd::{IN_CLUSTER, label};
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{AgentName, Kind, Object};
use tiphys_shared::process::options::NamePattern;

/// How resources are mapped to agents.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    /// Where AppProjects and repositories live.
    pub(crate) namespace: String,
    /// Applications are read from these namespaces.
    pub(crate) allowed: Vec<NamePattern>,
    /// The destination's name is the agent's, instead of the namespace's.
    pub(crate) by_destination: bool,
}

impl Mapping {
    /// Whether a resource takes part in synchronisation at all.
    pub(crate) fn admits(&self, kind: Kind, object: &Object) -> bool {
        if object.label(label::IGNORE_SYNC) == Some("true") {
            return false;
        }
        let namespace = object.namespace();
        match kind {
            Kind::Application => {
                (self.by_destination && namespace == self.namespace)
                    || self.allowed.iter().any(|pattern| pattern.matches(namespace))
            }
            Kind::AppProject | Kind::Repository | Kind::GpgKey => namespace == self.namespace,
        }
    }

    /// The one agent that an Application belongs to.
    pub(crate) fn agent_of_application(&self, application: &Object) -> Option<AgentName> {
        if !self.admits(Kind::Application, application) {
            return None;
        }
        let name = if self.by_destination {
            let name = application.at(&["spec", "destination", "name"])?.as_str()?;
            if name == IN_CLUSTER {
                return None;
            }
            name
        } else {
            application.namespace()
        };
        AgentName::new(name).ok()
    }

    /// Whether `agent` may have this AppProject: one of its destinations names the agent, none denies it, and, unless
    /// agents are found by destination, the agent's namespace is among its source namespaces.
    pub(crate) fn project_matches(&self, project: &Object, agent: &AgentName) -> bool {
        if !self.admits(Kind::AppProject, project) {
            return false;
        }
        let mut matched = false;
        for destination in destinations(project) {
            if let Some(denied) = destination.name.and_then(|name| name.strip_prefix('!'))
                && matches(denied, agent.as_str())
            {
                return false;
            }
            matched |= destination.is_of(agent);
        }
        matched
            && (self.by_destination
                || strings(project.at(&["spec", "sourceNamespaces"]))
                    .any(|text| matches(text, agent.as_str())))
    }

    /// Whether `agent` may have this repository or these credentials: it may have their AppProject.
    pub(crate) fn repository_matches(
        &self,
        repository: &Object,
        agent: &AgentName,
        project: impl FnOnce(&str) -> Option<std::sync::Arc<Object>>,
    ) -> bool {
        self.admits(Kind::Repository, repository)
            && project_of_repository(repository)
                .and_then(|name| project(&name))
                .is_some_and(|project| self.project_matches(&project, agent))
    }
}

/// The AppProject that a repository Secret is for; none for one that is for all, which no agent gets.
pub(crate) fn project_of_repository(repository: &Object) -> Option<String> {
    use base64::Engine as _;
    let encoded = repository.at(&["data", "project"])?.as_str()?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
    String::from_utf8(bytes).ok().filter(|name| !name.is_empty())
}

/// A destination of an AppProject.
pub(crate) struct Destination<'a> {
    name: Option<&'a str>,
    server: Option<&'a str>,
}

impl<'a> Destination<'a> {
    pub(crate) fn of(value: &'a serde_json::Value) -> Self {
        let text = |field: &str| {
            value.get(field).and_then(serde_json::Value::as_str).filter(|text| !text.is_empty())
        };
        Self { name: text("name"), server: text("server") }
    }

    /// Whether it names the agent, or a server that stands for the agent.
    pub(crate) fn is_of(&self, agent: &AgentName) -> bool {
        match (self.name, self.server) {
            (Some(name), _) => matches(name, agent.as_str()),
            (None, Some("*")) => true,
            (None, Some(server)) => {
                agent_in_url(server).is_some_and(|pattern| matches(&pattern, agent.as_str()))
            }
            (None, None) => false,
        }
    }
}

fn destinations(project: &Object) -> impl Iterator<Item = Destination<'_>> {
    project
        .at(&["spec", "destinations"])
        .and_then(serde_json::Value::as_array)
        .into_iter()
        .flatten()
        .map(Destination::of)
}

fn strings(value: Option<&serde_json::Value>) -> impl Iterator<Item = &str> {
    value.and_then(serde_json::Value::as_array).into_iter().flatten().filter_map(serde_json::Value::as_str)
}

/// The `agentName` in the query of a resource proxy's URL.
fn agent_in_url(server: &str) -> Option<String> {
    let uri: http::Uri = server.parse().ok()?;
    uri.query()?
        .split('&')
        .find_map(|pair| pair.strip_prefix("agentName="))
        .filter(|name| !name.is_empty())
        .map(|name| name.replace("%2A", "*").replace("%2a", "*"))
}

/// A pattern that cannot be read matches nothing: a typing error must not hand a project to every agent.
fn matches(pattern: &str, name: &str) -> bool {
    NamePattern::new(pattern).is_ok_and(|pattern| pattern.matches(name))
}
