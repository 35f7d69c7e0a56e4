//! Bringing back what was in force after an earlier revision.
//!
//! Restoring writes overrides, for the services that still exist. It lifts no block: a version that was
//! blocked since keeps nothing, and its share goes to stable. It is all or nothing: if one service
//! cannot be restored safely, none is.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use jiff::Timestamp;
use switchback_config::model::{Backend, Name};

use super::settings::note_new_version;
use super::{Case, Decision, Outlook, World, roles, rollout, settings};
use crate::command::{Asked, Refusal};
use crate::effective::move_to_stable;
use crate::history::Settled;

/// Restores all services of a revision that can be.
pub(super) fn restore(
    world: &World,
    at: Timestamp,
    outlook: Outlook<'_>,
    asked: &Asked,
    revision: u64,
    services: &BTreeMap<Name, Settled>,
    force: bool,
) -> Result<Decision, Refusal> {
    let mut decision = Decision::nothing(world);
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
    let version = |name: &Name| backends.get(name).map_or("", |backend| &backend.version);
    let blocked = |name: &Name| case.state.blocked.contains_key(version(name));
    let mut stable = settled.stable.clone();
    if !backends.contains_key(&stable) || blocked(&stable) {
        let message = format!(
            "{} cannot be stable again; {} stays",
            settled.stable, case.before.stable
        );
        stable.clone_from(&case.before.stable);
        case.notes.push(super::Note {
            kind: "conflict",
            service: Some(case.name.clone()),
            message,
        });
    }
    let weights = move_to_stable(&settled.weights, &stable, &backends, |name| {
        *name != stable && blocked(name)
    });
    let same_backends = backends == case.before.backends;
    if same_backends && stable == case.before.stable && weights == case.before.weights {
        return Ok(());
    }
    if !force && weights.get(&stable).is_some_and(|w| *w > 0) && !case.health(&stable).healthy {
        return Err(Refusal::TargetUnhealthy { backend: stable });
    }
    rollout::supersede(case, &format!("revision {revision} was restored"));
    write_backends(case, &backends, &weights);
    settings::check_labels_of(&backends, &weights)?;
    let from = case.before.stable.clone();
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

/// The backends of that time, as far as they still exist.
fn restored_backends(case: &Case<'_>, settled: &Settled) -> IndexMap<Name, Backend> {
    let backends = case.before.backends.iter().map(|(name, now)| {
        let then = settled.backends.get(name).unwrap_or(now);
        (name.clone(), then.clone())
    });
    backends.collect()
}

fn write_backends(
    case: &mut Case<'_>,
    backends: &IndexMap<Name, Backend>,
    weights: &IndexMap<Name, u32>,
) {
    for (name, backend) in backends {
        let now = case.before.backends[name].clone();
        if now == *backend {
            continue;
        }
        if now.version != backend.version {
            let weight = weights.get(name).copied().unwrap_or(0);
            note_new_version(case, name, weight);
        }
        let set = case.overriding(backend.clone(), case.file.backends[name].clone());
        case.state.backends.insert(name.clone(), set);
    }
}
