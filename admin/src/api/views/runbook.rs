//! Runbooks, and what is being done by them.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use switchback_config::model::{Method, Name, RunbookStep, StepKind};
use utoipa::ToSchema;

use super::{Followed, schema};
use crate::control::Published;
use crate::drill::shadow::is_shadow;
use crate::state::{RunEnded, RunHold, RunbookRun, StepRun, StepStatus};

/// All runbooks of the file.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Runbooks {
    /// The runbooks, in the order of the file.
    runbooks: Vec<RunbookView>,
    /// The run of each service that is under way, or its last one.
    runs: Vec<RunView>,
}

/// One runbook.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Runbook)]
struct RunbookView {
    /// Its name.
    runbook: Name,
    /// What starts it by itself.
    trigger: Option<String>,
    /// The plain rule that this stands for.
    rule: Option<String>,
    /// The services it is for.
    services: Vec<Name>,
    /// Its steps.
    steps: Vec<PlannedStep>,
}

/// One step of a runbook.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = RunbookStep)]
struct PlannedStep {
    /// Counted from 1.
    number: usize,
    /// Its name.
    name: String,
    /// What is to be done.
    action: String,
    /// What it does by itself; `manual`: somebody ticks it.
    #[schema(
        pattern = "^(assess|decide|execute|verify|communicate|post_incident|manual)$",
        example = "assess"
    )]
    kind: &'static str,
    /// How long it may take, in words.
    duration: Option<String>,
    /// Whether somebody has to agree before it begins.
    approve: bool,
}

/// A run of a runbook.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = RunbookRunView)]
pub(crate) struct RunView {
    /// The service.
    service: Name,
    /// The runbook.
    runbook: Name,
    /// `running`, `waiting`, or how it ended.
    #[schema(pattern = "^(running|waiting|completed|stopped)$", example = "waiting")]
    status: &'static str,
    /// The step that is under way, counted from 1.
    step: usize,
    /// Why it waits for somebody.
    waits_for: Option<RunHold>,
    /// Who began it.
    by: String,
    /// Why.
    reason: Option<String>,
    /// The trigger, if that began it.
    trigger: Option<String>,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    began: Timestamp,
    /// The way back that was chosen: `flag`, `config`, `traffic` or `redeploy`.
    method: Option<&'static str>,
    /// The rollback that it made or is about.
    rollback: Option<u64>,
    /// Its steps.
    steps: Vec<StepView>,
    /// How it ended.
    ended: Option<RunEnded>,
}

/// A step of a run.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = RunbookStepRun)]
struct StepView {
    /// What was planned.
    #[serde(flatten)]
    plan: PlannedStep,
    /// Where it stands.
    status: StepStatus,
    /// When it began, last.
    #[schema(value_type = Option<String>, format = DateTime)]
    began: Option<Timestamp>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    ended: Option<Timestamp>,
    /// How long it took, or has taken until now.
    #[schema(value_type = Option<schema::TimeSpan>)]
    took: Option<switchback_config::units::TimeSpan>,
    /// It took longer than its `duration`.
    overdue: bool,
    /// Who ticked it.
    ticked_by: Option<String>,
    /// What was found and done.
    findings: Vec<String>,
}

/// What became of a request about a run.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = RunbookWritten)]
pub(crate) struct RunWritten {
    /// Whether anything is different now, or would be.
    pub(in crate::api) changed: bool,
    /// It was a dry run: nothing has changed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::api) dry_run: bool,
    /// The state after it.
    pub(in crate::api) revision: u64,
    /// The run as it is, or would be.
    pub(in crate::api) run: Option<RunView>,
    /// Whether the other instances follow.
    #[serde(flatten)]
    #[schema(inline)]
    pub(in crate::api) followed: Followed,
}

/// All runbooks and runs.
pub(crate) fn runbooks(published: &Published) -> Runbooks {
    let config = &published.config;
    let names = config.runbooks.keys();
    let runbooks = names.filter_map(|name| {
        let runbook = config.runbook(name)?;
        let rule = runbook
            .trigger
            .as_ref()
            .map(|trigger| trigger.rule().clone());
        let services = config.services.keys();
        Some(RunbookView {
            runbook: name.clone(),
            trigger: runbook.trigger.as_ref().map(|t| t.text().to_owned()),
            rule: rule.map(String::from),
            services: services
                .filter(|name| runbook.is_for(name) && !is_shadow(name))
                .cloned()
                .collect(),
            steps: planned(&runbook.steps),
        })
    });
    let services = published.services.keys().filter(|name| !is_shadow(name));
    Runbooks {
        runbooks: runbooks.collect(),
        runs: services.filter_map(|name| run(published, name)).collect(),
    }
}

/// The run of a service that is under way, or its last one.
pub(crate) fn run(published: &Published, service: &str) -> Option<RunView> {
    let recorded = published.state.services.get(service)?.runbook.as_ref()?;
    Some(run_view(service, recorded, published.clock.now()))
}

/// A run as it is at this time.
pub(crate) fn run_view(service: &str, run: &RunbookRun, now: Timestamp) -> RunView {
    let plans = planned(&run.plan).into_iter();
    let steps = plans.zip(&run.steps).map(|(plan, step)| StepView {
        took: took(step, now),
        plan,
        status: step.status,
        began: step.began,
        ended: step.ended,
        overdue: step.overdue,
        ticked_by: step.ticked_by.clone(),
        findings: step.findings.clone(),
    });
    RunView {
        service: service.into(),
        runbook: run.runbook.clone(),
        status: run.status(),
        step: run.step + 1,
        waits_for: run.hold.clone(),
        by: run.by.clone(),
        reason: run.reason.clone(),
        trigger: run.trigger.clone(),
        began: run.began,
        method: run.method.map(Method::as_str),
        rollback: run.rollback,
        steps: steps.collect(),
        ended: run.ended.clone(),
    }
}

fn planned(steps: &[RunbookStep]) -> Vec<PlannedStep> {
    let steps = steps.iter().enumerate();
    let steps = steps.map(|(index, step)| PlannedStep {
        number: index + 1,
        name: step.name.clone(),
        action: step.action.clone(),
        kind: StepKind::as_str(step.kind),
        duration: step.duration.clone(),
        approve: step.approve,
    });
    steps.collect()
}

/// How long a step took: in whole milliseconds, since people read it.
fn took(step: &StepRun, now: Timestamp) -> Option<switchback_config::units::TimeSpan> {
    let began = step.began?;
    let until = step.ended.unwrap_or(now);
    let took = until.duration_since(began).max(SignedDuration::ZERO);
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    Some(switchback_config::units::TimeSpan(
        std::time::Duration::from_millis(ms),
    ))
}
