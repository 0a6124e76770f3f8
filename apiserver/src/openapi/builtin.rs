//! Schemas of the built-in kinds that people look up. Their metadata is added where all kinds get it.

use serde_json::{Map, Value, json};

/// The schema of a built-in kind; `None` for those whose fields are left open.
pub(super) fn schema(group: &str, kind: &str) -> Option<Value> {
    let (description, fields) = match (group, kind) {
        ("", "ConfigMap") => ("Configuration data for programs.", config_map()),
        ("", "Secret") => ("Data that is not for everybody's eyes.", secret()),
        ("", "Namespace") => ("A space for names.", namespace()),
        ("", "ServiceAccount") => ("An identity for programs that run in a namespace.", service_account()),
        ("", "Event") => ("Something that happened to an object.", event()),
        ("coordination.k8s.io", "Lease") => ("Who holds something, and until when.", lease()),
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => ("A set of permissions.", role(kind)),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            ("Who has the permissions of a role.", binding())
        }
        _ => return None,
    };
    Some(json!({"type": "object", "description": description, "properties": fields}))
}

type Fields = Map<String, Value>;

fn fields<const N: usize>(fields: [(&str, Value); N]) -> Fields {
    fields.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn time(description: &str) -> Value {
    json!({"type": "string", "format": "date-time", "description": description})
}

fn flag(description: &str) -> Value {
    json!({"type": "boolean", "description": description})
}

fn number(description: &str) -> Value {
    json!({"type": "integer", "format": "int32", "description": description})
}

fn texts(description: &str) -> Value {
    json!({"type": "array", "description": description, "items": {"type": "string"}})
}

fn map(format: Option<&str>, description: &str) -> Value {
    let mut value = json!({"type": "string"});
    if let Some(format) = format {
        value["format"] = format.into();
    }
    json!({"type": "object", "description": description, "additionalProperties": value})
}

fn object(description: &str, fields: Fields) -> Value {
    json!({"type": "object", "description": description, "properties": fields})
}

fn list(description: &str, item: Fields) -> Value {
    json!({"type": "array", "description": description, "items": {"type": "object", "properties": item}})
}

fn reference(description: &str) -> Value {
    object(
        description,
        fields([
            ("apiVersion", text("Group and version of the object.")),
            ("kind", text("Kind of the object.")),
            ("name", text("Name of the object.")),
            ("namespace", text("Namespace of the object.")),
            ("uid", text("UID of the object.")),
            ("resourceVersion", text("The version that is meant.")),
            ("fieldPath", text("The part of the object that is meant.")),
        ]),
    )
}

fn config_map() -> Fields {
    fields([
        ("data", map(None, "Values that are UTF-8 text, by key.")),
        ("binaryData", map(Some("byte"), "Values of any bytes, in base64, by key.")),
        ("immutable", flag("If true, the data can no longer be changed.")),
    ])
}

fn secret() -> Fields {
    fields([
        ("data", map(Some("byte"), "Values in base64, by key.")),
        ("stringData", map(None, "Values as plain text, by key; written into data, never read back.")),
        ("type", text("What the data is for. Cannot be changed.")),
        ("immutable", flag("If true, the data can no longer be changed.")),
    ])
}

fn namespace() -> Fields {
    let condition = fields([
        ("type", text("What the condition is about.")),
        ("status", text("True, False or Unknown.")),
        ("reason", text("Why, for programs.")),
        ("message", text("Why, for people.")),
        ("lastTransitionTime", time("When the status last changed.")),
    ]);
    fields([
        (
            "spec",
            object("What is wanted.", fields([("finalizers", texts("Who has to agree before it goes."))])),
        ),
        (
            "status",
            object(
                "What is.",
                fields([
                    ("phase", text("Active or Terminating.")),
                    ("conditions", list("More about the phase.", condition)),
                ]),
            ),
        ),
    ])
}

fn service_account() -> Fields {
    let name = fields([("name", text("Name of the secret."))]);
    fields([
        ("automountServiceAccountToken", flag("Whether pods get a token of this account.")),
        ("imagePullSecrets", list("Secrets for pulling images.", name)),
        (
            "secrets",
            json!({"type": "array", "description": "Secrets that pods may mount.", "items": reference("A secret.")}),
        ),
    ])
}

fn event() -> Fields {
    let source = fields([("component", text("Which program.")), ("host", text("On which node."))]);
    let series = fields([("count", number("How often.")), ("lastObservedTime", time("When last."))]);
    fields([
        ("involvedObject", reference("The object it happened to.")),
        ("related", reference("Another object that played a part.")),
        ("reason", text("What happened, in one word.")),
        ("message", text("What happened, for people.")),
        ("type", text("Normal or Warning.")),
        ("action", text("What was done.")),
        ("count", number("How often it happened.")),
        ("firstTimestamp", time("When it happened first.")),
        ("lastTimestamp", time("When it happened last.")),
        ("eventTime", time("When it was seen.")),
        ("series", object("A run of such events.", series)),
        ("source", object("Who reported it.", source)),
        ("reportingComponent", text("The controller that reported it.")),
        ("reportingInstance", text("Which instance of it.")),
    ])
}

fn lease() -> Fields {
    let spec = fields([
        ("holderIdentity", text("Who holds it.")),
        ("leaseDurationSeconds", number("How long it is held without being renewed.")),
        ("acquireTime", time("When the holder got it.")),
        ("renewTime", time("When the holder last renewed it.")),
        ("leaseTransitions", number("How often it changed hands.")),
        ("preferredHolder", text("Who should get it.")),
        ("strategy", text("How a leader is elected.")),
    ]);
    fields([("spec", object("Who holds it, and until when.", spec))])
}

fn role(kind: &str) -> Fields {
    let rule = fields([
        ("verbs", texts("What may be done; * for everything.")),
        ("apiGroups", texts("In which groups; the empty name is the core group.")),
        ("resources", texts("To which resources.")),
        ("resourceNames", texts("To which objects; empty for all.")),
        ("nonResourceURLs", texts("Under which paths that are no resources.")),
    ]);
    let mut role = fields([("rules", list("What is allowed.", rule))]);
    if kind == "ClusterRole" {
        let aggregation = json!({"type": "object", "description": "Other roles that this one is made of.",
            "x-kubernetes-preserve-unknown-fields": true});
        role.insert("aggregationRule".to_owned(), aggregation);
    }
    role
}

fn binding() -> Fields {
    let group = ("apiGroup", text("Group of what is named."));
    let role =
        fields([group.clone(), ("kind", text("Role or ClusterRole.")), ("name", text("Name of the role."))]);
    let subject = fields([
        group,
        ("kind", text("User, Group or ServiceAccount.")),
        ("name", text("Name of the subject.")),
        ("namespace", text("Namespace of a service account.")),
    ]);
    fields([
        ("roleRef", object("The role. Cannot be changed.", role)),
        ("subjects", list("Who has it.", subject)),
    ])
}
