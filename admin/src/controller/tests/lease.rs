//! Weights for a while: how they end, and what a lease is nothing to.

use std::time::Duration;

use switchback_config::units::TimeSpan;

use super::rollout::quiet;
use super::*;

/// These weights for a minute.
fn leased(table: [u32; 3]) -> Command {
    let Command::SetWeights {
        service, weights, ..
    } = weights(table)
    else {
        unreachable!()
    };
    Command::SetWeights {
        service,
        weights,
        lease: Some(TimeSpan(Duration::from_secs(60))),
    }
}

/// A version that nobody has seen, on this backend.
fn new_version(backend: &str) -> Command {
    Command::SetBackend {
        service: shop(),
        backend: backend.into(),
        version: "9".into(),
        endpoints: vec!["http://127.0.0.1:9".parse().expect("endpoint")],
        declared: crate::command::Declared::default(),
        force: false,
    }
}

#[test]
fn leased_weights_end_by_themselves_unless_they_are_renewed() {
    let mut play = quiet();
    play.must(leased([90, 10, 0]));
    assert!(!play.pass(50));
    play.must(leased([90, 10, 0]));
    assert!(!play.pass(50), "renewed");
    assert!(play.pass(10));
    assert_eq!(play.weights(), [100, 0, 0]);
    assert!(!play.pass(1_000));
    // What is set for good, or rolled back, has no lease any more.
    for command in [weights([50, 50, 0]), rollback()] {
        let mut play = quiet();
        play.must(leased([90, 10, 0]));
        play.must(command);
        let before = play.weights();
        assert!(!play.pass(1_000));
        assert_eq!(play.weights(), before);
    }
}

#[test]
fn lease_is_nothing_to_a_backend_that_has_no_part_in_it() {
    let mut play = quiet();
    play.must(leased([90, 10, 0]));
    play.must(new_version("red"));
    assert!(play.pass(100), "the lease ends as it would have");
    assert_eq!(play.weights(), [100, 0, 0]);
}

#[test]
fn lease_that_ends_gives_nothing_to_what_is_dead_or_new() {
    let mut play = Play::new();
    play.must(leased([100, 0, 0]));
    play.unhealthy = vec!["green"];
    assert!(play.pass(100));
    assert_eq!(play.weights(), [100, 0, 0]);
    let mut play = Play::new();
    play.must(leased([100, 0, 0]));
    play.must(new_version("green"));
    assert!(!play.pass(100), "the lease has ended with the version");
    assert_eq!(play.weights(), [100, 0, 0]);
}
