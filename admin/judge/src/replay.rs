//! What a judge was told, kept so that its verdict can be checked later.
//!
//! A [`Recorder`] stands around a [`Judge`] or a [`RuleState`] and writes down everything that goes in:
//! a checkpoint of the state, and every input since. When the list gets long, a new checkpoint is made
//! and the list before the last one is dropped, so that memory is bounded and the last
//! [`INPUTS_MIN`] inputs are always there. A [`Tape`] is such a recording at one moment. Played again
//! it must come to the same conclusion at the same input; judges are pure, floats survive JSON, and time
//! is whole microseconds, so this is a comparison for equality and not for likeness.
//!
//! What changes nothing but the time is not written down, except for the last of it: ticks without
//! traffic between two refreshes of the baseline, and for rules everything but the sums of whole buckets.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::judge::{Control, Counts, Judge, Settings, Verdict};
use crate::rule::RuleState;

/// Inputs between two checkpoints; a recording holds at most twice as many. At twenty ticks a second
/// this is the last one to two minutes, in 50 to 100 KiB.
const INPUTS_MIN: usize = 1_024;

/// Something a machine is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Row", into = "Row")]
pub struct Input {
    /// When, in microseconds since the start of the process.
    pub at_us: u64,
    /// What.
    pub what: What,
}

/// What a machine is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// What happened since the last tick.
    Tick(Counts, Control),
    /// The canary's share rose.
    HeadStart,
    /// Another version, or an unblocked one.
    NewVersion,
    /// Another version is stable.
    NewStable,
}

/// An input as it is written: its kind, the time, and the four counts.
type Row = (String, u64, u64, u64, u64, u64);

impl From<Input> for Row {
    fn from(Input { at_us, what }: Input) -> Self {
        let (kind, counts) = match what {
            What::Tick(counts, Control::Compared) => ("tick", counts),
            What::Tick(counts, Control::Alone) => ("tick_alone", counts),
            What::HeadStart => ("head_start", Counts::default()),
            What::NewVersion => ("new_version", Counts::default()),
            What::NewStable => ("new_stable", Counts::default()),
        };
        (
            kind.into(),
            at_us,
            counts.canary_requests,
            counts.canary_failures,
            counts.stable_requests,
            counts.stable_failures,
        )
    }
}

impl TryFrom<Row> for Input {
    type Error = String;

    fn try_from(row: Row) -> Result<Self, String> {
        let (kind, at_us, canary_requests, canary_failures, stable_requests, stable_failures) = row;
        if canary_failures > canary_requests || stable_failures > stable_requests {
            return Err(format!("more failures than requests at {at_us} us"));
        }
        let counts = Counts {
            canary_requests,
            canary_failures,
            stable_requests,
            stable_failures,
        };
        let what = match &*kind {
            "tick" => What::Tick(counts, Control::Compared),
            "tick_alone" => What::Tick(counts, Control::Alone),
            "head_start" => What::HeadStart,
            "new_version" => What::NewVersion,
            "new_stable" => What::NewStable,
            _ => return Err(format!("{kind:?} is no kind of input")),
        };
        Ok(Self { at_us, what })
    }
}

/// Something that can be recorded and played again.
pub trait Machine: Clone {
    /// What it answers to an input.
    type Said: Copy;

    /// Takes an input in.
    fn apply(&mut self, input: &Input) -> Self::Said;

    /// Whether this answer is its conclusion.
    fn concludes(said: Self::Said) -> bool;
}

impl Machine for Judge {
    type Said = Verdict;

    fn apply(&mut self, input: &Input) -> Verdict {
        let now = Duration::from_micros(input.at_us);
        match input.what {
            What::Tick(counts, control) => return self.tick(now, counts, control),
            What::HeadStart => self.head_start(now),
            What::NewVersion => self.new_version(now),
            What::NewStable => self.new_stable(now),
        }
        Verdict::Continue
    }

    fn concludes(said: Verdict) -> bool {
        said == Verdict::Rollback
    }
}

impl Machine for RuleState {
    type Said = bool;

    fn apply(&mut self, input: &Input) -> bool {
        match input.what {
            What::Tick(counts, _) => self.tick(Duration::from_micros(input.at_us), counts),
            What::HeadStart | What::NewVersion | What::NewStable => false,
        }
    }

    fn concludes(said: bool) -> bool {
        said
    }
}

/// A state, and what the machine was told since.
#[derive(Clone, Debug)]
struct Segment<M> {
    checkpoint: M,
    inputs: Vec<Input>,
}

/// A machine that remembers what it was told.
#[derive(Clone, Debug)]
pub struct Recorder<M> {
    machine: M,
    older: Option<Segment<M>>,
    newer: Option<Segment<M>>,
    concluded_us: Option<u64>,
    /// The last input, if it changed nothing but the time.
    quiet: Option<Input>,
    /// What a rule has been told since its bucket began.
    pending: Counts,
}

/// A recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tape<M> {
    /// The state before the first input.
    pub checkpoint: M,
    /// What came after it.
    pub inputs: Vec<Input>,
    /// The time of the input with which it came to its conclusion, if it did.
    pub concluded_us: Option<u64>,
}

/// A recording says something else when it is played again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("played again it concludes {}, recorded was {}", moment(*.replayed_us), moment(*.recorded_us))]
pub struct Mismatch {
    /// When it concludes now, in microseconds since the start of the process.
    pub replayed_us: Option<u64>,
    /// When it did.
    pub recorded_us: Option<u64>,
}

fn moment(at_us: Option<u64>) -> String {
    at_us.map_or_else(|| "never".into(), |at_us| format!("at {at_us} us"))
}

impl<M: Machine> Tape<M> {
    /// Plays it again; the machine as it is at the end.
    ///
    /// # Errors
    /// When it comes to another conclusion, or to the same at another input.
    pub fn replay(&self) -> Result<M, Mismatch> {
        let mut machine = self.checkpoint.clone();
        let mut concluded_us = None;
        for input in &self.inputs {
            if input.what == What::NewVersion {
                concluded_us = None;
            }
            if M::concludes(machine.apply(input)) {
                concluded_us.get_or_insert(input.at_us);
            }
        }
        if concluded_us == self.concluded_us {
            return Ok(machine);
        }
        Err(Mismatch {
            replayed_us: concluded_us,
            recorded_us: self.concluded_us,
        })
    }
}

impl<M: Machine> Recorder<M> {
    fn around(machine: M) -> Self {
        Self {
            machine,
            older: None,
            newer: None,
            concluded_us: None,
            quiet: None,
            pending: Counts::default(),
        }
    }

    /// What was recorded so far; none if it was told nothing.
    #[must_use]
    pub fn tape(&self) -> Option<Tape<M>> {
        let newer = self.newer.as_ref()?;
        let older = self.older.as_ref();
        let mut inputs = older.map_or_else(Vec::new, |older| older.inputs.clone());
        inputs.extend_from_slice(&newer.inputs);
        inputs.extend(self.quiet);
        Some(Tape {
            checkpoint: older.unwrap_or(newer).checkpoint.clone(),
            inputs,
            concluded_us: self.concluded_us,
        })
    }

    /// Tells the machine, and writes it down if `matters` says that it made a difference.
    fn feed(&mut self, input: Input, matters: impl FnOnce(&M, &M) -> bool) -> M::Said {
        let before = self.machine.clone();
        let said = self.machine.apply(&input);
        if input.what == What::NewVersion {
            self.concluded_us = None;
        }
        if M::concludes(said) {
            self.concluded_us.get_or_insert(input.at_us);
        } else if !matters(&before, &self.machine) {
            self.quiet = Some(input);
            return said;
        }
        self.quiet = None;
        let is_full = |newer: &Segment<M>| newer.inputs.len() >= INPUTS_MIN;
        if self.newer.as_ref().is_some_and(is_full) {
            self.older = self.newer.take();
        }
        let newer = self.newer.get_or_insert_with(|| Segment {
            checkpoint: before,
            inputs: Vec::new(),
        });
        newer.inputs.push(input);
        said
    }

    fn forget(&mut self) {
        (self.older, self.newer, self.quiet) = (None, None, None);
    }
}

impl Recorder<Judge> {
    /// A recorded judge whose canary starts now.
    #[must_use]
    pub fn new(settings: Settings, now: Duration) -> Self {
        Self::around(Judge::new(settings, now))
    }

    /// The judge itself.
    #[must_use]
    pub const fn judge(&self) -> &Judge {
        &self.machine
    }

    /// See [`Judge::head_start`].
    pub fn head_start(&mut self, now: Duration) {
        self.tell(now, What::HeadStart);
    }

    /// See [`Judge::new_version`]. What was recorded of another version is of no use any more.
    pub fn new_version(&mut self, now: Duration) {
        self.forget();
        self.tell(now, What::NewVersion);
    }

    /// See [`Judge::new_stable`].
    pub fn new_stable(&mut self, now: Duration) {
        self.tell(now, What::NewStable);
    }

    /// See [`Judge::baseline`]. Nothing is recorded while nobody is judged: the next input begins with
    /// a checkpoint of its own.
    pub fn baseline(&mut self, now: Duration, counts: Counts) {
        if !self.machine.has_concluded() {
            self.forget();
        }
        self.machine.baseline(now, counts);
    }

    /// See [`Judge::tick`].
    pub fn tick(&mut self, now: Duration, counts: Counts, control: Control) -> Verdict {
        if self.machine.has_concluded() {
            return Verdict::Rollback;
        }
        let is_busy = counts != Counts::default();
        self.feed(input(now, What::Tick(counts, control)), |before, after| {
            is_busy || !before.is_like(after)
        })
    }

    fn tell(&mut self, now: Duration, what: What) {
        self.feed(input(now, what), |_, _| true);
    }
}

impl Recorder<RuleState> {
    /// A recorded rule.
    #[must_use]
    pub fn of_rule(rule: RuleState) -> Self {
        Self::around(rule)
    }

    /// See [`RuleState::tick`]. A rule adds up until its bucket ends, so this does too: what is written
    /// down is one input for each bucket.
    pub fn tick(&mut self, now: Duration, counts: Counts) -> bool {
        let sum = self.pending.plus(counts);
        let input = input(now, What::Tick(sum, Control::Compared));
        if !self.machine.bucket_ends(Duration::from_micros(input.at_us)) {
            self.pending = sum;
            return false;
        }
        self.pending = Counts::default();
        self.feed(input, |_, _| true)
    }
}

fn input(now: Duration, what: What) -> Input {
    Input {
        at_us: u64::try_from(now.as_micros()).unwrap_or(u64::MAX),
        what,
    }
}
