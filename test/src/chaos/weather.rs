//! What goes wrong, and when.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Plan;
use super::ledger::Ledger;
use super::process::Process;
use super::proxy::Order;
use super::stage::Stage;

/// How often there is a line about how it goes.
const NEWS: Duration = Duration::from_secs(10);

/// Something goes wrong.
#[derive(Clone, Copy, Debug)]
enum Blow {
    KillPrincipal,
    KillAgent,
    KillAll,
    Stream(Order),
    RefuseStream(Duration),
    Api(Order),
    RefuseApi(Duration),
}

fn blow(rng: &mut fastrand::Rng) -> Blow {
    let mut seconds = |from: u64, to: u64| Duration::from_millis(rng.u64(from * 1000..to * 1000));
    let (short, long, refusal) = (seconds(0, 3), seconds(1, 12), seconds(1, 6));
    match rng.u8(..100) {
        0..15 => Blow::KillPrincipal,
        15..40 => Blow::KillAgent,
        40..45 => Blow::KillAll,
        45..57 => Blow::Stream(Order::Cut),
        57..65 => Blow::Stream(Order::Hang),
        65..75 => Blow::Stream(Order::Stall(long)),
        75..82 => Blow::RefuseStream(refusal),
        82..90 => Blow::Api(Order::Cut),
        90..97 => Blow::Api(Order::Stall(short)),
        _ => Blow::RefuseApi(short),
    }
}

/// Blows until then.
pub(super) async fn storm(
    plan: &Plan,
    stage: &mut Stage,
    ledger: &Arc<Ledger>,
    rng: &mut fastrand::Rng,
    until: Instant,
    round: u32,
) -> anyhow::Result<()> {
    let began = Instant::now();
    for stream in stage.streams.iter() {
        stream.set_stormy(true);
    }
    for api in &stage.apis {
        api.set_stormy(plan.api_faults);
    }
    // When each process is started again: the principal first.
    let mut due: Vec<Option<Instant>> = vec![None; stage.agents.len() + 1];
    let mut news = began + NEWS;
    while Instant::now() < until {
        let mut next = Instant::now() + Duration::from_millis(rng.u64(200..3_000));
        while next > Instant::now() {
            let wake = due.iter().flatten().copied().chain([next, news, until]).min().unwrap_or(next);
            tokio::time::sleep_until(wake).await;
            let now = Instant::now();
            for (number, due) in due.iter_mut().enumerate() {
                if due.is_some_and(|due| due <= now) {
                    *due = None;
                    process(stage, number)?.start()?;
                }
            }
            if now >= news {
                news += NEWS;
                let agents: u32 = stage.agents.iter().map(|agent| agent.starts).sum();
                println!(
                    "round {round}, {:.0} s: {} changes, {} operations; the principal was started {} times, the agents \
                     {agents} times; {} faults of connections",
                    began.elapsed().as_secs_f64(),
                    ledger.changes(),
                    ledger.operations(),
                    stage.principal.starts,
                    stage.faults()
                );
            }
            if now >= until {
                next = now;
            }
        }
        stage.revive().await?;
        let agent = rng.usize(..stage.agents.len());
        let api = rng.usize(..stage.apis.len());
        match blow(rng) {
            Blow::KillPrincipal => kill(stage, 0, &mut due, rng).await?,
            Blow::KillAgent => kill(stage, agent + 1, &mut due, rng).await?,
            Blow::KillAll => {
                for number in 0..due.len() {
                    kill(stage, number, &mut due, rng).await?;
                }
            }
            Blow::Stream(order) => {
                if let Some(stream) = stage.streams.get(agent) {
                    stream.order(order);
                }
            }
            Blow::RefuseStream(time) => {
                if let Some(stream) = stage.streams.get(agent) {
                    stream.refuse(time);
                }
            }
            Blow::Api(order) if plan.api_faults => {
                if let Some(api) = stage.apis.get(api) {
                    api.order(order);
                }
            }
            Blow::RefuseApi(time) if plan.api_faults => {
                if let Some(api) = stage.apis.get(api) {
                    api.refuse(time);
                }
            }
            Blow::Api(_) | Blow::RefuseApi(_) => {}
        }
    }
    Ok(())
}

fn process(stage: &mut Stage, number: usize) -> anyhow::Result<&mut Process> {
    match number.checked_sub(1) {
        None => Ok(&mut stage.principal),
        Some(agent) => {
            stage.agents.get_mut(agent).ok_or_else(|| anyhow::anyhow!("there is no agent of number {agent}"))
        }
    }
}

async fn kill(
    stage: &mut Stage,
    number: usize,
    due: &mut [Option<Instant>],
    rng: &mut fastrand::Rng,
) -> anyhow::Result<()> {
    process(stage, number)?.kill().await?;
    if let Some(due) = due.get_mut(number) {
        // Often at once, sometimes after a while.
        let pause = if rng.bool() { 0 } else { rng.u64(100..5_000) };
        due.get_or_insert(Instant::now() + Duration::from_millis(pause));
    }
    Ok(())
}
