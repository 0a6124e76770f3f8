//! What goes wrong from outside: crashes, broken wires, API servers that are away or forget.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::plan::pause;
use super::sides;
use super::world::World;

/// Begins to break things, until the acting phase ends.
pub(crate) fn start(world: &Arc<World>, tasks: &mut JoinSet<()>) {
    if let Some(mean) = world.plan.wire {
        tasks.spawn(regularly(Arc::clone(world), "faults of wires", mean, break_wire));
    }
    if let Some(mean) = world.plan.crashes {
        tasks.spawn(regularly(Arc::clone(world), "crashes", mean, crash));
    }
    if world.plan.api > 0.0 {
        tasks.spawn(regularly(
            Arc::clone(world),
            "faults of servers",
            Duration::from_secs(15),
            disturb_server,
        ));
    }
}

/// Nothing goes wrong from now on.
pub(crate) fn stop(world: &World) {
    *world.acting.lock() = false;
    for (_, site) in world.places() {
        site.trouble.end();
    }
    for wire in &world.wires {
        wire.end_trouble();
    }
}

async fn regularly(world: Arc<World>, purpose: &str, mean: Duration, act: fn(&Arc<World>, &mut Rng)) {
    let mut rng = world.plan.rng(purpose);
    let end = Instant::now() + world.plan.acting;
    loop {
        sleep(pause(&mut rng, mean)).await;
        if Instant::now() >= end {
            return;
        }
        act(&world, &mut rng);
    }
}

fn break_wire(world: &Arc<World>, rng: &mut Rng) {
    let Some(wire) = world.wires.get(rng.usize(0..world.wires.len())) else { return };
    if rng.u8(0..3) == 0 {
        wire.stall(Duration::from_millis(rng.u64(0..30_000)));
    } else {
        wire.snap();
    }
}

fn crash(world: &Arc<World>, rng: &mut Rng) {
    match rng.usize(0..=world.agents.len()) {
        0 => sides::crash_principal(world, rng),
        agent => sides::crash_agent(world, agent - 1, rng),
    }
}

fn disturb_server(world: &Arc<World>, rng: &mut Rng) {
    let index = rng.usize(0..=world.clusters.len());
    let Some((place, site)) = world.places().nth(index) else { return };
    let name = world.name_of(place);
    if rng.bool() {
        world.journal.note(&name, format_args!("forgets its past"));
        site.server.compact();
    } else {
        let time = Duration::from_millis(rng.u64(0..8_000));
        world.journal.note(&name, format_args!("is away for {time:?}"));
        site.trouble.go_away(time);
    }
}
