//! The plain rules of a service beside its judge: whichever fires first, stays fired.

use std::time::Duration;

use switchback_config::model::Rollback;
use switchback_judge::{Counts, RuleState};

/// The rules for one watched version.
#[derive(Debug)]
pub(super) struct Rules {
    /// Each with its words in the file.
    rules: Vec<(String, RuleState)>,
    fired: Option<usize>,
}

impl Rules {
    pub(super) fn new(settings: &Rollback, now: Duration) -> Self {
        let rule = |rule: &switchback_config::model::Rule| {
            (String::from(rule.clone()), RuleState::new(rule, now))
        };
        Self {
            rules: settings.rules.iter().map(rule).collect(),
            fired: None,
        }
    }

    /// Adds what happened since the last tick.
    pub(super) fn tick(&mut self, now: Duration, counts: Counts) {
        for (index, (_, rule)) in self.rules.iter_mut().enumerate() {
            if rule.tick(now, counts) {
                self.fired.get_or_insert(index);
            }
        }
    }

    /// The rule that has fired, in its words.
    pub(super) fn fired(&self) -> Option<&str> {
        self.fired.map(|index| &*self.rules[index].0)
    }
}
