use super::*;

#[tokio::test]
async fn a_delete_answers_with_what_was_deleted() {
    let server = server();
    let made = post(&server, MAPS, config_map("a", json!({}))).await.body;
    let gone = delete(&server, &format!("{MAPS}/a"), Value::Null).await;
    assert_eq!(gone.status, 200);
    assert_eq!(gone.body["status"], "Success");
    assert_eq!(
        gone.body["details"],
        json!({"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]})
    );
    assert_eq!(delete(&server, &format!("{MAPS}/a"), Value::Null).await.status, 404);
}

#[tokio::test]
async fn an_object_with_finalizers_goes_with_the_last_of_them() {
    let server = server_with_things().await;
    let mut body = thing("t", 1);
    body["metadata"]["finalizers"] = json!(["example.com/a", "example.com/b"]);
    post(&server, THINGS, body).await;
    let path = format!("{THINGS}/t");
    let held = delete(&server, &path, Value::Null).await;
    assert_eq!(held.status, 200);
    let meta = &held.body["metadata"];
    assert!(meta["deletionTimestamp"].is_string());
    assert_eq!(meta["deletionGracePeriodSeconds"], 0);
    assert_eq!(meta["generation"], 2);
    // A second delete changes nothing.
    let again = delete(&server, &path, Value::Null).await;
    assert_eq!(again.body["metadata"]["resourceVersion"], meta["resourceVersion"]);
    let added = json!({"metadata": {"finalizers": ["example.com/a", "example.com/b", "example.com/c"]}});
    assert_eq!(merge(&server, &path, added).await.status, 422);
    let one = merge(&server, &path, json!({"metadata": {"finalizers": ["example.com/b"]}})).await;
    assert_eq!(one.status, 200);
    assert_eq!(get(&server, &path).await.status, 200);
    assert_eq!(merge(&server, &path, json!({"metadata": {"finalizers": null}})).await.status, 200);
    assert_eq!(get(&server, &path).await.status, 404);
}

#[tokio::test]
async fn a_deletion_timestamp_cannot_be_written() {
    let server = server();
    post(&server, MAPS, config_map("a", json!({}))).await;
    let path = format!("{MAPS}/a");
    let set = merge(&server, &path, json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})).await;
    assert_eq!(set.status, 422, "{}", set.body);
}

#[tokio::test]
async fn preconditions_protect_from_deleting_another() {
    let server = server();
    let made = post(&server, MAPS, config_map("a", json!({}))).await.body;
    let path = format!("{MAPS}/a");
    let other = delete(&server, &path, json!({"preconditions": {"uid": "other"}})).await;
    assert_eq!((other.status.as_u16(), other.body["reason"].as_str()), (409, Some("Conflict")));
    let old = delete(&server, &path, json!({"preconditions": {"resourceVersion": "1"}})).await;
    assert_eq!(old.status, 409);
    let uid = &made["metadata"]["uid"];
    assert_eq!(delete(&server, &path, json!({"preconditions": {"uid": uid}})).await.status, 200);
}

#[tokio::test]
async fn foreground_deletion_waits_for_a_collector() {
    let server = server();
    post(&server, MAPS, config_map("a", json!({}))).await;
    let path = format!("{MAPS}/a");
    let held = delete(&server, &path, json!({"propagationPolicy": "Foreground"})).await;
    assert_eq!(held.body["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    assert_eq!(delete(&server, &path, json!({"propagationPolicy": "Background"})).await.status, 200);
    assert_eq!(get(&server, &path).await.status, 404);
    post(&server, MAPS, config_map("a", json!({}))).await;
    assert_eq!(delete(&server, &path, json!({"propagationPolicy": "Sideways"})).await.status, 422);
}

#[tokio::test]
async fn a_collection_is_deleted_as_selected() {
    let server = server();
    for (name, app) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let mut body = config_map(name, json!({}));
        body["metadata"]["labels"] = json!({"app": app});
        post(&server, MAPS, body).await;
    }
    let gone = delete(&server, &format!("{MAPS}?labelSelector=app%3Dx"), Value::Null).await;
    assert_eq!(gone.status, 200);
    assert_eq!(gone.body["items"].as_array().unwrap().len(), 2);
    let left = get(&server, MAPS).await.body;
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
    assert_eq!(delete(&server, "/api/v1/configmaps", Value::Null).await.status, 405);
}

#[tokio::test]
async fn a_namespace_terminates_until_it_is_finalized() {
    let server = server();
    let made = post(&server, "/api/v1/namespaces", json!({"metadata": {"name": "n"}})).await.body;
    assert_eq!(made["status"]["phase"], "Active");
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(made["metadata"]["labels"]["kubernetes.io/metadata.name"], "n");
    let held = delete(&server, "/api/v1/namespaces/n", Value::Null).await.body;
    assert_eq!(held["status"]["phase"], "Terminating", "{held}");
    let refused = post(&server, "/api/v1/namespaces/n/configmaps", config_map("a", json!({}))).await;
    assert_eq!(refused.status, 403);
    assert_eq!(refused.body["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let mut last = held;
    last["spec"]["finalizers"] = json!([]);
    let done = put(&server, "/api/v1/namespaces/n/finalize", last).await;
    assert_eq!(done.status, 200, "{}", done.body);
    assert_eq!(get(&server, "/api/v1/namespaces/n").await.status, 404);
    assert_eq!(delete(&server, "/api/v1/namespaces/default", Value::Null).await.status, 403);
}

#[tokio::test]
async fn an_update_cannot_take_a_namespace_finalizer_away() {
    let server = server();
    let mut made = post(&server, "/api/v1/namespaces", json!({"metadata": {"name": "n"}})).await.body;
    made["spec"] = json!({});
    let kept = put(&server, "/api/v1/namespaces/n", made).await.body;
    assert_eq!(kept["spec"]["finalizers"], json!(["kubernetes"]));
}
