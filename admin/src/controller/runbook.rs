//! Runs of runbooks: how one begins, goes from step to step, waits for somebody, and ends.
//!
//! Nothing here moves traffic: what a step does is done by commands of its own, by the verbs that everybody
//! uses, and reported here. One run per service at a time.

use switchback_config::defaults::RUNBOOK_FINDINGS_MAX;
use switchback_config::model::{Method, RunbookStep, StepKind};

use super::Case;
use crate::command::{Refusal, RunbookAct, RunbookStart, StepTurn};
use crate::state::{RunEnded, RunHold, RunHoldKind, RunOutcome, RunbookRun, StepRun, StepStatus};

/// Does what is asked of the run of a service.
pub(super) fn carry_out(case: &mut Case<'_>, act: &RunbookAct) -> Result<(), Refusal> {
    match act {
        RunbookAct::Start(start) => begin(case, start),
        RunbookAct::Tick {
            step,
            skip,
            method,
            may_restore,
        } => {
            let mut run = require_run(case)?;
            let is_about_ways = run.current().is_some_and(goes_back);
            tick(case, &mut run, *step, *skip, *method)?;
            // Who drains a queue has not agreed to that.
            run.may_restore |= *may_restore && is_about_ways;
            case.state.runbook = Some(run);
            Ok(())
        }
        RunbookAct::Report {
            step,
            findings,
            turn,
        } => {
            let mut run = require_run(case)?;
            // Somebody was faster.
            if run.step == *step && run.hold.is_none() {
                report(case, &mut run, findings, turn);
                case.state.runbook = Some(run);
            }
            Ok(())
        }
        RunbookAct::Stop => {
            let mut run = require_run(case)?;
            let by = &case.asked.by;
            let reason = format!("stopped by {by} in step {}", run.step + 1);
            end(case, &mut run, RunOutcome::Stopped, reason);
            case.state.runbook = Some(run);
            Ok(())
        }
    }
}

/// Notes that a step takes longer than it should.
pub(super) fn progress(case: &mut Case<'_>) {
    let Ok(mut run) = require_run(case) else {
        return;
    };
    if !run.is_late(case.at) {
        return;
    }
    let step = run.step;
    if let (Some(done), Some(planned)) = (run.steps.get_mut(step), run.plan.get(step)) {
        done.overdue = true;
        let limit = planned.duration.as_deref().unwrap_or_default();
        let message = format!(
            "step {} of {} takes longer than {limit}: {}",
            step + 1,
            run.runbook,
            planned.name
        );
        case.note("runbook_overdue", message);
        case.state.runbook = Some(run);
    }
}

fn require_run(case: &Case<'_>) -> Result<RunbookRun, Refusal> {
    let run = case.state.runbook.as_ref();
    let running = run.filter(|run| run.is_running()).cloned();
    running.ok_or_else(|| Refusal::NoRunbook(case.name.clone()))
}

fn begin(case: &mut Case<'_>, start: &RunbookStart) -> Result<(), Refusal> {
    if let Ok(running) = require_run(case) {
        return Err(Refusal::RunbookRunning(running.runbook));
    }
    let mut run = RunbookRun {
        runbook: start.runbook.clone(),
        steps: vec![StepRun::default(); start.plan.len()],
        plan: start.plan.clone(),
        by: case.asked.by.clone(),
        reason: case.asked.reason.clone(),
        trigger: start.trigger.clone(),
        may_restore: start.may_restore,
        began: case.at,
        since: start.since.unwrap_or(case.at),
        step: 0,
        method: start.method,
        tried: Vec::new(),
        rollback: None,
        hold: None,
        ended: None,
    };
    let why = match &start.trigger {
        Some(trigger) => format!("by its trigger: {trigger}"),
        None => format!("by {}", case.asked.by),
    };
    case.note(
        "runbook_started",
        format!("runbook {} was begun {why}", run.runbook),
    );
    enter(case, &mut run, 0);
    case.state.runbook = Some(run);
    Ok(())
}

/// Begins a step; after the last one the run is over.
fn enter(case: &mut Case<'_>, run: &mut RunbookRun, step: usize) {
    let Some(planned) = run.plan.get(step) else {
        let reason = format!("all {} steps are done", run.plan.len());
        return end(case, run, RunOutcome::Completed, reason);
    };
    let hold = match planned {
        planned if planned.kind == StepKind::Manual => Some((RunHoldKind::Tick, &planned.action)),
        planned if planned.approve => Some((RunHoldKind::Approval, &planned.action)),
        _ => None,
    };
    let hold = hold.map(|(what, action)| RunHold {
        what,
        reason: action.clone(),
    });
    run.step = step;
    if let Some(done) = run.steps.get_mut(step) {
        let findings = std::mem::take(&mut done.findings);
        *done = StepRun {
            status: StepStatus::Running,
            began: Some(case.at),
            findings,
            ..StepRun::default()
        };
    }
    match hold {
        Some(hold) => wait(case, run, hold),
        None => run.hold = None,
    }
}

/// Waits for somebody.
fn wait(case: &mut Case<'_>, run: &mut RunbookRun, hold: RunHold) {
    let name = run.plan.get(run.step).map_or("", |step| step.name.as_str());
    let what = match hold.what {
        RunHoldKind::Approval => "waits for somebody to agree",
        RunHoldKind::Tick => "waits for somebody to do it",
    };
    let message = format!(
        "step {} of {}, {name}, {what}: {} (switchback runbook tick {})",
        run.step + 1,
        run.runbook,
        hold.reason,
        case.name
    );
    case.note("runbook_waits", message);
    run.hold = Some(hold);
}

fn tick(
    case: &mut Case<'_>,
    run: &mut RunbookRun,
    step: usize,
    skip: bool,
    method: Option<Method>,
) -> Result<(), Refusal> {
    let current = run.step;
    let Some(planned) = run.plan.get(current).filter(|_| step == current) else {
        return Err(Refusal::NotThisStep {
            asked: step + 1,
            current: current + 1,
        });
    };
    if method.is_some() && !goes_back(planned) {
        let reason = "only a step that decides or goes back takes a method";
        return Err(Refusal::InvalidRunbook(reason.into()));
    }
    let Some(hold) = run.hold.take().or_else(|| {
        skip.then(|| RunHold {
            what: RunHoldKind::Tick,
            reason: String::new(),
        })
    }) else {
        let reason = format!("step {} does not wait for anybody", current + 1);
        return Err(Refusal::InvalidRunbook(reason));
    };
    let (by, why) = (case.asked.by.clone(), case.asked.reason.clone());
    if let Some(done) = run.steps.get_mut(current) {
        done.ticked_by = Some(by.clone());
        let word = if skip { "passed over" } else { "ticked" };
        let why = why.map_or(String::new(), |why| format!(": {why}"));
        push(done, format!("{word} by {by}{why}"));
    }
    run.method = method.or(run.method);
    // Whoever names a way back wants it gone; it is not done already.
    let goes_on = skip || (hold.what == RunHoldKind::Tick && method.is_none());
    if goes_on {
        let status = if skip {
            StepStatus::Skipped
        } else {
            StepStatus::Done
        };
        leave(case, run, status);
    } else if decides(run, run.step) && method.is_some() {
        leave(case, run, StepStatus::Done);
    }
    Ok(())
}

/// Whether a step chooses a way back, or goes it.
fn goes_back(step: &RunbookStep) -> bool {
    matches!(step.kind, StepKind::Decide | StepKind::Execute)
}

/// Whether a step chooses the way back.
fn decides(run: &RunbookRun, step: usize) -> bool {
    let step = run.plan.get(step);
    step.is_some_and(|step| step.kind == StepKind::Decide)
}

/// Ends the step under way, and begins the next one.
fn leave(case: &mut Case<'_>, run: &mut RunbookRun, status: StepStatus) {
    let step = run.step;
    if let Some(done) = run.steps.get_mut(step) {
        done.status = status;
        done.ended = Some(case.at);
    }
    enter(case, run, step + 1);
}

fn report(case: &mut Case<'_>, run: &mut RunbookRun, findings: &[String], turn: &StepTurn) {
    let step = run.step;
    let kind = run.plan.get(step).map(|step| step.kind);
    if let Some(done) = run.steps.get_mut(step) {
        for finding in findings {
            push(done, finding.clone());
        }
    }
    if kind == Some(StepKind::Communicate)
        && let Some(text) = findings.first()
    {
        case.note("runbook_status", text.clone());
    }
    match turn {
        StepTurn::Done => leave(case, run, StepStatus::Done),
        StepTurn::Chose(method) => {
            run.method = Some(*method);
            leave(case, run, StepStatus::Done);
        }
        StepTurn::RolledBack(rollback) => {
            run.rollback = *rollback;
            leave(case, run, StepStatus::Done);
        }
        StepTurn::Escalate => escalate(case, run, findings),
        StepTurn::Hold(what, reason) => {
            let (what, reason) = (*what, reason.clone());
            wait(case, run, RunHold { what, reason });
        }
    }
}

/// Goes back to the decision, which does not choose the same again. Where nothing decides, somebody has to:
/// what goes back would go the same way for ever.
fn escalate(case: &mut Case<'_>, run: &mut RunbookRun, findings: &[String]) {
    let decision = run.decision();
    let goes_undecided = decision.is_some_and(|step| !decides(run, step));
    let undecided = goes_undecided.then_some(Method::Traffic);
    let tried = run.method.take().or(undecided);
    run.tried
        .extend(tried.filter(|method| !run.tried.contains(method)));
    run.rollback = None;
    // Whoever agreed to what a trigger began has agreed to that way only.
    run.may_restore &= run.trigger.is_none();
    let tried = tried.map_or("what was done", Method::as_str);
    let why = findings.last().map_or("", String::as_str);
    let message = format!("runbook {}: {tried} did not help: {why}", run.runbook);
    case.note("runbook_escalated", message);
    match decision {
        Some(decision) => {
            let until = run.step;
            for step in run.steps.iter_mut().take(until + 1).skip(decision) {
                step.status = StepStatus::Pending;
                step.ended = None;
            }
            enter(case, run, decision);
            if goes_undecided {
                let reason = format!(
                    "{tried} did not help, and no step decides what is next: \
                     go back by hand, then tick; or name a method"
                );
                let what = RunHoldKind::Tick;
                wait(case, run, RunHold { what, reason });
            }
        }
        None => {
            let reason = format!("{tried} did not help, and this runbook knows no other way");
            let what = RunHoldKind::Tick;
            wait(case, run, RunHold { what, reason });
        }
    }
}

/// Keeps a finding; of too many, the last ones.
fn push(step: &mut StepRun, finding: String) {
    if step.findings.last() == Some(&finding) {
        return;
    }
    if step.findings.len() == RUNBOOK_FINDINGS_MAX {
        step.findings.remove(0);
    }
    step.findings.push(finding);
}

fn end(case: &mut Case<'_>, run: &mut RunbookRun, outcome: RunOutcome, reason: String) {
    let message = format!("runbook {} is {}: {reason}", run.runbook, outcome.as_str());
    case.note("runbook_ended", message);
    run.hold = None;
    run.ended = Some(RunEnded {
        outcome,
        at: case.at,
        reason,
    });
}
