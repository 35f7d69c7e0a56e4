//! Feature flags: what a command makes of one, and which go off with a rollback.
//!
//! What says the same as the file is no override. Off stands beside it and is lifted by nothing but
//! [`FlagChange::On`]: a file that comes in, another setting or a restore leave off what is off.

use std::collections::BTreeMap;

use jiff::Timestamp;
use switchback_config::defaults::FLAGS_MAX;
use switchback_config::model::{Config, Flag, Name};
use switchback_config::units::Percent;

use super::{Case, Decision, World};
use crate::command::{Asked, FlagChange, Refusal};
use crate::state::{FlagOff, FlagSet, FlagState, ServiceState, flag_in_force};

/// Changes a flag.
pub(super) fn change(
    world: &World,
    at: Timestamp,
    asked: &Asked,
    name: &Name,
    change: &FlagChange,
) -> Result<Decision, Refusal> {
    let file = world.config.flags.get(name);
    let before = world.state.flags.get(name).cloned().unwrap_or_default();
    let now = flag_in_force(file, Some(&before));
    let is_new = matches!(change, FlagChange::Set(_) | FlagChange::KeepOff);
    if now.is_none() && !is_new {
        return Err(Refusal::UnknownFlag(name.clone()));
    }
    let mut turn = Turn {
        file,
        state: before.clone(),
        at,
        asked,
    };
    match change {
        FlagChange::Off | FlagChange::KeepOff => turn.turn_off(asked.reason.clone()),
        FlagChange::On => turn.turn_on(),
        FlagChange::Shares(shares) => {
            check_shares(now.as_ref(), shares)?;
            if let Some(flag) = turn.base() {
                let shares = shares.clone();
                turn.set(Flag { shares, ..flag });
            }
        }
        FlagChange::Set(flag) => {
            check_room(world, name)?;
            turn.set((**flag).clone());
        }
        FlagChange::Unset => turn.state.set = None,
    }
    // What is not there cannot be off, unless it was there for whoever turned it off.
    if flag_in_force(file, Some(&turn.state)).is_none() && *change != FlagChange::KeepOff {
        turn.state = FlagState::default();
    }
    let mut decision = Decision::nothing(world);
    if turn.state != before {
        let after = flag_in_force(file, Some(&turn.state));
        decision.note("flag_changed", None, sentence(name, now.as_ref(), after));
        decision.flags.insert(name.clone(), turn.state);
    }
    Ok(decision)
}

/// A flag on the operating table.
struct Turn<'a> {
    file: Option<&'a Flag>,
    state: FlagState,
    at: Timestamp,
    asked: &'a Asked,
}

impl Turn<'_> {
    /// The flag apart from being off.
    fn base(&self) -> Option<Flag> {
        let set = self.state.set.clone();
        flag_in_force(self.file, Some(&FlagState { set, off: None }))
    }

    /// Sets the flag. What says the same as the file is no override.
    fn set(&mut self, value: Flag) {
        if self.base().as_ref() == Some(&value) {
            return;
        }
        self.state.set = (self.file != Some(&value)).then(|| FlagSet {
            value,
            file: self.file.cloned(),
            by: self.asked.by.clone(),
            at: self.at,
            reason: self.asked.reason.clone(),
        });
    }

    fn turn_off(&mut self, reason: Option<String>) {
        let (by, at) = (self.asked.by.clone(), self.at);
        self.state.off.get_or_insert(FlagOff { by, at, reason });
    }

    fn turn_on(&mut self) {
        self.state.off = None;
        if let Some(flag) = self.base() {
            self.set(Flag {
                enabled: true,
                ..flag
            });
        }
    }
}

fn check_shares(
    flag: Option<&Flag>,
    shares: &indexmap::IndexMap<Name, Percent>,
) -> Result<(), Refusal> {
    let Some(flag) = flag else { return Ok(()) };
    if flag.kill_switch {
        let reason = "a kill switch is on or off for everybody: it has no shares";
        return Err(Refusal::InvalidFlag(reason.into()));
    }
    if let Some(unknown) = shares
        .keys()
        .find(|name| !flag.variants.contains_key(*name))
    {
        let known: Vec<&str> = flag.variants.keys().map(String::as_str).collect();
        let known = known.join(", ");
        let reason = format!("there is no variant {unknown:?}; use {known}");
        return Err(Refusal::InvalidFlag(reason));
    }
    let sum: u64 = shares.values().map(|s| u64::from(s.millionths())).sum();
    if sum > u64::from(Percent::WHOLE) {
        let reason = "these shares are more than 100% together";
        return Err(Refusal::InvalidFlag(reason.into()));
    }
    Ok(())
}

/// Flags that are made over the API are bounded like those of the file.
fn check_room(world: &World, name: &Name) -> Result<(), Refusal> {
    let state = &world.state.flags;
    if state.len() < FLAGS_MAX || state.contains_key(name) {
        return Ok(());
    }
    let reason = format!("{FLAGS_MAX} flags were changed at run time already; unset some");
    Err(Refusal::InvalidFlag(reason))
}

/// What became of a flag, in words.
fn sentence(name: &Name, before: Option<&Flag>, after: Option<Flag>) -> String {
    let Some(after) = after else {
        return match before {
            Some(_) => format!("flag {name} is gone"),
            None => format!("flag {name}, which is not there, is off when it comes back"),
        };
    };
    match before {
        None => format!("flag {name} is new"),
        Some(before) if before.enabled != after.enabled => {
            let word = if after.enabled { "on" } else { "off" };
            format!("flag {name} is turned {word}")
        }
        Some(before) if before.shares != after.shares && after.enabled => {
            let shares = after.shares.iter();
            let shares: Vec<String> = shares.map(|(v, share)| format!("{v}={share}")).collect();
            format!("flag {name} has the shares {}", shares.join(" "))
        }
        Some(_) => format!("flag {name} is set"),
    }
}

/// Turns off the flags that a version took with it: those of each backend that had weight and whose
/// version is blocked now.
pub(super) fn follow_rollback(
    case: &mut Case<'_>,
    world: &World,
    before: &ServiceState,
    decision: &mut Decision,
) {
    let is_fresh = |version: &String| {
        case.state.blocked.contains_key(version) && !before.blocked.contains_key(version)
    };
    let lost = case.before.backends.iter();
    let lost = lost.filter(|(name, b)| case.before.weight(name) > 0 && is_fresh(&b.version));
    let off: BTreeMap<Name, String> = lost
        .flat_map(|(name, backend)| {
            let why = format!("{name} ({}) was rolled back", backend.version);
            let names = backend.off_on_rollback.iter().cloned();
            names.map(move |flag| (flag, why.clone()))
        })
        .collect();
    for (name, why) in off {
        let file = world.config.flags.get(&name);
        let state = world.state.flags.get(&name).cloned().unwrap_or_default();
        if state.off.is_some() || flag_in_force(file, Some(&state)).is_none() {
            continue;
        }
        let mut turn = Turn {
            file,
            state,
            at: case.at,
            asked: case.asked,
        };
        turn.turn_off(Some(why.clone()));
        case.note("flag_off", format!("flag {name} is turned off: {why}"));
        decision.flags.insert(name, turn.state);
    }
}

/// Ends what was set, where the file's own value has changed. Off stays off.
pub(super) fn reload(world: &World, config: &Config, decision: &mut Decision) {
    for (name, state) in world.state.flags.iter() {
        let Some(set) = &state.set else { continue };
        if set.file.as_ref() == config.flags.get(name) {
            continue;
        }
        let off = state.off.clone();
        let message =
            format!("the file's flag {name} changed and wins over the one set at run time");
        decision.note("override_ended", None, message);
        decision
            .flags
            .insert(name.clone(), FlagState { set: None, off });
    }
}

/// Brings back flags as they were. One that is off by now stays off, by whatever it is.
pub(super) fn restore(
    world: &World,
    at: Timestamp,
    asked: &Asked,
    revision: u64,
    then: &BTreeMap<Name, Flag>,
    decision: &mut Decision,
) {
    for (name, flag) in then {
        let file = world.config.flags.get(name);
        let before = world.state.flags.get(name).cloned().unwrap_or_default();
        let now = flag_in_force(file, Some(&before));
        if now.as_ref() == Some(flag) {
            continue;
        }
        let mut turn = Turn {
            file,
            state: before.clone(),
            at,
            asked,
        };
        // Only what was made anew is on because it was on then.
        let enabled = turn.base().is_none_or(|base| base.enabled);
        turn.set(Flag {
            enabled,
            ..flag.clone()
        });
        if !flag.enabled {
            if now.is_none_or(|now| now.enabled) {
                turn.turn_off(Some(format!("it was off after revision {revision}")));
            }
        } else if !enabled || turn.state.off.is_some() {
            let message = format!("flag {name} was on then, and stays off until it is turned on");
            decision.note("conflict", None, message);
        }
        if turn.state != before {
            let message = format!("flag {name} is restored as it was after revision {revision}");
            decision.note("restored", None, message);
            decision.flags.insert(name.clone(), turn.state);
        }
    }
}
