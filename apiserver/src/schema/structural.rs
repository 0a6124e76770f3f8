//! Is a schema structural: does its plain part (types, properties, items) say everything about the shape of a
//! value, so that pruning and defaulting need not look into `allOf`, `anyOf`, `oneOf` and `not`?

use serde_json::{Value, json};

use super::{
    cause::{Cause, Path},
    node::{Kind, Node},
    pattern::Pattern,
    validate,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Keywords of JSON Schema that structural schemas do not have.
const FOREIGN: &[&str] =
    &["id", "$schema", "$ref", "patternProperties", "dependencies", "additionalItems", "definitions"];

pub(super) fn check(schema: &Value, at: &Path<'_>, causes: &mut Vec<Cause>) {
    let before = causes.len();
    check_level(schema, Level::Root, at, causes);
    check_complete(schema, schema, at, at, causes);
    causes[before..].sort();
}

fn flag(schema: &Value, keyword: &str) -> bool {
    schema[keyword] == Value::Bool(true)
}

fn kind(schema: &Value) -> &str {
    schema["type"].as_str().unwrap_or_default()
}

fn has(schema: &Value, keyword: &str) -> bool {
    schema.get(keyword).is_some_and(|value| !value.is_null())
}

fn check_level(schema: &Value, level: Level, at: &Path<'_>, causes: &mut Vec<Cause>) {
    if !schema.is_object() {
        causes.push(Cause::invalid(at, schema, "must be a schema object"));
        return;
    }
    check_keywords(schema, level, at, causes);
    check_type(schema, level, at, causes);
    check_extensions(schema, at, causes);
    check_list(schema, at, causes);
    check_metadata(schema, level, at, causes);
    let (skip_any_of, skip_all_of) = int_or_string_patterns(schema);
    check_rules(schema, skip_any_of, skip_all_of, at, causes);

    let here = Path::Field(at, "properties");
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        check_level(property, Level::Field, &Path::Key(&here, name), causes);
    }
    if schema["items"].is_object() {
        check_level(&schema["items"], Level::Item, &Path::Field(at, "items"), causes);
    }
    if schema["additionalProperties"].is_object() {
        check_level(
            &schema["additionalProperties"],
            Level::Field,
            &Path::Field(at, "additionalProperties"),
            causes,
        );
    }
}

fn check_keywords(schema: &Value, level: Level, at: &Path<'_>, causes: &mut Vec<Cause>) {
    for keyword in FOREIGN {
        if has(schema, keyword) {
            causes.push(Cause::forbidden(Path::Field(at, keyword), &format!("{keyword} is not supported")));
        }
    }
    if flag(schema, "uniqueItems") {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        causes.push(Cause::forbidden(Path::Field(at, "uniqueItems"), detail));
    }
    if schema["items"].is_array() {
        let detail = "items must be a schema object and not an array";
        causes.push(Cause::forbidden(Path::Field(at, "items"), detail));
    }
    if kind(schema) == "array" && !has(schema, "items") {
        causes.push(Cause::required(Path::Field(at, "items"), "must be specified"));
    }
    let here = Path::Field(at, "additionalProperties");
    let additional = &schema["additionalProperties"];
    if *additional == Value::Bool(false) {
        causes.push(Cause::forbidden(here, "additionalProperties cannot be set to false"));
    }
    let has_properties = schema["properties"].as_object().is_some_and(|properties| !properties.is_empty());
    if additional.is_object() && has_properties {
        causes.push(Cause::forbidden(here, "additionalProperties and properties are mutual exclusive"));
    }
    if has(schema, "additionalProperties") && level == Level::Root {
        causes.push(Cause::forbidden(here, "must not be used at the root"));
    }
    if has(schema, "additionalProperties") && flag(schema, "x-kubernetes-embedded-resource") {
        causes.push(Cause::forbidden(here, "must not be used if x-kubernetes-embedded-resource is set"));
    }
    if level == Level::Root && flag(schema, "nullable") {
        causes.push(Cause::forbidden(Path::Field(at, "nullable"), "nullable cannot be true at the root"));
    }
}

fn check_type(schema: &Value, level: Level, at: &Path<'_>, causes: &mut Vec<Cause>) {
    let here = Path::Field(at, "type");
    let name = kind(schema);
    if name == "null" {
        causes.push(Cause::forbidden(here, "type cannot be set to null, use nullable as an alternative"));
    } else if !name.is_empty() && Kind::named(name).is_none() {
        let known: Vec<_> =
            ["array", "boolean", "integer", "number", "object", "string"].map(String::from).to_vec();
        causes.push(Cause::not_supported(here, &schema["type"], &known));
    } else if flag(schema, "x-kubernetes-embedded-resource") && name != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        causes.push(match name {
            "" => Cause::required(here, detail),
            _ => Cause::invalid(here, &schema["type"], detail),
        });
    } else if name.is_empty()
        && !flag(schema, "x-kubernetes-int-or-string")
        && !flag(schema, "x-kubernetes-preserve-unknown-fields")
    {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        causes.push(Cause::required(here, detail));
    }
    if level == Level::Root && !name.is_empty() && name != "object" {
        causes.push(Cause::invalid(here, &schema["type"], "must be object at the root"));
    }
}

fn check_extensions(schema: &Value, at: &Path<'_>, causes: &mut Vec<Cause>) {
    const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
    const EMBEDDED: &str = "x-kubernetes-embedded-resource";
    let preserve = &schema[PRESERVE];
    if *preserve == Value::Bool(false) {
        causes.push(Cause::invalid(Path::Field(at, PRESERVE), preserve, "must be true or undefined"));
    }
    if flag(schema, "x-kubernetes-int-or-string") {
        for keyword in [PRESERVE, EMBEDDED] {
            if flag(schema, keyword) {
                let detail = "must be false if x-kubernetes-int-or-string is true";
                causes.push(Cause::invalid(Path::Field(at, keyword), &schema[keyword], detail));
            }
        }
    }
    let has_properties = schema["properties"].as_object().is_some_and(|properties| !properties.is_empty());
    if flag(schema, EMBEDDED) && !flag(schema, PRESERVE) && !has_properties {
        let detail = "must not be empty if x-kubernetes-embedded-resource is true without \
                      x-kubernetes-preserve-unknown-fields";
        causes.push(Cause::required(Path::Field(at, "properties"), detail));
    }
    if has(schema, "x-kubernetes-map-type") && kind(schema) != "object" {
        let detail = "must be object if x-kubernetes-map-type is specified";
        causes.push(match kind(schema) {
            "" => Cause::required(Path::Field(at, "type"), detail),
            _ => Cause::invalid(Path::Field(at, "type"), &schema["type"], detail),
        });
    }
}

fn check_list(schema: &Value, at: &Path<'_>, causes: &mut Vec<Cause>) {
    const LIST_TYPE: &str = "x-kubernetes-list-type";
    const MAP_KEYS: &str = "x-kubernetes-list-map-keys";
    let keys: Vec<_> = schema[MAP_KEYS].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let list_type = schema[LIST_TYPE].as_str();
    if !keys.is_empty() && list_type != Some("map") {
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        causes.push(match list_type {
            None => Cause::required(Path::Field(at, LIST_TYPE), detail),
            Some(_) => Cause::invalid(Path::Field(at, LIST_TYPE), &schema[LIST_TYPE], detail),
        });
    }
    let Some(list_type) = list_type else { return };
    if !matches!(list_type, "atomic" | "set" | "map") {
        let known = ["atomic", "set", "map"].map(String::from);
        causes.push(Cause::not_supported(Path::Field(at, LIST_TYPE), &schema[LIST_TYPE], &known));
        return;
    }
    if kind(schema) != "array" {
        let detail = "must be array if x-kubernetes-list-type is specified";
        causes.push(match kind(schema) {
            "" => Cause::required(Path::Field(at, "type"), detail),
            _ => Cause::invalid(Path::Field(at, "type"), &schema["type"], detail),
        });
        return;
    }
    let items = &schema["items"];
    let items_at = Path::Field(at, "items");
    if list_type != "atomic" && flag(items, "nullable") {
        let detail = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        causes.push(Cause::forbidden(Path::Field(&items_at, "nullable"), &detail));
    }
    if list_type != "map" {
        return;
    }
    if keys.is_empty() {
        let detail = "must not be empty if x-kubernetes-list-type is map";
        causes.push(Cause::required(Path::Field(at, MAP_KEYS), detail));
    }
    if kind(items) != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        causes.push(Cause::invalid(Path::Field(&items_at, "type"), &items["type"], detail));
    }
    let required: Vec<_> =
        items["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let properties_at = Path::Field(&items_at, "properties");
    for key in keys {
        let property = &items["properties"][key];
        let here = Path::Key(&properties_at, key);
        if property.is_null() {
            let detail = "entries must all be names of item properties";
            causes.push(Cause::invalid(Path::Field(at, MAP_KEYS), &schema[MAP_KEYS], detail));
        } else if !required.contains(&key) && !has(property, "default") {
            let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a \
                          required property";
            causes.push(Cause::required(Path::Field(&here, "default"), detail));
        }
    }
}

fn check_metadata(schema: &Value, level: Level, at: &Path<'_>, causes: &mut Vec<Cause>) {
    if level != Level::Root && !flag(schema, "x-kubernetes-embedded-resource") {
        return;
    }
    let here = Path::Field(at, "properties");
    let properties = &schema["properties"];
    for name in ["apiVersion", "kind"] {
        let property = &properties[name];
        if !property.is_null() && kind(property) != "string" {
            let here = Path::Key(&here, name);
            causes.push(Cause::invalid(Path::Field(&here, "type"), &property["type"], "must be string"));
        }
    }
    let metadata = &properties["metadata"];
    if metadata.is_null() {
        return;
    }
    let here = Path::Key(&here, "metadata");
    if kind(metadata) != "object" {
        causes.push(Cause::invalid(Path::Field(&here, "type"), &metadata["type"], "must be object"));
    }
    let only_names =
        metadata.as_object().into_iter().flatten().all(|(keyword, value)| match keyword.as_str() {
            "properties" => value.as_object().is_none_or(|fields| {
                fields.keys().all(|name| matches!(name.as_str(), "name" | "generateName"))
            }),
            "type" | "description" | "title" | "default" | "example" => true,
            _ => value.is_null(),
        });
    if level == Level::Root && !only_names {
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        causes.push(Cause::forbidden(here, detail));
    }
}

/// `x-kubernetes-int-or-string` may be spelt out in `anyOf`, or in the `anyOf` of the first `allOf`.
fn int_or_string_patterns(schema: &Value) -> (bool, bool) {
    let spelt_out = json!([{"type": "integer"}, {"type": "string"}]);
    (schema["anyOf"] == spelt_out, schema["allOf"][0]["anyOf"] == spelt_out)
}

fn check_rules(schema: &Value, skip_any_of: bool, skip_all_of: bool, at: &Path<'_>, causes: &mut Vec<Cause>) {
    if let Some(Err(reason)) = schema["pattern"].as_str().map(Pattern::new) {
        let detail = format!("must be a valid regular expression, but isn't: {reason}");
        causes.push(Cause::invalid(Path::Field(at, "pattern"), &schema["pattern"], &detail));
    }
    for junctor in ["allOf", "anyOf", "oneOf"] {
        if junctor == "anyOf" && skip_any_of {
            continue;
        }
        let here = Path::Field(at, junctor);
        for (index, nested) in schema[junctor].as_array().into_iter().flatten().enumerate() {
            let skip = junctor == "allOf" && index == 0 && skip_all_of;
            check_nested(nested, skip, &Path::Index(&here, index), causes);
        }
    }
    if has(schema, "not") {
        check_nested(&schema["not"], false, &Path::Field(at, "not"), causes);
    }
}

/// Inside a junctor only rules for values may stand, no structure.
fn check_nested(schema: &Value, skip_any_of: bool, at: &Path<'_>, causes: &mut Vec<Cause>) {
    for (keyword, why) in [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
        ("x-kubernetes-validations", "must be empty to be structural"),
    ] {
        let empty = match &schema[keyword] {
            Value::Null | Value::Bool(false) => keyword != "additionalProperties" || !has(schema, keyword),
            Value::String(text) => text.is_empty() && keyword != "default",
            Value::Array(items) => items.is_empty() && keyword != "default",
            _ => false,
        };
        if !empty {
            causes.push(Cause::forbidden(Path::Field(at, keyword), why));
        }
    }
    check_rules(schema, skip_any_of, false, at, causes);
    if schema["items"].is_object() {
        check_nested(&schema["items"], false, &Path::Field(at, "items"), causes);
    }
    let here = Path::Field(at, "properties");
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let here = Path::Key(&here, name);
        if name == "metadata" {
            causes.push(Cause::forbidden(here, "must not be specified in a nested context"));
        }
        check_nested(property, false, &here, causes);
    }
}

/// What a junctor speaks of must exist in the plain part.
fn check_complete(
    rules: &Value,
    plain: &Value,
    plain_at: &Path<'_>,
    rules_at: &Path<'_>,
    causes: &mut Vec<Cause>,
) {
    for junctor in ["allOf", "anyOf", "oneOf"] {
        let here = Path::Field(rules_at, junctor);
        for (index, nested) in rules[junctor].as_array().into_iter().flatten().enumerate() {
            check_nested_complete(nested, plain, plain_at, &Path::Index(&here, index), causes);
        }
    }
    if has(rules, "not") {
        check_nested_complete(&rules["not"], plain, plain_at, &Path::Field(rules_at, "not"), causes);
    }
}

fn check_nested_complete(
    nested: &Value,
    plain: &Value,
    plain_at: &Path<'_>,
    nested_at: &Path<'_>,
    causes: &mut Vec<Cause>,
) {
    check_complete(nested, plain, plain_at, nested_at, causes);
    if nested["items"].is_object() {
        let (plain_at, nested_at) = (Path::Field(plain_at, "items"), Path::Field(nested_at, "items"));
        match &plain["items"] {
            items @ Value::Object(_) => {
                check_nested_complete(&nested["items"], items, &plain_at, &nested_at, causes);
            }
            _ => causes.push(Cause::required(plain_at, &format!("because it is defined in {nested_at}"))),
        }
    }
    let (plain_at, nested_at) = (Path::Field(plain_at, "properties"), Path::Field(nested_at, "properties"));
    for (name, property) in nested["properties"].as_object().into_iter().flatten() {
        let (plain_at, nested_at) = (Path::Key(&plain_at, name), Path::Key(&nested_at, name));
        match &plain["properties"][name.as_str()] {
            Value::Null => {
                causes.push(Cause::required(plain_at, &format!("because it is defined in {nested_at}")))
            }
            inner => check_nested_complete(property, inner, &plain_at, &nested_at, causes),
        }
    }
}

/// Each default must be a value of its own schema. For schemas that parse.
pub(super) fn check_defaults(schema: &Value, at: &Path<'_>, causes: &mut Vec<Cause>) {
    if let Some(default) = schema.get("default").filter(|default| !default.is_null())
        && let Ok(node) = Node::parse(schema, &Path::Root, &mut Vec::new())
    {
        let here = Path::Field(at, "default");
        causes.extend(validate::validate(&node, default).into_iter().map(|cause| {
            let field = match cause.field.as_str() {
                "" | "<nil>" => here.to_string(),
                inner => format!("{here}.{inner}"),
            };
            Cause { field, ..cause }
        }));
    }
    let here = Path::Field(at, "properties");
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        check_defaults(property, &Path::Key(&here, name), causes);
    }
    for keyword in ["items", "additionalProperties"] {
        if schema[keyword].is_object() {
            check_defaults(&schema[keyword], &Path::Field(at, keyword), causes);
        }
    }
}
