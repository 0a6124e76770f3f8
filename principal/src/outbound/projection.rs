//! A resource as an agent may see it. Pure; projecting twice is projecting once.

use serde_json::{Value, json};
use tiphys_shared::model::argocd::{IN_CLUSTER, IN_CLUSTER_SERVER, annotation};
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{AgentName, Kind, Object};

use super::mapping::Destination;

/// Annotations that mean nothing to an agent.
use tiphys_shared::protocol::ownership::{self, FOREIGN_ANNOTATIONS};

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
        annotations.retain(|key, _| !FOREIGN_ANNOTATIONS.contains(&key.as_str()));
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
        Kind::Repository | Kind::GpgKey => {}
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
    // Only the wish to look again is news, not that it is off.
    let refresh = new.annotation(annotation::REFRESH);
    let content = kind.content_field();
    old.uid() != new.uid()
        || old.is_deleting() != new.is_deleting()
        || old.field(content) != new.field(content)
        || old.metadata.labels != new.metadata.labels
        || old.metadata.finalizers != new.metadata.finalizers
        || (kind == Kind::Repository && old.field("type") != new.field("type"))
        || ownership::followed_annotations(old) != ownership::followed_annotations(new)
        || (refresh.is_some() && refresh != old.annotation(annotation::REFRESH))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Map;

    use super::super::mapping::Mapping;
    use super::*;

    fn agent() -> AgentName {
        AgentName::new("agent-a").unwrap()
    }

    fn mapping() -> Mapping {
        Mapping {
            namespace: "argocd".into(),
            allowed: vec![tiphys_shared::process::options::NamePattern::new("agent-*").unwrap()],
            by_destination: false,
        }
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("agent-a".to_owned()),
            Just("agent-b".to_owned()),
            Just("agent-*".to_owned()),
            Just("!agent-a".to_owned()),
            Just("*".to_owned()),
            Just(String::new()),
            Just("[".to_owned()),
            Just("https://proxy:9090?agentName=agent-a".to_owned()),
            Just("https://proxy:9090?agentName=agent-b".to_owned()),
        ]
    }

    fn project_object() -> impl Strategy<Value = Object> {
        let destination = (text(), text())
            .prop_map(|(name, server)| json!({"name": name, "server": server, "namespace": "*"}));
        (proptest::collection::vec(destination, 0..4), proptest::collection::vec(text(), 0..3)).prop_map(
            |(destinations, sources)| {
                serde_json::from_value(json!({
                    "metadata": {"name": "p", "namespace": "argocd", "uid": "u",
                        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "kept": "yes"}},
                    "spec": {"destinations": destinations, "sourceNamespaces": sources, "roles": [{"name": "r"}]},
                    "status": {},
                }))
                .unwrap()
            },
        )
    }

    proptest! {
        #[test]
        fn projecting_twice_is_projecting_once(object in project_object(), keep in any::<bool>()) {
            let once = project(Kind::AppProject, &object, &agent(), keep);
            let twice = project(Kind::AppProject, &once, &agent(), keep);
            prop_assert_eq!(once, twice);
        }

        #[test]
        fn a_project_names_no_other_cluster_to_an_agent(object in project_object()) {
            let seen = project(Kind::AppProject, &object, &agent(), false);
            for destination in seen.at(&["spec", "destinations"]).unwrap().as_array().unwrap() {
                prop_assert_eq!(&destination["name"], IN_CLUSTER);
                prop_assert_eq!(&destination["server"], IN_CLUSTER_SERVER);
            }
            prop_assert_eq!(seen.at(&["spec", "roles"]), None);
            prop_assert_eq!(seen.annotation(annotation::LAST_APPLIED), None);
            prop_assert_eq!(seen.annotation("kept"), Some("yes"));
        }

        #[test]
        fn an_agent_that_may_have_a_project_gets_one_of_its_destinations(object in project_object()) {
            if mapping().project_matches(&object, &agent()) {
                let seen = project(Kind::AppProject, &object, &agent(), false);
                prop_assert!(!seen.at(&["spec", "destinations"]).unwrap().as_array().unwrap().is_empty());
            }
        }

        #[test]
        fn an_application_belongs_to_no_agent_but_that_of_its_namespace(
            namespace in "[a-z]{1,5}(-[a-z])?", destination in text(), ignored in any::<bool>(),
        ) {
            let mut application: Object = serde_json::from_value(json!({
                "metadata": {"name": "a", "namespace": namespace},
                "spec": {"destination": {"name": destination}},
            })).unwrap();
            if ignored {
                application.metadata.labels =
                    Some([("argocd-agent.argoproj-labs.io/ignore-sync".to_owned(), "true".to_owned())].into());
            }
            let owner = mapping().agent_of_application(&application);
            let allowed = namespace.starts_with("agent-");
            prop_assert_eq!(owner.map(|name| name.to_string()), (allowed && !ignored).then_some(namespace));
        }
    }

    #[test]
    fn a_denial_wins_over_every_match() {
        let project: Object = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "argocd"},
            "spec": {"sourceNamespaces": ["*"], "destinations": [{"name": "*"}, {"name": "!agent-a"}]},
        }))
        .unwrap();
        assert!(!mapping().project_matches(&project, &agent()));
        assert!(mapping().project_matches(&project, &AgentName::new("agent-b").unwrap()));
    }

    #[test]
    fn a_difference_that_no_agent_sees_is_none() {
        let old: Object = serde_json::from_value(json!({
            "metadata": {"name": "a", "namespace": "agent-a", "uid": "u", "resourceVersion": "1"},
            "spec": {"project": "p"},
        }))
        .unwrap();
        let mut new = old.clone();
        new.metadata.resource_version = Some("2".into());
        new.set_field("status", Some(json!({"health": {"status": "Healthy"}})));
        new.set_field("operation", Some(Value::Object(Map::new())));
        new.annotate(annotation::LAST_UPDATED, "now");
        assert!(!differs(Kind::Application, &old, &new));
        new.annotate("note", "x");
        assert!(differs(Kind::Application, &old, &new));
    }
}
