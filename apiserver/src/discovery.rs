//! Telling clients what there is.

use crate::openapi::{self, ResourceDoc};
use crate::resource::{Resource, Verbs};
use crate::serve::negotiate::Accepted;
use crate::{Inner, builtin, crd};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The form of aggregated discovery that a client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aggregated {
    V2,
    V2Beta1,
}

impl Aggregated {
    fn version(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V2Beta1 => "v2beta1",
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::V2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Self::V2Beta1 => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        }
    }
}

/// Whether, and how, the client wants everything at once.
pub(crate) fn aggregated_version(accepted: &[Accepted]) -> Option<Aggregated> {
    for one in accepted.iter().filter(|one| one.media == "application/json") {
        match (one.parameter("g"), one.parameter("as"), one.parameter("v")) {
            ("apidiscovery.k8s.io", "APIGroupDiscoveryList", "v2") => return Some(Aggregated::V2),
            ("apidiscovery.k8s.io", "APIGroupDiscoveryList", "v2beta1") => return Some(Aggregated::V2Beta1),
            ("", "", _) => return None,
            _ => {}
        }
    }
    None
}

/// Versions and their resources, by group; versions in the order of preference.
type Groups = BTreeMap<String, Vec<(String, Vec<Arc<Resource>>)>>;

fn all(server: &Inner) -> Groups {
    let mut groups = Groups::new();
    let registry = server.registry();
    for resource in builtin::RESOURCES.values().chain(registry.resources()) {
        let versions = groups.entry(resource.group.to_string()).or_default();
        match versions.iter_mut().find(|(version, _)| *version == resource.version) {
            Some((_, resources)) => resources.push(resource.clone()),
            None => versions.push((resource.version.to_string(), vec![resource.clone()])),
        }
    }
    for versions in groups.values_mut() {
        versions.sort_by_key(|(version, _)| std::cmp::Reverse(version_rank(version)));
    }
    groups
}

/// Stable before beta before alpha, newer before older, anything else last and by name.
pub(crate) fn version_rank(version: &str) -> (u8, u64, u64, std::cmp::Reverse<String>) {
    let parsed = || {
        let rest = version.strip_prefix('v')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major = rest[..digits].parse().ok()?;
        let rest = &rest[digits..];
        if rest.is_empty() {
            return Some((3, major, 0));
        }
        let (stage, minor) = match rest.strip_prefix("beta") {
            Some(minor) => (2, minor),
            None => (1, rest.strip_prefix("alpha")?),
        };
        Some((stage, major, minor.parse().ok()?))
    };
    let (stage, major, minor) = parsed().unwrap_or((0, 0, 0));
    let name = if stage == 0 { version.to_owned() } else { String::new() };
    (stage, major, minor, std::cmp::Reverse(name))
}

fn verbs(resource: &Resource) -> &'static [&'static str] {
    match resource.verbs {
        Verbs::Review => &["create"],
        Verbs::All if resource.is_custom() => {
            &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"]
        }
        Verbs::All => &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
    }
}

fn subresource_verbs(name: &str) -> &'static [&'static str] {
    if name == "finalize" { &["update"] } else { &["get", "patch", "update"] }
}

/// `/api`.
pub(crate) fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

fn group_value(group: &str, versions: &[(String, Vec<Arc<Resource>>)]) -> Value {
    let named: Vec<Value> =
        versions.iter().map(|(v, _)| json!({"groupVersion": format!("{group}/{v}"), "version": v})).collect();
    json!({"name": group, "versions": named, "preferredVersion": named.first()})
}

/// `/apis`.
pub(crate) fn groups(server: &Inner) -> Value {
    let groups: Vec<Value> = all(server)
        .iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, versions)| group_value(group, versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/{group}`.
pub(crate) fn group(server: &Inner, group: &str) -> Option<Value> {
    let groups = all(server);
    let mut value = group_value(group, groups.get(group).filter(|_| !group.is_empty())?);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Some(value)
}

/// `/api/v1` and `/apis/{group}/{version}`.
pub(crate) fn resources(server: &Inner, group: &str, version: &str) -> Option<Value> {
    let groups = all(server);
    let (_, resources) = groups.get(group)?.iter().find(|(v, _)| v == version)?;
    let mut entries = Vec::new();
    for resource in resources {
        let mut entry = json!({
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": verbs(resource),
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        if resource.verbs == Verbs::All {
            entry["storageVersionHash"] = json!(storage_hash(resource));
        }
        entries.push(entry);
        for name in resource.subresources() {
            let mut entry = json!({
                "name": format!("{}/{name}", resource.plural),
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": resource.kind,
                "verbs": subresource_verbs(name),
            });
            if *name == *"scale" {
                entry["group"] = "autoscaling".into();
                entry["version"] = "v1".into();
                entry["kind"] = "Scale".into();
            }
            entries.push(entry);
        }
    }
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": crate::resource::api_version(group, version),
        "resources": entries,
    }))
}

fn storage_hash(resource: &Resource) -> String {
    use base64::Engine;
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    resource.storage.hash(&mut hasher);
    base64::engine::general_purpose::STANDARD.encode(hasher.finish().to_be_bytes())
}

/// All groups (or only the core one) with all that is in them.
pub(crate) fn aggregated(server: &Inner, core: bool, form: Aggregated) -> Value {
    let mut items = Vec::new();
    for (group, versions) in all(server).iter().filter(|(group, _)| group.is_empty() == core) {
        let versions: Vec<Value> = versions
            .iter()
            .map(|(version, resources)| {
                let resources: Vec<Value> = resources.iter().map(|r| aggregated_resource(r)).collect();
                json!({"version": version, "resources": resources, "freshness": "Current"})
            })
            .collect();
        let mut metadata = Map::new();
        if !group.is_empty() {
            metadata.insert("name".into(), json!(group));
        }
        metadata.insert("creationTimestamp".into(), Value::Null);
        items.push(json!({"metadata": metadata, "versions": versions}));
    }
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{}", form.version()),
        "metadata": {},
        "items": items,
    })
}

fn aggregated_resource(resource: &Resource) -> Value {
    let kind = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
    let scope = if resource.namespaced { "Namespaced" } else { "Cluster" };
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": kind,
        "scope": scope,
        "singularResource": resource.singular,
        "verbs": verbs(resource),
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    let subresources: Vec<Value> = resource
        .subresources()
        .iter()
        .map(|name| {
            let scale = json!({"group": "autoscaling", "version": "v1", "kind": "Scale"});
            let kind = if *name == "scale" { &scale } else { &kind };
            json!({"subresource": name, "responseKind": kind, "verbs": subresource_verbs(name)})
        })
        .collect();
    if !subresources.is_empty() {
        entry["subresources"] = json!(subresources);
    }
    entry
}

/// `/`.
pub(crate) fn index(server: &Inner) -> Value {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for (group, versions) in all(server).iter().filter(|(group, _)| !group.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|(version, _)| format!("/apis/{group}/{version}")));
    }
    paths.extend(
        ["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"].map(ToOwned::to_owned),
    );
    json!({"paths": paths})
}

fn doc(server: &Inner, resource: &Resource) -> ResourceDoc {
    let schema = resource.is_custom().then(|| {
        let key = crd::definition_key(&resource.group, &resource.plural);
        let definition = server.store.read(&key)?.to_value();
        let versions = definition["spec"]["versions"].as_array()?;
        let version = versions.iter().find(|v| v["name"] == *resource.version)?;
        Some(version["schema"]["openAPIV3Schema"].clone())
    });
    ResourceDoc {
        group: resource.group.to_string(),
        version: resource.version.to_string(),
        kind: resource.kind.to_string(),
        plural: resource.plural.to_string(),
        namespaced: resource.namespaced,
        schema: schema.flatten(),
        subresources: resource.subresources().iter().map(|s| (*s).to_owned()).collect(),
    }
}

/// `/openapi/v3`.
pub(crate) fn openapi_v3_index(server: &Inner) -> Value {
    let mut versions = Vec::new();
    for (group, of_group) in all(server) {
        versions.extend(of_group.into_iter().map(|(version, _)| (group.clone(), version)));
    }
    openapi::v3_index(&versions)
}

/// `/openapi/v3/…`, made when it is asked for.
pub(crate) fn openapi_v3(server: &Inner, group: &str, version: &str) -> Option<Value> {
    let groups = all(server);
    let (_, resources) = groups.get(group)?.iter().find(|(v, _)| v == version)?;
    let docs: Vec<ResourceDoc> = resources.iter().map(|r| doc(server, r)).collect();
    Some(openapi::v3_document(group, version, &docs))
}

/// `/openapi/v2`.
pub(crate) fn openapi_v2(server: &Inner) -> Value {
    let groups = all(server);
    let docs: Vec<ResourceDoc> =
        groups.values().flatten().flat_map(|(_, resources)| resources).map(|r| doc(server, r)).collect();
    openapi::v2_document(&docs)
}

/// What the media types of OpenAPI v2 in protobuf start with.
pub(crate) const OPENAPI_V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2";
/// How an answer in it is marked.
pub(crate) const OPENAPI_V2_PROTOBUF_TYPE: &str =
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// `/openapi/v2` in protobuf: the title only.
///
/// kubectl asks for it where it would check objects by itself. It finds no definitions and leaves the checking
/// to the server, which does it anyway.
pub(crate) fn openapi_v2_protobuf(version: &str) -> Vec<u8> {
    let text = |number: u8, text: &str| {
        // Lengths up to 127 take one byte.
        let text: String = text.chars().filter(char::is_ascii).take(100).collect();
        let mut field = vec![number << 3 | 2, text.len() as u8];
        field.extend_from_slice(text.as_bytes());
        field
    };
    let info = [text(1, "Kubernetes"), text(2, version)].concat();
    let mut document = text(1, "2.0");
    document.extend([2 << 3 | 2, info.len() as u8]);
    document.extend(info);
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_versions_come_before_unstable_ones() {
        let mut versions = ["foo1", "v1alpha1", "v2", "v1beta2", "v10", "v1beta1", "v1"];
        versions.sort_by_key(|v| std::cmp::Reverse(version_rank(v)));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "foo1"]);
    }
}
