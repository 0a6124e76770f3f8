//! The schemas that every document carries: metadata, lists, deletion, status, patch.

use serde_json::{Map, Value, json};

use super::operation::Dialect;

pub(super) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
pub(super) const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
pub(super) const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
pub(super) const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
pub(super) const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";
const OWNER_REFERENCE: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference";
const MANAGED_FIELDS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ManagedFieldsEntry";
const PRECONDITIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Preconditions";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";

pub(super) const API_VERSION: &str = "Group and version of the schema that this object is written in.";
pub(super) const KIND: &str = "Name of the kind of this object, in CamelCase.";

pub(super) fn schemas(dialect: Dialect) -> Map<String, Value> {
    let mut schemas = Map::new();
    let mut add = |name: &str, schema: Value| schemas.insert(name.to_owned(), schema);

    add(TIME, json!({"type": "string", "format": "date-time", "description": "A point in time, RFC 3339."}));
    add(
        PATCH,
        json!({"type": "object", "description": "A change in the language that the content type names."}),
    );
    add(
        OWNER_REFERENCE,
        json!({
            "type": "object",
            "description": "An object that owns this one.",
            "required": ["apiVersion", "kind", "name", "uid"],
            "properties": {
                "apiVersion": {"type": "string", "description": "Group and version of the owner."},
                "kind": {"type": "string", "description": "Kind of the owner."},
                "name": {"type": "string", "description": "Name of the owner."},
                "uid": {"type": "string", "description": "UID of the owner."},
                "controller": {"type": "boolean", "description": "Whether the owner is the managing controller."},
                "blockOwnerDeletion": {"type": "boolean", "description": "Whether a foreground deletion of the owner waits for this object."},
            },
            "x-kubernetes-map-type": "atomic",
        }),
    );
    add(
        MANAGED_FIELDS,
        json!({
            "type": "object",
            "description": "The fields that one manager set.",
            "properties": {
                "manager": {"type": "string", "description": "Who set the fields."},
                "operation": {"type": "string", "description": "Apply or Update."},
                "apiVersion": {"type": "string", "description": "The version in which the fields are named."},
                "time": dialect.field(TIME, "When the fields were last changed."),
                "fieldsType": {"type": "string", "description": "FieldsV1."},
                "fieldsV1": {"type": "object", "description": "The set of fields."},
                "subresource": {"type": "string", "description": "The subresource through which they were set."},
            },
        }),
    );
    add(
        OBJECT_META,
        json!({
            "type": "object",
            "description": "Metadata that every stored object has.",
            "properties": {
                "name": {"type": "string", "description": "Name, unique among the objects of this kind in the namespace. Cannot be changed."},
                "generateName": {"type": "string", "description": "Prefix of a name that the server makes up, if no name is given."},
                "namespace": {"type": "string", "description": "The space in which the name is unique. Cannot be changed."},
                "uid": {"type": "string", "description": "Unique over all objects and all time. Set by the server."},
                "resourceVersion": {"type": "string", "description": "Opaque version of this object, for optimistic concurrency and watches. Set by the server."},
                "generation": {"type": "integer", "format": "int64", "description": "Number of changes of the desired state. Set by the server."},
                "creationTimestamp": dialect.field(TIME, "When the object was created. Set by the server."),
                "deletionTimestamp": dialect.field(TIME, "When the object was asked to be deleted. Set by the server."),
                "deletionGracePeriodSeconds": {"type": "integer", "format": "int64", "description": "Seconds allowed for a graceful end. Set by the server."},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Names and values by which objects are selected."},
                "annotations": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Names and values that tools keep with the object; not selectable."},
                "ownerReferences": {
                    "type": "array",
                    "items": dialect.reference(OWNER_REFERENCE),
                    "description": "The objects that this one depends on.",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["uid"],
                    "x-kubernetes-patch-strategy": "merge",
                    "x-kubernetes-patch-merge-key": "uid",
                },
                "finalizers": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": "Who has to agree before the object goes. It is removed when the list is empty.",
                    "x-kubernetes-list-type": "set",
                    "x-kubernetes-patch-strategy": "merge",
                },
                "managedFields": {"type": "array", "items": dialect.reference(MANAGED_FIELDS), "description": "Which manager set which fields."},
                "selfLink": {"type": "string", "description": "No longer set."},
            },
        }),
    );
    add(
        LIST_META,
        json!({
            "type": "object",
            "description": "Metadata of a list.",
            "properties": {
                "resourceVersion": {"type": "string", "description": "The version that the list shows; watches start here."},
                "continue": {"type": "string", "description": "Token for the next page; empty on the last."},
                "remainingItemCount": {"type": "integer", "format": "int64", "description": "How many objects follow this page, where it is known."},
                "selfLink": {"type": "string", "description": "No longer set."},
            },
        }),
    );
    add(
        STATUS,
        json!({
            "type": "object",
            "description": "What became of a request that returns no object.",
            "properties": {
                "apiVersion": {"type": "string", "description": API_VERSION},
                "kind": {"type": "string", "description": KIND},
                "metadata": dialect.field(LIST_META, "Standard list metadata."),
                "status": {"type": "string", "description": "Success or Failure."},
                "message": {"type": "string", "description": "What happened, for people."},
                "reason": {"type": "string", "description": "What happened, for programs."},
                "code": {"type": "integer", "format": "int32", "description": "The HTTP status code."},
                "details": {"type": "object", "description": "The object and the fields concerned."},
            },
            "x-kubernetes-group-version-kind": [{"group": "", "version": "v1", "kind": "Status"}],
        }),
    );
    add(
        PRECONDITIONS,
        json!({
            "type": "object",
            "description": "What must be true of the object for the deletion to happen.",
            "properties": {
                "uid": {"type": "string", "description": "The UID it must have."},
                "resourceVersion": {"type": "string", "description": "The resource version it must have."},
            },
        }),
    );
    add(
        DELETE_OPTIONS,
        json!({
            "type": "object",
            "description": "How to delete.",
            "properties": {
                "apiVersion": {"type": "string", "description": API_VERSION},
                "kind": {"type": "string", "description": KIND},
                "dryRun": {"type": "array", "items": {"type": "string"}, "description": "All: check, but change nothing."},
                "gracePeriodSeconds": {"type": "integer", "format": "int64", "description": "Seconds before the object goes."},
                "propagationPolicy": {"type": "string", "description": "Orphan, Background or Foreground."},
                "orphanDependents": {"type": "boolean", "description": "Replaced by propagationPolicy."},
                "preconditions": dialect.field(PRECONDITIONS, "What must be true of the object."),
            },
        }),
    );
    add(
        SCALE,
        json!({
            "type": "object",
            "description": "The number of replicas, asked for and there.",
            "properties": {
                "apiVersion": {"type": "string", "description": API_VERSION},
                "kind": {"type": "string", "description": KIND},
                "metadata": dialect.field(OBJECT_META, "Standard object metadata."),
                "spec": {"type": "object", "properties": {"replicas": {"type": "integer", "format": "int32", "description": "How many are wanted."}}},
                "status": {"type": "object", "properties": {
                    "replicas": {"type": "integer", "format": "int32", "description": "How many there are."},
                    "selector": {"type": "string", "description": "Which pods are counted."},
                }},
            },
            "x-kubernetes-group-version-kind": [{"group": "autoscaling", "version": "v1", "kind": "Scale"}],
        }),
    );
    schemas
}
