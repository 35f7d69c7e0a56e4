//! The first witness, and the verdict that both come to.
//!
//! Five CUSUM charts (Page 1954) watch for five sizes of trouble, from `max_extra_errors` to "nothing
//! works". Each failure raises a chart by the log-likelihood ratio of "fails that much more than
//! stable's usual bound" against "does not", each success lowers it; 0 is the threshold. Where a chart
//! may start from is set by a second quantity, the idle pot `u`: the value that a Shiryaev-Roberts
//! e-detector which is paid dt/T a second would hold if every request had succeeded (Shin, Ramdas,
//! Rinaldo, "E-detectors: a nonparametric framework for sequential change detection", 2023). A CUSUM
//! never exceeds that e-detector, so while the canary is healthy the mean time to a false rollback is
//! at least T, for any traffic pattern and without knowing the rate; quiet services need less evidence
//! by themselves.
//!
//! The second witness ([`crate::likelihood`]) must agree over the stretch since the chart's own onset,
//! for *every* chart above the threshold. Everything stays in logarithms; comparisons are written so
//! that a NaN means Continue.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use switchback_config::model::Rollback;

use crate::baseline::Baseline;
use crate::exact;
use crate::explain::Explanation;
use crate::likelihood::{float, ratio};

/// Number of charts.
const K: usize = 5;

/// [`K`] as a float.
const K_FLOAT: f64 = 5.0;

/// The largest trouble looked for. Below 1, so that one success does not clear all suspicion.
const WORST: f64 = 0.98;

/// Charts stop here, so that an outage is forgotten within seconds.
const CAP: f64 = 5.0;

/// Nats the second witness needs; each vetoed alarm of the last days raises it a little.
const RATIO_MIN: f64 = 10.0;

/// A start or a rise of the share may cost as much as this many seconds of ordinary watching.
const HEAD_START_SECONDS: f64 = 3_600.0;

/// How sensitive a judge is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// How much more of its requests than stable the canary may fail (or be slow in), 0 to 1.
    pub max_extra: f64,
    /// Mean time between false rollbacks, in seconds.
    pub budget_seconds: f64,
    /// A rollback needs at least so many failures.
    pub min_failures: u64,
    /// A rollback needs at least so many requests.
    pub min_requests: u64,
}

impl Settings {
    /// The settings of a service; `judges` of them (at least 1) share its promise.
    #[must_use]
    pub fn new(rollback: &Rollback, judges: u32) -> Self {
        Self {
            max_extra: rollback.max_extra_errors.fraction(),
            budget_seconds: rollback.false_rollbacks.seconds() * f64::from(judges.max(1)),
            min_failures: rollback.min_failures.into(),
            min_requests: rollback.min_requests.into(),
        }
    }

    /// The settings of a judge of slow requests, if there is to be one.
    #[must_use]
    pub fn slow(rollback: &Rollback, judges: u32) -> Option<Self> {
        let max_extra = rollback.max_extra_slow?.fraction();
        Some(Self {
            max_extra,
            ..Self::new(rollback, judges)
        })
    }
}

/// What happened since the last tick. Failures never exceed requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Finished canary requests.
    pub canary_requests: u64,
    /// Those of them that failed.
    pub canary_failures: u64,
    /// Finished stable requests.
    pub stable_requests: u64,
    /// Those of them that failed.
    pub stable_failures: u64,
}

impl Counts {
    /// Both together.
    #[must_use]
    pub const fn plus(self, more: Self) -> Self {
        Self {
            canary_requests: self.canary_requests.saturating_add(more.canary_requests),
            canary_failures: self.canary_failures.saturating_add(more.canary_failures),
            stable_requests: self.stable_requests.saturating_add(more.stable_requests),
            stable_failures: self.stable_failures.saturating_add(more.stable_failures),
        }
    }
}

/// Whether there is a control group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Stable serves enough to tell a shared outage apart.
    Compared,
    /// The first witness decides alone.
    Alone,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is wrong.
    Continue,
    /// Do not give the canary more weight.
    Hold(HoldReason),
    /// Take the canary's weight. Final until [`Judge::new_version`].
    Rollback,
}

/// Why not to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldReason {
    /// The canary fails more than usual, but not yet surely.
    GatheringEvidence,
    /// The canary fails, and so does stable.
    SharedOutage,
    /// The canary fails, and stable answers nothing to compare with.
    CannotCompare,
}

/// One chart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Chart {
    /// The trouble it looks for: an extra failure rate, 0 to 1.
    extra: f64,
    /// The CUSUM in nats.
    #[serde(with = "exact")]
    level: f64,
    /// The idle pot.
    pot: f64,
    counts: Counts,
    onset: f64,
    #[serde(with = "exact")]
    level_at_onset: f64,
}

/// The state of a judge, as tests and reports look at it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// Levels of the charts in nats; 0 is the threshold.
    pub levels: [f64; K],
    /// Idle pots.
    pub pots: [f64; K],
    /// Upper bound of stable's usual failure rate.
    pub usual_rate: f64,
    /// Index of the highest chart.
    pub highest: usize,
    /// Its counts since its onset.
    pub counts: Counts,
    /// The second witness over those counts, in nats.
    pub ratio: f64,
    /// Alarms of the first witness that the second did not confirm, decayed by half a day.
    pub vetoes: f64,
}

/// Watches one version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judge {
    settings: Settings,
    charts: [Chart; K],
    baseline: Baseline,
    canary_seen: f64,
    gap: (u64, u64),
    vetoes: f64,
    crossing: bool,
    verdict: Option<Explanation>,
    now: f64,
}

impl Judge {
    /// A judge whose canary starts now.
    #[must_use]
    pub fn new(settings: Settings, now: Duration) -> Self {
        let now = seconds(now);
        let step =
            |index: u8| (WORST / settings.max_extra).powf(f64::from(index) / (K_FLOAT - 1.0));
        let chart = |index: u8| Chart {
            extra: settings.max_extra * step(index),
            level: f64::NEG_INFINITY,
            pot: 0.0,
            counts: Counts::default(),
            onset: now,
            level_at_onset: f64::NEG_INFINITY,
        };
        let mut judge = Self {
            settings,
            charts: [chart(0), chart(1), chart(2), chart(3), chart(4)],
            baseline: Baseline::new(now),
            canary_seen: now,
            gap: (0, 0),
            vetoes: 0.0,
            crossing: false,
            verdict: None,
            now,
        };
        judge.start(now);
        judge
    }

    /// How sensitive it is.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The canary's share rose by a tenth of itself or more: its levels are kept but not below a
    /// start's, and counting begins anew. Call it at most once a minute.
    pub fn head_start(&mut self, now: Duration) {
        self.start(seconds(now));
    }

    /// Another version, or an unblocked one: nothing is held against it.
    pub fn new_version(&mut self, now: Duration) {
        for chart in &mut self.charts {
            chart.level = f64::NEG_INFINITY;
            chart.pot = 0.0;
        }
        self.crossing = false;
        self.verdict = None;
        self.start(seconds(now));
    }

    /// Another version is stable: what is usual has to be learnt anew.
    pub fn new_stable(&mut self, now: Duration) {
        self.baseline.clear();
        self.start(seconds(now));
    }

    fn start(&mut self, now: f64) {
        let level = (HEAD_START_SECONDS / self.settings.budget_seconds / K_FLOAT).ln();
        self.canary_seen = now;
        self.gap = (0, 0);
        self.now = self.now.max(now);
        for chart in &mut self.charts {
            chart.level = chart.level.max(level);
            chart.counts = Counts::default();
            chart.onset = now;
            chart.level_at_onset = chart.level;
        }
    }

    /// While the canary has no weight: learns from stable only.
    pub fn baseline(&mut self, now: Duration, counts: Counts) {
        self.learn(seconds(now), counts);
    }

    fn learn(&mut self, now: f64, counts: Counts) {
        if let Some(passed) = self.baseline.refresh(now) {
            self.vetoes *= (-passed / 86_400.0).exp2();
        }
        self.baseline
            .add(counts.stable_requests, counts.stable_failures);
    }

    /// One tick. Late and repeated ticks do no harm.
    pub fn tick(&mut self, now: Duration, counts: Counts, control: Control) -> Verdict {
        debug_assert!(counts.canary_failures <= counts.canary_requests);
        debug_assert!(counts.stable_failures <= counts.stable_requests);
        if self.verdict.is_some() {
            return Verdict::Rollback;
        }
        let now = seconds(now);
        self.now = self.now.max(now);
        self.learn(now, counts);
        if counts.canary_requests > 0 {
            self.weigh(now, counts);
        } else {
            self.gap.0 = self.gap.0.saturating_add(counts.stable_requests);
            self.gap.1 = self.gap.1.saturating_add(counts.stable_failures);
            for chart in &mut self.charts {
                chart.counts = chart.counts.plus(Counts {
                    canary_requests: 0,
                    canary_failures: 0,
                    ..counts
                });
            }
        }
        self.conclude(control)
    }

    /// Lets every chart take in canary traffic.
    fn weigh(&mut self, now: f64, counts: Counts) {
        let gap = (now - self.canary_seen).clamp(0.001, 3_600.0);
        self.canary_seen = now;
        let usual = self.baseline.bound();
        let (failures, successes) = (
            float(counts.canary_failures),
            float(counts.canary_requests - counts.canary_failures),
        );
        for chart in &mut self.charts {
            let pot = chart.pot + gap / self.settings.budget_seconds;
            let floor = (pot / K_FLOAT).ln();
            if chart.level < floor {
                chart.level = floor;
                chart.counts = Counts {
                    stable_requests: self.gap.0,
                    stable_failures: self.gap.1,
                    ..Counts::default()
                };
                chart.onset = now - gap;
                chart.level_at_onset = floor;
            }
            chart.counts = chart.counts.plus(counts);
            let up = ((usual + (1.0 - usual) * chart.extra) / usual).ln();
            let down = (-chart.extra).ln_1p();
            chart.level = (chart.level + failures * up + successes * down).min(CAP);
            chart.pot = pot * (float(counts.canary_requests) * down).exp();
        }
        self.gap = (0, 0);
    }

    /// Both witnesses together.
    fn conclude(&mut self, control: Control) -> Verdict {
        let is_over = |chart: &Chart| chart.level >= 0.0;
        let mut best: Option<usize> = None;
        let mut weakest = f64::INFINITY;
        for (index, chart) in self
            .charts
            .iter()
            .enumerate()
            .filter(|(_, chart)| is_over(chart))
        {
            let enough = chart.counts.canary_failures >= self.settings.min_failures
                && chart.counts.canary_requests >= self.settings.min_requests;
            if enough && best.is_none_or(|best| chart.level > self.charts[best].level) {
                best = Some(index);
            }
            if control == Control::Compared {
                weakest = weakest.min(ratio_of(chart.counts));
            }
        }
        let over = self.charts.iter().any(is_over);
        if self.crossing && !over {
            self.vetoes += 1.0;
        }
        self.crossing = over;
        if let Some(best) = best {
            if weakest >= RATIO_MIN + self.vetoes.ln_1p() {
                self.verdict = Some(self.explain_chart(best));
                return Verdict::Rollback;
            }
            return Verdict::Hold(self.hold_reason(best, control));
        }
        let suspicious = 0.5 * (1.0 / self.settings.budget_seconds / K_FLOAT).ln();
        let suspects = self.charts.iter().any(|chart| {
            chart.level >= suspicious && chart.counts.canary_failures >= self.settings.min_failures
        });
        if suspects {
            Verdict::Hold(HoldReason::GatheringEvidence)
        } else {
            Verdict::Continue
        }
    }

    fn hold_reason(&self, chart: usize, control: Control) -> HoldReason {
        let counts = self.charts[chart].counts;
        if control == Control::Compared && counts.stable_requests == 0 {
            HoldReason::CannotCompare
        } else if counts.stable_failures > 0 {
            HoldReason::SharedOutage
        } else {
            HoldReason::GatheringEvidence
        }
    }

    fn highest(&self) -> usize {
        let mut highest = 0;
        for (index, chart) in self.charts.iter().enumerate() {
            if chart.level > self.charts[highest].level {
                highest = index;
            }
        }
        highest
    }

    fn explain_chart(&self, index: usize) -> Explanation {
        let chart = &self.charts[index];
        Explanation {
            canary_requests: chart.counts.canary_requests,
            canary_failures: chart.counts.canary_failures,
            stable_requests: chart.counts.stable_requests,
            stable_failures: chart.counts.stable_failures,
            seconds: self.now - chart.onset,
            usual_rate: self.baseline.bound(),
            odds_power: (chart.level - chart.level_at_onset) / std::f64::consts::LN_10,
        }
    }

    /// Whether two judges will say the same of whatever comes, apart from how long it took.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let same_time = Self {
            now: other.now,
            ..self.clone()
        };
        same_time == *other
    }

    /// Whether it has come to its verdict.
    #[must_use]
    pub const fn has_concluded(&self) -> bool {
        self.verdict.is_some()
    }

    /// The numbers of the verdict; before one, those of the highest chart.
    #[must_use]
    pub fn explain(&self) -> Explanation {
        self.verdict
            .unwrap_or_else(|| self.explain_chart(self.highest()))
    }

    /// How close the judge is to a rollback: 0 (nothing) to 1 (rolls back).
    #[must_use]
    pub fn evidence(&self) -> f64 {
        let level = self.charts[self.highest()].level;
        let scale = (1.0 / self.settings.budget_seconds / K_FLOAT).ln();
        let evidence = (1.0 - level / scale).clamp(0.0, 1.0);
        if evidence.is_nan() { 0.0 } else { evidence }
    }

    /// The state in numbers.
    #[must_use]
    pub fn reading(&self) -> Reading {
        let highest = self.highest();
        let counts = self.charts[highest].counts;
        Reading {
            levels: self.charts.map(|chart| chart.level),
            pots: self.charts.map(|chart| chart.pot),
            usual_rate: self.baseline.bound(),
            highest,
            counts,
            ratio: ratio_of(counts),
            vetoes: self.vetoes,
        }
    }
}

fn ratio_of(counts: Counts) -> f64 {
    ratio(
        counts.canary_requests,
        counts.canary_failures,
        counts.stable_requests,
        counts.stable_failures,
    )
}

/// Whole microseconds as seconds, so that every platform computes the same.
fn seconds(time: Duration) -> f64 {
    float(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)) / 1e6
}
