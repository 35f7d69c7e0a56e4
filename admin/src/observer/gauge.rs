//! What a watch shows of itself to other threads: they look, and nobody waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::{ArcSwap, ArcSwapOption};
use serde::Serialize;
use switchback_judge::{Explanation, Verdict};
use utoipa::ToSchema;

use super::case::Trouble;
use crate::signals::Feed;
use crate::state::{Hold, Standing};

/// What a watch shows of itself to other threads.
#[derive(Debug, Default)]
pub struct Gauge {
    evidence: AtomicU64,
    answered: AtomicU64,
    /// The same of the one it is compared with, and how many of them failed.
    stable: [AtomicU64; 2],
    hold: ArcSwapOption<Hold>,
    looks: ArcSwapOption<Vec<Look>>,
    signals: ArcSwap<Vec<Arc<Feed>>>,
}

/// The state of a judge in words.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Reading {
    /// What it judges: requests that fail, or requests that wait too long.
    #[schema(pattern = "^(errors|slow)$")]
    pub trouble: &'static str,
    /// How close it is to a rollback, 0 to 1.
    #[serde(skip)]
    pub evidence: f64,
    /// Longer than this is slow now, where that is judged and known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slower_than: Option<String>,
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

/// What a judge last had to say, not yet in words: a thousand judges have something to say every half
/// second, and hardly ever does anybody ask.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) trouble: Trouble,
    /// How close it is to a rollback, 0 to 1.
    pub(super) evidence: f64,
    /// What slow is, where that is judged and known.
    pub(super) slower_than: Option<Arc<str>>,
    pub(super) verdict: Verdict,
    pub(super) explanation: Explanation,
}

impl Look {
    fn reading(&self) -> Reading {
        let slower_than = self.slower_than.as_deref();
        let hold = match self.verdict {
            Verdict::Hold(reason) => Some(self.trouble.hold_text(reason).to_owned()),
            Verdict::Continue | Verdict::Rollback => None,
        };
        Reading {
            trouble: self.trouble.as_str(),
            evidence: self.evidence,
            slower_than: slower_than.map(str::to_owned),
            verdict: match self.verdict {
                Verdict::Continue => "continue",
                Verdict::Hold(_) => "hold",
                Verdict::Rollback => "rollback",
            },
            hold,
            explanation: self.explanation,
            sentence: self.trouble.sentence(&self.explanation, slower_than),
        }
    }
}

impl Gauge {
    /// How close the nearest judge is to a rollback, 0 to 1.
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
            stable_requests: self.stable[0].load(Relaxed),
            stable_failures: self.stable[1].load(Relaxed),
        }
    }

    /// What the judges last had to say; the one about errors first.
    #[must_use]
    pub fn readings(&self) -> Vec<Reading> {
        let looks = self.looks.load();
        let looks = looks.iter().flat_map(|looks| looks.iter());
        looks.map(Look::reading).collect()
    }

    /// What the judge that is closest to a rollback last had to say; the first one among equals.
    #[must_use]
    pub fn nearest(&self) -> Option<Reading> {
        let rank = |reading: &Reading| match reading.verdict {
            "rollback" => 2,
            "hold" => 1,
            _ => 0,
        };
        self.readings().into_iter().reduce(|nearest, other| {
            let is_nearer = (rank(&other), other.evidence) > (rank(&nearest), nearest.evidence);
            if is_nearer { other } else { nearest }
        })
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

    pub(super) fn set_stable(&self, (requests, failures): (u64, u64)) {
        self.stable[0].store(requests, Relaxed);
        self.stable[1].store(failures, Relaxed);
    }

    pub(super) fn set_hold(&self, hold: Option<Hold>) {
        self.hold.store(hold.map(Arc::new));
    }

    pub(super) fn set_looks(&self, looks: Vec<Look>) {
        self.looks.store(Some(Arc::new(looks)));
    }
}
