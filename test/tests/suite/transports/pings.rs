//! Agents that ping more often than they may.

use std::error::Error as _;
use std::time::Duration;

use tiphys_shared::wire::transport::DialOptions;

use super::super::fleet::Fleet;
use super::super::raw::Raw;
use super::passes;

/// A fleet whose principal takes pings this often.
async fn fleet(apart: Duration) -> Fleet {
    let mut fleet = Fleet::embedded(&["edge"]).await;
    fleet.kill_principal();
    fleet.connections.min_ping_interval = Some(apart);
    fleet.start_principal().await;
    fleet
}

fn pinging(often: Duration) -> super::super::fleet::Reach {
    std::sync::Arc::new(move |dial| DialOptions { keepalive_interval: Some(often), ..dial })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_pings_too_often_is_told_so_and_cut() {
    let mut fleet = fleet(Duration::from_secs(3600)).await;
    passes(&fleet, "edge", "web", "r1").await;
    fleet.reach = Some(pinging(Duration::from_millis(20)));
    // Without an agent of this name in its way.
    let mut often = Raw::connect(&fleet, "other").await;
    let end = loop {
        match often.hear.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended well"),
            Err(status) => break status,
        }
    };
    let mut said = format!("{end:?}");
    let mut source = end.source();
    while let Some(inner) = source {
        said.push_str(&format!("; {inner:?}"));
        source = inner.source();
    }
    assert!(said.contains("ENHANCE_YOUR_CALM") && said.contains("too_many_pings"), "{said}");
    // Nobody else suffers.
    passes(&fleet, "edge", "web", "r2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_keeps_to_it_is_left_alone() {
    let mut fleet = fleet(Duration::from_millis(1)).await;
    fleet.kill_agent("edge");
    fleet.reach = Some(pinging(Duration::from_millis(20)));
    fleet.start_agent("edge");
    passes(&fleet, "edge", "web", "r1").await;
    let since = fleet.principal().agents()[0].connected_since.unwrap();
    for round in 0..30 {
        passes(&fleet, "edge", "web", &format!("r{round}")).await;
    }
    assert_eq!(fleet.principal().agents()[0].connected_since, Some(since), "it was cut");
}
