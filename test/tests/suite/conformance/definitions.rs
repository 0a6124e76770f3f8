//! Custom resource definitions themselves.

use serde_json::{Value, json};

use super::lab::{CRDS, GROUP, Lab, definition};

fn plain() -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "string"}}}}})
}

/// A definition that no other case and no other run knows.
fn fleeting(lab: &Lab, schema: Value) -> Value {
    let plural = format!("z{}s", lab.namespace());
    let kind = format!("Z{}", lab.namespace().replace('-', ""));
    definition(&plural, &kind, "Namespaced", schema, false)
}

pub(crate) async fn a_definition_is_checked(lab: &mut Lab) {
    let schema = "/spec/versions/0/schema/openAPIV3Schema";
    let spec = format!("{schema}/properties/spec");
    for (pointer, value) in [
        ("/metadata/name", json!("other.example.com")),
        ("/spec/group", json!("nodots")),
        ("/spec/scope", json!("World")),
        ("/spec/versions/0/storage", json!(false)),
        ("/spec/versions/0/name", json!("V1")),
        ("/spec/names/kind", json!("not a kind")),
        (schema, json!({"type": "string"})),
        (&spec, json!({})),
        (&spec, json!({"type": "array"})),
        (&spec, json!({"type": "object", "properties": {"a": {"type": "integer", "default": "x"}}})),
        (&spec, json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}})),
        (&spec, json!({"type": "object", "allOf": [{"type": "object"}]})),
        (
            &spec,
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
        ),
        (&spec, json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true})),
        (&spec, json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "map"})),
        (&spec, json!({"type": "object", "x-kubernetes-embedded-resource": true})),
        (&spec, json!({"type": "string", "$ref": "#/x"})),
    ] {
        let mut wrong = fleeting(lab, plain());
        *wrong.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
        lab.post(CRDS, &wrong).await.expect(422, "Invalid");
    }
    let mut none = fleeting(lab, plain());
    none["spec"]["versions"] = json!([]);
    lab.post(CRDS, &none).await.expect(422, "Invalid");
    let mut twice = fleeting(lab, plain());
    let mut again = twice["spec"]["versions"][0].clone();
    again["storage"] = json!(false);
    twice["spec"]["versions"].as_array_mut().expect("versions").push(again);
    lab.post(CRDS, &twice).await.expect(422, "Invalid");
}

pub(crate) async fn a_definition_serves_its_kind_until_it_goes(lab: &mut Lab) {
    let definition = fleeting(lab, plain());
    let name = definition["metadata"]["name"].as_str().expect("name").to_owned();
    let plural = definition["spec"]["names"]["plural"].as_str().expect("plural").to_owned();
    let kind = definition["spec"]["names"]["kind"].as_str().expect("kind").to_owned();
    let objects = format!("/apis/{GROUP}/v1/namespaces/{{ns}}/{plural}");
    lab.post(CRDS, &definition).await.created();
    lab.post(CRDS, &definition).await.expect(409, "AlreadyExists");
    let established = |condition: &Value| condition["type"] == "Established" && condition["status"] == "True";
    let crd = format!("{CRDS}/{name}");
    let reply = lab.eventually(&crd, |reply| {
        reply.body["status"]["conditions"]
            .as_array()
            .is_some_and(|conditions| conditions.iter().any(established))
    });
    let found = reply.await.ok();
    assert_eq!(found["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(found["spec"]["names"]["listKind"], format!("{kind}List"));
    lab.eventually(&objects, |reply| reply.code == 200).await.ok();
    lab.eventually(&format!("/apis/{GROUP}/v1"), |reply| {
        reply.body["resources"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == *plural))
    })
    .await
    .ok();
    let object = json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind, "metadata": {"name": "o"}, "spec": {"a": "1", "b": "2"}});
    let made = lab.post(&objects, &object).await.created();
    assert_eq!(made["spec"], json!({"a": "1"}));
    let mut watch = lab.watch(&objects).await;
    watch.take(1).await;
    lab.delete(&crd).await.ok();
    let events = watch.until(|event| event["type"] == "DELETED").await;
    assert_eq!(events.last().expect("an event")["object"]["metadata"]["name"], "o");
    lab.eventually(&crd, |reply| reply.code == 404).await;
    lab.eventually(&objects, |reply| reply.code == 404).await;
    lab.get(&objects).await.expect(404, "");
}
