//! Which agent may have which resource. Pure.

use tiphys_shared::model::argocd::{IN_CLUSTER, label};
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{AgentName, Kind, Object};
use tiphys_shared::process::options::NamePattern;

/// How resources are mapped to agents.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// Where AppProjects and repositories live.
    pub namespace: String,
    /// Applications are read from these namespaces.
    pub allowed: Vec<NamePattern>,
    /// The destination's name is the agent's, instead of the namespace's.
    pub by_destination: bool,
}

/// One of the rules by which it is decided whether an agent may have a resource. All that are asked have to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It is not labelled to be left out.
    NotIgnored,
    /// It lives in a namespace from which resources of its kind are read.
    Served,
    /// The agent is the one that the Application names.
    Chosen,
    /// A destination of the AppProject is the agent's.
    Destination,
    /// No destination of the AppProject denies the agent.
    NotDenied,
    /// The AppProject takes Applications from the agent's namespace.
    SourceNamespace,
    /// The agent may have the AppProject that the repository is for.
    ProjectOfRepository,
}

impl Mapping {
    /// The rules for a kind, in the order in which they are asked.
    pub fn rules(&self, kind: Kind) -> &'static [Rule] {
        match kind {
            Kind::Application => &[Rule::NotIgnored, Rule::Served, Rule::Chosen],
            // Found by destination, agents have no namespace of their own.
            Kind::AppProject if self.by_destination => {
                &[Rule::NotIgnored, Rule::Served, Rule::Destination, Rule::NotDenied]
            }
            Kind::AppProject => {
                &[Rule::NotIgnored, Rule::Served, Rule::Destination, Rule::NotDenied, Rule::SourceNamespace]
            }
            Kind::Repository => &[Rule::NotIgnored, Rule::Served, Rule::ProjectOfRepository],
            Kind::GpgKey => &[Rule::NotIgnored, Rule::Served],
        }
    }

    /// Whether a rule holds. `project` is the AppProject that a repository is for, if it is there.
    pub fn holds(
        &self,
        rule: Rule,
        kind: Kind,
        object: &Object,
        agent: &AgentName,
        project: Option<&Object>,
    ) -> bool {
        match rule {
            Rule::NotIgnored => object.label(label::IGNORE_SYNC) != Some("true"),
            Rule::Served => self.serves(kind, object.namespace()),
            Rule::Chosen => self.chosen(object) == Some(agent.as_str()),
            Rule::Destination => destinations(object).any(|destination| destination.is_of(agent)),
            Rule::NotDenied => !destinations(object).any(|destination| destination.denies(agent)),
            Rule::SourceNamespace => {
                strings(object.at(&["spec", "sourceNamespaces"])).any(|text| matches(text, agent.as_str()))
            }
            Rule::ProjectOfRepository => project.is_some_and(|project| self.project_matches(project, agent)),
        }
    }

    fn serves(&self, kind: Kind, namespace: &str) -> bool {
        match kind {
            Kind::Application => {
                (self.by_destination && namespace == self.namespace)
                    || self.allowed.iter().any(|pattern| pattern.matches(namespace))
            }
            Kind::AppProject | Kind::Repository | Kind::GpgKey => namespace == self.namespace,
        }
    }

    /// The name that an Application gives for the agent, be it one or not.
    pub fn chosen<'a>(&self, application: &'a Object) -> Option<&'a str> {
        if self.by_destination {
            let name = application.at(&["spec", "destination", "name"])?.as_str()?;
            (name != IN_CLUSTER).then_some(name)
        } else {
            Some(application.namespace())
        }
    }

    /// Whether a resource takes part in synchronisation at all.
    pub(crate) fn admits(&self, kind: Kind, object: &Object) -> bool {
        object.label(label::IGNORE_SYNC) != Some("true") && self.serves(kind, object.namespace())
    }

    /// The one agent that an Application belongs to.
    pub(crate) fn agent_of_application(&self, application: &Object) -> Option<AgentName> {
        if !self.admits(Kind::Application, application) {
            return None;
        }
        AgentName::new(self.chosen(application)?).ok()
    }

    /// Whether `agent` may have this AppProject.
    pub(crate) fn project_matches(&self, project: &Object, agent: &AgentName) -> bool {
        let kind = Kind::AppProject;
        self.rules(kind).iter().all(|rule| self.holds(*rule, kind, project, agent, None))
    }

    /// Whether `agent` may have this repository or these credentials: it may have their AppProject.
    pub(crate) fn repository_matches(
        &self,
        repository: &Object,
        agent: &AgentName,
        project: impl FnOnce(&str) -> Option<std::sync::Arc<Object>>,
    ) -> bool {
        if !self.admits(Kind::Repository, repository) {
            return false;
        }
        let project = project_of_repository(repository).and_then(|name| project(&name));
        self.holds(Rule::ProjectOfRepository, Kind::Repository, repository, agent, project.as_deref())
    }
}

/// The AppProject that a repository Secret is for; none for one that is for all, which no agent gets.
pub fn project_of_repository(repository: &Object) -> Option<String> {
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

    /// Whether it keeps the agent out.
    fn denies(&self, agent: &AgentName) -> bool {
        self.name.and_then(|name| name.strip_prefix('!')).is_some_and(|name| matches(name, agent.as_str()))
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
