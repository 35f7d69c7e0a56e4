//! Seeded traffic: how many of so many requests fail, tick by tick.

use std::time::Duration;

use switchback_judge::{Control, Counts, Judge, Settings, Verdict};

/// The product's default tick.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// A small generator (SplitMix64, Steele et al. 2014): reproducible, and good enough for coins.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// How many of `n` succeed with probability `p` each, by the gaps between successes.
    pub(crate) fn binomial(&mut self, n: u64, p: f64) -> u64 {
        if p <= 0.0 {
            return 0;
        }
        if p >= 1.0 {
            return n;
        }
        let (mut count, mut at) = (0, 0_u64);
        let scale = (-p).ln_1p();
        loop {
            let gap = ((1.0 - self.unit()).ln() / scale).floor();
            at = at.saturating_add(gap as u64).saturating_add(1);
            if at > n {
                return count;
            }
            count += 1;
        }
    }
}

/// The product's default settings.
pub(crate) fn settings() -> Settings {
    Settings::new(&switchback_config::defaults::rollback(), 1)
}

/// Requests a second, the canary's share, and both failure rates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    pub(crate) rps: f64,
    pub(crate) share: f64,
    pub(crate) canary: f64,
    pub(crate) stable: f64,
}

/// One tick's worth of traffic.
pub(crate) fn counts(random: &mut Random, rates: Rates, tick: Duration) -> Counts {
    let expected = rates.rps * tick.as_secs_f64();
    let total = expected.floor() as u64 + u64::from(random.chance(expected.fract()));
    let canary_requests = random.binomial(total, rates.share);
    let stable_requests = total - canary_requests;
    Counts {
        canary_requests,
        canary_failures: random.binomial(canary_requests, rates.canary),
        stable_requests,
        stable_failures: random.binomial(stable_requests, rates.stable),
    }
}

/// Ticks a judge from `from` until it rolls back or `to` is reached; when it rolled back.
pub(crate) fn run(
    judge: &mut Judge,
    random: &mut Random,
    rates: Rates,
    tick: Duration,
    from: Duration,
    to: Duration,
) -> Option<Duration> {
    let mut now = from;
    while now < to {
        now += tick;
        let counts = counts(random, rates, tick);
        if judge.tick(now, counts, Control::Compared) == Verdict::Rollback {
            return Some(now);
        }
    }
    None
}
