use http::Method;
use proptest::prelude::*;

use super::*;

fn request(text: &str) -> ApiRequest {
    let (method, path) = text.split_once(' ').unwrap();
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    ApiRequest::read(&method.parse::<Method>().unwrap(), path, query).unwrap()
}

fn allow_list(text: &str) -> Policy {
    Policy::AllowList(AllowList::parse(text).unwrap())
}

#[test]
fn by_default_what_is_not_about_one_object_of_an_application_does_not_pass() {
    let verdict = |text: &str| match Policy::Managed.judge(&request(text), false) {
        Verdict::Allowed => "passes",
        Verdict::IfManaged(_) => "if managed",
        Verdict::Refused(_) => "refused",
    };
    for (text, expected) in [
        ("GET /version", "passes"),
        ("GET /apis/apps/v1", "passes"),
        ("GET /openapi/v3/apis/apps/v1", "passes"),
        ("POST /version", "refused"),
        ("GET /metrics", "refused"),
        ("GET /versions", "refused"),
        ("GET /api/v1/namespaces/a/events", "passes"),
        ("GET /apis/events.k8s.io/v1/events", "passes"),
        ("GET /api/v1/namespaces/a/events?watch=1", "refused"),
        ("GET /api/v1/namespaces/a/pods", "refused"),
        ("GET /api/v1/namespaces/a/pods?watch=1", "refused"),
        ("GET /api/v1/watch/namespaces/a/pods/b", "refused"),
        ("GET /api/v1/namespaces/a/pods/b", "if managed"),
        ("GET /api/v1/namespaces/a/pods/b/log?follow=1", "if managed"),
        ("GET /api/v1/namespaces/a/pods/b/exec", "if managed"),
        ("POST /api/v1/namespaces/a/pods/b/eviction", "if managed"),
        ("POST /apis/batch/v1/namespaces/a/jobs", "passes"),
        ("DELETE /api/v1/namespaces/a/pods/b", "if managed"),
        ("DELETE /api/v1/namespaces/a/pods", "refused"),
        ("PUT /api/v1/namespaces/a/finalize", "if managed"),
    ] {
        assert_eq!(verdict(text), expected, "{text}");
    }
}

#[test]
fn a_list_names_what_passes() {
    let policy = allow_list(
        "
rules:
- verbs: [get, list, watch]
  apiGroups: ['', apps]
  resources: [pods, 'pods/log', 'deployments*', 'deploy*/scale']
  namespaces: ['team-*']
- verbs: ['*']
  resources: [configmaps]
  namespaces: [shared]
  names: [settings]
- verbs: [get]
  resources: [nodes, namespaces]
- verbs: [get]
  nonResourceURLs: [/version, '/apis*']
",
    );
    for (text, passes) in [
        ("GET /api/v1/namespaces/team-a/pods", true),
        ("GET /api/v1/namespaces/team-a/pods/b/log?follow=1", true),
        ("GET /api/v1/namespaces/team-a/pods/b/exec", false),
        ("POST /api/v1/namespaces/team-a/pods", false),
        ("GET /api/v1/pods", false),
        ("GET /api/v1/namespaces/other/pods", false),
        ("GET /apis/apps/v1/namespaces/team-a/deployments", true),
        ("GET /apis/apps/v1/namespaces/team-a/deployments/d/scale", true),
        ("GET /apis/batch/v1/namespaces/team-a/pods", false),
        ("DELETE /api/v1/namespaces/shared/configmaps/settings", true),
        ("GET /api/v1/namespaces/shared/configmaps", false),
        ("DELETE /api/v1/namespaces/shared/configmaps", false),
        ("GET /api/v1/nodes/n", true),
        ("GET /api/v1/nodes", false),
        ("GET /api/v1/namespaces/any", true),
        ("GET /apis/apps/v1", true),
        ("GET /version", true),
        ("GET /metrics", false),
    ] {
        assert_eq!(policy.judge(&request(text), false) == Verdict::Allowed, passes, "{text}");
    }
}

#[test]
fn a_list_that_says_nothing_is_a_mistake() {
    for text in [
        "rules: [{verbs: [get]}]",
        "rules: [{resources: [pods]}]",
        "rules: [{verbs: [get], resources: [pods], nonResourceURLs: [/version]}]",
        "rules: [{verbs: [get], resource: [pods]}]",
        "rule: []",
        "- a",
        "\0",
    ] {
        assert!(AllowList::parse(text).is_err(), "{text:?} was taken");
    }
    assert!(!AllowList::default().allows(&request("GET /version")));
}

fn requests() -> impl Strategy<Value = ApiRequest> {
    let method = prop::sample::select(vec!["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);
    let path = "(/(api/v1|apis/g/v1|version)?(/namespaces/n)?(/pods|/secrets|/events)?(/a)?(/log|/exec|/status)?(\\?watch=1)?)";
    (method, path).prop_filter_map("is no request", |(method, path)| {
        let (path, query) =
            path.split_once('?').map_or((path.as_str(), None), |(path, query)| (path, Some(query)));
        ApiRequest::read(&method.parse().unwrap(), path, query).ok()
    })
}

proptest! {
    #[test]
    fn read_only_lets_nothing_through_that_changes_anything(request in requests()) {
        for policy in [Policy::All, Policy::Managed, allow_list("rules: [{verbs: ['*'], resources: ['*']}]")] {
            let verdict = policy.judge(&request, true);
            prop_assert!(request.only_reads() || matches!(verdict, Verdict::Refused(_)));
            if request.only_reads() {
                prop_assert_eq!(verdict, policy.judge(&request, false));
            }
        }
    }

    #[test]
    fn a_shorter_list_never_allows_more(request in requests(), kept in 0usize..4) {
        let rules = [
            "{verbs: [get], resources: [pods]}",
            "{verbs: ['*'], resources: ['pods/*'], namespaces: [n]}",
            "{verbs: [list, watch], resources: [secrets], names: [a]}",
            "{verbs: ['*'], nonResourceURLs: ['*']}",
        ];
        let list = |count: usize| AllowList::parse(&format!("rules: [{}]", rules[..count].join(", "))).unwrap();
        prop_assert!(!list(kept).allows(&request) || list(4).allows(&request));
    }

    #[test]
    fn a_secret_of_nobodys_never_passes_by_default(request in requests()) {
        let about_a_secret = matches!(&request.target, Target::Resource(path) if path.resource == "secrets");
        if about_a_secret && request.verb != "create" {
            prop_assert_ne!(Policy::Managed.judge(&request, false), Verdict::Allowed);
        }
    }
}
