//! A Kubernetes object as it came: metadata typed, everything else kept as JSON.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::argocd::annotation;
use super::resource::{Kind, ResourceKey};

/// A Kubernetes object. Fields that Tiphys does not know stay in it untouched.
pub type Object = kube::core::DynamicObject;

/// UID of a resource on the side that owns it. It stays the same wherever copies of the resource live.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SourceUid(pub String);

impl fmt::Display for SourceUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What Tiphys asks of an object's metadata and top-level fields.
pub trait ObjectExt {
    /// Name, empty when it has none.
    fn name(&self) -> &str;
    /// Namespace, empty when it has none.
    fn namespace(&self) -> &str;
    /// UID on the API server that it came from, empty when it has none.
    fn uid(&self) -> &str;
    /// Resource version, empty when it has none.
    fn resource_version(&self) -> &str;
    /// Value of an annotation.
    fn annotation(&self, key: &str) -> Option<&str>;
    /// Value of a label.
    fn label(&self, key: &str) -> Option<&str>;
    /// Sets an annotation.
    fn annotate(&mut self, key: &str, value: impl Into<String>);
    /// Whether its deletion has begun.
    fn is_deleting(&self) -> bool;
    /// A top-level field besides metadata, `null` counted as absent.
    fn field(&self, name: &str) -> Option<&Value>;
    /// Sets or, with `None`, removes a top-level field.
    fn set_field(&mut self, name: &str, value: Option<Value>);
    /// The field at `path` below the top level, `null` counted as absent.
    fn at(&self, path: &[&str]) -> Option<&Value>;
    /// The owner's UID that a copy carries; none on an original.
    fn source_uid(&self) -> Option<SourceUid>;
    /// The UID that this object is known by on the wire: the owner's if it is a copy, else its own.
    fn origin(&self) -> SourceUid;
    /// Kind, namespace and name.
    fn key(&self, kind: Kind) -> ResourceKey;
}

impl ObjectExt for Object {
    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    fn resource_version(&self) -> &str {
        self.metadata.resource_version.as_deref().unwrap_or_default()
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }

    fn annotate(&mut self, key: &str, value: impl Into<String>) {
        self.metadata.annotations.get_or_insert_default().insert(key.to_owned(), value.into());
    }

    fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    fn field(&self, name: &str) -> Option<&Value> {
        self.data.get(name).filter(|value| !value.is_null())
    }

    fn set_field(&mut self, name: &str, value: Option<Value>) {
        if !self.data.is_object() {
            self.data = Value::Object(serde_json::Map::new());
        }
        if let Value::Object(fields) = &mut self.data {
            match value {
                Some(value) => fields.insert(name.to_owned(), value),
                None => fields.remove(name),
            };
        }
    }

    fn at(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(&self.data, |value, step| value.get(step)).filter(|value| !value.is_null())
    }

    fn source_uid(&self) -> Option<SourceUid> {
        self.annotation(annotation::SOURCE_UID)
            .filter(|uid| !uid.is_empty())
            .map(|uid| SourceUid(uid.to_owned()))
    }

    fn origin(&self) -> SourceUid {
        self.source_uid().unwrap_or_else(|| SourceUid(self.uid().to_owned()))
    }

    fn key(&self, kind: Kind) -> ResourceKey {
        ResourceKey::new(kind, self.namespace(), self.name())
    }
}
