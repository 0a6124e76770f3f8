use super::*;

fn planned(text: &str, media: Option<&str>) -> Result<Plan, Refusal> {
    let (method, path) = text.split_once(' ').unwrap();
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let method: Method = method.parse().unwrap();
    plan(&method, &ApiRequest::read(&method, path, query).unwrap(), query, media)
}

fn asking(text: &str, media: Option<&str>) -> Asking {
    match planned(text, media).unwrap() {
        Plan::Ask(asking) => *asking,
        Plan::Say(text) => panic!("{text}"),
    }
}

#[test]
fn an_agent_is_asked_for_what_it_can_do() {
    let pod = ResourceRequest {
        method: "GET".into(),
        version: "v1".into(),
        namespace: "a".into(),
        resource: "pods".into(),
        name: "b".into(),
        ..ResourceRequest::default()
    };
    assert_eq!(asking("GET /api/v1/namespaces/a/pods/b", None).request, pod);
    let scale = ResourceRequest {
        group: "apps".into(),
        resource: "deployments".into(),
        subresource: "scale".into(),
        method: "PATCH".into(),
        params: [(PATCH_TYPE.to_owned(), JSON_PATCH.to_owned())].into(),
        ..pod
    };
    assert_eq!(
        asking("PATCH /apis/apps/v1/namespaces/a/deployments/b/scale", Some(JSON_PATCH)).request,
        scale
    );
    let events =
        asking("GET /api/v1/namespaces/a/events?fieldSelector=x%3Dy+z&limit=5&limit=6", None).request;
    assert_eq!((events.resource.as_str(), events.name.as_str()), ("events", ""));
    let params: Vec<_> = events.params.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(params, [("fieldSelector", "x=y z"), ("limit", "5")]);
    // Its client would look for a namespace in a namespace.
    let namespace = asking("GET /api/v1/namespaces/a", None).request;
    assert_eq!((namespace.namespace.as_str(), namespace.name.as_str()), ("", "a"));
    assert_eq!(asking("GET /apis/apps/v1", None).request.group, "apps");
    assert_eq!(asking("GET /api", None).form, Form::CoreVersions);
    let Plan::Say(version) = planned("GET /version", None).unwrap() else { panic!("the agent is asked") };
    let version: k8s_openapi::apimachinery::pkg::version::Info = serde_json::from_str(&version).unwrap();
    assert_eq!(version.git_version, VERSION);
}

#[test]
fn what_it_would_not_do_as_it_is_meant_is_refused_by_name() {
    let strategic = Some(STRATEGIC_PATCH);
    for (text, media, code) in [
        ("GET /api/v1/pods", None, 405),
        ("GET /api/v1/namespaces/a/events?watch=1", None, 405),
        ("POST /api/v1/namespaces/a/pods/b/attach", None, 405),
        ("POST /api/v1/namespaces/a/pods/b/portforward", None, 405),
        ("HEAD /api/v1/namespaces/a/pods/b", None, 405),
        ("PUT /api/v1/namespaces/a/pods/b", None, 405),
        ("DELETE /api/v1/namespaces/a/pods", None, 405),
        ("DELETE /api/v1/namespaces/a/pods/b/thing", None, 405),
        // It does not look at the query of these.
        ("PATCH /api/v1/namespaces/a/pods/b/status?dryRun=All", Some(MERGE_PATCH), 405),
        ("POST /api/v1/namespaces/a/pods/b/eviction?dryRun=All", None, 405),
        // It takes every patch for a merge patch.
        ("PATCH /api/v1/namespaces/a/pods/b", strategic, 415),
        ("PATCH /api/v1/namespaces/a/pods/b", Some("application/apply-patch+yaml"), 415),
        ("PATCH /api/v1/namespaces/a/pods/b", None, 415),
        ("PATCH /api/v1/namespaces/a/pods/b/status", Some("application/apply-patch+yaml"), 415),
        ("POST /api/v1/namespaces/a/pods", Some("application/vnd.kubernetes.protobuf"), 415),
        ("GET /openapi/v3", None, 404),
        ("GET /apis/apps", None, 404),
        ("POST /version", None, 404),
        ("GET /api/v1/namespaces/a/pods/b?content-type=x", None, 400),
        ("GET /api/v1/namespaces/a/pods/b?x=%ff", None, 400),
    ] {
        let refusal = planned(text, media).expect_err(text);
        assert_eq!(refusal.code, code, "{text}: {}", refusal.message);
        if code != 400 {
            assert!(refusal.message.contains("argocd-agent, and"), "{text}: {}", refusal.message);
        }
    }
}

#[test]
fn how_to_delete_is_said_in_the_body_and_there_is_always_one() {
    let body = |text: &str, bytes: &[u8]| {
        let mut asking = asking(text, None);
        asking.take_body(bytes).unwrap();
        let body: Value = serde_json::from_slice(&asking.request.body_bytes().unwrap()).unwrap();
        (body, asking.request.params.len())
    };
    let path = "DELETE /api/v1/namespaces/a/pods/b";
    assert_eq!(body(path, b""), (json!({}), 0));
    assert_eq!(body(path, br#"{"dryRun": ["All"]}"#), (json!({"dryRun": ["All"]}), 0));
    let options = json!({"dryRun": ["All"], "gracePeriodSeconds": 5, "propagationPolicy": "Orphan"});
    let query = "?dryRun=All&gracePeriodSeconds=5&propagationPolicy=Orphan";
    assert_eq!(body(&format!("{path}{query}"), b""), (options, 0));
    assert_eq!(asking(path, None).take_body(b"[1]").unwrap_err().code, 400);
}

#[test]
fn answers_are_what_clients_understand() {
    let said = |form, status, resource: &str| {
        let response = ResourceResponse { uuid: String::new(), status, resource: resource.to_owned() };
        let asked = ApiRequest::read(&Method::GET, "/api/v1/namespaces/a/pods/b", None).unwrap();
        let (code, text) = answer(form, response, &asked);
        (code.as_u16(), serde_json::from_str::<Value>(&text).unwrap())
    };
    assert_eq!(said(Form::AsItIs, 200, "{}"), (200, json!({})));
    assert_eq!(said(Form::AsItIs, 200, "").1["status"], "Success");
    let (code, missing) = said(Form::AsItIs, 404, "");
    assert_eq!((code, &missing["reason"], &missing["code"]), (404, &json!("NotFound"), &json!(404)));
    for nonsense in [0, 7, 99, 101, 304, 1000] {
        assert_eq!(said(Form::AsItIs, nonsense, "").0, 502, "{nonsense}");
    }
    let version = |group: &str| json!({"groupVersion": group, "version": "v1"});
    let core = json!({"name": "", "versions": [version("v1")]});
    let apps = json!({"name": "apps", "versions": [version("apps/v1")]});
    let list = json!({"kind": "APIGroupList", "groups": [core, apps]}).to_string();
    assert_eq!(said(Form::Groups, 200, &list).1["groups"], json!([apps]));
    assert_eq!(said(Form::CoreVersions, 200, &list).1["versions"], json!(["v1"]));
    assert_eq!(said(Form::Groups, 200, "nonsense").0, 502);
}
