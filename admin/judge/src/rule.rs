//! Plain rules: `error_rate > 5% for 5m`.
//!
//! Time is cut into buckets of a twentieth of the span, at least one second. A bucket whose rate is
//! above the threshold starts or continues a run, one at or below it ends the run, an empty one does
//! not count. The rule fires at the end of a bucket once the run is as long as the span, so at the
//! latest one bucket after an exact clock would. With `and not stable`, buckets in which stable was
//! above the threshold too end the run.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use switchback_config::model::RateRule;

use crate::judge::Counts;
use crate::likelihood::float;

/// Shortest bucket.
const BUCKET_MIN: Duration = Duration::from_secs(1);

/// Buckets in a span.
const BUCKETS: u32 = 20;

/// A rule and how long it has been broken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleState {
    threshold: f64,
    span: Duration,
    not_stable: bool,
    bucket: Duration,
    bucket_start: Duration,
    counts: Counts,
    run_start: Option<Duration>,
    /// What was counted in the run.
    #[serde(default)]
    run: Counts,
}

impl RuleState {
    /// A rule that has not been broken until now.
    #[must_use]
    pub fn new(rule: &RateRule, now: Duration) -> Self {
        Self {
            threshold: rule.threshold.fraction(),
            span: rule.span.0,
            not_stable: rule.not_stable,
            bucket: (rule.span.0 / BUCKETS).max(BUCKET_MIN),
            bucket_start: now,
            counts: Counts::default(),
            run_start: None,
            run: Counts::default(),
        }
    }

    /// Whether it was above the threshold when that was last looked at, for however long.
    #[must_use]
    pub const fn is_broken(&self) -> bool {
        self.run_start.is_some()
    }

    /// What was counted since it is broken.
    #[must_use]
    pub const fn run(&self) -> Counts {
        self.run
    }

    /// Adds what happened since the last tick; tells whether the rule fires now.
    pub fn tick(&mut self, now: Duration, counts: Counts) -> bool {
        let start = self.bucket_start;
        self.counts = self.counts.plus(counts);
        if !self.bucket_ends(now) {
            return false;
        }
        self.bucket_start = now;
        self.close_bucket(start, now)
    }

    /// Whether a tick now closes a bucket; until then it only adds up.
    pub(crate) fn bucket_ends(&self, now: Duration) -> bool {
        now.saturating_sub(self.bucket_start) >= self.bucket
    }

    fn close_bucket(&mut self, start: Duration, end: Duration) -> bool {
        let counts = std::mem::take(&mut self.counts);
        if counts.canary_requests == 0 {
            return false;
        }
        let above =
            |failures: u64, requests: u64| float(failures) > self.threshold * float(requests);
        let shared = self.not_stable && above(counts.stable_failures, counts.stable_requests);
        if shared || !above(counts.canary_failures, counts.canary_requests) {
            self.run_start = None;
            self.run = Counts::default();
            return false;
        }
        self.run = self.run.plus(counts);
        let run_start = *self.run_start.get_or_insert(start);
        end.saturating_sub(run_start) >= self.span
    }
}
