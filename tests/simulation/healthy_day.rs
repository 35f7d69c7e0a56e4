//! A day in which nothing is wrong.

use std::time::Duration;

use switchback_judge::Judge;

use crate::traffic::{Random, Rates, run, settings};

#[test]
fn healthy_canary_is_not_rolled_back_in_a_day() {
    // Coarse ticks: the judge is indifferent to how its counts are cut.
    let tick = Duration::from_secs(1);
    for (seed, rps, share, failing) in [
        (1, 1_000.0, 0.05, 0.001),
        (2, 1_000.0, 0.5, 0.001),
        (3, 100.0, 0.05, 0.005),
        (4, 10.0, 0.5, 0.02),
        (5, 5_000.0, 0.01, 0.0001),
        (6, 1.0, 0.5, 0.05),
    ] {
        let mut random = Random::new(seed);
        let mut judge = Judge::new(settings(), Duration::ZERO);
        let rates = Rates {
            rps,
            share,
            canary: failing,
            stable: failing,
        };
        let day = Duration::from_secs(86_400);
        let rolled_back = run(&mut judge, &mut random, rates, tick, Duration::ZERO, day);
        assert_eq!(rolled_back, None, "seed {seed}: {rates:?}");
    }
}
