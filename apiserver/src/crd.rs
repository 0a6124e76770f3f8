//! Custom resources: from their definitions in the store to what is served.

use crate::discovery::version_rank;
use crate::resource::{Cell, Column, NameRule, Resource, storage_name};
use crate::schema::{Cause, Structural};
use crate::status::{cause, invalid_value};
use crate::store::{Key, Store, Stored};
use crate::{jsonpath, object_meta, resource};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock, Weak};

/// Under which name definitions are stored.
pub(crate) const STORAGE: &str = "apiextensions.k8s.io/customresourcedefinitions";
/// Holds a definition until its objects are gone.
pub(crate) const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// What one version of a custom resource adds to the general rules.
pub(crate) struct CustomVersion {
    pub(crate) schema: Option<Arc<Structural>>,
    /// That of the version in which objects are stored, if it is another one.
    pub(crate) storage_schema: Option<Arc<Structural>>,
    /// Fields that may be selected by.
    pub(crate) selectable: Vec<String>,
    /// The definition is going away: nothing new may be created.
    pub(crate) terminating: bool,
    /// Sent as a warning with every answer.
    pub(crate) deprecation: Option<String>,
}

/// A definition as it is served.
pub(crate) struct Definition {
    revision: u64,
    pub(crate) resources: Vec<Arc<Resource>>,
}

/// Everything served that is not built in.
#[derive(Default, Clone)]
pub(crate) struct Registry {
    definitions: BTreeMap<String, Arc<Definition>>,
}

impl Registry {
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        let definition = self.definitions.get(&format!("{plural}.{group}"))?;
        definition.resources.iter().find(|r| r.version == version).cloned()
    }

    /// Served resources in the order of their definitions' names.
    pub(crate) fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.definitions.values().flat_map(|d| d.resources.iter())
    }

    /// The definition of this name, as it is served.
    pub(crate) fn definition(&self, name: &str) -> Option<&Arc<Definition>> {
        self.definitions.get(name)
    }

    /// Serves what another server has already read from the same definition.
    pub(crate) fn adopt(&mut self, name: &str, revision: u64, resources: Vec<Arc<Resource>>) {
        self.definitions.insert(name.to_owned(), Arc::new(Definition { revision, resources }));
    }

    /// The registry that fits the definitions now in the store; what did not change is kept.
    pub(crate) fn rebuilt(&self, store: &Store) -> Self {
        let snapshot = store.newest();
        let prefix = format!("{STORAGE}/");
        let mut definitions = BTreeMap::new();
        for stored in snapshot.range(&prefix, None) {
            let known = self.definitions.get(stored.key.name()).filter(|d| d.revision == stored.revision);
            let definition = known.cloned().unwrap_or_else(|| Arc::new(serve(stored)));
            definitions.insert(stored.key.name().to_owned(), definition);
        }
        Self { definitions }
    }
}

fn condition(value: &Value, kind: &str) -> bool {
    let conditions = value["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == kind && c["status"] == "True")
}

/// The resources that a definition brings.
fn serve(stored: &Stored) -> Definition {
    let value = stored.to_value();
    let established = condition(&value, "Established");
    let versions = value["spec"]["versions"].as_array().filter(|_| established);
    let resources = versions
        .into_iter()
        .flatten()
        .filter(|version| version["served"] == true)
        .map(|version| Arc::new(custom(&value, version)))
        .collect();
    Definition { revision: stored.revision, resources }
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn strings(value: &Value) -> Vec<std::borrow::Cow<'static, str>> {
    value.as_array().into_iter().flatten().map(|v| string(v).into()).collect()
}

fn custom(definition: &Value, version: &Value) -> Resource {
    let spec = &definition["spec"];
    let names = &definition["status"]["acceptedNames"];
    let (group, plural) = (string(&spec["group"]), string(&names["plural"]));
    let schema = &version["schema"]["openAPIV3Schema"];
    let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
    let storage_version =
        versions.iter().find(|other| other["storage"] == true && other["name"] != version["name"]);
    let behaviour = CustomVersion {
        schema: shared_schema(schema),
        storage_schema: storage_version.and_then(|other| shared_schema(&other["schema"]["openAPIV3Schema"])),
        selectable: version["selectableFields"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|field| string(&field["jsonPath"]))
            .collect(),
        terminating: object_meta::is_deleting(definition),
        deprecation: deprecation(&group, versions, version, names["kind"].as_str().unwrap_or_default()),
    };
    let storage = storage_name(&group, &plural);
    let mut resource = Resource::base(
        group.into(),
        string(&version["name"]).into(),
        plural.into(),
        string(&names["singular"]).into(),
        string(&names["kind"]).into(),
        spec["scope"] == "Namespaced",
        storage,
        resource::Behaviour::Custom(Arc::new(behaviour)),
    );
    resource.list_kind = string(&names["listKind"]).into();
    resource.short_names = strings(&names["shortNames"]);
    resource.categories = strings(&names["categories"]);
    resource.status = version["subresources"]["status"].is_object();
    let scale = &version["subresources"]["scale"];
    resource.scale = scale["specReplicasPath"].as_str().map(|wanted| {
        let present = scale["statusReplicasPath"].as_str().unwrap_or_default();
        resource::Scale::new(wanted, present, scale["labelSelectorPath"].as_str())
    });
    resource.generation = true;
    resource.unconditional_update = false;
    resource.names = NameRule::Subdomain;
    resource.columns = columns(version);
    resource
}

/// What to tell those who use a deprecated version.
fn deprecation(group: &str, versions: &[Value], version: &Value, kind: &str) -> Option<String> {
    if version["deprecated"] != true {
        return None;
    }
    if let Some(text) = version["deprecationWarning"].as_str() {
        return Some(text.to_owned());
    }
    let name = |version: &Value| string(&version["name"]);
    let mut text = format!("{group}/{} {kind} is deprecated", name(version));
    let better = versions
        .iter()
        .filter(|other| other["served"] == true && other["deprecated"] != true)
        .map(name)
        .max_by_key(|other| version_rank(other))
        .filter(|other| version_rank(other) > version_rank(&name(version)));
    if let Some(better) = better {
        text.push_str(&format!("; use {group}/{better} {kind}"));
    }
    Some(text)
}

fn columns(version: &Value) -> Vec<Column> {
    let named = |name: &str, kind: &str, path: &str| -> Option<Column> {
        Some(Column {
            name: name.to_owned().into(),
            kind: kind.to_owned().into(),
            format: if name == "Name" { "name".into() } else { "".into() },
            description: "".into(),
            priority: 0,
            cell: Cell::Path(jsonpath::JsonPath::parse(path).ok()?),
        })
    };
    let mut all: Vec<Column> = named("Name", "string", ".metadata.name").into_iter().collect();
    let printed = version["additionalPrinterColumns"].as_array().filter(|list| !list.is_empty());
    let Some(printed) = printed else {
        all.extend(named("Age", "date", ".metadata.creationTimestamp"));
        return all;
    };
    for column in printed {
        let (name, kind) = (string(&column["name"]), string(&column["type"]));
        let Some(mut made) = named(&name, &kind, column["jsonPath"].as_str().unwrap_or_default()) else {
            continue;
        };
        made.format = string(&column["format"]).into();
        made.description = match column["description"].as_str().filter(|text| !text.is_empty()) {
            Some(text) => text.to_owned().into(),
            None => format!(
                "Custom resource definition column (in JSONPath format): {}",
                string(&column["jsonPath"])
            )
            .into(),
        };
        made.priority = column["priority"].as_i64().unwrap_or_default();
        all.push(made);
    }
    all
}

type SchemaCache = HashMap<(u64, u64), Weak<Structural>>;

/// Parsed schemas, shared by all servers of the process: hundreds of them have the same few definitions.
static SCHEMAS: LazyLock<Mutex<SchemaCache>> = LazyLock::new(Mutex::default);

fn shared_schema(schema: &Value) -> Option<Arc<Structural>> {
    if !schema.is_object() {
        return None;
    }
    let text = schema.to_string();
    let digest = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, &text).hash(&mut hasher);
        hasher.finish()
    };
    let key = (digest(0), digest(1));
    if let Some(known) = SCHEMAS.lock().get(&key).and_then(Weak::upgrade) {
        return Some(known);
    }
    // `validate` has refused definitions whose schema cannot be read.
    let parsed = Arc::new(Structural::parse(schema).ok()?);
    let mut cache = SCHEMAS.lock();
    cache.retain(|_, weak| weak.strong_count() > 0);
    cache.insert(key, Arc::downgrade(&parsed));
    Some(parsed)
}

/// Fills in what a definition may leave out.
pub(crate) fn default(definition: &mut Value) {
    let kind = string(&definition["spec"]["names"]["kind"]);
    let names = &mut definition["spec"]["names"];
    if names["singular"].as_str().unwrap_or_default().is_empty() {
        names["singular"] = kind.to_lowercase().into();
    }
    if names["listKind"].as_str().unwrap_or_default().is_empty() {
        names["listKind"] = format!("{kind}List").into();
    }
    if definition["spec"]["conversion"].is_null() {
        definition["spec"]["conversion"] = json!({"strategy": "None"});
    }
}

/// Checks a definition.
pub(crate) fn validate(definition: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = crate::schema::validate_crd(definition);
    let spec = &definition["spec"];
    if spec["conversion"]["strategy"] != "None" {
        causes.push(cause(
            "spec.conversion.strategy",
            "FieldValueNotSupported",
            format!("Unsupported value: {}: supported values: \"None\"", spec["conversion"]["strategy"]),
        ));
    }
    for (index, version) in spec["versions"].as_array().into_iter().flatten().enumerate() {
        let at = format!("spec.versions[{index}]");
        for (column, printed) in
            version["additionalPrinterColumns"].as_array().into_iter().flatten().enumerate()
        {
            let path = printed["jsonPath"].as_str().unwrap_or_default();
            if let Err(why) = jsonpath::JsonPath::parse(path) {
                let field = format!("{at}.additionalPrinterColumns[{column}].jsonPath");
                causes.push(invalid_value(field, &printed["jsonPath"], &why.to_string()));
            }
        }
    }
    if let Some(old) = old {
        for (field, new, was) in [
            ("spec.group", &spec["group"], &old["spec"]["group"]),
            ("spec.scope", &spec["scope"], &old["spec"]["scope"]),
            ("spec.names.plural", &spec["names"]["plural"], &old["spec"]["names"]["plural"]),
            ("spec.names.kind", &spec["names"]["kind"], &old["spec"]["names"]["kind"]),
        ] {
            let fixed = field != "spec.names.kind" || condition(old, "Established");
            if fixed && new != was {
                causes.push(invalid_value(field, new, "field is immutable"));
            }
        }
        let stored = definition["status"]["storedVersions"].as_array();
        for version in stored.into_iter().flatten() {
            if !spec["versions"].as_array().into_iter().flatten().any(|v| v["name"] == *version) {
                causes.push(invalid_value("status.storedVersions", version, "must appear in spec.versions"));
            }
        }
    }
    causes
}

/// What the schemas of a definition ask for and this server does not do.
pub(crate) fn not_enforced(definition: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    for version in definition["spec"]["versions"].as_array().into_iter().flatten() {
        let Some(schema) = shared_schema(&version["schema"]["openAPIV3Schema"]) else { continue };
        let name = version["name"].as_str().unwrap_or_default();
        warnings.extend(
            schema.unsupported().into_iter().map(|what| format!("version {name}: not enforced: {what}")),
        );
    }
    warnings
}

/// Does what the definition's controllers do: accepts its names and declares it established.
pub(crate) fn settle(definition: &mut Value, store: &Store, now: &str) {
    if !object_meta::is_deleting(definition) && !object_meta::finalizers(definition).contains(&FINALIZER) {
        let finalizers = &mut definition["metadata"]["finalizers"];
        match finalizers.as_array_mut() {
            Some(list) => list.push(FINALIZER.into()),
            None => *finalizers = json!([FINALIZER]),
        }
    }
    let taken = taken_name(definition, store);
    let names = definition["spec"]["names"].clone();
    let storage = definition["spec"]["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|v| v["storage"] == true)
        .map(|v| v["name"].clone());
    let status = &mut definition["status"];
    if !status.is_object() {
        *status = json!({});
    }
    let (accepted, reason, message) = match &taken {
        None => (true, "NoConflicts", "no conflicts found".to_owned()),
        Some((reason, message)) => (false, *reason, message.clone()),
    };
    set_condition(status, "NamesAccepted", accepted, reason, &message, now);
    if accepted {
        status["acceptedNames"] = names;
        set_condition(
            status,
            "Established",
            true,
            "InitialNamesAccepted",
            "the initial names have been accepted",
            now,
        );
    } else if !status["acceptedNames"].is_object() {
        status["acceptedNames"] = json!({"plural": "", "kind": ""});
        set_condition(status, "Established", false, "NotAccepted", "not all names are accepted", now);
    }
    if let Some(storage) = storage {
        let versions = &mut status["storedVersions"];
        match versions.as_array_mut() {
            Some(list) if list.contains(&storage) => {}
            Some(list) => list.push(storage),
            None => *versions = json!([storage]),
        }
    }
}

/// Marks a definition whose deletion has begun.
pub(crate) fn mark_terminating(definition: &mut Value, now: &str) {
    if !definition["status"].is_object() {
        definition["status"] = json!({});
    }
    set_condition(
        &mut definition["status"],
        "Terminating",
        true,
        "InstanceDeletionInProgress",
        "CustomResource deletion is in progress",
        now,
    );
}

fn set_condition(status: &mut Value, kind: &str, holds: bool, reason: &str, message: &str, now: &str) {
    let word = if holds { "True" } else { "False" };
    let conditions = &mut status["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(list) = conditions.as_array_mut() else { return };
    let new = json!({
        "type": kind,
        "status": word,
        "lastTransitionTime": now,
        "reason": reason,
        "message": message,
    });
    match list.iter_mut().find(|c| c["type"] == kind) {
        Some(present) if present["status"] == word && present["reason"] == reason => {}
        Some(present) => *present = new,
        None => list.push(new),
    }
}

/// The first of the definition's names that another of its group already has.
fn taken_name(definition: &Value, store: &Store) -> Option<(&'static str, String)> {
    let snapshot = store.newest();
    let prefix = format!("{STORAGE}/");
    let own = object_meta::text(definition, "name");
    let names = &definition["spec"]["names"];
    let mut used_resources = Vec::new();
    let mut used_kinds = Vec::new();
    for other in snapshot.range(&prefix, None).filter(|s| s.key.name() != own) {
        let other = other.to_value();
        if other["spec"]["group"] != definition["spec"]["group"] {
            continue;
        }
        let accepted = &other["status"]["acceptedNames"];
        used_resources.extend([string(&accepted["plural"]), string(&accepted["singular"])]);
        used_resources.extend(strings(&accepted["shortNames"]).into_iter().map(|s| s.into_owned()));
        used_kinds.extend([string(&accepted["kind"]), string(&accepted["listKind"])]);
    }
    let in_use = |name: &str| format!("{name:?} is already in use");
    let mut wanted =
        vec![("PluralConflict", string(&names["plural"])), ("SingularConflict", string(&names["singular"]))];
    wanted.extend(strings(&names["shortNames"]).into_iter().map(|s| ("ShortNamesConflict", s.into_owned())));
    for (reason, name) in wanted {
        if used_resources.contains(&name) {
            return Some((reason, in_use(&name)));
        }
    }
    for (reason, name) in
        [("KindConflict", string(&names["kind"])), ("ListKindConflict", string(&names["listKind"]))]
    {
        if used_kinds.contains(&name) {
            return Some((reason, in_use(&name)));
        }
    }
    None
}

/// Where the definition of a resource is stored.
pub(crate) fn definition_key(group: &str, plural: &str) -> Key {
    Key::new(STORAGE, "", &format!("{plural}.{group}"))
}
