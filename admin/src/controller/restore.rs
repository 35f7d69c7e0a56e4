//! Bringing back what was in force after an earlier revision.
//!
//! Restoring writes overrides, for the services that still exist. It lifts no block: a version that was
//! blocked since keeps nothing, and its share goes to stable. It is all or nothing: if one service
//! cannot be restored safely, or a hook does not agree, none is.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use jiff::Timestamp;
use switchback_config::model::{Backend, Flag, Name};

use super::settings::note_new_version;
use super::{Case, Decision, Outlook, World, flags, roles, rollout, settings};
use crate::command::{Asked, Refusal};
use crate::effective::move_to_stable;
use crate::history::Settled;

/// What was in force after a revision.
#[derive(Clone, Copy, Debug)]
pub(super) struct Then<'a> {
    pub(super) revision: u64,
    pub(super) services: &'a BTreeMap<Name, Settled>,
    pub(super) flags: &'a BTreeMap<Name, Flag>,
}

/// Restores all services of a revision that can be.
pub(super) fn restore(
    world: &World,
    at: Timestamp,
    outlook: Outlook<'_>,
    asked: &Asked,
    then: &Then<'_>,
    force: bool,
) -> Result<Decision, Refusal> {
    let mut decision = Decision::nothing(world);
    let Then {
        revision,
        services,
        flags,
    } = *then;
    flags::restore(world, at, asked, revision, flags, &mut decision);
    for (name, settled) in services {
        let Ok(mut case) = Case::open(world, name, at, outlook, asked) else {
            let message = format!("{name} is not configured any more and was not restored");
            decision.note("not_restored", None, message);
            continue;
        };
        restore_service(&mut case, revision, settled, force)?;
        let one = case.close(world);
        decision.services.extend(one.services);
        decision.notes.extend(one.notes);
    }
    Ok(decision)
}

fn restore_service(
    case: &mut Case<'_>,
    revision: u64,
    settled: &Settled,
    force: bool,
) -> Result<(), Refusal> {
    let backends = restored_backends(case, settled);
    let stable = restored_stable(case, settled);
    let weights = restored_weights(case, settled, &backends, &stable);
    let same_backends = backends == case.before.backends;
    if same_backends && stable == case.before.stable && weights == case.before.weights {
        return Ok(());
    }
    if !force {
        require_able(case, &backends, &weights, &stable)?;
    }
    if stable != case.before.stable || weights != case.before.weights {
        case.require_heard(force)?;
    }
    rollout::supersede(case, &format!("revision {revision} was restored"));
    write_backends(case, &backends, &weights)?;
    settings::check_labels_of(&backends, &weights)?;
    let from = case.before.stable.clone();
    if weights != case.before.weights {
        // These weights are somebody's choice, no longer a rollback's.
        case.state.rolled_back.clear();
    }
    case.override_weights(weights);
    if stable != from {
        case.override_stable(&stable);
        case.state.previous = Some(from);
        roles::put_on_trial(case, &stable);
    }
    case.note(
        "restored",
        format!("restored as it was after revision {revision}"),
    );
    Ok(())
}

/// What gets traffic must be able to serve it. What is known of a backend's endpoints says nothing about
/// those it had then.
fn require_able(
    case: &Case<'_>,
    backends: &IndexMap<Name, Backend>,
    weights: &IndexMap<Name, u32>,
    stable: &Name,
) -> Result<(), Refusal> {
    for (name, then) in backends {
        if weights.get(name).is_none_or(|weight| *weight == 0) {
            continue;
        }
        let (now, health) = (&case.before.backends[name], case.health(name));
        let mut endpoints = then.endpoints.iter();
        let is_watched = now.version == then.version
            && now.tls == then.tls
            && endpoints.all(|endpoint| now.endpoints.contains(endpoint));
        if !is_watched {
            return Err(Refusal::TargetUnknown {
                backend: name.clone(),
                version: then.version.clone(),
            });
        }
        let begins = case.before.weight(name) == 0;
        if (begins && !health.known) || (name == stable && !health.healthy) {
            let backend = name.clone();
            return Err(Refusal::TargetUnhealthy { backend });
        }
    }
    case.require_fit_weights(backends, weights)
}

/// The backends of that time, as far as they still exist and their versions are not blocked.
fn restored_backends(case: &Case<'_>, settled: &Settled) -> IndexMap<Name, Backend> {
    let backends = case.before.backends.iter().map(|(name, now)| {
        let then = settled.backends.get(name);
        let then = then.filter(|_| lost(case, settled, name).is_none());
        (name.clone(), then.unwrap_or(now).clone())
    });
    backends.collect()
}

/// The stable of that time, if it can be.
fn restored_stable(case: &mut Case<'_>, settled: &Settled) -> Name {
    let (wanted, now) = (settled.stable.clone(), case.before.stable.clone());
    let Some(why) = lost(case, settled, &wanted) else {
        return wanted;
    };
    let message = format!("{wanted} was stable then, but {why}; {now} stays stable");
    case.note("conflict", message);
    now
}

/// The weights of that time; what cannot have its share any more leaves it to stable.
fn restored_weights(
    case: &mut Case<'_>,
    settled: &Settled,
    backends: &IndexMap<Name, Backend>,
    stable: &Name,
) -> IndexMap<Name, u32> {
    let mut table = settled.weights.clone();
    for (name, weight) in settled.weights.iter().filter(|(_, weight)| **weight > 0) {
        let Some(why) = lost(case, settled, name).filter(|_| name != stable) else {
            continue;
        };
        table.insert(name.clone(), 0);
        *table.entry(stable.clone()).or_default() += weight;
        if *name != settled.stable {
            let message = format!("{name} had weight {weight} then, but {why}; {stable} gets it");
            case.note("conflict", message);
        }
    }
    move_to_stable(&table, stable, backends, |_| false)
}

/// Why a backend cannot have traffic as it was then.
fn lost(case: &Case<'_>, settled: &Settled, name: &Name) -> Option<String> {
    if !case.before.backends.contains_key(name) {
        return Some("is not configured any more".into());
    }
    let version = &settled.backends.get(name)?.version;
    let block = case.state.blocked.get(version)?;
    let reason = block.reason.as_deref();
    let why = reason.map_or(String::new(), |reason| format!(" ({reason})"));
    Some(format!(
        "its version {version:?} is blocked by {} since {}{why}",
        block.by, block.at
    ))
}

/// Registers the backends of that time. What the file says anyway needs no override.
fn write_backends(
    case: &mut Case<'_>,
    backends: &IndexMap<Name, Backend>,
    weights: &IndexMap<Name, u32>,
) -> Result<(), Refusal> {
    for (name, backend) in backends {
        let now = case.before.backends[name].clone();
        if now == *backend {
            continue;
        }
        if now.version != backend.version {
            let weight = weights.get(name).copied().unwrap_or(0);
            note_new_version(case, name, weight);
        }
        if case.file.backends[name] == *backend {
            case.state.backends.remove(name);
            continue;
        }
        settings::check_endpoints(case.config, &backend.endpoints)?;
        let set = case.overriding(backend.clone(), case.file.backends[name].clone());
        case.state.backends.insert(name.clone(), set);
    }
    Ok(())
}
