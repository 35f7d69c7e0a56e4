//! One client that is pinned to the canary and always fails.
//!
//! Requests that choose their backend by a key are not independent: one broken client can fail a hundred
//! times a second. The counters therefore admit one failure of a client in ten seconds, so 0.1 a second.
//!
//! What that guarantees with the default settings: nothing is rolled back while the other clients bring
//! at least 50 successful canary requests a second, however reliable stable is. (The most sensitive chart
//! rises 4.6 nats with a failure and falls 0.01 with a success once stable's usual rate is at its lower
//! bound: 460 successes make up for a failure, 46 a second.) What it does not guarantee: on a canary
//! with less traffic than that, one client that always fails is a rate of failures that counts, and
//! rolls it back.

use std::time::Duration;

use switchback_judge::{Control, Counts, Judge, Verdict};

use crate::traffic::settings;

/// Whether a client with so many counted failures in ten seconds gets the canary rolled back within
/// some hours, among `others` requests a second that all succeed, beside a stable that never fails.
fn rolled_back(failures_each_ten_seconds: u64, others: u64, hours: u64) -> bool {
    let mut judge = Judge::new(settings(), Duration::ZERO);
    (1..=3_600 * hours).any(|second| {
        let failures = u64::from(second % 10 == 0) * failures_each_ten_seconds;
        let counts = Counts {
            canary_requests: others + failures,
            canary_failures: failures,
            stable_requests: 950,
            stable_failures: 0,
        };
        judge.tick(Duration::from_secs(second), counts, Control::Compared) == Verdict::Rollback
    })
}

#[test]
fn pinned_client_alone_rolls_nothing_back_in_a_day_of_enough_traffic() {
    for others in [50, 75, 150, 500] {
        assert!(!rolled_back(1, others, 24), "{others} others a second");
    }
}

#[test]
fn without_the_limiter_it_would() {
    for others in [50, 75, 150, 500] {
        assert!(rolled_back(100, others, 1), "{others} others a second");
    }
}

#[test]
fn on_a_canary_with_little_traffic_even_its_admitted_failures_count() {
    for others in [0, 10, 40] {
        assert!(rolled_back(1, others, 24), "{others} others a second");
    }
}
