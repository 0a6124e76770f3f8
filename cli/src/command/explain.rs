//! `explain`: why an agent has a resource, or has it not: each rule and its verdict.
//!
//! The rules are the principal's own.

use clap::{Args, Command, FromArgMatches, ValueEnum};
use kube::Api;
use serde::Serialize;
use tiphys_principal::options::Options as PrincipalOptions;
use tiphys_principal::routing::{Mapping, Rule, project_of_repository};
use tiphys_shared::kube::kinds;
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{AgentName, Kind, Object};

use crate::failure::Failure;
use crate::operator;
use crate::operator::installation::{Installation, OwnOptions, Part};
use crate::operator::targets::{Site, Targets};
use crate::output::{self, Format, Table};

const EXAMPLES: &str = "\
Examples:
  tiphys explain edge-1 application guestbook        in the namespace edge-1
  tiphys explain edge-1 application argocd/guestbook
  tiphys explain edge-1 project default
  tiphys explain edge-1 repository repo-1234 --agent-context edge-1
                                                     looks on the cluster, too
  tiphys explain edge-1 project default -- --auth 'mtls:subject:CN=([^,]+)' --allowed-namespaces 'edge-*'
                                                     a principal that does not run in a pod there, with its options";

#[derive(Debug, Args)]
struct Options {
    /// The agent
    #[arg(value_name = "AGENT")]
    name: AgentName,
    /// What kind of thing
    #[arg(value_name = "KIND")]
    kind: What,
    /// Its name, or NAMESPACE/NAME
    #[arg(value_name = "NAME")]
    resource: String,
    /// Form of the answer
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    output: Format,
    #[command(flatten)]
    own: OwnOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    #[value(alias = "app")]
    Application,
    #[value(alias = "appproject")]
    Project,
    #[value(alias = "repo")]
    Repository,
}

impl What {
    fn kind(self) -> Kind {
        match self {
            Self::Application => Kind::Application,
            Self::Project => Kind::AppProject,
            Self::Repository => Kind::Repository,
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    agent: String,
    kind: String,
    namespace: String,
    name: String,
    /// Whether the agent must have it.
    belongs: bool,
    rules: Vec<Verdict>,
    /// Whether it is on the agent's cluster, if that was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    is_there: Option<bool>,
    notes: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Verdict {
    rule: &'static str,
    holds: bool,
    because: String,
}

pub(super) fn command() -> Command {
    Options::augment_args(Command::new("explain"))
        .about("Tell why an agent has a resource, or has it not")
        .long_about(None::<&str>)
        .after_help(EXAMPLES)
}

pub(super) fn run(given: &clap::ArgMatches, targets: Targets) -> Result<(), Failure> {
    let options = Options::from_arg_matches(given).map_err(Failure::Usage)?;
    operator::run(async move {
        let control = targets.control_plane().await?;
        let (mapping, mut notes) = mapping(&control, &options.own).await?;
        let kind = options.kind.kind();
        let (namespace, name) = match options.resource.split_once('/') {
            Some((namespace, name)) => (namespace.to_owned(), name),
            None if kind == Kind::Application && !mapping.by_destination => {
                (options.name.to_string(), options.resource.as_str())
            }
            None => (control.namespace.clone(), options.resource.as_str()),
        };
        if !is_name(&namespace) || !is_name(name) {
            return Err(Failure::usage(format!("{:?} is not the name of a resource", options.resource))
                .remedy("write NAME or NAMESPACE/NAME, of a-z, 0-9, - and ."));
        }
        let object = find(&control, kind, &namespace, name).await?;
        let object = object.ok_or_else(|| {
            Failure::new(format!("there is no {kind} {namespace}/{name} at the control plane"))
                .remedy("check its name and namespace (NAMESPACE/NAME), and --principal-context")
        })?;
        let project = match (kind, project_of_repository(&object)) {
            (Kind::Repository, Some(name)) => {
                find(&control, Kind::AppProject, &control.namespace, &name).await?
            }
            _ => None,
        };
        if object.source_uid().is_some() {
            notes.push(
                "it is a copy, which an autonomous agent shows here: what is on its cluster counts, and none of these rules"
                    .to_owned(),
            );
        }
        let rules = verdicts(&mapping, kind, &object, &options.name, project.as_ref());
        let belongs = rules.iter().all(|verdict| verdict.holds);
        let is_there = if targets.names_agent_cluster() {
            let edge = targets.agent_cluster().await?;
            let place = if kind == Kind::Application && mapping.by_destination {
                &namespace
            } else {
                &edge.namespace
            };
            Some(find(&edge, kind, place, name).await?.is_some())
        } else {
            None
        };
        if is_there == Some(false) && belongs {
            notes.push(
                "it is not on the cluster yet: see `validate agent`, and the logs of both sides".to_owned(),
            );
        }
        let agent = options.name.to_string();
        let answer = Answer {
            agent,
            kind: kind.to_string(),
            namespace,
            name: name.to_owned(),
            belongs,
            rules,
            is_there,
            notes,
        };
        print(&answer, options.output)
    })
}

/// Whether Kubernetes lets something be called so.
fn is_name(text: &str) -> bool {
    let is_part = |part: &str| {
        let (first, last) = (part.chars().next(), part.chars().last());
        let is_edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        is_edge(first)
            && is_edge(last)
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    text.len() <= 253 && text.split('.').all(is_part)
}

/// The mapping of the principal that runs there.
async fn mapping(site: &Site, own: &OwnOptions) -> Result<(Mapping, Vec<String>), Failure> {
    let found = if own.options.is_empty() { Installation::find(site, Part::Principal).await? } else { None };
    let (installation, notes) = match found {
        Some(found) => {
            let workload = found.workload.clone().unwrap_or_default();
            (found, vec![format!("options are those of {workload}")])
        }
        None if own.options.is_empty() => {
            return Err(Failure::new(format!(
                "no workload in namespace {} runs a principal",
                site.namespace
            ))
            .remedy("name its namespace with --principal-namespace, or give its options after --"));
        }
        None => (Installation::by_hand(own), Vec::new()),
    };
    let settings =
        installation.load(Part::Principal, site, PrincipalOptions::validate).map_err(Failure::Setup)?.value;
    let mapping = Mapping {
        namespace: site.namespace.clone(),
        allowed: settings.allowed_namespaces,
        by_destination: settings.destination_based_mapping,
    };
    Ok((mapping, notes))
}

async fn find(site: &Site, kind: Kind, namespace: &str, name: &str) -> Result<Option<Object>, Failure> {
    let api: Api<Object> = kinds::api(&site.client, kind, Some(namespace));
    api.get_opt(name)
        .await
        .map_err(|error| Failure::because(&format!("cannot read {kind} {namespace}/{name}"), &error))
}

/// Each rule, its verdict, and what of the object led to it.
fn verdicts(
    mapping: &Mapping,
    kind: Kind,
    object: &Object,
    agent: &AgentName,
    project: Option<&Object>,
) -> Vec<Verdict> {
    let verdict = |rule: &Rule| {
        let holds = mapping.holds(*rule, kind, object, agent, project);
        let (name, because) = reason(mapping, *rule, kind, object, agent, project, holds);
        Verdict { rule: name, holds, because }
    };
    mapping.rules(kind).iter().map(verdict).collect()
}

/// The rule in words, and what the object says about it.
fn reason(
    mapping: &Mapping,
    rule: Rule,
    kind: Kind,
    object: &Object,
    agent: &AgentName,
    project: Option<&Object>,
    holds: bool,
) -> (&'static str, String) {
    let texts = |path: &[&str]| {
        let list = object.at(path).and_then(serde_json::Value::as_array);
        let list: Vec<&str> = list.into_iter().flatten().filter_map(serde_json::Value::as_str).collect();
        if list.is_empty() { "nothing".to_owned() } else { list.join(", ") }
    };
    match rule {
        Rule::NotIgnored => (
            "takes part",
            if holds {
                "it has no label ignore-sync: true".to_owned()
            } else {
                "the label ignore-sync is true: take it off".to_owned()
            },
        ),
        Rule::Served if kind == Kind::Application => {
            let allowed: Vec<&str> = mapping.allowed.iter().map(|pattern| pattern.as_str()).collect();
            let allowed = if allowed.is_empty() { "nothing".to_owned() } else { allowed.join(", ") };
            (
                "namespace is served",
                format!("it is in {}; --allowed-namespaces has {allowed}", object.namespace()),
            )
        }
        Rule::Served => (
            "namespace is served",
            format!("it is in {}; the principal reads those in {}", object.namespace(), mapping.namespace),
        ),
        Rule::Chosen => {
            let chosen = mapping.chosen(object).unwrap_or("nobody");
            let by = if mapping.by_destination { "spec.destination.name" } else { "its namespace" };
            ("names the agent", format!("{by} names {chosen}"))
        }
        Rule::Destination => {
            ("destination", format!("destinations are {}; the agent is {agent}", destinations(object)))
        }
        Rule::NotDenied => ("not denied", format!("destinations are {}", destinations(object))),
        Rule::SourceNamespace => {
            let sources = texts(&["spec", "sourceNamespaces"]);
            ("source namespace", format!("sourceNamespaces has {sources}; the agent's namespace is {agent}"))
        }
        Rule::ProjectOfRepository => {
            let because = match (project_of_repository(object), project) {
                (None, _) => "it names no project, and what is for all projects goes to no agent".to_owned(),
                (Some(name), None) => format!("it is for project {name}, which is not there"),
                (Some(name), Some(_)) if holds => format!("the agent has project {name}"),
                (Some(name), Some(_)) => {
                    format!("the agent has not project {name}: explain {agent} project {name}")
                }
            };
            ("project", because)
        }
    }
}

fn destinations(project: &Object) -> String {
    let list = project.at(&["spec", "destinations"]).and_then(serde_json::Value::as_array);
    let texts: Vec<String> = list
        .into_iter()
        .flatten()
        .map(|destination| {
            let part = |key| {
                destination.get(key).and_then(serde_json::Value::as_str).filter(|text| !text.is_empty())
            };
            match (part("name"), part("server")) {
                (Some(name), _) => format!("name {name}"),
                (None, Some(server)) => format!("server {server}"),
                (None, None) => "one without name and server".to_owned(),
            }
        })
        .collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
}

fn print(answer: &Answer, format: Format) -> Result<(), Failure> {
    if format == Format::Table {
        let Answer { agent, kind, namespace, name, belongs, is_there, .. } = answer;
        let has = if *belongs { "has to have" } else { "does not get" };
        let there = match is_there {
            None => "",
            Some(true) => "; it is on the cluster",
            Some(false) => "; it is not on the cluster",
        };
        output::line(&format!("agent {agent} {has} {kind} {namespace}/{name}{there}"))?;
        for note in &answer.notes {
            output::line(&format!("note: {}", output::visible(note)))?;
        }
    }
    format.print(answer, || {
        let mut table = Table::new(&["RULE", "VERDICT", "BECAUSE"]);
        for verdict in &answer.rules {
            let word = if verdict.holds { "yes" } else { "no" };
            table.row([verdict.rule.to_owned(), word.to_owned(), verdict.because.clone()]);
        }
        table
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tiphys_shared::process::options::NamePattern;

    use super::*;

    fn object(value: serde_json::Value) -> Object {
        serde_json::from_value(value).unwrap()
    }

    fn failing(
        mapping: &Mapping,
        kind: Kind,
        object: &Object,
        project: Option<&Object>,
    ) -> Vec<(&'static str, String)> {
        let agent = AgentName::new("edge-1").unwrap();
        let verdicts = verdicts(mapping, kind, object, &agent, project);
        verdicts
            .into_iter()
            .filter(|verdict| !verdict.holds)
            .map(|verdict| (verdict.rule, verdict.because))
            .collect()
    }

    #[test]
    fn names_are_those_that_kubernetes_allows() {
        for good in ["a", "guestbook-1", "a.b-c.d", "0"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "a\nb", "..", "-a", "a-", "A", "a b", "a/b", "a?x=", &"a".repeat(254)] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn the_rule_that_keeps_a_resource_away_is_named_with_what_it_looked_at() {
        let allowed = vec![NamePattern::new("edge-*").unwrap()];
        let mapping = Mapping { namespace: "argocd".into(), allowed, by_destination: false };
        let application =
            |namespace: &str| object(json!({"metadata": {"name": "a", "namespace": namespace}}));
        assert_eq!(failing(&mapping, Kind::Application, &application("edge-1"), None), []);
        let other = failing(&mapping, Kind::Application, &application("edge-2"), None);
        assert_eq!(other, [("names the agent", "its namespace names edge-2".to_owned())]);
        let outside = failing(&mapping, Kind::Application, &application("team"), None);
        assert_eq!(outside[0].0, "namespace is served");

        let project = object(json!({
            "metadata": {"name": "p", "namespace": "argocd"},
            "spec": {"sourceNamespaces": ["team-*"], "destinations": [{"name": "edge-*"}, {"name": "!edge-1"}]},
        }));
        let rules: Vec<_> =
            failing(&mapping, Kind::AppProject, &project, None).into_iter().map(|it| it.0).collect();
        assert_eq!(rules, ["not denied", "source namespace"]);

        let repository =
            object(json!({"metadata": {"name": "r", "namespace": "argocd"}, "data": {"project": "cA=="}}));
        let absent = failing(&mapping, Kind::Repository, &repository, None);
        assert!(absent[0].1.contains("which is not there"), "{absent:?}");
        let closed = failing(&mapping, Kind::Repository, &repository, Some(&project));
        assert!(closed[0].1.contains("explain edge-1 project p"), "{closed:?}");
    }
}
