//! The part of a live drill that users take part in: a hundredth of the traffic goes to the other backend
//! of its service, and back.
//!
//! It is in nobody's way. It takes place only while stable has everything and nobody has other plans, it ends by
//! itself (a lease), and what somebody else decides while it lasts stays.

use std::time::Duration;

use indexmap::IndexMap;
use switchback_config::model::Name;
use switchback_config::units::TimeSpan;

use super::Drills;
use crate::command::{Asked, Command, Refusal};
use crate::control::{Confirmed, Published};

/// Parts of the whole that are moved: a hundredth.
const PARTS: (u32, u32) = (99, 1);

/// How long they stay there, and when they come back by themselves if nobody brings them back.
const TIMES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The backend that can have a hundredth of the traffic for a moment.
pub(super) fn lendable(published: &Published, service: &str) -> Result<Name, Refusal> {
    let impossible = |reason: &str| Refusal::DrillImpossible {
        reason: reason.into(),
    };
    let Some(status) = published.services.get(service) else {
        return Err(Refusal::UnknownService(service.into()));
    };
    let effective = &status.effective;
    let state = published.state.services.get(service);
    let rollout = state.and_then(|state| state.rollout.as_ref());
    if rollout.is_some_and(|rollout| rollout.is_running()) {
        return Err(impossible(
            "a rollout is under way; it moves traffic itself",
        ));
    }
    if state.is_some_and(|state| state.lease.is_some()) {
        return Err(impossible("the weights are leased, and end by themselves"));
    }
    if state.is_some_and(|state| !state.rolled_back.is_empty()) {
        return Err(impossible("a rollback holds the weights as they are"));
    }
    let others = || {
        effective
            .backends
            .keys()
            .filter(|name| **name != effective.stable)
    };
    if others().any(|name| effective.weight(name) > 0) {
        return Err(impossible("stable has not all of the traffic"));
    }
    let is_fit = |name: &&Name| {
        let health = crate::builder::health(&published.snapshot, service, name);
        !effective.blocked.contains(*name) && health.known
    };
    let fit = others().find(is_fit).cloned();
    fit.ok_or_else(|| impossible("no other backend is healthy and not blocked"))
}

/// Moves a hundredth of the service's own traffic there and back; what was found.
pub(super) async fn move_a_hundredth(
    drills: &Drills,
    service: &Name,
    asked: &Asked,
) -> Result<String, String> {
    // The drill has taken some time; somebody may have other plans by now.
    let published = drills.controls.published();
    let canary = lendable(&published, service).map_err(|refusal| refusal.to_string())?;
    let Some(before) = published.services.get(service) else {
        return Err("the service is gone".into());
    };
    let before = before.effective.clone();
    let part = |name: &Name| match name {
        name if *name == before.stable => PARTS.0,
        name if *name == canary => PARTS.1,
        _ => 0,
    };
    let names = before.backends.keys();
    let weights: IndexMap<Name, u32> = names.map(|name| (name.clone(), part(name))).collect();
    let command = |weights, lease| Command::SetWeights {
        service: service.clone(),
        weights,
        lease,
    };
    let lend = command(weights, Some(TimeSpan(TIMES.1)));
    let lent = ask(drills, lend, published.state.revision, asked).await?;
    tokio::time::sleep(TIMES.0).await;
    // What concerns other services is nothing to this one.
    let published = drills.controls.published();
    let as_lent = lent.applied.published.state.services.get(service);
    if published.state.services.get(service) != as_lent {
        return Err(format!(
            "{canary} had 1 %, then somebody else changed {service}: what they did stays, and nothing was moved back"
        ));
    }
    let back = command(before.weights.clone(), None);
    let back = ask(drills, back, published.state.revision, asked).await?;
    Ok(format!(
        "{canary} had 1 % for {} s; in force everywhere after {} us, and back after {} us",
        TIMES.0.as_secs(),
        lent.applied_in.as_micros(),
        back.applied_in.as_micros()
    ))
}

/// Asks for weights, if the state is still this one.
async fn ask(
    drills: &Drills,
    command: Command,
    revision: u64,
    asked: &Asked,
) -> Result<Confirmed, String> {
    let asked = Asked {
        if_revision: Some(revision),
        reason: Some("live drill".into()),
        ..asked.clone()
    };
    let answer = drills.controls.ask(command, asked).await;
    answer.map_err(|error| {
        format!(
            "weights stay as they are, what was lent until {} s have passed: {error}",
            TIMES.1.as_secs()
        )
    })
}
