use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Cause, Structural, validate_crd};
use crate::patch::tests::any_json;

fn spec(schema: Value) -> Structural {
    Structural::parse(&json!({"type": "object", "properties": {"spec": schema}})).expect("parses")
}

/// The causes for a spec of this schema and value, as (field, reason, message).
fn causes(schema: Value, value: Value) -> Vec<(String, &'static str, String)> {
    let causes =
        spec(schema).validate(&json!({"apiVersion": "a.b/v1", "kind": "C", "metadata": {}, "spec": value}));
    causes.into_iter().map(|Cause { field, reason, message }| (field, reason, message)).collect()
}

fn one(schema: Value, value: Value) -> (String, &'static str, String) {
    let mut causes = causes(schema.clone(), value.clone());
    assert_eq!(causes.len(), 1, "{schema} {value}: {causes:?}");
    causes.remove(0)
}

fn field(schema: Value) -> Value {
    json!({"type": "object", "properties": {"x": schema}})
}

fn any_schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"type": "string", "minLength": 1, "default": "a", "enum": ["a", "b"]})),
        Just(json!({"type": "string", "nullable": true, "pattern": "^a$", "format": "date"})),
        Just(json!({"type": "integer", "minimum": 0, "format": "int32", "default": 1})),
        Just(json!({"type": "number", "maximum": 1.5, "exclusiveMaximum": true, "multipleOf": 0.5})),
        Just(json!({"type": "boolean"})),
        Just(json!({"x-kubernetes-int-or-string": true})),
        Just(json!({"x-kubernetes-preserve-unknown-fields": true})),
        Just(
            json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true})
        ),
        Just(json!({"type": "object", "additionalProperties": true, "maxProperties": 1})),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let name = prop::sample::select(vec!["a", "b", "name", "spec", "metadata"]);
        prop_oneof![
            (prop::collection::btree_map(name, inner.clone(), 0..4), any::<bool>()).prop_map(|(properties, preserve)| {
                let mut schema = json!({"type": "object", "properties": properties, "required": ["a"],
                    "oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
                if preserve {
                    schema["x-kubernetes-preserve-unknown-fields"] = json!(true);
                }
                schema
            }),
            inner.clone().prop_map(|items| json!({"type": "array", "items": items, "maxItems": 2, "x-kubernetes-list-type": "set"})),
            inner.clone().prop_map(|items| json!({"type": "array", "items": items, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b"]})),
            inner.prop_map(|values| json!({"type": "object", "additionalProperties": values, "not": {"required": ["b"]}})),
        ]
    })
}

proptest! {
    #[test]
    fn pruning_again_drops_nothing(schema in any_schema(), object in any_json()) {
        let structural = spec(schema);
        let mut object = json!({"apiVersion": "v1", "spec": object, "other": 1});
        let dropped = structural.prune(&mut object);
        prop_assert!(dropped.contains(&"other".to_owned()));
        let pruned = object.clone();
        prop_assert_eq!(structural.prune(&mut object), Vec::<String>::new());
        prop_assert_eq!(object, pruned);
    }

    #[test]
    fn defaulting_again_changes_nothing(schema in any_schema(), object in any_json()) {
        let structural = spec(schema);
        let mut object = json!({"spec": object});
        structural.drop_nulls(&mut object);
        structural.default(&mut object);
        let once = object.clone();
        structural.drop_nulls(&mut object);
        structural.default(&mut object);
        prop_assert_eq!(object, once);
    }

    #[test]
    fn prune_default_and_validate_never_panic(schema in any_schema(), object in any_json()) {
        let structural = spec(schema);
        let mut object = object;
        structural.prune(&mut object);
        structural.drop_nulls(&mut object);
        structural.default(&mut object);
        structural.validate(&object);
    }

    #[test]
    fn no_json_as_a_schema_or_a_definition_panics(schema in any_json(), spec in any_json()) {
        if let Ok(structural) = Structural::parse(&schema) {
            structural.validate(&spec);
        }
        validate_crd(&json!({"spec": spec}));
        validate_crd(&json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": schema}}], "names": spec}}));
    }
}

#[test]
fn a_missing_field_is_a_required_value() {
    let schema = json!({"type": "object", "required": ["x"], "properties": {"x": {"type": "string"}}});
    assert_eq!(one(schema, json!({})), ("spec.x".into(), "FieldValueRequired", "Required value".into()));
}

#[test]
fn a_wrong_type_names_both_types() {
    assert_eq!(
        one(field(json!({"type": "integer"})), json!({"x": "a"})),
        (
            "spec.x".into(),
            "FieldValueTypeInvalid",
            "Invalid value: \"string\": spec.x in body must be of type integer: \"string\"".into()
        )
    );
    assert_eq!(
        one(field(json!({"type": "array", "items": {"type": "string"}})), json!({"x": [1]})).2,
        "Invalid value: \"integer\": spec.x[0] in body must be of type string: \"integer\""
    );
    assert_eq!(
        one(field(json!({"x-kubernetes-int-or-string": true})), json!({"x": true})).2,
        "Invalid value: \"boolean\": spec.x in body must be of type integer,string: \"boolean\""
    );
}

#[test]
fn null_fits_only_where_it_may() {
    assert_eq!(
        one(field(json!({"type": "string"})), json!({"x": null})).2,
        "Invalid value: \"null\": spec.x in body must be of type string: \"null\""
    );
    assert_eq!(causes(field(json!({"type": "string", "nullable": true})), json!({"x": null})), []);
}

#[test]
fn numbers_without_a_fraction_are_integers_and_integers_are_numbers() {
    assert_eq!(causes(field(json!({"type": "integer"})), json!({"x": 3.0})), []);
    assert_eq!(causes(field(json!({"type": "number"})), json!({"x": 3})), []);
    for value in [json!(3.5), json!(18446744073709551615_u64)] {
        let found = causes(field(json!({"type": "integer"})), json!({"x": value}));
        assert_eq!(found[0].1, "FieldValueTypeInvalid");
        assert_eq!(
            found[1].2,
            "Invalid value: \"\": Checked value must be of type integer (default format) in spec.x"
        );
    }
}

#[test]
fn an_enumeration_lists_its_values() {
    assert_eq!(
        one(field(json!({"type": "string", "enum": ["a", "b"]})), json!({"x": "c"})),
        (
            "spec.x".into(),
            "FieldValueNotSupported",
            "Unsupported value: \"c\": supported values: \"a\", \"b\"".into()
        )
    );
}

#[test]
fn bounds_are_worded_as_a_real_server_words_them() {
    for (schema, value, reason, message) in [
        (
            json!({"type": "integer", "minimum": 1}),
            json!(0),
            "FieldValueInvalid",
            "Invalid value: 0: spec.x in body should be greater than or equal to 1",
        ),
        (
            json!({"type": "integer", "minimum": 1, "exclusiveMinimum": true}),
            json!(1),
            "FieldValueInvalid",
            "Invalid value: 1: spec.x in body should be greater than 1",
        ),
        (
            json!({"type": "number", "maximum": 1.5}),
            json!(2),
            "FieldValueInvalid",
            "Invalid value: 2: spec.x in body should be less than or equal to 1.5",
        ),
        (
            json!({"type": "integer", "multipleOf": 2}),
            json!(3),
            "FieldValueInvalid",
            "Invalid value: 3: spec.x in body should be a multiple of 2",
        ),
        (
            json!({"type": "string", "minLength": 2}),
            json!("ä"),
            "FieldValueInvalid",
            "Invalid value: \"ä\": spec.x in body should be at least 2 chars long",
        ),
        (
            json!({"type": "string", "maxLength": 1}),
            json!("ab"),
            "FieldValueTooLong",
            "Too long: may not be more than 1 byte",
        ),
        (
            json!({"type": "string", "pattern": "^a$"}),
            json!("b"),
            "FieldValueInvalid",
            "Invalid value: \"b\": spec.x in body should match '^a$'",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "minItems": 1}),
            json!([]),
            "FieldValueInvalid",
            "Invalid value: 0: spec.x in body should have at least 1 items",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "maxItems": 1}),
            json!(["a", "b"]),
            "FieldValueTooMany",
            "Too many: 2: must have at most 1 item",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true}),
            json!(["a", "a"]),
            "FieldValueInvalid",
            "Invalid value: \"\": spec.x in body shouldn't contain duplicates",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1}),
            json!({}),
            "FieldValueInvalid",
            "Invalid value: 0: spec.x in body should have at least 1 properties",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 1}),
            json!({"a": "", "b": ""}),
            "FieldValueTooMany",
            "Too many: 2: must have at most 1 item",
        ),
        (
            json!({"type": "string", "format": "date-time"}),
            json!("noon"),
            "FieldValueTypeInvalid",
            "Invalid value: \"noon\": spec.x in body must be of type date-time: \"noon\"",
        ),
    ] {
        assert_eq!(one(field(schema), json!({"x": value})), ("spec.x".into(), reason, message.into()));
    }
}

#[test]
fn alternatives_report_no_field_and_then_the_best_attempt() {
    let schema = |junctor: &str, alternatives: Value| json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}, junctor: alternatives});
    let either = json!([{"required": ["a"]}, {"required": ["b"]}]);
    let found = causes(schema("oneOf", either.clone()), json!({}));
    assert_eq!(found[0].0, "<nil>");
    assert_eq!(
        found[0].2,
        "Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found none valid"
    );
    assert_eq!(found[1], ("spec.a".into(), "FieldValueRequired", "Required value".into()));
    let both = causes(schema("oneOf", either.clone()), json!({"a": "", "b": ""}));
    assert_eq!(
        both[0].2,
        "Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found 2 valid alternatives"
    );
    assert_eq!(causes(schema("oneOf", either.clone()), json!({"a": ""})), []);
    let any = causes(schema("anyOf", either.clone()), json!({}));
    assert_eq!(any[0].2, "Invalid value: \"\": \"spec\" must validate at least one schema (anyOf)");
    assert_eq!(causes(schema("anyOf", either.clone()), json!({"a": "", "b": ""})), []);
    let all = causes(schema("allOf", either), json!({}));
    assert_eq!(
        all.last().expect("some").2,
        "Invalid value: \"\": \"spec\" must validate all the schemas (allOf). None validated"
    );
    let not = causes(schema("not", json!({"required": ["a"]})), json!({"a": ""}));
    assert_eq!(not[0].2, "Invalid value: \"\": \"spec\" must not validate the schema (not)");
}

#[test]
fn sets_and_maps_have_no_duplicates() {
    let set = field(json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}));
    assert_eq!(
        one(set, json!({"x": ["a", "b", "a", "a"]})),
        ("spec.x[2]".into(), "FieldValueDuplicate", "Duplicate value: \"a\"".into())
    );
    let map = field(json!({
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "properties": {"name": {"type": "string"}, "v": {"type": "integer"}}},
    }));
    assert_eq!(
        one(map, json!({"x": [{"name": "a", "v": 1}, {"name": "a", "v": 2}]})),
        ("spec.x[1]".into(), "FieldValueDuplicate", "Duplicate value: {\"name\":\"a\"}".into())
    );
}

#[test]
fn pruning_reports_what_it_dropped_and_honours_the_extensions() {
    let structural = Structural::parse(&json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "known": {"type": "string"},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                     "properties": {"strict": {"type": "object", "properties": {"a": {"type": "string"}}}}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "template": {"type": "object", "x-kubernetes-embedded-resource": true,
                         "properties": {"spec": {"type": "object"}}},
        }},
    }}))
    .expect("parses");
    let mut object = json!({
        "apiVersion": "a.b/v1", "kind": "C", "metadata": {"name": "n", "odd": 1}, "extra": 1,
        "spec": {
            "known": "k", "unknown": 1,
            "free": {"anything": {"goes": 1}, "strict": {"a": "", "b": 1}},
            "list": [{"a": "", "b": 1}],
            "labels": {"x": "y"},
            "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {}}, "spec": {"x": 1}, "status": {}},
        },
    });
    let dropped = structural.prune(&mut object);
    assert_eq!(
        dropped,
        [
            "extra",
            "spec.free.strict.b",
            "spec.list[0].b",
            "spec.template.spec.x",
            "spec.template.status",
            "spec.unknown"
        ]
    );
    assert_eq!(object["metadata"]["odd"], 1);
    assert_eq!(object["spec"]["free"]["anything"]["goes"], 1);
    assert_eq!(object["spec"]["template"]["metadata"], json!({"labels": {}}));
}

#[test]
fn defaults_fill_in_from_the_outside_in_and_nulls_that_cannot_be_go() {
    let structural = spec(json!({"type": "object", "properties": {
        "a": {"type": "object", "default": {}, "properties": {"b": {"type": "string", "default": "x"}}},
        "list": {"type": "array", "items": {"type": "object", "properties": {"c": {"type": "integer", "default": 1}}}},
        "gone": {"type": "string"},
        "null": {"type": "string", "nullable": true, "default": "d"},
        "filled": {"type": "string", "default": "f"},
    }}));
    let mut object = json!({"spec": {"list": [{}], "gone": null, "null": null, "filled": null}});
    structural.drop_nulls(&mut object);
    structural.default(&mut object);
    assert_eq!(object, json!({"spec": {"a": {"b": "x"}, "list": [{"c": 1}], "null": null, "filled": "f"}}));
}

#[test]
fn an_embedded_resource_says_what_it_is() {
    let schema = field(
        json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
    );
    let found = causes(schema, json!({"x": {"apiVersion": ""}}));
    assert_eq!(found[0].0, "spec.x.apiVersion");
    assert_eq!(found[1], ("spec.x.kind".into(), "FieldValueRequired", "Required value".into()));
}

#[test]
fn what_is_not_enforced_is_named() {
    let structural = spec(json!({"type": "object", "properties": {
        "cel": {"type": "string", "x-kubernetes-validations": [{"rule": "self != ''"}]},
        "isbn": {"type": "string", "format": "isbn"},
        "unknown": {"type": "string", "format": "nobody-knows"},
    }}));
    assert_eq!(
        structural.unsupported(),
        ["spec.cel: x-kubernetes-validations (CEL)", "spec.isbn: format isbn"]
    );
}

fn crd() -> Value {
    json!({
        "metadata": {"name": "gadgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "listKind": "GadgetList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {
                    "size": {"type": "integer", "default": 1},
                    "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
                }}}}}}],
        },
    })
}

#[test]
fn a_proper_definition_has_no_causes() {
    assert_eq!(validate_crd(&crd()), []);
}

#[test]
fn what_is_wrong_with_a_definition_is_found() {
    let schema = "/spec/versions/0/schema/openAPIV3Schema";
    for (pointer, value, field, message) in [
        ("/metadata/name", json!("other.example.com"), "metadata.name", "must be spec.names.plural"),
        ("/spec/group", json!("example"), "spec.group", "at least one dot"),
        ("/spec/scope", json!("World"), "spec.scope", "supported values: \"Cluster\", \"Namespaced\""),
        ("/spec/names/kind", json!(""), "spec.names.kind", "Required value"),
        ("/spec/names/plural", json!("Gadgets"), "spec.names.plural", "DNS-1035"),
        ("/spec/names/listKind", json!("Gadget"), "spec.names.listKind", "may not be the same"),
        ("/spec/versions", json!([]), "spec.versions", "exactly one version"),
        ("/spec/versions/0/name", json!("V1"), "spec.versions[0].name", "DNS-1035"),
        ("/spec/versions/0/storage", json!(false), "spec.versions", "exactly one version"),
        ("/spec/versions/0/schema", json!({}), "spec.versions[0].schema.openAPIV3Schema", "Required value"),
        (
            "/spec/versions/0/subresources",
            json!({"scale": {}}),
            "spec.versions[0].subresources.scale.specReplicasPath",
            "Required",
        ),
        (
            &format!("{schema}/type"),
            json!("string"),
            "spec.validation.openAPIV3Schema.type",
            "must be object at the root",
        ),
        (
            &format!("{schema}/properties/spec"),
            json!({}),
            "spec.validation.openAPIV3Schema.properties[spec].type",
            "must not be empty for specified object fields",
        ),
        (
            &format!("{schema}/properties/spec"),
            json!({"type": "array"}),
            "spec.validation.openAPIV3Schema.properties[spec].items",
            "must be specified",
        ),
        (
            &format!("{schema}/properties/spec"),
            json!({"type": "string", "pattern": "("}),
            "spec.validation.openAPIV3Schema.properties[spec].pattern",
            "regular expression",
        ),
        (
            &format!("{schema}/properties/spec"),
            json!({"type": "integer", "default": "a"}),
            "spec.validation.openAPIV3Schema.properties[spec].default",
            "must be of type integer",
        ),
        (
            schema,
            json!({"type": "object", "oneOf": [{"properties": {"a": {"minLength": 1}}}]}),
            "spec.validation.openAPIV3Schema.properties[a]",
            "because it is defined in",
        ),
        (
            &format!("{schema}/properties/spec"),
            json!({"type": "object", "allOf": [{"type": "object"}]}),
            "spec.validation.openAPIV3Schema.properties[spec].allOf[0].type",
            "must be empty to be structural",
        ),
        (
            &format!("{schema}/properties/metadata"),
            json!({"type": "object", "properties": {"labels": {"type": "object"}}}),
            "spec.validation.openAPIV3Schema.properties[metadata]",
            "must not specify anything other",
        ),
    ] {
        let mut crd = crd();
        match crd.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => {
                crd.pointer_mut(pointer.rsplit_once('/').expect("path").0).expect("parent")["metadata"] =
                    value
            }
        }
        let causes = validate_crd(&crd);
        assert!(
            causes.iter().any(|cause| cause.field == field && cause.message.contains(message)),
            "{pointer}: expected {field} {message}, found {causes:#?}"
        );
    }
}

#[test]
fn conversion_by_webhook_is_refused_because_it_would_not_be_called() {
    let mut crd = crd();
    crd["spec"]["conversion"] = json!({"strategy": "Webhook"});
    assert_eq!(validate_crd(&crd)[0].message, "Unsupported value: \"Webhook\": supported values: \"None\"");
    crd["spec"]["conversion"] = json!({"strategy": "None"});
    assert_eq!(validate_crd(&crd), []);
}

#[test]
fn two_versions_of_one_name_are_refused() {
    let mut crd = crd();
    let mut again = crd["spec"]["versions"][0].clone();
    again["storage"] = json!(false);
    crd["spec"]["versions"].as_array_mut().expect("list").push(again);
    assert!(validate_crd(&crd).iter().any(|cause| cause.message.contains("unique version names")));
}
