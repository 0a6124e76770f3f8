//! The deterministic simulation, in short. The long run is the program `simulate`.

use tiphys_test::simulation::{Selection, Simulation};

/// Seeds that once violated a promise, with the modes that they ran in and what it was. What a seed draws
/// changes when the simulation does; these stay all the same.
const KEPT: [(u64, Selection); 13] = [
    // A project that was shown, and that users had edited while the principal was away, was nobody's.
    (1, Selection::Any),
    // A copy that was created and deleted while the watch was down was taken to be there.
    (14, Selection::Any),
    // What Argo CD calls the cluster could not be read, and the agent's own name was shown for good.
    (13, Selection::Any),
    (204, Selection::Autonomous),
    // An operation was given to a copy that was going, and went with it.
    (314, Selection::Managed),
    // What came to its end with a late word about an earlier life of its name stayed.
    (184, Selection::Any),
    (1947, Selection::Any),
    // An operation took the place of one that ran, because the watch was behind.
    (1246, Selection::Any),
    // What was created and deleted again while no watch was up did not come back.
    (2058, Selection::Any),
    // What is not to be shown was told of when its operation ended.
    (2184, Selection::Any),
    // An operation was taken off before the agent was told of it.
    (2742, Selection::Any),
    // Word of the end of a life was swallowed by that of an earlier one.
    (3001, Selection::Any),
    (3438, Selection::Any),
];

#[track_caller]
fn hold(simulation: &Simulation, seed: u64, selection: Selection) -> u64 {
    let outcome = simulation.run(seed, selection).unwrap();
    assert!(
        outcome.violations.is_empty(),
        "seed {seed} ({}): {:#?}\nto look at it: cargo run -p tiphys-test --bin simulate -- --mode {} --trace {seed}",
        outcome.plan,
        outcome.violations,
        format!("{selection:?}").to_lowercase(),
    );
    outcome.hash
}

#[test]
fn whatever_breaks_both_sides_come_to_agree() {
    let simulation = Simulation::new().unwrap();
    for seed in 1_000_000..1_000_012 {
        hold(&simulation, seed, Selection::Any);
    }
}

#[test]
fn what_once_went_wrong_does_so_no_more() {
    let simulation = Simulation::new().unwrap();
    for (seed, selection) in KEPT {
        hold(&simulation, seed, selection);
    }
}

#[test]
fn one_seed_is_one_run() {
    let simulation = Simulation::new().unwrap();
    for selection in [Selection::Managed, Selection::Autonomous, Selection::Mixed] {
        let first = simulation.run(7, selection).unwrap();
        let second = simulation.run(7, selection).unwrap();
        let fork = first.trace.iter().zip(&second.trace).find(|(one, other)| one != other);
        assert_eq!(fork, None, "{selection:?}: the second run took another way");
        assert_eq!(first.hash, second.hash);
    }
}
