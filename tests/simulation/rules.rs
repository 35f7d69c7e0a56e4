//! Plain rules on series of seconds.

use std::time::Duration;

use switchback_config::model::RateRule;
use switchback_config::units::{Percent, TimeSpan};
use switchback_judge::{Counts, RuleState};

fn rule(percent: u32, seconds: u64, not_stable: bool) -> RuleState {
    let rule = RateRule {
        threshold: Percent::from_millionths(percent * 10_000),
        span: TimeSpan(Duration::from_secs(seconds)),
        not_stable,
    };
    RuleState::new(&rule, Duration::ZERO)
}

/// The second at which it fires; `second` says what each second brings.
fn fires(mut state: RuleState, seconds: u64, second: impl Fn(u64) -> Counts) -> Option<u64> {
    (1..=seconds).find(|at| state.tick(Duration::from_secs(*at), second(*at)))
}

fn canary(requests: u64, failures: u64) -> Counts {
    Counts {
        canary_requests: requests,
        canary_failures: failures,
        ..Counts::default()
    }
}

#[test]
fn rule_fires_after_its_span_and_not_at_the_threshold() {
    assert_eq!(fires(rule(5, 60, false), 600, |_| canary(100, 6)), Some(60));
    assert_eq!(fires(rule(5, 60, false), 600, |_| canary(100, 5)), None);
}

#[test]
fn one_good_bucket_starts_the_run_anew_and_an_empty_one_does_not() {
    let bad_but = |gap: Counts| {
        move |at: u64| {
            if (31..=33).contains(&at) {
                gap
            } else {
                canary(100, 50)
            }
        }
    };
    assert_eq!(
        fires(rule(5, 60, false), 600, bad_but(canary(100, 0))),
        Some(93)
    );
    assert_eq!(
        fires(rule(5, 60, false), 600, bad_but(Counts::default())),
        Some(60)
    );
}

#[test]
fn long_rule_fires_at_most_one_bucket_late() {
    // Buckets of `5m` are 15 s long; trouble begins in the middle of the second one.
    let begins = 23;
    let at = fires(rule(5, 300, false), 900, |at| {
        canary(100, if at > begins { 50 } else { 0 })
    });
    assert!(at.is_some_and(|at| at <= begins + 300 + 15), "{at:?}");
}

#[test]
fn stable_without_traffic_vetoes_nothing() {
    assert_eq!(fires(rule(5, 60, true), 600, |_| canary(100, 6)), Some(60));
}

#[test]
fn canary_without_traffic_breaks_no_rule() {
    assert_eq!(fires(rule(0, 60, false), 600, |_| canary(0, 0)), None);
}

#[test]
fn shared_outage_vetoes_only_rules_that_ask_for_it() {
    let both = |_| Counts {
        canary_requests: 10,
        canary_failures: 5,
        stable_requests: 10,
        stable_failures: 5,
    };
    assert_eq!(fires(rule(5, 60, true), 600, both), None);
    assert_eq!(fires(rule(5, 60, false), 600, both), Some(60));
}
