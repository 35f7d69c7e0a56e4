//! A signal of a watched version: what was last heard of it, and what follows.
//!
//! Others look at it, see [`crate::signals`]; here it is only read what they put, which is never waited
//! for. Missing data holds a rollout and rolls nothing back.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use switchback_config::defaults::SIGNAL_FRESH;
use switchback_config::model;
use switchback_config::template::Subject;
use switchback_judge::{SignalRecorder, SignalStanding, SignalState};

use super::Clock;
use crate::evidence::SignalEvidence;
use crate::signals::{Feed, Measured, SignalView, bad_in_words, in_words};

/// A signal over time.
#[derive(Debug)]
pub(super) struct Signal {
    feed: Arc<Feed>,
    state: SignalRecorder,
    /// The look that was noted last.
    noted: u64,
    measured: Option<Measured>,
    error: Option<String>,
    standing: SignalStanding,
    since: Option<Timestamp>,
    /// When somebody should hear that it is missing, unless a look says why before.
    patient_until: Duration,
    told_missing: bool,
    said: Option<(&'static str, String)>,
    hold: Option<String>,
    fired: Option<String>,
}

impl Signal {
    pub(super) fn new(signal: &Arc<model::Signal>, subject: Subject<'_>, now: Duration) -> Self {
        let fresh = signal.every.0 * SIGNAL_FRESH;
        Self {
            feed: Arc::new(Feed::new(signal, subject)),
            state: SignalRecorder::new(SignalState::new(signal.span.0, fresh)),
            noted: 0,
            measured: None,
            error: None,
            standing: SignalStanding::Missing,
            since: None,
            patient_until: now + fresh,
            told_missing: false,
            said: None,
            hold: Some(format!("{} has not answered yet", named(signal))),
            fired: None,
        }
    }

    /// Reads what was put since the last tick.
    pub(super) fn tick(&mut self, clock: Clock) {
        let news = self.note(clock.now);
        let standing = self.state.standing(clock.now);
        let changed = standing != self.standing || self.since.is_none();
        if changed {
            self.standing = standing;
            self.since = Some(clock.at);
        }
        let overdue = standing == SignalStanding::Missing
            && !self.told_missing
            && clock.now >= self.patient_until;
        if !(news || changed || overdue) {
            return;
        }
        self.settle(clock.now);
        self.feed.show(self.view());
    }

    /// Notes a look that is new.
    fn note(&mut self, now: Duration) -> bool {
        let Some(look) = self.feed.look().filter(|look| look.number != self.noted) else {
            return false;
        };
        self.noted = look.number;
        match &look.outcome {
            Ok(measured) => {
                self.state.note(now, measured.number, measured.bad);
                self.measured = Some(*measured);
                self.error = None;
            }
            Err(error) => self.error = Some(error.clone()),
        }
        true
    }

    /// What follows from how it stands.
    fn settle(&mut self, now: Duration) {
        let signal = self.feed.signal();
        let name = named(signal);
        let words = self.measured.map(|measured| in_words(signal, measured));
        let words = words.unwrap_or_default();
        self.hold = match self.standing {
            SignalStanding::Missing => Some(match (&self.error, self.measured) {
                (Some(error), _) => format!("{name} has no data: {error}"),
                (None, Some(_)) => format!("{name} has said nothing new for too long"),
                (None, None) => format!("{name} has not answered yet"),
            }),
            SignalStanding::Pending => {
                Some(format!("{name}: {words}; fires after {}", signal.span))
            }
            SignalStanding::Fine | SignalStanding::Firing => None,
        };
        if self.standing == SignalStanding::Firing && self.fired.is_none() {
            self.fired = Some(format!("{name}: {words} for {}", signal.span));
        }
        let missing = self.standing == SignalStanding::Missing;
        if missing && !self.told_missing && (self.error.is_some() || now >= self.patient_until) {
            self.told_missing = true;
            self.said = self.hold.clone().map(|hold| ("signal_missing", hold));
        } else if !missing && self.told_missing {
            self.told_missing = false;
            self.said = Some(("signal_back", format!("{name} has data again: {words}")));
        }
    }

    fn view(&self) -> SignalView {
        let signal = self.feed.signal();
        SignalView {
            name: signal.name.clone(),
            backend: None,
            source: signal.source.kind(),
            state: self.standing.into(),
            value: self.measured.map(|measured| measured.number),
            threshold: bad_in_words(signal),
            span: signal.span.to_string(),
            since: self.since,
            error: self.error.clone(),
        }
    }

    /// Where those who look at it put what they see.
    pub(super) const fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// What has fired, in a sentence.
    pub(super) fn fired(&self) -> Option<&str> {
        self.fired.as_deref()
    }

    /// What it was told.
    pub(super) fn evidence(&self) -> Option<SignalEvidence> {
        let tape = self.state.tape()?;
        let bad = bad_in_words(self.feed.signal());
        Some(SignalEvidence { bad, tape })
    }

    /// Begins again, if it has fired and is not bad any more; whether it did.
    pub(super) fn begin_again_when_fine(&mut self) -> bool {
        let is_over = self.state.begin_again_when_fine();
        if is_over {
            self.fired = None;
        }
        is_over
    }

    /// Why a share should not rise.
    pub(super) fn hold(&self) -> Option<&str> {
        self.hold.as_deref()
    }

    /// What somebody should hear of, once.
    pub(super) fn take_said(&mut self) -> Option<(&'static str, String)> {
        self.said.take()
    }
}

/// `signal orders (prometheus)`.
pub(super) fn named(signal: &model::Signal) -> String {
    format!("signal {} ({})", signal.name, signal.source.kind())
}
