//! What a watch shows of itself to other threads: they look, and nobody waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::{ArcSwap, ArcSwapOption};
use serde::Serialize;
use switchback_judge::Explanation;
use utoipa::ToSchema;

use crate::signals::Feed;
use crate::state::{Hold, Standing};

/// What a watch shows of itself to other threads.
#[derive(Debug, Default)]
pub struct Gauge {
    evidence: AtomicU64,
    answered: AtomicU64,
    hold: ArcSwapOption<Hold>,
    reading: ArcSwapOption<Reading>,
    signals: ArcSwap<Vec<Arc<Feed>>>,
}

/// The state of a judge in words.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Reading {
    /// `continue`, `hold` or `rollback`.
    #[schema(pattern = "^(continue|hold|rollback)$")]
    pub verdict: &'static str,
    /// Why it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
    /// The numbers.
    #[schema(value_type = crate::api::views::judge::Explanation)]
    pub explanation: Explanation,
    /// The numbers in one sentence.
    pub sentence: String,
}

impl Gauge {
    /// How close the judge is to a rollback, 0 to 1.
    #[must_use]
    pub fn evidence(&self) -> f64 {
        f64::from_bits(self.evidence.load(Relaxed))
    }

    /// How the watched version does with the share it has now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing {
            requests: self.answered.load(Relaxed),
            hold: self.hold.load().as_deref().cloned(),
        }
    }

    /// What the judge last had to say.
    #[must_use]
    pub fn reading(&self) -> Option<Arc<Reading>> {
        self.reading.load_full()
    }

    /// The signals of the watched version.
    #[must_use]
    pub fn signals(&self) -> Arc<Vec<Arc<Feed>>> {
        self.signals.load_full()
    }

    pub(super) fn set_signals(&self, signals: Vec<Arc<Feed>>) {
        self.signals.store(Arc::new(signals));
    }

    pub(super) fn set_evidence(&self, evidence: f64) {
        self.evidence.store(evidence.to_bits(), Relaxed);
    }

    pub(super) fn set_answered(&self, requests: u64) {
        self.answered.store(requests, Relaxed);
    }

    pub(super) fn set_hold(&self, hold: Option<Hold>) {
        self.hold.store(hold.map(Arc::new));
    }

    pub(super) fn set_reading(&self, reading: Reading) {
        self.reading.store(Some(Arc::new(reading)));
    }
}
