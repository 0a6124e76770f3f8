//! Objects go with their owners.
//!
//! Known is who depends on whom, by UID; everything else is looked up when it is needed. An object is looked at
//! when it changes, when an owner of it goes or begins to wait for it, and when something goes that it waits for.

use super::{call, resource_of, resource_of_kind, tell};
use crate::resource::Resource;
use crate::status::Failure;
use crate::store::{Change, Key, Stored};
use crate::write::{self, DeleteOptions, Part, Propagation};
use crate::{Inner, object_meta};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Holds an owner until its dependents have been let go.
const ORPHAN: &str = "orphan";
/// Holds an owner until dependents that block it are gone.
const FOREGROUND: &str = "foregroundDeletion";

/// Who depends on whom.
#[derive(Default)]
pub(super) struct Garbage {
    /// Dependents by the UIDs of their owners.
    dependents: BTreeMap<String, BTreeMap<Box<str>, Key>>,
    /// The UIDs of the owners of each dependent, by its path.
    owners: BTreeMap<Box<str>, BTreeSet<String>>,
    /// Objects to look at, each once.
    queue: VecDeque<Key>,
    queued: BTreeSet<Box<str>>,
}

/// What has become of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is there, or nobody can tell.
    Solid,
    Gone,
    /// It goes, but not before its dependents.
    Waiting,
}

fn references(object: &Value) -> &[Value] {
    object["metadata"]["ownerReferences"].as_array().map_or(&[], Vec::as_slice)
}

fn uid_of(reference: &Value) -> &str {
    reference["uid"].as_str().unwrap_or_default()
}

/// The references of an object, read only if there are any.
fn references_of(stored: &Stored) -> Vec<Value> {
    if !stored.content.mentions("ownerReferences") {
        return Vec::new();
    }
    references(&stored.to_value()).to_vec()
}

fn is_held_by(object: &Value, finalizer: &str) -> bool {
    object_meta::is_deleting(object) && object_meta::finalizers(object).contains(&finalizer)
}

/// The object that a reference means, whatever its UID is. `None`: nobody can tell.
fn owner_of(server: &Inner, reference: &Value, namespace: &str) -> Option<(Arc<Resource>, Key)> {
    let version = reference["apiVersion"].as_str().unwrap_or_default();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let kind = reference["kind"].as_str().unwrap_or_default();
    let resource = resource_of_kind(server, group, kind)?;
    if resource.namespaced && namespace.is_empty() {
        return None;
    }
    let namespace = if resource.namespaced { namespace } else { "" };
    let key = Key::new(&resource.storage, namespace, reference["name"].as_str().unwrap_or_default());
    Some((resource, key))
}

fn fate(server: &Inner, reference: &Value, namespace: &str) -> Fate {
    let Some((_, key)) = owner_of(server, reference, namespace) else { return Fate::Solid };
    let Some(owner) = server.store.get(&key).map(|stored| stored.to_value()) else { return Fate::Gone };
    if object_meta::text(&owner, "uid") != uid_of(reference) {
        Fate::Gone
    } else if is_held_by(&owner, FOREGROUND) {
        Fate::Waiting
    } else {
        Fate::Solid
    }
}

impl Garbage {
    pub(super) fn hear(&mut self, server: &Inner, change: &Change) {
        let before = change.before.as_deref().map(references_of).unwrap_or_default();
        let after = change.after.as_deref().map(references_of).unwrap_or_default();
        let Some(key) = change.after.as_ref().or(change.before.as_ref()).map(|stored| stored.key.clone())
        else {
            return;
        };
        self.index(&key, &after);
        // An owner may have waited for this one.
        for reference in before.iter().filter(|reference| !after.contains(reference)) {
            if let Some((_, owner)) = owner_of(server, reference, key.namespace()) {
                self.look_at(&owner);
            }
        }
        match (&change.after, &change.before) {
            (Some(stored), _) => {
                if !after.is_empty() || stored.content.mentions("deletionTimestamp") {
                    self.look_at(&key);
                }
            }
            (None, Some(gone)) if !self.dependents.is_empty() => {
                let uid = object_meta::text(&gone.to_value(), "uid").to_owned();
                self.look_at_dependents(&uid);
            }
            (None, _) => {}
        }
    }

    fn index(&mut self, key: &Key, references: &[Value]) {
        let owners: BTreeSet<String> =
            references.iter().map(|reference| uid_of(reference).to_owned()).collect();
        let known = self.owners.get(key.path());
        if known.is_none_or(BTreeSet::is_empty) && owners.is_empty() || known == Some(&owners) {
            return;
        }
        for uid in self.owners.remove(key.path()).unwrap_or_default() {
            if let Some(dependents) = self.dependents.get_mut(&uid) {
                dependents.remove(key.path());
                if dependents.is_empty() {
                    self.dependents.remove(&uid);
                }
            }
        }
        for uid in &owners {
            self.dependents.entry(uid.clone()).or_default().insert(key.path().into(), key.clone());
        }
        if !owners.is_empty() {
            self.owners.insert(key.path().into(), owners);
        }
    }

    fn look_at(&mut self, key: &Key) {
        if self.queued.insert(key.path().into()) {
            self.queue.push_back(key.clone());
        }
    }

    fn look_at_dependents(&mut self, uid: &str) {
        for key in self.dependents_of(uid) {
            self.look_at(&key);
        }
    }

    fn dependents_of(&self, uid: &str) -> Vec<Key> {
        self.dependents.get(uid).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    pub(super) fn step(&mut self, server: &Inner) -> bool {
        let Some(key) = self.queue.pop_front() else { return false };
        self.queued.remove(key.path());
        if let Err(failure) = self.look(server, &key) {
            tell(&key, &failure);
        }
        true
    }

    fn look(&mut self, server: &Inner, key: &Key) -> Result<(), Failure> {
        let Some(stored) = server.store.get(key) else { return Ok(()) };
        let Some(resource) = resource_of(server, key.storage()) else { return Ok(()) };
        let object = stored.to_value();
        let uid = object_meta::text(&object, "uid");
        if is_held_by(&object, ORPHAN) {
            self.let_dependents_go(server, uid);
            return release(server, &resource, key, uid, ORPHAN);
        }
        if is_held_by(&object, FOREGROUND) {
            return self.wait(server, &resource, key, uid);
        }
        if object_meta::is_deleting(&object) {
            return Ok(());
        }
        let fates: Vec<(&Value, Fate)> = references(&object)
            .iter()
            .map(|reference| (reference, fate(server, reference, key.namespace())))
            .collect();
        let lost = |fate: Fate| fates.iter().any(|(_, other)| *other == fate);
        if !lost(Fate::Gone) && !lost(Fate::Waiting) {
            return Ok(());
        }
        if lost(Fate::Solid) {
            let lost: Vec<&str> = fates
                .iter()
                .filter(|(_, fate)| *fate != Fate::Solid)
                .map(|(reference, _)| uid_of(reference))
                .collect();
            return write::edit(&call(server, &resource, key, Part::Whole), |object| {
                keep_references(object, |reference| !lost.contains(&uid_of(reference)));
            });
        }
        let has_dependents = self.dependents.contains_key(uid);
        let propagation = if lost(Fate::Waiting) && has_dependents {
            if self.is_awaited_in_a_circle(server, uid) {
                write::edit(&call(server, &resource, key, Part::Whole), unblock)?;
            }
            Propagation::Foreground
        } else {
            let finalizers = object_meta::finalizers(&object);
            match () {
                () if finalizers.contains(&ORPHAN) => Propagation::Orphan,
                () if finalizers.contains(&FOREGROUND) => Propagation::Foreground,
                () => Propagation::Background,
            }
        };
        let options = DeleteOptions {
            uid: Some(uid.to_owned()),
            propagation: Some(propagation),
            ..DeleteOptions::default()
        };
        write::delete(&call(server, &resource, key, Part::Whole), &options).map(|_| ())
    }

    /// Something that depends on the object is itself waiting for dependents: it may be waiting for the object.
    fn is_awaited_in_a_circle(&self, server: &Inner, uid: &str) -> bool {
        self.dependents_of(uid)
            .iter()
            .any(|key| server.store.get(key).is_some_and(|stored| is_held_by(&stored.to_value(), FOREGROUND)))
    }

    /// Takes an owner out of the references to it.
    fn let_dependents_go(&self, server: &Inner, uid: &str) {
        for key in self.dependents_of(uid) {
            let Some(resource) = resource_of(server, key.storage()) else { continue };
            let done = write::edit(&call(server, &resource, &key, Part::Whole), |object| {
                keep_references(object, |reference| uid_of(reference) != uid);
            });
            if let Err(failure) = done {
                tell(&key, &failure);
            }
        }
    }

    /// Lets an owner go if none of its dependents blocks that; else has a look at these.
    fn wait(
        &mut self,
        server: &Inner,
        resource: &Arc<Resource>,
        key: &Key,
        uid: &str,
    ) -> Result<(), Failure> {
        let mut blocked = false;
        for dependent in self.dependents_of(uid) {
            let Some(object) = server.store.get(&dependent).map(|stored| stored.to_value()) else { continue };
            blocked |= references(&object)
                .iter()
                .any(|reference| uid_of(reference) == uid && reference["blockOwnerDeletion"] == true);
            if !object_meta::is_deleting(&object) {
                self.look_at(&dependent);
            }
        }
        if blocked {
            return Ok(());
        }
        release(server, resource, key, uid, FOREGROUND)
    }
}

/// Takes a finalizer out.
fn release(
    server: &Inner,
    resource: &Arc<Resource>,
    key: &Key,
    uid: &str,
    finalizer: &str,
) -> Result<(), Failure> {
    write::edit(&call(server, resource, key, Part::Whole), |object| {
        if object_meta::text(object, "uid") != uid {
            return;
        }
        if let Some(finalizers) = object["metadata"]["finalizers"].as_array_mut() {
            finalizers.retain(|other| other != finalizer);
        }
    })
}

fn keep_references(object: &mut Value, keep: impl Fn(&Value) -> bool) {
    let kept: Vec<Value> = references(object).iter().filter(|reference| keep(reference)).cloned().collect();
    if kept.is_empty() {
        object["metadata"].as_object_mut().and_then(|metadata| metadata.remove("ownerReferences"));
    } else {
        object["metadata"]["ownerReferences"] = json!(kept);
    }
}

fn unblock(object: &mut Value) {
    let references = object["metadata"]["ownerReferences"].as_array_mut();
    for reference in
        references.into_iter().flatten().filter(|reference| reference["blockOwnerDeletion"] == true)
    {
        reference["blockOwnerDeletion"] = false.into();
    }
}
