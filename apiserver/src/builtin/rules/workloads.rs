//! Pods and what makes them. They are stored only: nothing runs.

use super::{elements, fill};
use crate::schema::Cause;
use crate::status::{invalid_value, required};
use serde_json::{Value, json};

pub(super) fn containers(spec: &Value, at: &str, causes: &mut Vec<Cause>) {
    let list = spec["containers"].as_array().map_or(&[][..], Vec::as_slice);
    if list.is_empty() {
        causes.push(required(format!("{at}.containers"), ""));
    }
    for (index, container) in list.iter().enumerate() {
        for field in ["name", "image"] {
            if container[field].as_str().unwrap_or_default().is_empty() {
                causes.push(required(format!("{at}.containers[{index}].{field}"), ""));
            }
        }
    }
}

pub(super) fn pod_validate(pod: &Value, _: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    containers(&pod["spec"], "spec", &mut causes);
    causes
}

pub(super) fn pod_default(spec: &mut Value) {
    fill(
        spec,
        json!({
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "securityContext": {},
            "schedulerName": "default-scheduler",
        }),
    );
    for list in ["containers", "initContainers"] {
        for container in elements(spec, list) {
            let image = container["image"].as_str().unwrap_or_default();
            let (_, tag) =
                image.rsplit_once('/').unwrap_or(("", image)).1.split_once(':').unwrap_or(("", "latest"));
            let pull = if tag == "latest" { "Always" } else { "IfNotPresent" };
            fill(
                container,
                json!({
                    "imagePullPolicy": pull,
                    "resources": {},
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                }),
            );
            for port in elements(container, "ports") {
                fill(port, json!({"protocol": "TCP"}));
            }
        }
    }
}

pub(super) fn replicas_default(workload: &mut Value) {
    fill(&mut workload["spec"], json!({"replicas": 1}));
    pod_default(&mut workload["spec"]["template"]["spec"]);
}

pub(super) fn deployment_default(deployment: &mut Value) {
    fill(
        &mut deployment["spec"],
        json!({
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 10,
            "strategy": {"type": "RollingUpdate"},
        }),
    );
    let strategy = &mut deployment["spec"]["strategy"];
    fill(strategy, json!({"type": "RollingUpdate"}));
    if strategy["type"] == "RollingUpdate" {
        fill(strategy, json!({"rollingUpdate": {}}));
        fill(&mut strategy["rollingUpdate"], json!({"maxUnavailable": "25%", "maxSurge": "25%"}));
    }
    replicas_default(deployment);
}

pub(super) fn workload_validate(workload: &Value, old: Option<&Value>) -> Vec<Cause> {
    let spec = &workload["spec"];
    let mut causes = Vec::new();
    if spec["replicas"].as_i64().is_some_and(|n| n < 0) {
        causes.push(invalid_value("spec.replicas", &spec["replicas"], "must be greater than or equal to 0"));
    }
    let labels = &spec["template"]["metadata"]["labels"];
    match spec["selector"]["matchLabels"].as_object() {
        _ if spec["selector"].is_null() => causes.push(required("spec.selector", "")),
        None if spec["selector"]["matchExpressions"].as_array().is_none_or(Vec::is_empty) => causes.push(
            invalid_value("spec.selector", &spec["selector"], "empty selector is invalid for deployment"),
        ),
        Some(wanted) if wanted.iter().any(|(key, value)| labels.get(key) != Some(value)) => {
            causes.push(invalid_value(
                "spec.template.metadata.labels",
                labels,
                "`selector` does not match template `labels`",
            ));
        }
        _ => {}
    }
    if let Some(old) = old
        && old["spec"]["selector"] != spec["selector"]
    {
        causes.push(invalid_value("spec.selector", &spec["selector"], "field is immutable"));
    }
    containers(&spec["template"]["spec"], "spec.template.spec", &mut causes);
    causes
}
