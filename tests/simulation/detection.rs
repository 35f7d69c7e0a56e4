//! How many requests a failing canary costs. Requests arrive one by one; the judge looks every 50 ms and
//! at once after a canary failure, at most once a millisecond — as the control thread does.

use std::time::Duration;

use switchback_judge::{Control, Counts, Judge, Verdict};

use crate::traffic::{Random, Rates, TICK, run, settings};

const WARM_UP: Duration = Duration::from_secs(60);

/// Canary requests and time from the first failing one until the rollback.
fn detect(seed: u64, share: f64, failing: f64) -> (u64, Duration) {
    const RPS: u64 = 1_000;
    let mut random = Random::new(seed);
    let mut judge = Judge::new(settings(), Duration::ZERO);
    let healthy = Rates {
        rps: RPS as f64,
        share,
        canary: 0.001,
        stable: 0.001,
    };
    let early = run(
        &mut judge,
        &mut random,
        healthy,
        TICK,
        Duration::ZERO,
        WARM_UP,
    );
    assert_eq!(early, None, "seed {seed}: rolled back while healthy");
    let (mut pending, mut canary_requests) = (Counts::default(), 0);
    let (mut last, mut alarmed) = (WARM_UP, false);
    for step in 1..=RPS * 600 {
        let now = WARM_UP + Duration::from_micros(step * 1_000_000 / RPS);
        if random.chance(share) {
            canary_requests += 1;
            pending.canary_requests += 1;
            if random.chance(failing) {
                pending.canary_failures += 1;
                alarmed = true;
            }
        } else {
            pending.stable_requests += 1;
            pending.stable_failures += u64::from(random.chance(0.001));
        }
        let due = now - last >= TICK || (alarmed && now - last >= Duration::from_millis(1));
        if due {
            (last, alarmed) = (now, false);
            let counts = std::mem::take(&mut pending);
            if judge.tick(now, counts, Control::Compared) == Verdict::Rollback {
                return (canary_requests, now - WARM_UP);
            }
        }
    }
    panic!("seed {seed}: never rolled back");
}

fn bar(name: &str, share: f64, failing: f64, mean_max: f64, p99_max: Option<Duration>) {
    const RUNS: u64 = 60;
    let runs: Vec<(u64, Duration)> = (0..RUNS).map(|seed| detect(seed, share, failing)).collect();
    let mean = runs.iter().map(|(requests, _)| *requests).sum::<u64>() as f64 / RUNS as f64;
    let mut times: Vec<Duration> = runs.iter().map(|(_, time)| *time).collect();
    times.sort();
    let p99 = times[(times.len() * 99).div_ceil(100) - 1];
    let mut requests: Vec<u64> = runs.iter().map(|(requests, _)| *requests).collect();
    requests.sort_unstable();
    let p99_requests = requests[(requests.len() * 99).div_ceil(100) - 1];
    println!("{name}: canary requests mean {mean:.1}, p99 {p99_requests}; time p99 {p99:?}");
    assert!(mean <= mean_max, "{name}: mean {mean}");
    assert!(p99_max.is_none_or(|max| p99 <= max), "{name}: p99 {p99:?}");
}

#[test]
fn canary_at_5_percent_that_fails_always_costs_six_requests() {
    bar(
        "5 %, fails 100 %",
        0.05,
        1.0,
        6.0,
        Some(Duration::from_millis(300)),
    );
}

#[test]
fn canary_at_5_percent_that_fails_a_tenth_costs_75_requests() {
    bar("5 %, fails 10 %", 0.05, 0.1, 75.0, None);
}

#[test]
fn canary_at_5_percent_that_fails_a_hundredth_costs_1600_requests() {
    bar("5 %, fails 1 %", 0.05, 0.01, 1_600.0, None);
}

#[test]
fn canary_at_50_percent_that_fails_always_costs_15_requests() {
    bar("50 %, fails 100 %", 0.5, 1.0, 15.0, None);
}
