//! One client that is pinned to the canary and always fails. The counters admit one failure of a client
//! in ten seconds; with that bound, its failures alone are a small rate among everybody's successes.

use std::time::Duration;

use switchback_judge::{Control, Counts, Judge, Verdict};

use crate::traffic::settings;

fn verdict(failures_each_ten_seconds: u64) -> Verdict {
    let mut judge = Judge::new(settings(), Duration::ZERO);
    let mut verdict = Verdict::Continue;
    for second in 1..=3_600_u64 {
        let counts = Counts {
            canary_requests: 50 + u64::from(second % 10 == 0) * failures_each_ten_seconds,
            canary_failures: u64::from(second % 10 == 0) * failures_each_ten_seconds,
            stable_requests: 950,
            stable_failures: u64::from(second % 10 == 5),
        };
        verdict = judge.tick(Duration::from_secs(second), counts, Control::Compared);
        if verdict == Verdict::Rollback {
            break;
        }
    }
    verdict
}

#[test]
fn pinned_client_alone_rolls_nothing_back_in_an_hour() {
    assert_ne!(verdict(1), Verdict::Rollback);
}

#[test]
fn without_the_limiter_it_would() {
    assert_eq!(verdict(100), Verdict::Rollback);
}
