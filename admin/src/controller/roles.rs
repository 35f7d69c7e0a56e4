//! Rollback, switch and block: the commands that change roles.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use switchback_config::model::Name;

use super::{Case, rollout};
use crate::command::{Cause, Failing, Refusal};
use crate::effective::move_to_stable;
use crate::state::{Block, Trial, later};

/// An operator's rollback. Canaries lose their weight; without any, the previous stable returns;
/// without one, nothing happens.
pub(super) fn rollback(case: &mut Case<'_>, force: bool, cut: bool) -> Result<(), Refusal> {
    let before = &case.before;
    let is_canary = |name: &&Name| {
        **name != before.stable
            && Some(*name) != before.previous.as_ref()
            && before.weight(name) > 0
    };
    let canaries: BTreeSet<Name> = before.backends.keys().filter(is_canary).cloned().collect();
    let previous = return_target(case);
    if !canaries.is_empty() {
        let mut losers = canaries.clone();
        // Previous keeps none either: all weight goes to stable.
        losers.extend(before.previous.clone());
        let stable = before.stable.clone();
        guard(case, &stable, &losers, force)?;
        take_weight(case, &losers, None);
        block_all(case, &canaries, Cause::Operator, None);
        cut_streams(case, cut, &losers);
        let named: Vec<&str> = canaries.iter().map(String::as_str).collect();
        case.note(
            "rolled_back",
            format!(
                "{} rolled back; all traffic is on {stable}",
                named.join(", ")
            ),
        );
    } else if let Some(previous) = previous {
        return_to(case, &previous, force, Cause::Operator, None)?;
        let stable = BTreeSet::from([case.before.stable.clone()]);
        cut_streams(case, cut, &stable);
    }
    Ok(())
}

/// The judge's rollback of one backend.
pub(super) fn condemn(
    case: &mut Case<'_>,
    failing: &Failing,
    cause: Cause,
    force: bool,
) -> Result<(), Refusal> {
    let Failing {
        backend,
        version,
        sentence,
        ..
    } = failing;
    case.require_backend(backend)?;
    if case.before.version(backend) != version || case.before.weight(backend) == 0 {
        return Ok(());
    }
    if *backend == case.before.stable {
        let on_trial = case.before.trial_at(case.at).is_some();
        return match return_target(case).filter(|_| on_trial) {
            Some(previous) => return_to(case, &previous, force, cause, Some(sentence)),
            None => Ok(()),
        };
    }
    let losers = BTreeSet::from([backend.clone()]);
    let stable = case.before.stable.clone();
    guard(case, &stable, &losers, force)?;
    take_weight(case, &losers, Some(sentence));
    block_all(case, &losers, cause, Some(sentence));
    case.note(
        "rolled_back",
        format!("{backend} rolled back to {stable}: {sentence}"),
    );
    Ok(())
}

/// The judge's block of a version that no user has met. Where rollback goes stays open, and so does
/// what has got weight since: there, users decide.
pub(super) fn reject(case: &mut Case<'_>, failing: &Failing) -> Result<(), Refusal> {
    let Failing {
        backend,
        version,
        sentence,
        ..
    } = failing;
    case.require_backend(backend)?;
    let before = &case.before;
    let serves = |refuge: &Name| before.version(refuge) == version;
    let is_refuge = serves(&before.stable) || before.previous.as_ref().is_some_and(serves);
    if is_refuge
        || before.weight(backend) > 0
        || before.version(backend) != version
        || case.state.blocked.contains_key(version)
    {
        return Ok(());
    }
    let failed = BTreeSet::from([backend.clone()]);
    block_all(case, &failed, Cause::Judge, Some(sentence));
    case.note(
        "blocked",
        format!("{backend} ({version}) is blocked: {sentence}"),
    );
    Ok(())
}

/// A block that was decided on another state. It is kept in any case that is not refused; a stable that
/// runs the version goes back to the one before it, under the same guards as any other rollback.
pub(super) fn unite(
    case: &mut Case<'_>,
    version: &str,
    block: &Block,
    force: bool,
) -> Result<(), Refusal> {
    if case.state.blocked.contains_key(version) {
        return Ok(());
    }
    let before = &case.before;
    let stable = before.stable.clone();
    if before.version(&stable) == version {
        let Some(previous) = return_target(case) else {
            return Err(Refusal::NoTarget { backend: stable });
        };
        let cause = Cause::of(&block.cause);
        return_to(case, &previous, force, cause, block.reason.as_deref())?;
    } else {
        let runs = |name: &&Name| before.version(name) == version && before.weight(name) > 0;
        let losers: BTreeSet<Name> = before.backends.keys().filter(runs).cloned().collect();
        if !losers.is_empty() {
            guard(case, &stable, &losers, force)?;
            take_weight(case, &losers, block.reason.as_deref());
        }
        let message = format!("{} ({version}) is blocked", block.backend);
        case.note("blocked", message);
    }
    case.state.proven.remove(version);
    case.state.blocked.insert(version.to_owned(), block.clone());
    Ok(())
}

/// Makes `to` stable and puts it on trial.
pub(super) fn switch(case: &mut Case<'_>, to: &Name, force: bool) -> Result<(), Refusal> {
    case.require_backend(to)?;
    let version = case.before.version(to).to_owned();
    case.require_unblocked(to, &version)?;
    if !force && !case.health(to).known {
        return Err(Refusal::TargetUnhealthy {
            backend: to.clone(),
        });
    }
    let from = case.before.stable.clone();
    let weights = all_to(case, to);
    if *to == from && weights == case.before.weights {
        return Ok(());
    }
    case.require_fit(to, force)?;
    if *to != from {
        case.require_heard(force)?;
    }
    rollout::supersede(case, &format!("all traffic was switched to {to}"));
    if *to != from {
        make_stable(case, to);
        case.note(
            "switched",
            format!("{to} is stable now, on trial; {from} is the rollback target"),
        );
    } else {
        case.override_weights(weights);
        case.note("switched", format!("all traffic is on {to}"));
    }
    Ok(())
}

/// Gives a backend all weight and the role; what was stable becomes the rollback target.
pub(super) fn make_stable(case: &mut Case<'_>, to: &Name) {
    let from = case.before.stable.clone();
    let weights = all_to(case, to);
    case.override_weights(weights);
    case.override_stable(to);
    let version = case.before.version(&from).to_owned();
    rollout::note_proven(case, &version);
    case.state.previous = Some(from);
    put_on_trial(case, to);
}

/// Keeps a backend's version out.
pub(super) fn block(case: &mut Case<'_>, backend: &Name, force: bool) -> Result<(), Refusal> {
    case.require_backend(backend)?;
    let version = case.before.version(backend).to_owned();
    if case.state.blocked.contains_key(&version) {
        return Ok(());
    }
    let stable = case.before.stable.clone();
    // Versions are blocked, wherever they run.
    if case.before.version(&stable) == version {
        return match return_target(case) {
            Some(previous) => return_to(case, &previous, force, Cause::Operator, None),
            None => Err(Refusal::NoTarget { backend: stable }),
        };
    }
    let losers = BTreeSet::from([backend.clone()]);
    if case.before.weight(backend) > 0 {
        guard(case, &stable, &losers, force)?;
    }
    take_weight(case, &losers, None);
    block_all(case, &losers, Cause::Operator, None);
    case.note("blocked", format!("{backend} ({version}) is blocked"));
    Ok(())
}

/// Allows a backend's version again, without moving traffic.
pub(super) fn unblock(case: &mut Case<'_>, backend: &Name) -> Result<(), Refusal> {
    case.require_backend(backend)?;
    let version = case.before.version(backend).to_owned();
    if case.state.blocked.remove(&version).is_none() {
        return Ok(());
    }
    // Without the block, older weights would give it traffic at once.
    let weights = case.before.weights.clone();
    case.state.weights = Some(case.overriding(weights, case.file.weights.clone()));
    let stable = case.before.stable.clone();
    case.state.stable = Some(case.overriding(stable, case.file.stable.clone()));
    case.state.rolled_back.remove(backend);
    case.note(
        "unblocked",
        format!("{backend} ({version}) may have traffic again"),
    );
    Ok(())
}

/// The previous stable, if it can take the traffic.
fn return_target(case: &Case<'_>) -> Option<Name> {
    let before = &case.before;
    let previous = before.previous.clone()?;
    let is_same = before.version(&previous) == before.version(&before.stable);
    (!is_same && !before.blocked.contains(&previous)).then_some(previous)
}

/// Gives weight and role back to the previous stable and blocks what was stable.
fn return_to(
    case: &mut Case<'_>,
    previous: &Name,
    force: bool,
    cause: Cause,
    sentence: Option<&str>,
) -> Result<(), Refusal> {
    let failed = case.before.stable.clone();
    let losers = BTreeSet::from([failed.clone()]);
    guard(case, previous, &losers, force)?;
    let weights = all_to(case, previous);
    rollout::end_by_rollback(case, &losers, sentence);
    case.override_weights(weights);
    case.override_stable(previous);
    case.state.previous = None;
    case.state.on_trial = None;
    note_rolled_back(case, &losers);
    block_all(case, &losers, cause, sentence);
    let why = sentence
        .map(|sentence| format!(": {sentence}"))
        .unwrap_or_default();
    case.note(
        "rolled_back",
        format!("{failed} rolled back to {previous}{why}"),
    );
    Ok(())
}

/// Refuses to take weight from the last backend that has a healthy endpoint, or to give it to a version
/// that cannot live with the database.
fn guard(
    case: &Case<'_>,
    target: &Name,
    losers: &BTreeSet<Name>,
    force: bool,
) -> Result<(), Refusal> {
    if losers.iter().any(|name| case.before.weight(name) > 0) {
        case.require_fit(target, force)?;
    }
    let loser_works = losers
        .iter()
        .any(|name| case.before.weight(name) > 0 && case.health(name).healthy);
    if force || !loser_works || case.health(target).healthy {
        return Ok(());
    }
    Err(Refusal::TargetUnhealthy {
        backend: target.clone(),
    })
}

fn take_weight(case: &mut Case<'_>, losers: &BTreeSet<Name>, sentence: Option<&str>) {
    rollout::end_by_rollback(case, losers, sentence);
    let before = &case.before;
    let weights = move_to_stable(&before.weights, &before.stable, &before.backends, |name| {
        losers.contains(name)
    });
    case.override_weights(weights);
    note_rolled_back(case, losers);
}

/// Remembers whose weight was taken, for the file to give them new versions.
fn note_rolled_back(case: &mut Case<'_>, losers: &BTreeSet<Name>) {
    for loser in losers {
        let label = case
            .file
            .backends
            .get(loser)
            .map(|backend| backend.version.clone());
        case.state
            .rolled_back
            .extend(label.map(|label| (loser.clone(), label)));
    }
}

/// Blocks the versions of backends, but for one that stable runs too.
fn block_all(case: &mut Case<'_>, backends: &BTreeSet<Name>, cause: Cause, sentence: Option<&str>) {
    let stable = case.before.stable.clone();
    for backend in backends {
        if *backend != stable && case.before.version(backend) == case.before.version(&stable) {
            continue;
        }
        let block = Block {
            backend: backend.clone(),
            by: case.asked.by.clone(),
            at: case.at,
            cause: cause.as_str().into(),
            reason: sentence
                .map(str::to_owned)
                .or_else(|| case.asked.reason.clone()),
        };
        let version = case.before.version(backend).to_owned();
        case.state.proven.remove(&version);
        case.state.blocked.insert(version, block);
    }
}

/// The whole weight of the service on one backend.
fn all_to(case: &Case<'_>, to: &Name) -> IndexMap<Name, u32> {
    let sum: u32 = case.before.weights.values().sum();
    let weights = case.before.backends.keys().map(|name| {
        let weight = if name == to { sum.max(1) } else { 0 };
        (name.clone(), weight)
    });
    weights.collect()
}

/// Starts the watch over a new stable.
pub(super) fn put_on_trial(case: &mut Case<'_>, backend: &Name) {
    case.state.on_trial = Some(Trial {
        backend: backend.clone(),
        since: case.at,
        until: later(case.at, case.file.rollback.window.0),
    });
}

fn cut_streams(case: &mut Case<'_>, cut: bool, losers: &BTreeSet<Name>) {
    if cut {
        for loser in losers {
            *case.state.cuts.entry(loser.clone()).or_default() += 1;
        }
    }
}
