//! Creating and updating.

use serde_json::json;

use super::lab::{Lab, config_map, version};

pub(crate) async fn an_object_is_created_once(lab: &mut Lab) {
    let made = lab.post("cm", &config_map("a", json!({"k": "v"}))).await.created();
    assert_eq!(made["metadata"]["namespace"], lab.namespace());
    assert!(!made["metadata"]["uid"].as_str().expect("uid").is_empty());
    assert!(made["metadata"]["creationTimestamp"].as_str().expect("time").ends_with('Z'));
    assert!(made["metadata"]["generation"].is_null(), "config maps have no generation");
    let again = lab.post("cm", &config_map("a", json!({"k": "other"}))).await.expect(409, "AlreadyExists");
    assert_eq!(again["details"], json!({"name": "a", "kind": "configmaps"}));
    assert_eq!(lab.get("cm/a").await.ok()["data"], json!({"k": "v"}));
    lab.get("cm/b").await.expect(404, "NotFound");
    lab.put("cm/b", &config_map("b", json!({}))).await.expect(404, "NotFound");
    lab.delete("cm/b").await.expect(404, "NotFound");
}

pub(crate) async fn a_bad_object_is_not_created(lab: &mut Lab) {
    let mut with_version = config_map("a", json!({}));
    with_version["metadata"]["resourceVersion"] = json!("1");
    lab.post("cm", &with_version).await.expect(500, "");

    let answer = lab.post("cm", &config_map("Not_A_Name", json!({}))).await.expect(422, "Invalid");
    assert_eq!(answer["details"]["causes"][0]["field"], "metadata.name");
    let answer = lab.post("cm", &config_map("", json!({}))).await.expect(422, "Invalid");
    assert_eq!(answer["details"]["causes"][0]["reason"], "FieldValueRequired");

    let mut elsewhere = config_map("a", json!({}));
    elsewhere["metadata"]["namespace"] = json!("elsewhere");
    lab.post("cm", &elsewhere).await.expect(400, "BadRequest");

    let mut labelled = config_map("a", json!({}));
    labelled["metadata"]["labels"] = json!({"not a key": "x", "a": "not a value!"});
    labelled["metadata"]["annotations"] = json!({"-": "x"});
    labelled["metadata"]["finalizers"] = json!(["not a name"]);
    let answer = lab.post("cm", &labelled).await.expect(422, "Invalid");
    let fields: Vec<_> =
        answer["details"]["causes"].as_array().expect("causes").iter().map(|c| &c["field"]).collect();
    assert!(
        fields.contains(&&json!("metadata.labels")) && fields.contains(&&json!("metadata.annotations")),
        "{fields:?}"
    );

    let bad_key = config_map("a", json!({"not a key": "x"}));
    lab.post("cm", &bad_key).await.expect(422, "Invalid");
    let mut wrong_kind = config_map("a", json!({}));
    wrong_kind["kind"] = json!("Secret");
    lab.post("cm", &wrong_kind).await.expect(400, "BadRequest");
    let wrong_type = config_map("a", json!({"k": 1}));
    lab.post("cm", &wrong_type).await.expect(400, "BadRequest");
    lab.get("cm").await.ok();
}

pub(crate) async fn names_are_generated(lab: &mut Lab) {
    let body = json!({"metadata": {"generateName": "made-"}});
    let first = lab.post("cm", &body).await.created();
    let second = lab.post("cm", &body).await.created();
    for made in [&first, &second] {
        let name = made["metadata"]["name"].as_str().expect("name");
        assert!(name.starts_with("made-") && name.len() == "made-".len() + 5, "{name}");
    }
    assert_ne!(first["metadata"]["name"], second["metadata"]["name"]);
}

pub(crate) async fn an_update_that_changes_nothing_is_no_event(lab: &mut Lab) {
    let made = lab.post("cm", &config_map("a", json!({"k": "v"}))).await.created();
    let mut watch = lab.watch(&format!("cm?resourceVersion={}", version(&made))).await;
    let same = lab.put("cm/a", &made).await.ok();
    assert_eq!(version(&same), version(&made), "an update without a change made a new version");
    let same = lab.patch("merge", "cm/a", &json!({"data": {"k": "v"}})).await.ok();
    assert_eq!(version(&same), version(&made));
    let changed = lab.patch("merge", "cm/a", &json!({"data": {"k": "w"}})).await.ok();
    assert_ne!(version(&changed), version(&made));
    let events = watch.take(1).await;
    assert_eq!(version(&events[0]["object"]), version(&changed), "something was told that did not happen");
    lab.saw("the only change", &events);
}

pub(crate) async fn a_stale_update_is_a_conflict(lab: &mut Lab) {
    let made = lab.post("cm", &config_map("a", json!({"k": "1"}))).await.created();
    let mut fresh = made.clone();
    fresh["data"]["k"] = json!("2");
    let second = lab.put("cm/a", &fresh).await.ok();
    assert_eq!(second["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(second["metadata"]["creationTimestamp"], made["metadata"]["creationTimestamp"]);
    fresh["data"]["k"] = json!("3");
    let refused = lab.put("cm/a", &fresh).await.expect(409, "Conflict");
    assert_eq!(refused["details"], json!({"name": "a", "kind": "configmaps"}));
    // Without a version, whatever is there is replaced, labels and all.
    let mut blind = config_map("a", json!({"k": "4"}));
    blind["metadata"]["labels"] = json!({"l": "1"});
    lab.put("cm/a", &blind).await.ok();
    let last = lab.put("cm/a", &config_map("a", json!({"k": "5"}))).await.ok();
    assert!(last["metadata"]["labels"].is_null());
    assert_eq!(last["metadata"]["uid"], made["metadata"]["uid"]);
}

pub(crate) async fn an_update_must_mean_the_object_it_names(lab: &mut Lab) {
    let made = lab.post("cm", &config_map("a", json!({}))).await.created();
    lab.put("cm/a", &config_map("b", json!({}))).await.expect(400, "BadRequest");
    let mut other = made.clone();
    other["metadata"]["uid"] = json!("11111111-2222-3333-4444-555555555555");
    lab.put("cm/a", &other).await.expect(409, "Conflict");
    let mut elsewhere = made.clone();
    elsewhere["metadata"]["namespace"] = json!("elsewhere");
    lab.put("cm/a", &elsewhere).await.expect(400, "BadRequest");
    // What the server sets, it keeps.
    let mut vain = made.clone();
    vain["metadata"]["creationTimestamp"] = json!("2001-01-01T00:00:00Z");
    vain["metadata"]["labels"] = json!({"new": "1"});
    let answer = lab.put("cm/a", &vain).await.ok();
    assert_eq!(answer["metadata"]["creationTimestamp"], made["metadata"]["creationTimestamp"]);
    let nonsense = json!({"metadata": {"name": "a", "resourceVersion": "abc"}});
    lab.put("cm/a", &nonsense).await.expect(500, "");
}

pub(crate) async fn a_dry_run_leaves_no_trace(lab: &mut Lab) {
    lab.post("cm?dryRun=All", &config_map("a", json!({"k": "v"}))).await.created();
    lab.get("cm/a").await.expect(404, "NotFound");
    let made = lab.post("cm", &config_map("a", json!({"k": "v"}))).await.created();
    let answer = lab.patch("merge", "cm/a?dryRun=All", &json!({"data": {"k": "w"}})).await.ok();
    assert_eq!(answer["data"]["k"], "w");
    lab.delete("cm/a?dryRun=All").await.ok();
    assert_eq!(version(&lab.get("cm/a").await.ok()), version(&made));
    lab.post("cm?dryRun=Some", &config_map("b", json!({}))).await.expect(422, "Invalid");
}

pub(crate) async fn unknown_fields_of_built_in_kinds_are_told(lab: &mut Lab) {
    let mut odd = config_map("a", json!({}));
    odd["colour"] = json!("red");
    odd["metadata"]["shape"] = json!("round");
    lab.post("cm?fieldValidation=Strict", &odd).await.expect(400, "BadRequest");
    let answer = lab.post("cm?fieldValidation=Warn", &odd).await;
    assert!(!answer.warnings.is_empty(), "no warning");
    let made = answer.created();
    assert!(made["colour"].is_null() && made["metadata"]["shape"].is_null());
    odd["metadata"]["name"] = json!("b");
    let answer = lab.post("cm?fieldValidation=Ignore", &odd).await;
    assert_eq!(answer.warnings, Vec::<String>::new());
    answer.created();
    lab.post("cm?fieldValidation=Perhaps", &config_map("c", json!({}))).await.expect(422, "Invalid");
}

pub(crate) async fn requests_that_cannot_be_understood_are_told_so(lab: &mut Lab) {
    lab.get("/api/v1/namespaces/{ns}/nothings").await.expect(404, "");
    lab.get("/apis/no.such.group/v1/things").await.expect(404, "");
    let json = [("content-type", "application/json")];
    lab.call("POST", "cm", &json, b"{".to_vec()).await.expect(400, "BadRequest");
    lab.call("POST", "cm", &json, Vec::new()).await.expect(400, "BadRequest");
    lab.call("POST", "cm", &[("content-type", "text/plain")], b"{}".to_vec())
        .await
        .expect(415, "UnsupportedMediaType");
    lab.post("cm/a", &config_map("a", serde_json::json!({}))).await.expect(405, "MethodNotAllowed");
    lab.put("cm", &config_map("a", serde_json::json!({}))).await.expect(405, "MethodNotAllowed");
    lab.call("GET", "cm", &[("accept", "text/csv")], Vec::new()).await.expect(406, "NotAcceptable");
    let yaml = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: from-yaml}\ndata: {k: v}\n".to_vec();
    let made = lab.call("POST", "cm", &[("content-type", "application/yaml")], yaml).await.created();
    assert_eq!(made["data"]["k"], "v");
}

pub(crate) async fn secrets_and_config_maps_keep_their_promises(lab: &mut Lab) {
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"b": "text"}, "data": {"a": "YQ=="}});
    let made = lab.post("secrets", &secret).await.created();
    assert_eq!(made["data"], json!({"a": "YQ==", "b": "dGV4dA=="}));
    assert_eq!(made["type"], "Opaque");
    assert!(made["stringData"].is_null());
    let mut other = made.clone();
    other["type"] = json!("kubernetes.io/tls");
    lab.put("secrets/s", &other).await.expect(422, "Invalid");
    let not_base64 = json!({"metadata": {"name": "t"}, "data": {"a": "?"}});
    lab.post("secrets", &not_base64).await.expect(400, "BadRequest");

    let mut fixed = config_map("fixed", json!({"k": "v"}));
    fixed["immutable"] = json!(true);
    let made = lab.post("cm", &fixed).await.created();
    lab.patch("merge", "cm/fixed", &json!({"data": {"k": "w"}})).await.expect(422, "Invalid");
    lab.patch("merge", "cm/fixed", &json!({"immutable": false})).await.expect(422, "Invalid");
    lab.patch("merge", "cm/fixed", &json!({"metadata": {"labels": {"l": "1"}}})).await.ok();
    assert_eq!(made["immutable"], true);
}

pub(crate) async fn a_lease_can_be_created_by_put(lab: &mut Lab) {
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
        "spec": {"holderIdentity": "me", "leaseDurationSeconds": 15}});
    lab.put("leases/l", &lease).await.created();
    let taken = lab.get("leases/l").await.ok();
    let mut mine = taken.clone();
    mine["spec"]["holderIdentity"] = json!("you");
    lab.put("leases/l", &mine).await.ok();
    mine["spec"]["holderIdentity"] = json!("they");
    lab.put("leases/l", &mine).await.expect(409, "Conflict");
    let mut wrong = lease.clone();
    wrong["spec"]["leaseDurationSeconds"] = json!(0);
    lab.post("leases", &wrong).await.expect(422, "Invalid");
}
