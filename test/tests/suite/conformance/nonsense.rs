//! Requests that nobody means: whatever comes, the embedded server answers it properly and lives on.

use http::Request;
use http_body_util::BodyExt;
use kube::client::Body;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::lab::Lab;

const METHODS: &[&str] = &["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

const SEGMENTS: &[&str] = &[
    "api",
    "apis",
    "v1",
    "v2",
    "apps",
    "namespaces",
    "default",
    "configmaps",
    "secrets",
    "deployments",
    "leases",
    "a",
    "status",
    "scale",
    "finalize",
    "watch",
    "..",
    ".",
    "",
    "%00",
    "%2F",
    "%",
    "%FF",
    "openapi",
    "v3",
    "version",
    "healthz",
    "conformance.tiphys.dev",
    "gadgets",
    "trinkets",
    "stamps",
    "apiextensions.k8s.io",
    "customresourcedefinitions",
    "gadgets.conformance.tiphys.dev",
    "coordination.k8s.io",
];

const PARAMETERS: &[&str] = &[
    "labelSelector",
    "fieldSelector",
    "limit",
    "continue",
    "resourceVersion",
    "resourceVersionMatch",
    "watch",
    "timeoutSeconds",
    "sendInitialEvents",
    "allowWatchBookmarks",
    "dryRun",
    "fieldValidation",
    "pretty",
    "propagationPolicy",
    "gracePeriodSeconds",
    "orphanDependents",
    "force",
    "fieldManager",
    "x",
];

const VALUES: &[&str] = &[
    "",
    "0",
    "1",
    "-1",
    "2",
    "x",
    "true",
    "false",
    "All",
    "Strict",
    "Warn",
    "%",
    "%00",
    "99999999999999999999",
    "a%3Db",
    "a+in+(b,c)",
    "!a",
    "a,",
    "metadata.name%3Da",
    "Exact",
    "NotOlderThan",
    "%C3%A4",
    "eyJ9",
    "a==b&a",
];

const MEDIA: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/vnd.kubernetes.protobuf",
    "text/plain",
    "",
    "application/json;as=Table;g=meta.k8s.io;v=v1",
    "*/*",
    ";",
    "application/json;q=x",
];

/// Bytes that are nearly what somebody would send.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec![
        "apiVersion",
        "kind",
        "metadata",
        "name",
        "namespace",
        "generateName",
        "labels",
        "annotations",
        "finalizers",
        "ownerReferences",
        "resourceVersion",
        "uid",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "managedFields",
        "spec",
        "status",
        "data",
        "size",
        "op",
        "path",
        "value",
        "$patch",
        "preconditions",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "a",
            "v1",
            "ConfigMap",
            "Gadget",
            "conformance.tiphys.dev/v1",
            "1",
            "add",
            "/data",
            "ä"
        ])
        .prop_map(Value::from),
    ];
    let document = leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..6).prop_map(|fields| {
                fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
            }),
        ]
    });
    let object = document.clone().prop_map(|inner| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": inner}, "data": inner})
    });
    prop_oneof![
        3 => document.prop_map(|document| document.to_string().into_bytes()),
        2 => object.prop_map(|object| object.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|tail| [b"k8s\0".as_slice(), &tail].concat()),
        1 => Just(Vec::new()),
    ]
}

#[derive(Debug, Clone)]
struct Nonsense {
    method: &'static str,
    path: String,
    content_type: &'static str,
    accept: &'static str,
    body: Vec<u8>,
}

fn nonsense() -> impl Strategy<Value = Nonsense> {
    let sensible = prop::sample::select(vec![
        "/api/v1/namespaces/default/configmaps",
        "/api/v1/namespaces/default/configmaps/a",
        "/apis/conformance.tiphys.dev/v1/namespaces/default/gadgets",
        "/apis/conformance.tiphys.dev/v1/namespaces/default/gadgets/a/status",
        "/apis/coordination.k8s.io/v1/namespaces/default/leases/a",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        "/api/v1/namespaces/default",
    ]);
    let path = prop_oneof![
        sensible.prop_map(str::to_owned),
        prop::collection::vec(prop::sample::select(SEGMENTS), 0..8)
            .prop_map(|parts| format!("/{}", parts.join("/"))),
    ];
    let query = prop::collection::vec((prop::sample::select(PARAMETERS), prop::sample::select(VALUES)), 0..4);
    let media = || prop_oneof![3 => Just("application/json"), 2 => prop::sample::select(MEDIA)];
    (prop::sample::select(METHODS), path, query, media(), media(), body()).prop_map(
        |(method, path, query, content_type, accept, body)| {
            let query: Vec<_> = query.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
            let path = if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) };
            Nonsense { method, path, content_type, accept, body }
        },
    )
}

async fn answer(lab: &Lab, nonsense: &Nonsense) {
    let request = Request::builder()
        .method(nonsense.method)
        .uri(&nonsense.path)
        .header("content-type", nonsense.content_type)
        .header("accept", nonsense.accept)
        .body(Body::from(nonsense.body.clone()));
    // What is no URI never gets to a server.
    let Ok(request) = request else { return };
    let response = lab.client().send(request).await.expect("an answer");
    let code = response.status().as_u16();
    let is_json = response
        .headers()
        .get("content-type")
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let bytes = response.into_body().collect().await.expect("a whole body").to_bytes();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    if code == 500 {
        // Two refusals are errors of the server also with a real one.
        let message = body["message"].as_str().unwrap_or_default();
        let known = message.starts_with("resourceVersion should not be set")
            || message.starts_with("strconv.ParseUint");
        assert!(known, "{nonsense:?}: {body}");
    }
    assert!((200..500).contains(&code) || code == 500 || code == 504, "{nonsense:?}: {code} {body}");
    if code >= 400 && is_json && nonsense.method != "HEAD" {
        assert_eq!(body["kind"], "Status", "{nonsense:?}: {body}");
        assert_eq!(body["code"], code, "{nonsense:?}: {body}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_asked_is_answered_and_leaves_the_server_whole(requests in prop::collection::vec(nonsense(), 1..12)) {
        // Time is paused, so that watches end as soon as nothing happens any more.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let mut lab = Lab::embedded("nonsense").await;
            for request in &requests {
                answer(&lab, request).await;
            }
            lab.get("/api/v1/configmaps").await.ok();
            lab.post("cm", &super::lab::config_map("after", json!({}))).await.created();
        });
    }
}
