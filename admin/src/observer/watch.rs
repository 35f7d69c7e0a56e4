//! The watch over one version: its judge, its rules, its vitals.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use serde::Serialize;
use switchback_config::model::{CompareTo, OnFailure, Rollback, Service};
use switchback_judge::{
    Control, Counts, Explanation, HoldReason, Judge, RuleState, Settings, Verdict,
};
use switchback_proxy::snapshot;
use switchback_proxy::stats::JudgeCells;

use super::Clock;
use super::vitals::Vitals;
use crate::command::Cause;

/// A control group below this share of the traffic is none.
const CONTROL_SHARE_MIN: f64 = 0.01;

/// A share that rises by less than this part of itself is no new start for the judge.
const RISE_MIN: f64 = 1.1;

/// Nor is one within this time of the last.
const HEAD_START_APART: Duration = Duration::from_secs(60);

/// How often the reading shown to people is renewed.
const READING_APART: Duration = Duration::from_millis(500);

/// What a watch shows of itself to other threads.
#[derive(Debug, Default)]
pub struct Gauge {
    evidence: AtomicU64,
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
    rules: Vec<RuleState>,
    rule_fired: bool,
    vitals: Vitals,
    canary: Reader,
    control: Option<(String, Reader)>,
    share: f64,
    compared: Control,
    trial_until: Option<Timestamp>,
    changed_at: Option<Timestamp>,
    head_start: Option<Duration>,
    reported: Option<Cause>,
    gauge: Arc<Gauge>,
    next_reading: Duration,
}

/// Reads one side's counters, each request once.
#[derive(Debug)]
struct Reader {
    cells: Option<Arc<JudgeCells>>,
    seen: Vec<u64>,
}

impl Reader {
    fn new(cells: Option<&Arc<JudgeCells>>) -> Self {
        let seen = cells
            .map(|cells| cells.read().collect())
            .unwrap_or_default();
        Self {
            cells: cells.cloned(),
            seen,
        }
    }

    /// From now on other cells; those of a new epoch are read from their beginning.
    fn follow(&mut self, cells: Option<&Arc<JudgeCells>>) {
        let same = match (&self.cells, cells) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.seen = vec![0; cells.map_or(0, |cells| cells.read().count())];
            self.cells = cells.cloned();
        }
    }

    /// Requests and failures since the last call.
    fn take(&mut self) -> (u64, u64) {
        let Some(cells) = &self.cells else {
            return (0, 0);
        };
        let (mut requests, mut failures) = (0, 0);
        for (seen, packed) in self.seen.iter_mut().zip(cells.read()) {
            let difference = packed.wrapping_sub(*seen);
            *seen = packed;
            requests += difference >> 32;
            failures += difference & 0xffff_ffff;
        }
        (requests, failures)
    }
}

fn settings_of(service: &Service) -> Settings {
    // Every other backend is a canary and has a judge of its own; they share the promise.
    let judges = u32::try_from(service.backends.len())
        .unwrap_or(u32::MAX)
        .saturating_sub(1)
        .max(1);
    Settings::new(&service.rollback, judges)
}

fn rules_of(settings: &Rollback, now: Duration) -> Vec<RuleState> {
    settings
        .rules
        .iter()
        .map(|rule| RuleState::new(rule, now))
        .collect()
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
            rules: rules_of(&file.rollback, clock.now),
            rule_fired: false,
            vitals: Vitals::new(backend.clone()),
            canary: Reader::new(roles.service.judged.get(roles.index)),
            control,
            share: 0.0,
            compared: compared(file, roles),
            trial_until: roles.trial_until,
            changed_at: roles.changed_at,
            head_start: None,
            reported: None,
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
            self.rules = rules_of(&file.rollback, clock.now);
            self.reported = None;
        }
        let control = roles.control.map(|control| identity(roles, control));
        if control.as_ref() != self.control.as_ref().map(|(name, _)| name) {
            self.judge.new_stable(clock.now);
            self.control = control.map(|name| {
                (
                    name,
                    Reader {
                        cells: None,
                        seen: Vec::new(),
                    },
                )
            });
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
        if share > 0.0 && (before <= 0.0 || new_version) {
            self.judge.new_version(now);
            self.rules = rules_of(&self.settings, now);
            self.rule_fired = false;
            self.vitals.reset();
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
        let (canary_requests, canary_failures) = self.canary.take();
        let control = self.control.as_mut().map(|(_, reader)| reader.take());
        let (stable_requests, stable_failures) = control.unwrap_or_default();
        let counts = Counts {
            canary_requests,
            canary_failures,
            stable_requests,
            stable_failures,
        };
        if self.share <= 0.0 {
            self.judge.baseline(clock.now, counts);
            return None;
        }
        if self.trial_until.is_some_and(|until| clock.at >= until) {
            return None;
        }
        let verdict = self.judge.tick(clock.now, counts, self.compared);
        self.show(clock.now, verdict);
        for rule in &mut self.rules {
            self.rule_fired |= rule.tick(clock.now, counts);
        }
        let (cause, sentence) = if verdict == Verdict::Rollback {
            (Cause::Judge, self.sentence())
        } else if self.rule_fired {
            let rules: Vec<String> = self
                .settings
                .rules
                .iter()
                .cloned()
                .map(String::from)
                .collect();
            (
                Cause::Rule,
                format!("{}; {}", rules.join(" or "), self.judge.explain()),
            )
        } else if let Some(sentence) = self.vitals.tick(clock.now, self.settings.unhealthy_for) {
            (Cause::Unhealthy, sentence)
        } else {
            self.reported = None;
            return None;
        };
        let first = self.reported.replace(cause) != Some(cause);
        Some(Finding {
            cause,
            sentence,
            action: self.action(clock.at, cause),
            first,
        })
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
