//! Answers to dry runs: what would be in force, and what of it would be different.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::{Value, json};
use switchback_config::diff::{Change, differences};
use switchback_config::model::Name;
use utoipa::ToSchema;

use super::schema;
use crate::control::Confirmed;
use crate::effective::Effective;
use crate::state::ServiceState;

/// What would be in force after a write. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Planned {
    /// The service.
    service: Name,
    /// Always true.
    dry_run: bool,
    /// Whether anything would be different.
    changed: bool,
    /// The state now.
    revision: u64,
    /// What is in force now.
    before: Before,
    /// Weight each backend would have.
    weights: IndexMap<Name, u32>,
    /// What a canary would give its traffic back to.
    stable: Name,
    /// Where rollback would go.
    previous: Option<Name>,
    /// The stable backend that would be watched.
    on_trial: Option<Name>,
    /// Backends whose version would get no traffic.
    blocked: BTreeSet<Name>,
    /// What would be different, field by field.
    #[schema(value_type = Vec<schema::Difference>)]
    changes: Vec<Change>,
    /// The same to read: a line for each, `weights.green: 5 -> 10`.
    #[schema(example = "weights.blue: 95 -> 90\nweights.green: 5 -> 10")]
    diff: String,
    /// What would be told, in words.
    notes: Vec<String>,
}

/// What is in force before a write.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
struct Before {
    /// Weight of each backend.
    weights: IndexMap<Name, u32>,
    /// What a canary gives its traffic back to.
    stable: Name,
    /// Backends whose version gets no traffic.
    blocked: BTreeSet<Name>,
}

/// What a dry run has found; none if its service is not configured.
pub(crate) fn planned(service: &str, confirmed: &Confirmed) -> Option<Planned> {
    let applied = &confirmed.applied;
    let (decision, published) = applied.planned.as_deref()?;
    let before = &published.services.get(service)?.effective;
    let recorded = published.state.services.get(service);
    let state = decision.services.get(service).or(recorded);
    let after = match (state, decision.config.services.get(service)) {
        (Some(state), Some(file)) => Effective::new(file, state, decision.stable_only),
        _ => Effective::clone(before),
    };
    let changes = differences(&in_force(before, recorded), &in_force(&after, state));
    let notes = decision.notes.iter();
    Some(Planned {
        service: service.into(),
        dry_run: true,
        changed: applied.changed,
        revision: published.state.revision,
        before: Before {
            weights: before.weights.clone(),
            stable: before.stable.clone(),
            blocked: before.blocked.clone(),
        },
        diff: lines(&changes),
        changes,
        weights: after.weights,
        stable: after.stable,
        previous: after.previous,
        on_trial: after.on_trial.map(|trial| trial.backend),
        blocked: after.blocked,
        notes: notes.map(|note| note.message.clone()).collect(),
    })
}

/// All that a write can change of a service, by field.
fn in_force(effective: &Effective, state: Option<&ServiceState>) -> Value {
    let rollout = state.and_then(|state| state.rollout.as_ref());
    let lease = state.and_then(|state| state.lease.as_ref());
    json!({
        "weights": effective.weights,
        "stable": effective.stable,
        "previous": effective.previous,
        "on_trial": effective.on_trial.as_ref().map(|trial| &trial.backend),
        "blocked": effective.blocked,
        "backends": effective.backends,
        "rollout": rollout.map(|rollout| json!({
            "canary": rollout.canary,
            "version": rollout.version,
            "status": rollout.status(),
            "stage": rollout.stage_text(),
            "weight": rollout.share(rollout.stage),
        })),
        "database": state.map(|state| &state.database),
        "lease": lease.map(|lease| json!({"until": lease.until, "weights": lease.weights})),
    })
}

/// Differences as people read them.
fn lines(changes: &[Change]) -> String {
    let text = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let lines = changes.iter().map(|change| {
        let Change {
            path,
            before,
            after,
        } = change;
        format!("{path}: {} -> {}", text(before), text(after))
    });
    lines.collect::<Vec<_>>().join("\n")
}
