//! The principal and the agents: started, crashed, started again with nothing in memory.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use prometheus::Registry;
use tiphys_agent::Agent;
use tiphys_principal::{ControlPlane, ControlPlaneConfig};
use tiphys_shared::kube::reconciler::NamespaceCreation;
use tiphys_shared::process::options::NamePattern;
use tiphys_shared::protocol::ownership::{AdoptionPolicy, Policy};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::api;
use super::wire::SimulatedLink;
use super::world::{Incarnation, NAMESPACE, World};

/// Starts both sides.
pub(crate) fn start(world: &Arc<World>) {
    start_principal(world);
    for index in 0..world.agents.len() {
        start_agent(world, index);
    }
}

/// Ends both sides.
pub(crate) fn stop(world: &World) {
    for slot in std::iter::once(&world.principal).chain(&world.agents) {
        if let Some(incarnation) = slot.lock().take() {
            incarnation.dead.cancel();
            incarnation.cancel.cancel();
        }
    }
    world.running.lock().take();
}

fn incarnation() -> Incarnation {
    Incarnation {
        dead: CancellationToken::new(),
        cancel: CancellationToken::new(),
        tasks: TaskTracker::new(),
        handle: None,
    }
}

fn start_principal(world: &Arc<World>) {
    let new = incarnation();
    let (dead, cancel, tasks) = (new.dead.clone(), new.cancel.clone(), new.tasks.clone());
    *world.principal.lock() = Some(new);
    world.journal.note("principal", format_args!("starts"));
    let world = Arc::clone(world);
    tokio::spawn(async move {
        let own = cancel.clone();
        tokio::select! {
            biased;
            () = own.cancelled() => {}
            () = lead(&world, &dead, cancel, tasks) => {}
        }
    });
}

/// Begins until it succeeds: a principal that cannot begin exits, and is started again.
async fn lead(world: &World, dead: &CancellationToken, cancel: CancellationToken, tasks: TaskTracker) {
    loop {
        let client = api::client(&world.control.server, &world.control.trouble, dead);
        let allowed = world.plan.agents.iter().map(|agent| NamePattern::new(agent.name.as_str()));
        let config = ControlPlaneConfig {
            client,
            namespace: NAMESPACE.to_owned(),
            allowed_namespaces: allowed.filter_map(Result::ok).collect(),
            destination_based_mapping: false,
            namespace_creation: Some(NamespaceCreation::default()),
            label_selector: None,
            resync_interval: Some(world.plan.resync_interval),
            max_message_size: super::world::LARGEST,
            cluster_view: None,
            registry: Registry::new(),
        };
        match ControlPlane::start(config, tasks.clone(), cancel.clone()).await {
            Ok(Some(control_plane)) => {
                if !dead.is_cancelled() {
                    world.journal.note("principal", format_args!("is ready"));
                    *world.running.lock() = Some(control_plane);
                }
                return;
            }
            Ok(None) => return,
            Err(error) => {
                world.journal.note("principal", format_args!("cannot start: {error}"));
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// The principal stops where it is. It comes back after a while.
pub(crate) fn crash_principal(world: &Arc<World>, rng: &mut Rng) {
    let Some(old) = world.principal.lock().take() else { return };
    world.journal.note("principal", format_args!("crashes"));
    old.dead.cancel();
    world.running.lock().take();
    for wire in &world.wires {
        wire.principal_gone();
    }
    old.cancel.cancel();
    let away = Duration::from_millis(rng.u64(0..15_000));
    let world = Arc::clone(world);
    tokio::spawn(async move {
        sleep(away).await;
        start_principal(&world);
    });
}

fn start_agent(world: &Arc<World>, index: usize) {
    let (Some(plan), Some(site), Some(wire), Some(slot)) = (
        world.plan.agents.get(index),
        world.clusters.get(index),
        world.wires.get(index),
        world.agents.get(index),
    ) else {
        return;
    };
    let mut new = incarnation();
    let config = tiphys_agent::Config {
        mode: plan.mode,
        client: api::client(&site.server, &site.trouble, &new.dead),
        namespace: NAMESPACE.to_owned(),
        allowed_namespaces: Vec::new(),
        destination_based_mapping: false,
        create_namespaces: false,
        policy: Policy { mismatch: plan.mismatch, adoption: AdoptionPolicy::Always },
        on_return: None,
        label_selector: None,
        resync_interval: Some(world.plan.resync_interval),
        buffer_interval: None,
        cluster_cache: None,
        proxy: None,
        redis: None,
        heartbeat: None,
        registry: Registry::new(),
        traces: Default::default(),
        recorder: Default::default(),
    };
    let link = SimulatedLink {
        wire: Arc::clone(wire),
        principal: Arc::clone(&world.running),
        dead: new.dead.clone(),
    };
    let agent = Agent::new(config, link);
    new.handle = Some(agent.handle());
    world.journal.note(plan.name.as_str(), format_args!("starts"));
    let (dead, cancel) = (new.dead.clone(), new.cancel.clone());
    let (journal, name) = (Arc::clone(&world.journal), plan.name.clone());
    *slot.lock() = Some(new);
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = dead.cancelled() => {}
            ended = agent.run(cancel) => {
                journal.note(name.as_str(), format_args!("ended: {ended:?}"));
            }
        }
    });
}

/// An agent stops where it is. It comes back after a while.
pub(crate) fn crash_agent(world: &Arc<World>, index: usize, rng: &mut Rng) {
    let Some(old) = world.agents.get(index).and_then(|slot| slot.lock().take()) else { return };
    if let (Some(plan), Some(wire)) = (world.plan.agents.get(index), world.wires.get(index)) {
        world.journal.note(plan.name.as_str(), format_args!("crashes"));
        old.dead.cancel();
        wire.agent_gone();
    }
    old.cancel.cancel();
    let away = Duration::from_millis(rng.u64(0..15_000));
    let world = Arc::clone(world);
    tokio::spawn(async move {
        sleep(away).await;
        start_agent(&world, index);
    });
}
