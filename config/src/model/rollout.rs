//! How a canary grows into the stable version: steps, a bake, and what must hold to go on.
//!
//! The same types and checks serve the file, the API and the recorded state: a rollout that was
//! started keeps the plan it was started with.

use serde::{Deserialize, Serialize};

use super::limits::or_off;
use crate::defaults::{ROLLOUT_STEPS_MAX, STEP_REQUESTS_MAX};
use crate::units::{Percent, TimeSpan};

/// The plan of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// Shares of the canary, one after the other. None may be smaller than the one before.
    pub steps: Vec<Step>,
    /// The last stretch before the canary becomes stable; `None` (`off`): none.
    #[serde(serialize_with = "or_off", deserialize_with = "off_or")]
    pub bake: Option<Bake>,
    /// No step is left before the canary has answered so many requests in it.
    pub min_requests: u32,
    /// A rollout that stands still for so long, beyond the time its step takes, is given up.
    pub deadline: TimeSpan,
}

/// One share of the canary, and what it takes to go on. At least one condition is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Share of the canary: 0.01 % to 99.99 %, in whole parts of 10 000.
    pub weight: Percent,
    /// How long it lasts at least.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub span: Option<TimeSpan>,
    /// How many requests the canary answers at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u32>,
    /// Whether somebody has to say that it may go on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub approve: bool,
}

/// The last stretch: the canary has everything but a holdback, which is the control group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bake {
    /// Share of stable: 1 % to 50 %. Below 1 % there would be nothing to compare with.
    pub holdback: Percent,
    /// How long it lasts at least.
    #[serde(rename = "for")]
    pub span: TimeSpan,
}

/// Parts of a whole service that a rollout deals in.
pub const ROLLOUT_PARTS: u32 = 10_000;

/// Millionths in one of them.
const PART: u32 = Percent::WHOLE / ROLLOUT_PARTS;

/// Bounds of a holdback, in millionths.
const HOLDBACK: (u32, u32) = (10_000, 500_000);

/// What is wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutFault {
    /// The step, if it is about one.
    pub step: Option<usize>,
    /// Why it cannot be so.
    pub reason: String,
    /// What to do.
    pub repair: &'static str,
}

impl Step {
    /// The canary's part of [`ROLLOUT_PARTS`].
    #[must_use]
    pub const fn parts(&self) -> u32 {
        self.weight.millionths() / PART
    }
}

impl Bake {
    /// The canary's part of [`ROLLOUT_PARTS`].
    #[must_use]
    pub const fn parts(&self) -> u32 {
        ROLLOUT_PARTS - self.holdback.millionths() / PART
    }
}

impl Rollout {
    /// Everything that is wrong with the plan.
    #[must_use]
    pub fn faults(&self) -> Vec<RolloutFault> {
        let mut faults = Vec::new();
        let mut fault = |step: Option<usize>, reason: String, repair| {
            faults.push(RolloutFault {
                step,
                reason,
                repair,
            });
        };
        if self.steps.is_empty() && self.bake.is_none() {
            let reason = "there are neither steps nor a bake".into();
            fault(None, reason, "add a step, or use switchback switch");
        }
        if self.steps.len() > ROLLOUT_STEPS_MAX {
            let reason = format!(
                "{} steps are more than {ROLLOUT_STEPS_MAX}",
                self.steps.len()
            );
            fault(None, reason, "use fewer and larger steps");
        }
        let mut before = 0;
        for (index, step) in self.steps.iter().enumerate() {
            let at = Some(index);
            if let Some((reason, repair)) = step_fault(step) {
                fault(at, reason, repair);
            }
            if step.weight.millionths() < before {
                let reason = format!("{} is less than the step before", step.weight);
                fault(at, reason, "let weights grow from step to step");
            }
            before = step.weight.millionths();
        }
        if let Some(bake) = &self.bake {
            if !(HOLDBACK.0..=HOLDBACK.1).contains(&bake.holdback.millionths()) {
                let reason = format!("a holdback of {} is no control group", bake.holdback);
                fault(None, reason, "use 1% to 50%");
            } else if Percent::WHOLE - bake.holdback.millionths() < before {
                let reason = "the bake would give the canary less than the last step".into();
                fault(None, reason, "lower the holdback or the last step");
            }
            if bake.span.0.is_zero() {
                fault(
                    None,
                    "a bake of 0s proves nothing".into(),
                    "use more than 0s, or bake: off",
                );
            }
        }
        if self.deadline.0.is_zero() {
            fault(
                None,
                "a deadline of 0s gives up at once".into(),
                "use for example 24h",
            );
        }
        faults
    }
}

fn step_fault(step: &Step) -> Option<(String, &'static str)> {
    let weight = step.weight.millionths();
    if weight == 0 || weight == Percent::WHOLE || !weight.is_multiple_of(PART) {
        return Some((
            format!("{} cannot be the weight of a step", step.weight),
            "use 0.01% to 99.99%, in steps of 0.01%",
        ));
    }
    let timed = step.span.is_some_and(|span| !span.0.is_zero());
    let counted = step.requests.is_some_and(|requests| requests > 0);
    if step
        .requests
        .is_some_and(|requests| requests > STEP_REQUESTS_MAX)
    {
        return Some((
            "so many requests never come".into(),
            "use at most 1000000000",
        ));
    }
    (!timed && !counted && !step.approve).then(|| {
        (
            "nothing says how long this step lasts".into(),
            "add for: 10m, requests: 1000 or approve: true",
        )
    })
}

/// Reads what [`Step`]'s `Display` writes: `10% for 5m`, `10% for 1000 requests`, `50% until approved`,
/// or several of these conditions one after the other.
impl std::str::FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no step: write \"10% for 5m\", \"10% for 1000 requests\" or \"50% until approved\""
            )
        };
        let mut words = text.split_whitespace().peekable();
        let weight = words.next().and_then(|word| word.parse().ok());
        let mut step = Self {
            weight: weight.ok_or_else(wrong)?,
            span: None,
            requests: None,
            approve: false,
        };
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(wrong)?;
            match word {
                "until" if value == "approved" => step.approve = true,
                "for" if words.next_if_eq(&"requests").is_some() => {
                    step.requests = Some(value.parse().map_err(|_| wrong())?);
                }
                "for" => step.span = Some(value.parse().map_err(|_| wrong())?),
                _ => return Err(wrong()),
            }
        }
        Ok(step)
    }
}

/// As it is written in events and on the command line: `10% for 5m until approved`.
impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.weight)?;
        if let Some(span) = self.span {
            write!(f, " for {span}")?;
        }
        if let Some(requests) = self.requests {
            write!(f, " for {requests} requests")?;
        }
        if self.approve {
            f.write_str(" until approved")?;
        }
        Ok(())
    }
}

/// Reads `off` or a value.
fn off_or<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Bake>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OffOr {
        Word(String),
        Bake(Bake),
    }
    match Option::<OffOr>::deserialize(deserializer)? {
        None => Ok(None),
        Some(OffOr::Word(word)) if word == "off" => Ok(None),
        Some(OffOr::Word(word)) => Err(serde::de::Error::custom(format_args!(
            "{word:?} is no bake; write off, or holdback and for"
        ))),
        Some(OffOr::Bake(bake)) => Ok(Some(bake)),
    }
}

/// As it is written in events: `1% for 5m, 10% for 10m, then 98%`.
impl std::fmt::Display for Rollout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut between = "";
        for step in &self.steps {
            write!(f, "{between}{step}")?;
            between = ", ";
        }
        if let Some(bake) = &self.bake {
            write!(
                f,
                "{between}bake with {} held back for {}",
                bake.holdback, bake.span
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_as_they_are_written() {
        for text in [
            "1% for 5m",
            "10% for 1000 requests",
            "50% until approved",
            "0.01% for 10s for 5 requests until approved",
        ] {
            let step: Step = text.parse().unwrap();
            assert_eq!(step.to_string(), text);
        }
        for text in [
            "",
            "5m",
            "1% 5m",
            "1% for",
            "1% for x",
            "1% until",
            "1% for 5m oops",
        ] {
            assert!(text.parse::<Step>().is_err(), "{text}");
        }
    }

    #[test]
    fn plan_reads_as_a_sentence() {
        let plan = crate::defaults::rollout();
        assert_eq!(
            plan.to_string(),
            "1% for 5m, 10% for 10m, 50% for 10m, bake with 2% held back for 30m"
        );
    }
}
