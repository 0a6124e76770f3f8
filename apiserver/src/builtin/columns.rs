//! What tables show of the built-in kinds.

use crate::resource::{Cell, Column};
use crate::serve::table::age;
use serde_json::{Value, json};

/// One column of a built-in kind.
pub(crate) struct Spec {
    name: &'static str,
    kind: &'static str,
    wide: bool,
    cell: fn(&Value, i64) -> Value,
}

impl Spec {
    pub(crate) fn column(&self) -> Column {
        Column {
            name: self.name.into(),
            kind: self.kind.into(),
            format: if self.name == "Name" { "name".into() } else { "".into() },
            description: "".into(),
            priority: i64::from(self.wide),
            cell: Cell::Computed(self.cell),
        }
    }
}

const fn text(name: &'static str, cell: fn(&Value, i64) -> Value) -> Spec {
    Spec { name, kind: "string", wide: false, cell }
}

/// A number in a column that is declared as text.
const fn amount(name: &'static str, cell: fn(&Value, i64) -> Value) -> Spec {
    Spec { name, kind: "string", wide: false, cell }
}

const fn number(name: &'static str, cell: fn(&Value, i64) -> Value) -> Spec {
    Spec { name, kind: "integer", wide: false, cell }
}

const fn wide(name: &'static str, cell: fn(&Value, i64) -> Value) -> Spec {
    Spec { name, kind: "string", wide: true, cell }
}

const NAME: Spec = text("Name", |o, _| o["metadata"]["name"].clone());
const AGE: Spec = text("Age", |o, now| age(&o["metadata"]["creationTimestamp"], now));
const CREATED: Spec = Spec {
    name: "Created At",
    kind: "date",
    wide: false,
    cell: |o, _| o["metadata"]["creationTimestamp"].clone(),
};

fn or(value: &Value, otherwise: &str) -> Value {
    match value {
        Value::Null => otherwise.into(),
        Value::String(text) if text.is_empty() => otherwise.into(),
        other => other.clone(),
    }
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(list) => list.len(),
        Value::Object(map) => map.len(),
        _ => 0,
    }
}

fn integer(value: &Value) -> Value {
    value.as_i64().unwrap_or_default().into()
}

fn pairs(value: &Value) -> Value {
    let Some(map) = value.as_object().filter(|m| !m.is_empty()) else { return "<none>".into() };
    map.iter()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect::<Vec<_>>()
        .join(",")
        .into()
}

fn containers(spec: &Value, field: &str) -> Value {
    let all: Vec<&str> =
        spec["containers"].as_array().into_iter().flatten().filter_map(|c| c[field].as_str()).collect();
    all.join(",").into()
}

pub(super) const NAME_AND_CREATION: &[Spec] = &[NAME, CREATED];

pub(super) const NAMESPACE: &[Spec] = &[NAME, text("Status", |o, _| o["status"]["phase"].clone()), AGE];

pub(super) const SECRET: &[Spec] =
    &[NAME, text("Type", |o, _| o["type"].clone()), amount("Data", |o, _| count(&o["data"]).into()), AGE];

pub(super) const CONFIG_MAP: &[Spec] =
    &[NAME, amount("Data", |o, _| (count(&o["data"]) + count(&o["binaryData"])).into()), AGE];

pub(super) const SERVICE_ACCOUNT: &[Spec] =
    &[NAME, amount("Secrets", |o, _| count(&o["secrets"]).into()), AGE];

/// When something told of by an event was last seen, in the words of either group.
fn last_seen(event: &Value, now: i64) -> Value {
    let places = [
        &event["series"]["lastObservedTime"],
        &event["lastTimestamp"],
        &event["deprecatedLastTimestamp"],
        &event["eventTime"],
        &event["firstTimestamp"],
        &event["metadata"]["creationTimestamp"],
    ];
    let last = places.into_iter().find(|p| p.is_string()).unwrap_or(&Value::Null);
    age(last, now)
}

fn about(object: &Value) -> Value {
    let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
    format!("{kind}/{}", object["name"].as_str().unwrap_or_default()).into()
}

pub(super) const EVENT: &[Spec] = &[
    text("Last Seen", last_seen),
    text("Type", |o, _| o["type"].clone()),
    text("Reason", |o, _| o["reason"].clone()),
    text("Object", |o, _| about(&o["involvedObject"])),
    wide("Subobject", |o, _| or(&o["involvedObject"]["fieldPath"], "")),
    wide("Source", |o, _| {
        or(&o["source"]["component"], o["reportingComponent"].as_str().unwrap_or_default())
    }),
    text("Message", |o, _| o["message"].as_str().unwrap_or_default().trim().into()),
    wide("First Seen", |o, now| age(or_first(o), now)),
    wide("Count", |o, _| o["count"].as_i64().unwrap_or(1).into()),
    Spec { name: "Name", kind: "string", wide: true, cell: |o, _| o["metadata"]["name"].clone() },
];

fn or_first(event: &Value) -> &Value {
    if event["firstTimestamp"].is_string() { &event["firstTimestamp"] } else { &event["eventTime"] }
}

pub(super) const EVENTS_EVENT: &[Spec] = &[
    text("Last Seen", last_seen),
    text("Type", |o, _| o["type"].clone()),
    text("Reason", |o, _| o["reason"].clone()),
    text("Object", |o, _| about(&o["regarding"])),
    text("Message", |o, _| o["note"].as_str().unwrap_or_default().trim().into()),
    Spec { name: "Name", kind: "string", wide: true, cell: |o, _| o["metadata"]["name"].clone() },
];

pub(super) const SERVICE: &[Spec] = &[
    NAME,
    text("Type", |o, _| o["spec"]["type"].clone()),
    text("Cluster-IP", |o, _| or(&o["spec"]["clusterIP"], "<none>")),
    text("External-IP", |o, _| or(&o["spec"]["externalName"], "<none>")),
    text("Port(s)", |o, _| {
        let ports: Vec<String> = o["spec"]["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|p| match p["nodePort"].as_i64().filter(|n| *n > 0) {
                Some(node) => format!("{}:{node}/{}", p["port"], p["protocol"].as_str().unwrap_or_default()),
                None => format!("{}/{}", p["port"], p["protocol"].as_str().unwrap_or_default()),
            })
            .collect();
        if ports.is_empty() { "<none>".into() } else { ports.join(",").into() }
    }),
    AGE,
    wide("Selector", |o, _| pairs(&o["spec"]["selector"])),
];

pub(super) const POD: &[Spec] = &[
    NAME,
    text("Ready", |o, _| {
        let ready =
            o["status"]["containerStatuses"].as_array().into_iter().flatten().filter(|s| s["ready"] == true);
        format!("{}/{}", ready.count(), count(&o["spec"]["containers"])).into()
    }),
    text("Status", |o, _| {
        if o["metadata"]["deletionTimestamp"].is_null() {
            or(&o["status"]["reason"], o["status"]["phase"].as_str().unwrap_or_default())
        } else {
            "Terminating".into()
        }
    }),
    text("Restarts", |o, _| {
        let restarts = o["status"]["containerStatuses"].as_array().into_iter().flatten();
        restarts.filter_map(|s| s["restartCount"].as_i64()).sum::<i64>().to_string().into()
    }),
    AGE,
    wide("IP", |o, _| or(&o["status"]["podIP"], "<none>")),
    wide("Node", |o, _| or(&o["spec"]["nodeName"], "<none>")),
    wide("Nominated Node", |o, _| or(&o["status"]["nominatedNodeName"], "<none>")),
    wide("Readiness Gates", |o, _| match count(&o["spec"]["readinessGates"]) {
        0 => "<none>".into(),
        n => format!("{n}").into(),
    }),
];

pub(super) const NODE: &[Spec] = &[
    NAME,
    text("Status", |o, _| {
        let ready = o["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "Ready");
        match ready.and_then(|c| c["status"].as_str()) {
            Some("True") => "Ready".into(),
            Some(_) => "NotReady".into(),
            None => "Unknown".into(),
        }
    }),
    text("Roles", |o, _| {
        let labels = o["metadata"]["labels"].as_object();
        let roles: Vec<&str> = labels
            .into_iter()
            .flatten()
            .filter_map(|(k, _)| k.strip_prefix("node-role.kubernetes.io/"))
            .collect();
        if roles.is_empty() { "<none>".into() } else { roles.join(",").into() }
    }),
    AGE,
    text("Version", |o, _| or(&o["status"]["nodeInfo"]["kubeletVersion"], "")),
];

pub(super) const DEPLOYMENT: &[Spec] = &[
    NAME,
    text("Ready", ready_of_wanted),
    amount("Up-to-date", |o, _| integer(&o["status"]["updatedReplicas"])),
    amount("Available", |o, _| integer(&o["status"]["availableReplicas"])),
    AGE,
    wide("Containers", |o, _| containers(&o["spec"]["template"]["spec"], "name")),
    wide("Images", |o, _| containers(&o["spec"]["template"]["spec"], "image")),
    wide("Selector", |o, _| pairs(&o["spec"]["selector"]["matchLabels"])),
];

fn ready_of_wanted(workload: &Value, _: i64) -> Value {
    let ready = workload["status"]["readyReplicas"].as_i64().unwrap_or_default();
    format!("{ready}/{}", workload["spec"]["replicas"].as_i64().unwrap_or_default()).into()
}

pub(super) const REPLICA_SET: &[Spec] = &[
    NAME,
    number("Desired", |o, _| integer(&o["spec"]["replicas"])),
    number("Current", |o, _| integer(&o["status"]["replicas"])),
    number("Ready", |o, _| integer(&o["status"]["readyReplicas"])),
    AGE,
];

pub(super) const STATEFUL_SET: &[Spec] = &[NAME, text("Ready", ready_of_wanted), AGE];

pub(super) const DAEMON_SET: &[Spec] = &[
    NAME,
    number("Desired", |o, _| integer(&o["status"]["desiredNumberScheduled"])),
    number("Current", |o, _| integer(&o["status"]["currentNumberScheduled"])),
    number("Ready", |o, _| integer(&o["status"]["numberReady"])),
    number("Up-to-date", |o, _| integer(&o["status"]["updatedNumberScheduled"])),
    number("Available", |o, _| integer(&o["status"]["numberAvailable"])),
    text("Node Selector", |o, _| pairs(&o["spec"]["template"]["spec"]["nodeSelector"])),
    AGE,
];

pub(super) const LEASE: &[Spec] = &[NAME, text("Holder", |o, _| or(&o["spec"]["holderIdentity"], "")), AGE];

pub(super) const BINDING: &[Spec] = &[
    NAME,
    text("Role", |o, _| {
        let role = &o["roleRef"];
        json!(format!(
            "{}/{}",
            role["kind"].as_str().unwrap_or_default(),
            role["name"].as_str().unwrap_or_default()
        ))
    }),
    AGE,
];
