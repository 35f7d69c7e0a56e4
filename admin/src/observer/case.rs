//! The case against one version about one kind of trouble: a judge, and the counters it is fed from.
//!
//! Every kind of trouble is its own case with its own judge, since a version may fail more than
//! stable without being slower, and the other way round. The judges of a service share its promise
//! about false rollbacks. What a case leads to is decided by the [`super::watch::Watch`] it belongs
//! to.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use switchback_config::model::{Rollback, Service};
use switchback_config::units::TimeSpan;
use switchback_judge::{Control, Counts, Explanation, HoldReason, Settings, Verdict};
use switchback_proxy::slow::SlowLimit;
use switchback_proxy::stats::JudgeCells;
use utoipa::ToSchema;

use super::gauge::Look;
use super::reader::Reader;
use super::recorder::Recorded;
use crate::evidence::{JudgeEvidence, Second};

/// What a version is judged for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// Requests that fail.
    Errors,
    /// Requests that wait for too long.
    Slow,
}

impl Trouble {
    /// Everything that versions of a service are judged for; errors first.
    pub(super) fn all_of(rollback: &Rollback) -> impl Iterator<Item = Self> {
        let slow = rollback.max_extra_slow.map(|_| Self::Slow);
        [Self::Errors].into_iter().chain(slow)
    }

    /// The name as shown.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::Slow => "slow",
        }
    }

    /// How sensitive the judge of this trouble is. Every other backend is a canary and has judges of
    /// its own, in each of so many instances; they share the promise.
    fn settings(self, service: &Service, instances: u32) -> Settings {
        let canaries = service.backends.len().saturating_sub(1).max(1);
        let judges = canaries * Self::all_of(&service.rollback).count();
        let judges = u32::try_from(judges).unwrap_or(u32::MAX);
        let judges = judges.saturating_mul(instances.max(1));
        let errors = Settings::new(&service.rollback, judges);
        match self {
            Self::Errors => errors,
            Self::Slow => Settings::slow(&service.rollback, judges).unwrap_or(errors),
        }
    }

    /// A judge's numbers in one sentence. `slower_than`: what slow was.
    pub(crate) fn sentence(self, explanation: &Explanation, slower_than: Option<&str>) -> String {
        match self {
            Self::Errors => explanation.to_string(),
            Self::Slow => explanation.about_slowness(slower_than.unwrap_or_default()),
        }
    }

    pub(super) const fn hold_text(self, reason: HoldReason) -> &'static str {
        match (self, reason) {
            (Self::Errors, HoldReason::GatheringEvidence) => {
                "the canary fails more than usual; gathering evidence"
            }
            (Self::Slow, HoldReason::GatheringEvidence) => {
                "the canary is slow more often than usual; gathering evidence"
            }
            (Self::Errors, HoldReason::SharedOutage) => "stable fails too: shared outage",
            (Self::Slow, HoldReason::SharedOutage) => "stable is slow too: shared slowness",
            (_, HoldReason::CannotCompare) => "stable answers nothing: cannot compare",
        }
    }
}

/// What both sides count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cells<'a> {
    /// Of the watched version.
    pub(super) canary: Option<&'a Arc<JudgeCells>>,
    /// Of the one it is compared with.
    pub(super) control: Option<&'a Arc<JudgeCells>>,
    /// From when on requests are slow.
    pub(super) limit: Option<&'a Arc<SlowLimit>>,
}

/// A judge and its counters.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) trouble: Trouble,
    judge: Recorded,
    canary: Reader,
    control: Reader,
    limit: Option<Arc<SlowLimit>>,
    /// The limit in words, as of the last look or the verdict.
    limit_words: Arc<str>,
    /// What happened between the last two looks.
    counts: Counts,
    verdict: Verdict,
}

impl Case {
    /// Begins with what will be counted from now on.
    pub(super) fn new(
        trouble: Trouble,
        file: &Service,
        instances: u32,
        now: Duration,
        cells: Cells<'_>,
    ) -> Self {
        Self {
            trouble,
            judge: Recorded::new(trouble.settings(file, instances), now),
            canary: Reader::new(trouble, cells.canary),
            control: Reader::new(trouble, cells.control),
            limit: cells.limit.cloned(),
            limit_words: "".into(),
            counts: Counts::default(),
            verdict: Verdict::Continue,
        }
    }

    /// Begins anew with other settings.
    pub(super) fn renew(&mut self, file: &Service, instances: u32, now: Duration) {
        self.judge = Recorded::new(self.trouble.settings(file, instances), now);
        self.verdict = Verdict::Continue;
    }

    /// From now on reads these.
    pub(super) fn follow(&mut self, cells: Cells<'_>) {
        self.canary.follow(cells.canary);
        self.control.follow(cells.control);
        self.limit = cells.limit.cloned();
    }

    /// Another version is what it is compared with.
    pub(super) fn new_control(&mut self, now: Duration) {
        self.judge.new_stable(now);
        self.control = Reader::nobody(self.trouble);
    }

    /// Another version is watched.
    pub(super) fn new_version(&mut self, now: Duration) {
        self.judge.new_version(now);
        self.verdict = Verdict::Continue;
    }

    /// The watched version has a larger share now.
    pub(super) fn head_start(&mut self, now: Duration) {
        self.judge.head_start(now);
    }

    /// Looks at the counters; to be followed by [`Case::learn`] or [`Case::hear`].
    pub(super) fn read(&mut self) {
        let (canary_requests, canary_failures) = self.canary.take();
        let (stable_requests, stable_failures) = self.control.take();
        self.counts = Counts {
            canary_requests,
            canary_failures,
            stable_requests,
            stable_failures,
        };
    }

    /// Goes on where the last look at the watched version ended.
    pub(super) fn canary(&self) -> Reader {
        self.canary.clone()
    }

    /// What was read last.
    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }

    /// Lets the judge learn from the other side, while the watched version has no share.
    pub(super) fn learn(&mut self, now: Duration) {
        self.judge.baseline(now, self.counts);
    }

    /// Asks the judge.
    pub(super) fn hear(&mut self, now: Duration, compared: Control) {
        if self.verdict != Verdict::Rollback {
            self.note_limit();
        }
        self.verdict = self.judge.tick(now, self.counts, compared);
    }

    fn note_limit(&mut self) {
        let Some(limit) = self
            .limit
            .as_ref()
            .filter(|_| self.trouble == Trouble::Slow)
        else {
            return;
        };
        let Some(time) = limit.get() else {
            return;
        };
        self.limit_words = match limit.setting().quantile() {
            Some(quantile) => format!("{} (stable's {quantile})", about(time)).into(),
            None => TimeSpan(time).to_string().into(),
        };
    }

    /// What the judge said when it was last asked.
    pub(super) const fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// How sensitive the judge is.
    pub(super) const fn settings(&self) -> &Settings {
        self.judge.judge().settings()
    }

    /// How close the judge is to a rollback, 0 to 1.
    pub(super) fn evidence(&self) -> f64 {
        self.judge.judge().evidence()
    }

    /// The numbers in one sentence.
    pub(super) fn sentence(&self) -> String {
        let explanation = self.judge.judge().explain();
        self.trouble
            .sentence(&explanation, self.slower_than().map(|words| &**words))
    }

    /// What slow was, where that is judged.
    fn slower_than(&self) -> Option<&Arc<str>> {
        Some(&self.limit_words).filter(|words| !words.is_empty())
    }

    /// What is kept of it, for the record of a rollback.
    pub(super) fn record(&self, now: Duration, with_tape: bool) -> JudgeEvidence {
        self.judge.evidence(
            self.trouble,
            self.slower_than().map(|words| &**words),
            now,
            with_tape,
        )
    }

    /// Counts of the last two minutes.
    pub(super) fn seconds(&self, now: Duration) -> Vec<Second> {
        self.judge.seconds(now)
    }

    /// What the other side usually fails at most.
    pub(super) fn usual_rate(&self) -> f64 {
        self.judge.judge().reading().usual_rate
    }

    /// Why the watched version should not get more.
    pub(super) const fn hold(&self) -> Option<&'static str> {
        match self.verdict {
            Verdict::Hold(reason) => Some(self.trouble.hold_text(reason)),
            Verdict::Continue | Verdict::Rollback => None,
        }
    }

    /// What it has to say.
    pub(super) fn look(&self) -> Look {
        Look {
            trouble: self.trouble,
            evidence: self.evidence(),
            slower_than: self.slower_than().cloned(),
            verdict: self.verdict,
            explanation: self.judge.judge().explain(),
        }
    }
}

/// A time to three digits, which is finer than it is measured.
fn about(time: Duration) -> String {
    let (value, unit) = match time.as_secs_f64() {
        seconds if seconds < 1.0 => (seconds * 1e3, "ms"),
        seconds => (seconds, "s"),
    };
    match value {
        0.0..10.0 => format!("{value:.2}{unit}"),
        0.0..100.0 => format!("{value:.1}{unit}"),
        _ => format!("{value:.0}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_to_three_digits() {
        for (micros, text) in [
            (0, "0.00ms"),
            (959, "0.96ms"),
            (4_607, "4.61ms"),
            (18_431, "18.4ms"),
            (182_000, "182ms"),
            (1_048_575, "1.05s"),
            (134_217_727, "134s"),
        ] {
            assert_eq!(about(Duration::from_micros(micros)), text);
        }
    }
}
