//! The fleet, live.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::applications;
use super::fleet::Fleet;
use super::ledger::Ledger;
use super::summary::{Memory, megabytes};
use crate::failure::Failure;
use crate::output::{self, Table};

/// How often a terminal is drawn anew.
const FRAME: Duration = Duration::from_millis(500);
/// How often a line is printed where there is no terminal.
const LINE: Duration = Duration::from_secs(5);
/// Rows of the table where the height of the terminal is not known.
const ROWS: usize = 20;
/// Lines of a frame that are not rows.
const FRAME_LINES: usize = 5;

/// Shows the fleet until it is dropped, changing an application now and then.
pub(super) async fn show(change_every: Duration, fleet: &Fleet, ledger: &Ledger) -> Result<(), Failure> {
    tokio::select! {
        ended = draw(fleet, ledger) => ended,
        failed = change(change_every, fleet, ledger) => failed,
    }
}

async fn change(every: Duration, fleet: &Fleet, ledger: &Ledger) -> Result<(), Failure> {
    if every.is_zero() {
        std::future::pending::<()>().await;
    }
    let mut ticks = interval(every.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut turn = 0usize;
    loop {
        ticks.tick().await;
        let keys = ledger.keys();
        // A large step visits every cluster before it comes back to one.
        turn = turn.wrapping_add(7919);
        if let Some(key) = keys.get(turn.checked_rem(keys.len()).unwrap_or_default()) {
            applications::change(fleet, ledger, key.clone()).await?;
        }
    }
}

async fn draw(fleet: &Fleet, ledger: &Ledger) -> Result<(), Failure> {
    let interactive = output::is_interactive();
    let mut ticks = interval(if interactive { FRAME } else { LINE });
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut drawn = 0;
    loop {
        ticks.tick().await;
        if !interactive {
            output::line(&headline(fleet, ledger))?;
            continue;
        }
        let rows =
            output::terminal_height().map_or(ROWS, |height| height.saturating_sub(FRAME_LINES + 2)).max(1);
        let frame = format!(
            "{}\n{}\n\n{}\n",
            headline(fleet, ledger),
            figures(ledger, fleet),
            table(fleet, ledger, rows).render(output::colours_on_stdout())
        );
        // Back to where the last frame began, and over it.
        let back = if drawn == 0 { String::new() } else { format!("\u{1b}[{drawn}A\u{1b}[J") };
        drawn = frame.lines().count();
        output::text(&format!("{back}{frame}"))?;
    }
}

fn headline(fleet: &Fleet, ledger: &Ledger) -> String {
    let counts = ledger.counts();
    let applications: usize = counts.values().map(|counts| counts.applications).sum();
    let returned: usize = counts.values().map(|counts| counts.returned).sum();
    let connected = fleet.principal.agents().iter().filter(|agent| agent.connected_since.is_some()).count();
    let queued: usize = fleet.principal.agents().iter().map(|agent| agent.outbox).sum();
    format!(
        "{connected} of {} agents connected, {returned} of {applications} applications in sync, {queued} queued",
        fleet.clusters.len()
    )
}

fn figures(ledger: &Ledger, fleet: &Fleet) -> String {
    let (delivery, round_trip, events) = (ledger.deliveries(), ledger.round_trips(), fleet.events());
    format!(
        "delivery p50 {:.1} p99 {:.1} ms, round trip p50 {:.1} p99 {:.1} ms, {} events out, {} in, {}",
        delivery.p50,
        delivery.p99,
        round_trip.p50,
        round_trip.p99,
        events.sent,
        events.received,
        megabytes(Memory::of_this_process().now)
    )
}

/// The agents that are worth a look first: those that are away, then those with the longest queues.
fn table(fleet: &Fleet, ledger: &Ledger, rows: usize) -> Table {
    let mut table = Table::new(&["AGENT", "STATE", "APPS", "ARRIVED", "IN SYNC", "QUEUE DOWN", "QUEUE UP"]);
    let counts = ledger.counts();
    let mut agents: Vec<_> = fleet.principal.agents();
    agents.sort_by_key(|agent| (agent.connected_since.is_some(), std::cmp::Reverse(agent.outbox)));
    for agent in agents.iter().take(rows) {
        let counts = counts.get(agent.name.as_str()).copied().unwrap_or_default();
        let up = fleet.agent(agent.name.as_str()).map_or(0, tiphys_agent::Handle::outbox);
        table.row([
            agent.name.to_string(),
            if agent.connected_since.is_some() { "connected" } else { "away" }.to_owned(),
            counts.applications.to_string(),
            counts.delivered.to_string(),
            counts.returned.to_string(),
            agent.outbox.to_string(),
            up.to_string(),
        ]);
    }
    table
}
