//! The plain rules of a service beside its judge: whichever fires first, stays fired.

use std::sync::Arc;
use std::time::Duration;

use switchback_config::model::{Rollback, Rule};
use switchback_config::template::Subject;
use switchback_judge::{Counts, Recorder, RuleState};

use super::Clock;
use super::signal::Signal;
use crate::evidence::RuleEvidence;
use crate::signals::Feed;

/// The rules for one watched version.
#[derive(Debug)]
pub(super) struct Rules {
    /// Those about requests, each with its words in the file.
    rates: Vec<(String, Recorder<RuleState>)>,
    /// Those about what is measured elsewhere.
    signals: Vec<Signal>,
    fired: Option<String>,
}

impl Rules {
    pub(super) fn new(settings: &Rollback, subject: Subject<'_>, now: Duration) -> Self {
        let mut rules = Self {
            rates: Vec::new(),
            signals: Vec::new(),
            fired: None,
        };
        for rule in &settings.rules {
            match rule {
                Rule::Rate(rate) => {
                    let words = String::from(rate.clone());
                    let rule = Recorder::of_rule(RuleState::new(rate, now));
                    rules.rates.push((words, rule));
                }
                Rule::Signal(signal) => rules.signals.push(Signal::new(signal, subject, now)),
            }
        }
        rules
    }

    /// Adds what happened since the last tick.
    pub(super) fn tick(&mut self, clock: Clock, counts: Counts) {
        for (words, rule) in &mut self.rates {
            if rule.tick(clock.now, counts) && self.fired.is_none() {
                self.fired = Some(words.clone());
            }
        }
        for signal in &mut self.signals {
            signal.tick(clock);
            if self.fired.is_none() {
                self.fired = signal.fired().map(str::to_owned);
            }
        }
    }

    /// The rule that has fired, in its words.
    pub(super) fn fired(&self) -> Option<&str> {
        self.fired.as_deref()
    }

    /// Why a share should not rise although no rule has fired.
    pub(super) fn hold(&self) -> Option<&str> {
        self.signals.iter().find_map(Signal::hold)
    }

    /// What somebody should hear of, once.
    pub(super) fn take_said(&mut self) -> impl Iterator<Item = (&'static str, String)> {
        self.signals.iter_mut().filter_map(Signal::take_said)
    }

    /// Where those who look at signals put what they see.
    pub(super) fn feeds(&self) -> Vec<Arc<Feed>> {
        self.signals
            .iter()
            .map(|signal| signal.feed().clone())
            .collect()
    }

    /// The rule that has fired, with what it was told.
    pub(super) fn evidence(&self) -> Option<RuleEvidence> {
        let rule = self.fired()?;
        let rate = self.rates.iter().find(|(words, _)| words == rule);
        let fired = |signal: &&Signal| signal.fired() == Some(rule);
        Some(RuleEvidence {
            rule: rule.to_owned(),
            tape: rate.and_then(|(_, recorder)| recorder.tape()),
            signal: self.signals.iter().find(fired).and_then(Signal::evidence),
        })
    }
}
