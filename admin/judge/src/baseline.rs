//! What stable's failure rate usually is: an upper bound that forgets.
//!
//! Two decayed averages (half-lives of 30 s and 600 s) of stable's failures and requests; each gives
//! an upper confidence bound, and the lower of the two holds, so that neither one bad minute nor one
//! bad hour ago makes the judge blind. Only stable traffic of *earlier* ticks is used: a reference
//! that does not peek at the present is what makes the promise about false rollbacks true
//! (predictability, in the words of Shin, Ramdas and Rinaldo, "E-detectors", 2023).

use serde::{Deserialize, Serialize};

use crate::likelihood::float;

/// Half-lives of the two averages, in seconds.
const HALF_LIVES: [f64; 2] = [30.0, 600.0];

/// Before anything was seen, stable is believed to fail one request in this many.
const PRIOR_REQUESTS: f64 = 1_000.0;

/// The bound stays inside these, so that no single failure is an infinite surprise and no rate of
/// stable makes every canary acceptable.
const BOUNDS: (f64, f64) = (1e-4, 0.5);

/// Decayed counts of stable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    failures: [f64; 2],
    requests: [f64; 2],
    pending: (u64, u64),
    refreshed: f64,
    bound: f64,
}

impl Baseline {
    /// A baseline that has seen nothing.
    #[must_use]
    pub fn new(now: f64) -> Self {
        let mut baseline = Self {
            failures: [0.0; 2],
            requests: [0.0; 2],
            pending: (0, 0),
            refreshed: now,
            bound: 0.0,
        };
        baseline.bound = baseline.upper_bound();
        baseline
    }

    /// The upper bound of stable's usual failure rate.
    #[must_use]
    pub const fn bound(&self) -> f64 {
        self.bound
    }

    /// Forgets everything: another version is stable now.
    pub fn clear(&mut self) {
        self.failures = [0.0; 2];
        self.requests = [0.0; 2];
    }

    /// Takes in what earlier ticks left, at most once a second. Returns the seconds since the last
    /// time, if it did. Without stable traffic the averages are frozen, not forgotten.
    pub fn refresh(&mut self, now: f64) -> Option<f64> {
        let passed = now - self.refreshed;
        let is_due = passed >= 1.0;
        if !is_due {
            return None;
        }
        let (requests, failures) = self.pending;
        if requests > 0 {
            for (index, half_life) in HALF_LIVES.iter().enumerate() {
                let kept = (-passed / half_life).exp2();
                self.failures[index] = self.failures[index] * kept + float(failures);
                self.requests[index] = self.requests[index] * kept + float(requests);
            }
            self.pending = (0, 0);
            self.bound = self.upper_bound();
        }
        self.refreshed = now;
        Some(passed)
    }

    /// Adds this tick's stable traffic, to be used by later ticks.
    pub const fn add(&mut self, requests: u64, failures: u64) {
        self.pending.0 = self.pending.0.saturating_add(requests);
        self.pending.1 = self.pending.1.saturating_add(failures);
    }

    /// Mean plus two standard deviations, with a prior.
    fn upper_bound(&self) -> f64 {
        let bound = |index: usize| {
            let requests = self.requests[index] + PRIOR_REQUESTS;
            let mean = (self.failures[index] + 1.0) / requests;
            mean + 2.0 * (mean * (1.0 - mean) / requests).sqrt()
        };
        bound(0).min(bound(1)).clamp(BOUNDS.0, BOUNDS.1)
    }
}
