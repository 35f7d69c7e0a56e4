//! Signals: what is measured elsewhere and looked at from time to time.
//!
//! Each look either says whether things are bad, or nothing at all. A signal fires once it has been bad
//! for its whole span. Silence is neither good nor bad: the last answer counts for a few looks, then the
//! signal is *missing*. Missing never fires. Its time is left out of a run of bad answers, and a gap
//! as long as the span begins the run anew, since nobody knows what happened in it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a signal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalStanding {
    /// Nothing recent is known.
    Missing,
    /// Not bad.
    Fine,
    /// Bad, but not for long enough.
    Pending,
    /// Has been bad for its whole span; stays so.
    Firing,
}

/// A signal over time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalState {
    span: Duration,
    /// How long an answer counts.
    fresh: Duration,
    last: Option<Duration>,
    /// How long it has been bad, as far as is known.
    run: Option<Duration>,
    fired: bool,
}

impl SignalState {
    /// Nothing is known yet. `span`: how long it must be bad; `fresh`: how long an answer counts.
    #[must_use]
    pub const fn new(span: Duration, fresh: Duration) -> Self {
        Self {
            span,
            fresh,
            last: None,
            run: None,
            fired: false,
        }
    }

    /// Adds an answer.
    pub fn note(&mut self, now: Duration, bad: bool) {
        let gap = self.last.map(|last| now.saturating_sub(last));
        self.last = Some(now);
        self.run = match (bad, self.run, gap) {
            (false, ..) => None,
            (true, Some(run), Some(gap)) if gap <= self.fresh => Some(run + gap),
            (true, Some(run), Some(gap)) if gap < self.span => Some(run),
            (true, ..) => Some(Duration::ZERO),
        };
        self.fired |= self.run.is_some_and(|run| run >= self.span);
    }

    /// Whether it was bad for its whole span at any time.
    #[must_use]
    pub const fn has_fired(&self) -> bool {
        self.fired
    }

    /// Begins again, if it has fired and is not bad any more; whether it did.
    pub const fn begin_again_when_fine(&mut self) -> bool {
        let is_over = self.fired && self.run.is_none();
        self.fired &= !is_over;
        is_over
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self, now: Duration) -> SignalStanding {
        let known = |last| now.saturating_sub(last) <= self.fresh;
        if self.fired {
            SignalStanding::Firing
        } else if !self.last.is_some_and(known) {
            SignalStanding::Missing
        } else if self.run.is_some() {
            SignalStanding::Pending
        } else {
            SignalStanding::Fine
        }
    }
}
