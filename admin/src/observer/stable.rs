//! The watch over a stable backend while no other version is judged: plain rules that only tell.
//!
//! Rules are written for the version that changed last. When there is none — no canary has weight, and
//! stable is not on trial — there is nothing to go back to either, but somebody should hear that a rule
//! holds. Each rule tells once when it fires and once when that is over. `and not stable` makes a rule
//! about the difference between two versions, and there is only one: such rules are left out.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde::Serialize;
use switchback_config::model::{Name, RateRule, Rollback, Rule};
use switchback_config::template::Subject;
use switchback_judge::{Counts, RuleState};
use switchback_proxy::snapshot;
use utoipa::ToSchema;

use super::Clock;
use super::case::Trouble;
use super::reader::Reader;
use super::signal::Signal;
use crate::signals::Feed;

/// Nothing follows from these rules, and whoever hears of them should know that.
const NOTHING_FOLLOWS: &str = "no other version has weight, so nothing is rolled back";

/// A plain rule that fires about stable itself.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct FiringRule {
    /// The stable backend.
    pub backend: Name,
    /// The rule, in its own words.
    pub rule: String,
    /// Since when it fires.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// What was seen, in a sentence.
    pub sentence: String,
}

/// What the watch over a stable backend shows of itself to other threads.
#[derive(Debug)]
pub struct StableGauge {
    backend: Name,
    rules: Vec<String>,
    signals: Vec<Arc<Feed>>,
    firing: ArcSwap<Vec<FiringRule>>,
}

impl StableGauge {
    /// The stable backend.
    #[must_use]
    pub const fn backend(&self) -> &Name {
        &self.backend
    }

    /// All rules that are looked at, in their own words.
    #[must_use]
    pub fn rules(&self) -> &[String] {
        &self.rules
    }

    /// Those of them that are about what is measured elsewhere.
    #[must_use]
    pub fn signals(&self) -> &[Arc<Feed>] {
        &self.signals
    }

    /// Those of them that fire.
    #[must_use]
    pub fn firing(&self) -> Arc<Vec<FiringRule>> {
        self.firing.load_full()
    }
}

/// The watch over one stable backend.
#[derive(Debug)]
pub(super) struct StableWatch {
    version: String,
    settings: Rollback,
    reader: Reader,
    rules: Vec<Watched>,
    gauge: Arc<StableGauge>,
}

/// A rule, and whether it fires.
#[derive(Debug)]
struct Watched {
    words: String,
    subject: Watching,
    firing: Option<FiringRule>,
}

#[derive(Debug)]
enum Watching {
    Rate(RuleState),
    Signal(Box<Signal>),
}

impl StableWatch {
    /// The watch that should be now: the one before, or a new one; none where there is nothing to look at.
    /// `before` is left where another takes its place.
    pub(super) fn follow(
        before: &mut Option<Self>,
        now: Duration,
        settings: &Rollback,
        service: &snapshot::Service,
    ) -> Option<Self> {
        if settings.rules.is_empty() || service.split.weight(service.stable) == 0 {
            return None;
        }
        let backend = &service.backends[service.stable];
        let is_same = |watch: &mut Self| {
            *watch.gauge.backend == *backend.name
                && *watch.version == *backend.version
                && watch.settings == *settings
        };
        let mut watch = before
            .take_if(is_same)
            .unwrap_or_else(|| Self::new(now, settings, service));
        watch.reader.follow(service.judged.get(service.stable));
        Some(watch)
    }

    fn new(now: Duration, settings: &Rollback, service: &snapshot::Service) -> Self {
        let backend = &service.backends[service.stable];
        let subject = Subject {
            service: &service.name,
            backend: &backend.name,
            version: &backend.version,
        };
        let rules = settings.rules.iter();
        let rules: Vec<Watched> = rules
            .filter_map(|rule| Watched::new(rule, subject, now))
            .collect();
        let feed = |rule: &Watched| match &rule.subject {
            Watching::Rate(_) => None,
            Watching::Signal(signal) => Some(signal.feed().clone()),
        };
        Self {
            version: backend.version.to_string(),
            settings: settings.clone(),
            reader: Reader::new(Trouble::Errors, service.judged.get(service.stable)),
            gauge: Arc::new(StableGauge {
                backend: backend.name.to_string(),
                rules: rules.iter().map(|rule| rule.words.clone()).collect(),
                signals: rules.iter().filter_map(feed).collect(),
                firing: ArcSwap::default(),
            }),
            rules,
        }
    }

    pub(super) const fn gauge(&self) -> &Arc<StableGauge> {
        &self.gauge
    }

    /// Nobody looks any more; what somebody should hear of, by kind of event: a rule that fired would fire
    /// for ever.
    pub(super) fn end(&self) -> Vec<(&'static str, String)> {
        let fires = self.rules.iter().filter(|rule| rule.firing.is_some());
        let over = |rule: &Watched| {
            let message = format!("{} is not looked at any more", rule.words);
            ("rule_cleared", message)
        };
        fires.map(over).collect()
    }

    /// Looks at the counters and signals; what somebody should hear of, by kind of event.
    pub(super) fn tick(&mut self, clock: Clock) -> Vec<(&'static str, String)> {
        let (requests, failures) = self.reader.take_all();
        // To a rule, the version that it watches is the canary.
        let counts = Counts {
            canary_requests: requests,
            canary_failures: failures,
            ..Counts::default()
        };
        let mut said = Vec::new();
        let mut changed = false;
        for rule in &mut self.rules {
            let told = said.len();
            rule.tick(clock, counts, &self.gauge.backend, &mut said);
            changed |= said.len() != told;
        }
        if changed {
            let firing = self.rules.iter().filter_map(|rule| rule.firing.clone());
            self.gauge.firing.store(Arc::new(firing.collect()));
        }
        said
    }
}

impl Watched {
    fn new(rule: &Rule, subject: Subject<'_>, now: Duration) -> Option<Self> {
        let (words, subject) = match rule {
            Rule::Rate(RateRule {
                not_stable: true, ..
            }) => return None,
            Rule::Rate(rate) => (
                String::from(rate.clone()),
                Watching::Rate(RuleState::new(rate, now)),
            ),
            Rule::Signal(signal) => (
                super::signal::named(signal),
                Watching::Signal(Box::new(Signal::new(signal, subject, now))),
            ),
        };
        Some(Self {
            words,
            subject,
            firing: None,
        })
    }

    fn tick(
        &mut self,
        clock: Clock,
        counts: Counts,
        backend: &Name,
        said: &mut Vec<(&'static str, String)>,
    ) {
        let (fires, is_over) = match &mut self.subject {
            Watching::Rate(rule) => {
                let fires = rule.tick(clock.now, counts);
                let seen = rule.run();
                let sentence = || {
                    format!(
                        "{}: {backend} failed {} of {} requests",
                        self.words, seen.canary_failures, seen.canary_requests
                    )
                };
                (fires.then(sentence), !rule.is_broken())
            }
            Watching::Signal(signal) => {
                signal.tick(clock);
                said.extend(signal.take_said());
                let fires = signal.fired().map(str::to_owned);
                (fires, signal.begin_again_when_fine())
            }
        };
        match (&self.firing, fires) {
            (None, Some(sentence)) => {
                said.push(("rule_fired", format!("{sentence}; {NOTHING_FOLLOWS}")));
                self.firing = Some(FiringRule {
                    backend: backend.clone(),
                    rule: self.words.clone(),
                    since: clock.at,
                    sentence,
                });
            }
            (Some(_), _) if is_over => {
                said.push(("rule_cleared", format!("{} holds no more", self.words)));
                self.firing = None;
            }
            _ => {}
        }
    }
}
