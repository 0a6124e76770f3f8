//! Server-side apply: who owns which field, and what that means for everybody else.

use serde_json::{Value, json};

use super::lab::{GROUP, Lab, config_map, definition, gadget, generation, trinket, version};

/// The managers of an object, as `Operation name` and `/subresource` where there is one.
fn managers(object: &Value) -> Vec<String> {
    let word = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let mut all: Vec<_> = entries
        .map(|entry| {
            let part = word(entry, "subresource");
            let slash = if part.is_empty() { "" } else { "/" };
            format!("{} {}{slash}{part}", word(entry, "operation"), word(entry, "manager"))
        })
        .collect();
    all.sort();
    all
}

/// What a manager owns.
#[track_caller]
fn owned(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let entry = entries.into_iter().find(|entry| entry["manager"] == manager);
    entry
        .map(|entry| entry["fieldsV1"].clone())
        .unwrap_or_else(|| panic!("{manager} owns nothing of {object}"))
}

/// The fields that a refusal names.
fn fields(refusal: &Value) -> Vec<String> {
    let causes = refusal["details"]["causes"].as_array().expect("causes");
    let mut fields: Vec<_> =
        causes.iter().map(|cause| cause["field"].as_str().unwrap_or_default().to_owned()).collect();
    fields.sort();
    fields
}

pub(crate) async fn what_is_not_there_is_created_by_apply(lab: &mut Lab) {
    let made = lab.apply("cm/a", "one", &config_map("a", json!({"k": "v"}))).await.created();
    assert_eq!(managers(&made), ["Apply one"]);
    assert_eq!(owned(&made, "one"), json!({"f:data": {"f:k": {}}}));
    let same = lab.apply("cm/a", "one", &config_map("a", json!({"k": "v"}))).await.ok();
    assert_eq!(version(&same), version(&made), "applying the same again changes nothing");
    let mut labelled = config_map("a", json!({"k": "w"}));
    labelled["metadata"]["labels"] = json!({"l": "1"});
    labelled["metadata"]["annotations"] = json!({"a": "1"});
    labelled["metadata"]["finalizers"] = json!(["example.com/f"]);
    let next = lab.apply("cm/a", "one", &labelled).await.ok();
    assert_eq!(next["data"], json!({"k": "w"}));
    lab.get("cm/a").await.ok();
    let list = lab.get("cm").await.ok();
    assert_eq!(managers(&list["items"][0]), ["Apply one"]);
    lab.apply("cm/a", "one", &config_map("a", json!({"k": "w"}))).await.ok();
    // YAML is what the media type promises.
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: b\ndata:\n  k: v\n";
    let path = "cm/b?fieldManager=one";
    lab.call("PATCH", path, APPLY, yaml.into()).await.created();
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "YQ=="}});
    lab.apply("secrets/s", "one", &secret).await.created();
    let plain =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "t"}, "stringData": {"a": "b"}});
    lab.apply("secrets/t", "one", &plain).await.created();
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
        "spec": {"holderIdentity": "me", "leaseDurationSeconds": 5}});
    lab.apply("leases/l", "one", &lease).await.created();
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "sa"},
        "imagePullSecrets": [{"name": "p"}], "secrets": [{"name": "x"}]});
    lab.apply("serviceaccounts/sa", "one", &account).await.created();
}

const APPLY: &[(&str, &str)] = &[("content-type", "application/apply-patch+yaml")];

pub(crate) async fn a_field_of_another_is_a_conflict(lab: &mut Lab) {
    lab.apply("cm/a", "one", &config_map("a", json!({"k": "1", "l": "1", "m": "1"}))).await.created();
    let refused = lab.apply("cm/a", "two", &config_map("a", json!({"k": "2"}))).await.expect(409, "Conflict");
    assert_eq!(refused["message"], "Apply failed with 1 conflict: conflict with \"one\": .data.k");
    assert_eq!(refused["details"]["causes"][0]["reason"], "FieldManagerConflict");
    let refused = lab.apply("cm/a", "two", &config_map("a", json!({"k": "2", "l": "2"}))).await;
    assert_eq!(fields(&refused.expect(409, "Conflict")), [".data.k", ".data.l"]);
    let patch = json!({"data": {"l": "3"}});
    lab.patch("merge", "cm/a?fieldManager=hand", &patch).await.ok();
    let refused = lab.apply("cm/a", "two", &config_map("a", json!({"k": "2", "l": "2"}))).await;
    let refused = refused.expect(409, "Conflict");
    assert_eq!(
        refused["message"],
        "Apply failed with 2 conflicts: conflicts with \"hand\" using v1:\n- .data.l\nconflicts with \"one\":\n- .data.k"
    );
    let kept = lab.get("cm/a").await.ok();
    assert_eq!(kept["data"], json!({"k": "1", "l": "3", "m": "1"}));
    lab.apply("cm/a", "two", &config_map("a", json!({"k": "2", "m": "1", "n": "1"})))
        .await
        .expect(409, "Conflict");
}

pub(crate) async fn force_takes_fields_from_others(lab: &mut Lab) {
    lab.apply("cm/a", "one", &config_map("a", json!({"k": "1", "l": "1"}))).await.created();
    let taken = lab.apply_by_force("cm/a", "two", &config_map("a", json!({"k": "2"}))).await.ok();
    assert_eq!(taken["data"], json!({"k": "2", "l": "1"}));
    assert_eq!(owned(&taken, "one"), json!({"f:data": {"f:l": {}}}));
    assert_eq!(owned(&taken, "two"), json!({"f:data": {"f:k": {}}}));
    let taken = lab.apply_by_force("cm/a", "two", &config_map("a", json!({"k": "2", "l": "2"}))).await.ok();
    assert_eq!(managers(&taken), ["Apply two"]);
    lab.apply("cm/a", "one", &config_map("a", json!({"k": "1"}))).await.expect(409, "Conflict");
}

pub(crate) async fn what_is_no_longer_applied_goes(lab: &mut Lab) {
    let mut first = config_map("a", json!({"k": "1", "l": "1"}));
    first["metadata"]["labels"] = json!({"x": "1", "y": "1"});
    first["binaryData"] = json!({"b": "AAAA"});
    lab.apply("cm/a", "one", &first).await.created();
    lab.patch(
        "merge",
        "cm/a?fieldManager=hand",
        &json!({"data": {"h": "1"}, "metadata": {"labels": {"h": "1"}}}),
    )
    .await
    .ok();
    let mut second = config_map("a", json!({"k": "1"}));
    second["metadata"]["labels"] = json!({"y": "1"});
    let next = lab.apply("cm/a", "one", &second).await.ok();
    assert_eq!(next["data"], json!({"k": "1", "h": "1"}), "what another wrote stays");
    assert_eq!(next["metadata"]["labels"], json!({"y": "1", "h": "1"}));
    assert!(next.get("binaryData").is_none());
    let bare = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let next = lab.apply("cm/a", "one", &bare).await.ok();
    assert_eq!(next["data"], json!({"h": "1"}));
    assert_eq!(managers(&next), ["Update hand"], "who owns nothing is nobody");
    lab.patch("merge", "cm/a?fieldManager=hand", &json!({"data": null})).await.ok();
}

pub(crate) async fn a_field_of_several_goes_with_the_last(lab: &mut Lab) {
    let both = config_map("a", json!({"k": "1", "l": "1"}));
    lab.apply("cm/a", "one", &both).await.created();
    let shared = lab.apply("cm/a", "two", &both).await.ok();
    assert_eq!(managers(&shared), ["Apply one", "Apply two"]);
    let next = lab.apply("cm/a", "one", &config_map("a", json!({"k": "1"}))).await.ok();
    assert_eq!(next["data"], json!({"k": "1", "l": "1"}), "the other still wants it");
    // Whoever shares a field cannot change it alone.
    lab.apply("cm/a", "one", &config_map("a", json!({"k": "2"}))).await.expect(409, "Conflict");
    let next = lab.apply("cm/a", "two", &config_map("a", json!({"k": "1"}))).await.ok();
    assert_eq!(next["data"], json!({"k": "1"}));
    let next = lab.apply("cm/a", "two", &config_map("a", json!({}))).await.ok();
    assert_eq!(next["data"], json!({"k": "1"}));
    lab.apply("cm/a", "two", &config_map("a", json!({"k": null}))).await.expect(409, "Conflict");
}

pub(crate) async fn every_writer_is_noted(lab: &mut Lab) {
    let made =
        lab.post("cm?fieldManager=maker", &config_map("a", json!({"k": "1", "l": "1"}))).await.created();
    assert_eq!(managers(&made), ["Update maker"]);
    assert_eq!(owned(&made, "maker"), json!({"f:data": {".": {}, "f:k": {}, "f:l": {}}}));
    let mut next = made.clone();
    next["data"]["l"] = json!("2");
    let next = lab.put("cm/a?fieldManager=putter", &next).await.ok();
    assert_eq!(owned(&next, "maker"), json!({"f:data": {".": {}, "f:k": {}}}));
    assert_eq!(owned(&next, "putter"), json!({"f:data": {"f:l": {}}}));
    let patched = lab
        .patch("json", "cm/a?fieldManager=patcher", &json!([{"op": "remove", "path": "/data/k"}]))
        .await
        .ok();
    assert_eq!(managers(&patched), ["Update maker", "Update putter"], "who only takes away owns nothing");
    lab.patch("strategic", "cm/a?fieldManager=patcher", &json!({"metadata": {"labels": {"x": "1"}}}))
        .await
        .ok();
    // By its user agent, if it has no other name.
    let headers = &[("content-type", "application/merge-patch+json"), ("user-agent", "tool/1.2 (x) y/z")];
    let patch = json!({"data": {"t": "1"}}).to_string();
    let patched = lab.call("PATCH", "cm/a", headers, patch.into()).await.ok();
    assert!(managers(&patched).contains(&"Update tool".to_owned()), "{:?}", managers(&patched));
    let same = lab.patch("merge", "cm/a?fieldManager=other", &json!({"data": {"t": "1"}})).await.ok();
    assert_eq!(version(&same), version(&patched), "who changes nothing is not noted");
    // Applying what an update wrote makes it shared.
    let applied = lab.apply("cm/a", "one", &config_map("a", json!({"t": "1"}))).await.ok();
    assert_eq!(owned(&applied, "tool"), owned(&applied, "one"));
    let gone = lab.patch("merge", "cm/a?fieldManager=maker", &json!({"data": null})).await.ok();
    assert!(gone.get("data").is_none());
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "reason": "R", "message": "m", "type": "Normal",
        "involvedObject": {"kind": "ConfigMap", "name": "a", "namespace": lab.namespace()}, "source": {"component": "c"},
        "firstTimestamp": "2026-01-02T03:04:05Z", "lastTimestamp": "2026-01-02T03:04:05Z", "count": 1});
    lab.post("events?fieldManager=maker", &event).await.created();
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {
        "type": "ExternalName", "externalName": "e.example", "selector": {"a": "b"}, "ports": [{"name": "p", "port": 80}]}});
    let made = lab.post("services?fieldManager=maker", &service).await.created();
    assert!(
        owned(&made, "maker")["f:spec"]["f:ports"][r#"k:{"port":80,"protocol":"TCP"}"#].is_object(),
        "{made}"
    );
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"},
        "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/{ns}/roles?fieldManager=maker";
    lab.post(roles, &role).await.created();
}

pub(crate) async fn the_oldest_of_many_writers_are_forgotten(lab: &mut Lab) {
    lab.post("cm?fieldManager=m00", &config_map("a", json!({"k00": "1"}))).await.created();
    for n in 1..12 {
        let patch = json!({"data": {format!("k{n:02}"): "1"}});
        lab.patch("merge", &format!("cm/a?fieldManager=m{n:02}"), &patch).await.ok();
    }
    let mut object = lab.get("cm/a").await.ok();
    assert_eq!(managers(&object).len(), 10, "{:?}", managers(&object));
    assert!(managers(&object).contains(&"Update ancient-changes".to_owned()));
    // Managers can be forgotten by whoever says so, and then nobody is noted until somebody applies.
    object["metadata"]["managedFields"] = json!([{}]);
    let next = lab.put("cm/a?fieldManager=putter", &object).await.ok();
    assert_eq!(managers(&next), Vec::<String>::new());
    let next = lab.patch("merge", "cm/a?fieldManager=putter", &json!({"data": {"k00": "2"}})).await.ok();
    assert_eq!(managers(&next), Vec::<String>::new());
    let next = lab.apply("cm/a", "one", &config_map("a", json!({"k00": "2", "new": "1"}))).await.ok();
    assert_eq!(managers(&next), ["Apply one", "Update before-first-apply"]);
    lab.apply("cm/a", "one", &config_map("a", json!({"k01": "2"}))).await.expect(409, "Conflict");
    // They can be rewritten, too.
    let patch = json!([
        {"op": "replace", "path": "/metadata/managedFields", "value": [{
            "manager": "heir", "operation": "Apply", "apiVersion": "v1", "time": "2026-01-02T03:04:05Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:k00": {}, "f:k01": {}}},
        }]},
        {"op": "test", "path": "/metadata/managedFields/0/manager", "value": "heir"},
    ]);
    let next = lab.patch("json", "cm/a?fieldManager=x", &patch).await.ok();
    assert_eq!(managers(&next), ["Apply heir"]);
    let next = lab.apply("cm/a", "heir", &config_map("a", json!({"k00": "2"}))).await.ok();
    assert!(next["data"].get("k01").is_none());
}

pub(crate) async fn lists_with_keys_are_owned_item_by_item(lab: &mut Lab) {
    let parts = |parts: Value| gadget("g", json!({"size": 1, "parts": parts}));
    lab.apply("gadgets/g", "one", &parts(json!([{"name": "a", "count": 1}, {"name": "b"}]))).await.created();
    let two = gadget("g", json!({"parts": [{"name": "c", "count": 3}, {"name": "a"}]}));
    let next = lab.apply("gadgets/g", "two", &two).await.ok();
    let names = |object: &Value| -> Vec<String> {
        let parts = object["spec"]["parts"].as_array().expect("parts");
        parts.iter().map(|part| part["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(names(&next), ["c", "a", "b"].map(str::to_owned), "{next}");
    let clash = gadget("g", json!({"parts": [{"name": "a", "count": 7}]}));
    let refused = lab.apply("gadgets/g", "two", &clash).await.expect(409, "Conflict");
    assert_eq!(fields(&refused), [".spec.parts[name=\"a\"].count"]);
    let next = lab.apply("gadgets/g", "one", &parts(json!([{"name": "b", "count": 2}]))).await.ok();
    assert_eq!(next["spec"]["parts"].as_array().expect("parts").len(), 3, "{next}");
    let next = lab.apply("gadgets/g", "two", &gadget("g", json!({}))).await.ok();
    assert_eq!(next["spec"]["parts"], json!([{"name": "b", "count": 2}]));
    lab.apply("gadgets/g", "two", &parts(json!([{"name": "z"}, {"name": "z"}]))).await.expect(500, "");
    lab.apply("gadgets/g", "two", &parts(json!([{"count": 1}]))).await.expect(500, "");
    // The same for built-in kinds.
    let service = |ports: Value| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"type": "ExternalName", "externalName": "e.example", "ports": ports}})
    };
    lab.apply("services/s", "one", &service(json!([{"name": "a", "port": 80}]))).await.created();
    let ports = json!([{"name": "b", "port": 81, "protocol": "TCP"}]);
    let next = lab.apply("services/s", "two", &json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": ports}})).await.ok();
    assert_eq!(next["spec"]["ports"].as_array().expect("ports").len(), 2);
}

pub(crate) async fn sets_are_owned_value_by_value(lab: &mut Lab) {
    let tags = |tags: Value| gadget("g", json!({"size": 1, "tags": tags}));
    lab.apply("gadgets/g", "one", &tags(json!(["a", "b"]))).await.created();
    let next = lab.apply("gadgets/g", "two", &gadget("g", json!({"tags": ["b", "c"]}))).await.ok();
    assert_eq!(next["spec"]["tags"], json!(["a", "b", "c"]));
    let next = lab.apply("gadgets/g", "one", &tags(json!([]))).await.ok();
    assert_eq!(next["spec"]["tags"], json!(["b", "c"]));
    lab.apply("gadgets/g", "two", &gadget("g", json!({}))).await.ok();
    let bare = || json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let finalizers = |list: Value| {
        let mut map = bare();
        map["metadata"]["finalizers"] = list;
        map
    };
    lab.apply("cm/a", "one", &finalizers(json!(["example.com/a"]))).await.created();
    let next = lab.apply("cm/a", "two", &finalizers(json!(["example.com/b"]))).await.ok();
    assert_eq!(next["metadata"]["finalizers"], json!(["example.com/a", "example.com/b"]));
    let next = lab.apply("cm/a", "one", &bare()).await.ok();
    assert_eq!(next["metadata"]["finalizers"], json!(["example.com/b"]));
    lab.patch("merge", "cm/a", &json!({"metadata": {"finalizers": null}})).await.ok();
    let owner = |uid: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": uid});
    let mut owned = bare();
    owned["metadata"]["ownerReferences"] = json!([owner("u-1")]);
    lab.apply("cm/a", "one", &owned).await.ok();
    owned["metadata"]["ownerReferences"] = json!([owner("u-2")]);
    let next = lab.apply("cm/a", "two", &owned).await.ok();
    assert_eq!(next["metadata"]["ownerReferences"].as_array().expect("owners").len(), 2);
}

pub(crate) async fn custom_resources_are_owned_by_their_schema(lab: &mut Lab) {
    let spec = json!({
        "size": 1, "options": {"x": true}, "free": {"a": {"b": 1}, "l": [1, 2]}, "port": "http", "either": {"a": "1"},
        "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "t"}, "spec": {"c": [1]}},
    });
    let made = lab.apply("gadgets/g", "one", &gadget("g", spec.clone())).await.created();
    assert_eq!(made["spec"]["colour"], "green", "defaults are filled in");
    assert_eq!(generation(&made), 1);
    assert!(owned(&made, "one")["f:spec"].get("f:colour").is_none(), "and belong to nobody");
    let updated = lab
        .patch(
            "merge",
            "gadgets/g?fieldManager=hand",
            &json!({"spec": {"colour": "red", "options": {"y": false}}}),
        )
        .await
        .ok();
    assert_eq!(generation(&updated), 2);
    let next = lab.apply("gadgets/g", "one", &gadget("g", json!({"size": 2}))).await.ok();
    assert_eq!(next["spec"], json!({"size": 2, "colour": "red", "options": {"y": false}}));
    lab.apply("gadgets/g", "two", &gadget("g", json!({"free": {"a": {"b": 1, "c": [1]}}}))).await.ok();
    let refused = lab.apply("gadgets/g", "one", &gadget("g", json!({"size": 2, "free": {"a": 5}}))).await;
    refused.expect(409, "Conflict");
    lab.apply_by_force("gadgets/g", "one", &gadget("g", json!({"size": 2, "free": {"a": 5}}))).await.ok();
    lab.apply("gadgets/g", "one", &gadget("g", json!({"size": 2, "label": null})))
        .await
        .expect(422, "Invalid");
    lab.apply("gadgets/g", "one", &gadget("g", json!({"size": 2, "maybe": null}))).await.ok();
    // What is left of an object whose fields were known to nobody is null, which is more than some schemas take.
    let free = gadget("h", json!({"size": 1, "free": {"a": {"b": 1}}}));
    lab.apply("gadgets/h", "one", &free).await.created();
    lab.patch("merge", "gadgets/h?fieldManager=hand", &json!({"spec": {"free": {"a": {"c": 2}}}})).await.ok();
    lab.apply("gadgets/h", "one", &gadget("h", json!({"size": 1}))).await.expect(422, "Invalid");
    // Nothing is known of a trinket.
    let made = lab
        .apply(
            "trinkets/t",
            "one",
            &trinket("t", json!({"a": {"b": 1}, "l": [{"x": 1}], "e": {}, "n": null})),
        )
        .await
        .created();
    assert_eq!(managers(&made), ["Apply one"]);
    lab.post("trinkets?fieldManager=maker", &trinket("u", json!({"a": {"b": 1}, "l": [], "e": {}})))
        .await
        .created();
    lab.apply("trinkets/t", "two", &trinket("t", json!({"l": [{"x": 2}]}))).await.expect(409, "Conflict");
    let next = lab.apply("trinkets/t", "one", &trinket("t", json!({"a": {}}))).await.ok();
    assert!(next["spec"].get("l").is_none(), "{next}");
}

pub(crate) async fn status_is_applied_through_its_subresource_only(lab: &mut Lab) {
    let mut object = gadget("g", json!({"size": 1}));
    object["status"] = json!({"phase": "Forged"});
    let made = lab.apply("gadgets/g", "one", &object).await.created();
    assert!(made.get("status").is_none());
    let status = |phase: &str| json!({"apiVersion": format!("{GROUP}/v1"), "kind": "Gadget", "metadata": {"name": "g"}, "status": {"phase": phase}});
    let next = lab.apply("gadgets/g/status", "one", &status("Up")).await.ok();
    assert_eq!(next["status"], json!({"phase": "Up"}));
    assert_eq!(managers(&next), ["Apply one", "Apply one/status"]);
    lab.apply("gadgets/g/status", "two", &status("Down")).await.expect(409, "Conflict");
    let next = lab
        .patch(
            "merge",
            "gadgets/g/status?fieldManager=hand",
            &json!({"status": {"phase": "Down", "seen": 1}}),
        )
        .await
        .ok();
    assert_eq!(managers(&next), ["Apply one", "Update hand/status"]);
    let refused = lab.apply("gadgets/g/status", "one", &status("Up")).await.expect(409, "Conflict");
    assert_eq!(
        refused["details"]["causes"][0]["message"],
        format!("conflict with \"hand\" with subresource \"status\" using {GROUP}/v1")
    );
    let next = lab.apply("gadgets/g", "one", &gadget("g", json!({"size": 2}))).await.ok();
    assert_eq!(next["status"]["phase"], "Down", "the object itself does not touch its status");
    lab.apply("gadgets/none/status", "one", &status("Up")).await.expect(404, "NotFound");
    let mut whole = next.clone();
    whole["status"]["seen"] = json!(2);
    whole["spec"]["size"] = json!(7);
    let next = lab.put("gadgets/g/status?fieldManager=putter", &whole).await.ok();
    assert_eq!(managers(&next), ["Apply one", "Update hand/status", "Update putter/status"]);
    let scaler = json!({"apiVersion": format!("{GROUP}/v1"), "kind": "Scaler", "metadata": {"name": "s"}, "spec": {"replicas": 2}});
    lab.apply("scalers/s", "one", &scaler).await.created();
    lab.patch("merge", "scalers/s/scale?fieldManager=scaler", &json!({"spec": {"replicas": 3}})).await.ok();
    let scaled = lab.get("scalers/s").await.ok();
    assert_eq!(managers(&scaled), ["Update scaler/scale"]);
    lab.apply("scalers/s", "one", &scaler).await.expect(409, "Conflict");
}

pub(crate) async fn a_dry_apply_leaves_no_trace(lab: &mut Lab) {
    let map = config_map("a", json!({"k": "1"}));
    lab.apply_with("cm/a", "fieldManager=one&dryRun=All", &map).await.created();
    lab.get("cm/a").await.expect(404, "NotFound");
    let made = lab.apply("cm/a", "one", &map).await.created();
    let next = config_map("a", json!({"k": "2"}));
    let dry = lab.apply_with("cm/a", "fieldManager=one&dryRun=All", &next).await.ok();
    assert_eq!(dry["data"], json!({"k": "2"}));
    lab.apply_with("cm/a", "fieldManager=two&dryRun=All", &next).await.expect(409, "Conflict");
    let now = lab.get("cm/a").await.ok();
    assert_eq!(version(&now), version(&made));
    assert_eq!(now["data"], json!({"k": "1"}));
}

pub(crate) async fn what_cannot_be_applied_is_refused(lab: &mut Lab) {
    let map = config_map("a", json!({"k": "1"}));
    let refused = lab.apply_with("cm/a", "", &map).await.expect(422, "Invalid");
    assert_eq!(fields(&refused), ["fieldManager"]);
    lab.apply_with("cm/a", &format!("fieldManager={}", "x".repeat(129)), &map).await.expect(422, "Invalid");
    lab.apply_with("cm/a", "fieldManager=a%07b", &map).await.expect(422, "Invalid");
    let patch = json!({"data": {"k": "2"}});
    lab.patch("merge", "cm/a?force=true", &patch).await.expect(422, "Invalid");
    lab.post(&format!("cm?fieldManager={}", "x".repeat(129)), &map).await.expect(422, "Invalid");
    lab.apply("cm/b", "one", &map).await.expect(400, "BadRequest");
    lab.apply("cm/a", "one", &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}))
        .await
        .expect(400, "BadRequest");
    lab.apply("cm/a", "one", &json!({"metadata": {"name": "a"}})).await.expect(400, "BadRequest");
    lab.apply("cm/a", "one", &json!({"apiVersion": "v1", "kind": "ConfigMap"}))
        .await
        .expect(400, "BadRequest");
    let mut other = map.clone();
    other["metadata"]["namespace"] = json!("elsewhere");
    lab.apply("cm/a", "one", &other).await.expect(400, "BadRequest");
    let mut owned = map.clone();
    owned["metadata"]["managedFields"] = json!([{"manager": "one", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {}}]);
    lab.apply("cm/a", "one", &owned).await.expect(400, "BadRequest");
    let mut unknown = map.clone();
    unknown["dato"] = json!({});
    let refused = lab.apply("cm/a", "one", &unknown).await.expect(500, "");
    assert!(
        refused["message"].as_str().is_some_and(|text| text.ends_with(".dato: field not declared in schema")),
        "{refused}"
    );
    lab.apply("cm/a", "one", &config_map("a", json!({"k": 1}))).await.expect(500, "");
    lab.call("PATCH", "cm/a?fieldManager=one", APPLY, b"a: [".to_vec()).await.expect(400, "BadRequest");
    lab.call("PATCH", "cm/a?fieldManager=one", APPLY, b"[1]".to_vec()).await.expect(400, "BadRequest");
    let mut stale = map.clone();
    stale["metadata"]["resourceVersion"] = json!("1");
    // There is nothing yet that it could be older than.
    lab.apply("cm/a", "one", &stale).await.created();
    lab.delete("cm/a").await.ok();
    let mut foreign = map.clone();
    foreign["metadata"]["uid"] = json!("somebody-else");
    lab.apply("cm/a", "one", &foreign).await.expect(409, "Conflict");
    lab.get("cm/a").await.expect(404, "NotFound");
    lab.apply("cm/a", "one", &map).await.created();
    lab.apply("cm/a", "one", &stale).await.expect(409, "Conflict");
    let refused = lab.apply("gadgets/g", "one", &gadget("g", json!({"size": 1, "odd": 1}))).await;
    refused.expect(500, "");
    let refused =
        lab.apply("gadgets/g", "one", &gadget("g", json!({"size": 11}))).await.expect(422, "Invalid");
    assert_eq!(fields(&refused), ["spec.size"]);
    lab.apply("gadgets/g", "one", &gadget("g", json!({}))).await.expect(422, "Invalid");
    let nowhere = "/api/v1/namespaces/no-such-{ns}/configmaps/a?fieldManager=one";
    lab.call("PATCH", nowhere, APPLY, map.to_string().into()).await.expect(404, "NotFound");
}

pub(crate) async fn a_watch_sees_an_apply_as_any_write(lab: &mut Lab) {
    let list = lab.get("cm").await.ok();
    let query = format!("cm?resourceVersion={}", version(&list));
    let mut watch = lab.watch(&query).await;
    lab.apply("cm/a", "one", &config_map("a", json!({"k": "1"}))).await.created();
    lab.apply("cm/a", "one", &config_map("a", json!({"k": "1"}))).await.ok();
    lab.apply("cm/a", "two", &config_map("a", json!({"k": "1"}))).await.ok();
    lab.apply("cm/a", "two", &config_map("a", json!({}))).await.ok();
    lab.apply("cm/a", "one", &config_map("a", json!({"k": "2"}))).await.ok();
    lab.delete("cm/a").await.ok();
    let events = watch.take(5).await;
    lab.saw(&query, &events);
}

pub(crate) async fn kubectl_may_take_over_what_it_applied_in_the_old_way(lab: &mut Lab) {
    const LAST: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let mut map = config_map("a", json!({"k": "1", "l": "1"}));
    let last = format!("{}\n", config_map("a", json!({"k": "1", "l": "1"})));
    map["metadata"]["annotations"] = json!({LAST: last});
    lab.post("cm?fieldManager=kubectl-client-side-apply", &map).await.created();
    lab.patch("merge", "cm/a?fieldManager=hand", &json!({"data": {"l": "2"}})).await.ok();
    let refused = lab
        .apply("cm/a", "kubectl", &config_map("a", json!({"k": "3", "l": "3"})))
        .await
        .expect(409, "Conflict");
    assert_eq!(fields(&refused), [".data.l"], "what is as kubectl wrote it is its own");
    lab.apply("cm/a", "other", &config_map("a", json!({"k": "3"}))).await.expect(409, "Conflict");
    let taken = lab.apply("cm/a", "kubectl", &config_map("a", json!({"k": "3"}))).await.ok();
    assert_eq!(taken["data"], json!({"k": "3", "l": "2"}));
    let last = taken["metadata"]["annotations"][LAST].as_str().expect("the annotation").to_owned();
    let last: Value = serde_json::from_str(&last).expect("JSON");
    assert_eq!(last, config_map("a", json!({"k": "3"})), "the annotation follows");
}

pub(crate) async fn a_definition_can_be_applied(lab: &mut Lab) {
    let plural = format!("x{}s", lab.namespace().replace('-', ""));
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "string"}}}}});
    let made = definition(&plural, "Applied", "Namespaced", schema, true);
    let name = format!("{plural}.{GROUP}");
    let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
    let mut made = made;
    made["spec"]["names"] = json!({"plural": plural, "kind": format!("X{plural}")});
    let count = lab.notes();
    let first = lab.apply(&path, "one", &made).await.created();
    assert!(owned(&first, "one")["f:spec"]["f:versions"].is_object(), "{first}");
    made["spec"]["names"]["shortNames"] = json!([format!("s{plural}")]);
    let next = lab.apply(&path, "one", &made).await.ok();
    assert_eq!(next["spec"]["names"]["shortNames"].as_array().map(Vec::len), Some(1));
    let mut other = made.clone();
    other["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["b"] =
        json!({"type": "string"});
    let refused = lab.apply(&path, "two", &other).await.expect(409, "Conflict");
    assert_eq!(fields(&refused), [".spec.versions"]);
    // What its controllers write is another matter.
    lab.forget_from(count);
    lab.note(json!({"did": "apply a definition", "refused": refused}));
    lab.delete(&path).await.ok();
    lab.forget_from(count + 1);
}

pub(crate) async fn versions_of_a_kind_share_their_managers(lab: &mut Lab) {
    let plural = format!("v{}s", lab.namespace().replace('-', ""));
    let kind = format!("V{plural}");
    let spec = json!({"type": "object", "properties": {
        "a": {"type": "string"}, "b": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "parts": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "integer"}}}},
    }});
    let schema = json!({"type": "object", "properties": {"spec": spec}});
    let mut made = definition(&plural, &kind, "Namespaced", schema, false);
    let mut second = made["spec"]["versions"][0].clone();
    second["name"] = json!("v2");
    second["storage"] = json!(false);
    made["spec"]["versions"].as_array_mut().expect("versions").push(second);
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let count = lab.notes();
    lab.post(crds, &made).await.created();
    let paths = ["v1", "v2"].map(|version| format!("/apis/{GROUP}/{version}/namespaces/{{ns}}/{plural}"));
    for path in &paths {
        lab.eventually(path, |reply| reply.code == 200).await;
    }
    lab.forget_from(count);
    let object = |version: &str, spec: Value| {
        json!({
            "apiVersion": format!("{GROUP}/{version}"), "kind": kind, "metadata": {"name": "x"}, "spec": spec,
        })
    };
    let path = paths.each_ref().map(|path| format!("{path}/x"));
    let whole = json!({"a": "1", "b": "1", "tags": ["s", "t"], "parts": [{"name": "p", "n": 1}]});
    lab.apply(&path[0], "one", &object("v1", whole)).await.created();
    // An applier is the same in every version; whoever updates is not.
    let next = lab.apply(&path[1], "one", &object("v2", json!({"a": "1", "tags": ["t"]}))).await.ok();
    assert_eq!(next["spec"], json!({"a": "1", "tags": ["t"]}));
    assert_eq!(managers(&next), ["Apply one"]);
    lab.apply(&path[0], "two", &object("v1", json!({"a": "2"}))).await.expect(409, "Conflict");
    for (path, value) in path.iter().zip(["2", "3"]) {
        lab.patch("merge", &format!("{path}?fieldManager=hand"), &json!({"spec": {"b": value}})).await.ok();
    }
    let next = lab
        .patch(
            "merge",
            &format!("{}?fieldManager=hand", path[0]),
            &json!({"metadata": {"labels": {"l": "1"}}}),
        )
        .await
        .ok();
    assert_eq!(managers(&next), ["Apply one", "Update hand", "Update hand"]);
    lab.apply(&path[0], "two", &object("v1", json!({"b": "4"}))).await.expect(409, "Conflict");
    lab.apply_by_force(&path[0], "two", &object("v1", json!({"b": "4", "tags": ["t", "u"]}))).await.ok();
    lab.apply(&path[0], "one", &object("v1", json!({}))).await.ok();
    lab.get(&path[1]).await.ok();
    let count = lab.notes();
    lab.delete(&format!("{crds}/{plural}.{GROUP}")).await.ok();
    lab.forget_from(count);
}

pub(crate) async fn events_have_managers_in_both_of_their_groups(lab: &mut Lab) {
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "reason": "R", "message": "m", "type": "Normal",
        "involvedObject": {"kind": "ConfigMap", "name": "a", "namespace": lab.namespace()}, "source": {"component": "c"},
        "firstTimestamp": "2026-01-02T03:04:05Z", "lastTimestamp": "2026-01-02T03:04:05Z", "count": 1});
    lab.post("events?fieldManager=maker", &event).await.created();
    let other = "/apis/events.k8s.io/v1/namespaces/{ns}/events";
    lab.patch("merge", &format!("{other}/e?fieldManager=hand"), &json!({"metadata": {"labels": {"l": "1"}}}))
        .await
        .ok();
    lab.patch(
        "merge",
        "events/e?fieldManager=counter",
        &json!({"count": 2, "lastTimestamp": "2026-01-02T03:05:05Z"}),
    )
    .await
    .ok();
    lab.get(&format!("{other}/e")).await.ok();
}
