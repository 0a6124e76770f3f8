use proptest::prelude::*;

use super::*;

fn object(value: Value) -> Object {
    serde_json::from_value(value).unwrap()
}

fn agent() -> AgentName {
    AgentName::new("edge").unwrap()
}

fn place(agent: &AgentName) -> Place<'_> {
    Place { agent, namespace: "argocd" }
}

fn application() -> Object {
    object(json!({
        "metadata": {"name": "shop", "namespace": "argocd", "uid": "u1", "resourceVersion": "7",
            "labels": {"team": "blue"}, "finalizers": ["resources-finalizer.argocd.argoproj.io"],
            "ownerReferences": [{"apiVersion": "argoproj.io/v1alpha1", "kind": "ApplicationSet", "name": "s", "uid": "o"}],
            "annotations": {"note": "kept", "argocd.argoproj.io/refresh": "hard",
                "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
        "spec": {"project": "default", "destination": {"server": "https://kubernetes.default.svc", "namespace": "guests"}},
        "operation": {"sync": {}},
        "status": {"health": {"status": "Healthy"}, "resources": [
            {"group": "argoproj.io", "kind": "Application", "namespace": "argocd", "name": "child"},
            {"kind": "Service", "namespace": "guests", "name": "web"}]},
    }))
}

#[test]
fn an_application_is_shown_in_the_agents_namespace_under_its_cluster_and_project() {
    let agent = agent();
    let shown = place(&agent).show(Kind::Application, &application(), "edge-cluster").unwrap();
    assert_eq!((shown.namespace(), shown.name()), ("edge", "shop"));
    assert_eq!(shown.at(&["spec", "project"]), Some(&json!("edge-default")));
    assert_eq!(
        shown.at(&["spec", "destination"]),
        Some(&json!({"name": "edge-cluster", "namespace": "guests"}))
    );
    assert_eq!(shown.at(&["status", "resources"]).unwrap()[0]["namespace"], "edge");
    assert_eq!(shown.at(&["status", "resources"]).unwrap()[1]["namespace"], "guests");
    assert_eq!(shown.annotation("note"), Some("kept"));
    assert_eq!(shown.annotation(annotation::REFRESH), None);
    assert_eq!(shown.annotation(annotation::SOURCE_UID), Some("u1"));
    assert_eq!(shown.metadata.owner_references, None);
    assert_eq!(shown.metadata.finalizers, None);
    assert_eq!(shown.field("operation"), None);
}

#[test]
fn a_project_is_shown_under_the_agents_name_with_its_policies() {
    let agent = agent();
    let project = object(json!({
        "metadata": {"name": "sample", "namespace": "argocd", "uid": "u2"},
        "spec": {
            "destinations": [{"server": "https://kubernetes.default.svc", "namespace": "guests"}],
            "sourceNamespaces": ["team-*"], "sourceRepos": ["*"],
            "roles": [{"name": "read-only", "groups": ["g"], "policies": [
                "p, proj:sample:read-only, applications, get, sample/*, allow",
                "p, proj:sample:other, applications, get, sample/*, allow",
                "p, proj:sample:read-only, repositories, get, sample/*, allow",
                "g, someone, proj:sample:read-only",
            ]}],
        },
    }));
    let shown = place(&agent).show(Kind::AppProject, &project, "edge-cluster").unwrap();
    assert_eq!((shown.namespace(), shown.name()), ("argocd", "edge-sample"));
    assert_eq!(shown.at(&["spec", "sourceNamespaces"]), Some(&json!(["edge"])));
    assert_eq!(
        shown.at(&["spec", "destinations"]),
        Some(&json!([{"name": "edge", "server": "*", "namespace": "guests"}]))
    );
    let policies = &shown.at(&["spec", "roles"]).unwrap()[0]["policies"];
    assert_eq!(policies[0], "p, proj:edge-sample:read-only, applications, get, edge-sample/edge/*, allow");
    for other in 1..4 {
        assert_eq!(policies[other], project.at(&["spec", "roles"]).unwrap()[0]["policies"][other]);
    }
    assert_eq!(place(&agent).name(&shown, Kind::AppProject).unwrap().name, "sample");
}

#[test]
fn a_project_of_another_agent_with_the_same_beginning_is_not_this_ones() {
    let (edge, edge_two) = (agent(), AgentName::new("edge-two").unwrap());
    let project = object(json!({"metadata": {"name": "p", "uid": "u"}, "spec": {}}));
    let shown = place(&edge_two).show(Kind::AppProject, &project, "c").unwrap();
    assert_eq!(shown.name(), "edge-two-p");
    assert_eq!(place(&edge).name(&shown, Kind::AppProject), None);
}

#[test]
fn a_name_that_grows_too_long_is_refused() {
    let agent = agent();
    let long = object(json!({"metadata": {"name": "a".repeat(250), "uid": "u"}, "spec": {}}));
    assert_eq!(place(&agent).show(Kind::AppProject, &long, "c"), Err(Error::TooLong));
    let anonymous = object(json!({"metadata": {"name": "a"}, "spec": {}}));
    assert_eq!(place(&agent).show(Kind::Application, &anonymous, "c"), Err(Error::NoUid));
    assert_eq!(place(&agent).show(Kind::Repository, &long, "c"), Err(Error::Kind(Kind::Repository)));
}

proptest! {
    #[test]
    fn whatever_an_agent_names_it_is_shown_among_its_own(
        namespace in "[a-z]{0,8}", name in "[a-z]{1,8}", project in "[a-z-]{0,8}", destination in "[a-z:/.]{0,12}",
    ) {
        let agent = agent();
        let incoming = object(json!({
            "metadata": {"name": name, "namespace": namespace, "uid": "u"},
            "spec": {"project": project, "destination": {"name": destination, "server": destination}},
        }));
        let shown = place(&agent).show(Kind::Application, &incoming, "edge").unwrap();
        prop_assert_eq!(shown.namespace(), "edge");
        prop_assert!(shown.at(&["spec", "project"]).unwrap().as_str().unwrap().starts_with("edge-"));
        prop_assert_eq!(&shown.at(&["spec", "destination"]).unwrap()["name"], "edge");
        prop_assert_eq!(place(&agent).name(&shown, Kind::Application).unwrap().name, incoming.name());
        let shown = place(&agent).show(Kind::AppProject, &incoming, "edge").unwrap();
        prop_assert_eq!(shown.namespace(), "argocd");
        prop_assert!(shown.name().starts_with("edge-"));
    }

    #[test]
    fn no_policy_makes_the_rewriting_fail(line in ".{0,60}") {
        show_policy(&line, "p", "edge-p", "r", "edge");
    }
}
