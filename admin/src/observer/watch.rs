//! The watch over one version: the cases against it, its rules, its vitals.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use switchback_config::model::{CompareTo, OnFailure, Rollback, Service};
use switchback_config::template::Subject;
use switchback_judge::{Control, Counts, StableCheck, Verdict};
use switchback_proxy::snapshot;

use super::case::{Case, Cells, Trouble};
use super::gauge::Gauge;
use super::reader::Reader;
use super::rules::Rules;
use super::vitals::Vitals;
use super::{Clock, stagger};
use crate::command::Cause;
use crate::evidence::VersionEvidence;
use crate::state::{Hold, Standing};

/// A control group below this share of the traffic is none.
const CONTROL_SHARE_MIN: f64 = 0.01;

/// A share that rises by less than this part of itself is no new start for the judge.
const RISE_MIN: f64 = 1.1;

/// Nor is one within this time of the last.
const HEAD_START_APART: Duration = Duration::from_secs(60);

/// How often the reading shown to people is renewed.
const READING_APART: Duration = Duration::from_millis(500);

/// Versions without share are looked at so often: only what is usual is learned, second by second.
const LOOKS_APART: Duration = Duration::from_secs(1);

/// What a watch is told about its service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Roles<'a> {
    pub(super) service: &'a snapshot::Service,
    /// How many instances share the promise about false rollbacks.
    pub(super) instances: u32,
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
    instances: u32,
    /// One for each kind of trouble; the first is about errors.
    cases: Vec<Case>,
    rules: Rules,
    vitals: Vitals,
    /// Names of the service and the backend.
    place: (Arc<str>, Arc<str>),
    /// Name and label of the one it is compared with.
    control: Option<String>,
    share: f64,
    compared: Control,
    trial_until: Option<Timestamp>,
    changed_at: Option<Timestamp>,
    head_start: Option<Duration>,
    reported: Option<Cause>,
    /// Requests since the share last rose.
    answered: u64,
    /// Requests and failures of the one it is compared with, since then.
    stable_answered: (u64, u64),
    /// Why the share should not rise.
    hold: Option<Hold>,
    /// Whether stable is the broken one, and in which words.
    stable: StableCheck,
    stable_fails: Option<String>,
    /// What somebody should hear of, by kind of event.
    said: Vec<(&'static str, String)>,
    gauge: Arc<Gauge>,
    next_reading: Duration,
    /// When to look next while it has no share.
    next_look: Duration,
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
        let case = |trouble| Case::new(trouble, file, roles.instances, clock.now, cells(roles));
        let mut watch = Self {
            version: backend.version.to_string(),
            place: (roles.service.name.clone(), backend.name.clone()),
            settings: file.rollback.clone(),
            instances: roles.instances,
            cases: Trouble::all_of(&file.rollback).map(case).collect(),
            rules: Rules::new(&file.rollback, subject(roles), clock.now),
            vitals: Vitals::new(backend.clone()),
            control: roles.control.map(|control| identity(roles, control)),
            share: 0.0,
            compared: compared(file, roles),
            trial_until: roles.trial_until,
            changed_at: roles.changed_at,
            head_start: None,
            reported: None,
            answered: 0,
            stable_answered: (0, 0),
            hold: None,
            stable: StableCheck::default(),
            stable_fails: None,
            said: Vec::new(),
            gauge: Arc::default(),
            next_reading: Duration::ZERO,
            next_look: clock.now + stagger((&roles.service.name, &backend.name), LOOKS_APART),
        };
        watch.note_share(clock.now, roles, false);
        watch
    }

    /// Takes over what is in force now.
    pub(super) fn follow(&mut self, clock: Clock, file: &Service, roles: &Roles<'_>) {
        let backend = &roles.service.backends[roles.index];
        if self.share <= 0.0 {
            self.learn(clock.now);
        }
        self.vitals.follow(backend);
        if file.rollback != self.settings || roles.instances != self.instances {
            self.settings = file.rollback.clone();
            self.instances = roles.instances;
            self.renew_cases(clock, file, roles);
            self.rules = Rules::new(&file.rollback, subject(roles), clock.now);
            self.reported = None;
        }
        let control = roles.control.map(|control| identity(roles, control));
        if control != self.control {
            self.cases
                .iter_mut()
                .for_each(|case| case.new_control(clock.now));
            self.stable.reset();
            self.stable_fails = None;
            self.control = control;
        }
        self.cases
            .iter_mut()
            .for_each(|case| case.follow(cells(roles)));
        self.compared = compared(file, roles);
        self.trial_until = roles.trial_until;
        self.changed_at = roles.changed_at;
        let new_version = *backend.version != self.version;
        self.version = backend.version.to_string();
        self.note_share(clock.now, roles, new_version);
    }

    /// Other settings: every judge begins anew, and there may be others.
    fn renew_cases(&mut self, clock: Clock, file: &Service, roles: &Roles<'_>) {
        let before = std::mem::take(&mut self.cases);
        let mut before: Vec<Option<Case>> = before.into_iter().map(Some).collect();
        let cases = Trouble::all_of(&file.rollback).map(|trouble| {
            let is_same = |case: &&mut Option<Case>| {
                case.as_ref().is_some_and(|case| case.trouble == trouble)
            };
            let same = before.iter_mut().find(is_same).and_then(Option::take);
            match same {
                Some(mut case) => {
                    case.renew(file, roles.instances, clock.now);
                    case
                }
                None => Case::new(trouble, file, roles.instances, clock.now, cells(roles)),
            }
        });
        self.cases = cases.collect();
    }

    /// A canary that starts is judged from the beginning; one that grows gets a head start.
    fn note_share(&mut self, now: Duration, roles: &Roles<'_>, new_version: bool) {
        let share = roles.service.split.share(roles.index);
        let before = std::mem::replace(&mut self.share, share);
        if share > before || new_version {
            self.answered = 0;
            self.gauge.set_answered(0);
            self.stable_answered = (0, 0);
            self.gauge.set_stable((0, 0));
        }
        if share > 0.0 && (before <= 0.0 || new_version) {
            self.cases.iter_mut().for_each(|case| case.new_version(now));
            self.rules = Rules::new(&self.settings, subject(roles), now);
            self.vitals.reset();
            self.stable.reset();
            self.stable_fails = None;
            self.reported = None;
            self.head_start = Some(now);
        } else if share >= before * RISE_MIN
            && share > before
            && self
                .head_start
                .is_none_or(|last| now.saturating_sub(last) >= HEAD_START_APART)
        {
            self.cases.iter_mut().for_each(|case| case.head_start(now));
            self.head_start = Some(now);
        }
        self.gauge.set_signals(self.rules.feeds());
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    pub(super) const fn gauge(&self) -> &Arc<Gauge> {
        &self.gauge
    }

    /// Looks at the counters; tells what was found, for as long as it holds.
    pub(super) fn tick(&mut self, clock: Clock) -> Option<Finding> {
        if self.share <= 0.0 {
            if clock.now >= self.next_look {
                self.learn(clock.now);
            }
            self.hold_for(None);
            return None;
        }
        self.cases.iter_mut().for_each(Case::read);
        if self.trial_until.is_some_and(|until| clock.at >= until) {
            self.hold_for(None);
            return None;
        }
        for case in &mut self.cases {
            case.hear(clock.now, self.compared);
        }
        self.show(clock.now);
        let counts = self.errors().counts();
        self.answered += counts.canary_requests;
        self.gauge.set_answered(self.answered);
        self.stable_answered.0 += counts.stable_requests;
        self.stable_answered.1 += counts.stable_failures;
        self.gauge.set_stable(self.stable_answered);
        self.rules.tick(clock, counts);
        self.said.extend(self.rules.take_said());
        let stable_fails = self.note_stable(clock.now, counts);
        let finding = match self.find(clock.now) {
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
        let stable_fails = stable_fails.map(|reason| Hold {
            reason,
            stable_fails: true,
        });
        let hold = stable_fails
            .or_else(|| {
                let sentence = finding.as_ref().map(|finding| finding.sentence.clone());
                sentence.map(Hold::canary)
            })
            .or_else(|| {
                let hold = self.cases.iter().find_map(Case::hold);
                let hold = hold.or_else(|| self.rules.hold());
                hold.map(|hold| Hold::canary(hold.to_owned()))
            });
        self.hold_for(hold);
        finding
    }

    /// Whether the last look has shown nothing, and nothing of earlier ones is still true.
    pub(super) fn is_at_rest(&self) -> bool {
        let quiet =
            |case: &Case| case.counts() == Counts::default() && case.verdict() == Verdict::Continue;
        // Rules have clocks of their own, and signals come without requests.
        let rules = &self.settings.rules;
        rules.is_empty() && self.reported.is_none() && self.cases.iter().all(quiet)
    }

    /// Lets the judges learn what is usual while the version has no share.
    fn learn(&mut self, now: Duration) {
        self.next_look = now + LOOKS_APART;
        for case in &mut self.cases {
            case.read();
            case.learn(now);
        }
    }

    /// What was seen, for the record of a rollback.
    pub(super) fn evidence(&self, now: Duration, backend: &str, tapes: bool) -> VersionEvidence {
        VersionEvidence {
            backend: backend.into(),
            version: self.version.clone(),
            seconds: self.errors().seconds(now),
            judges: self
                .cases
                .iter()
                .map(|case| case.record(now, tapes))
                .collect(),
            rule: self.rules.evidence().filter(|_| tapes),
            ..VersionEvidence::default()
        }
    }

    /// Goes on counting where the last look ended.
    pub(super) fn reader(&self) -> Reader {
        self.errors().canary()
    }

    /// What the one it is compared with usually fails at most.
    pub(super) fn usual_rate(&self) -> f64 {
        self.errors().usual_rate()
    }

    /// How often it is usually slow at most, if that is what the verdict is about.
    pub(super) fn usual_slow_rate(&self) -> Option<f64> {
        let proves_slowness =
            |case: &&Case| case.trouble == Trouble::Slow && case.verdict() == Verdict::Rollback;
        self.cases
            .iter()
            .find(proves_slowness)
            .map(Case::usual_rate)
    }

    /// The case about errors; there is always one.
    fn errors(&self) -> &Case {
        &self.cases[0]
    }

    /// What is wrong with the watched version, the surest first.
    fn find(&mut self, now: Duration) -> Option<(Cause, String)> {
        let proven = |case: &&Case| case.verdict() == Verdict::Rollback;
        if let Some(case) = self.cases.iter().find(proven) {
            return Some((Cause::Judge, self.sentence(case)));
        }
        if let Some(rule) = self.rules.fired() {
            let sentence = format!("{rule}; {}", self.errors().sentence());
            return Some((Cause::Rule, sentence));
        }
        let unhealthy = self.vitals.tick(now, self.settings.unhealthy_for);
        unhealthy.map(|sentence| (Cause::Unhealthy, sentence))
    }

    /// Whether the one it is compared with is the broken one, in a sentence; also says so once.
    fn note_stable(&mut self, now: Duration, counts: Counts) -> Option<String> {
        if !self.stable.tick(now, counts, self.cases[0].settings()) {
            self.stable_fails = None;
            return None;
        }
        if self.stable_fails.is_none() {
            let seen = self.stable.counts();
            let (who, watched) = match self.trial_until {
                None => ("stable", "the canary"),
                Some(_) => ("the rollback target", "stable"),
            };
            let sentence = format!(
                "{who} failed {} of {} and {watched} {} of {} in the last minute: {who} is the broken one, going back would not help",
                seen.stable_failures,
                seen.stable_requests,
                seen.canary_failures,
                seen.canary_requests
            );
            let (service, backend) = &self.place;
            let offer = match self.trial_until {
                None => format!("; to go forward: switchback switch {service} --to {backend}"),
                Some(_) => String::new(),
            };
            self.said
                .push(("stable_failing", format!("{sentence}{offer}")));
            self.stable_fails = Some(sentence);
        }
        self.stable_fails.clone()
    }

    fn hold_for(&mut self, hold: Option<Hold>) {
        if hold != self.hold {
            self.gauge.set_hold(hold.clone());
            self.hold = hold;
        }
    }

    /// How the version does with the share it has now.
    pub(super) fn standing(&self) -> Standing {
        Standing {
            requests: self.answered,
            hold: self.hold.clone(),
            stable_requests: self.stable_answered.0,
            stable_failures: self.stable_answered.1,
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

    /// A judge's numbers in one sentence; says so if there was nothing to compare them with.
    fn sentence(&self, case: &Case) -> String {
        let alone = if self.control_is_missing() {
            "; no control group"
        } else {
            ""
        };
        format!("{}{alone}", case.sentence())
    }

    fn control_is_missing(&self) -> bool {
        self.compared == Control::Alone && self.settings.compare_to == CompareTo::Stable
    }

    fn show(&mut self, now: Duration) {
        let evidence = self.cases.iter().map(Case::evidence);
        self.gauge.set_evidence(evidence.fold(0.0, f64::max));
        let decided = self
            .cases
            .iter()
            .any(|case| case.verdict() == Verdict::Rollback);
        if now < self.next_reading && !decided {
            return;
        }
        self.next_reading = now + READING_APART;
        let looks = self.cases.iter().map(Case::look);
        self.gauge.set_looks(looks.collect());
    }
}

fn cells<'a>(roles: &Roles<'a>) -> Cells<'a> {
    let of = |index: usize| roles.service.judged.get(index);
    Cells {
        canary: of(roles.index),
        control: roles.control.and_then(of),
        limit: roles.service.slow.as_ref().map(|slow| &slow.limit),
    }
}

fn subject<'a>(roles: &Roles<'a>) -> Subject<'a> {
    let backend = &roles.service.backends[roles.index];
    Subject {
        service: &roles.service.name,
        backend: &backend.name,
        version: &backend.version,
    }
}

/// Name and label of a backend: another label is another control group.
fn identity(roles: &Roles<'_>, index: usize) -> String {
    let backend = &roles.service.backends[index];
    format!("{}\u{0}{}", backend.name, backend.version)
}
