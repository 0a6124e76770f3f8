//! Ownership after a write, and the object after an apply.

use super::managed::{Managed, Manager, Operation, Owner};
use super::set::{Element, Set, shown};
use super::shape::{self, Shape};
use super::walk::{self, Difference};
use crate::resource::Resource;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// What nobody owns, since the server alone writes it.
static SERVERS_OWN: LazyLock<Set> = LazyLock::new(|| {
    Set::of(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
});

/// How many managers may have come by updates; beyond that the oldest become one.
const UPDATE_MANAGERS: usize = 10;
/// Whoever wrote what was there before anybody was noted.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
const ANCIENT_CHANGES: &str = "ancient-changes";
/// Where kubectl keeps what it applied in the days of client-side apply.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The versions of a kind in which managers may have written.
pub(crate) struct Versions<'a> {
    /// The one of this request.
    pub(crate) resource: &'a Resource,
    /// Branches that this request cannot change.
    pub(crate) ignored: &'static [&'static [&'static str]],
    /// Another version by its name, if it is still there. Objects read the same in all versions of a kind.
    pub(crate) other: &'a dyn Fn(&str) -> Option<Arc<Resource>>,
}

impl Versions<'_> {
    fn shape(&self) -> Shape<'_> {
        shape::root(self.resource)
    }

    /// It is this version, or one that is still there.
    fn has(&self, api_version: &str) -> bool {
        *api_version == *self.resource.api_version() || (self.other)(api_version).is_some()
    }

    fn difference(&self, old: &Value, new: &Value) -> Difference {
        self.counted(walk::difference(self.shape(), old, new))
    }

    /// A difference as far as it counts.
    fn counted(&self, difference: Difference) -> Difference {
        let counts = |set: &Set| set.without(&Set::of(self.ignored)).difference(&SERVERS_OWN);
        Difference {
            removed: counts(&difference.removed),
            modified: counts(&difference.modified),
            added: counts(&difference.added),
        }
    }

    /// The same difference in another version; `None` if that version is gone.
    fn difference_in(&self, version: &str, old: &Value, new: &Value) -> Option<Difference> {
        let resource = (self.other)(version)?;
        Some(self.counted(walk::difference(shape::root(&resource), old, new)))
    }
}

/// One field that somebody else owns.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Conflict {
    manager: Manager,
    path: Vec<Element>,
}

impl Conflict {
    pub(crate) fn manager(&self) -> String {
        self.manager.shown()
    }

    pub(crate) fn path(&self) -> String {
        shown(&self.path)
    }
}

/// Why nothing was applied.
#[derive(Debug)]
pub(crate) enum ApplyError {
    /// What is applied does not fit the type.
    Misfit(Vec<String>),
    /// Others own fields of it, sorted by manager.
    Conflicts(Vec<Conflict>),
}

/// What came of an apply.
pub(crate) struct Applied {
    /// `None`: the object is as it was.
    pub(crate) object: Option<Value>,
    pub(crate) managed: Managed,
}

/// The managers after `manager` changed `old` to `new`.
pub(crate) fn updated(
    versions: &Versions<'_>,
    (old, new): (&Value, &Value),
    managed: &Managed,
    manager: &Manager,
    now: Option<i64>,
) -> Managed {
    let change = versions.difference(old, new);
    if change.is_empty() {
        return managed.clone();
    }
    // Managers that cannot be read are as good as none.
    let mut owners = managed.owners().unwrap_or_default();
    take_over(versions, (old, new), &change, &mut owners);
    let gained = change.modified.clone().union(&change.added);
    if !gained.is_empty() {
        match owners.iter_mut().find(|owner| owner.manager.is(manager)) {
            Some(owner) => {
                owner.set = std::mem::take(&mut owner.set).union(&gained);
                owner.time = now.or(owner.time);
            }
            None => owners.push(Owner { manager: manager.clone(), time: now, set: gained }),
        }
    }
    cap(&mut owners);
    Managed::of(owners)
}

/// Takes from all owners what was changed and what is gone.
fn take_over(
    versions: &Versions<'_>,
    (old, new): (&Value, &Value),
    change: &Difference,
    owners: &mut Vec<Owner>,
) {
    let mut others = BTreeMap::new();
    owners.retain_mut(|owner| {
        let Some(change) = seen_by(versions, owner, (old, new), change, &mut others) else { return false };
        let lost = change.modified.clone().union(&change.added).union(&change.removed);
        owner.set = owner.set.difference(&lost);
        !owner.set.is_empty()
    });
}

type Seen = BTreeMap<Arc<str>, Option<Difference>>;

/// A change in the version in which an owner wrote; `None` if that is gone.
fn seen_by<'a>(
    versions: &Versions<'_>,
    owner: &Owner,
    (old, new): (&Value, &Value),
    change: &'a Difference,
    others: &'a mut Seen,
) -> Option<&'a Difference> {
    let version = &owner.manager.api_version;
    if **version == *versions.resource.api_version() {
        return Some(change);
    }
    let seen = others.entry(version.clone());
    seen.or_insert_with(|| versions.difference_in(version, old, new)).as_ref()
}

/// Joins the oldest managers if there are too many.
fn cap(owners: &mut Vec<Owner>) {
    let is_update = |owner: &Owner| owner.manager.operation == Operation::Update;
    let mut excess = owners.iter().filter(|owner| is_update(owner)).count().saturating_sub(UPDATE_MANAGERS);
    if excess == 0 {
        return;
    }
    let mut updates: Vec<Owner> = Vec::new();
    let mut rest: Vec<Owner> = Vec::new();
    for owner in owners.drain(..) {
        if is_update(&owner) { updates.push(owner) } else { rest.push(owner) }
    }
    updates.sort_by(|a, b| {
        (a.time.unwrap_or_default(), &a.manager).cmp(&(b.time.unwrap_or_default(), &b.manager))
    });
    // The first of each version makes room for the bucket of that version when a second one follows.
    let mut buckets: Vec<(Arc<str>, usize)> = Vec::new();
    let mut kept: Vec<Owner> = Vec::new();
    for owner in updates {
        let version = owner.manager.api_version.clone();
        let bucket = buckets.iter().find(|(of, _)| *of == version).map(|(_, at)| *at);
        match bucket.and_then(|at| kept.get_mut(at)) {
            Some(bucket) if excess > 0 => {
                bucket.manager = Manager::new(Operation::Update, ANCIENT_CHANGES, &version, "");
                bucket.set = std::mem::take(&mut bucket.set).union(&owner.set);
                bucket.time = owner.time;
                excess -= 1;
            }
            _ => {
                if bucket.is_none() {
                    buckets.push((version, kept.len()));
                }
                kept.push(owner);
            }
        }
    }
    owners.extend(rest);
    owners.extend(kept);
}

/// Applies `config` to `live` in the name of `manager`.
///
/// A `live` without a UID is one that does not exist yet.
pub(crate) fn applied(
    versions: &Versions<'_>,
    live: &Value,
    config: &Value,
    managed: &Managed,
    (manager, force): (&Manager, bool),
    now: i64,
) -> Result<Applied, ApplyError> {
    let misfits = walk::misfits(versions.shape(), config);
    if !misfits.is_empty() {
        return Err(ApplyError::Misfit(misfits));
    }
    let mut owners = managed.owners().unwrap_or_default();
    if owners.is_empty() {
        let nothing = json!({"apiVersion": live["apiVersion"], "kind": live["kind"]});
        let before =
            Manager::new(Operation::Update, BEFORE_FIRST_APPLY, &manager.api_version, &manager.subresource);
        let noted = updated(versions, (&nothing, live), &Managed::default(), &before, Some(now));
        owners = noted.owners().unwrap_or_default();
    }
    let mut done = apply(versions, live, config, owners.clone(), manager, force, now);
    if &*manager.name == "kubectl"
        && let Err(conflicts) = &mut done
        && let Some(own) = last_applied(versions, live)
    {
        // What kubectl applied in the old way is its own.
        conflicts.retain(|conflict| !own.has_path(&conflict.path));
        if conflicts.is_empty() {
            done = apply(versions, live, config, owners, manager, true, now);
        }
    }
    let mut applied = done.map_err(|mut conflicts| {
        conflicts.sort_by(|a, b| a.manager.cmp(&b.manager));
        ApplyError::Conflicts(conflicts)
    })?;
    if &*manager.name == "kubectl" {
        let mut object = applied.object.take();
        let annotated = object.as_ref().unwrap_or(live);
        if annotated["metadata"]["annotations"][LAST_APPLIED].as_str().is_some_and(|text| !text.is_empty()) {
            let mut next = annotated.clone();
            next["metadata"]["annotations"][LAST_APPLIED] = without_last_applied(config).into();
            object = Some(next);
        }
        applied.object = object.filter(|object| !walk::same(object, live));
    }
    Ok(applied)
}

fn without_last_applied(config: &Value) -> String {
    let mut config = config.clone();
    let annotations = config.get_mut("metadata").and_then(|metadata| metadata.get_mut("annotations"));
    if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    // Written as Go writes it, with a line break at the end.
    format!("{config}\n")
}

/// The fields that kubectl applied in the old way and that are still as it wrote them.
fn last_applied(versions: &Versions<'_>, live: &Value) -> Option<Set> {
    let text = live["metadata"]["annotations"][LAST_APPLIED].as_str().filter(|text| !text.is_empty())?;
    let config: Value = serde_json::from_str(text).ok()?;
    if config["apiVersion"] != *versions.resource.api_version() {
        return None;
    }
    if !walk::misfits(versions.shape(), &config).is_empty() {
        return None;
    }
    let change = walk::difference(versions.shape(), &config, live);
    let own = walk::fields_of(versions.shape(), &config);
    Some(own.difference(&change.modified).difference(&change.added).difference(&change.removed))
}

fn apply(
    versions: &Versions<'_>,
    live: &Value,
    config: &Value,
    mut owners: Vec<Owner>,
    manager: &Manager,
    force: bool,
    now: i64,
) -> Result<Applied, Vec<Conflict>> {
    let shape = versions.shape();
    let merged = walk::merged(shape, live, config);
    let mentioned = walk::fields_of(shape, config).without(&Set::of(versions.ignored));
    let before = owners.iter().position(|owner| owner.manager.is(manager)).map(|at| owners.remove(at));

    let mut all = mentioned.clone();
    for owner in owners.iter().filter(|owner| owner.manager.api_version == manager.api_version) {
        all = all.union(&owner.set);
    }
    let next = match &before {
        Some(before) if versions.has(&before.manager.api_version) => {
            pruned(versions, &merged, &before.set, &all, &owners, manager)
        }
        _ => merged,
    };

    let change = versions.difference(live, &next);
    if !force {
        let conflicts = conflicts(versions, (live, &next), &change, &owners);
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
    }
    take_over(versions, (live, &next), &change, &mut owners);
    let changed = !walk::same(live, &next);
    let set = mentioned.difference(&SERVERS_OWN);
    if !set.is_empty() {
        let time = if changed { Some(now) } else { before.and_then(|before| before.time) };
        owners.push(Owner { manager: manager.clone(), time, set });
    }
    Ok(Applied { object: changed.then_some(next), managed: Managed::of(owners) })
}

fn conflicts(
    versions: &Versions<'_>,
    (live, next): (&Value, &Value),
    change: &Difference,
    owners: &[Owner],
) -> Vec<Conflict> {
    let mut others = BTreeMap::new();
    let mut found = Vec::new();
    for owner in owners {
        let Some(change) = seen_by(versions, owner, (live, next), change, &mut others) else { continue };
        let taken = owner.set.intersection(&change.modified.clone().union(&change.added));
        let conflict = |path| Conflict { manager: owner.manager.clone(), path };
        found.extend(taken.paths().into_iter().map(conflict));
    }
    found
}

/// Takes away what the manager applied before and does not apply now, unless somebody else owns it.
fn pruned(
    versions: &Versions<'_>,
    merged: &Value,
    before: &Set,
    owned: &Set,
    others: &[Owner],
    manager: &Manager,
) -> Value {
    let shape = versions.shape();
    let named = |set: &Set| walk::with_named_parents(shape, set);
    let before = named(before);
    let there = named(&walk::fields_of(shape, merged));
    let less = walk::removed(shape, merged, &before);
    // What others own comes back; in other versions of a custom resource fields have the same paths.
    let mut kept = named(owned);
    let is_other = |owner: &&Owner| {
        owner.manager.api_version != manager.api_version && versions.has(&owner.manager.api_version)
    };
    for owner in others.iter().filter(is_other) {
        kept = kept.union(&named(&owner.set));
    }
    let left = named(&walk::fields_of(shape, &less)).union(&kept);
    let less = walk::removed(shape, merged, &there.difference(&left));
    // And so does what this manager never applied.
    let left = named(&walk::fields_of(shape, &less));
    walk::removed(shape, merged, &there.difference(&left).intersection(&before))
}
