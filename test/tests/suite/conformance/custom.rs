//! Custom resources: schemas, generation, status.

use serde_json::{Value, json};

use super::lab::{GROUP, Lab, gadget, generation, trinket, version};

fn fields(refusal: &Value) -> Vec<String> {
    let causes = refusal["details"]["causes"].as_array().expect("causes");
    let mut fields: Vec<_> =
        causes.iter().map(|cause| cause["field"].as_str().unwrap_or_default().to_owned()).collect();
    fields.sort();
    fields
}

pub(crate) async fn unknown_fields_are_pruned_and_named(lab: &mut Lab) {
    let mut odd = gadget(
        "g",
        json!({
            "size": 1, "odd": true, "free": {"anything": {"goes": [1]}}, "parts": [{"name": "p", "odd": 1}],
            "options": {"x": true},
            "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "t"}, "spec": {"a": 1}},
        }),
    );
    odd["other"] = json!(1);
    let answer = lab.post("gadgets?fieldValidation=Warn", &odd).await;
    assert_eq!(answer.warnings.len(), 3, "{:?}", answer.warnings);
    let made = answer.created();
    assert!(made["other"].is_null() && made["spec"].get("odd").is_none());
    assert_eq!(made["spec"]["parts"], json!([{"name": "p", "count": 1}]));
    assert_eq!(made["spec"]["free"], json!({"anything": {"goes": [1]}}));
    assert_eq!(made["spec"]["template"]["spec"], json!({"a": 1}));
    // Where everything is preserved, everything stays.
    let mut odd = trinket("t", json!({"a": {"b": [null, 1.5, "x"]}}));
    odd["other"] = json!({"c": null});
    let made = lab.post("trinkets", &odd).await.created();
    assert_eq!(made["spec"], json!({"a": {"b": [null, 1.5, "x"]}}));
    assert_eq!(made["other"], json!({"c": null}));
}

pub(crate) async fn strict_validation_refuses_unknown_fields(lab: &mut Lab) {
    let odd = gadget("g", json!({"size": 1, "odd": true}));
    lab.post("gadgets?fieldValidation=Strict", &odd).await.expect(400, "BadRequest");
    lab.post("gadgets", &gadget("g", json!({"size": 1}))).await.created();
    let patch = json!({"spec": {"odd": true, "size": 2}});
    lab.patch("merge", "gadgets/g?fieldValidation=Strict", &patch).await.expect(422, "Invalid");
    let answer = lab.patch("merge", "gadgets/g?fieldValidation=Warn", &patch).await;
    assert_eq!(answer.warnings.len(), 1, "{:?}", answer.warnings);
    assert!(answer.ok()["spec"].get("odd").is_none());
    let answer = lab
        .patch("merge", "gadgets/g?fieldValidation=Ignore", &json!({"spec": {"odd": true, "size": 3}}))
        .await;
    assert_eq!(answer.warnings, Vec::<String>::new());
    answer.ok();
}

pub(crate) async fn defaults_are_filled_in(lab: &mut Lab) {
    let made =
        lab.post("gadgets", &gadget("g", json!({"size": 1, "maybe": null, "label": null}))).await.created();
    assert_eq!(made["spec"], json!({"size": 1, "colour": "green", "maybe": null}));
    let next = lab.patch("merge", "gadgets/g", &json!({"spec": {"colour": null}})).await.ok();
    assert_eq!(next["spec"]["colour"], "green");
    assert_eq!(version(&next), version(&made), "removing a default changes nothing");
}

pub(crate) async fn an_object_that_does_not_fit_is_refused_with_every_cause(lab: &mut Lab) {
    let refused = lab
        .post(
            "gadgets",
            &gadget("g", json!({"size": "1", "colour": "pink", "label": "A", "ratio": "x", "port": true})),
        )
        .await
        .expect(422, "Invalid");
    assert_eq!(fields(&refused), ["spec.colour", "spec.label", "spec.port", "spec.ratio", "spec.size"]);
    assert_eq!(refused["details"]["kind"], "Gadget");
    assert_eq!(refused["details"]["group"], GROUP);
    let refused = lab.post("gadgets", &gadget("g", json!({}))).await.expect(422, "Invalid");
    assert_eq!(refused["details"]["causes"][0]["reason"], "FieldValueRequired");
    for spec in [
        json!({"size": 0}),
        json!({"size": 11}),
        json!({"size": 1.5}),
        json!({"size": null}),
        json!({"size": 1, "label": "toolong"}),
        json!({"size": 1, "label": "ABC"}),
        json!({"size": 1, "tags": "x"}),
        json!({"size": 1, "options": {"x": "y"}}),
        json!("x"),
        json!([]),
    ] {
        lab.post("gadgets", &gadget("g", spec)).await.expect(422, "Invalid");
    }
    let mut none = gadget("g", json!(null));
    none.as_object_mut().expect("object").remove("spec");
    lab.post("gadgets", &none).await.expect(422, "Invalid");
    lab.post("gadgets", &gadget("g", json!({"size": 2.0, "port": "http", "ratio": 1}))).await.created();
}

pub(crate) async fn alternatives_lists_and_formats_are_checked(lab: &mut Lab) {
    for spec in [
        json!({"size": 1, "either": {}}),
        json!({"size": 1, "either": {"a": "", "b": ""}}),
        json!({"size": 1, "tags": ["a", "b", "a"]}),
        json!({"size": 1, "tags": ["a", "b", "c", "d"]}),
        json!({"size": 1, "parts": [{"name": "p"}, {"name": "p"}]}),
        json!({"size": 1, "when": "noon"}),
        json!({"size": 1, "template": {"kind": ""}}),
    ] {
        lab.post("gadgets", &gadget("g", spec)).await.expect(422, "Invalid");
    }
    let good = json!({"size": 1, "either": {"a": ""}, "tags": ["a", "b"], "when": "2026-01-02T03:04:05Z",
        "parts": [{"name": "p"}, {"name": "q", "count": 2}]});
    lab.post("gadgets", &gadget("g", good)).await.created();
}

pub(crate) async fn generation_counts_changes_of_the_spec(lab: &mut Lab) {
    let mut object = gadget("g", json!({"size": 1}));
    object["metadata"]["generation"] = json!(7);
    let made = lab.post("gadgets", &object).await.created();
    assert_eq!(generation(&made), 1);
    let next = lab
        .patch("merge", "gadgets/g", &json!({"metadata": {"labels": {"l": "1"}, "annotations": {"a": "1"}}}))
        .await
        .ok();
    assert_eq!(generation(&next), 1, "metadata does not count");
    let next = lab.patch("merge", "gadgets/g", &json!({"spec": {"size": 2}})).await.ok();
    assert_eq!(generation(&next), 2);
    let next = lab.patch("merge", "gadgets/g/status", &json!({"status": {"phase": "Up"}})).await.ok();
    assert_eq!(generation(&next), 2, "status does not count");
    let next = lab.patch("merge", "gadgets/g", &json!({"metadata": {"generation": 9}})).await.ok();
    assert_eq!(generation(&next), 2, "only the server counts");
}

pub(crate) async fn without_a_status_subresource_status_is_as_any_field(lab: &mut Lab) {
    let mut object = trinket("t", json!({"a": 1}));
    object["status"] = json!({"phase": "New"});
    let made = lab.post("trinkets", &object).await.created();
    assert_eq!(made["status"], json!({"phase": "New"}));
    assert_eq!(generation(&made), 1);
    let next = lab.patch("merge", "trinkets/t", &json!({"status": {"phase": "Up"}})).await.ok();
    assert_eq!(generation(&next), 2);
    let next = lab.patch("merge", "trinkets/t", &json!({"metadata": {"labels": {"l": "1"}}})).await.ok();
    assert_eq!(generation(&next), 2);
    lab.patch("merge", "trinkets/t/status", &json!({"status": {}})).await.expect(404, "NotFound");
    lab.get("trinkets/t/status").await.expect(404, "NotFound");
}

pub(crate) async fn status_is_written_through_its_subresource_only(lab: &mut Lab) {
    let mut object = gadget("g", json!({"size": 1}));
    object["status"] = json!({"phase": "Forged"});
    let made = lab.post("gadgets", &object).await.created();
    assert!(made["status"].is_null(), "status was taken at creation");

    let mut whole = made.clone();
    whole["status"] = json!({"phase": "Up", "seen": 1, "odd": 1});
    whole["spec"]["size"] = json!(5);
    whole["metadata"]["labels"] = json!({"l": "1"});
    let next = lab.put("gadgets/g/status", &whole).await.ok();
    assert_eq!(next["status"], json!({"phase": "Up", "seen": 1}));
    assert_eq!(next["spec"]["size"], 1, "the status subresource changed the spec");
    assert!(next["metadata"]["labels"].is_null(), "the status subresource changed labels");
    lab.put("gadgets/g/status", &whole).await.expect(409, "Conflict");

    let mut main = next.clone();
    main["status"] = json!({"phase": "Forged"});
    main["spec"]["size"] = json!(2);
    let next = lab.put("gadgets/g", &main).await.ok();
    assert_eq!(next["status"]["phase"], "Up", "the main resource changed the status");
    assert_eq!(next["spec"]["size"], 2);
    let same = lab.patch("merge", "gadgets/g", &json!({"status": {"phase": "Forged"}})).await.ok();
    assert_eq!(version(&same), version(&next), "nothing that counts was changed");
    lab.patch("merge", "gadgets/g/status", &json!({"status": {"seen": "x"}})).await.expect(422, "Invalid");
    lab.get("gadgets/g/status").await.ok();
    lab.patch("merge", "gadgets/missing/status", &json!({"status": {}})).await.expect(404, "NotFound");
    lab.delete("gadgets/g/status").await.expect(405, "MethodNotAllowed");
}

pub(crate) async fn an_update_without_a_version_is_refused(lab: &mut Lab) {
    lab.post("gadgets", &gadget("g", json!({"size": 1}))).await.created();
    let refused = lab.put("gadgets/g", &gadget("g", json!({"size": 2}))).await.expect(422, "Invalid");
    assert_eq!(fields(&refused), ["metadata.resourceVersion"]);
    lab.put("gadgets/missing", &gadget("missing", json!({"size": 2}))).await.expect(404, "NotFound");
    let mut other = lab.get("gadgets/g").await.ok();
    other["apiVersion"] = json!("conformance.tiphys.dev/v2");
    lab.put("gadgets/g", &other).await.expect(400, "BadRequest");
}

pub(crate) async fn a_cluster_wide_kind_has_no_namespace(lab: &mut Lab) {
    let name = lab.namespace().to_owned();
    let stamp = json!({"apiVersion": format!("{GROUP}/v1"), "kind": "Stamp", "metadata": {"name": name}, "spec": {"ink": "red"}});
    let made = lab.post("stamps", &stamp).await.created();
    assert!(made["metadata"]["namespace"].is_null());
    let path = format!("stamps/{name}");
    let next = lab.patch("merge", &path, &json!({"spec": {"ink": "blue"}})).await.ok();
    assert_eq!(generation(&next), 2);
    lab.delete(&path).await.ok();
    lab.get(&path).await.expect(404, "NotFound");
    lab.get(&format!("/apis/{GROUP}/v1/namespaces/{{ns}}/stamps")).await.expect(404, "");
}

pub(crate) async fn scale_is_read_and_written_through_its_subresource(lab: &mut Lab) {
    let scaler = json!({"apiVersion": format!("{GROUP}/v1"), "kind": "Scaler", "metadata": {"name": "s"}, "spec": {"replicas": 2}});
    lab.post("scalers", &scaler).await.created();
    let status = json!({"status": {"replicas": 1, "selector": "app=s"}});
    lab.patch("merge", "scalers/s/status", &status).await.ok();
    let scale = lab.get("scalers/s/scale").await.ok();
    assert_eq!(scale["kind"], "Scale");
    assert_eq!(scale["spec"], json!({"replicas": 2}));
    assert_eq!(scale["status"], json!({"replicas": 1, "selector": "app=s"}));
    let mut more = scale.clone();
    more["spec"]["replicas"] = json!(5);
    lab.put("scalers/s/scale", &more).await.ok();
    let whole = lab.get("scalers/s").await.ok();
    assert_eq!(whole["spec"]["replicas"], 5);
    assert_eq!(generation(&whole), 2);
    more["spec"]["replicas"] = json!(6);
    lab.put("scalers/s/scale", &more).await.expect(409, "Conflict");
    let patched = lab.patch("merge", "scalers/s/scale", &json!({"spec": {"replicas": 3}})).await.ok();
    assert_eq!(patched["spec"]["replicas"], 3);
    lab.patch("merge", "scalers/s/scale", &json!({"spec": {"replicas": -1}})).await.expect(422, "Invalid");
    lab.get("scalers/missing/scale").await.expect(404, "NotFound");
    lab.get("gadgets/g/scale").await.expect(404, "NotFound");
}
