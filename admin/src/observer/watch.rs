//! The watch over one version: its judge, its rules, its vitals.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use serde::Serialize;
use switchback_config::model::{CompareTo, OnFailure, Rollback, Service};
use switchback_judge::{
    Control, Counts, Explanation, HoldReason, Judge, Settings, StableCheck, Verdict,
};
use switchback_proxy::snapshot;

use super::Clock;
use super::reader::Reader;
use super::rules::Rules;
use super::vitals::Vitals;
use crate::command::Cause;
use crate::state::Standing;

/// A control group below this share of the traffic is none.
const CONTROL_SHARE_MIN: f64 = 0.01;

/// A share that rises by less than this part of itself is no new start for the judge.
const RISE_MIN: f64 = 1.1;

/// Nor is one within this time of the last.
const HEAD_START_APART: Duration = Duration::from_secs(60);

/// A stable that fails is told again if it had not failed for so long.
const STABLE_SAID_APART: Duration = Duration::from_secs(60);

/// The canary's share does not rise for so long after stable was found to be the broken one.
const STABLE_HOLDS: Duration = Duration::from_secs(10);

/// How often the reading shown to people is renewed.
const READING_APART: Duration = Duration::from_millis(500);

/// What a watch shows of itself to other threads.
#[derive(Debug, Default)]
pub struct Gauge {
    evidence: AtomicU64,
    answered: AtomicU64,
    hold: ArcSwapOption<String>,
    reading: ArcSwapOption<Reading>,
}

/// The state of a judge in words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reading {
    /// `continue`, `hold` or `rollback`.
    pub verdict: &'static str,
    /// Why it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
    /// The numbers.
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
}

/// What a watch is told about its service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Roles<'a> {
    pub(super) service: &'a snapshot::Service,
    /// The watched backend.
    pub(super) index: usize,
    /// The one it is compared with.
    pub(super) control: Option<usize>,
    /// The end of the trial, for a stable backend on trial.
    pub(super) trial_until: Option<Timestamp>,
    /// When a share last rose.
    pub(super) changed_at: Option<Timestamp>,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) cause: Cause,
    pub(super) sentence: String,
    pub(super) action: OnFailure,
    pub(super) first: bool,
}

/// The watch over one version.
#[derive(Debug)]
pub(super) struct Watch {
    version: String,
    settings: Rollback,
    judge: Judge,
    rules: Rules,
    vitals: Vitals,
    canary: Reader,
    control: Option<(String, Reader)>,
    share: f64,
    compared: Control,
    trial_until: Option<Timestamp>,
    changed_at: Option<Timestamp>,
    head_start: Option<Duration>,
    reported: Option<Cause>,
    /// Requests since the share last rose.
    answered: u64,
    /// Why the share should not rise.
    hold: Option<String>,
    /// Whether stable is the broken one, when that was last so, and in which words.
    stable: StableCheck,
    stable_failed: Option<Duration>,
    stable_sentence: String,
    /// What somebody should hear of, by kind of event.
    said: Vec<(&'static str, String)>,
    gauge: Arc<Gauge>,
    next_reading: Duration,
}

fn settings_of(service: &Service) -> Settings {
    // Every other backend is a canary and has a judge of its own; they share the promise.
    let judges = u32::try_from(service.backends.len())
        .unwrap_or(u32::MAX)
        .saturating_sub(1)
        .max(1);
    Settings::new(&service.rollback, judges)
}

fn compared(file: &Service, roles: &Roles<'_>) -> Control {
    let share = roles
        .control
        .map_or(0.0, |control| roles.service.split.share(control));
    if file.rollback.compare_to == CompareTo::Before || share < CONTROL_SHARE_MIN {
        Control::Alone
    } else {
        Control::Compared
    }
}

impl Watch {
    pub(super) fn new(clock: Clock, file: &Service, roles: &Roles<'_>) -> Self {
        let backend = &roles.service.backends[roles.index];
        let control = roles.control.map(|control| {
            let reader = Reader::new(roles.service.judged.get(control));
            (identity(roles, control), reader)
        });
        let mut watch = Self {
            version: backend.version.to_string(),
            settings: file.rollback.clone(),
            judge: Judge::new(settings_of(file), clock.now),
            rules: Rules::new(&file.rollback, clock.now),
            vitals: Vitals::new(backend.clone()),
            canary: Reader::new(roles.service.judged.get(roles.index)),
            control,
            share: 0.0,
            compared: compared(file, roles),
            trial_until: roles.trial_until,
            changed_at: roles.changed_at,
            head_start: None,
            reported: None,
            answered: 0,
            hold: None,
            stable: StableCheck::default(),
            stable_failed: None,
            stable_sentence: String::new(),
            said: Vec::new(),
            gauge: Arc::default(),
            next_reading: Duration::ZERO,
        };
        watch.note_share(clock.now, roles.service.split.share(roles.index), false);
        watch
    }

    /// Takes over what is in force now.
    pub(super) fn follow(&mut self, clock: Clock, file: &Service, roles: &Roles<'_>) {
        let backend = &roles.service.backends[roles.index];
        self.canary.follow(roles.service.judged.get(roles.index));
        self.vitals.follow(backend);
        if file.rollback != self.settings {
            self.settings = file.rollback.clone();
            self.judge = Judge::new(settings_of(file), clock.now);
            self.rules = Rules::new(&file.rollback, clock.now);
            self.reported = None;
        }
        let control = roles.control.map(|control| identity(roles, control));
        if control.as_ref() != self.control.as_ref().map(|(name, _)| name) {
            self.judge.new_stable(clock.now);
            self.stable.reset();
            self.stable_failed = None;
            self.control = control.map(|name| (name, Reader::nobody()));
        }
        if let (Some((_, reader)), Some(control)) = (&mut self.control, roles.control) {
            reader.follow(roles.service.judged.get(control));
        }
        self.compared = compared(file, roles);
        self.trial_until = roles.trial_until;
        self.changed_at = roles.changed_at;
        let new_version = *backend.version != self.version;
        self.version = backend.version.to_string();
        self.note_share(
            clock.now,
            roles.service.split.share(roles.index),
            new_version,
        );
    }

    /// A canary that starts is judged from the beginning; one that grows gets a head start.
    fn note_share(&mut self, now: Duration, share: f64, new_version: bool) {
        let before = std::mem::replace(&mut self.share, share);
        if share > before || new_version {
            self.answered = 0;
            self.gauge.answered.store(0, Relaxed);
        }
        if share > 0.0 && (before <= 0.0 || new_version) {
            self.judge.new_version(now);
            self.rules = Rules::new(&self.settings, now);
            self.vitals.reset();
            self.stable.reset();
            self.stable_failed = None;
            self.reported = None;
            self.head_start = Some(now);
        } else if share >= before * RISE_MIN
            && share > before
            && self
                .head_start
                .is_none_or(|last| now.saturating_sub(last) >= HEAD_START_APART)
        {
            self.judge.head_start(now);
            self.head_start = Some(now);
        }
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    pub(super) const fn gauge(&self) -> &Arc<Gauge> {
        &self.gauge
    }

    /// Looks at the counters; tells what was found, for as long as it holds.
    pub(super) fn tick(&mut self, clock: Clock) -> Option<Finding> {
        let counts = self.take_counts();
        if self.share <= 0.0 {
            self.judge.baseline(clock.now, counts);
            self.hold_for(None);
            return None;
        }
        if self.trial_until.is_some_and(|until| clock.at >= until) {
            self.hold_for(None);
            return None;
        }
        let verdict = self.judge.tick(clock.now, counts, self.compared);
        self.show(clock.now, verdict);
        self.answered += counts.canary_requests;
        self.gauge.answered.store(self.answered, Relaxed);
        self.rules.tick(clock.now, counts);
        let stable_fails = self.note_stable(clock.now, counts);
        let found = self.find(clock.now, verdict);
        let finding = match found {
            Some((cause, sentence)) => {
                let first = self.reported.replace(cause) != Some(cause);
                let action = match stable_fails {
                    // Nobody is sent to a backend that is worse.
                    Some(_) if cause != Cause::Unhealthy => OnFailure::Hold,
                    _ => self.action(clock.at, cause),
                };
                Some(Finding {
                    cause,
                    sentence,
                    action,
                    first,
                })
            }
            None => {
                self.reported = None;
                None
            }
        };
        let hold = stable_fails
            .or_else(|| finding.as_ref().map(|finding| finding.sentence.clone()))
            .or_else(|| match verdict {
                Verdict::Hold(reason) => Some(hold_text(reason).to_owned()),
                Verdict::Continue | Verdict::Rollback => None,
            });
        self.hold_for(hold);
        finding
    }

    fn take_counts(&mut self) -> Counts {
        let (canary_requests, canary_failures) = self.canary.take();
        let control = self.control.as_mut().map(|(_, reader)| reader.take());
        let (stable_requests, stable_failures) = control.unwrap_or_default();
        Counts {
            canary_requests,
            canary_failures,
            stable_requests,
            stable_failures,
        }
    }

    /// What is wrong with the watched version, the surest first.
    fn find(&mut self, now: Duration, verdict: Verdict) -> Option<(Cause, String)> {
        if verdict == Verdict::Rollback {
            return Some((Cause::Judge, self.sentence()));
        }
        if let Some(rule) = self.rules.fired() {
            let sentence = format!("{rule}; {}", self.judge.explain());
            return Some((Cause::Rule, sentence));
        }
        let unhealthy = self.vitals.tick(now, self.settings.unhealthy_for);
        unhealthy.map(|sentence| (Cause::Unhealthy, sentence))
    }

    /// Whether stable is the broken one, in a sentence; also says so once.
    fn note_stable(&mut self, now: Duration, counts: Counts) -> Option<String> {
        if self.trial_until.is_some() {
            return None;
        }
        if self.stable.tick(now, counts, self.judge.settings()) {
            let before = self.stable_failed.replace(now);
            let seen = self.stable.counts();
            let sentence = format!(
                "stable failed {} of {} and the canary {} of {} in the last minute: stable is the broken one",
                seen.stable_failures,
                seen.stable_requests,
                seen.canary_failures,
                seen.canary_requests
            );
            if before.is_none_or(|last| now.saturating_sub(last) > STABLE_SAID_APART) {
                self.said.push(("stable_failing", sentence.clone()));
            }
            self.stable_sentence = sentence;
        }
        let recently = |last: Duration| now.saturating_sub(last) <= STABLE_HOLDS;
        self.stable_failed
            .is_some_and(recently)
            .then(|| self.stable_sentence.clone())
    }

    fn hold_for(&mut self, hold: Option<String>) {
        if hold != self.hold {
            self.gauge.hold.store(hold.clone().map(Arc::new));
            self.hold = hold;
        }
    }

    /// How the version does with the share it has now.
    pub(super) fn standing(&self) -> Standing {
        Standing {
            requests: self.answered,
            hold: self.hold.clone(),
        }
    }

    /// What there is to say besides findings, once.
    pub(super) fn take_said(&mut self) -> Vec<(&'static str, String)> {
        std::mem::take(&mut self.said)
    }

    /// What a finding leads to. Without a control group a shared outage cannot be told apart, so the
    /// rollback is automatic only for a while after the change that may have caused it.
    fn action(&self, at: Timestamp, cause: Cause) -> OnFailure {
        let alone = self.control_is_missing();
        let allowed = self.changed_at.is_none_or(|changed| {
            at.duration_since(changed).unsigned_abs() <= self.settings.uncontrolled.span.0
        });
        if self.settings.on_failure == OnFailure::Rollback
            && cause == Cause::Judge
            && alone
            && !allowed
        {
            return self.settings.uncontrolled.then;
        }
        self.settings.on_failure
    }

    /// The judge's numbers in one sentence; says so if there was nothing to compare them with.
    fn sentence(&self) -> String {
        let alone = if self.control_is_missing() {
            "; no control group"
        } else {
            ""
        };
        format!("{}{alone}", self.judge.explain())
    }

    fn control_is_missing(&self) -> bool {
        self.compared == Control::Alone && self.settings.compare_to == CompareTo::Stable
    }

    fn show(&mut self, now: Duration, verdict: Verdict) {
        self.gauge
            .evidence
            .store(self.judge.evidence().to_bits(), Relaxed);
        if now < self.next_reading && verdict != Verdict::Rollback {
            return;
        }
        self.next_reading = now + READING_APART;
        let explanation = self.judge.explain();
        let (name, hold) = match verdict {
            Verdict::Continue => ("continue", None),
            Verdict::Hold(reason) => ("hold", Some(hold_text(reason))),
            Verdict::Rollback => ("rollback", None),
        };
        let sentence = explanation.to_string();
        let hold = hold.map(str::to_owned);
        self.gauge.reading.store(Some(Arc::new(Reading {
            verdict: name,
            hold,
            explanation,
            sentence,
        })));
    }
}

fn hold_text(reason: HoldReason) -> &'static str {
    match reason {
        HoldReason::GatheringEvidence => "the canary fails more than usual; gathering evidence",
        HoldReason::SharedOutage => "stable fails too: shared outage",
        HoldReason::CannotCompare => "stable answers nothing: cannot compare",
    }
}

/// Name and label of a backend: another label is another control group.
fn identity(roles: &Roles<'_>, index: usize) -> String {
    let backend = &roles.service.backends[index];
    format!("{}\u{0}{}", backend.name, backend.version)
}
