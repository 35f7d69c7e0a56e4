//! Failures are fast and successes slow: at its start a healthy canary looks as if it only failed.
//!
//! Requests are simulated one by one with the time at which they end. The counters know epochs: when the
//! canary's share rises, both sides begin new cells, and a request reports to the cells it began with.

use std::collections::VecDeque;
use std::time::Duration;

use switchback_judge::{Control, Counts, Judge, Verdict};

use crate::traffic::{Random, TICK, settings};

const RPS: u64 = 10_000;
const FAILING: f64 = 0.002;
const SUCCESS_TAKES: Duration = Duration::from_millis(300);

/// A request on its way.
struct Flight {
    ends: Duration,
    canary: bool,
    epoch: u32,
}

/// Whether a healthy canary whose share goes `from` -> `to` is rolled back within the seconds after.
fn rolled_back(seed: u64, from: f64, to: f64, epochs_kept_apart: bool) -> bool {
    let mut random = Random::new(seed);
    let mut judge = Judge::new(settings(), Duration::ZERO);
    // Successes in the order in which they end; failures end at once.
    let mut flights: VecDeque<Flight> = VecDeque::new();
    let (mut pending, mut last, mut epoch, mut share) =
        (Counts::default(), Duration::ZERO, 0, from);
    let rise = Duration::from_secs(2);
    for step in 1..=RPS * 4 {
        let now = Duration::from_micros(step * 1_000_000 / RPS);
        if epoch == 0 && now >= rise {
            (epoch, share) = (1, to);
            pending = Counts::default();
            match from > 0.0 {
                true => judge.head_start(now),
                false => judge.new_version(now),
            }
        }
        let canary = random.chance(share);
        let mut count = |canary: bool, failed: bool| match canary {
            true => {
                pending.canary_requests += 1;
                pending.canary_failures += u64::from(failed);
            }
            false => {
                pending.stable_requests += 1;
                pending.stable_failures += u64::from(failed);
            }
        };
        if random.chance(FAILING) {
            count(canary, true);
        } else {
            flights.push_back(Flight {
                ends: now + SUCCESS_TAKES,
                canary,
                epoch,
            });
        }
        while flights.front().is_some_and(|flight| flight.ends <= now) {
            let flight = flights.pop_front().unwrap();
            if flight.epoch == epoch || !epochs_kept_apart {
                count(flight.canary, false);
            }
        }
        if now - last >= TICK {
            last = now;
            let counts = std::mem::take(&mut pending);
            if share <= 0.0 {
                judge.baseline(now, counts);
            } else if judge.tick(now, counts, Control::Compared) == Verdict::Rollback {
                return true;
            }
        }
    }
    false
}

#[test]
fn healthy_canary_survives_its_start_at_any_share() {
    for (from, to) in [(0.05, 0.5), (0.0, 0.5)] {
        let seeds: Vec<u64> = (0..200)
            .filter(|seed| rolled_back(*seed, from, to, true))
            .collect();
        assert!(
            seeds.is_empty(),
            "{from} -> {to}: healthy canaries were rolled back with seeds {seeds:?}"
        );
    }
}

#[test]
fn without_epochs_healthy_canaries_would_be_rolled_back() {
    // Shows that the test above can fail.
    let count = (0..30)
        .filter(|seed| rolled_back(*seed, 0.0, 0.5, false))
        .count();
    println!("without epochs: {count} of 30 healthy canaries rolled back at their start");
    assert!(count > 0);
}
