//! What must hold: once nothing goes wrong any more, and all the time.
//!
//! Written from what is promised, not from the code that keeps it.

mod autonomous;
mod managed;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::api::ListParams;
use tiphys_shared::model::object::ObjectExt as _;
use tiphys_shared::model::{Kind, Mode, Object, ResourceKey};
use tokio::time::sleep;

use super::world::{Declared, NAMESPACE, Place, World};

/// More entries than this never wait in an outbox: the names that users give, on both sides, and requests.
const BOUND: usize = 64;

/// Labels and annotations that belong to one side, and those by which copies are known.
const MARKS: [&str; 10] = [
    "argocd.argoproj.io/source-uid",
    "argocd.argoproj.io/principal-uid",
    "argocd.argoproj.io/refresh",
    "argocd-agent.argoproj.io/last-updated",
    "notified.notifications.argoproj.io",
    "kubectl.kubernetes.io/last-applied-configuration",
    "tiphys.io/seal",
    "tiphys.io/operation-requested",
    "tiphys.io/operation-taken",
    "argocd.argoproj.io/namespace-remapped",
];
const IGNORE: &str = "argocd-agent.argoproj-labs.io/ignore-sync";

/// Everything that one API server has.
#[derive(Debug, Default)]
struct View {
    objects: BTreeMap<ResourceKey, Object>,
}

impl View {
    fn of(&self, kind: Kind) -> impl Iterator<Item = (&ResourceKey, &Object)> {
        self.objects.iter().filter(move |(key, _)| key.kind == kind)
    }

    fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Object> {
        self.objects.get(&ResourceKey::new(kind, namespace, name))
    }
}

async fn view(world: &World, place: Place) -> anyhow::Result<View> {
    let mut view = View::default();
    let Some(site) = world.site(place) else { return Ok(view) };
    for kind in [Kind::Application, Kind::AppProject, Kind::Repository] {
        let selector = ListParams::default();
        let selector = match kind {
            Kind::Repository => selector.labels("argocd.argoproj.io/secret-type=repository"),
            _ => selector,
        };
        for object in site.everywhere(kind).list(&selector).await?.items {
            view.objects.insert(object.key(kind), object);
        }
    }
    Ok(view)
}

/// In what the two sides differ from what they should agree on.
pub(crate) async fn differences(world: &World) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let control = view(world, Place::Control).await?;
    let changes = world.ledger.lock().changes;
    for (index, agent) in world.plan.agents.iter().enumerate() {
        let cluster = view(world, Place::Cluster(index)).await?;
        match agent.mode {
            Mode::Managed => managed::differences(agent, &control, &cluster, &mut found),
            Mode::Autonomous => autonomous::differences(agent, &control, &cluster, &mut found),
        }
        for (key, _) in cluster.of(Kind::Application).chain(cluster.of(Kind::AppProject)) {
            if key.namespace != NAMESPACE {
                found.push(format!("{key} at {} is outside of the agent's namespace", agent.name));
            }
        }
        status_is_argocds(world, index, &cluster, &mut found);
        declarations(world, Place::Cluster(index), &cluster, &mut found);
        let handle = world.agents.get(index).and_then(|slot| slot.lock().as_ref()?.handle.clone());
        match handle {
            None => found.push(format!("agent {} does not run", agent.name)),
            Some(handle) if !handle.is_connected() => {
                found.push(format!("agent {} is not connected", agent.name));
            }
            Some(handle) if handle.outbox() > 0 => {
                found.push(format!("{} entries wait in the outbox of agent {}", handle.outbox(), agent.name));
            }
            Some(_) => {}
        }
    }
    declarations(world, Place::Control, &control, &mut found);
    operations(world, &control, &mut found).await?;
    let running = world.running.lock().clone();
    match running {
        None => found.push("the principal does not run".to_owned()),
        Some(principal) => {
            for agent in principal.agents() {
                if agent.outbox > 0 {
                    found.push(format!("{} entries wait for agent {}", agent.outbox, agent.name));
                }
            }
        }
    }
    if world.ledger.lock().changes != changes {
        found.push("things change while they are looked at".to_owned());
    }
    Ok(found)
}

/// What users declared is what is there, at the place where they declared it.
fn declarations(world: &World, place: Place, view: &View, found: &mut Vec<String>) {
    let ledger = world.ledger.lock();
    let name = world.name_of(place);
    for ((_, key), declared) in ledger.declared.iter().filter(|((at, _), _)| *at == place) {
        match view.objects.get(key) {
            None => found.push(format!("{key} at {name} was not deleted by its owner, but is gone")),
            Some(object) => {
                let there = Declared::of(key.kind, object);
                if there != *declared {
                    found.push(format!("{key} at {name} is {there:?}, its owner declared {declared:?}"));
                }
            }
        }
    }
}

/// What Argo CD says of its cluster stays as it says.
fn status_is_argocds(world: &World, index: usize, cluster: &View, found: &mut Vec<String>) {
    let ledger = world.ledger.lock();
    for (key, object) in cluster.of(Kind::Application) {
        let said = ledger.status.get(&(index, object.uid().to_owned()));
        if said != object.field("status") {
            found.push(format!(
                "{key} at cluster {index} has another status than Argo CD wrote: {:?} instead of {said:?}",
                object.field("status")
            ));
        }
    }
}

/// Each operation was started at most once, and exactly once where nothing was done that could prevent it.
async fn operations(world: &World, control: &View, found: &mut Vec<String>) -> anyhow::Result<()> {
    let ledger = world.ledger.lock();
    for operation in &ledger.operations {
        let Some(agent) = world.plan.agents.get(operation.agent) else { continue };
        let started = ledger.started.get(&(operation.agent, operation.id.clone())).copied().unwrap_or(0);
        // At the control plane; of an autonomous agent's Application this is what is shown of it.
        let there = control.get(Kind::Application, agent.name.as_str(), &operation.name);
        let lives = there.is_some_and(|object| object.origin().0 == operation.uid);
        if lives && !operation.excused && started == 0 {
            found.push(format!("{} on {} was never started", operation.id, operation.name));
        }
        if started > 1 && !operation.excused {
            found.push(format!("{} on {} was started {started} times", operation.id, operation.name));
        }
    }
    Ok(())
}

/// Looks all the time at what must never be.
pub(crate) async fn keep_watch(world: Arc<World>) {
    loop {
        sleep(Duration::from_millis(500)).await;
        let mut waiting = Vec::new();
        for (plan, slot) in world.plan.agents.iter().zip(&world.agents) {
            if let Some(handle) = slot.lock().as_ref().and_then(|it| it.handle.clone()) {
                waiting.push((format!("agent {}", plan.name), handle.outbox()));
            }
        }
        if let Some(principal) = world.running.lock().clone() {
            for agent in principal.agents() {
                waiting.push((format!("the principal for {}", agent.name), agent.outbox));
            }
        }
        for (who, count) in waiting {
            if count > BOUND {
                world.ledger.lock().violation(format!("{count} entries waited in the outbox of {who}"));
            }
        }
    }
}

/// What was seen on the way, and what is left in memory at the end.
pub(crate) async fn of_the_whole_run(world: &World) -> anyhow::Result<Vec<String>> {
    let mut found = world.ledger.lock().violations.clone();
    if let Some(principal) = world.principal.lock().as_ref() {
        // Four informers, two workers, and a session for each agent.
        let expected = 6 + world.plan.agents.len();
        if principal.tasks.len() > expected {
            found.push(format!(
                "{} tasks of the principal are left instead of {expected}",
                principal.tasks.len()
            ));
        }
    }
    Ok(found)
}

/// What users wrote on an object.
fn notes(object: &Object) -> BTreeMap<&str, &str> {
    let annotations = object.metadata.annotations.iter().flatten();
    annotations
        .filter(|(key, _)| !MARKS.contains(&key.as_str()))
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect()
}

fn labels(object: &Object) -> BTreeMap<&str, &str> {
    object.metadata.labels.iter().flatten().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

fn finalizers(object: &Object) -> &[String] {
    object.metadata.finalizers.as_deref().unwrap_or_default()
}

fn is_ignored(object: &Object) -> bool {
    object.label(IGNORE) == Some("true")
}

/// Adds what differs.
fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    key: &ResourceKey,
    owner: T,
    copy: T,
    found: &mut Vec<String>,
) {
    if owner != copy {
        found.push(format!("{what} of {key}: the owner has {owner:?}, the copy has {copy:?}"));
    }
}
