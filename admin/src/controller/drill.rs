//! Drills: the shadow of a service comes and goes, and what was found is on record.

use std::sync::Arc;

use super::{Decision, World};
use crate::command::{DrillAct, DrillCommand, Refusal};
use crate::drill::shadow;

/// Begins or ends a drill. The service itself stays as it is.
pub(super) fn carry_out(world: &World, command: &DrillCommand) -> Result<Decision, Refusal> {
    let DrillCommand { service, act } = command;
    let mut decision = Decision::nothing(world);
    match act {
        DrillAct::Begin { shadow, host } => {
            if !world.config.services.contains_key(service) {
                return Err(Refusal::UnknownService(service.clone()));
            }
            if world
                .config
                .services
                .keys()
                .any(|name| shadow::is_shadow(name))
            {
                return Err(Refusal::DrillRunning);
            }
            if world.state.stable_only {
                return Err(Refusal::StableOnly);
            }
            let config = shadow::with(&world.config, service, (**shadow).clone(), host);
            decision.config = Arc::new(config);
        }
        DrillAct::End(record) => {
            decision.config = Arc::new(shadow::without(&world.config).into_owned());
            if world.config.services.contains_key(service) {
                let state = world.state.services.get(service).cloned();
                let mut state = state.unwrap_or_default();
                let (kind, word) = match record.passed {
                    true => ("drill_passed", "passed"),
                    false => ("drill_failed", "failed"),
                };
                let failed = record.checks.iter().find(|check| !check.passed);
                let why = failed.map_or_else(
                    || format!("{} checks held", record.checks.len()),
                    |check| format!("{}: {}", check.name, check.finding),
                );
                decision.note(kind, Some(service), format!("the drill {word}: {why}"));
                state.drill = Some(record.clone());
                decision.services.insert(service.clone(), state);
            }
        }
    }
    Ok(decision)
}
