//! One step of a run: does it as far as it can be done now, and reports.

use std::time::Duration;

use switchback_config::defaults::{RUNBOOK_CALM, RUNBOOK_LOOK_SECONDS, RUNBOOK_VERIFY};
use switchback_config::model::{Method, Name, StepKind};

use super::{Crew, RETRY, way, words};
use crate::command::{Asked, Command, RunbookAct, RunbookCommand, StepTurn};
use crate::control::Published;
use crate::evidence::RecoveryState;
use crate::state::{RunHoldKind, RunbookRun, later};

/// How often it is looked whether errors are back to usual.
const LOOK: Duration = Duration::from_millis(500);

/// What came of a step; without a turn it is still under way.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) findings: Vec<String>,
    pub(super) turn: Option<StepTurn>,
}

impl Found {
    pub(super) fn new(findings: Vec<String>, turn: StepTurn) -> Self {
        Self {
            findings,
            turn: Some(turn),
        }
    }
}

/// Does the step of a service's run that is under way.
pub(super) async fn advance(crew: Crew, service: Name) {
    let published = crew.controls.published();
    let state = published.state.services.get(&service);
    let Some(run) = state.and_then(|state| state.runbook.as_ref()) else {
        return;
    };
    let Some(kind) = run.at_work() else { return };
    let case = Work {
        crew: &crew,
        published: &published,
        service: &service,
        run,
    };
    let Found { findings, turn } = case.carry_out(kind).await;
    let Some(turn) = turn else {
        // Looked at again.
        return tokio::time::sleep(LOOK).await;
    };
    let act = RunbookAct::Report {
        step: run.step,
        findings,
        turn,
    };
    let command = Command::Runbook(Box::new(RunbookCommand {
        service: service.clone(),
        act,
    }));
    let asked = Asked::by_itself("runbook", None);
    if let Err(error) = crew.controls.ask(command, asked).await {
        tracing::debug!(%error, service, "report a step of a runbook");
        tokio::time::sleep(RETRY).await;
    }
}

/// A step, and what it is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work<'a> {
    pub(super) crew: &'a Crew,
    pub(super) published: &'a Published,
    pub(super) service: &'a Name,
    pub(super) run: &'a RunbookRun,
}

impl Work<'_> {
    async fn carry_out(self, kind: StepKind) -> Found {
        match kind {
            StepKind::Assess => Found::new(words::assess(self).await, StepTurn::Done),
            StepKind::Decide => way::decide(self).await,
            StepKind::Execute => way::execute(self).await,
            StepKind::Verify => self.verify().await,
            StepKind::Communicate => Found::new(vec![words::status(self)], StepTurn::Done),
            StepKind::PostIncident => Found::new(words::post_incident(self), StepTurn::Done),
            // It waits for somebody from its beginning.
            StepKind::Manual => Found::default(),
        }
    }

    /// Whether it helped: by the check that follows every rollback, else by the error rate.
    async fn verify(self) -> Found {
        let Some(began) = self
            .run
            .steps
            .get(self.run.step)
            .and_then(|step| step.began)
        else {
            return Found::default();
        };
        let limit = self.run.current().and_then(|step| step.limit());
        let limit = limit.map_or(RUNBOOK_VERIFY, |limit| limit.0);
        let now = self.published.clock.now();
        let over = now >= later(began, limit);
        if let Some(found) = self.recovery(over).await {
            return found;
        }
        let lasted = now.duration_since(began).as_secs();
        let seen = lasted >= i64::from(RUNBOOK_LOOK_SECONDS);
        let (calm, sentence) = self.error_rate();
        match calm {
            Some(true) if seen => Found::new(vec![sentence], StepTurn::Done),
            Some(false) if over => Found::new(vec![sentence], StepTurn::Escalate),
            None if over => {
                let reason = format!("{sentence}: look yourself whether it helped");
                let hold = StepTurn::Hold(RunHoldKind::Tick, reason);
                Found::new(vec![sentence], hold)
            }
            _ => Found::default(),
        }
    }

    /// What the check after the rollback says; none if there is none to ask.
    async fn recovery(self, over: bool) -> Option<Found> {
        let id = self.run.rollback?;
        let record = match self.crew.store.rollback(id).await {
            Ok(Some(record)) => record,
            // It is on its way to the disk.
            Ok(None) | Err(_) if !over => return Some(Found::default()),
            Ok(None) | Err(_) => return None,
        };
        let sentence = record.recovery.sentence;
        match record.recovery.state {
            RecoveryState::Recovered => Some(Found::new(vec![sentence], StepTurn::Done)),
            RecoveryState::DidNotHelp => Some(Found::new(vec![sentence], StepTurn::Escalate)),
            RecoveryState::Pending if !over => Some(Found::default()),
            RecoveryState::Pending
            | RecoveryState::Unknown
            | RecoveryState::Interrupted
            | RecoveryState::NotNeeded => None,
        }
    }

    /// Whether few enough requests fail, in a sentence; nothing without requests.
    fn error_rate(self) -> (Option<bool>, String) {
        let runbook = self.published.config.runbook(&self.run.runbook);
        let trigger = runbook.and_then(|runbook| runbook.trigger.as_ref());
        let usual = trigger.map_or(RUNBOOK_CALM, |t| t.rule().threshold.fraction());
        let pace = self.crew.trends.pace(self.service, RUNBOOK_LOOK_SECONDS);
        if pace.requests == 0 {
            let sentence = format!("there were no requests in the last {} s", pace.seconds);
            return (None, sentence);
        }
        let rate = f64::from(pace.failures) / f64::from(pace.requests);
        let sentence = format!(
            "{} of {} requests failed in the last {} s, {}; usual is up to {}",
            pace.failures,
            pace.requests,
            pace.seconds,
            words::percent(rate),
            words::percent(usual)
        );
        (Some(rate <= usual), sentence)
    }

    /// The method that is gone, if the runbook does not decide.
    pub(super) fn method(self) -> Method {
        self.run.method.unwrap_or(Method::Traffic)
    }
}
