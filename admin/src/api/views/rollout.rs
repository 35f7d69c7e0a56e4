//! A rollout, as far as it has come.

use jiff::Timestamp;
use serde::Serialize;
use switchback_config::model::Name;
use switchback_config::units::Percent;
use utoipa::ToSchema;

use super::schema;
use crate::control::Published;
use crate::state::{self, Ended, Holdback, Pause, Wait};

/// A canary on its way to become stable.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Rollout {
    /// The service.
    service: Name,
    /// The backend that grows.
    canary: Name,
    /// Its label.
    version: String,
    /// `running`, `paused`, or how it ended.
    #[schema(
        pattern = "^(running|paused|promoted|rolled_back|superseded|expired)$",
        example = "running"
    )]
    status: &'static str,
    /// How far it has come.
    stage: Stage,
    /// The canary's share in this stage.
    #[schema(value_type = schema::Percent)]
    weight: Percent,
    /// Requests the canary has answered since its share last rose.
    requests: u64,
    /// How the version before does while it is held back: whether it still works on what the new one writes.
    holdback: Option<Holdback>,
    /// What it waits for; nothing if it goes on at once, or has ended.
    waits_for: Option<Wait>,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    began: Timestamp,
    /// When its stage began, moved on by the time it was paused.
    #[schema(value_type = String, format = DateTime)]
    stage_since: Timestamp,
    /// When it is given up if nobody advances it.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires: Option<Timestamp>,
    /// Who started it.
    by: String,
    /// Who stopped it, and why.
    paused: Option<Pause>,
    /// How it ended.
    ended: Option<Ended>,
    /// What was planned when it began.
    #[schema(value_type = schema::Rollout)]
    plan: switchback_config::model::Rollout,
}

/// How far a rollout has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[schema(as = RolloutStage)]
enum Stage {
    /// A step.
    Step {
        /// Which one, counted from 1.
        number: usize,
        /// How many there are.
        of: usize,
    },
    /// The last stretch.
    Bake,
}

/// The rollout of a service that is under way, or its last one.
pub(crate) fn rollout(published: &Published, service: &str) -> Option<Rollout> {
    let recorded = published.state.services.get(service)?;
    let rollout = recorded.rollout.as_ref()?;
    let standing = crate::rollout::standing(published, service, rollout);
    let at = published.clock.now();
    let running = rollout.is_running();
    let effective = &published.services.get(service)?.effective;
    let stable = &effective.stable;
    let held_back = || rollout.held_back(stable, effective.version(stable), &standing);
    Some(Rollout {
        holdback: match running {
            true => held_back(),
            false => rollout.holdback.clone(),
        },
        service: service.into(),
        canary: rollout.canary.clone(),
        version: rollout.version.clone(),
        status: rollout.status(),
        stage: match rollout.stage {
            state::Stage::Step(step) => Stage::Step {
                number: step + 1,
                of: rollout.plan.steps.len(),
            },
            state::Stage::Bake => Stage::Bake,
        },
        weight: rollout.share(rollout.stage),
        requests: standing.requests,
        waits_for: running.then(|| rollout.waits_for(at, &standing)).flatten(),
        began: rollout.began,
        stage_since: rollout.stage_since,
        expires: running.then(|| rollout.expires()),
        by: rollout.by.clone(),
        paused: rollout.paused.clone(),
        ended: rollout.ended.clone(),
        plan: rollout.plan.clone(),
    })
}
