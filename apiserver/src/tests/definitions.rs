use super::*;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

#[tokio::test]
async fn a_definition_is_established_and_served_at_once() {
    let server = server();
    assert_eq!(get(&server, THINGS).await.status, 404);
    let made = post(&server, DEFINITIONS, thing_definition()).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let conditions = made.body["status"]["conditions"].as_array().unwrap();
    for kind in ["NamesAccepted", "Established"] {
        assert!(conditions.iter().any(|c| c["type"] == kind && c["status"] == "True"), "{}", made.body);
    }
    assert_eq!(made.body["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(made.body["status"]["acceptedNames"]["listKind"], "ThingList");
    assert_eq!(get(&server, THINGS).await.body["kind"], "ThingList");
    let api = things(server.client());
    let object: DynamicObject = serde_json::from_value(thing("t", 1)).unwrap();
    assert_eq!(api.create(&PostParams::default(), &object).await.unwrap().data["spec"]["colour"], "red");
}

#[tokio::test]
async fn custom_resources_are_held_to_their_schema() {
    let server = server_with_things().await;
    let refused = post(&server, THINGS, thing("t", 0)).await;
    assert_eq!((refused.status.as_u16(), refused.body["reason"].as_str()), (422, Some("Invalid")));
    assert_eq!(refused.body["details"]["causes"][0]["field"], "spec.size");
    let mut body = thing("t", 1);
    body.as_object_mut().unwrap().remove("kind");
    assert_eq!(post(&server, THINGS, body).await.status, 400);
}

#[tokio::test]
async fn status_and_the_rest_are_written_apart() {
    let server = server_with_things().await;
    let mut body = thing("t", 1);
    body["status"] = json!({"phase": "Early"});
    let made = post(&server, THINGS, body).await.body;
    assert_eq!(made.get("status"), None);
    assert_eq!(made["metadata"]["generation"], 1);
    let path = format!("{THINGS}/t");
    let mut update = made.clone();
    update["status"] = json!({"phase": "Ready"});
    update["spec"]["size"] = 5.into();
    let status = put(&server, &format!("{path}/status"), update.clone()).await.body;
    assert_eq!((&status["status"]["phase"], &status["spec"]["size"]), (&json!("Ready"), &json!(1)));
    assert_eq!(status["metadata"]["generation"], 1);
    assert_eq!(put(&server, &format!("{path}/status"), update).await.status, 409);
    let spec = merge(&server, &path, json!({"spec": {"size": 5}, "status": {"phase": "Lost"}})).await.body;
    assert_eq!((&spec["status"]["phase"], &spec["spec"]["size"]), (&json!("Ready"), &json!(5)));
    assert_eq!(spec["metadata"]["generation"], 2);
    let labels = merge(&server, &path, json!({"metadata": {"labels": {"a": "b"}}})).await.body;
    assert_eq!(labels["metadata"]["generation"], 2);
    assert_eq!(get(&server, &format!("{path}/scale")).await.status, 404);
}

#[tokio::test]
async fn without_the_subresource_status_is_like_any_other_field() {
    let server = server();
    let mut definition = thing_definition();
    definition["spec"]["versions"][0].as_object_mut().unwrap().remove("subresources");
    assert_eq!(post(&server, DEFINITIONS, definition).await.status, 201);
    let mut body = thing("t", 1);
    body["status"] = json!({"phase": "Early"});
    let made = post(&server, THINGS, body).await.body;
    assert_eq!(made["status"]["phase"], "Early");
    let path = format!("{THINGS}/t");
    let changed = merge(&server, &path, json!({"status": {"phase": "Late"}})).await.body;
    assert_eq!(changed["metadata"]["generation"], 2);
    assert_eq!(get(&server, &format!("{path}/status")).await.status, 404);
}

#[tokio::test]
async fn a_put_of_a_custom_resource_needs_a_revision() {
    let server = server_with_things().await;
    post(&server, THINGS, thing("t", 1)).await;
    let refused = put(&server, &format!("{THINGS}/t"), thing("t", 2)).await;
    assert_eq!(refused.status, 422);
    assert_eq!(refused.body["details"]["causes"][0]["field"], "metadata.resourceVersion");
    assert_eq!(put(&server, &format!("{THINGS}/none"), thing("none", 2)).await.status, 404);
}

#[tokio::test]
async fn deleting_a_definition_deletes_its_objects() {
    let server = server_with_things().await;
    let mut held = thing("held", 1);
    held["metadata"]["finalizers"] = json!(["example.com/wait"]);
    post(&server, THINGS, held).await;
    post(&server, THINGS, thing("free", 1)).await;
    let path = format!("{DEFINITIONS}/things.example.com");
    let held = delete(&server, &path, Value::Null).await.body;
    assert!(held["metadata"]["deletionTimestamp"].is_string(), "{held}");
    assert_eq!(get(&server, &format!("{THINGS}/free")).await.status, 404);
    assert_eq!(post(&server, THINGS, thing("new", 1)).await.status, 403);
    let now = get(&server, &path).await.body;
    assert!(
        now["status"]["conditions"].as_array().unwrap().iter().any(|c| c["type"] == "Terminating"),
        "{now}"
    );
    assert_eq!(
        merge(&server, &format!("{THINGS}/held"), json!({"metadata": {"finalizers": []}})).await.status,
        200
    );
    assert_eq!(get(&server, &path).await.status, 404);
    assert_eq!(get(&server, THINGS).await.status, 404);
    // And it may come back.
    assert_eq!(post(&server, DEFINITIONS, thing_definition()).await.status, 201);
    assert_eq!(get(&server, THINGS).await.body["items"], json!([]));
}

#[tokio::test]
async fn versions_of_a_kind_show_the_same_objects() {
    let server = server();
    let mut definition = thing_definition();
    let mut second = definition["spec"]["versions"][0].clone();
    second["name"] = "v2".into();
    second["storage"] = false.into();
    second["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["shape"] =
        json!({"type": "string"});
    definition["spec"]["versions"][0]["deprecated"] = true.into();
    definition["spec"]["versions"].as_array_mut().unwrap().push(second);
    assert_eq!(post(&server, DEFINITIONS, definition).await.status, 201);
    post(&server, THINGS, thing("t", 1)).await;
    let other = get(&server, "/apis/example.com/v2/namespaces/default/things/t").await.body;
    assert_eq!((&other["apiVersion"], &other["spec"]["size"]), (&json!("example.com/v2"), &json!(1)));
    // What the stored version does not know is not kept.
    let mut round = thing("round", 1);
    round["apiVersion"] = "example.com/v2".into();
    round["spec"]["shape"] = "round".into();
    let made = post(&server, "/apis/example.com/v2/namespaces/default/things", round).await;
    assert_eq!((made.status.as_u16(), made.body["spec"].get("shape")), (201, None), "{}", made.body);
    assert!(!made.headers.contains_key("warning"));
    let old = get(&server, THINGS).await;
    assert_eq!(
        old.headers["warning"],
        "299 - \"example.com/v1 Thing is deprecated; use example.com/v2 Thing\""
    );
    let groups = get(&server, "/apis/example.com").await.body;
    assert_eq!(groups["preferredVersion"]["version"], "v2");
}

#[tokio::test]
async fn names_that_are_taken_are_not_accepted() {
    let server = server_with_things().await;
    let mut second = thing_definition();
    second["metadata"]["name"] = "objects.example.com".into();
    second["spec"]["names"] = json!({"plural": "objects", "kind": "Thing"});
    let made = post(&server, DEFINITIONS, second).await.body;
    let conditions = made["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|c| c["type"] == "NamesAccepted" && c["status"] == "False"), "{made}");
    assert_eq!(get(&server, "/apis/example.com/v1/namespaces/default/objects").await.status, 404);
}

#[tokio::test]
async fn definitions_that_cannot_be_served_are_refused() {
    let server = server();
    let mut misnamed = thing_definition();
    misnamed["metadata"]["name"] = "other.example.com".into();
    let mut webhook = thing_definition();
    webhook["spec"]["conversion"] = json!({"strategy": "Webhook"});
    let mut schemaless = thing_definition();
    schemaless["spec"]["versions"][0].as_object_mut().unwrap().remove("schema");
    for definition in [misnamed, webhook, schemaless] {
        let refused = post(&server, DEFINITIONS, definition).await;
        assert_eq!(refused.status, 422, "{}", refused.body);
    }
    let error = server.install_crds("kind: Secret\n").unwrap_err();
    assert_eq!(error.to_string(), "expected a CustomResourceDefinition, found \"Secret\"");
    assert!(server.install_crds("kind: [").is_err());
}

#[tokio::test]
async fn several_documents_install_several_definitions() {
    let server = server();
    let mut second = thing_definition();
    second["metadata"]["name"] = "widgets.example.com".into();
    second["spec"]["names"] = json!({"plural": "widgets", "kind": "Widget"});
    let documents = format!("---\n{}\n---\n{second}\n", thing_definition());
    assert_eq!(server.install_crds(&documents).unwrap(), ["things.example.com", "widgets.example.com"]);
}

#[tokio::test]
async fn replicas_are_scaled_in_the_same_words_for_every_kind() {
    let server = server();
    let mut definition = thing_definition();
    definition["spec"]["versions"][0]["subresources"]["scale"] =
        json!({"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"});
    assert_eq!(post(&server, DEFINITIONS, definition).await.status, 201);
    post(&server, THINGS, thing("t", 2)).await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let made = post(
        &server,
        deployments,
        json!({"metadata": {"name": "t"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]},
        }}}),
    )
    .await;
    assert_eq!(made.status, 201, "{}", made.body);
    for path in [format!("{THINGS}/t"), format!("{deployments}/t")] {
        let scale = format!("{path}/scale");
        let mut shown = get(&server, &scale).await.body;
        assert_eq!((&shown["kind"], &shown["spec"]["replicas"]), (&json!("Scale"), &json!(2)), "{shown}");
        shown["spec"]["replicas"] = 5.into();
        let scaled = put(&server, &scale, shown.clone()).await;
        assert_eq!(
            (scaled.status.as_u16(), &scaled.body["spec"]["replicas"]),
            (200, &json!(5)),
            "{}",
            scaled.body
        );
        assert_eq!(put(&server, &scale, shown).await.status, 409);
        assert_eq!(
            merge(&server, &scale, json!({"spec": {"replicas": 7}})).await.body["spec"]["replicas"],
            7
        );
        assert_eq!(merge(&server, &scale, json!({"spec": {"replicas": -1}})).await.status, 422);
        let object = get(&server, &path).await.body;
        assert_eq!(object["metadata"]["generation"], 3, "{object}");
    }
    let selector = get(&server, &format!("{deployments}/t/scale")).await.body["status"]["selector"].clone();
    assert_eq!(selector, "a=b");
    assert_eq!(get(&server, &format!("{deployments}/none/scale")).await.status, 404);
    // What the schema forbids cannot be scaled to either.
    assert_eq!(
        merge(&server, &format!("{THINGS}/t/scale"), json!({"spec": {"replicas": 0}})).await.status,
        422
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_outlives_its_definition() {
    let server = server();
    for round in 0..20 {
        server.install_crds(&thing_definition().to_string()).unwrap();
        let creators: Vec<_> = (0..3)
            .map(|creator| {
                let server = server.clone();
                tokio::spawn(async move {
                    for n in 0.. {
                        let made = post(&server, THINGS, thing(&format!("t{creator}-{n}"), 1)).await.status;
                        if made == 404 {
                            return n;
                        }
                        assert!(made == 201 || made == 403, "{made}");
                    }
                    0
                })
            })
            .collect();
        let path = format!("{DEFINITIONS}/things.example.com");
        delete(&server, &path, Value::Null).await;
        for creator in creators {
            creator.await.unwrap();
        }
        assert_eq!(get(&server, &path).await.status, 404, "round {round}");
        let snapshot = server.inner.store.snapshot("example.com/things", None).unwrap();
        let left: Vec<&str> = snapshot.range("example.com/things/", None).map(|s| s.key.path()).collect();
        assert!(left.is_empty(), "round {round}: {left:?}");
    }
}
