//! Rollouts: how a canary grows, stops, becomes stable, or gives everything back.
//!
//! A rollout only ever gives weight on the judge's Continue and after enough answers of the canary;
//! silence is no reason to go on. It never stands in the way of a rollback: [`end_by_rollback`] is
//! called by every command that takes a backend's weight, from whatever stage the rollout is in. Roles
//! stay as they were until the end.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use jiff::Timestamp;
use switchback_config::model::{Name, ROLLOUT_PARTS, Rollout};

use super::{Case, roles, settings};
use crate::command::{Refusal, StartRollout};
use crate::effective::move_to_stable;
use crate::state::{Ended, Lease, Outcome, Pause, RolloutState, Stage, Standing, later};

/// Labels of versions that are remembered as having been stable.
const PROVEN_MAX: usize = 20;

/// Begins a rollout with its first step.
pub(super) fn start(case: &mut Case<'_>, start: &StartRollout) -> Result<(), Refusal> {
    // The same request again: its answer is how that goes, or how it went.
    let repeated = |known: &RolloutState| start.key.is_some() && known.key == start.key;
    if let Some(known) = case.state.rollout.as_ref().filter(|known| repeated(known)) {
        return same_rollout(case, known, start);
    }
    if let Some(running) = case.running_rollout() {
        let (canary, version) = (running.canary.clone(), running.version.clone());
        return Err(Refusal::RolloutRunning { canary, version });
    }
    let canary = canary_of(case, start)?;
    let version = case.before.version(&canary).to_owned();
    case.require_unblocked(&canary, &version)?;
    if version == case.before.version(&case.before.stable) {
        let reason = format!("{canary} and stable both run version {version:?}");
        return Err(Refusal::InvalidRollout(reason));
    }
    if start.fast && !case.state.proven.contains_key(&version) {
        return Err(Refusal::NotProven { version });
    }
    if !start.force && !case.health(&canary).known {
        return Err(Refusal::TargetUnhealthy { backend: canary });
    }
    case.require_fit(&canary, start.force)?;
    let plan = plan_of(case, start)?;
    let stage = match start.fast {
        true => Stage::Bake,
        false => RolloutState::first_stage(&plan),
    };
    end_window_of(case, &canary);
    case.note(
        "rollout_started",
        format!("rollout of {canary} ({version}) started: {plan}"),
    );
    let rollout = RolloutState {
        canary,
        version,
        plan,
        stage,
        began: case.at,
        stage_since: case.at,
        moved: case.at,
        by: case.asked.by.clone(),
        key: start.key.clone(),
        paused: None,
        ended: None,
        holdback: None,
    };
    enter(case, rollout, stage)
}

/// A key is for one rollout only. Its canary may be stable by now.
fn same_rollout(
    case: &Case<'_>,
    known: &RolloutState,
    start: &StartRollout,
) -> Result<(), Refusal> {
    if let Some(canary) = &start.canary {
        case.require_backend(canary)?;
    }
    let is_meant = (start.canary.as_ref()).is_none_or(|canary| *canary == known.canary);
    let is_there = case.before.backends.contains_key(&known.canary);
    if is_meant && is_there && case.before.version(&known.canary) == known.version {
        return Ok(());
    }
    Err(Refusal::KeyReused {
        canary: known.canary.clone(),
        version: known.version.clone(),
    })
}

/// The backend that is meant.
fn canary_of(case: &Case<'_>, start: &StartRollout) -> Result<Name, Refusal> {
    let stable = &case.before.stable;
    let named = match &start.canary {
        Some(canary) => {
            case.require_backend(canary)?;
            Some(canary)
        }
        None => {
            let mut others = case.before.backends.keys().filter(|name| *name != stable);
            others.next().filter(|_| others.next().is_none())
        }
    };
    match named {
        Some(canary) if canary == stable => Err(Refusal::InvalidRollout(format!(
            "{canary} is stable already"
        ))),
        Some(canary) => Ok(canary.clone()),
        None => Err(Refusal::InvalidRollout(
            "name the canary: there is not exactly one backend besides stable".into(),
        )),
    }
}

fn plan_of(case: &Case<'_>, start: &StartRollout) -> Result<Rollout, Refusal> {
    let mut plan = case.file.rollout.clone();
    if let Some(steps) = &start.steps {
        plan.steps.clone_from(steps);
    }
    if let Some(bake) = &start.bake {
        plan.bake.clone_from(bake);
    }
    if start.fast && plan.bake.is_none() {
        plan.bake = Some(switchback_config::defaults::bake());
    }
    match plan.faults().into_iter().next() {
        None => Ok(plan),
        Some(fault) => {
            let step = fault
                .step
                .map_or(String::new(), |step| format!("step {}: ", step + 1));
            let message = format!("{step}{}; {}", fault.reason, fault.repair);
            Err(Refusal::InvalidRollout(message))
        }
    }
}

/// A rollback during the rollout must hit the canary, so it can no longer be where rollback goes.
fn end_window_of(case: &mut Case<'_>, canary: &Name) {
    if case.before.previous.as_ref() == Some(canary) {
        case.state.previous = None;
        case.state.on_trial = None;
        case.note(
            "window_ended",
            format!("{canary} was the rollback target and is a canary now"),
        );
    }
}

/// Gives the canary the share of a stage.
fn enter(case: &mut Case<'_>, mut rollout: RolloutState, stage: Stage) -> Result<(), Refusal> {
    let parts = rollout.parts(stage);
    let weights = weights_with(case, &rollout.canary, parts)?;
    settings::check_labels(case, &weights)?;
    case.override_weights(weights);
    case.state.rolled_back.remove(&rollout.canary);
    rollout.stage = stage;
    rollout.stage_since = case.at;
    rollout.moved = case.at;
    rollout.paused = None;
    case.state.rollout = Some(rollout);
    Ok(())
}

/// The table in which the canary has so many parts of 10 000, taken from stable. Other canaries keep
/// their share.
fn weights_with(
    case: &Case<'_>,
    canary: &Name,
    parts: u32,
) -> Result<IndexMap<Name, u32>, Refusal> {
    let before = &case.before;
    let sum: u64 = before.weights.values().copied().map(u64::from).sum();
    let mut others = 0;
    let mut weights = IndexMap::new();
    for name in before.backends.keys() {
        let weight = match name {
            name if *name == before.stable => 0,
            name if name == canary => parts,
            name => {
                let part = u64::from(before.weight(name)) * u64::from(ROLLOUT_PARTS);
                let part = u32::try_from(part.div_ceil(sum.max(1))).unwrap_or(ROLLOUT_PARTS);
                others += part;
                part
            }
        };
        weights.insert(name.clone(), weight);
    }
    let Some(rest) = ROLLOUT_PARTS.checked_sub(parts.saturating_add(others)) else {
        let reason = "other canaries have so much weight that stable cannot give this step";
        return Err(Refusal::InvalidRollout(reason.into()));
    };
    weights.insert(before.stable.clone(), rest);
    Ok(weights)
}

/// Goes on to the next stage at once, or to the end.
pub(super) fn promote(case: &mut Case<'_>, full: bool, force: bool) -> Result<(), Refusal> {
    let rollout = case.require_rollout()?;
    let hold = case.standing(&rollout.canary).hold;
    if let Some(hold) = hold.filter(|hold| !force && !hold.stable_fails) {
        return Err(Refusal::JudgeHolds {
            reason: hold.reason,
        });
    }
    case.require_fit(&rollout.canary, force)?;
    match rollout.next_stage().filter(|_| !full) {
        Some(stage) => advance(case, rollout, stage),
        None => finish(case, rollout, force),
    }
}

fn advance(case: &mut Case<'_>, rollout: RolloutState, stage: Stage) -> Result<(), Refusal> {
    let canary = rollout.canary.clone();
    enter(case, rollout, stage)?;
    if let Some(rollout) = &case.state.rollout {
        let share = rollout.share(stage);
        let message = format!("{canary} gets {share}: {}", rollout.stage_text());
        case.note("rollout_advanced", message);
    }
    Ok(())
}

/// Makes the canary stable.
fn finish(case: &mut Case<'_>, mut rollout: RolloutState, force: bool) -> Result<(), Refusal> {
    let canary = rollout.canary.clone();
    if !force && !case.health(&canary).known {
        return Err(Refusal::TargetUnhealthy { backend: canary });
    }
    case.require_heard(force)?;
    let from = case.before.stable.clone();
    let message = format!(
        "{canary} ({}) is stable now, on trial; {from} is the rollback target",
        rollout.version
    );
    note_proven(case, &rollout.version);
    let standing = case.standing(&canary);
    rollout.holdback = rollout.held_back(&from, case.before.version(&from), &standing);
    rollout.ended = Some(Ended {
        outcome: Outcome::Promoted,
        at: case.at,
        reason: message.clone(),
    });
    rollout.paused = None;
    case.state.rollout = Some(rollout);
    roles::make_stable(case, &canary);
    case.note("promoted", message);
    Ok(())
}

/// Keeps the rollout from advancing.
pub(super) fn pause(case: &mut Case<'_>) -> Result<(), Refusal> {
    let (by, reason) = (case.asked.by.clone(), case.asked.reason.clone());
    stop(case, &by, reason)
}

fn stop(case: &mut Case<'_>, by: &str, reason: Option<String>) -> Result<(), Refusal> {
    let mut rollout = case.require_rollout()?;
    if rollout.paused.is_some() {
        return Ok(());
    }
    let why = reason
        .as_deref()
        .map_or(String::new(), |reason| format!(": {reason}"));
    let message = format!("the rollout of {} is paused{why}", rollout.canary);
    rollout.paused = Some(Pause {
        by: by.to_owned(),
        at: case.at,
        reason,
    });
    rollout.moved = case.at;
    case.state.rollout = Some(rollout);
    case.note("rollout_paused", message);
    Ok(())
}

/// Lets it advance again; the time of its stage goes on where it stopped.
pub(super) fn resume(case: &mut Case<'_>) -> Result<(), Refusal> {
    let mut rollout = case.require_rollout()?;
    let Some(pause) = rollout.paused.take() else {
        return Ok(());
    };
    let stood = case.at.duration_since(pause.at).unsigned_abs();
    rollout.stage_since = later(rollout.stage_since, stood).min(case.at);
    rollout.moved = case.at;
    let message = format!("the rollout of {} goes on", rollout.canary);
    case.state.rollout = Some(rollout);
    case.note("rollout_resumed", message);
    Ok(())
}

/// Does what is due by the clock.
pub(super) fn progress(case: &mut Case<'_>) -> Result<(), Refusal> {
    end_lease_if_due(case);
    end_trial_if_due(case);
    let Ok(rollout) = case.require_rollout() else {
        return Ok(());
    };
    let standing = case.standing(&rollout.canary);
    if case.at >= rollout.expires() {
        return expire(case, &rollout, &standing);
    }
    if rollout.waits_for(case.at, &standing).is_some() {
        return Ok(());
    }
    let moved = case.require_fit(&rollout.canary, false);
    let moved = moved.and_then(|()| match rollout.next_stage() {
        Some(stage) => advance(case, rollout, stage),
        // Hooks are asked by whoever looks at the clock, who comes again with their answer.
        None if case.has_gate() && !case.asked.heard => Ok(()),
        None => finish(case, rollout, false),
    });
    // Nobody is there to be refused: whoever looks at the rollout learns why it stands.
    moved.or_else(|refusal| stop(case, "switchback", Some(refusal.to_string())))
}

/// Gives everything back to stable, unless that is the one that does not work.
fn expire(case: &mut Case<'_>, rollout: &RolloutState, standing: &Standing) -> Result<(), Refusal> {
    let before = &case.before;
    let stable_fails = standing.hold.as_ref().is_some_and(|hold| hold.stable_fails);
    if stable_fails || !case.health(&before.stable).healthy {
        let reason = "nobody advanced it in time, and stable does not work".to_owned();
        return stop(case, "switchback", Some(reason));
    }
    if let Err(refusal) = case.require_fit(&before.stable, false) {
        return stop(case, "switchback", Some(refusal.to_string()));
    }
    let weights = move_to_stable(&before.weights, &before.stable, &before.backends, |name| {
        *name == rollout.canary
    });
    case.override_weights(weights);
    let message = format!(
        "nobody advanced the rollout of {} within {}; it gets no traffic any more",
        rollout.canary, rollout.plan.deadline
    );
    end(case, Outcome::Expired, message);
    Ok(())
}

/// A stable that has stood its trial is not watched any longer. Its rollback target stays.
fn end_trial_if_due(case: &mut Case<'_>) {
    let at = case.at;
    if let Some(trial) = case.state.on_trial.take_if(|trial| at >= trial.until) {
        let message = format!(
            "the trial of {} has ended; from now on only people roll it back",
            trial.backend
        );
        case.note("window_ended", message);
    }
}

fn end_lease_if_due(case: &mut Case<'_>) {
    let Some(lease) = case.state.lease.clone() else {
        return;
    };
    if case.at < lease.until {
        return;
    }
    case.state.lease = None;
    let before = &case.before;
    let weights = before.backends.keys().map(|name| {
        let weight = lease.weights.get(name).copied().unwrap_or(0);
        (name.clone(), weight)
    });
    let weights: IndexMap<Name, u32> = weights.collect();
    let sum: u64 = weights.values().copied().map(u64::from).sum();
    let rises = |name: &Name, weight: u32| {
        f64::from(weight) > before.share(name) * f64::from(u32::try_from(sum).unwrap_or(u32::MAX))
    };
    let dead = weights
        .iter()
        .any(|(name, weight)| rises(name, *weight) && !case.health(name).healthy);
    let unfit = case
        .require_fit_weights(&before.backends, &weights)
        .is_err();
    if sum == 0 || dead || unfit || settings::check_labels(case, &weights).is_err() {
        case.note(
            "lease_ended",
            "the lease of the weights has ended; they stay, since those before it no longer fit",
        );
        return;
    }
    supersede(case, "the lease of the weights has ended");
    case.override_weights(weights);
    case.note(
        "lease_ended",
        "the lease of the weights has ended; those before it are back",
    );
}

/// Lets the weights that were just set end by themselves. `before`: what comes back.
pub(super) fn begin_lease(case: &mut Case<'_>, until: Timestamp, before: IndexMap<Name, u32>) {
    case.state.lease = Some(Lease {
        until,
        weights: before,
    });
}

/// A rollout whose weights or roles somebody else has changed is over.
pub(super) fn supersede(case: &mut Case<'_>, why: &str) {
    if let Some(rollout) = case.running_rollout() {
        let message = format!("the rollout of {} is over: {why}", rollout.canary);
        end(case, Outcome::Superseded, message);
    }
}

/// The canary's weight was taken away by a rollback or block.
pub(super) fn end_by_rollback(
    case: &mut Case<'_>,
    losers: &BTreeSet<Name>,
    sentence: Option<&str>,
) {
    let Some(rollout) = case.running_rollout() else {
        return;
    };
    let canary = rollout.canary.clone();
    let why = sentence
        .map(str::to_owned)
        .or_else(|| case.asked.reason.clone())
        .unwrap_or_else(|| format!("by {}", case.asked.by));
    if losers.contains(&canary) {
        let message = format!("the rollout of {canary} was rolled back: {why}");
        end(case, Outcome::RolledBack, message);
    } else {
        supersede(case, "another backend was rolled back");
    }
}

fn end(case: &mut Case<'_>, outcome: Outcome, reason: String) {
    let at = case.at;
    if let Some(rollout) = &mut case.state.rollout {
        rollout.paused = None;
        rollout.ended = Some(Ended {
            outcome,
            at,
            reason: reason.clone(),
        });
    }
    case.note("rollout_ended", reason);
}

/// Remembers a version that has been stable, so that it may come back fast.
pub(super) fn note_proven(case: &mut Case<'_>, version: &str) {
    case.state.proven.insert(version.to_owned(), case.at);
    if case.state.proven.len() > PROVEN_MAX {
        let oldest = case.state.proven.iter().min_by_key(|(_, at)| **at);
        if let Some(oldest) = oldest.map(|(version, _)| version.clone()) {
            case.state.proven.remove(&oldest);
        }
    }
}
