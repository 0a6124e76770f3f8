use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{ResourceDoc, v2_document, v3_document, v3_index};

fn resources() -> Vec<ResourceDoc> {
    let doc = |group: &str, version: &str, kind: &str, plural: &str, namespaced| ResourceDoc {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
        namespaced,
        schema: None,
        subresources: Vec::new(),
    };
    let mut application = doc("argoproj.io", "v1alpha1", "Application", "applications", true);
    application.schema = Some(json!({"type": "object", "required": ["spec"], "properties": {
        "metadata": {"type": "object"},
        "spec": {"type": "object", "properties": {"allOf": {"type": "string"}}, "oneOf": [{"required": ["allOf"]}]},
    }}));
    application.subresources = vec!["status".to_owned(), "scale".to_owned()];
    vec![
        doc("", "v1", "Namespace", "namespaces", false),
        doc("", "v1", "Secret", "secrets", true),
        application,
    ]
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(target) if name == "$ref" => {
                        found.insert(target.clone());
                    }
                    other => references(other, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_to_a_schema_of_the_document() {
    for document in [
        v3_document("", "v1", &resources()),
        v3_document("argoproj.io", "v1alpha1", &resources()),
        v2_document(&resources()),
    ] {
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for target in found {
            let pointer = target.strip_prefix('#').expect("local");
            assert!(document.pointer(pointer).is_some(), "{target} leads nowhere");
        }
    }
}

#[test]
fn a_document_holds_its_own_group_and_version_only() {
    let document = v3_document("argoproj.io", "v1alpha1", &resources());
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    assert!(schemas.contains_key("io.argoproj.v1alpha1.Application"));
    assert!(schemas.contains_key("io.argoproj.v1alpha1.ApplicationList"));
    assert!(!schemas.contains_key("io.k8s.api.core.v1.Secret"));
    let paths: Vec<_> = document["paths"].as_object().expect("paths").keys().cloned().collect();
    assert_eq!(
        paths,
        [
            "/apis/argoproj.io/v1alpha1/applications",
            "/apis/argoproj.io/v1alpha1/namespaces/{namespace}/applications",
            "/apis/argoproj.io/v1alpha1/namespaces/{namespace}/applications/{name}",
            "/apis/argoproj.io/v1alpha1/namespaces/{namespace}/applications/{name}/scale",
            "/apis/argoproj.io/v1alpha1/namespaces/{namespace}/applications/{name}/status",
        ]
    );
}

#[test]
fn kubectl_finds_the_parameters_it_asks_for_on_the_patch_of_the_kind() {
    let documents = [v3_document("", "v1", &resources()), v2_document(&resources())];
    for document in documents {
        let patch = &document["paths"]["/api/v1/namespaces/{namespace}/secrets/{name}"]["patch"];
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({"group": "", "version": "v1", "kind": "Secret"})
        );
        assert_eq!(patch["x-kubernetes-action"], "patch");
        let names: Vec<_> =
            patch["parameters"].as_array().expect("list").iter().map(|p| p["name"].clone()).collect();
        for name in ["dryRun", "fieldValidation", "fieldManager", "force"] {
            assert!(names.contains(&name.into()), "{name} is missing in {names:?}");
        }
    }
}

#[test]
fn strategic_merge_is_not_announced() {
    let document = v3_document("", "v1", &resources());
    let patch = &document["paths"]["/api/v1/namespaces/{namespace}/secrets/{name}"]["patch"];
    let kinds: Vec<_> = patch["requestBody"]["content"].as_object().expect("content").keys().collect();
    assert_eq!(kinds, ["application/json-patch+json", "application/merge-patch+json"]);
}

#[test]
fn schemas_know_their_kind_and_the_real_metadata() {
    let document = v3_document("argoproj.io", "v1alpha1", &resources());
    let schema = &document["components"]["schemas"]["io.argoproj.v1alpha1.Application"];
    assert_eq!(
        schema["x-kubernetes-group-version-kind"],
        json!([{"group": "argoproj.io", "version": "v1alpha1", "kind": "Application"}])
    );
    assert!(
        schema["properties"]["metadata"]["allOf"][0]["$ref"]
            .as_str()
            .expect("reference")
            .ends_with("ObjectMeta")
    );
    assert!(schema["properties"]["spec"]["oneOf"].is_array());
}

#[test]
fn built_in_kinds_can_be_looked_up() {
    let document = v3_document("", "v1", &resources());
    let secret = &document["components"]["schemas"]["io.k8s.api.core.v1.Secret"];
    assert_eq!(
        secret["properties"]["data"]["additionalProperties"],
        json!({"type": "string", "format": "byte"})
    );
    assert!(secret["properties"]["metadata"]["allOf"].is_array());
    assert!(!secret["description"].as_str().expect("words").is_empty());
}

#[test]
fn the_older_dialect_drops_only_keywords_it_lacks() {
    let document = v2_document(&resources());
    let schema = &document["definitions"]["io.argoproj.v1alpha1.Application"];
    assert!(schema["properties"]["spec"]["oneOf"].is_null());
    assert_eq!(schema["properties"]["spec"]["properties"]["allOf"], json!({"type": "string"}));
}

#[test]
fn the_index_leads_to_each_group_and_version() {
    let index = v3_index(&[("".into(), "v1".into()), ("argoproj.io".into(), "v1alpha1".into())]);
    assert_eq!(
        index,
        json!({"paths": {
            "api/v1": {"serverRelativeURL": "/openapi/v3/api/v1"},
            "apis/argoproj.io/v1alpha1": {"serverRelativeURL": "/openapi/v3/apis/argoproj.io/v1alpha1"},
        }})
    );
}
