//! The programs that measure what rotation and revocation cost, in small.

use std::time::Duration;

use tiphys_test::rotation::{Plan, RevocationPlan, revoke, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_rotated_under_load_and_only_new_client_certificates_cost_a_connection() {
    let plan = Plan { agents: 3, rate: 60.0, duration: Duration::from_secs(3), seed: 7 };
    let report = run(&plan).await.unwrap();
    assert!(report.all_well(), "{report}");
    let most: Vec<u64> = report.rotations.iter().map(|rotation| rotation.most_reconnects).collect();
    assert_eq!(most, [0, 1, 1, 0, 0], "{report}");
    assert!(report.visits.made > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_agent_stays_away_others_stay_connected_and_nothing_is_lost_when_it_is_let_in_again() {
    let pause = Duration::from_millis(100);
    let plan = RevocationPlan { agents: 4, revoked: 2, pause, rate: 60.0, seed: 7 };
    let report = revoke(&plan).await.unwrap();
    assert_eq!((report.returned, report.others), (0, 0), "{report}");
    assert!(report.changes.made > 0 && report.changes.lost.is_empty(), "{report}");
}
