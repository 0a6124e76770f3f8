//! The three patch languages.

use serde_json::json;

use super::lab::{Lab, config_map, gadget, trinket, version};

pub(crate) async fn a_merge_patch_merges_and_null_removes(lab: &mut Lab) {
    lab.post("cm", &config_map("a", json!({"a": "1", "b": "2"}))).await.created();
    let next = lab.patch("merge", "cm/a", &json!({"data": {"a": null, "c": "3"}})).await.ok();
    assert_eq!(next["data"], json!({"b": "2", "c": "3"}));
    lab.patch("merge", "cm/missing", &json!({"data": {}})).await.expect(404, "NotFound");
    lab.patch("merge", "cm/a", &json!([1])).await.expect(400, "BadRequest");
    let media = [("content-type", "application/merge-patch+json")];
    lab.call("PATCH", "cm/a", &media, b"{".to_vec()).await.expect(400, "BadRequest");
    lab.call("PATCH", "cm/a", &[("content-type", "application/json")], b"{}".to_vec())
        .await
        .expect(415, "UnsupportedMediaType");
    // Lists are replaced as a whole.
    lab.post("trinkets", &trinket("t", json!({"list": [{"name": "x"}, {"name": "y"}]}))).await.created();
    let next =
        lab.patch("merge", "trinkets/t", &json!({"spec": {"list": [{"name": "z", "n": null}]}})).await.ok();
    assert_eq!(next["spec"]["list"].as_array().expect("list").len(), 1);
    lab.patch("merge", "cm/a", &json!({"data": {"k": 1}})).await.expect(422, "Invalid");
}

pub(crate) async fn a_json_patch_does_all_or_nothing(lab: &mut Lab) {
    let made = lab.post("cm", &config_map("a", json!({"a": "1"}))).await.created();
    let next = lab
        .patch(
            "json",
            "cm/a",
            &json!([
                {"op": "test", "path": "/data/a", "value": "1"},
                {"op": "add", "path": "/data/b", "value": "2"},
                {"op": "copy", "from": "/data/a", "path": "/data/c"},
                {"op": "move", "from": "/data/a", "path": "/data/d"},
                {"op": "replace", "path": "/data/b", "value": "3"},
            ]),
        )
        .await
        .ok();
    assert_eq!(next["data"], json!({"b": "3", "c": "1", "d": "1"}));
    assert_ne!(version(&next), version(&made));
    for refused in [
        json!([{"op": "add", "path": "/data/x", "value": "1"}, {"op": "test", "path": "/data/b", "value": "other"}]),
        json!([{"op": "remove", "path": "/data/missing"}]),
        json!([{"op": "replace", "path": "/metadata/labels/x", "value": "1"}]),
        json!([{"op": "add", "path": "/no/such/place", "value": "1"}]),
    ] {
        lab.patch("json", "cm/a", &refused).await.expect(422, "Invalid");
    }
    lab.patch("json", "cm/a", &json!({"op": "add"})).await.expect(400, "BadRequest");
    assert_eq!(version(&lab.get("cm/a").await.ok()), version(&next), "a refused patch left something");
    let labels = json!([{"op": "add", "path": "/metadata/labels", "value": {"l": "1"}}]);
    assert_eq!(lab.patch("json", "cm/a", &labels).await.ok()["metadata"]["labels"], json!({"l": "1"}));
    let null = json!([{"op": "test", "path": "/metadata/annotations", "value": null}]);
    lab.patch("json", "cm/a", &null).await.ok();
}

pub(crate) async fn a_strategic_patch_knows_the_keys_of_built_in_kinds(lab: &mut Lab) {
    let mut held = config_map("a", json!({"a": "1"}));
    held["metadata"]["finalizers"] = json!(["a.b/one"]);
    lab.post("cm", &held).await.created();
    let next = lab.patch("strategic", "cm/a", &json!({"metadata": {"finalizers": ["a.b/two"]}})).await.ok();
    assert_eq!(next["metadata"]["finalizers"], json!(["a.b/two", "a.b/one"]));
    let less = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a.b/one", "a.b/two"]}});
    let next = lab.patch("strategic", "cm/a", &less).await.ok();
    assert_eq!(next["metadata"]["finalizers"].as_array().map_or(0, Vec::len), 0);
    let replaced =
        lab.patch("strategic", "cm/a", &json!({"data": {"$patch": "replace", "z": "26"}})).await.ok();
    assert_eq!(replaced["data"], json!({"z": "26"}));

    let service = json!({"metadata": {"name": "s"}, "spec": {"type": "ExternalName", "externalName": "a.example",
        "ports": [{"name": "one", "port": 1}, {"name": "two", "port": 2}]}});
    lab.post("services", &service).await.created();
    let patch = json!({"spec": {"ports": [{"port": 2, "$patch": "delete"}, {"port": 3, "name": "three"}, {"port": 1, "appProtocol": "x"}]}});
    let next = lab.patch("strategic", "services/s", &patch).await.ok();
    let ports: Vec<_> =
        next["spec"]["ports"].as_array().expect("ports").iter().map(|p| (&p["port"], &p["name"])).collect();
    assert_eq!(ports, [(&json!(3), &json!("three")), (&json!(1), &json!("one"))]);
    let order = json!({"spec": {"$setElementOrder/ports": [{"port": 1}, {"port": 3}]}});
    let next = lab.patch("strategic", "services/s", &order).await.ok();
    assert_eq!(next["spec"]["ports"][0]["port"], 1);

    let owners = json!({"metadata": {"ownerReferences": [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "u-1"}, {"apiVersion": "v1", "kind": "ConfigMap", "name": "y", "uid": "u-2"}]}});
    lab.patch("strategic", "cm/a", &owners).await.ok();
    let fewer = json!({"metadata": {"ownerReferences": [{"uid": "u-1", "$patch": "delete"}]}});
    let next = lab.patch("strategic", "cm/a", &fewer).await.ok();
    assert_eq!(next["metadata"]["ownerReferences"].as_array().expect("owners").len(), 1);
}

pub(crate) async fn a_custom_kind_has_no_strategic_patch(lab: &mut Lab) {
    lab.post("gadgets", &gadget("g", json!({"size": 1}))).await.created();
    lab.patch("strategic", "gadgets/g", &json!({"spec": {"size": 2}}))
        .await
        .expect(415, "UnsupportedMediaType");
    lab.patch("merge", "gadgets/g", &json!({"spec": {"size": 2}})).await.ok();
    let refused =
        lab.patch("merge", "gadgets/g", &json!({"spec": {"size": 11}})).await.expect(422, "Invalid");
    assert_eq!(refused["details"]["causes"][0]["field"], "spec.size");
    lab.patch("json", "gadgets/g", &json!([{"op": "remove", "path": "/spec/size"}]))
        .await
        .expect(422, "Invalid");
    // Null where it may not be is taken for nothing.
    let next = lab
        .patch("json", "gadgets/g", &json!([{"op": "add", "path": "/spec/label", "value": null}]))
        .await
        .ok();
    assert!(next["spec"].get("label").is_none());
}

pub(crate) async fn a_patch_can_carry_a_version(lab: &mut Lab) {
    let first = lab.post("cm", &config_map("a", json!({"a": "1"}))).await.created();
    let second = lab.patch("merge", "cm/a", &json!({"data": {"a": "2"}})).await.ok();
    let stale = json!({"metadata": {"resourceVersion": version(&first)}, "data": {"a": "3"}});
    lab.patch("merge", "cm/a", &stale).await.expect(409, "Conflict");
    lab.patch("strategic", "cm/a", &stale).await.expect(409, "Conflict");
    let exact = json!({"metadata": {"resourceVersion": version(&second)}, "data": {"a": "3"}});
    let third = lab.patch("merge", "cm/a", &exact).await.ok();
    let json_stale = json!([
        {"op": "replace", "path": "/metadata/resourceVersion", "value": version(&second)},
        {"op": "replace", "path": "/data/a", "value": "4"},
    ]);
    lab.patch("json", "cm/a", &json_stale).await.expect(409, "Conflict");
    assert_eq!(version(&lab.get("cm/a").await.ok()), version(&third));
    let other = json!({"metadata": {"uid": "11111111-2222-3333-4444-555555555555"}});
    lab.patch("merge", "cm/a", &other).await.expect(422, "Invalid");
}

pub(crate) async fn what_identifies_an_object_cannot_be_patched(lab: &mut Lab) {
    lab.post("cm", &config_map("a", json!({}))).await.created();
    lab.patch("merge", "cm/a", &json!({"metadata": {"name": "b"}})).await.expect(400, "BadRequest");
    lab.patch("merge", "cm/a", &json!({"metadata": {"namespace": "elsewhere"}}))
        .await
        .expect(400, "BadRequest");
    lab.patch("merge", "cm/a", &json!({"kind": "Secret"})).await.expect(422, "Invalid");
    let kept = lab
        .patch("merge", "cm/a", &json!({"metadata": {"creationTimestamp": null}, "data": {"k": "v"}}))
        .await
        .ok();
    assert!(kept["metadata"]["creationTimestamp"].is_string());
}
