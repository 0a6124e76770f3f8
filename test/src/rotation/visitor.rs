//! Somebody who uses the resource proxy all the time, with the certificates that agents have at the moment.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::peer::{Identity, get};

/// Pause between two requests.
const PAUSE: Duration = Duration::from_millis(100);
/// How many different failures are told apart; the rest is counted together.
const REASONS: usize = 20;

/// What came of requests.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Visits {
    /// How many there were.
    pub made: u64,
    /// Those that came to nothing, by what was said.
    pub failed: BTreeMap<String, u64>,
}

impl Visits {
    fn note(&mut self, reason: String) {
        let known = self.failed.contains_key(&reason) || self.failed.len() < REASONS;
        *self.failed.entry(if known { reason } else { "others".to_owned() }).or_default() += 1;
    }
}

/// Somebody at work.
pub(super) struct Visitor {
    stop: CancellationToken,
    running: JoinHandle<Visits>,
}

impl Visitor {
    /// Begins to ask for the version of all clusters in turns, over a connection of its own each time.
    pub(super) fn begin(proxy: SocketAddr, identities: Vec<Arc<Identity>>) -> Self {
        let stop = CancellationToken::new();
        let running = tokio::spawn(visit(proxy, identities, stop.clone()));
        Self { stop, running }
    }

    /// Stops, and tells what came of it.
    pub(super) async fn end(self) -> anyhow::Result<Visits> {
        self.stop.cancel();
        Ok(self.running.await?)
    }
}

async fn visit(proxy: SocketAddr, identities: Vec<Arc<Identity>>, stop: CancellationToken) -> Visits {
    let mut visits = Visits::default();
    let mut tick = tokio::time::interval(PAUSE);
    for identity in identities.iter().cycle() {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = tick.tick() => {}
        }
        visits.made += 1;
        match get(proxy, &identity.now(), "/version").await {
            Ok(status) if status.is_success() => {}
            Ok(status) => visits.note(format!("{}: {status}", identity.name)),
            Err(error) => visits.note(format!("{}: {error:#}", identity.name)),
        }
    }
    visits
}
