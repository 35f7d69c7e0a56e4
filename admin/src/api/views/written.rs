//! Answers to writes: what is in force, how fast it got there, what each backend has begun.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use serde::Serialize;
use switchback_config::model::Name;
use utoipa::ToSchema;

use super::followed::Followed;
use super::planned::Planned;
use super::rollout::{Rollout, rollout};
use crate::api::problem::ProblemBody;
use crate::builder::find;
use crate::control::{Confirmed, Published};

/// The answer to a write.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Answer {
    /// It was carried out.
    Written(Box<Written>),
    /// It was a dry run.
    Planned(Box<Planned>),
}

/// What is in force after a write. In-flight requests finish; no split request begins at a backend
/// whose weight is 0 once this is answered.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Written {
    /// The service.
    service: Name,
    /// Whether anything is different now.
    changed: bool,
    /// The state after it.
    revision: u64,
    /// Weight of each backend.
    #[schema(example = json!({"blue": 95, "green": 5}))]
    weights: IndexMap<Name, u32>,
    /// What a canary gives its traffic back to.
    stable: Name,
    /// Where rollback goes after a switch.
    previous: Option<Name>,
    /// The stable backend that is still being watched.
    on_trial: Option<Name>,
    /// Backends whose version gets no traffic.
    blocked: BTreeSet<Name>,
    /// Microseconds from the swap until every worker followed.
    applied_in_us: u64,
    /// Requests each backend had ever begun when every worker followed.
    begun: IndexMap<Name, u64>,
    /// Requests under way.
    in_flight: IndexMap<Name, u64>,
    /// Whether it survives a crash; otherwise it is persisted as soon as the disk allows.
    durable: bool,
    /// Whether the other instances follow.
    #[serde(flatten)]
    #[schema(inline)]
    followed: Followed,
    /// The rollout, in answers about rollouts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) rollout: Option<Rollout>,
    /// With `wait=drained`: whether backends without weight have finished their requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) drained: Option<bool>,
    /// Where another backend became stable and hooks want to be asked before: whether they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) before_switch: Option<BeforeSwitch>,
}

/// Whether hooks were asked before another backend became stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BeforeSwitch {
    /// They were, and agree.
    Passed,
    /// They were not, because of `force`.
    Skipped,
}

/// The answers to a write about all services.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Answers {
    /// How many services refused.
    pub(in crate::api) refused: u32,
    /// One by one.
    pub(in crate::api) services: Vec<AnswerOrRefused>,
}

/// What became of one service.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum AnswerOrRefused {
    /// It was carried out, or would be.
    Answer(Answer),
    /// It was refused.
    Refused(Refused),
}

/// A service that refused.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Refused {
    /// The service.
    pub(in crate::api) service: Name,
    /// Always false.
    pub(in crate::api) changed: bool,
    /// Why.
    pub(in crate::api) problem: ProblemBody,
}

/// What a write has brought about; none if its service is not configured any more.
pub(crate) fn written(service: &str, confirmed: &Confirmed) -> Option<Written> {
    let applied = &confirmed.applied;
    let published = &applied.published;
    let effective = &published.services.get(service)?.effective;
    let trial = effective.trial_at(published.clock.now());
    let mut written = Written {
        service: service.into(),
        changed: applied.changed,
        revision: published.state.revision,
        weights: effective.weights.clone(),
        stable: effective.stable.clone(),
        previous: effective.previous.clone(),
        on_trial: trial.map(|trial| trial.backend.clone()),
        blocked: effective.blocked.clone(),
        applied_in_us: u64::try_from(confirmed.applied_in.as_micros()).unwrap_or(u64::MAX),
        begun: IndexMap::new(),
        in_flight: IndexMap::new(),
        durable: confirmed.durable,
        followed: confirmed.acknowledged.into(),
        rollout: None,
        drained: None,
        before_switch: None,
    };
    written.count(published);
    Some(written)
}

impl Written {
    /// Reads the counters (again).
    pub(in crate::api) fn count(&mut self, published: &Published) {
        let live = find(&published.snapshot, &self.service);
        for backend in live.into_iter().flat_map(|live| &live.backends) {
            let name = backend.name.to_string();
            self.begun.insert(name.clone(), backend.stats.begun());
            self.in_flight.insert(name, backend.stats.in_flight());
        }
    }

    /// Tells about the rollout, too.
    pub(in crate::api) fn with_rollout(mut self, published: &Published) -> Self {
        self.rollout = rollout(published, &self.service);
        self
    }
}
