//! What one can do, as commands to copy.

use serde::Serialize;
use switchback_config::model::Name;
use utoipa::ToSchema;

use super::Facts;
use super::now::listed;
use crate::conflict::{same_shares, table};
use crate::effective::Effective;
use crate::state::Wait;

/// A command and what it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Advice {
    /// To copy.
    pub(crate) command: String,
    /// What comes of it.
    pub(crate) does: String,
}

/// The red button first.
pub(super) fn advice(facts: &Facts<'_>) -> Vec<Advice> {
    let service = facts.service;
    let mut found = Vec::new();
    let mut add = |command: String, does: String| {
        let command = format!("switchback {command}");
        found.push(Advice { command, does });
    };
    add(format!("rollback {service}"), rollback(facts));
    if facts.stable_only {
        add(
            "acknowledge".into(),
            "goes back to the weights of the file".into(),
        );
    }
    for (command, does) in rollout(facts) {
        add(command, does);
    }
    for backend in &facts.effective.blocked {
        let version = facts.effective.version(backend);
        let does = format!("allows version {version} again; moves no traffic");
        add(format!("unblock {service} {backend}"), does);
    }
    if let Some(works) = works_instead(facts) {
        let does = format!("gives all traffic to {works}, which works");
        add(format!("switch {service} --to {works}"), does);
    }
    let file = &facts.file.weights;
    let mut weighted = file.iter().filter(|(_, weight)| **weight > 0);
    let possible = weighted.all(|(name, _)| !facts.effective.blocked.contains(name));
    if facts.state.weights.is_some() && !same_shares(&facts.effective.weights, file) && possible {
        let command = format!("weights {service} {}", table(file));
        add(command, "goes back to the weights of the file".into());
    }
    add(
        format!("history {service}"),
        "tells what changed, who did it and why; restore goes back to it".into(),
    );
    found
}

/// What the red button does now.
fn rollback(facts: &Facts<'_>) -> String {
    match &facts.button {
        Err(refusal) => format!("is refused now: {refusal}"),
        Ok(None) => {
            "does nothing now: no canary has weight, and there is no previous stable".into()
        }
        Ok(Some(after)) => {
            let shares = shares(after);
            let blocked = after.blocked.difference(&facts.effective.blocked);
            let blocked = blocked.map(|name| format!("version {} of {name}", after.version(name)));
            let blocked: Vec<String> = blocked.collect();
            match &blocked[..] {
                [] => format!("leaves {shares}"),
                blocked => format!("leaves {shares}, and blocks {}", listed(blocked)),
            }
        }
    }
}

fn shares(after: &Effective) -> String {
    let weighted = after.weights.iter().filter(|(_, weight)| **weight > 0);
    let weighted: Vec<&Name> = weighted.map(|(name, _)| name).collect();
    match weighted[..] {
        [only] => format!("all traffic on {only}"),
        _ => table(&after.weights),
    }
}

fn rollout(facts: &Facts<'_>) -> Vec<(String, String)> {
    let service = facts.service;
    let Some(rollout) = facts.rollout() else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let canary = &rollout.canary;
    if rollout.paused.is_some() {
        found.push((
            format!("rollout resume {service}"),
            "lets the rollout go on".to_owned(),
        ));
    }
    let approves = match rollout.waits_for(facts.at, &facts.standing) {
        Some(Wait::Approval) => "approves: ",
        _ => "does not wait: ",
    };
    let does = match rollout.next_stage() {
        Some(stage) => format!("{approves}{canary} gets {} now", rollout.share(stage)),
        None => format!("{approves}{canary} becomes stable now"),
    };
    found.push((format!("rollout promote {service}"), does));
    if rollout.paused.is_none() {
        found.push((
            format!("rollout pause {service}"),
            format!("leaves {canary} the share it has"),
        ));
    }
    found
}

/// A backend that works while stable does not.
fn works_instead<'a>(facts: &'a Facts<'_>) -> Option<&'a Name> {
    let effective = facts.effective;
    if facts.is_usable(&effective.stable) {
        return None;
    }
    let mut others = effective.backends.keys();
    others.find(|name| {
        **name != effective.stable && facts.is_usable(name) && !effective.blocked.contains(*name)
    })
}
