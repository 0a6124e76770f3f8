use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Error, PatchKind, apply, merge_keys};

/// Any JSON, a few levels deep, over few names so that documents and patches meet.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec![
        "a",
        "b",
        "metadata",
        "name",
        "finalizers",
        "spec",
        "containers",
        "env",
        "status",
        "$patch",
        "$retainKeys",
        "$setElementOrder/containers",
        "$deleteFromPrimitiveList/finalizers",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..4).prop_map(Value::from),
        (-2.0_f64..2.0).prop_map(Value::from),
        prop::sample::select(vec!["", "a", "b", "replace", "delete", "merge", "0001"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..5).prop_map(|fields| fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect()),
        ]
    })
}

fn any_object() -> impl Strategy<Value = Value> {
    any_json().prop_map(|value| match value {
        Value::Object(_) => value,
        other => json!({ "a": other }),
    })
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name, without_nulls(value)))
            .collect(),
        other => other,
    }
}

/// The merge patch that turns `from` into `to`.
fn difference(from: &Value, to: &Value) -> Value {
    match (from, to) {
        (Value::Object(from), Value::Object(to)) => {
            let gone =
                from.keys().filter(|name| !to.contains_key(*name)).map(|name| (name.clone(), Value::Null));
            let set =
                to.iter().filter(|(name, value)| from.get(*name) != Some(*value)).map(|(name, value)| {
                    (name.clone(), difference(from.get(name).unwrap_or(&Value::Null), value))
                });
            gone.chain(set).collect()
        }
        _ => to.clone(),
    }
}

fn bytes(patch: &Value) -> Vec<u8> {
    serde_json::to_vec(patch).expect("serialises")
}

fn strategic(kind: &str, current: &Value, patch: &Value) -> Result<Value, Error> {
    let group = if kind == "Deployment" { "apps" } else { "" };
    apply(PatchKind::Strategic, current, &bytes(patch), merge_keys(group, kind))
}

proptest! {
    #[test]
    fn a_merge_patch_of_the_difference_gives_the_target(from in any_object(), to in any_object()) {
        let (from, to) = (without_nulls(from), without_nulls(to));
        let patch = bytes(&difference(&from, &to));
        prop_assert_eq!(apply(PatchKind::Merge, &from, &patch, None), Ok(to));
    }

    #[test]
    fn a_json_patch_of_the_difference_gives_the_target(from in any_object(), to in any_object()) {
        let patch = serde_json::to_vec(&json_patch::diff(&from, &to)).expect("serialises");
        prop_assert_eq!(apply(PatchKind::Json, &from, &patch, None), Ok(to));
    }

    #[test]
    fn no_patch_of_any_kind_panics_or_gives_anything_but_an_object(current in any_object(), patch in any_json()) {
        for kind in [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic] {
            if let Ok(next) = apply(kind, &current, &bytes(&patch), merge_keys("", "Pod")) {
                prop_assert!(next.is_object());
            }
        }
    }

    #[test]
    fn a_strategic_patch_applied_again_changes_nothing(current in any_object(), patch in any_object()) {
        let keys = merge_keys("", "Pod");
        if let Ok(once) = apply(PatchKind::Strategic, &current, &bytes(&patch), keys)
            && let Ok(twice) = apply(PatchKind::Strategic, &once, &bytes(&patch), keys) {
                prop_assert_eq!(twice, once);
            }
    }
}

#[test]
fn a_body_that_is_not_json_is_a_bad_request() {
    for kind in [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic] {
        let answer = apply(kind, &json!({}), b"{", merge_keys("", "Pod"));
        assert!(matches!(answer, Err(Error::BadRequest(_))), "{kind:?}: {answer:?}");
    }
}

#[test]
fn a_body_of_the_wrong_shape_is_a_bad_request() {
    let wrong = [
        (PatchKind::Json, "{}"),
        (PatchKind::Json, "[1]"),
        (PatchKind::Merge, "[]"),
        (PatchKind::Strategic, "[]"),
    ];
    for (kind, body) in wrong {
        let answer = apply(kind, &json!({}), body.as_bytes(), merge_keys("", "Pod"));
        assert!(matches!(answer, Err(Error::BadRequest(_))), "{kind:?} {body}: {answer:?}");
    }
}

#[test]
fn a_body_nested_without_end_is_refused_and_not_a_crash() {
    let deep = format!("{}1{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
    for kind in [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic] {
        let answer = apply(kind, &json!({}), deep.as_bytes(), merge_keys("", "Pod"));
        assert!(matches!(answer, Err(Error::BadRequest(_))), "{kind:?}");
    }
}

#[test]
fn json_patch_operations_that_do_not_fit_are_unprocessable() {
    let current = json!({"metadata": {"name": "x"}, "list": [1]});
    for patch in [
        json!([{"op": "remove", "path": "/metadata/labels/a"}]),
        json!([{"op": "replace", "path": "/nothing", "value": 1}]),
        json!([{"op": "add", "path": "/list/5", "value": 1}]),
        json!([{"op": "test", "path": "/metadata/name", "value": "y"}]),
        json!([{"op": "dance", "path": "/metadata/name"}]),
        json!([{"op": "copy", "from": "/nothing", "path": "/a"}]),
        json!([{"op": "replace", "path": "", "value": 7}]),
    ] {
        let answer = apply(PatchKind::Json, &current, &bytes(&patch), None);
        assert!(matches!(answer, Err(Error::Unprocessable(_))), "{patch}: {answer:?}");
    }
}

#[test]
fn a_test_for_null_holds_where_nothing_is() {
    let patch =
        json!([{"op": "test", "path": "/a/b", "value": null}, {"op": "add", "path": "/c", "value": 1}]);
    assert_eq!(apply(PatchKind::Json, &json!({}), &bytes(&patch), None), Ok(json!({"c": 1})));
}

#[test]
fn too_many_operations_are_refused() {
    let add = json!({"op": "add", "path": "/a", "value": 1});
    let at_the_limit = Value::from(vec![add.clone(); 10_000]);
    assert!(apply(PatchKind::Json, &json!({}), &bytes(&at_the_limit), None).is_ok());
    let above = Value::from(vec![add; 10_001]);
    assert!(matches!(apply(PatchKind::Json, &json!({}), &bytes(&above), None), Err(Error::Unprocessable(_))));
}

#[test]
fn copies_of_copies_do_not_grow_without_bound() {
    let mut operations = vec![json!({"op": "add", "path": "/a", "value": ["xxxxxxxxxxxxxxxx"]})];
    operations.extend((0..40).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/-"})));
    let answer = apply(PatchKind::Json, &json!({}), &bytes(&Value::from(operations)), None);
    assert!(matches!(answer, Err(Error::Unprocessable(_))));
}

#[test]
fn operations_cannot_build_a_bottomless_document() {
    let operations: Vec<_> =
        (1..2_000).map(|level| json!({"op": "add", "path": "/a".repeat(level), "value": {}})).collect();
    let answer = apply(PatchKind::Json, &json!({}), &bytes(&Value::from(operations)), None);
    assert!(matches!(answer, Err(Error::Unprocessable(_))));
}

#[test]
fn strategic_merge_is_not_known_for_custom_resources() {
    assert!(merge_keys("argoproj.io", "Application").is_none());
    let answer = apply(PatchKind::Strategic, &json!({}), b"{}", None);
    assert!(matches!(answer, Err(Error::BadRequest(_))));
}

#[test]
fn containers_merge_by_name_and_their_env_within() {
    let current = json!({"spec": {"containers": [
        {"name": "a", "image": "one", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
        {"name": "b", "image": "two"},
    ]}});
    let patch = json!({"spec": {"containers": [
        {"name": "a", "env": [{"name": "Y", "value": "3"}]},
        {"name": "c", "image": "three"},
    ]}});
    let next = strategic("Pod", &current, &patch).expect("applies");
    assert_eq!(
        next,
        json!({"spec": {"containers": [
            {"name": "a", "image": "one", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "3"}]},
            {"name": "c", "image": "three"},
            {"name": "b", "image": "two"},
        ]}})
    );
}

#[test]
fn a_deployment_merges_the_containers_of_its_template() {
    let current = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "one"}]}}}});
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "tty": true}]}}}});
    assert_eq!(
        strategic("Deployment", &current, &patch),
        Ok(
            json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "one", "tty": true}]}}}})
        )
    );
}

#[test]
fn lists_without_a_key_are_replaced() {
    let current = json!({"spec": {"tolerations": [{"key": "a"}]}});
    let patch = json!({"spec": {"tolerations": [{"key": "b"}]}});
    assert_eq!(strategic("Pod", &current, &patch), Ok(json!({"spec": {"tolerations": [{"key": "b"}]}})));
}

#[test]
fn finalizers_are_a_set_and_can_be_taken_out_one_by_one() {
    let current = json!({"metadata": {"finalizers": ["a", "b"]}});
    let more = json!({"metadata": {"finalizers": ["b", "c"]}});
    let next = strategic("ConfigMap", &current, &more).expect("applies");
    assert_eq!(next, json!({"metadata": {"finalizers": ["a", "b", "c"]}}));
    let less = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a", "c"]}});
    assert_eq!(strategic("ConfigMap", &next, &less), Ok(json!({"metadata": {"finalizers": ["b"]}})));
}

#[test]
fn an_item_is_deleted_by_its_key() {
    let current =
        json!({"metadata": {"ownerReferences": [{"uid": "1", "name": "x"}, {"uid": "2", "name": "y"}]}});
    let patch = json!({"metadata": {"ownerReferences": [{"$patch": "delete", "uid": "1"}]}});
    assert_eq!(
        strategic("Secret", &current, &patch),
        Ok(json!({"metadata": {"ownerReferences": [{"uid": "2", "name": "y"}]}}))
    );
}

#[test]
fn replace_swaps_an_object_or_a_keyed_list_as_a_whole() {
    let current = json!({"data": {"a": "1"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
    let object = json!({"data": {"$patch": "replace", "b": "2"}});
    assert_eq!(strategic("Pod", &current, &object).expect("applies")["data"], json!({"b": "2"}));
    let items = json!({"spec": {"containers": [{"name": "c"}, {"$patch": "replace"}]}});
    assert_eq!(
        strategic("Pod", &current, &items).expect("applies")["spec"]["containers"],
        json!([{"name": "c"}])
    );
}

#[test]
fn null_deletes_and_an_unknown_directive_is_refused() {
    let current = json!({"data": {"a": "1", "b": "2"}});
    assert_eq!(
        strategic("ConfigMap", &current, &json!({"data": {"a": null, "z": null}})),
        Ok(json!({"data": {"b": "2"}}))
    );
    let answer = strategic("ConfigMap", &current, &json!({"data": {"$patch": "explode"}}));
    assert!(matches!(answer, Err(Error::BadRequest(_))));
}

#[test]
fn retained_keys_are_all_that_stays() {
    let current = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(
        strategic("Deployment", &current, &patch),
        Ok(json!({"spec": {"strategy": {"type": "Recreate"}}}))
    );
    let contradiction = json!({"spec": {"strategy": {"$retainKeys": ["type"], "other": 1}}});
    assert!(matches!(strategic("Deployment", &current, &contradiction), Err(Error::Unprocessable(_))));
}

#[test]
fn an_element_order_arranges_the_list() {
    let current = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}, {"name": "server-only"}]}});
    let patch = json!({"spec": {
        "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
        "containers": [{"name": "a", "image": "x"}],
    }});
    let next = strategic("Pod", &current, &patch).expect("applies");
    let names: Vec<_> =
        next["spec"]["containers"].as_array().expect("list").iter().map(|c| c["name"].clone()).collect();
    assert_eq!(names, ["b", "a", "server-only"]);
    let only_order = json!({"spec": {"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}]}});
    let back = strategic("Pod", &next, &only_order).expect("applies");
    assert_eq!(back["spec"]["containers"][0]["name"], "a");
}

#[test]
fn an_item_without_its_key_is_refused() {
    let answer = strategic(
        "Pod",
        &json!({"spec": {"containers": [{"name": "a"}]}}),
        &json!({"spec": {"containers": [{"image": "x"}]}}),
    );
    assert!(matches!(answer, Err(Error::BadRequest(_))));
}

#[test]
fn ports_of_a_service_merge_by_port_and_those_of_a_container_by_container_port() {
    let current = json!({"spec": {"ports": [{"port": 80, "name": "http"}]}});
    let patch = json!({"spec": {"ports": [{"port": 80, "nodePort": 30000}, {"port": 443}]}});
    assert_eq!(
        strategic("Service", &current, &patch),
        Ok(json!({"spec": {"ports": [{"port": 80, "name": "http", "nodePort": 30000}, {"port": 443}]}}))
    );
    let current = json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80}]}]}});
    let patch =
        json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "http"}]}]}});
    assert_eq!(
        strategic("Pod", &current, &patch),
        Ok(
            json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "http"}]}]}})
        )
    );
}

#[test]
fn a_new_object_carries_no_directives_and_no_nulls() {
    let patch = json!({"data": {"$retainKeys": ["a"], "a": "1", "b": null}});
    assert_eq!(strategic("ConfigMap", &json!({}), &patch), Ok(json!({"data": {"a": "1"}})));
}
