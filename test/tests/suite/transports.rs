//! What the way from an agent to its principal leads over: WebSockets, and proxies.

mod pings;
mod proxies;
mod relay;
mod websocket;

use serde_json::json;
use tiphys_shared::model::Kind;

use super::fleet::{Fleet, merge, revision};

/// Changes an Application, and waits until the other side has seen it; in both directions.
async fn passes(fleet: &Fleet, agent: &str, name: &str, what: &str) {
    let there = fleet.at_control(Kind::Application, agent);
    let here = fleet.at_cluster(Kind::Application, agent);
    if there.get_opt(name).await.unwrap().is_none() {
        fleet.create(agent, name).await;
    }
    merge(&there, name, json!({"spec": {"source": {"targetRevision": what}}})).await;
    Fleet::until_is(&here, name, what, |app| revision(app) == what).await;
    merge(&here, name, json!({"status": {"health": {"status": what}}})).await;
    Fleet::until_is(&there, name, what, |app| app.data["status"]["health"]["status"] == what).await;
}
