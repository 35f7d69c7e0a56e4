//! A new file: what it changes, and which overrides end because of it.
//!
//! An override lives as long as the file says the same as when it was made. Once the file's own value
//! changes, somebody meant it, and the file wins; this is said in an event.

use std::sync::Arc;

use jiff::Timestamp;
use switchback_config::model::{Config, Name, Service};

use super::settings::note_new_version;
use super::{Case, Decision, Health, Outlook, World, flags, roles, rollout};
use crate::command::Asked;
use crate::drill::shadow;
use crate::effective::Effective;
use crate::state::{ServiceState, Standing};

/// Takes over a new file.
pub(super) fn reload(
    world: &World,
    at: Timestamp,
    asked: &Asked,
    config: &Arc<Config>,
) -> Decision {
    let mut decision = Decision::nothing(world);
    let kept;
    let config = match world
        .config
        .services
        .keys()
        .any(|name| shadow::is_shadow(name))
    {
        true => {
            kept = Arc::new(shadow::kept(&world.config, (**config).clone()));
            &kept
        }
        false => config,
    };
    if *world.config != **config {
        decision.config = config.clone();
    }
    flags::reload(world, config, &mut decision);
    for (name, file) in &config.services {
        let old_file = world.config.services.get(name);
        let recorded = world.state.services.get(name);
        if recorded.is_none() && old_file.is_none() {
            continue;
        }
        let before = recorded.cloned().unwrap_or_default();
        let mut case = open(
            world,
            name,
            file,
            config,
            old_file,
            before.clone(),
            at,
            asked,
        );
        drop_overtaken(&mut case);
        end_rollout_if_overtaken(&mut case);
        follow_roles(&mut case, world.state.stable_only);
        // Nobody has to be told what stable is as long as nothing was ever recorded.
        let unrecorded = ServiceState {
            stable_last: None,
            ..case.state.clone()
        };
        if case.state != before && unrecorded != before {
            decision.services.insert(name.clone(), case.state);
        }
        decision.notes.extend(case.notes);
    }
    decision
}

#[expect(
    clippy::too_many_arguments,
    reason = "the parts of a case, named one by one"
)]
fn open<'a>(
    world: &World,
    name: &Name,
    file: &'a Service,
    config: &'a Config,
    old_file: Option<&Service>,
    state: ServiceState,
    at: Timestamp,
    asked: &'a Asked,
) -> Case<'a> {
    Case {
        name: name.clone(),
        file,
        config,
        before: Effective::new(old_file.unwrap_or(file), &state, world.state.stable_only),
        state,
        at,
        outlook: Outlook {
            health: &|_, _| Health {
                healthy: true,
                known: true,
            },
            standing: &|_, _| Standing::default(),
        },
        asked,
        notes: Vec::new(),
    }
}

/// Ends the overrides whose value in the file has changed.
fn drop_overtaken(case: &mut Case<'_>) {
    let file = case.file;
    if case
        .state
        .weights
        .as_ref()
        .is_some_and(|set| set.file != file.weights)
    {
        case.state.weights = None;
        case.state.lease = None;
        case.note(
            "override_ended",
            "the file's weights changed and win over those set at run time",
        );
    }
    let new_label = case.state.rolled_back.iter().find(|(backend, label)| {
        file.backends
            .get(*backend)
            .is_some_and(|backend| backend.version != **label)
    });
    if let Some((backend, _)) = new_label.map(|(backend, label)| (backend.clone(), label.clone())) {
        case.state.rolled_back.clear();
        if case.state.weights.take().is_some() {
            let message = format!(
                "the file gives {backend} a new version; its weights win over the rollback's"
            );
            case.note("override_ended", message);
        }
    }
    if case
        .state
        .stable
        .as_ref()
        .is_some_and(|set| set.file != file.stable)
    {
        case.state.stable = None;
        case.note(
            "override_ended",
            "the file's stable changed and wins over the one set at run time",
        );
    }
    let overtaken: Vec<Name> = case
        .state
        .backends
        .iter()
        .filter(|(name, set)| file.backends.get(*name) != Some(&set.file))
        .map(|(name, _)| name.clone())
        .collect();
    for backend in overtaken {
        case.state.backends.remove(&backend);
        let message = format!("the file's {backend} changed and wins over the one set at run time");
        case.note("override_ended", message);
    }
}

/// A rollout goes on through reloads, unless the file changed what it works on.
fn end_rollout_if_overtaken(case: &mut Case<'_>) {
    let Some(rollout) = case.running_rollout() else {
        return;
    };
    let after = Effective::new(case.file, &case.state, false);
    if after.version(&rollout.canary) != rollout.version {
        rollout::supersede(case, "the file changed its canary");
    } else if case.state.weights.is_none() {
        rollout::supersede(case, "the file changed the weights");
    } else if after.stable != case.before.stable {
        rollout::supersede(case, "the file changed stable");
    }
}

/// Lets roles follow what the file now says.
fn follow_roles(case: &mut Case<'_>, stable_only: bool) {
    let after = Effective::new(case.file, &case.state, stable_only);
    for conflict in &after.conflicts {
        case.note("conflict", conflict.clone());
    }
    let from = case.before.stable.clone();
    if after.stable != from && after.backends.contains_key(&from) {
        case.state.previous = Some(from.clone());
        roles::put_on_trial(case, &after.stable);
        case.note(
            "switched",
            format!(
                "the file makes {} stable; {from} is the rollback target",
                after.stable
            ),
        );
    }
    for (backend, value) in &after.backends {
        let old = case.before.backends.get(backend);
        if old.is_some_and(|old| old.version != value.version) {
            let weight = after.weight(backend);
            if weight > 0 {
                case.note(
                    "version_changed_in_use",
                    format!(
                        "{backend} became version {:?} while it has weight {weight}",
                        value.version
                    ),
                );
            }
            note_new_version(case, backend, weight);
        }
    }
    let rose = after
        .backends
        .keys()
        .any(|name| after.share(name) > case.before.share(name));
    if rose {
        case.state.changed = Some(case.at);
    }
    case.state.stable_last = Some(after.stable);
}
