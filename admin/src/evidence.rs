//! The record of one rollback: what was seen, what was decided, what was done, and whether it helped.
//!
//! It is made on the control thread from what the observer has at hand, after the rollback is in force,
//! and persisted after the rollback itself is safe. What comes later (the minute after, the final
//! impact, the recovery) arrives as an [`Amendment`]. The record of a judge's verdict holds everything
//! the judge was told, so [`Record::verify`] can ask the judge again and notice a record that was
//! changed.

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use switchback_config::defaults::EVIDENCE_AFTER;
use switchback_config::model::Name;
use switchback_config::units::{StatusRange, Threshold};
use switchback_judge::{Explanation, Judge, RuleState, SignalTape, Tape};
use switchback_proxy::exposure::{self, Exposure, SAMPLES_MAX};
use switchback_proxy::outcome::{CLASSES, Outcome};
use utoipa::ToSchema;

use crate::api::views::{judge, schema};
use crate::command::Cause;
use crate::observer::{Clock, Trouble};

/// One rollback, or the block of a version that failed the copies of requests that it got.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = RollbackRecord)]
pub struct Record {
    /// Its number: that of the revision it made.
    pub id: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The service.
    pub service: Name,
    /// The backend that lost its weight; the first, if there were several.
    pub backend: Name,
    /// Its label.
    pub version: String,
    /// The backend that serves since.
    pub stable: Name,
    /// Its label.
    pub stable_version: String,
    /// What brought it about.
    pub cause: Cause,
    /// Why, in one sentence.
    pub sentence: String,
    /// Name of the token, or `judge`.
    pub by: String,
    /// From the swap to the last worker's acknowledgement; `null` until that is known.
    pub applied_in_us: Option<u64>,
    /// Weights before it.
    #[schema(value_type = schema::Weights)]
    pub weights_before: IndexMap<Name, u32>,
    /// Weights after it.
    #[schema(value_type = schema::Weights)]
    pub weights_after: IndexMap<Name, u32>,
    /// The judge's settings that were in force, as in the config file.
    #[schema(value_type = Object)]
    pub settings: serde_json::Value,
    /// What was seen of each version that lost its weight.
    pub versions: Vec<VersionEvidence>,
    /// What was done.
    pub actions: Vec<Action>,
    /// Whether it helped.
    pub recovery: Recovery,
    /// Whether the previous stable came back; otherwise a canary lost its weight.
    #[serde(default)]
    pub switched_back: bool,
}

/// What was seen of one version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VersionEvidence {
    /// The backend.
    pub backend: Name,
    /// Its label.
    pub version: String,
    /// Requests and failures, second by second: two minutes before, one minute after. Seconds in which
    /// nothing ended may be missing.
    pub seconds: Vec<Second>,
    /// The judges that watched it.
    pub judges: Vec<JudgeEvidence>,
    /// The plain rule that fired.
    pub rule: Option<RuleEvidence>,
    /// The last failures, at most 20.
    pub samples: Vec<SampleRequest>,
    /// Whom it reached.
    pub impact: Option<Impact>,
}

/// Requests and failures of one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = EvidenceSecond)]
pub struct Second {
    /// Which: 0 is the one of the rollback, -1 the one before.
    pub second: i32,
    /// Ended requests of the version.
    pub canary_requests: u64,
    /// Those of them that failed.
    pub canary_failures: u64,
    /// Ended requests of the one it was compared with; after the rollback, of the one that serves.
    pub stable_requests: u64,
    /// Those of them that failed.
    pub stable_failures: u64,
}

/// One judge's part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JudgeEvidence {
    /// What it judges.
    pub trouble: Trouble,
    /// Its numbers.
    #[schema(value_type = judge::Explanation)]
    pub explanation: Explanation,
    /// What slow was, where that is judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slower_than: Option<String>,
    /// Its numbers in one sentence.
    pub sentence: String,
    /// How its charts rose, second by second.
    pub path: Vec<Levels>,
    /// Its state some time before and everything it was told since, so that its verdict can be checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub tape: Option<Tape<Judge>>,
}

/// Levels of a judge's charts at the end of a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Levels {
    /// Which second, as in `seconds`.
    pub second: i32,
    /// From the smallest trouble looked for to the largest, in nats; it rolls back at 0.
    pub levels: [f64; 5],
}

/// A plain rule that has fired.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RuleEvidence {
    /// In its own words.
    pub rule: String,
    /// Its state some time before and everything it was told since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub tape: Option<Tape<RuleState>>,
    /// What was measured, if that is what it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<SignalEvidence>,
}

/// What was measured elsewhere until a rule about it fired.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SignalEvidence {
    /// What was bad: `> 5`, `not 200-299`.
    pub bad: String,
    /// The signal's state some time before, and everything it was told since.
    #[schema(value_type = Object)]
    pub tape: SignalTape,
}

/// A request that failed, or was slow where that is judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SampleRequest {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// `x-request-id` as the origin saw it.
    pub request_id: String,
    /// `traceparent` as the origin saw it.
    pub traceparent: String,
    /// Its method.
    pub method: String,
    /// Its status, or `connect`, `timeout`, `reset`, `grpc 14`, `slow`.
    pub outcome: String,
    /// From its arrival to the failure.
    pub duration_ms: f64,
    /// Its path as a template, where `rollback.sample_paths` asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Whom a version reached since it got weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Impact {
    /// Sent to it by the split, and ended there.
    pub touched: Reach,
    /// Its failure was what the client got.
    pub saw_error: Reach,
    /// Answered by stable in its place.
    pub rescued: Reach,
}

/// Requests and the clients behind them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reach {
    /// Requests, exactly.
    pub requests: u64,
    /// Distinct clients by affinity key or address, within some 2 % (HyperLogLog).
    pub clients: u64,
}

/// Something that was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = RollbackAction)]
pub struct Action {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// In words.
    pub what: String,
}

/// Whether a rollback helped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = RollbackRecovery)]
pub struct Recovery {
    /// As far as it is known.
    pub state: RecoveryState,
    /// The failure rate at or below which all is well: what is usual, and what is tolerated beyond.
    pub band: f64,
    /// Requests of what serves now, when it was last looked at.
    pub requests: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// The same for slow requests, after a rollback for slowness.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow: Option<SlowRecovery>,
    /// How long after the rollback.
    pub after_s: f64,
    /// In words.
    pub sentence: String,
}

/// Whether requests are as slow as usual again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SlowRecovery {
    /// The rate of slow requests at or below which all is well.
    pub band: f64,
    /// Requests of what serves now, when it was last looked at.
    pub requests: u64,
    /// Those of them that were slow.
    pub slow: u64,
}

/// Where the check after a rollback stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecoveryState {
    /// It is being watched.
    Pending,
    /// Errors are back to usual, and so are slow requests, if it was for them.
    Recovered,
    /// Something is not: what was rolled back is probably not the cause.
    DidNotHelp,
    /// Nobody asked for anything.
    Unknown,
    /// Something else came in between: another rollback or switch, or the end of the process.
    Interrupted,
    /// The version got only copies of requests, and was blocked before any user met it.
    NotNeeded,
}

impl RecoveryState {
    /// As written in records and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Recovered => "recovered",
            Self::DidNotHelp => "did_not_help",
            Self::Unknown => "unknown",
            Self::Interrupted => "interrupted",
            Self::NotNeeded => "not_needed",
        }
    }
}

/// What is learnt of a rollback later.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Amendment {
    /// How long it took to be in force.
    pub applied_in_us: Option<u64>,
    /// Seconds after it, for each version in order.
    pub seconds: Vec<Vec<Second>>,
    /// The failures that are remembered by now, for each version in order.
    pub samples: Vec<Vec<SampleRequest>>,
    /// The impact by now, for each version in order.
    pub impact: Vec<Option<Impact>>,
    /// Whether it helped.
    pub recovery: Option<Recovery>,
    /// What was done since.
    pub actions: Vec<Action>,
}

/// A record in one line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = RollbackSummary)]
pub struct Summary {
    /// Its number.
    pub id: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The service.
    pub service: Name,
    /// The backend that lost its weight.
    pub backend: Name,
    /// Its label.
    pub version: String,
    /// What brought it about.
    pub cause: Cause,
    /// Why, in one sentence.
    pub sentence: String,
    /// Name of the token, or `judge`.
    pub by: String,
    /// Whether it helped.
    pub recovery: RecoveryState,
    /// From the swap to the last worker's acknowledgement; `null` until that is known.
    #[serde(default)]
    pub applied_in_us: Option<u64>,
    /// Whether the previous stable came back; otherwise a canary lost its weight.
    #[serde(default)]
    pub switched_back: bool,
}

/// How the sentence about a version that only got copies of requests begins.
pub(crate) const MIRRORED: &str = "of mirrored requests, ";

/// Actions that a record holds; hooks add a few each.
const ACTIONS_MAX: usize = 100;

impl Record {
    /// The record in one line.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            id: self.id,
            at: self.at,
            service: self.service.clone(),
            backend: self.backend.clone(),
            version: self.version.clone(),
            cause: self.cause,
            sentence: self.sentence.clone(),
            by: self.by.clone(),
            recovery: self.recovery.state,
            applied_in_us: self.applied_in_us,
            switched_back: self.switched_back,
        }
    }

    /// Whether the version got only copies of requests, and lost no weight.
    #[must_use]
    pub fn is_about_copies(&self) -> bool {
        self.recovery.state == RecoveryState::NotNeeded
    }

    /// Takes in what was learnt later.
    pub fn amend(&mut self, amendment: Amendment) {
        self.applied_in_us = amendment.applied_in_us.or(self.applied_in_us);
        for (version, seconds) in self.versions.iter_mut().zip(amendment.seconds) {
            for second in seconds {
                match version.seconds.last_mut() {
                    // The second of the rollback has two halves.
                    Some(last) if last.second == second.second => last.add(second),
                    _ => version.seconds.push(second),
                }
            }
            let after_max = i32::try_from(EVIDENCE_AFTER.as_secs()).unwrap_or(i32::MAX);
            version.seconds.retain(|second| second.second <= after_max);
        }
        for (version, impact) in self.versions.iter_mut().zip(amendment.impact) {
            version.impact = impact.or(version.impact);
        }
        for (version, samples) in self.versions.iter_mut().zip(amendment.samples) {
            version.add_samples(samples);
        }
        if let Some(recovery) = amendment.recovery {
            self.recovery = recovery;
        }
        self.actions.extend(amendment.actions);
        self.actions.truncate(ACTIONS_MAX);
    }

    /// Plays what was recorded again. `Ok(false)`: what led to the rollback is nothing that can be
    /// played.
    ///
    /// # Errors
    /// In words, when the judge or the rule would have said something else: the record was changed.
    pub fn verify(&self) -> Result<bool, String> {
        let (mut recorded, mut proven) = (false, false);
        for version in &self.versions {
            for judge in &version.judges {
                let holds = judge.verify(&self.sentence)?;
                if self.cause == Cause::Judge {
                    recorded |= judge.tape.is_some();
                    proven |= holds;
                }
            }
            if let Some(rule) = &version.rule {
                let holds = rule.verify(&self.sentence)?;
                if self.cause == Cause::Rule {
                    recorded |= rule.tape.is_some() || rule.signal.is_some();
                    proven |= holds;
                }
            }
        }
        if recorded && !proven {
            return Err("the record holds no verdict that led to this rollback".into());
        }
        Ok(recorded)
    }
}

impl VersionEvidence {
    /// Adds what ended only after the rollback, such as requests that hung until then.
    fn add_samples(&mut self, samples: Vec<SampleRequest>) {
        for sample in samples {
            let is_same = |known: &SampleRequest| known.request_id == sample.request_id;
            if self.samples.len() < SAMPLES_MAX && !self.samples.iter().any(is_same) {
                self.samples.push(sample);
            }
        }
    }
}

impl Second {
    fn add(&mut self, more: Self) {
        self.canary_requests += more.canary_requests;
        self.canary_failures += more.canary_failures;
        self.stable_requests += more.stable_requests;
        self.stable_failures += more.stable_failures;
    }
}

impl JudgeEvidence {
    /// Whether the judge comes to its verdict again, with the same numbers.
    fn verify(&self, sentence: &str) -> Result<bool, String> {
        let Some(tape) = &self.tape else {
            return Ok(false);
        };
        let judge = tape.replay().map_err(|mismatch| mismatch.to_string())?;
        let explanation = judge.explain();
        let slower_than = self.slower_than.as_deref();
        let says = self.trouble.sentence(&explanation, slower_than);
        if explanation != self.explanation || says != self.sentence {
            return Err(format!(
                "played again the judge says {says:?}, recorded was {:?}",
                self.sentence
            ));
        }
        let last = tape.inputs.last().map(|input| input.at_us);
        let concluded = tape.concluded_us.is_some() && tape.concluded_us == last;
        let sentence = sentence.strip_prefix(MIRRORED).unwrap_or(sentence);
        Ok(concluded && sentence.starts_with(&says))
    }
}

impl RuleEvidence {
    fn verify(&self, sentence: &str) -> Result<bool, String> {
        let concluded_us = match (&self.tape, &self.signal) {
            (Some(tape), _) => {
                tape.replay().map_err(|mismatch| mismatch.to_string())?;
                tape.concluded_us
            }
            (None, Some(signal)) => signal.verify()?,
            (None, None) => return Ok(false),
        };
        Ok(concluded_us.is_some() && sentence.starts_with(&self.rule))
    }
}

impl SignalEvidence {
    /// When it fires again, told the same.
    fn verify(&self) -> Result<Option<u64>, String> {
        let is_bad = self.bad_numbers()?;
        for look in &self.tape.looks {
            if is_bad(look.value) != look.bad {
                return Err(format!(
                    "{} was recorded as {}, and bad is {}",
                    look.value,
                    if look.bad { "bad" } else { "good" },
                    self.bad
                ));
            }
        }
        let replayed = self.tape.replay();
        replayed.map_err(|mismatch| mismatch.to_string())?;
        Ok(self.tape.concluded_us)
    }

    fn bad_numbers(&self) -> Result<Box<dyn Fn(f64) -> bool>, String> {
        let wrong = |error: switchback_config::units::UnitError| error.to_string();
        if let Some(good) = self.bad.strip_prefix("not ") {
            let good: StatusRange = good.parse().map_err(wrong)?;
            return Ok(Box::new(move |number| {
                let mut statuses = 100..=599_u16;
                let status = statuses.find(|status| f64::from(*status) == number);
                !status.is_some_and(|status| good.contains(status))
            }));
        }
        let threshold: Threshold = self.bad.parse().map_err(wrong)?;
        Ok(Box::new(move |number| threshold.is_met(number)))
    }
}

impl Recovery {
    /// A check that has just begun.
    #[must_use]
    pub fn pending(band: f64) -> Self {
        Self {
            state: RecoveryState::Pending,
            band,
            requests: 0,
            failures: 0,
            slow: None,
            after_s: 0.0,
            sentence: "the errors of what serves now are being watched".into(),
        }
    }

    /// Nobody has to recover from copies.
    #[must_use]
    pub fn not_needed() -> Self {
        Self {
            state: RecoveryState::NotNeeded,
            sentence: "it got only copies of requests: no user has met it".into(),
            ..Self::pending(0.0)
        }
    }

    /// The same, cut short.
    #[must_use]
    pub fn interrupted(self, why: &str) -> Self {
        Self {
            state: RecoveryState::Interrupted,
            sentence: why.into(),
            ..self
        }
    }
}

impl From<exposure::Impact> for Impact {
    fn from(impact: exposure::Impact) -> Self {
        let reach = |reach: exposure::Reach| Reach {
            requests: reach.requests,
            clients: reach.clients,
        };
        Self {
            touched: reach(impact.touched),
            saw_error: reach(impact.failed),
            rescued: reach(impact.rescued),
        }
    }
}

/// The failures that are remembered of a version.
pub(crate) fn samples(clock: Clock, exposure: &Exposure) -> Vec<SampleRequest> {
    let samples = exposure.samples().into_iter().map(|sample| {
        let ago = clock.now.saturating_sub(sample.at);
        let ago = jiff::SignedDuration::try_from(ago).unwrap_or_default();
        SampleRequest {
            at: clock.at.checked_sub(ago).unwrap_or(clock.at),
            request_id: sample.about.request_id,
            traceparent: sample.about.traceparent,
            method: sample.about.method,
            outcome: sample.outcome.map_or_else(|| "slow".into(), outcome_text),
            duration_ms: (sample.took.as_secs_f64() * 1e6).round() / 1e3,
            path: sample.about.path,
        }
    });
    samples.collect()
}

/// How a request ended, in a word.
fn outcome_text(outcome: Outcome) -> String {
    match outcome {
        Outcome::Status(status) => status.to_string(),
        Outcome::Grpc(_, Some(code)) => format!("grpc {code}"),
        Outcome::Grpc(_, None) => "grpc without status".into(),
        other => other
            .class()
            .map_or("not sent", |class| CLASSES[class])
            .into(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
