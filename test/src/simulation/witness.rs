//! Sees every change at every API server, in order: for the journal, and for what must never happen on the way.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt as _;
use kube::runtime::watcher;
use tiphys_shared::model::argocd::annotation;
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Kind, Mode, Object, ResourceKey};
use tokio::task::JoinSet;

use super::journal::short;
use super::world::{Place, World};

/// Begins to watch.
pub(crate) fn start(world: &Arc<World>, tasks: &mut JoinSet<()>) {
    for (place, _) in world.places() {
        for kind in [Kind::Application, Kind::AppProject, Kind::Repository] {
            tasks.spawn(watch(Arc::clone(world), place, kind));
        }
    }
}

async fn watch(world: Arc<World>, place: Place, kind: Kind) {
    let Some(site) = world.site(place) else { return };
    let mut stream = std::pin::pin!(watcher(site.everywhere(kind), watcher::Config::default()));
    let name = world.name_of(place);
    let mut known: BTreeMap<ResourceKey, Object> = BTreeMap::new();
    let mut listed = Vec::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(object)) => {
                listed.push(object.key(kind));
                applied(&world, place, &name, kind, &mut known, object);
            }
            Ok(watcher::Event::InitDone) => {
                let gone: Vec<ResourceKey> =
                    known.keys().filter(|key| !listed.contains(key)).cloned().collect();
                for key in gone {
                    if let Some(object) = known.remove(&key) {
                        vanished(&world, place, &name, kind, &object);
                    }
                }
            }
            Ok(watcher::Event::Apply(object)) => applied(&world, place, &name, kind, &mut known, object),
            Ok(watcher::Event::Delete(object)) => {
                known.remove(&object.key(kind));
                vanished(&world, place, &name, kind, &object);
            }
            Err(error) => world.journal.note(&name, format_args!("witness: {error}")),
        }
    }
}

fn applied(
    world: &World,
    place: Place,
    name: &str,
    kind: Kind,
    known: &mut BTreeMap<ResourceKey, Object>,
    object: Object,
) {
    let key = object.key(kind);
    let old = known.get(&key);
    if old.is_some_and(|old| old.resource_version() == object.resource_version()) {
        return;
    }
    world.journal.note(name, format_args!("{key} is {}", describe(&object)));
    let mut ledger = world.ledger.lock();
    ledger.changes += 1;
    if let Some(source) = object.source_uid().filter(|_| is_copy(world, place, kind, &object)) {
        let copy = (place, source.0.clone());
        let is_new = old.is_none_or(|old| old.uid() != object.uid());
        if is_new && ledger.finished.contains(&copy) {
            ledger.violation(format!(
                "{key} at {name} is back although its original {} has ended and it was deleted",
                short(&source.0)
            ));
        }
        ledger.copies.entry(copy).or_default().insert(object.uid().to_owned());
    }
    drop(ledger);
    if let Some(old) = known.insert(key, object.clone())
        && old.uid() != object.uid()
    {
        vanished(world, place, name, kind, &old);
    }
}

fn vanished(world: &World, place: Place, name: &str, kind: Kind, object: &Object) {
    let key = object.key(kind);
    world.journal.note(name, format_args!("{key} {} is gone", short(object.uid())));
    let mut ledger = world.ledger.lock();
    ledger.changes += 1;
    let of = world.plan.agents.iter().position(|agent| agent.name.as_str() == object.namespace());
    if let (Place::Control, Kind::Application, Some(agent)) = (place, kind, of)
        && ledger.hidden.remove(&(agent, object.name().to_owned()))
    {
        ledger.excuse(agent, object.name());
    }
    if let Some(source) = object.source_uid().filter(|_| is_copy(world, place, kind, object)) {
        // What a user deletes comes back as long as its end is not known there, and so does what went for another reason.
        let known = world.places().any(|(_, site)| site.trouble.knows_the_end_of(&source.0));
        if known && ledger.ended.contains(&source.0) && !ledger.deleted_by_users.contains(object.uid()) {
            ledger.finished.insert((place, source.0));
        }
    } else {
        ledger.ended.insert(object.uid().to_owned());
    }
}

/// Whether an object with a source at that place is a copy there, not an original that says so.
fn is_copy(world: &World, place: Place, kind: Kind, object: &Object) -> bool {
    let mode = |name: &str| {
        world.plan.agents.iter().find(|agent| agent.name.as_str() == name).map(|agent| agent.mode)
    };
    match (place, kind) {
        (Place::Control, Kind::Application) => mode(object.namespace()) == Some(Mode::Autonomous),
        (Place::Control, _) => true,
        (Place::Cluster(index), _) => {
            world.plan.agents.get(index).is_some_and(|agent| agent.mode == Mode::Managed)
        }
    }
}

/// An object in a line.
fn describe(object: &Object) -> String {
    use std::fmt::Write as _;

    let mut text = format!("{} rv {}", short(object.uid()), object.resource_version());
    let mut add = |name: &str, value: &str| _ = write!(text, " {name}={value}");
    if let Some(source) = object.source_uid() {
        add("of", short(&source.0));
    }
    for (field, path) in [
        ("rev", &["spec", "source", "targetRevision"][..]),
        ("op", &["operation", "sync", "revision"]),
        ("phase", &["status", "operationState", "phase"]),
        ("status", &["status", "sync", "revision"]),
    ] {
        if let Some(value) = object.at(path).and_then(serde_json::Value::as_str) {
            add(field, value);
        }
    }
    for (name, key) in [
        ("refresh", annotation::REFRESH),
        ("asked", annotation::OPERATION_REQUESTED),
        ("taken", annotation::OPERATION_TAKEN),
    ] {
        if let Some(value) = object.annotation(key) {
            add(name, value.get(..8).unwrap_or(value));
        }
    }
    for (key, value) in object.metadata.labels.iter().flatten() {
        add(key.rsplit('/').next().unwrap_or(key), value);
    }
    if let Some(note) = object.annotation("note") {
        add("note", note);
    }
    if object.metadata.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty()) {
        text.push_str(" finalizer");
    }
    if object.is_deleting() {
        text.push_str(" DELETING");
    }
    text
}
