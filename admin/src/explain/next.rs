//! What will change by itself, and when.

use switchback_config::model::{CompareTo, Name, OnFailure};

use super::Facts;
use super::now::percent;
use crate::conflict::table;
use crate::state::{RolloutState, Wait, later};

/// A control group below this share of the traffic is none, as for the judge.
const CONTROL_SHARE_MIN: f64 = 0.01;

/// From what is most likely to happen to what ends some day.
pub(super) fn sentences(facts: &Facts<'_>) -> Vec<String> {
    let mut said = Vec::new();
    if let Some(rollout) = facts.rollout() {
        said.push(waits(facts, rollout));
        said.push(goes_on(rollout));
        said.push(format!(
            "If nobody moves the rollout on, it is given up {}.",
            facts.ahead(rollout.expires())
        ));
    }
    for backend in facts.effective.backends.keys() {
        if facts.effective.weight(backend) > 0 {
            said.extend(watch(facts, backend));
        }
    }
    if let Some(trial) = facts.effective.trial_at(facts.at) {
        said.push(format!(
            "The trial of {} ends {}; after that only people roll it back.",
            trial.backend,
            facts.ahead(trial.until)
        ));
    }
    if let Some(lease) = &facts.state.lease {
        let before = table(&lease.weights);
        said.push(format!(
            "The weights are leased: {} they are {before} again, unless they are set anew.",
            facts.ahead(lease.until)
        ));
    }
    said.extend(dead_stable(facts));
    if said.is_empty() {
        said.push("Nothing changes by itself.".into());
    }
    said
}

/// Traffic to a stable that nobody judges and that does not work stays there.
fn dead_stable(facts: &Facts<'_>) -> Option<String> {
    let stable = &facts.effective.stable;
    if facts.is_usable(stable) || facts.effective.weight(stable) == 0 {
        return None;
    }
    Some(if facts.panics() {
        "Health checks are believed again as soon as an endpoint with weight works.".into()
    } else {
        format!(
            "{stable} gets its traffic back as soon as one of its endpoints works; until then nothing is rolled back onto it."
        )
    })
}

fn waits(facts: &Facts<'_>, rollout: &RolloutState) -> String {
    let canary = &rollout.canary;
    match rollout.waits_for(facts.at, &facts.standing) {
        None => "The rollout goes on at once.".into(),
        Some(Wait::Time { until }) => {
            format!("This stage of the rollout ends {}.", facts.ahead(until))
        }
        Some(Wait::Traffic { requests, needed }) => format!(
            "The rollout waits for traffic: {canary} has answered {requests} of {needed} requests."
        ),
        Some(Wait::Hold { reason }) => format!("The rollout holds: {reason}."),
        Some(Wait::Approval) => "The rollout waits until somebody approves the next stage.".into(),
        Some(Wait::Resume) => {
            let pause = rollout.paused.as_ref();
            let by = pause.map_or(String::new(), |pause| {
                let reason = pause.reason.as_deref();
                let why = reason.map_or(String::new(), |reason| format!(": {reason}"));
                format!(" by {}, {}{why}", pause.by, facts.ago(pause.at))
            });
            format!("The rollout is paused{by}. It goes on when somebody resumes it.")
        }
    }
}

fn goes_on(rollout: &RolloutState) -> String {
    let canary = &rollout.canary;
    match rollout.next_stage() {
        Some(stage) => format!(
            "It goes on to {} for {canary} only while the judge finds nothing against it.",
            rollout.share(stage)
        ),
        None => format!("Then {canary} becomes stable, if the judge finds nothing against it."),
    }
}

/// What the judge of a backend would do.
fn watch(facts: &Facts<'_>, backend: &Name) -> Option<String> {
    let effective = facts.effective;
    let is_stable = *backend == effective.stable;
    if is_stable && effective.trial_at(facts.at).is_none() {
        return None;
    }
    let judged = facts.judges.get(backend)?;
    let target = match is_stable {
        true => effective.previous.as_ref()?,
        false => &effective.stable,
    };
    let alone = facts.file.rollback.compare_to == CompareTo::Stable
        && effective.share(target) < CONTROL_SHARE_MIN;
    let than = match alone {
        true => "usual",
        false => target,
    };
    let does = consequence(facts, backend, target, alone);
    if judged.requests == 0 {
        return Some(format!(
            "If {backend} fails more than {than}, {does}. The judge has not seen a request yet."
        ));
    }
    let evidence = percent(judged.evidence);
    let reading = judged.reading.as_ref();
    let numbers = reading.map_or(String::new(), |reading| format!(": {}", reading.sentence));
    Some(format!(
        "If {backend} fails more than {than}, {does}. The judge's evidence so far is {evidence} of what it needs{numbers}."
    ))
}

/// What a verdict leads to. Without a control group it rolls back for a while only.
fn consequence(facts: &Facts<'_>, backend: &Name, target: &Name, alone: bool) -> String {
    let settings = &facts.file.rollback;
    let version = facts.effective.version(backend);
    let back =
        format!("its traffic goes back to {target} at once, and version {version} is blocked");
    if facts.effective.on_failure(backend, settings.on_failure) != settings.on_failure {
        return "it gets no more, but keeps what it has (migration: destructive)".into();
    }
    match settings.on_failure {
        OnFailure::Rollback => {}
        OnFailure::Hold => {
            return "it gets no more, but keeps what it has (on_failure: hold)".into();
        }
        OnFailure::Notify => return "somebody is told, nothing else (on_failure: notify)".into(),
    }
    let judged = facts.judges.get(backend);
    if let Some(refusal) = judged.and_then(|judged| judged.refused.as_ref()) {
        let why = refusal.to_string();
        let why = why.strip_suffix("; force overrides").unwrap_or(&why);
        return format!("somebody is told, nothing else: {why}");
    }
    let Some(changed) = facts.state.changed.filter(|_| alone) else {
        return back;
    };
    let until = later(changed, settings.uncontrolled.span.0);
    let why = format!("{target} has too little traffic to compare with");
    if facts.at <= until {
        format!("{back}; {why}, so this ends {}", facts.ahead(until))
    } else {
        format!("somebody is told, nothing else: {why}, and the change is too long ago")
    }
}
