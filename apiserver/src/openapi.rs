//! What the server says about itself in OpenAPI: enough for `kubectl explain`, for `kubectl apply` to see which
//! parameters are supported, and for clients that look up schemas by group, version and kind.
//!
//! Built-in kinds whose fields nobody described appear as objects with metadata and free fields. None of the
//! documents announces strategic merge patches: a client that computes one needs to know how every list merges,
//! which these schemas do not say, and kubectl then uses the table that is compiled into it.

mod builtin;
mod meta;
mod operation;

use serde_json::{Map, Value, json};

use operation::Dialect;

/// One served resource, as the documents describe it.
#[derive(Debug, Clone)]
pub(crate) struct ResourceDoc {
    /// API group; empty for the core group.
    pub(crate) group: String,
    /// Version, for example `v1`.
    pub(crate) version: String,
    /// Kind, for example `Secret`.
    pub(crate) kind: String,
    /// Plural name as in paths, for example `secrets`.
    pub(crate) plural: String,
    /// Whether objects live in namespaces.
    pub(crate) namespaced: bool,
    /// The OpenAPI v3 schema, where one is known.
    pub(crate) schema: Option<Value>,
    /// Names of subresources, for example `status`.
    pub(crate) subresources: Vec<String>,
}

impl ResourceDoc {
    fn gvk(&self) -> Value {
        json!({"group": self.group, "version": self.version, "kind": self.kind})
    }

    fn prefix(&self) -> String {
        group_path(&self.group, &self.version)
    }

    /// The name of the schema: reversed group, version, kind; `io.k8s.api…` for what is built in.
    fn schema_name(&self) -> String {
        let package = match self.group.as_str() {
            "" => "io.k8s.api.core".to_owned(),
            "apiextensions.k8s.io" => "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions".to_owned(),
            group if !group.contains('.') || group.ends_with(".k8s.io") => {
                format!("io.k8s.api.{}", group.split('.').next().unwrap_or(group))
            }
            group => group.rsplit('.').collect::<Vec<_>>().join("."),
        };
        format!("{package}.{}.{}", self.version, self.kind)
    }
}

fn group_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The document of one group and version: `/openapi/v3/apis/{group}/{version}`.
pub(crate) fn v3_document(group: &str, version: &str, resources: &[ResourceDoc]) -> Value {
    let served = || resources.iter().filter(|doc| doc.group == group && doc.version == version);
    let mut schemas = meta::schemas(Dialect::V3);
    let mut paths = Map::new();
    for doc in served() {
        add_schemas(doc, Dialect::V3, &mut schemas);
        operation::add_paths(doc, Dialect::V3, &mut paths);
    }
    json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"BearerToken": bearer_token()}},
    })
}

/// The one document of OpenAPI v2: `/openapi/v2`, as JSON.
pub(crate) fn v2_document(resources: &[ResourceDoc]) -> Value {
    let mut definitions = meta::schemas(Dialect::V2);
    let mut paths = Map::new();
    for doc in resources {
        add_schemas(doc, Dialect::V2, &mut definitions);
        operation::add_paths(doc, Dialect::V2, &mut paths);
    }
    json!({
        "swagger": "2.0",
        "info": info(),
        "paths": paths,
        "definitions": definitions,
        "securityDefinitions": {"BearerToken": bearer_token()},
    })
}

/// What `/openapi/v3` answers: where the document of each group and version is.
pub(crate) fn v3_index(group_versions: &[(String, String)]) -> Value {
    let paths: Map<_, _> = group_versions
        .iter()
        .map(|(group, version)| {
            let path = group_path(group, version);
            let url = json!({"serverRelativeURL": format!("/openapi/v3/{path}")});
            (path, url)
        })
        .collect();
    json!({ "paths": paths })
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": "unversioned"})
}

fn bearer_token() -> Value {
    json!({"type": "apiKey", "name": "authorization", "in": "header", "description": "Bearer token"})
}

fn add_schemas(doc: &ResourceDoc, dialect: Dialect, schemas: &mut Map<String, Value>) {
    let name = doc.schema_name();
    let mut schema = match (&doc.schema, dialect) {
        (Some(schema), Dialect::V3) => schema.clone(),
        (Some(schema), Dialect::V2) => plain(schema),
        (None, _) => builtin::schema(&doc.group, &doc.kind)
            .unwrap_or_else(|| json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})),
    };
    if let Value::Object(fields) = &mut schema {
        let properties = fields.entry("properties").or_insert_with(|| json!({}));
        if let Value::Object(properties) = properties {
            properties
                .insert("apiVersion".into(), json!({"type": "string", "description": meta::API_VERSION}));
            properties.insert("kind".into(), json!({"type": "string", "description": meta::KIND}));
            properties
                .insert("metadata".into(), dialect.field(meta::OBJECT_META, "Standard object metadata."));
        }
        fields.insert("x-kubernetes-group-version-kind".into(), json!([doc.gvk()]));
    }
    schemas.insert(name.clone(), schema);
    let list_kind = format!("{}List", doc.kind);
    schemas.insert(
        format!("{name}List"),
        json!({
            "type": "object",
            "description": format!("{list_kind} is a list of {}.", doc.kind),
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string", "description": meta::API_VERSION},
                "kind": {"type": "string", "description": meta::KIND},
                "metadata": dialect.field(meta::LIST_META, "Standard list metadata."),
                "items": {"type": "array", "items": dialect.reference(&name), "description": "The objects."},
            },
            "x-kubernetes-group-version-kind": [{"group": doc.group, "version": doc.version, "kind": list_kind}],
        }),
    );
}

/// A schema without what OpenAPI v2 cannot say.
fn plain(schema: &Value) -> Value {
    match schema {
        Value::Object(fields) => fields
            .iter()
            .filter(|(name, value)| {
                let cannot = match name.as_str() {
                    "allOf" | "anyOf" | "oneOf" => value.is_array(),
                    "not" => value.is_object(),
                    "nullable" => value.is_boolean(),
                    _ => false,
                };
                !cannot
            })
            .map(|(name, value)| (name.clone(), plain(value)))
            .collect(),
        Value::Array(items) => items.iter().map(plain).collect(),
        scalar => scalar.clone(),
    }
}

#[cfg(test)]
mod tests;
