//! A rollout on record: its plan, how far it has come, and how it ended.
//!
//! It stays on record after its end, so that whoever waits for it learns how it went, also after a
//! restart. How it moves is [`crate::controller`]'s business; what it waits for is worked out here,
//! once, for the controller, the API and the task that keeps it moving.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use switchback_config::model::{Name, ROLLOUT_PARTS, Rollout};
use switchback_config::units::Percent;
use utoipa::ToSchema;

use crate::api::views::schema;

/// A canary on its way to become stable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RolloutState {
    /// The backend that grows.
    pub canary: Name,
    /// Its label.
    pub version: String,
    /// What was planned when it began. Later changes of the file are for later rollouts.
    #[schema(value_type = schema::Rollout)]
    pub plan: Rollout,
    /// How far it has come.
    pub stage: Stage,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub began: Timestamp,
    /// When its stage began, moved on by the time it was paused.
    #[schema(value_type = String, format = DateTime)]
    pub stage_since: Timestamp,
    /// When it last advanced, or somebody last did something about it.
    #[schema(value_type = String, format = DateTime)]
    pub moved: Timestamp,
    /// Who started it.
    pub by: String,
    /// The caller's key, by which a repeated request is recognised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// It does not advance until somebody says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Pause>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    /// How the version that was held back did while the canary had all but its share, once that is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdback: Option<Holdback>,
}

/// How the version before does beside the new one: whether it still works on what the new one writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Holdback {
    /// Its backend.
    pub backend: Name,
    /// Its label.
    pub version: String,
    /// Requests it has answered since the bake began.
    pub requests: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// Whether it works; nothing: too few requests to tell.
    pub works: Option<bool>,
}

/// How far a rollout has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The step at this position, counted from 0.
    Step(usize),
    /// The last stretch.
    Bake,
}

/// Somebody stopped it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pause {
    /// Who: a person's token, or the judge.
    pub by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How a rollout ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ended {
    /// The result.
    pub outcome: Outcome,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// In words.
    pub reason: String,
}

/// The result of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The canary is stable now.
    Promoted,
    /// The canary has no weight, and its version is blocked.
    RolledBack,
    /// Somebody changed weights or roles by other means.
    Superseded,
    /// Nobody advanced it in time; the canary has no weight.
    Expired,
}

impl Outcome {
    /// As it is written in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Promoted => "promoted",
            Self::RolledBack => "rolled_back",
            Self::Superseded => "superseded",
            Self::Expired => "expired",
        }
    }
}

/// What is known of the canary in its current stage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Requests it has answered since its share last rose, in this process.
    pub requests: u64,
    /// Why it should not get more, if there is a reason.
    pub hold: Option<Hold>,
    /// Requests that the one it is compared with has answered meanwhile.
    pub stable_requests: u64,
    /// Those of them that failed.
    pub stable_failures: u64,
}

/// A reason not to give a canary more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// In words.
    pub reason: String,
    /// Stable is the broken one, not the canary: a person may well give the canary more.
    pub stable_fails: bool,
}

impl Hold {
    /// Something is wrong with the canary, or may be.
    #[must_use]
    pub const fn canary(reason: String) -> Self {
        Self {
            reason,
            stable_fails: false,
        }
    }
}

impl Standing {
    /// The same, with what is known of its endpoints: without one that works nothing goes on.
    #[must_use]
    pub fn with_health(mut self, backend: &str, known_healthy: bool) -> Self {
        if !known_healthy && self.hold.is_none() {
            self.hold = Some(Hold::canary(format!(
                "{backend} has no endpoint that is known to be healthy"
            )));
        }
        self
    }
}

/// What a rollout waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "for")]
pub enum Wait {
    /// Somebody to resume it.
    Resume,
    /// The end of its stage's time.
    Time {
        /// When that is.
        #[schema(value_type = String, format = DateTime)]
        until: Timestamp,
    },
    /// More answers of the canary.
    Traffic {
        /// How many there are.
        requests: u64,
        /// How many there must be.
        needed: u64,
    },
    /// The judge, or whatever else speaks against going on.
    Hold {
        /// Why.
        reason: String,
    },
    /// Somebody to say that it may go on.
    Approval,
}

impl RolloutState {
    /// Whether it has not ended.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.ended.is_none()
    }

    /// What keeps it from advancing at `at`; nothing if it may.
    #[must_use]
    pub fn waits_for(&self, at: Timestamp, standing: &Standing) -> Option<Wait> {
        if self.paused.is_some() {
            return Some(Wait::Resume);
        }
        if let Some(until) = self.stage_ends().filter(|until| at < *until) {
            return Some(Wait::Time { until });
        }
        if let Some(hold) = &standing.hold {
            let reason = hold.reason.clone();
            return Some(Wait::Hold { reason });
        }
        let needed = self.requests_needed();
        if standing.requests < needed {
            let requests = standing.requests;
            return Some(Wait::Traffic { requests, needed });
        }
        self.needs_approval().then_some(Wait::Approval)
    }

    /// How the version on `stable` does while it is held back in a bake.
    #[must_use]
    pub fn held_back(&self, stable: &Name, version: &str, standing: &Standing) -> Option<Holdback> {
        if self.stage != Stage::Bake {
            return None;
        }
        let fails = standing.hold.as_ref().is_some_and(|hold| hold.stable_fails);
        let enough = standing.stable_requests >= self.plan.min_requests.into();
        Some(Holdback {
            backend: stable.clone(),
            version: version.to_owned(),
            requests: standing.stable_requests,
            failures: standing.stable_failures,
            works: (fails || enough).then_some(!fails),
        })
    }

    /// When it is given up if nobody advances it.
    #[must_use]
    pub fn expires(&self) -> Timestamp {
        let stage = self.stage_time().unwrap_or_default();
        later(self.moved, stage.saturating_add(self.plan.deadline.0))
    }

    /// The stage after this one; none: the canary becomes stable.
    #[must_use]
    pub fn next_stage(&self) -> Option<Stage> {
        let bake = || self.plan.bake.is_some().then_some(Stage::Bake);
        match self.stage {
            Stage::Step(step) if step + 1 < self.plan.steps.len() => Some(Stage::Step(step + 1)),
            Stage::Step(_) => bake(),
            Stage::Bake => None,
        }
    }

    /// The first stage of a plan.
    #[must_use]
    pub const fn first_stage(plan: &Rollout) -> Stage {
        if plan.steps.is_empty() {
            Stage::Bake
        } else {
            Stage::Step(0)
        }
    }

    /// The canary's part of [`switchback_config::model::ROLLOUT_PARTS`] in a stage.
    #[must_use]
    pub fn parts(&self, stage: Stage) -> u32 {
        match stage {
            Stage::Step(step) => self.plan.steps.get(step).map_or(0, |step| step.parts()),
            Stage::Bake => self.plan.bake.as_ref().map_or(0, |bake| bake.parts()),
        }
    }

    /// The canary's share in a stage.
    #[must_use]
    pub fn share(&self, stage: Stage) -> Percent {
        Percent::from_millionths(self.parts(stage) * (Percent::WHOLE / ROLLOUT_PARTS))
    }

    /// `running`, `paused`, or how it ended.
    #[must_use]
    pub const fn status(&self) -> &'static str {
        match (&self.ended, &self.paused) {
            (Some(ended), _) => ended.outcome.as_str(),
            (None, Some(_)) => "paused",
            (None, None) => "running",
        }
    }

    /// The stage in words: `step 2 of 3`, `bake`.
    #[must_use]
    pub fn stage_text(&self) -> String {
        match self.stage {
            Stage::Step(step) => format!("step {} of {}", step + 1, self.plan.steps.len()),
            Stage::Bake => "bake".into(),
        }
    }

    fn stage_time(&self) -> Option<std::time::Duration> {
        match self.stage {
            Stage::Step(step) => Some(self.plan.steps.get(step)?.span?.0),
            Stage::Bake => Some(self.plan.bake.as_ref()?.span.0),
        }
    }

    fn stage_ends(&self) -> Option<Timestamp> {
        Some(later(self.stage_since, self.stage_time()?))
    }

    fn requests_needed(&self) -> u64 {
        let of_step = match self.stage {
            Stage::Step(step) => self.plan.steps.get(step).and_then(|step| step.requests),
            Stage::Bake => None,
        };
        of_step.unwrap_or(self.plan.min_requests).into()
    }

    fn needs_approval(&self) -> bool {
        match self.stage {
            Stage::Step(step) => self.plan.steps.get(step).is_some_and(|step| step.approve),
            Stage::Bake => false,
        }
    }
}

/// A point in time so much later, or the last there is.
pub(crate) fn later(at: Timestamp, span: std::time::Duration) -> Timestamp {
    let span = SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
    at.saturating_add(span).unwrap_or(Timestamp::MAX)
}
