//! Paths and operations of one resource, in both dialects.

use serde_json::{Map, Value, json};

use super::{ResourceDoc, meta};

/// OpenAPI v2 and v3 say the same things in different places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    V2,
    V3,
}

impl Dialect {
    pub(super) fn reference(self, schema: &str) -> Value {
        match self {
            Self::V2 => json!({"$ref": format!("#/definitions/{schema}")}),
            Self::V3 => json!({"$ref": format!("#/components/schemas/{schema}")}),
        }
    }

    /// A reference together with words of its own.
    pub(super) fn field(self, schema: &str, description: &str) -> Value {
        match self {
            Self::V2 => {
                let mut field = self.reference(schema);
                field["description"] = description.into();
                field
            }
            Self::V3 => json!({"allOf": [self.reference(schema)], "default": {}, "description": description}),
        }
    }

    fn parameter(self, place: &str, name: &str, kind: &str, description: &str) -> Value {
        let mut parameter =
            json!({"name": name, "in": place, "description": description, "uniqueItems": true});
        match self {
            Self::V2 => parameter["type"] = kind.into(),
            Self::V3 => parameter["schema"] = json!({"type": kind, "uniqueItems": true}),
        }
        if place == "path" {
            parameter["required"] = true.into();
        }
        parameter
    }

    fn query(self, (name, kind, description): (&str, &str, &str)) -> Value {
        self.parameter("query", name, kind, description)
    }
}

type Query = (&'static str, &'static str, &'static str);

const PRETTY: Query = ("pretty", "string", "If true, the answer is indented.");
const DRY_RUN: Query = ("dryRun", "string", "All: check and answer, but change nothing.");
const FIELD_MANAGER: Query = ("fieldManager", "string", "Name of who makes the change.");
const FIELD_VALIDATION: Query = (
    "fieldValidation",
    "string",
    "What to do about unknown or duplicate fields: Ignore, Warn (the default) or Strict, which refuses them.",
);
const FORCE: Query = ("force", "boolean", "Take over fields of other managers when applying.");
const LIST: &[Query] = &[
    ("allowWatchBookmarks", "boolean", "Whether watch events of type BOOKMARK are welcome."),
    ("continue", "string", "Token of the next page, from the answer before."),
    ("fieldSelector", "string", "Which objects, by their fields."),
    ("labelSelector", "string", "Which objects, by their labels."),
    ("limit", "integer", "Most objects on one page."),
    ("resourceVersion", "string", "Which version of the data to read or to watch from."),
    ("resourceVersionMatch", "string", "How resourceVersion is meant: NotOlderThan or Exact."),
    ("sendInitialEvents", "boolean", "Whether a watch begins with what is there."),
    ("timeoutSeconds", "integer", "How long a watch lasts."),
    ("watch", "boolean", "Send changes as they happen instead of a list."),
];
const DELETE: &[Query] = &[
    DRY_RUN,
    ("gracePeriodSeconds", "integer", "Seconds before the object goes."),
    ("orphanDependents", "boolean", "Replaced by propagationPolicy."),
    ("propagationPolicy", "string", "Orphan, Background or Foreground."),
];
const WRITE: &[Query] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
const PATCHES: &[Query] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];

/// See the module above for why strategic merge is not among them.
const PATCH_TYPES: &[&str] = &["application/json-patch+json", "application/merge-patch+json"];

pub(super) fn add_paths(doc: &ResourceDoc, dialect: Dialect, paths: &mut Map<String, Value>) {
    let root = format!("/{}", doc.prefix());
    let collection = match doc.namespaced {
        true => format!("{root}/namespaces/{{namespace}}/{}", doc.plural),
        false => format!("{root}/{}", doc.plural),
    };
    let schema = doc.schema_name();
    let list = format!("{schema}List");
    let make = |action| Maker { doc, dialect, action };

    let list_operation = || make("list").operation("list", LIST, None, &list);
    paths.insert(
        collection.clone(),
        json!({
            "get": list_operation(),
            "post": make("post").operation("create", WRITE, Some(&schema), &schema),
            "delete": make("deletecollection").operation("deletecollection", DELETE, Some(meta::DELETE_OPTIONS), meta::STATUS),
            "parameters": common(doc, dialect, false),
        }),
    );
    if doc.namespaced {
        let everywhere = make("list").operation("listForAllNamespaces", LIST, None, &list);
        paths.insert(
            format!("{root}/{}", doc.plural),
            json!({"get": everywhere, "parameters": [dialect.query(PRETTY)]}),
        );
    }
    let item = format!("{collection}/{{name}}");
    paths.insert(
        item.clone(),
        json!({
            "get": make("get").operation("read", &[], None, &schema),
            "put": make("put").operation("replace", WRITE, Some(&schema), &schema),
            "patch": make("patch").operation("patch", PATCHES, Some(meta::PATCH), &schema),
            "delete": make("delete").operation("delete", DELETE, Some(meta::DELETE_OPTIONS), meta::STATUS),
            "parameters": common(doc, dialect, true),
        }),
    );
    for name in doc.subresources.iter().filter(|name| matches!(name.as_str(), "status" | "scale")) {
        let schema = if name == "scale" { meta::SCALE } else { schema.as_str() };
        paths.insert(
            format!("{item}/{name}"),
            json!({
                "get": make("get").operation(&format!("read-{name}"), &[], None, schema),
                "put": make("put").operation(&format!("replace-{name}"), WRITE, Some(schema), schema),
                "patch": make("patch").operation(&format!("patch-{name}"), PATCHES, Some(meta::PATCH), schema),
                "parameters": common(doc, dialect, true),
            }),
        );
    }
}

fn common(doc: &ResourceDoc, dialect: Dialect, named: bool) -> Value {
    let mut parameters = Vec::new();
    if named {
        parameters.push(dialect.parameter("path", "name", "string", &format!("Name of the {}.", doc.kind)));
    }
    if doc.namespaced {
        parameters.push(dialect.parameter("path", "namespace", "string", "Namespace of the object."));
    }
    parameters.push(dialect.query(PRETTY));
    parameters.into()
}

struct Maker<'a> {
    doc: &'a ResourceDoc,
    dialect: Dialect,
    action: &'static str,
}

impl Maker<'_> {
    /// One operation: its parameters, the schema of its body if it has one, the schema of its answer.
    fn operation(&self, verb: &str, queries: &[Query], body: Option<&str>, answer: &str) -> Value {
        let Self { doc, dialect, action } = *self;
        let group = if doc.group.is_empty() { "core" } else { &doc.group };
        let scale = verb.ends_with("-scale");
        let gvk = match scale {
            true => json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}),
            false => doc.gvk(),
        };
        let mut parameters: Vec<_> = queries.iter().map(|query| dialect.query(*query)).collect();
        let mut operation = json!({
            "description": format!("{verb} {}", doc.kind),
            "operationId": format!("{verb}-{group}-{}-{}", doc.version, doc.plural),
            "tags": [format!("{group}_{}", doc.version)],
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk,
        });
        let reference = dialect.reference(answer);
        let content_types: &[&str] = if action == "patch" { PATCH_TYPES } else { &["application/json"] };
        match dialect {
            Dialect::V3 => {
                operation["responses"] = json!({"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}});
                if let Some(body) = body {
                    let schema = dialect.reference(body);
                    let content: Map<_, _> = content_types
                        .iter()
                        .map(|kind| ((*kind).to_owned(), json!({ "schema": schema })))
                        .collect();
                    operation["requestBody"] =
                        json!({"content": content, "required": body != meta::DELETE_OPTIONS});
                }
            }
            Dialect::V2 => {
                operation["responses"] = json!({"200": {"description": "OK", "schema": reference}});
                operation["produces"] = json!(["application/json"]);
                operation["schemes"] = json!(["https"]);
                if let Some(body) = body {
                    operation["consumes"] = json!(content_types);
                    parameters.push(json!({
                        "name": "body", "in": "body", "schema": dialect.reference(body), "required": body != meta::DELETE_OPTIONS,
                    }));
                }
            }
        }
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        operation
    }
}
