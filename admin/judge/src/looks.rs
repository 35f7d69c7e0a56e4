//! What a signal was told, kept so that its verdict can be checked later.
//!
//! As [`crate::replay`] does for judges: a [`SignalRecorder`] stands around a [`SignalState`] and writes
//! down every answer, with the number that made it good or bad. The last [`LOOKS_MAX`] are kept, and the
//! state before them. Time is whole microseconds, so that a [`SignalTape`] comes to the same conclusion at
//! the same answer when it is played again.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::replay::Mismatch;
use crate::signal::{SignalStanding, SignalState};

/// Answers that are kept: an hour at one every ten seconds, in some 10 KiB.
const LOOKS_MAX: usize = 360;

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Row", into = "Row")]
pub struct Look {
    /// When, in microseconds since the start of the process.
    pub at_us: u64,
    /// The number, or the status of a check.
    pub value: f64,
    /// Whether that is bad.
    pub bad: bool,
}

/// An answer as it is written.
type Row = (u64, Number, bool);

/// JSON has no infinity.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Number {
    Finite(f64),
    Infinite(Infinity),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Infinity {
    #[serde(rename = "+Inf")]
    Positive,
    #[serde(rename = "-Inf")]
    Negative,
}

impl From<Look> for Row {
    fn from(Look { at_us, value, bad }: Look) -> Self {
        let number = match value {
            f64::INFINITY => Number::Infinite(Infinity::Positive),
            f64::NEG_INFINITY => Number::Infinite(Infinity::Negative),
            finite => Number::Finite(finite),
        };
        (at_us, number, bad)
    }
}

impl From<Row> for Look {
    fn from((at_us, number, bad): Row) -> Self {
        let value = match number {
            Number::Finite(value) => value,
            Number::Infinite(Infinity::Positive) => f64::INFINITY,
            Number::Infinite(Infinity::Negative) => f64::NEG_INFINITY,
        };
        Self { at_us, value, bad }
    }
}

/// A signal that remembers what it was told.
#[derive(Clone, Debug)]
pub struct SignalRecorder {
    state: SignalState,
    /// The state before the first of these.
    checkpoint: SignalState,
    looks: VecDeque<Look>,
    fired_us: Option<u64>,
}

/// A recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SignalTape {
    /// The state before the first answer.
    pub checkpoint: SignalState,
    /// What came after it.
    pub looks: Vec<Look>,
    /// The time of the answer with which it fired, if it did.
    pub concluded_us: Option<u64>,
}

impl SignalRecorder {
    /// A recorded signal.
    #[must_use]
    pub fn new(state: SignalState) -> Self {
        Self {
            checkpoint: state.clone(),
            state,
            looks: VecDeque::new(),
            fired_us: None,
        }
    }

    /// See [`SignalState::note`]. What comes after it has fired is not written down.
    pub fn note(&mut self, now: Duration, value: f64, bad: bool) {
        let look = Look {
            at_us: u64::try_from(now.as_micros()).unwrap_or(u64::MAX),
            value,
            bad,
        };
        let had_fired = self.state.has_fired();
        tell(&mut self.state, look);
        if had_fired {
            return;
        }
        if self.looks.len() == LOOKS_MAX
            && let Some(oldest) = self.looks.pop_front()
        {
            tell(&mut self.checkpoint, oldest);
        }
        self.looks.push_back(look);
        if self.state.has_fired() {
            self.fired_us = Some(look.at_us);
        }
    }

    /// See [`SignalState::standing`].
    #[must_use]
    pub fn standing(&self, now: Duration) -> SignalStanding {
        self.state.standing(now)
    }

    /// See [`SignalState::begin_again_when_fine`]. What was recorded until then is of no use any more.
    pub fn begin_again_when_fine(&mut self) -> bool {
        let is_over = self.state.begin_again_when_fine();
        if is_over {
            *self = Self::new(self.state.clone());
        }
        is_over
    }

    /// What was recorded so far; none if it was told nothing.
    #[must_use]
    pub fn tape(&self) -> Option<SignalTape> {
        let is_told = !self.looks.is_empty();
        is_told.then(|| SignalTape {
            checkpoint: self.checkpoint.clone(),
            looks: self.looks.iter().copied().collect(),
            concluded_us: self.fired_us,
        })
    }
}

impl SignalTape {
    /// Plays it again; the signal as it is at the end.
    ///
    /// # Errors
    /// When it fires at another answer, or not at all.
    pub fn replay(&self) -> Result<SignalState, Mismatch> {
        let mut state = self.checkpoint.clone();
        let mut fired_us = None;
        for look in &self.looks {
            tell(&mut state, *look);
            if state.has_fired() {
                fired_us.get_or_insert(look.at_us);
            }
        }
        if fired_us == self.concluded_us {
            return Ok(state);
        }
        Err(Mismatch {
            replayed_us: fired_us,
            recorded_us: self.concluded_us,
        })
    }
}

fn tell(state: &mut SignalState, look: Look) {
    state.note(Duration::from_micros(look.at_us), look.bad);
}
