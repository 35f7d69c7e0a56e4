//! What must hold for the judge whatever it is told.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what is wrong by panicking"
)]

use std::time::Duration;

use proptest::prelude::*;
use switchback_config::defaults::rollback;
use switchback_judge::likelihood::ratio;
use switchback_judge::{Control, Counts, Judge, Settings, Verdict};

fn judge() -> Judge {
    Judge::new(Settings::new(&rollback(), 1), Duration::ZERO)
}

fn any_time() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0..10_u64).prop_map(Duration::from_millis),
        (0..1_000_000_u64).prop_map(Duration::from_secs),
        any::<u64>().prop_map(Duration::from_micros),
        Just(Duration::ZERO),
        Just(Duration::MAX),
    ]
}

fn counts(requests_max: u64) -> impl Strategy<Value = Counts> {
    (
        0..=requests_max,
        0.0..=1.0_f64,
        0..=requests_max,
        0.0..=1.0_f64,
    )
        .prop_map(|(nc, canary, ns, stable)| {
            #[allow(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of a count"
            )]
            let part = |whole: u64, share: f64| ((whole as f64 * share) as u64).min(whole);
            Counts {
                canary_requests: nc,
                canary_failures: part(nc, canary),
                stable_requests: ns,
                stable_failures: part(ns, stable),
            }
        })
}

proptest! {
    // Found cases are turned into tests of their own, with a name.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rollback_is_final(ticks in prop::collection::vec(counts(100), 1..200)) {
        let mut judge = judge();
        let mut rolled_back = None;
        for (index, counts) in ticks.iter().enumerate() {
            let now = Duration::from_millis(50 * (index as u64 + 1));
            let verdict = judge.tick(now, *counts, Control::Compared);
            if let Some(explanation) = rolled_back {
                prop_assert_eq!(verdict, Verdict::Rollback);
                prop_assert_eq!(judge.explain(), explanation);
            } else if verdict == Verdict::Rollback {
                rolled_back = Some(judge.explain());
            }
        }
    }

    #[test]
    fn any_times_and_counts_are_survived(ticks in prop::collection::vec((any::<u64>(), counts(u64::MAX)), 1..50)) {
        let mut judge = judge();
        for (micros, counts) in ticks {
            judge.tick(Duration::from_micros(micros), counts, Control::Alone);
            judge.tick(Duration::MAX, counts, Control::Compared);
            prop_assert!((0.0..=1.0).contains(&judge.evidence()));
            let reading = judge.reading();
            prop_assert!(!reading.levels.iter().any(|level| level.is_nan()));
            prop_assert!(!judge.explain().to_string().is_empty());
        }
    }

    #[test]
    fn successes_alone_never_roll_back(ticks in prop::collection::vec((1..10_000_u64, 0..10_000_u64, 0..100_u64), 1..200)) {
        let mut judge = judge();
        let mut now = Duration::ZERO;
        for (millis, canary, stable) in ticks {
            now += Duration::from_millis(millis);
            let counts = Counts { canary_requests: canary, stable_requests: stable, ..Counts::default() };
            prop_assert_eq!(judge.tick(now, counts, Control::Alone), Verdict::Continue);
        }
    }

    #[test]
    fn splitting_a_tick_of_successes_never_turns_continue_into_rollback(before in prop::collection::vec(counts(50), 0..50), requests in 2..1_000_u64) {
        // As far as the judge says Continue.
        let (mut whole, mut start) = (judge(), Duration::ZERO);
        for counts in &before {
            let mut next = whole.clone();
            let now = start + Duration::from_millis(50);
            if next.tick(now, *counts, Control::Compared) != Verdict::Continue {
                break;
            }
            (whole, start) = (next, now);
        }
        let mut parts = whole.clone();
        let successes = |canary_requests| Counts {
            canary_requests,
            ..Counts::default()
        };
        let at_once = whole.tick(start + Duration::from_millis(50), successes(requests), Control::Compared);
        prop_assert_ne!(at_once, Verdict::Rollback);
        let half = requests / 2;
        for (millis, requests) in [(25, half), (50, requests - half)] {
            let verdict = parts.tick(start + Duration::from_millis(millis), successes(requests), Control::Compared);
            prop_assert_ne!(verdict, Verdict::Rollback);
        }
    }

    #[test]
    fn no_clock_alone_rolls_anything_back(ticks in prop::collection::vec((any_time(), 0..1_000_u64, 0..1_000_u64), 1..200)) {
        // Late, repeated, backwards and absurd times: without a failure none of them is evidence.
        let mut judge = judge();
        for (now, canary_requests, stable_requests) in ticks {
            let counts = Counts { canary_requests, stable_requests, ..Counts::default() };
            for control in [Control::Alone, Control::Compared] {
                prop_assert_ne!(judge.tick(now, counts, control), Verdict::Rollback);
            }
        }
    }

    #[test]
    fn equal_rates_are_never_held_against_the_canary(n in 1..1_000_u64, x in 0..1_000_u64, scale in 1..1_000_u64) {
        let x = x.min(n);
        prop_assert_eq!(ratio(n, x, n * scale, x * scale).to_bits(), 0);
        prop_assert_eq!(ratio(n * scale, x * scale, n, x).to_bits(), 0);
    }
}

#[test]
fn fewer_failures_or_requests_than_asked_for_roll_nothing_back() {
    for (min_failures, min_requests, failing, expected) in [
        (3, 0, 2, false),
        (3, 0, 3, true),
        (3, 20, 19, false),
        (3, 20, 20, true),
    ] {
        let settings = Settings {
            min_failures,
            min_requests,
            ..Settings::new(&rollback(), 1)
        };
        let mut judge = Judge::new(settings, Duration::ZERO);
        let mut verdict = Verdict::Continue;
        for tick in 1..=failing {
            let counts = Counts {
                canary_requests: 1,
                canary_failures: 1,
                stable_requests: 100,
                stable_failures: 0,
            };
            verdict = judge.tick(Duration::from_millis(50 * tick), counts, Control::Compared);
        }
        assert_eq!(
            verdict == Verdict::Rollback,
            expected,
            "{failing} failures of {failing}"
        );
    }
}

#[test]
fn new_version_forgets_and_a_late_tick_is_harmless() {
    let mut judge = judge();
    let failing = Counts {
        canary_requests: 10,
        canary_failures: 10,
        stable_requests: 100,
        stable_failures: 0,
    };
    assert_eq!(
        judge.tick(Duration::from_secs(1), failing, Control::Compared),
        Verdict::Rollback
    );
    judge.new_version(Duration::from_secs(2));
    let healthy = Counts {
        canary_requests: 10,
        stable_requests: 100,
        ..Counts::default()
    };
    assert_eq!(
        judge.tick(Duration::from_secs(3), healthy, Control::Compared),
        Verdict::Continue
    );
    assert_eq!(
        judge.tick(Duration::from_secs(100_000), healthy, Control::Compared),
        Verdict::Continue
    );
}

#[test]
fn counts_at_the_edges_of_their_types_are_survived() {
    for most in [u64::from(u32::MAX) - 1, 1 << 32, (1 << 53) + 1, u64::MAX] {
        for (canary_failures, stable_failures) in [(0, 0), (0, most), (most, 0), (most, most)] {
            let mut judge = judge();
            let counts = Counts {
                canary_requests: most,
                canary_failures,
                stable_requests: most,
                stable_failures,
            };
            let mut verdict = Verdict::Continue;
            for tick in 1..=50 {
                verdict = judge.tick(Duration::from_millis(500 * tick), counts, Control::Compared);
            }
            assert_eq!(
                verdict == Verdict::Rollback,
                canary_failures > stable_failures,
                "{counts:?}"
            );
            let reading = judge.reading();
            assert!(!reading.ratio.is_nan() && !reading.usual_rate.is_nan());
        }
    }
}

#[cfg(debug_assertions)]
#[test]
fn more_failures_than_requests_are_a_mistake_of_the_caller() {
    for (canary_failures, stable_failures) in [(2, 0), (0, 2)] {
        let counts = Counts {
            canary_requests: 1,
            canary_failures,
            stable_requests: 1,
            stable_failures,
        };
        let tick = || judge().tick(Duration::from_secs(1), counts, Control::Compared);
        assert!(std::panic::catch_unwind(tick).is_err(), "{counts:?}");
    }
}
