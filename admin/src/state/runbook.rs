//! A run of a runbook on record: its steps, how far it has come, and what each found.
//!
//! Everything that is needed to go on is here, so that another process goes on where this one ended. It stays
//! on record after its end, until the next one of the same service begins. How it moves is
//! [`crate::controller`]'s business, and what is done in a step that of [`crate::runbook`].

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use switchback_config::model::{Method, Name, RunbookStep, StepKind};
use utoipa::ToSchema;

use super::later;

/// A runbook that is being carried out for a service.
///
/// Invariant: there are as many `steps` as the plan has, and `step` is one of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunbookRun {
    /// Its name in the file.
    pub runbook: Name,
    /// Its steps as they were when it began. Later changes of the file are for later runs.
    #[schema(value_type = Vec<Object>)]
    pub plan: Vec<RunbookStep>,
    /// Who began it; `switchback` if its trigger did.
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The trigger, if that began it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// Whether it may bring back an earlier configuration; whoever may only roll back may not.
    pub may_restore: bool,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub began: Timestamp,
    /// A rollback since then is what it is about.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// The step that is under way, counted from 0.
    pub step: usize,
    /// What became of each step.
    pub steps: Vec<StepRun>,
    /// The way back that was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub method: Option<Method>,
    /// Ways back that did not help, or could not be gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub tried: Vec<Method>,
    /// The rollback whose recovery tells whether it helped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<u64>,
    /// Why it waits for somebody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<RunHold>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<RunEnded>,
}

/// What became of a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepRun {
    /// Where it stands.
    pub status: StepStatus,
    /// When it began, last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub began: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended: Option<Timestamp>,
    /// It took longer than its `duration`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overdue: bool,
    /// Who ticked it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticked_by: Option<String>,
    /// What was found and done, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// To come.
    #[default]
    Pending,
    /// Under way.
    Running,
    /// Done.
    Done,
    /// Somebody passed it over.
    Skipped,
}

/// Why a run waits for somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunHold {
    /// What a tick means.
    #[serde(rename = "for")]
    pub what: RunHoldKind,
    /// In words.
    pub reason: String,
}

/// What a tick means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunHoldKind {
    /// The step may begin.
    Approval,
    /// Somebody has done it.
    Tick,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunEnded {
    /// The result.
    pub outcome: RunOutcome,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// In words.
    pub reason: String,
}

/// The result of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// All steps are done.
    Completed,
    /// Somebody stopped it.
    Stopped,
}

impl RunOutcome {
    /// As written in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Stopped => "stopped",
        }
    }
}

impl RunbookRun {
    /// Whether it has not ended.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.ended.is_none()
    }

    /// The step that is under way.
    #[must_use]
    pub fn current(&self) -> Option<&RunbookStep> {
        self.plan.get(self.step).filter(|_| self.is_running())
    }

    /// What the step under way does, unless it waits for somebody.
    #[must_use]
    pub fn at_work(&self) -> Option<StepKind> {
        let step = self.current().filter(|_| self.hold.is_none())?;
        Some(step.kind)
    }

    /// When the step under way takes longer than it should.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        let limit = self.current()?.limit()?;
        Some(later(self.steps.get(self.step)?.began?, limit.0))
    }

    /// Whether that has come to pass and is not noted yet.
    #[must_use]
    pub fn is_late(&self, at: Timestamp) -> bool {
        let noted = self.steps.get(self.step).is_some_and(|step| step.overdue);
        !noted && self.due().is_some_and(|due| at >= due)
    }

    /// `running`, `waiting`, or how it ended.
    #[must_use]
    pub const fn status(&self) -> &'static str {
        match (&self.ended, &self.hold) {
            (Some(ended), _) => ended.outcome.as_str(),
            (None, Some(_)) => "waiting",
            (None, None) => "running",
        }
    }

    /// The step that another way back begins with: the last decision up to here, else what goes back.
    #[must_use]
    pub fn decision(&self) -> Option<usize> {
        let until = self.plan.get(..=self.step)?;
        let last = |kind| until.iter().rposition(|step| step.kind == kind);
        last(StepKind::Decide).or_else(|| last(StepKind::Execute))
    }
}
