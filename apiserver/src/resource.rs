//! What the server knows of one kind in one version.

use crate::crd::CustomVersion;
use crate::schema::Cause;
use crate::store::type_prefix;
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;

/// How names of a kind are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameRule {
    /// RFC 1123 subdomain.
    Subdomain,
    /// RFC 1123 label.
    Label,
    /// Anything that can be one segment of a path.
    PathSegment,
}

/// One column of a table.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) name: Cow<'static, str>,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub(crate) kind: Cow<'static, str>,
    pub(crate) format: Cow<'static, str>,
    pub(crate) description: Cow<'static, str>,
    /// Columns above 0 are shown by `-o wide` only.
    pub(crate) priority: i64,
    pub(crate) cell: Cell,
}

/// Where a cell comes from.
#[derive(Debug, Clone)]
pub(crate) enum Cell {
    /// A JSON path.
    Path(crate::jsonpath::JsonPath),
    /// A function of the object and the present second.
    Computed(fn(&Value, i64) -> Value),
}

/// What distinguishes a built-in kind from the general rules.
pub(crate) struct Rules {
    /// Reads the object through its type: refuses what does not fit, drops what is unknown.
    pub(crate) decode: fn(&Value) -> Result<Value, serde_json::Error>,
    /// Defaults.
    pub(crate) default: fn(&mut Value),
    /// What a new object gets besides.
    pub(crate) on_create: fn(&mut Value),
    /// Checks a new object, against the old one if it is an update.
    pub(crate) validate: fn(&Value, Option<&Value>) -> Vec<Cause>,
    /// Fields that may be selected by, besides name and namespace: (name, path).
    pub(crate) fields: &'static [(&'static str, &'static str)],
    /// Reads a stored object into this version, where the two differ by more than the version's name.
    pub(crate) from_stored: Option<fn(Value) -> Value>,
    /// The reverse.
    pub(crate) to_stored: Option<fn(Value) -> Value>,
}

/// Whether a resource can be stored at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verbs {
    /// All of them.
    All,
    /// Create only: an answer is computed, nothing is kept.
    Review,
}

/// The rules of a kind.
pub(crate) enum Behaviour {
    Builtin(&'static Rules),
    Custom(Arc<CustomVersion>),
}

/// Where a kind keeps what its `scale` subresource shows.
#[derive(Debug, Clone)]
pub(crate) struct Scale {
    pub(crate) wanted: Vec<String>,
    pub(crate) present: Vec<String>,
    pub(crate) selector: Option<Vec<String>>,
}

impl Scale {
    /// From paths such as `.spec.replicas`.
    pub(crate) fn new(wanted: &str, present: &str, selector: Option<&str>) -> Self {
        let path =
            |text: &str| text.split('.').filter(|part| !part.is_empty()).map(ToOwned::to_owned).collect();
        Self { wanted: path(wanted), present: path(present), selector: selector.map(path) }
    }
}

/// One resource in one version.
pub(crate) struct Resource {
    pub(crate) group: Cow<'static, str>,
    pub(crate) version: Cow<'static, str>,
    pub(crate) plural: Cow<'static, str>,
    pub(crate) singular: Cow<'static, str>,
    pub(crate) kind: Cow<'static, str>,
    pub(crate) list_kind: Cow<'static, str>,
    pub(crate) short_names: Vec<Cow<'static, str>>,
    pub(crate) categories: Vec<Cow<'static, str>>,
    pub(crate) namespaced: bool,
    pub(crate) verbs: Verbs,
    /// It has a `status` subresource.
    pub(crate) status: bool,
    /// It has a `scale` subresource.
    pub(crate) scale: Option<Scale>,
    /// It counts generations.
    pub(crate) generation: bool,
    /// PUT works without a resource version.
    pub(crate) unconditional_update: bool,
    /// PUT creates what is not there.
    pub(crate) create_on_update: bool,
    /// DELETE answers with the object.
    pub(crate) returns_deleted: bool,
    pub(crate) names: NameRule,
    pub(crate) columns: Vec<Column>,
    pub(crate) behaviour: Behaviour,
    /// Under which name its objects are stored: all versions of a kind share it.
    pub(crate) storage: Arc<str>,
    prefix: String,
}

impl Resource {
    /// `v1` or `group/version`.
    pub(crate) fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// What its objects start with when they are sent.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn is_custom(&self) -> bool {
        matches!(self.behaviour, Behaviour::Custom(_))
    }

    /// Its definition is going away.
    pub(crate) fn is_terminating(&self) -> bool {
        matches!(&self.behaviour, Behaviour::Custom(version) if version.terminating)
    }

    /// Subresources by name.
    pub(crate) fn subresources(&self) -> Vec<&'static str> {
        let mut all = Vec::new();
        if self.scale.is_some() {
            all.push("scale");
        }
        if self.status {
            // The order is that of discovery.
            all.insert(if self.is_custom() { 0 } else { all.len() }, "status");
        }
        if self.group.is_empty() && self.plural == "namespaces" {
            all.push("finalize");
        }
        all
    }

    /// The resource of a storage, with its texts.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn base(
        group: Cow<'static, str>,
        version: Cow<'static, str>,
        plural: Cow<'static, str>,
        singular: Cow<'static, str>,
        kind: Cow<'static, str>,
        namespaced: bool,
        storage: Arc<str>,
        behaviour: Behaviour,
    ) -> Self {
        let prefix = type_prefix(&api_version(&group, &version), &kind);
        Self {
            list_kind: format!("{kind}List").into(),
            group,
            version,
            plural,
            singular,
            kind,
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced,
            verbs: Verbs::All,
            status: false,
            scale: None,
            generation: false,
            unconditional_update: true,
            create_on_update: false,
            returns_deleted: false,
            names: NameRule::Subdomain,
            columns: Vec::new(),
            behaviour,
            storage,
            prefix,
        }
    }
}

/// `v1` for the core group, else `group/version`.
pub(crate) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// The storage name of a resource.
pub(crate) fn storage_name(group: &str, plural: &str) -> Arc<str> {
    format!("{group}/{plural}").into()
}
