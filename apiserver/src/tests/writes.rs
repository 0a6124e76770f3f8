use super::*;

#[tokio::test]
async fn a_new_object_gets_what_only_the_server_gives() {
    let server = server();
    let made = post(&server, MAPS, config_map("a", json!({"k": "v"}))).await;
    assert_eq!(made.status, 201);
    let meta = &made.body["metadata"];
    assert_eq!(meta["namespace"], "default");
    assert!(meta["uid"].as_str().unwrap().len() == 36);
    assert!(meta["creationTimestamp"].as_str().unwrap().ends_with('Z'));
    assert!(meta["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(meta.get("generation"), None);
}

#[tokio::test]
async fn a_second_create_of_a_name_is_refused_as_existing() {
    let server = server();
    post(&server, MAPS, config_map("a", json!({}))).await;
    let again = post(&server, MAPS, config_map("a", json!({}))).await;
    assert_eq!((again.status.as_u16(), again.body["reason"].as_str()), (409, Some("AlreadyExists")));
    assert_eq!(again.body["message"], "configmaps \"a\" already exists");
}

#[tokio::test]
async fn generated_names_differ() {
    let server = server();
    let body = json!({"metadata": {"generateName": "a-"}});
    let one = post(&server, MAPS, body.clone()).await.body["metadata"]["name"].clone();
    let other = post(&server, MAPS, body).await.body["metadata"]["name"].clone();
    assert_ne!(one, other);
    assert!(one.as_str().unwrap().starts_with("a-") && one.as_str().unwrap().len() == 7, "{one}");
}

#[tokio::test]
async fn names_and_labels_are_checked() {
    let server = server();
    for (body, field) in [
        (json!({"metadata": {"name": "A_b"}}), "metadata.name"),
        (json!({"metadata": {}}), "metadata.name"),
        (json!({"metadata": {"name": "a", "labels": {"-x": "y"}}}), "metadata.labels"),
        (json!({"metadata": {"name": "a", "finalizers": ["a b"]}}), "metadata.finalizers"),
        (json!({"metadata": {"name": "a"}, "data": {"a/b": "c"}}), "data[a/b]"),
    ] {
        let refused = post(&server, MAPS, body).await;
        assert_eq!(refused.status, 422, "{}", refused.body);
        assert_eq!(refused.body["reason"], "Invalid");
        assert_eq!(refused.body["details"]["causes"][0]["field"], field, "{}", refused.body);
    }
}

#[tokio::test]
async fn nothing_is_created_where_there_is_no_namespace() {
    let server = server();
    let refused = post(&server, "/api/v1/namespaces/nowhere/configmaps", config_map("a", json!({}))).await;
    assert_eq!(refused.status, 404);
    assert_eq!(refused.body["message"], "namespaces \"nowhere\" not found");
    let elsewhere = json!({"metadata": {"name": "a", "namespace": "kube-system"}});
    assert_eq!(post(&server, MAPS, elsewhere).await.status, 400);
}

#[tokio::test]
async fn an_update_from_an_older_state_conflicts() {
    let server = server();
    let first = post(&server, MAPS, config_map("a", json!({"k": "1"}))).await.body;
    let path = format!("{MAPS}/a");
    let mut second = first.clone();
    second["data"]["k"] = "2".into();
    assert_eq!(put(&server, &path, second.clone()).await.status, 200);
    let refused = put(&server, &path, second).await;
    assert_eq!((refused.status.as_u16(), refused.body["reason"].as_str()), (409, Some("Conflict")));
    // Without a revision the last writer wins.
    assert_eq!(put(&server, &path, config_map("a", json!({"k": "3"}))).await.status, 200);
    assert_eq!(get(&server, &path).await.body["data"]["k"], "3");
}

#[tokio::test]
async fn a_write_that_changes_nothing_keeps_the_revision() {
    let server = server();
    let first = post(&server, MAPS, config_map("a", json!({"k": "1"}))).await.body;
    let path = format!("{MAPS}/a");
    let before = server.revision();
    assert_eq!(put(&server, &path, first.clone()).await.body, first);
    assert_eq!(merge(&server, &path, json!({"data": {"k": "1"}})).await.body, first);
    assert_eq!(server.revision(), before);
}

#[tokio::test]
async fn a_merge_patch_with_an_old_revision_conflicts() {
    let server = server();
    let first = post(&server, MAPS, config_map("a", json!({"k": "1"}))).await.body;
    let path = format!("{MAPS}/a");
    assert_eq!(merge(&server, &path, json!({"data": {"k": "2"}})).await.status, 200);
    let old = first["metadata"]["resourceVersion"].clone();
    let refused =
        merge(&server, &path, json!({"metadata": {"resourceVersion": old}, "data": {"k": "3"}})).await;
    assert_eq!(refused.status, 409);
}

#[tokio::test]
async fn every_patch_language_is_known_where_it_applies() {
    let server = server_with_things().await;
    post(&server, MAPS, config_map("a", json!({"k": "1"}))).await;
    post(&server, THINGS, thing("t", 1)).await;
    let (map, thing) = (format!("{MAPS}/a"), format!("{THINGS}/t"));
    let json_patch = json!([{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}]);
    let patched = send(&server, Method::PATCH, &map, "application/json-patch+json", json_patch).await;
    assert_eq!(patched.body["metadata"]["labels"]["a"], "b", "{}", patched.body);
    const STRATEGIC: &str = "application/strategic-merge-patch+json";
    let patched = send(&server, Method::PATCH, &map, STRATEGIC, json!({"data": {"k": null, "l": "2"}})).await;
    assert_eq!(patched.body["data"], json!({"l": "2"}), "{}", patched.body);
    let refused = send(&server, Method::PATCH, &thing, STRATEGIC, json!({"spec": {"size": 2}})).await;
    assert_eq!(refused.status, 415, "{}", refused.body);
    let refused = send(&server, Method::PATCH, &map, "application/apply-patch+yaml", json!({})).await;
    assert_eq!(refused.status, 422, "{}", refused.body);
    assert_eq!(refused.body["details"]["causes"][0]["field"], "fieldManager");
    let scale = "/apis/apps/v1/namespaces/default/deployments/d/scale?fieldManager=m";
    let refused = send(&server, Method::PATCH, scale, "application/apply-patch+yaml", json!({})).await;
    assert_eq!(refused.status, 415, "{}", refused.body);
    let failing = json!([{"op": "test", "path": "/data/l", "value": "no"}]);
    let refused = send(&server, Method::PATCH, &map, "application/json-patch+json", failing).await;
    assert_eq!(refused.status, 422, "{}", refused.body);
}

#[tokio::test]
async fn identity_cannot_be_changed() {
    let server = server();
    let first = post(&server, MAPS, config_map("a", json!({}))).await.body;
    let path = format!("{MAPS}/a");
    let uid = merge(&server, &path, json!({"metadata": {"uid": "x"}})).await;
    assert_eq!(uid.status, 422, "{}", uid.body);
    // A PUT means the object with that uid, and no other.
    let uid = put(&server, &path, json!({"metadata": {"name": "a", "uid": "x"}})).await;
    assert_eq!(uid.status, 409, "{}", uid.body);
    let name = merge(&server, &path, json!({"metadata": {"name": "b"}})).await;
    assert_eq!(name.status, 400, "{}", name.body);
    let nameless = put(&server, &path, json!({"metadata": {}})).await;
    assert_eq!(nameless.status, 400, "{}", nameless.body);
    // What a client cannot set is ignored where it does no harm.
    let deleting = json!({"metadata": {
        "generation": 7,
        "creationTimestamp": "2020-01-01T00:00:00Z",
        "managedFields": [{"manager": "x"}],
    }});
    assert_eq!(merge(&server, &path, deleting).await.body, first);
}

#[tokio::test]
async fn a_dry_run_answers_as_if_and_changes_nothing() {
    let server = server();
    let before = server.revision();
    let made = post(&server, &format!("{MAPS}?dryRun=All"), config_map("a", json!({}))).await;
    assert_eq!(made.status, 201);
    assert!(made.body["metadata"]["uid"].is_string());
    assert_eq!(get(&server, &format!("{MAPS}/a")).await.status, 404);
    post(&server, MAPS, config_map("a", json!({}))).await;
    let patched = merge(&server, &format!("{MAPS}/a?dryRun=All"), json!({"data": {"k": "v"}})).await;
    assert_eq!(patched.body["data"]["k"], "v");
    assert_eq!(delete(&server, &format!("{MAPS}/a?dryRun=All"), Value::Null).await.status, 200);
    assert_eq!(get(&server, &format!("{MAPS}/a")).await.body.get("data"), None);
    assert_eq!(server.revision(), before + 1);
    assert_eq!(post(&server, &format!("{MAPS}?dryRun=Some"), config_map("b", json!({}))).await.status, 422);
}

#[tokio::test]
async fn secrets_take_plain_strings_and_keep_their_type() {
    let server = server();
    let path = "/api/v1/namespaces/default/secrets";
    let made =
        post(&server, path, json!({"metadata": {"name": "s"}, "stringData": {"a": "hello"}})).await.body;
    assert_eq!(made["data"]["a"], "aGVsbG8=");
    assert_eq!(made["type"], "Opaque");
    assert_eq!(made.get("stringData"), None);
    let refused = merge(&server, &format!("{path}/s"), json!({"type": "other"})).await;
    assert_eq!(refused.status, 422, "{}", refused.body);
    let refused = post(&server, path, json!({"metadata": {"name": "t"}, "data": {"a": "not base64!"}})).await;
    assert_eq!(refused.status, 400, "{}", refused.body);
    let refused = post(&server, path, json!({"metadata": {"name": "t"}, "type": "kubernetes.io/tls"})).await;
    assert_eq!(refused.status, 422, "{}", refused.body);
}

#[tokio::test]
async fn an_immutable_map_stays_as_it_is() {
    let server = server();
    let mut body = config_map("a", json!({"k": "v"}));
    body["immutable"] = true.into();
    post(&server, MAPS, body).await;
    let path = format!("{MAPS}/a");
    assert_eq!(merge(&server, &path, json!({"data": {"k": "w"}})).await.status, 422);
    assert_eq!(merge(&server, &path, json!({"immutable": null})).await.status, 422);
    assert_eq!(merge(&server, &path, json!({"metadata": {"labels": {"a": "b"}}})).await.status, 200);
}

#[tokio::test]
async fn leases_are_created_by_an_update_and_need_a_revision_afterwards() {
    let server = server();
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
    let body = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}});
    assert_eq!(put(&server, path, body.clone()).await.status, 201);
    assert_eq!(put(&server, path, body).await.status, 422);
}

#[tokio::test]
async fn an_event_is_the_same_in_both_groups() {
    let server = server();
    let body = json!({
        "metadata": {"name": "e"},
        "regarding": {"kind": "ConfigMap", "name": "a", "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "tests", "reportingInstance": "one",
        "action": "Doing", "reason": "Why", "note": "text", "type": "Normal",
    });
    let made = post(&server, "/apis/events.k8s.io/v1/namespaces/default/events", body).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(made.body["note"], "text");
    let path = "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Da";
    let seen = get(&server, path).await.body;
    assert_eq!(seen["items"][0]["message"], "text", "{seen}");
    assert_eq!(seen["items"][0]["involvedObject"]["name"], "a");
    assert_eq!(seen["items"][0]["reportingComponent"], "tests");
}

#[tokio::test]
async fn bodies_that_are_not_json_objects_of_the_kind_are_refused() {
    let server = server();
    for (body, code) in [
        (json!([1]), 400),
        (json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "a"}}), 400),
        (json!({"kind": "ConfigMap", "apiVersion": "v2", "metadata": {"name": "a"}}), 400),
        (json!({"metadata": {"name": "a", "labels": "x"}}), 400),
        (json!({"metadata": {"name": "a"}, "data": {"a": 1}}), 400),
    ] {
        let refused = post(&server, MAPS, body.clone()).await;
        assert_eq!(refused.status, code, "{body}: {}", refused.body);
        assert_eq!(refused.body["kind"], "Status");
    }
    const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
    assert_eq!(send(&server, Method::POST, MAPS, PROTOBUF, json!("x")).await.status, 400);
    assert_eq!(send(&server, Method::POST, MAPS, "application/cbor", json!("x")).await.status, 415);
    let big = config_map("a", json!({"k": "x".repeat(4 * 1024 * 1024)}));
    assert_eq!(post(&server, MAPS, big).await.status, 413);
}

#[tokio::test]
async fn unknown_fields_are_dropped_told_or_refused_as_asked() {
    let server = server_with_things().await;
    let mut body = thing("t", 1);
    body["spec"]["shape"] = "round".into();
    let strict = post(&server, &format!("{THINGS}?fieldValidation=Strict"), body.clone()).await;
    assert_eq!(strict.status, 400, "{}", strict.body);
    assert!(
        strict.body["message"].as_str().unwrap().contains("unknown field \"spec.shape\""),
        "{}",
        strict.body
    );
    let warned = post(&server, THINGS, body).await;
    assert_eq!(warned.status, 201);
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"spec.shape\\\"\"");
    assert_eq!(warned.body["spec"], json!({"size": 1, "colour": "red"}));
    let mut map = config_map("a", json!({}));
    map["dta"] = json!({});
    let strict = post(&server, &format!("{MAPS}?fieldValidation=Strict"), map).await;
    assert!(strict.body["message"].as_str().unwrap().contains("unknown field \"dta\""), "{}", strict.body);
}

#[tokio::test]
async fn concurrent_patches_are_all_kept() {
    let server = server();
    post(&server, MAPS, config_map("a", json!({}))).await;
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let server = server.clone();
            tokio::spawn(async move {
                merge(&server, &format!("{MAPS}/a"), json!({"data": {format!("k{n}"): "v"}})).await.status
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 200);
    }
    assert_eq!(get(&server, &format!("{MAPS}/a")).await.body["data"].as_object().unwrap().len(), 20);
}

#[tokio::test(start_paused = true)]
async fn old_events_make_room_for_new_ones() {
    let server = server();
    let path = "/api/v1/namespaces/default/events";
    let fill = async |from: u32| {
        for n in from..from + 64 {
            let body =
                json!({"metadata": {"name": format!("e{n}")}, "involvedObject": {"namespace": "default"}});
            assert_eq!(post(&server, path, body).await.status, 201);
        }
    };
    let count = async || get(&server, path).await.body["items"].as_array().unwrap().len();
    fill(0).await;
    tokio::time::advance(std::time::Duration::from_secs(1800)).await;
    fill(64).await;
    assert_eq!(count().await, 128);
    tokio::time::advance(std::time::Duration::from_secs(1900)).await;
    fill(128).await;
    assert_eq!(count().await, 128);
    assert_eq!(get(&server, &format!("{path}/e0")).await.status, 404);
}
