//! Events, which two groups tell of in different words. They are stored in those of the core group.

use crate::schema::Cause;
use crate::status::{invalid_value, required};
use serde_json::{Value, json};

/// Times that are not known are written as null.
fn nulls(event: &mut Value, times: &[&str]) {
    if let Some(fields) = event.as_object_mut() {
        for time in times {
            fields.entry(*time).or_insert(Value::Null);
        }
    }
}

pub(super) fn events_event_default(event: &mut Value) {
    nulls(event, &["eventTime", "deprecatedFirstTimestamp", "deprecatedLastTimestamp"]);
}

pub(super) fn event_default(event: &mut Value) {
    nulls(event, &["eventTime", "firstTimestamp", "lastTimestamp"]);
    for field in ["source", "reportingComponent", "reportingInstance"] {
        if event.get(field).is_none() {
            event[field] = if field == "source" { json!({}) } else { json!("") };
        }
    }
}

/// An event lives where what it is about lives; cluster-wide things are told of in `default`.
pub(super) fn event_place(event: &Value, about: &str) -> Vec<Cause> {
    let of = event[about]["namespace"].as_str().unwrap_or_default();
    let namespace = event["metadata"]["namespace"].as_str().unwrap_or_default();
    let right = if of.is_empty() { matches!(namespace, "default" | "kube-system") } else { of == namespace };
    if right {
        return Vec::new();
    }
    vec![invalid_value(format!("{about}.namespace"), &json!(of), "does not match event.namespace")]
}

pub(super) fn event_validate(event: &Value, _: Option<&Value>) -> Vec<Cause> {
    event_place(event, "involvedObject")
}

pub(super) fn events_event_validate(event: &Value, _: Option<&Value>) -> Vec<Cause> {
    // What came from the core group may lack all of this.
    if event["eventTime"].is_null() && !event["deprecatedFirstTimestamp"].is_null() {
        return event_place(event, "regarding");
    }
    let mut causes = event_place(event, "regarding");
    if event["eventTime"].is_null() {
        causes.push(required("eventTime", ""));
    }
    for field in ["reportingController", "reportingInstance", "action", "reason"] {
        if event[field].as_str().unwrap_or_default().is_empty() {
            causes.push(required(field, ""));
        }
    }
    if !matches!(event["type"].as_str(), Some("Normal" | "Warning")) {
        causes.push(invalid_value("type", &event["type"], "has invalid value"));
    }
    causes
}

/// The same event in the words of the core group and of `events.k8s.io`.
const EVENT_WORDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

pub(super) fn event_to_new(mut event: Value) -> Value {
    if let Some(fields) = event.as_object_mut() {
        if fields.get("reportingInstance").is_some_and(|value| value == "") {
            fields.remove("reportingInstance");
        }
        for (core, new) in EVENT_WORDS {
            // Two of the fields are left out here when they are empty.
            if let Some(value) = fields.remove(core).filter(|value| *value != "") {
                fields.insert(new.into(), value);
            }
        }
    }
    event
}

pub(super) fn event_to_core(mut event: Value) -> Value {
    if let Some(fields) = event.as_object_mut() {
        for (core, new) in EVENT_WORDS {
            if let Some(value) = fields.remove(new) {
                fields.insert(core.into(), value);
            }
        }
        fields.entry("involvedObject").or_insert_with(|| json!({}));
    }
    event_default(&mut event);
    event
}
