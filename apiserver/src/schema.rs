//! Structural schemas of custom resources: what is kept, what is filled in, what is refused.
//!
//! A schema is read once, when its CRD is created, into a tree of [`node::Node`]. Pruning, defaulting and
//! validation are then plain walks over (node, value). The wording of the causes is that of a real server,
//! because people search for it and tools compare it.

mod cause;
mod crd;
mod default;
mod format;
mod listtype;
mod node;
mod pattern;
mod prune;
mod structural;
mod validate;

use serde_json::Value;

pub(crate) use cause::Cause;
pub(crate) use crd::validate_crd;

use cause::Path;
pub(crate) use node::{Kind, ListType, Node};

/// Why a schema cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// A keyword has a value of the wrong JSON type.
    #[error("{at} must be {expected}")]
    Keyword {
        /// Where in the schema, as a dotted path.
        at: String,
        /// What would have been right.
        expected: &'static str,
    },
    /// A `type` that OpenAPI does not have.
    #[error("{at}: unknown type {name}")]
    Type {
        /// Where in the schema.
        at: String,
        /// The type as given.
        name: String,
    },
    /// A regular expression that does not compile.
    #[error("{at} must be a valid regular expression, but isn't: {reason}")]
    Pattern {
        /// Where in the schema.
        at: String,
        /// What the expression parser says.
        reason: String,
    },
}

/// The schema of one version of a custom resource.
#[derive(Debug, Clone)]
pub(crate) struct Structural {
    root: Node,
    unsupported: Vec<String>,
}

impl Structural {
    /// Reads `spec.versions[].schema.openAPIV3Schema`. Descriptions, titles and examples are skipped.
    pub(crate) fn parse(openapi_v3_schema: &Value) -> Result<Self, Error> {
        let mut unsupported = Vec::new();
        let mut root = Node::parse(openapi_v3_schema, &Path::Root, &mut unsupported)?;
        root.embedded = true;
        unsupported.sort();
        Ok(Self { root, unsupported })
    }

    /// The schema as a tree.
    pub(crate) fn root(&self) -> &Node {
        &self.root
    }

    /// The features of the schema that are not enforced here, each as `path: feature`.
    pub(crate) fn unsupported(&self) -> Vec<String> {
        self.unsupported.clone()
    }

    /// Drops what the schema does not know and returns the dropped paths, sorted.
    /// `apiVersion`, `kind` and `metadata` stay at the root and in embedded resources.
    pub(crate) fn prune(&self, object: &mut Value) -> Vec<String> {
        prune::prune(&self.root, object)
    }

    /// Drops nulls where null is not a value of the field.
    pub(crate) fn drop_nulls(&self, object: &mut Value) {
        default::drop_nulls(&self.root, object);
    }

    /// Fills in defaults.
    pub(crate) fn default(&self, object: &mut Value) {
        default::fill(&self.root, object);
    }

    /// Everything that is wrong with the object; empty if it fits.
    pub(crate) fn validate(&self, object: &Value) -> Vec<Cause> {
        let mut causes = validate::validate(&self.root, object);
        listtype::validate(&self.root, object, &Path::Root, &mut causes);
        causes
    }
}

#[cfg(test)]
mod tests;
