//! A namespace that is deleted takes along what is in it, and goes when nothing is left.

use super::{call, resource_of, tell};
use crate::store::{Change, Key, Stored};
use crate::write::{self, DeleteOptions, Part, Propagation};
use crate::{Inner, object_meta};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const STORAGE: &str = "/namespaces";
/// Holds a namespace until it is empty.
const FINALIZER: &str = "kubernetes";

/// Namespaces that are on their way out.
#[derive(Default)]
pub(super) struct Namespaces {
    going: BTreeSet<String>,
    /// Those of them in which something happened.
    pending: BTreeSet<String>,
}

impl Namespaces {
    pub(super) fn hear(&mut self, change: &Change) {
        let Some(stored) = change.after.as_ref().or(change.before.as_ref()) else { return };
        let key = &stored.key;
        if key.storage() == STORAGE {
            let name = key.name();
            let going =
                change.after.as_ref().is_some_and(|stored| stored.content.mentions("deletionTimestamp"));
            if going {
                self.going.insert(name.to_owned());
                self.pending.insert(name.to_owned());
            } else {
                self.going.remove(name);
                self.pending.remove(name);
            }
        } else if self.going.contains(key.namespace()) {
            self.pending.insert(key.namespace().to_owned());
        }
    }

    pub(super) fn step(&mut self, server: &Inner) -> bool {
        let Some(name) = self.pending.pop_first() else { return false };
        clear(server, &name);
        true
    }
}

/// Everything in a namespace.
fn content(server: &Inner, namespace: &str) -> Vec<Arc<Stored>> {
    let snapshot = server.store.newest();
    snapshot.range("", None).filter(|stored| stored.key.namespace() == namespace).cloned().collect()
}

fn clear(server: &Inner, name: &str) {
    let key = Key::new(STORAGE, "", name);
    let Some(resource) = resource_of(server, STORAGE) else { return };
    match server.store.get(&key) {
        Some(stored) if object_meta::is_deleting(&stored.to_value()) => {}
        _ => return,
    }
    for stored in content(server, name) {
        let Some(resource) = resource_of(server, stored.key.storage()) else { continue };
        let options =
            DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
        if let Err(failure) = write::delete(&call(server, &resource, &stored.key, Part::Whole), &options) {
            tell(&stored.key, &failure);
        }
    }
    let left = content(server, name);
    let now = object_meta::timestamp(server.now());
    let conditions = conditions(&left);
    let noted = write::edit(&call(server, &resource, &key, Part::Status), |namespace| {
        set_conditions(namespace, &conditions, &now);
    });
    let done = noted.and_then(|()| {
        if !left.is_empty() {
            return Ok(());
        }
        write::edit(&call(server, &resource, &key, Part::Finalize), |namespace| {
            if let Some(finalizers) = namespace["spec"]["finalizers"].as_array_mut() {
                finalizers.retain(|finalizer| finalizer != FINALIZER);
            }
        })
    });
    if let Err(failure) = done {
        tell(&key, &failure);
    }
}

/// One condition: type, whether it holds, reason and message.
type Condition = (&'static str, bool, &'static str, String);

/// What there is to say about the content of a namespace that goes.
fn conditions(left: &[Arc<Stored>]) -> Vec<Condition> {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let mut finalizers: BTreeMap<String, usize> = BTreeMap::new();
    for stored in left {
        let (group, plural) = stored.key.storage().split_once('/').unwrap_or_default();
        *kinds.entry(format!("{plural}.{group}")).or_default() += 1;
        for finalizer in object_meta::finalizers(&stored.to_value()) {
            *finalizers.entry(finalizer.to_owned()).or_default() += 1;
        }
    }
    let counted = |counts: &BTreeMap<String, usize>, word: &str| {
        let texts: Vec<_> =
            counts.iter().map(|(name, count)| format!("{name} {word} {count} resource instances")).collect();
        texts.join(", ")
    };
    let fine = |kind, reason, message: &str| (kind, false, reason, message.to_owned());
    let remaining = match kinds.is_empty() {
        true => fine("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed"),
        false => (
            "NamespaceContentRemaining",
            true,
            "SomeResourcesRemain",
            format!("Some resources are remaining: {}", counted(&kinds, "has")),
        ),
    };
    let held = match finalizers.is_empty() {
        true => fine(
            "NamespaceFinalizersRemaining",
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
        false => (
            "NamespaceFinalizersRemaining",
            true,
            "SomeFinalizersRemain",
            format!("Some content in the namespace has finalizers remaining: {}", counted(&finalizers, "in")),
        ),
    };
    vec![
        fine(
            "NamespaceDeletionDiscoveryFailure",
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        fine(
            "NamespaceDeletionGroupVersionParsingFailure",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        fine(
            "NamespaceDeletionContentFailure",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        remaining,
        held,
    ]
}

fn set_conditions(namespace: &mut Value, conditions: &[Condition], now: &str) {
    let status = &mut namespace["status"];
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(list) = status["conditions"].as_array_mut() else { return };
    for (kind, holds, reason, message) in conditions {
        let word = if *holds { "True" } else { "False" };
        let mut next = json!({
            "type": kind, "status": word, "reason": reason, "message": message, "lastTransitionTime": now,
        });
        match list.iter_mut().find(|condition| condition["type"] == *kind) {
            Some(present) => {
                if present["status"] == word {
                    next["lastTransitionTime"] = present["lastTransitionTime"].clone();
                }
                *present = next;
            }
            None => list.push(next),
        }
    }
}
