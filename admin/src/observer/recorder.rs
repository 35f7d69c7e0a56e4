//! What is kept of a watched version in case it is rolled back: two minutes of counts and levels,
//! second by second, and everything its judge was told.
//!
//! Bounded, and only while the version has weight: a watch that judges nobody costs nothing here.

use std::collections::VecDeque;
use std::time::Duration;

use switchback_config::defaults::EVIDENCE_BEFORE;
use switchback_judge::{Control, Counts, Judge, Recorder, Settings, Verdict};

use super::case::Trouble;
use crate::evidence::{JudgeEvidence, Levels, Second};

/// A judge is asked so often while there are no requests.
const QUIET_TICKS_APART: Duration = Duration::from_millis(500);

/// A judge, and what is kept of what it saw.
#[derive(Debug)]
pub(super) struct Recorded {
    judge: Recorder<Judge>,
    /// What it said last, and when it is to be asked again although nothing has happened.
    said: Verdict,
    next_quiet: Duration,
    seconds: VecDeque<(u64, Counts, [f64; 5])>,
}

impl Recorded {
    pub(super) fn new(settings: Settings, now: Duration) -> Self {
        Self {
            judge: Recorder::new(settings, now),
            said: Verdict::Continue,
            next_quiet: Duration::ZERO,
            seconds: VecDeque::new(),
        }
    }

    pub(super) const fn judge(&self) -> &Judge {
        self.judge.judge()
    }

    pub(super) fn new_stable(&mut self, now: Duration) {
        self.judge.new_stable(now);
    }

    pub(super) fn new_version(&mut self, now: Duration) {
        self.seconds.clear();
        self.said = Verdict::Continue;
        self.judge.new_version(now);
    }

    pub(super) fn head_start(&mut self, now: Duration) {
        self.judge.head_start(now);
    }

    pub(super) fn baseline(&mut self, now: Duration, counts: Counts) {
        self.judge.baseline(now, counts);
    }

    pub(super) fn tick(&mut self, now: Duration, counts: Counts, control: Control) -> Verdict {
        // Without requests nothing is learned but that time passes.
        if counts == Counts::default() && now < self.next_quiet {
            return self.said;
        }
        self.next_quiet = now + QUIET_TICKS_APART;
        let verdict = self.judge.tick(now, counts, control);
        self.said = verdict;
        let (second, levels) = (now.as_secs(), self.judge().reading().levels);
        match self.seconds.back_mut() {
            Some((last, sum, at_end)) if *last == second => {
                *sum = sum.plus(counts);
                *at_end = levels;
            }
            _ => {
                let oldest = second.saturating_sub(EVIDENCE_BEFORE.as_secs());
                while self.seconds.front().is_some_and(|(at, ..)| *at < oldest) {
                    self.seconds.pop_front();
                }
                self.seconds.push_back((second, counts, levels));
            }
        }
        verdict
    }

    /// Counts of the last two minutes, second by second, as seen from `now`.
    pub(super) fn seconds(&self, now: Duration) -> Vec<Second> {
        let kept = self.kept(now);
        let seconds = kept.map(|(second, counts, _)| Second {
            second,
            canary_requests: counts.canary_requests,
            canary_failures: counts.canary_failures,
            stable_requests: counts.stable_requests,
            stable_failures: counts.stable_failures,
        });
        seconds.collect()
    }

    /// What the judge has to say, with its recording if `with_tape`.
    pub(super) fn evidence(
        &self,
        trouble: Trouble,
        slower_than: Option<&str>,
        now: Duration,
        with_tape: bool,
    ) -> JudgeEvidence {
        let explanation = self.judge().explain();
        let path = self.kept(now);
        JudgeEvidence {
            trouble,
            explanation,
            sentence: trouble.sentence(&explanation, slower_than),
            slower_than: slower_than.map(str::to_owned),
            path: path
                .map(|(second, _, levels)| Levels { second, levels })
                .collect(),
            tape: self.judge.tape().filter(|_| with_tape),
        }
    }

    fn kept(&self, now: Duration) -> impl Iterator<Item = (i32, Counts, [f64; 5])> {
        let oldest = now.as_secs().saturating_sub(EVIDENCE_BEFORE.as_secs());
        let recent = self.seconds.iter().filter(move |(at, ..)| *at >= oldest);
        recent.map(move |(at, counts, levels)| (since(*at, now), *counts, *levels))
    }
}

/// Which second this is, as seen from `now`.
pub(super) fn since(second: u64, now: Duration) -> i32 {
    let ago = i64::try_from(second).unwrap_or(i64::MAX) - i64::try_from(now.as_secs()).unwrap_or(0);
    i32::try_from(ago).unwrap_or(i32::MIN)
}
