//! How soon a bad canary is rolled back, and how seldom a good one: tables by simulation.
//!
//! `just figures`, or `cargo bench -p switchback-judge --bench figures`; `SWITCHBACK_RUNS` says how
//! often each case is repeated. The judge and the default rollout are the product's own; what is
//! simulated is traffic: requests at even distances, one canary request at a random place in each
//! stratum of the split, failures by chance, answers at once. The judge looks when the control thread
//! would: every 50 ms, and a millisecond after a canary failure. Seeds are fixed, so figures repeat.
#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    dead_code,
    reason = "a program that prints figures, and shares its traffic with the tests"
)]

#[path = "../tests/simulation/traffic.rs"]
mod traffic;

use std::ops::Range;
use std::time::Duration;

use switchback_config::defaults;
use switchback_config::model::Rollout;
use switchback_judge::{Control, Counts, Judge, Verdict};

use traffic::{Random, Rates, TICK, counts, run, settings};

/// Failures of stable, and of a healthy canary.
const USUAL: f64 = 0.001;

/// What stable served before: the judge knows what is usual.
const WARM_UP: Duration = Duration::from_secs(600);

const DAY: Duration = Duration::from_secs(86_400);

fn main() {
    #[expect(
        clippy::disallowed_methods,
        reason = "a program, not the judge, is told how often to run"
    )]
    let asked = std::env::var("SWITCHBACK_RUNS").ok();
    let runs: u64 = asked.map_or(200, |runs| {
        runs.parse().expect("SWITCHBACK_RUNS is a number")
    });
    detection(runs);
    healthy_rollouts(runs);
    healthy_days(runs.div_ceil(10));
    shared_outages(100);
}

/// How a rollout ended.
#[derive(Clone, Copy, Debug)]
struct Ended {
    rolled_back: bool,
    after: Duration,
    /// Requests of the canary, and those of them that failed.
    requests: u64,
    failures: u64,
    stage: usize,
}

/// A stretch of a rollout: share, least duration, least requests.
type Stage = (f64, Duration, u64);

/// The default rollout, with another first share.
fn stages(first: f64) -> Vec<Stage> {
    let Rollout {
        steps,
        bake,
        min_requests,
        ..
    } = defaults::rollout();
    let least = u64::from(min_requests);
    let mut stages: Vec<Stage> = steps
        .iter()
        .map(|step| {
            let span = step.span.map_or(Duration::ZERO, |span| span.0);
            (step.weight.fraction(), span, least)
        })
        .collect();
    stages[0].0 = first;
    stages.extend(bake.map(|bake| (1.0 - bake.holdback.fraction(), bake.span.0, least)));
    stages
}

/// A canary's way through a rollout, request by request.
struct Simulated {
    random: Random,
    judge: Judge,
    now: Duration,
    rps: u64,
    canary_fails: f64,
    pending: Counts,
    last_tick: Duration,
    alarmed: bool,
    verdict: Verdict,
    ended: Ended,
}

impl Simulated {
    fn new(seed: u64, rps: u64, canary_fails: f64) -> Self {
        let mut random = Random::new(seed);
        let mut judge = Judge::new(settings(), Duration::ZERO);
        let before = Rates {
            rps: rps as f64,
            share: 0.0,
            canary: 0.0,
            stable: USUAL,
        };
        let mut now = Duration::ZERO;
        while now < WARM_UP {
            now += TICK;
            judge.baseline(now, counts(&mut random, before, TICK));
        }
        judge.new_version(now);
        Self {
            random,
            judge,
            now,
            rps,
            canary_fails,
            pending: Counts::default(),
            last_tick: now,
            alarmed: false,
            verdict: Verdict::Continue,
            ended: Ended {
                rolled_back: false,
                after: Duration::ZERO,
                requests: 0,
                failures: 0,
                stage: 0,
            },
        }
    }

    fn rollout(mut self, stages: &[Stage]) -> Ended {
        for (index, stage) in stages.iter().enumerate() {
            if index > 0 {
                // A rise by so much, so long after the last, is a new start.
                self.judge.head_start(self.now);
            }
            self.ended.stage = index;
            self.stage(*stage);
            if self.verdict == Verdict::Rollback {
                self.ended.rolled_back = true;
                break;
            }
        }
        self.ended.after = self.now - WARM_UP;
        self.ended
    }

    /// Until the rollout goes on, or back.
    fn stage(&mut self, (share, span, least): Stage) {
        let (began, requests_before) = (self.now, self.ended.requests);
        let may_go_on = |this: &Self| {
            this.now - began >= span
                && this.ended.requests - requests_before >= least
                && this.verdict == Verdict::Continue
        };
        let apart = Duration::from_nanos(1_000_000_000 / self.rps);
        let stratum = (1.0 / share.min(1.0 - share)).round() as u64;
        while self.verdict != Verdict::Rollback && !may_go_on(self) {
            let chosen = (self.random.unit() * stratum as f64) as u64;
            for place in 0..stratum {
                self.now += apart;
                self.request((place == chosen) == (share <= 0.5));
                if self.verdict == Verdict::Rollback {
                    return;
                }
            }
        }
    }

    fn request(&mut self, of_canary: bool) {
        if of_canary {
            self.ended.requests += 1;
            self.pending.canary_requests += 1;
            if self.random.chance(self.canary_fails) {
                self.ended.failures += 1;
                self.pending.canary_failures += 1;
                self.alarmed = true;
            }
        } else {
            self.pending.stable_requests += 1;
            self.pending.stable_failures += u64::from(self.random.chance(USUAL));
        }
        let since = self.now - self.last_tick;
        if since >= TICK || (self.alarmed && since >= defaults::TICK_MIN) {
            (self.last_tick, self.alarmed) = (self.now, false);
            let counts = std::mem::take(&mut self.pending);
            self.verdict = self.judge.tick(self.now, counts, Control::Compared);
        }
    }
}

fn detection(runs: u64) {
    println!("From `rollout start` to the rollback, {runs} runs each; mean (99th percentile):\n");
    println!(
        "| requests/s | first step | canary fails | canary requests | of them failed | time | found in | promoted |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for rps in [100, 1_000] {
        for first in [0.01, 0.05] {
            for fails in [1.0, 0.1, 0.01] {
                let ended: Vec<Ended> = (0..runs)
                    .map(|seed| Simulated::new(seed, rps, fails).rollout(&stages(first)))
                    .collect();
                detection_row(rps, first, fails, &ended);
            }
        }
    }
    println!();
}

fn detection_row(rps: u64, first: f64, fails: f64, ended: &[Ended]) {
    let found: Vec<&Ended> = ended.iter().filter(|ended| ended.rolled_back).collect();
    let of = |value: &dyn Fn(&Ended) -> f64| {
        let mut values: Vec<f64> = found.iter().map(|ended| value(ended)).collect();
        values.sort_by(f64::total_cmp);
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        let p99 = values.get((values.len() * 99).div_ceil(100).saturating_sub(1));
        (mean, p99.copied().unwrap_or(f64::NAN))
    };
    let (requests, requests_99) = of(&|ended| ended.requests as f64);
    let (failures, failures_99) = of(&|ended| ended.failures as f64);
    let (time, time_99) = of(&|ended| ended.after.as_secs_f64());
    let mut by_stage = [0_usize; 4];
    for ended in &found {
        by_stage[ended.stage.min(3)] += 1;
    }
    let names = ["step 1", "step 2", "step 3", "bake"];
    let stages: Vec<String> = names
        .iter()
        .zip(by_stage)
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| match count == found.len() {
            true => (*name).to_owned(),
            false => format!("{name}: {count}"),
        })
        .collect();
    println!(
        "| {rps} | {} % | {} % | {requests:.1} ({requests_99:.0}) | {failures:.1} ({failures_99:.0}) | {time:.2} s ({time_99:.2} s) | {} | {} |",
        first * 100.0,
        fails * 100.0,
        stages.join(", "),
        ended.len() - found.len(),
    );
}

fn healthy_rollouts(runs: u64) {
    println!("Healthy canaries through the whole default rollout (55 minutes), {runs} each:\n");
    println!("| requests/s | rolled back |\n| --- | --- |");
    for rps in [10, 100, 1_000] {
        let rolled_back = (0..runs)
            .filter(|seed| {
                let canary = Simulated::new(1_000_000 + seed, rps, USUAL);
                canary.rollout(&stages(0.01)).rolled_back
            })
            .count();
        println!("| {rps} | {rolled_back} |");
    }
    println!();
}

/// Days and outages are longer; the judge does not care how its counts are cut.
fn healthy_days(days: u64) {
    println!("Healthy canaries watched for 24 h, {days} days each:\n");
    println!(
        "| requests/s | canary's share | both fail | rolled back |\n| --- | --- | --- | --- |"
    );
    for (rps, share, fails) in [
        (1.0, 0.5, 0.05),
        (10.0, 0.5, 0.02),
        (100.0, 0.01, 0.001),
        (100.0, 0.05, 0.005),
        (1_000.0, 0.05, 0.001),
        (1_000.0, 0.5, 0.001),
        (5_000.0, 0.01, 0.0001),
    ] {
        let rates = Rates {
            rps,
            share,
            canary: fails,
            stable: fails,
        };
        let tick = Duration::from_secs(1);
        let rolled_back = rollbacks(2_000_000..2_000_000 + days, |random, judge| {
            run(judge, random, rates, tick, Duration::ZERO, DAY)
        });
        println!(
            "| {rps} | {} % | {} % | {rolled_back} |",
            share * 100.0,
            fails * 100.0
        );
    }
    println!();
}

fn shared_outages(outages: u64) {
    println!(
        "Outages of 5 minutes that hit both versions a minute after the canary's start, {outages} each:\n"
    );
    println!(
        "| requests/s | canary's share | both fail | rolled back |\n| --- | --- | --- | --- |"
    );
    for rps in [100.0, 1_000.0] {
        for share in [0.01, 0.05, 0.5] {
            for outage in [0.2, 0.5, 1.0] {
                let rolled_back = rollbacks(3_000_000..3_000_000 + outages, |random, judge| {
                    outage_of(rps, share, outage, random, judge)
                });
                let [share, outage] = [share, outage].map(|part| part * 100.0);
                println!("| {rps} | {share} % | {outage} % | {rolled_back} |");
            }
        }
    }
}

fn outage_of(
    rps: f64,
    share: f64,
    outage: f64,
    random: &mut Random,
    judge: &mut Judge,
) -> Option<Duration> {
    let usual = Rates {
        rps,
        share,
        canary: USUAL,
        stable: USUAL,
    };
    let broken = Rates {
        canary: outage,
        stable: outage,
        ..usual
    };
    let begins = Duration::from_secs(60);
    let ends = begins + Duration::from_secs(300);
    run(judge, random, usual, TICK, Duration::ZERO, begins)
        .or_else(|| run(judge, random, broken, TICK, begins, ends))
}

/// How many of the seeds roll back.
fn rollbacks(
    seeds: Range<u64>,
    case: impl Fn(&mut Random, &mut Judge) -> Option<Duration>,
) -> usize {
    seeds
        .filter(|seed| {
            let mut judge = Judge::new(settings(), Duration::ZERO);
            case(&mut Random::new(*seed), &mut judge).is_some()
        })
        .count()
}
