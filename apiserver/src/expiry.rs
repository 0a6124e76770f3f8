//! Events last an hour, as with a real API server: nobody else would ever remove them.
//!
//! There is no task for it. Now and then the creation of an event sweeps out the old ones.

use crate::Inner;
use crate::store::{Change, Write};
use jiff::Timestamp;
use serde_json::Value;

/// Under which name events are stored.
const STORAGE: &str = "/events";
/// How long an event is kept after it was last seen.
const LIFETIME: i64 = 3600;
/// How many events are created from one sweep to the next.
const PERIOD: u32 = 64;

/// Counts an event, and sweeps if it is time.
pub(crate) fn after_write(server: &Inner, storage: &str, change: &Change) {
    if storage != STORAGE || change.before.is_some() {
        return;
    }
    let count = server.events.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    if count % PERIOD == PERIOD - 1 {
        sweep(server);
    }
}

fn sweep(server: &Inner) {
    let snapshot = server.store.newest();
    let limit = server.now().as_second() - LIFETIME;
    let prefix = format!("{STORAGE}/");
    for stored in snapshot.range(&prefix, None) {
        if last_seen(&stored.to_value()).is_some_and(|seen| seen < limit) {
            // If it was seen again in this moment it stays.
            let _ = server.store.commit(&stored.key, Some(stored.revision), Write::Remove);
        }
    }
}

/// The latest of the times in an event.
fn last_seen(event: &Value) -> Option<i64> {
    let times = [
        &event["metadata"]["creationTimestamp"],
        &event["lastTimestamp"],
        &event["eventTime"],
        &event["series"]["lastObservedTime"],
    ];
    times.into_iter().filter_map(|time| Some(time.as_str()?.parse::<Timestamp>().ok()?.as_second())).max()
}
