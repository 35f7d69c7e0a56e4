//! When everything fails, the canary is not to blame.

use std::time::Duration;

use switchback_judge::Judge;

use crate::traffic::{Random, Rates, TICK, run, settings};

/// The seeds that roll back among `runs` outages of this size that hit both sides `after` the canary's
/// start.
fn rollbacks(runs: u64, rps: f64, share: f64, outage: f64, after: Duration) -> Vec<u64> {
    let mut rolled_back = Vec::new();
    for seed in 0..runs {
        let mut random = Random::new(seed);
        let mut judge = Judge::new(settings(), Duration::ZERO);
        let healthy = Rates {
            rps,
            share,
            canary: 0.001,
            stable: 0.001,
        };
        let broken = Rates {
            canary: outage,
            stable: outage,
            ..healthy
        };
        let early = run(
            &mut judge,
            &mut random,
            healthy,
            TICK,
            Duration::ZERO,
            after,
        );
        assert_eq!(early, None, "seed {seed}: rolled back while healthy");
        let end = after + Duration::from_secs(300);
        if run(&mut judge, &mut random, broken, TICK, after, end).is_some() {
            rolled_back.push(seed);
        }
    }
    rolled_back
}

#[test]
fn outage_that_starts_with_the_canary_rolls_back_at_most_2_of_100() {
    let seeds = rollbacks(100, 1_000.0, 0.05, 0.2, Duration::ZERO);
    println!("shared 20 % outage at the start: seeds rolled back: {seeds:?}");
    assert!(seeds.len() <= 2, "seeds {seeds:?}");
}

#[test]
fn later_outages_roll_nothing_back() {
    for (outage, share) in [(0.2, 0.05), (0.5, 0.05), (0.5, 0.5)] {
        let seeds = rollbacks(100, 1_000.0, share, outage, Duration::from_secs(60));
        println!("shared {outage} outage at share {share}: seeds rolled back: {seeds:?}");
        assert!(
            seeds.is_empty(),
            "outage {outage}, share {share}: seeds {seeds:?}"
        );
    }
}

#[test]
fn canary_that_is_worse_on_top_of_an_outage_is_still_found() {
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let mut judge = Judge::new(settings(), Duration::ZERO);
        let rates = Rates {
            rps: 1_000.0,
            share: 0.2,
            canary: 0.5,
            stable: 0.1,
        };
        let end = Duration::from_secs(60);
        let found = run(&mut judge, &mut random, rates, TICK, Duration::ZERO, end);
        assert!(found.is_some(), "seed {seed}");
    }
}
