//! The ways back: which are open, which one is taken, and taking it.

use switchback_config::model::{Method, Name};

use super::step::{Found, Work};
use super::{Crew, how};
use crate::command::{Command, FlagChange, Refusal, StepTurn};
use crate::control::AskError;
use crate::history::{Revision, Settled};
use crate::hooks::gate::{Coming, has_gate};
use crate::state::{Block, RunHoldKind, RunbookRun};

/// Changes that are looked through for the last one that matters.
const LOOKED_THROUGH: usize = 20;

/// Changes, of all services, that are looked through for what a step has done already.
const LOOKED_THROUGH_OF_ALL: usize = 200;

const MAY_NOT_RESTORE: &str = "whoever began this may roll back, and not restore";

/// Chooses the first way that is open, in the order of the runbook.
pub(super) async fn decide(work: Work<'_>) -> Found {
    let run = work.run;
    if let Some(method) = run.method {
        let finding = format!("{} was chosen by whoever began this", method.as_str());
        return Found::new(vec![finding], StepTurn::Chose(method));
    }
    if !run.tried.contains(&Method::Traffic)
        && let Some((version, block)) = work.rolled_back()
    {
        let Block { backend, by, .. } = block;
        let finding = format!("{backend} ({version}) has been rolled back already, by {by}");
        return Found::new(vec![finding], StepTurn::Chose(Method::Traffic));
    }
    let mut findings = Vec::new();
    let methods = run.current().map(|step| step.methods());
    for method in methods.unwrap_or_default() {
        let word = method.as_str();
        if run.tried.contains(&method) {
            findings.push(format!("{word}: was tried and did not help"));
            continue;
        }
        match work.look(method).await {
            Ok(what) => {
                findings.push(format!("{word}: {what}"));
                let what = format!("{word}: {what}");
                let turn = match (work.is_agreed(), work.may_go(method)) {
                    (true, true) => StepTurn::Chose(method),
                    (false, true) => ask_first(&what),
                    (_, false) => ask_an_operator(&what),
                };
                return Found::new(findings, turn);
            }
            Err(why) => findings.push(format!("{word}: {why}")),
        }
    }
    let reason =
        "no way back is left that switchback can go: go back by hand, then tick; or name a method";
    let hold = StepTurn::Hold(RunHoldKind::Tick, reason.into());
    Found::new(findings, hold)
}

/// The rule only told: whoever wrote `on_failure` does not want it to do more by itself.
fn ask_first(what: &str) -> StepTurn {
    let reason = format!("{what}; the rule has only told, so somebody has to agree");
    StepTurn::Hold(RunHoldKind::Approval, reason)
}

/// A trigger may restore no more than whoever agrees to it.
fn ask_an_operator(what: &str) -> StepTurn {
    let reason = format!("{what}; only an operator can agree to that; or name another method");
    StepTurn::Hold(RunHoldKind::Approval, reason)
}

/// Goes the way that was chosen.
pub(super) async fn execute(work: Work<'_>) -> Found {
    if !work.is_agreed() {
        let turn = ask_first(work.method().as_str());
        return Found::new(Vec::new(), turn);
    }
    let gone = match work.method() {
        Method::Flag => work.turn_flags_off().await,
        Method::Config => work.restore().await,
        Method::Traffic => return work.roll_back().await,
        Method::Redeploy => {
            let reason = work.how_to_redeploy();
            let hold = StepTurn::Hold(RunHoldKind::Tick, reason.clone());
            return Found::new(vec![reason], hold);
        }
    };
    match gone {
        Ok(findings) => Found::new(findings, StepTurn::Done),
        Err(why) => Found::new(vec![why], StepTurn::Escalate),
    }
}

impl Work<'_> {
    /// The version that was blocked since this began, by whomever.
    fn rolled_back(&self) -> Option<(&String, &Block)> {
        let state = self.published.state.services.get(self.service)?;
        let blocked = state.blocked.iter();
        let fresh = blocked.filter(|(_, block)| block.at >= self.run.since);
        fresh.max_by_key(|(_, block)| block.at)
    }

    /// Whether something may be taken away: somebody has begun this, the rule has rolled back itself, or
    /// somebody has agreed to this decision.
    fn is_agreed(&self) -> bool {
        let ticked = |step: usize| {
            let step = self.run.steps.get(step);
            step.is_some_and(|step| step.ticked_by.is_some())
        };
        self.run.trigger.is_none()
            || self.rolled_back().is_some()
            || ticked(self.run.step)
            || self.run.decision().is_some_and(ticked)
    }

    fn may_go(&self, method: Method) -> bool {
        method != Method::Config || self.run.may_restore
    }

    /// What a way would do, or why it is closed.
    async fn look(&self, method: Method) -> Result<String, String> {
        match method {
            Method::Flag => match self.flags().as_slice() {
                [] => Err("no flag of the version that changed last is on".into()),
                flags => Ok(format!("{} would go off", flags.join(", "))),
            },
            // Of a trigger, an operator is asked.
            Method::Config if self.run.trigger.is_none() && !self.run.may_restore => {
                Err(MAY_NOT_RESTORE.into())
            }
            Method::Config => {
                let (revision, _) = self.reverted().await?;
                Ok(format!(
                    "what was in force before revision {revision} would come back"
                ))
            }
            Method::Traffic => self.look_at_traffic().await,
            Method::Redeploy => {
                Ok("the previous version is deployed again, by whoever deploys".into())
            }
        }
    }

    async fn look_at_traffic(&self) -> Result<String, String> {
        let mut asked = Crew::asked(self.run, None);
        asked.dry_run = true;
        let answer = self.crew.controls.ask(self.rollback(), asked).await;
        let confirmed = answer.map_err(|error| error.to_string())?;
        let planned = confirmed.applied.planned.as_deref();
        let note = planned.and_then(|(decision, _)| decision.notes.first());
        match (confirmed.applied.changed, note) {
            (true, Some(note)) => Ok(note.message.clone()),
            (true, None) => Ok("traffic goes back".into()),
            (false, _) => Err("no canary has weight, and no previous stable is there".into()),
        }
    }

    fn rollback(&self) -> Command {
        Command::Rollback {
            service: self.service.clone(),
            force: false,
            cut: false,
        }
    }

    /// The flags that are on and go with the versions that changed last.
    fn flags(&self) -> Vec<Name> {
        let Some(status) = self.published.services.get(self.service) else {
            return Vec::new();
        };
        let effective = &status.effective;
        let changed = |name: &Name| {
            let is_canary = *name != effective.stable && effective.weight(name) > 0;
            let on_trial = effective.on_trial.as_ref();
            is_canary || on_trial.is_some_and(|trial| trial.backend == *name)
        };
        let backends = effective.backends.iter();
        let named = backends
            .filter(|(name, _)| changed(name))
            .flat_map(|(_, backend)| &backend.off_on_rollback);
        let live = &self.published.flags.flags;
        let is_on = |name: &&Name| live.get(*name).is_some_and(|live| live.flag.enabled);
        let mut names: Vec<Name> = named.filter(is_on).cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    async fn turn_flags_off(&self) -> Result<Vec<String>, String> {
        let mut findings = Vec::new();
        for flag in self.flags() {
            let command = Command::ChangeFlag {
                flag: flag.clone(),
                change: FlagChange::Off,
            };
            let asked = Crew::asked(self.run, Some(self.why()));
            let in_force = in_force(self.crew.controls.ask(command, asked).await)?;
            findings.push(format!("flag {flag} is off{in_force}"));
        }
        if findings.is_empty() {
            findings = self.flags_off_already().await;
        }
        match findings.is_empty() {
            true => Err("no flag was left to turn off".into()),
            false => Ok(findings),
        }
    }

    /// The flags of this service that this step has turned off.
    async fn flags_off_already(&self) -> Vec<String> {
        let Some(file) = self.published.file(self.service) else {
            return Vec::new();
        };
        let is_ours = |flag: &&Name| {
            let mut backends = file.backends.values();
            backends.any(|backend| backend.off_on_rollback.contains(*flag))
        };
        let done = self.done_before("flag_off").await;
        let off = done.iter().flat_map(|done| done.flags.keys());
        let off = off.filter(is_ours);
        off.map(|flag| format!("flag {flag} is off already"))
            .collect()
    }

    /// The last change, if that was one of the file, and what was in force before it.
    async fn reverted(&self) -> Result<(u64, Settled), String> {
        let service = Some(self.service.clone());
        let revisions = self
            .crew
            .store
            .revisions(service, None, LOOKED_THROUGH)
            .await?;
        let moves = |revision: &&Revision| {
            let change = revision.changes.get(self.service);
            change.is_some_and(|change| change.in_force_before != change.in_force_after)
        };
        let last = revisions.iter().find(moves);
        let last = last.filter(|revision| revision.action == "reload");
        let before = last.and_then(|last| {
            let before = last.changes.get(self.service)?.in_force_before.clone()?;
            Some((last.revision, before))
        });
        before.ok_or_else(|| "the last change was none of the file".into())
    }

    /// What this step has done, and could not report: its process ended, or nobody took the report. Nothing if
    /// the record does not answer.
    async fn done_before(&self, action: &str) -> Vec<Revision> {
        let store = &self.crew.store;
        let revisions = store.revisions(None, None, LOOKED_THROUGH_OF_ALL).await;
        done_by(self.run, revisions.unwrap_or_default(), action)
    }

    async fn restore(&self) -> Result<Vec<String>, String> {
        if !self.run.may_restore {
            return Err(MAY_NOT_RESTORE.into());
        }
        let mut done = self.done_before("restore").await.into_iter();
        if let Some(done) = done.find(|done| done.changes.contains_key(self.service)) {
            return Ok(done.notes);
        }
        let (revision, before) = self.reverted().await?;
        let mut asked = Crew::asked(self.run, Some(self.why()));
        if has_gate(self.published, self.service) {
            let coming = Coming {
                service: self.service.clone(),
                to: before.stable.clone(),
                version: before
                    .backends
                    .get(&before.stable)
                    .map(|backend| backend.version.clone())
                    .unwrap_or_default(),
                message: format!(
                    "what was in force before revision {revision} is about to be restored"
                ),
            };
            let passed = self.crew.hooks.pass(&coming, &asked).await;
            passed.map_err(|refusal| refusal.to_string())?;
            asked.heard = true;
        }
        let command = Command::Restore {
            revision: revision.saturating_sub(1),
            services: [(self.service.clone(), before)].into(),
            flags: [].into(),
            force: false,
        };
        let in_force = in_force(self.crew.controls.ask(command, asked).await)?;
        Ok(vec![format!(
            "what was in force before revision {revision} is back{in_force}"
        )])
    }

    /// Takes the traffic back, unless that has happened: a second time could go further back.
    async fn roll_back(&self) -> Found {
        if let Some((version, block)) = self.rolled_back() {
            let finding = format!(
                "{} ({version}) was rolled back by {}",
                block.backend, block.by
            );
            let id = self.record_of(version).await;
            return Found::new(vec![finding], StepTurn::RolledBack(id));
        }
        let asked = Crew::asked(self.run, Some(self.why()));
        let answer = self.crew.controls.ask(self.rollback(), asked).await;
        let revision = answer.as_ref().ok().map(|confirmed| {
            let applied = &confirmed.applied;
            applied.changed.then(|| applied.published.state.revision)
        });
        match in_force(answer) {
            Ok(in_force) => {
                let finding = match revision.flatten() {
                    Some(_) => format!("traffic is back{in_force}"),
                    None => "there was no traffic to take back".into(),
                };
                Found::new(vec![finding], StepTurn::RolledBack(revision.flatten()))
            }
            Err(why) => Found::new(vec![why], StepTurn::Escalate),
        }
    }

    /// The number of a version's last rollback.
    async fn record_of(&self, version: &str) -> Option<u64> {
        let service = Some(self.service.clone());
        let last = self.crew.store.rollbacks(service, None, 1).await.ok()?;
        let last = last.into_iter().next()?;
        (last.version == *version).then_some(last.id)
    }

    /// What whoever deploys has to do, with the programs that hooks run for it.
    fn how_to_redeploy(&self) -> String {
        let file = self.published.file(self.service);
        let hooks = file.map(|file| file.hooks.as_slice()).unwrap_or_default();
        let programs = hooks.iter().filter_map(|hook| match &hook.action {
            Some(switchback_config::model::HookAction::Run(run)) => Some(run.run.join(" ")),
            _ => None,
        });
        let programs: Vec<String> = programs.collect();
        let hint = match programs.is_empty() {
            true => String::new(),
            false => format!(" (hooks run: {})", programs.join("; ")),
        };
        format!("deploy the previous version again, wait for its health, then tick{hint}")
    }

    fn why(&self) -> String {
        let reason = self.run.reason.as_deref().or(self.run.trigger.as_deref());
        match reason {
            Some(reason) => format!("runbook {}: {reason}", self.run.runbook),
            None => format!("runbook {}", self.run.runbook),
        }
    }
}

/// The changes that the step under way has made since it began.
fn done_by(run: &RunbookRun, revisions: Vec<Revision>, action: &str) -> Vec<Revision> {
    let Some(began) = run.steps.get(run.step).and_then(|step| step.began) else {
        return Vec::new();
    };
    let how = how(run);
    let is_meant = |revision: &Revision| {
        revision.at >= began && revision.action == action && revision.how.as_ref() == Some(&how)
    };
    revisions.into_iter().filter(is_meant).collect()
}

/// How fast something came into force, or why it did not.
fn in_force(answer: Result<crate::control::Confirmed, AskError>) -> Result<String, String> {
    match answer {
        Ok(confirmed) => Ok(format!(
            ", in force everywhere after {} us",
            confirmed.applied_in.as_micros()
        )),
        Err(AskError::Refused(refusal)) => Err(said(&refusal)),
        // In force, and somebody has not said so in time.
        Err(error) => Ok(format!("; {error}")),
    }
}

fn said(refusal: &Refusal) -> String {
    format!("{refusal} ({})", refusal.code())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn run() -> RunbookRun {
        let run = json!({
            "runbook": "rollback", "plan": [], "by": "ann", "may_restore": true, "step": 1,
            "began": "2026-01-01T11:00:00Z", "since": "2026-01-01T11:00:00Z",
            "steps": [{"status": "done"}, {"status": "running", "began": "2026-01-01T12:00:00Z"}],
        });
        serde_json::from_value(run).expect("a run")
    }

    fn revision(change: &Value) -> Revision {
        let mut revision = json!({
            "revision": 7, "at": "2026-01-01T12:00:00Z", "by": "ann", "via": "runbook",
            "how": "runbook rollback, step 2", "action": "flag_off", "notes": [], "changes": {},
        });
        for (key, value) in change.as_object().expect("what differs") {
            revision[key] = value.clone();
        }
        serde_json::from_value(revision).expect("a revision")
    }

    #[test]
    fn what_a_step_has_done_before_its_process_ended_is_not_done_again() {
        let done = |change: Value| {
            let revisions = vec![revision(&change)];
            !done_by(&run(), revisions, "flag_off").is_empty()
        };
        assert!(done(json!({})));
        assert!(done(json!({"at": "2026-01-01T12:00:01Z"})));
        let of_others = [
            // Before it was begun, or begun again.
            json!({"at": "2026-01-01T11:59:59.999Z"}),
            json!({"how": "runbook rollback, step 1"}),
            json!({"how": "runbook other, step 2"}),
            json!({"how": null}),
            json!({"action": "restore"}),
        ];
        for change in of_others {
            assert!(!done(change.clone()), "{change}");
        }
        assert_eq!(
            Crew::asked(&run(), None).how.as_deref(),
            Some("runbook rollback, step 2"),
            "what it does is found by what is put on record with it"
        );
    }
}
