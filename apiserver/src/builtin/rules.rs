//! What distinguishes the built-in kinds from one another: types, defaults, checks.

mod events;
mod workloads;

use crate::resource::Rules;
use crate::schema::Cause;
use crate::status::{cause, invalid_value, required};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::{apps, authentication, authorization, coordination, core, events as events_api, rbac};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// Reads a value as `T` and writes it again.
fn typed<T: Serialize + DeserializeOwned>(value: &Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(T::deserialize(value)?)
}

fn nothing(_: &mut Value) {}

fn no_checks(_: &Value, _: Option<&Value>) -> Vec<Cause> {
    Vec::new()
}

/// A kind with no rules of its own.
const fn plain(decode: fn(&Value) -> Result<Value, serde_json::Error>) -> Rules {
    Rules {
        decode,
        default: nothing,
        on_create: nothing,
        validate: no_checks,
        fields: &[],
        from_stored: None,
        to_stored: None,
    }
}

pub(super) static NAMESPACE: Rules = Rules {
    default: namespace_default,
    on_create: namespace_create,
    fields: &[("status.phase", ".status.phase")],
    ..plain(typed::<core::v1::Namespace>)
};
pub(super) static SECRET: Rules = Rules {
    default: secret_default,
    validate: secret_validate,
    fields: &[("type", ".type")],
    ..plain(typed::<core::v1::Secret>)
};
pub(super) static CONFIG_MAP: Rules = Rules {
    default: |map| drop_empty(map, &["data", "binaryData"]),
    validate: config_map_validate,
    ..plain(typed::<core::v1::ConfigMap>)
};
pub(super) static EVENT: Rules = Rules {
    default: events::event_default,
    validate: events::event_validate,
    fields: &[
        ("involvedObject.kind", ".involvedObject.kind"),
        ("involvedObject.namespace", ".involvedObject.namespace"),
        ("involvedObject.name", ".involvedObject.name"),
        ("involvedObject.uid", ".involvedObject.uid"),
        ("involvedObject.apiVersion", ".involvedObject.apiVersion"),
        ("involvedObject.resourceVersion", ".involvedObject.resourceVersion"),
        ("involvedObject.fieldPath", ".involvedObject.fieldPath"),
        ("reason", ".reason"),
        ("reportingComponent", ".reportingComponent"),
        ("source", ".source.component"),
        ("type", ".type"),
    ],
    ..plain(typed::<core::v1::Event>)
};
pub(super) static EVENTS_EVENT: Rules = Rules {
    default: events::events_event_default,
    validate: events::events_event_validate,
    // Selection looks at the stored form, which is that of the core group.
    fields: &[
        ("regarding.kind", ".involvedObject.kind"),
        ("regarding.namespace", ".involvedObject.namespace"),
        ("regarding.name", ".involvedObject.name"),
        ("regarding.uid", ".involvedObject.uid"),
        ("reason", ".reason"),
        ("reportingController", ".reportingComponent"),
        ("type", ".type"),
    ],
    from_stored: Some(events::event_to_new),
    to_stored: Some(events::event_to_core),
    ..plain(typed::<events_api::v1::Event>)
};
pub(super) static SERVICE_ACCOUNT: Rules = plain(typed::<core::v1::ServiceAccount>);
pub(super) static SERVICE: Rules = Rules {
    default: service_default,
    on_create: |service| service["status"] = json!({"loadBalancer": {}}),
    validate: service_validate,
    fields: &[("spec.clusterIP", ".spec.clusterIP"), ("spec.type", ".spec.type")],
    ..plain(typed::<core::v1::Service>)
};
pub(super) static POD: Rules = Rules {
    default: |pod| workloads::pod_default(&mut pod["spec"]),
    on_create: |pod| pod["status"] = json!({"phase": "Pending", "qosClass": "BestEffort"}),
    validate: workloads::pod_validate,
    fields: &[
        ("spec.nodeName", ".spec.nodeName"),
        ("spec.restartPolicy", ".spec.restartPolicy"),
        ("spec.schedulerName", ".spec.schedulerName"),
        ("spec.serviceAccountName", ".spec.serviceAccountName"),
        ("status.phase", ".status.phase"),
        ("status.podIP", ".status.podIP"),
        ("status.nominatedNodeName", ".status.nominatedNodeName"),
    ],
    ..plain(typed::<core::v1::Pod>)
};
pub(super) static NODE: Rules =
    Rules { fields: &[("spec.unschedulable", ".spec.unschedulable")], ..plain(typed::<core::v1::Node>) };
pub(super) static DEPLOYMENT: Rules = Rules {
    default: workloads::deployment_default,
    on_create: |workload| workload["status"] = json!({}),
    validate: workloads::workload_validate,
    ..plain(typed::<apps::v1::Deployment>)
};
pub(super) static REPLICA_SET: Rules = Rules {
    default: workloads::replicas_default,
    on_create: |workload| workload["status"] = json!({"replicas": 0}),
    validate: workloads::workload_validate,
    fields: &[("status.replicas", ".status.replicas")],
    ..plain(typed::<apps::v1::ReplicaSet>)
};
pub(super) static STATEFUL_SET: Rules = Rules {
    default: workloads::replicas_default,
    on_create: |workload| workload["status"] = json!({"replicas": 0}),
    validate: workloads::workload_validate,
    ..plain(typed::<apps::v1::StatefulSet>)
};
pub(super) static DAEMON_SET: Rules =
    Rules { validate: workloads::workload_validate, ..plain(typed::<apps::v1::DaemonSet>) };
pub(super) static LEASE: Rules =
    Rules { validate: lease_validate, ..plain(typed::<coordination::v1::Lease>) };
pub(super) static ROLE: Rules = plain(typed::<rbac::v1::Role>);
pub(super) static CLUSTER_ROLE: Rules = plain(typed::<rbac::v1::ClusterRole>);
pub(super) static ROLE_BINDING: Rules =
    Rules { default: binding_default, validate: binding_validate, ..plain(typed::<rbac::v1::RoleBinding>) };
pub(super) static CLUSTER_ROLE_BINDING: Rules = Rules {
    default: binding_default,
    validate: binding_validate,
    ..plain(typed::<rbac::v1::ClusterRoleBinding>)
};
pub(super) static SELF_SUBJECT_ACCESS_REVIEW: Rules =
    Rules { validate: access_review_validate, ..plain(typed::<authorization::v1::SelfSubjectAccessReview>) };
pub(super) static TOKEN_REVIEW: Rules = plain(typed::<authentication::v1::TokenReview>);
pub(super) static SELF_SUBJECT_REVIEW: Rules = plain(typed::<authentication::v1::SelfSubjectReview>);
pub(super) static CUSTOM_RESOURCE_DEFINITION: Rules = Rules {
    default: crate::crd::default,
    validate: crate::crd::validate,
    ..plain(typed::<apiextensions::v1::CustomResourceDefinition>)
};

fn namespace_default(namespace: &mut Value) {
    let name = namespace["metadata"]["name"].clone();
    if name.is_string() {
        namespace["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
    }
}

fn namespace_create(namespace: &mut Value) {
    let finalizers = &mut namespace["spec"]["finalizers"];
    let has = finalizers.as_array().is_some_and(|list| list.iter().any(|f| f == "kubernetes"));
    match finalizers.as_array_mut() {
        Some(_) if has => {}
        Some(list) => list.push("kubernetes".into()),
        None => *finalizers = json!(["kubernetes"]),
    }
    namespace["status"] = json!({"phase": "Active"});
}

/// The elements of a list, if it is there.
pub(super) fn elements<'a>(object: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Fills in fields that are not there.
pub(super) fn fill(object: &mut Value, defaults: Value) {
    let Value::Object(defaults) = defaults else { return };
    for (field, value) in defaults {
        if object.get(&field).is_none_or(Value::is_null) {
            object[&field] = value;
        }
    }
}

fn secret_default(secret: &mut Value) {
    let Some(fields) = secret.as_object_mut() else { return };
    if let Some(Value::Object(plain)) = fields.remove("stringData") {
        let data = fields.entry("data").or_insert_with(|| Value::Object(Map::new()));
        if data.is_null() {
            *data = json!({});
        }
        for (key, value) in plain {
            data[key] = STANDARD.encode(value.as_str().unwrap_or_default()).into();
        }
    }
    if fields.get("type").and_then(Value::as_str).unwrap_or_default().is_empty() {
        fields.insert("type".into(), "Opaque".into());
    }
    drop_empty(secret, &["data"]);
}

/// An empty map is as good as none.
fn drop_empty(object: &mut Value, maps: &[&str]) {
    if let Some(fields) = object.as_object_mut() {
        for field in maps {
            if fields.get(*field).and_then(Value::as_object).is_some_and(Map::is_empty) {
                fields.remove(*field);
            }
        }
    }
}

const MIB: usize = 1024 * 1024;

fn data_key(key: &str) -> Option<&'static str> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (key.is_empty() || key.len() > 253 || key == "." || key.starts_with("..") || !key.chars().all(good)).then_some(
        "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
         'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
    )
}

fn check_data(object: &Value, fields: &[&str], causes: &mut Vec<Cause>) {
    let mut size = 0;
    for field in fields {
        for (key, value) in object[*field].as_object().into_iter().flatten() {
            let text = value.as_str().unwrap_or_default();
            size += if *field == "data" && fields.len() == 2 { text.len() } else { text.len() / 4 * 3 };
            if let Some(why) = data_key(key) {
                causes.push(invalid_value(format!("{field}[{key}]"), &json!(key), why));
            }
        }
    }
    if size > MIB {
        let field = if fields.len() == 2 { "[]" } else { "data" };
        causes.push(cause(field, "FieldValueTooLong", format!("Too long: may not be more than {MIB} bytes")));
    }
}

/// What may not change once `immutable` is set.
fn check_immutable(object: &Value, old: Option<&Value>, fields: &[&str], causes: &mut Vec<Cause>) {
    let Some(old) = old.filter(|old| old["immutable"] == true) else { return };
    let forbidden = |field: &str| {
        cause(field, "FieldValueForbidden", "Forbidden: field is immutable when `immutable` is set")
    };
    if object["immutable"] != true {
        causes.push(forbidden("immutable"));
    }
    for field in fields {
        if object.get(*field) != old.get(*field) {
            causes.push(forbidden(field));
        }
    }
}

fn secret_validate(secret: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    check_data(secret, &["data"], &mut causes);
    if let Some(old) = old
        && old["type"] != secret["type"]
    {
        causes.push(invalid_value("type", &secret["type"], "field is immutable"));
    }
    check_immutable(secret, old, &["data"], &mut causes);
    let needed: &[&str] = match secret["type"].as_str().unwrap_or_default() {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for key in needed {
        if secret["data"].get(*key).is_none() {
            causes.push(required(format!("data[{key}]"), ""));
        }
    }
    causes
}

fn config_map_validate(map: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    check_data(map, &["data", "binaryData"], &mut causes);
    for key in map["data"].as_object().into_iter().flatten().map(|(key, _)| key) {
        if map["binaryData"].get(key).is_some() {
            causes.push(invalid_value("data", &json!(key), "duplicate of key present in binaryData"));
        }
    }
    check_immutable(map, old, &["data", "binaryData"], &mut causes);
    causes
}

fn service_default(service: &mut Value) {
    let spec = &mut service["spec"];
    if !spec.is_object() {
        *spec = json!({});
    }
    fill(spec, json!({"type": "ClusterIP", "sessionAffinity": "None"}));
    if spec["type"] != "ExternalName" {
        fill(spec, json!({"internalTrafficPolicy": "Cluster"}));
    }
    for port in elements(spec, "ports") {
        if port["protocol"].is_null() {
            port["protocol"] = "TCP".into();
        }
        if port["targetPort"].is_null() {
            port["targetPort"] = port["port"].clone();
        }
    }
}

fn service_validate(service: &Value, _: Option<&Value>) -> Vec<Cause> {
    let spec = &service["spec"];
    let mut causes = Vec::new();
    let kind = spec["type"].as_str().unwrap_or_default();
    let ports = spec["ports"].as_array().map_or(&[][..], Vec::as_slice);
    if ports.is_empty() && kind != "ExternalName" && spec["clusterIP"] != "None" {
        causes.push(required("spec.ports", ""));
    }
    for (index, port) in ports.iter().enumerate() {
        if !(1..=65535).contains(&port["port"].as_i64().unwrap_or_default()) {
            causes.push(invalid_value(
                format!("spec.ports[{index}].port"),
                &port["port"],
                "must be between 1 and 65535, inclusive",
            ));
        }
    }
    if !matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer" | "ExternalName") {
        causes.push(cause(
            "spec.type",
            "FieldValueNotSupported",
            format!(
                "Unsupported value: {kind:?}: supported values: \"ClusterIP\", \"ExternalName\", \
                 \"LoadBalancer\", \"NodePort\""
            ),
        ));
    }
    causes
}

fn lease_validate(lease: &Value, _: Option<&Value>) -> Vec<Cause> {
    let spec = &lease["spec"];
    let mut causes = Vec::new();
    if spec["leaseDurationSeconds"].as_i64().is_some_and(|n| n <= 0) {
        causes.push(invalid_value(
            "spec.leaseDurationSeconds",
            &spec["leaseDurationSeconds"],
            "must be greater than 0",
        ));
    }
    if spec["leaseTransitions"].as_i64().is_some_and(|n| n < 0) {
        causes.push(invalid_value(
            "spec.leaseTransitions",
            &spec["leaseTransitions"],
            "must be greater than or equal to 0",
        ));
    }
    causes
}

fn binding_default(binding: &mut Value) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    if binding["roleRef"]["apiGroup"].as_str().unwrap_or_default().is_empty() {
        binding["roleRef"]["apiGroup"] = GROUP.into();
    }
    for subject in elements(binding, "subjects") {
        if matches!(subject["kind"].as_str(), Some("User" | "Group")) && subject["apiGroup"].is_null() {
            subject["apiGroup"] = GROUP.into();
        }
    }
}

fn binding_validate(binding: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    if binding["roleRef"]["name"].as_str().unwrap_or_default().is_empty() {
        causes.push(required("roleRef.name", ""));
    }
    if let Some(old) = old
        && old["roleRef"] != binding["roleRef"]
    {
        causes.push(invalid_value("roleRef", &binding["roleRef"], "cannot change roleRef"));
    }
    causes
}

fn access_review_validate(review: &Value, _: Option<&Value>) -> Vec<Cause> {
    let spec = &review["spec"];
    if spec["resourceAttributes"].is_null() == spec["nonResourceAttributes"].is_null() {
        return vec![invalid_value(
            "spec.resourceAttributes",
            &spec["nonResourceAttributes"],
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )];
    }
    Vec::new()
}
