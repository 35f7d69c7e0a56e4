//! After a rollback: whether it helped, and what else belongs into its record.
//!
//! For a minute the counts of both sides are kept, second by second. For `rollback.verify` the errors of
//! *everything* that is split to the backend that serves now are held against what is usual for it; the
//! limiter that keeps pinned clients from judging a canary alone does not apply. After a rollback for
//! slowness, slow requests are too: only if both are as usual, it has helped. If another rollback or
//! switch comes in between, the question has lost its meaning and stays open; so it does when the
//! process ends, which is noted when it starts again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use switchback_config::defaults::EVIDENCE_AFTER;
use switchback_config::model::Name;
use switchback_judge::{Recovered, Recovery};
use switchback_proxy::exposure::Exposure;
use switchback_proxy::fence::Fence;
use switchback_proxy::snapshot;
use switchback_proxy::stats::JudgeCells;

use super::case::Trouble;
use super::reader::Reader;
use super::recorder::since;
use super::watch::Watch;
use super::{Clock, Notice};
use crate::controller::Note;
use crate::evidence::{self, Amendment, RecoveryState, Second};

/// A rollback that has just been carried out.
#[derive(Debug)]
pub struct RolledBack<'a> {
    /// The number of its record.
    pub id: u64,
    /// The service, as it is since.
    pub service: &'a snapshot::Service,
    /// Who lost their weight, and who had met them.
    pub losers: &'a [(Name, Option<Arc<Exposure>>)],
    /// Opens when it is in force everywhere.
    pub fence: Arc<Fence>,
    /// The failure rate at or below which all is well.
    pub band: f64,
    /// The same for the rate of slow requests, after a rollback for slowness.
    pub slow_band: Option<f64>,
    /// How long that may take.
    pub verify: Duration,
}

/// What is still to be learnt of one rollback.
#[derive(Debug)]
pub(super) struct Aftermath {
    id: u64,
    began: Duration,
    fence: Arc<Fence>,
    losers: Vec<Loser>,
    service: Name,
    serving: Serving,
    /// Whether errors are back to usual.
    errors: Question,
    /// Whether slow requests are, if that is what it was for.
    slow: Option<(Question, Reader)>,
    /// It is known whether it helped, or nobody will.
    closed: bool,
    /// The minute has passed.
    recorded: bool,
}

#[derive(Debug)]
struct Loser {
    backend: Name,
    version: String,
    exposure: Option<Arc<Exposure>>,
    reader: Reader,
    seconds: Vec<Second>,
}

#[derive(Debug)]
struct Serving {
    backend: String,
    version: String,
    reader: Reader,
}

/// Something that has to be back to usual.
#[derive(Debug)]
struct Question {
    recovery: Recovery,
    band: f64,
    answer: Option<Recovered>,
}

impl Question {
    fn new(now: Duration, band: f64, verify: Duration) -> Self {
        Self {
            recovery: Recovery::new(now, band, verify),
            band,
            answer: None,
        }
    }

    fn tick(&mut self, now: Duration, (requests, bad): (u64, u64)) {
        if self.answer.is_none() {
            self.answer = self.recovery.tick(now, requests, bad);
        }
    }

    /// What was seen, if there is an answer: `what` happened to so many requests.
    fn sentence(&self, what: &str) -> Option<String> {
        let (requests, bad) = self.recovery.look();
        let band = 100.0 * self.band;
        let judgement = match self.answer? {
            Recovered::Yes => format!("within its usual {band:.2}%"),
            Recovered::No => format!("more than its usual {band:.2}%, shared cause likely"),
            Recovered::Unknown => "nobody can tell whether it helped".into(),
        };
        Some(format!("{what} {bad} of {requests} requests: {judgement}"))
    }
}

impl Aftermath {
    pub(super) fn new(clock: Clock, rolled_back: &RolledBack<'_>) -> Self {
        let service = rolled_back.service;
        let stable = &service.backends[service.stable];
        let loser = |(backend, exposure): &(Name, Option<Arc<Exposure>>)| {
            let index = service.backends.iter().position(|b| *b.name == **backend);
            let version = index.map(|index| service.backends[index].version.to_string());
            Loser {
                backend: backend.clone(),
                version: version.unwrap_or_default(),
                exposure: exposure.clone(),
                reader: errors(index.and_then(|index| service.judged.get(index))),
                seconds: Vec::new(),
            }
        };
        Self {
            id: rolled_back.id,
            service: service.name.to_string(),
            began: clock.now,
            fence: rolled_back.fence.clone(),
            losers: rolled_back.losers.iter().map(loser).collect(),
            serving: Serving {
                backend: stable.name.to_string(),
                version: stable.version.to_string(),
                reader: errors(service.judged.get(service.stable)),
            },
            errors: Question::new(clock.now, rolled_back.band, rolled_back.verify),
            slow: rolled_back.slow_band.map(|band| {
                let cells = service.judged.get(service.stable);
                let question = Question::new(clock.now, band, rolled_back.verify);
                (question, Reader::new(Trouble::Slow, cells))
            }),
            closed: false,
            recorded: false,
        }
    }

    /// Goes on where those who watched the losers have stopped, so that no request is missed.
    pub(super) fn go_on(&mut self, watches: &BTreeMap<Name, Watch>) {
        for loser in &mut self.losers {
            if let Some(watch) = watches.get(&loser.backend) {
                loser.reader = watch.reader();
            }
        }
    }

    /// Takes over what is in force now; the last thing to note, if that ends the check.
    pub(super) fn follow(&mut self, clock: Clock, service: &snapshot::Service) -> Option<Notice> {
        let stable = &service.backends[service.stable];
        for loser in &mut self.losers {
            let same = |b: &Arc<snapshot::Backend>| {
                *b.name == *loser.backend && *b.version == *loser.version
            };
            let index = service.backends.iter().position(same);
            loser
                .reader
                .follow(index.and_then(|index| service.judged.get(index)));
        }
        let cells = service.judged.get(service.stable);
        self.serving.reader.follow(cells);
        if let Some((_, reader)) = &mut self.slow {
            reader.follow(cells);
        }
        let is_same =
            *stable.name == *self.serving.backend && *stable.version == *self.serving.version;
        if is_same {
            return None;
        }
        self.interrupt(clock, "another version serves since, before this was known")
    }

    /// Ends the check without an answer.
    pub(super) fn interrupt(&mut self, clock: Clock, why: &str) -> Option<Notice> {
        if std::mem::replace(&mut self.closed, true) {
            return None;
        }
        let result = self.result(clock, RecoveryState::Interrupted, why.into());
        Some(self.notice(clock, Some(result), None))
    }

    /// Looks at the counters; what there is to note.
    pub(super) fn tick(&mut self, clock: Clock) -> Option<Notice> {
        let counts = self.count(clock);
        let mut learnt = None;
        if !self.closed {
            self.errors.tick(clock.now, counts);
            if let Some((question, reader)) = &mut self.slow {
                question.tick(clock.now, reader.take());
            }
            learnt = self.judgement(clock);
            self.closed = learnt.is_some();
        }
        let is_over = clock.now.saturating_sub(self.began) >= EVIDENCE_AFTER;
        let ends = is_over && !self.recorded;
        self.recorded |= is_over;
        if !ends && learnt.is_none() {
            return None;
        }
        let said = learnt
            .as_ref()
            .and_then(|result| note(&self.service, result));
        Some(self.notice(clock, learnt, said))
    }

    /// Whether there is nothing left to learn.
    pub(super) const fn is_done(&self) -> bool {
        self.recorded && self.closed
    }

    /// Counts everything that serves now; also second by second, while the minute lasts.
    fn count(&mut self, clock: Clock) -> (u64, u64) {
        let (requests, failures) = self.serving.reader.take_all();
        if self.recorded {
            return (requests, failures);
        }
        let after = clock.now.as_secs().saturating_sub(self.began.as_secs());
        let second = since(self.began.as_secs() + after, self.began);
        for loser in &mut self.losers {
            let (canary_requests, canary_failures) = loser.reader.take_all();
            match loser.seconds.last_mut() {
                Some(last) if last.second == second => {
                    last.canary_requests += canary_requests;
                    last.canary_failures += canary_failures;
                    last.stable_requests += requests;
                    last.stable_failures += failures;
                }
                _ => loser.seconds.push(Second {
                    second,
                    canary_requests,
                    canary_failures,
                    stable_requests: requests,
                    stable_failures: failures,
                }),
            }
        }
        (requests, failures)
    }

    /// Whether it helped, once every question has an answer.
    fn judgement(&self, clock: Clock) -> Option<evidence::Recovery> {
        let serving = &self.serving.backend;
        let mut answers = vec![self.errors.answer?];
        let mut seen = vec![self.errors.sentence(&format!("{serving} failed"))?];
        if let Some((question, _)) = &self.slow {
            answers.push(question.answer?);
            seen.push(question.sentence(&format!("{serving} was slow in"))?);
        }
        let state = if answers.contains(&Recovered::No) {
            RecoveryState::DidNotHelp
        } else if answers.contains(&Recovered::Unknown) {
            RecoveryState::Unknown
        } else {
            RecoveryState::Recovered
        };
        let losers = self.losers.iter();
        let losers: Vec<String> = losers
            .map(|loser| format!("{} ({})", loser.backend, loser.version))
            .collect();
        let sentence = format!(
            "after the rollback of {}, {}",
            losers.join(", "),
            seen.join("; ")
        );
        Some(self.result(clock, state, sentence))
    }

    fn result(&self, clock: Clock, state: RecoveryState, sentence: String) -> evidence::Recovery {
        let (requests, failures) = self.errors.recovery.look();
        let slow = self.slow.as_ref().map(|(question, _)| {
            let (requests, slow) = question.recovery.look();
            evidence::SlowRecovery {
                band: question.band,
                requests,
                slow,
            }
        });
        evidence::Recovery {
            state,
            band: self.errors.band,
            requests,
            failures,
            slow,
            after_s: clock.now.saturating_sub(self.began).as_secs_f64(),
            sentence,
        }
    }

    /// Everything that was learnt since the last time.
    fn notice(
        &mut self,
        clock: Clock,
        recovery: Option<evidence::Recovery>,
        said: Option<Note>,
    ) -> Notice {
        // What is told of the second that is under way is added to by what comes after.
        let told = |loser: &mut Loser| std::mem::take(&mut loser.seconds);
        let impact = |loser: &Loser| {
            let exposure = loser.exposure.as_ref()?;
            Some(exposure.impact().into())
        };
        let sample = |loser: &Loser| {
            let exposure = loser.exposure.as_deref();
            exposure.map_or_else(Vec::new, |exposure| evidence::samples(clock, exposure))
        };
        let applied = self.fence.passed();
        Notice::Afterwards {
            id: self.id,
            service: self.service.clone(),
            amendment: Box::new(Amendment {
                applied_in_us: applied.and_then(|took| u64::try_from(took.as_micros()).ok()),
                seconds: self.losers.iter_mut().map(told).collect(),
                samples: self.losers.iter().map(sample).collect(),
                impact: self.losers.iter().map(impact).collect(),
                recovery,
                actions: Vec::new(),
            }),
            said,
        }
    }
}

/// What somebody should hear of it.
fn note(service: &Name, result: &evidence::Recovery) -> Option<Note> {
    let kind = match result.state {
        RecoveryState::Recovered => "recovered",
        RecoveryState::DidNotHelp => "rollback_did_not_help",
        RecoveryState::Pending
        | RecoveryState::Unknown
        | RecoveryState::Interrupted
        | RecoveryState::NotNeeded => return None,
    };
    Some(Note {
        kind,
        service: Some(service.clone()),
        message: result.sentence.clone(),
    })
}

/// Whatever a version was rolled back for, errors are what clients must be spared first.
fn errors(cells: Option<&Arc<JudgeCells>>) -> Reader {
    Reader::new(Trouble::Errors, cells)
}
