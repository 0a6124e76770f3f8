//! How objects go.

use serde_json::json;

use super::lab::{Lab, config_map, gadget, generation, in_short, version};

pub(crate) async fn a_plain_object_goes_at_once(lab: &mut Lab) {
    let made = lab.post("cm", &config_map("a", json!({}))).await.created();
    let answer = lab.delete("cm/a").await.ok();
    assert_eq!(answer["kind"], "Status");
    assert_eq!(answer["status"], "Success");
    assert_eq!(answer["details"]["uid"], made["metadata"]["uid"]);
    lab.get("cm/a").await.expect(404, "NotFound");
    let again = lab.post("cm", &config_map("a", json!({}))).await.created();
    assert_ne!(again["metadata"]["uid"], made["metadata"]["uid"]);
    // A custom resource answers in the same way.
    lab.post("gadgets", &gadget("g", json!({"size": 1}))).await.created();
    assert_eq!(lab.delete("gadgets/g").await.ok()["status"], "Success");
}

pub(crate) async fn a_finalizer_holds_an_object_until_it_is_taken_out(lab: &mut Lab) {
    let mut held = gadget("g", json!({"size": 1}));
    held["metadata"]["finalizers"] = json!(["a.b/one", "a.b/two"]);
    let made = lab.post("gadgets", &held).await.created();
    let mut watch = lab.watch(&format!("gadgets?resourceVersion={}", version(&made))).await;
    let going = lab.delete("gadgets/g").await.ok();
    assert_eq!(going["kind"], "Gadget", "the object itself is the answer");
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 0);
    assert_eq!(
        generation(&going),
        generation(&made) + 1,
        "the beginning of a deletion is a change of the spec"
    );
    let again = lab.delete("gadgets/g").await.ok();
    assert_eq!(version(&again), version(&going), "a second deletion changes nothing");
    // It can still be changed.
    lab.patch("merge", "gadgets/g", &json!({"metadata": {"labels": {"l": "1"}}})).await.ok();
    lab.patch("merge", "gadgets/g", &json!({"metadata": {"finalizers": ["a.b/two"]}})).await.ok();
    let last = lab.patch("merge", "gadgets/g", &json!({"metadata": {"finalizers": null}})).await.ok();
    assert!(last["metadata"]["finalizers"].is_null());
    lab.get("gadgets/g").await.expect(404, "NotFound");
    let events = watch.take(4).await;
    assert_eq!(in_short(&events), ["MODIFIED g", "MODIFIED g", "MODIFIED g", "DELETED g"]);
    lab.saw("the deletion", &events);
}

pub(crate) async fn preconditions_are_honoured(lab: &mut Lab) {
    let made = lab.post("cm", &config_map("a", json!({}))).await.created();
    let other = json!({"preconditions": {"uid": "11111111-2222-3333-4444-555555555555"}});
    lab.delete_with("cm/a", &other).await.expect(409, "Conflict");
    let changed = lab.patch("merge", "cm/a", &json!({"data": {"k": "v"}})).await.ok();
    let stale = json!({"preconditions": {"resourceVersion": version(&made)}});
    lab.delete_with("cm/a", &stale).await.expect(409, "Conflict");
    let exact =
        json!({"preconditions": {"uid": made["metadata"]["uid"], "resourceVersion": version(&changed)}});
    lab.delete_with("cm/a", &exact).await.ok();
    lab.get("cm/a").await.expect(404, "NotFound");
    lab.post("cm", &config_map("b", json!({}))).await.created();
    lab.delete_with("cm/b", &json!({"propagationPolicy": "Sometimes"})).await.expect(422, "Invalid");
    lab.delete_with("cm/b", &json!({"gracePeriodSeconds": 0, "propagationPolicy": "Background"})).await.ok();
}

pub(crate) async fn a_collection_is_deleted_by_selector(lab: &mut Lab) {
    for (name, label) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let mut object = config_map(name, json!({}));
        object["metadata"]["labels"] = json!({"l": label});
        lab.post("cm", &object).await.created();
    }
    let mut watch = lab.watch("cm?resourceVersion=0&labelSelector=l").await;
    let there = watch.take(3).await;
    assert_eq!(there.len(), 3);
    lab.delete("cm?labelSelector=l%3Dx").await.ok();
    let left = lab.get("cm?labelSelector=l").await.ok();
    let names: Vec<_> =
        left["items"].as_array().expect("items").iter().map(|item| &item["metadata"]["name"]).collect();
    assert_eq!(names, ["b"]);
    let mut gone = in_short(&watch.take(2).await);
    gone.sort();
    assert_eq!(gone, ["DELETED a", "DELETED c"]);
    lab.delete("cm?fieldSelector=metadata.name%3Db").await.ok();
    lab.get("cm/b").await.expect(404, "NotFound");
}

pub(crate) async fn nothing_new_can_hold_an_object_that_is_going(lab: &mut Lab) {
    let mut held = config_map("a", json!({}));
    held["metadata"]["finalizers"] = json!(["a.b/one"]);
    lab.post("cm", &held).await.created();
    lab.delete("cm/a").await.ok();
    let more = json!({"metadata": {"finalizers": ["a.b/one", "a.b/two"]}});
    let refused = lab.patch("merge", "cm/a", &more).await.expect(422, "Invalid");
    assert_eq!(refused["details"]["causes"][0]["field"], "metadata.finalizers");
    lab.post("cm", &config_map("a", json!({}))).await.expect(409, "AlreadyExists");
    // Emptied by a PUT, it goes as well.
    let mut object = lab.get("cm/a").await.ok();
    object["metadata"]["finalizers"] = json!([]);
    lab.put("cm/a", &object).await.ok();
    lab.get("cm/a").await.expect(404, "NotFound");
}
