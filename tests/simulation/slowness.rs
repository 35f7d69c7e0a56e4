//! Slow requests: the judge of slowness over a limit that follows stable's own times.
//!
//! Times are drawn from a log-normal distribution, whose hundredth slowest is about ten times the
//! median, as of many real services.

use std::time::Duration;

use switchback_judge::{Control, Counts, Judge, Settings, UsualTimes, Verdict};

use crate::traffic::{Random, TICK};

/// Bins of a tenth of an octave.
const BINS: usize = 400;

/// The slow judge of a service that has two judges, errors and slowness.
fn settings() -> Settings {
    let mut rollback = switchback_config::defaults::rollback();
    rollback.max_extra_slow = Some("5%".parse().unwrap());
    Settings::slow(&rollback, 2).unwrap()
}

/// A service with its traffic, its limit and its judge.
struct Service {
    random: Random,
    usual: UsualTimes,
    bins: Vec<u64>,
    limit: Option<f64>,
    judge: Judge,
    now: Duration,
    rps: f64,
    share: f64,
    canary_requests: u64,
    slow: [u64; 2],
}

impl Service {
    fn new(seed: u64, rps: f64, share: f64) -> Self {
        Self {
            random: Random::new(seed),
            usual: UsualTimes::new(990, Duration::ZERO),
            bins: vec![0; BINS],
            limit: None,
            judge: Judge::new(settings(), Duration::ZERO),
            now: Duration::ZERO,
            rps,
            share,
            canary_requests: 0,
            slow: [0; 2],
        }
    }

    /// A time in milliseconds: the median is 10, times `factor`.
    fn time(&mut self, factor: f64) -> f64 {
        let (one, other) = (1.0 - self.random.unit(), self.random.unit());
        let normal = (-2.0 * one.ln()).sqrt() * (std::f64::consts::TAU * other).cos();
        10.0 * factor * normal.exp()
    }

    /// One tick, with times stretched by these factors for the canary and for stable.
    fn tick(&mut self, tick: Duration, canary: f64, stable: f64) -> Verdict {
        self.now += tick;
        let mut counts = Counts::default();
        let expected = self.rps * tick.as_secs_f64();
        let total = expected.floor() as u64 + u64::from(self.random.chance(expected.fract()));
        for _ in 0..total {
            let is_canary = self.random.chance(self.share);
            let time = self.time(if is_canary { canary } else { stable });
            if !is_canary {
                let bin = (time.max(0.001).log2() * 10.0 + 100.0) as usize;
                self.bins[bin.min(BINS - 1)] += 1;
            }
            self.canary_requests += u64::from(is_canary);
            let Some(limit) = self.limit else { continue };
            let slow = u64::from(time > limit);
            self.slow[usize::from(!is_canary)] += slow;
            if is_canary {
                counts.canary_requests += 1;
                counts.canary_failures += slow;
            } else {
                counts.stable_requests += 1;
                counts.stable_failures += slow;
            }
        }
        let verdict = self.judge.tick(self.now, counts, Control::Compared);
        if let Some(bin) = self.usual.refresh(self.now, self.bins.iter().copied()) {
            self.limit = Some(((bin as f64 + 1.0 - 100.0) / 10.0).exp2());
        }
        verdict
    }

    /// Ticks for so long; when it rolled back.
    fn run(
        &mut self,
        time: Duration,
        tick: Duration,
        canary: f64,
        stable: f64,
    ) -> Option<Duration> {
        let end = self.now + time;
        while self.now < end {
            if self.tick(tick, canary, stable) == Verdict::Rollback {
                return Some(self.now);
            }
        }
        None
    }
}

#[test]
fn slower_canary_is_rolled_back() {
    const RUNS: u64 = 30;
    let warm_up = Duration::from_secs(30);
    for (factor, mean_max) in [(100.0, 10.0), (10.0, 25.0), (3.0, 220.0)] {
        let (mut requests, mut times) = (0, Vec::new());
        for seed in 0..RUNS {
            let mut service = Service::new(seed, 1_000.0, 0.05);
            let early = service.run(warm_up, TICK, 1.0, 1.0);
            assert_eq!(early, None, "seed {seed}: rolled back while healthy");
            service.canary_requests = 0;
            let found = service.run(Duration::from_secs(600), TICK, factor, 1.0);
            times.push(found.unwrap_or_else(|| panic!("seed {seed}: never")) - warm_up);
            requests += service.canary_requests;
        }
        times.sort();
        let mean = requests as f64 / RUNS as f64;
        println!(
            "5 %, {factor} times as slow: canary requests mean {mean:.1}; time median {:?}, longest {:?}",
            times[times.len() / 2],
            times[times.len() - 1]
        );
        assert!(mean <= mean_max, "{factor}: {mean}");
    }
}

#[test]
fn canary_as_fast_as_stable_is_not_rolled_back_in_a_day() {
    for (seed, rps, share) in [
        (1, 100.0, 0.05),
        (2, 20.0, 0.5),
        (3, 10.0, 0.5),
        (4, 1.0, 0.5),
    ] {
        let mut service = Service::new(seed, rps, share);
        let day = Duration::from_secs(86_400);
        let rolled_back = service.run(day, Duration::from_secs(1), 1.0, 1.0);
        assert_eq!(
            rolled_back, None,
            "seed {seed}: {rps} a second, share {share}"
        );
        let [canary, stable] = service.slow;
        assert!(
            canary > 0 && stable > 0,
            "some are always slow: {canary}, {stable}"
        );
    }
}

#[test]
fn shared_slowness_rolls_nothing_back() {
    let mut rolled_back = Vec::new();
    for seed in 0..100 {
        let (factor, share) =
            [(3.0, 0.05), (10.0, 0.05), (10.0, 0.5), (100.0, 0.2)][seed as usize % 4];
        let mut service = Service::new(seed, 1_000.0, share);
        let warm_up = service.run(Duration::from_secs(20), TICK, 1.0, 1.0);
        assert_eq!(warm_up, None, "seed {seed}: rolled back while healthy");
        let slow = service.run(Duration::from_secs(60), TICK, factor, factor);
        let after = service.run(Duration::from_secs(20), TICK, 1.0, 1.0);
        if slow.or(after).is_some() {
            rolled_back.push(seed);
        }
    }
    println!("shared slowness: seeds rolled back: {rolled_back:?}");
    assert!(rolled_back.is_empty(), "seeds {rolled_back:?}");
}

#[test]
fn limit_does_not_follow_a_slow_canary() {
    let mut service = Service::new(7, 1_000.0, 0.5);
    service.run(Duration::from_secs(60), TICK, 1.0, 1.0);
    let before = service.limit.unwrap();
    let found = service.run(Duration::from_secs(60), TICK, 4.0, 1.0);
    assert!(found.is_some());
    while service.now < Duration::from_secs(600) {
        service.tick(TICK, 4.0, 1.0);
    }
    let after = service.limit.unwrap();
    assert!(
        (after / before).log2().abs() <= 0.2,
        "{before} ms, then {after} ms"
    );
}
