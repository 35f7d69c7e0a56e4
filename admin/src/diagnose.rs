//! What to do about a service that is in trouble: the decision tree of an incident, walked on what is known.
//!
//! Pure: facts in, findings out. What was changed lately, by the record; who errs since when, by the
//! counters; what is possible now, decided by the function that would carry it out; and how long each way
//! took here, if it was ever measured. What fits the facts comes first.

mod advice;
mod errors;

use jiff::Timestamp;
use serde::Serialize;
use switchback_config::model::Name;
use utoipa::ToSchema;

use crate::history::{Revision, Settled};
use crate::timings::Way;

pub(crate) use advice::{Known, diagnose};
pub(crate) use errors::{Errors, errs};

/// What is wrong with a service, and what to do.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Diagnosis {
    /// The service.
    pub(crate) service: Name,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) at: Timestamp,
    /// Changes of so many minutes were looked at.
    pub(crate) within_min: u32,
    /// All of it in one sentence.
    pub(crate) finding: String,
    /// What was changed lately, the latest first.
    pub(crate) changes: Vec<Changed>,
    /// Which backends err.
    pub(crate) errors: Vec<Errors>,
    /// The questions in their order, and what the facts say.
    pub(crate) tree: Vec<Question>,
    /// What can be done, the recommended way first.
    pub(crate) methods: Vec<Recommended>,
}

/// Something that was changed.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = RecentChange)]
pub(crate) struct Changed {
    /// Its revision.
    pub(crate) revision: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) at: Timestamp,
    /// What kind of change.
    pub(crate) kind: Kind,
    /// The verb.
    pub(crate) action: String,
    /// Who.
    pub(crate) by: String,
    /// What happened, in sentences.
    pub(crate) notes: Vec<String>,
    /// The flags that changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub(crate) flags: Vec<Name>,
    /// What was in force before; none: the service was not configured.
    #[serde(skip)]
    pub(crate) before: Option<Settled>,
}

/// A kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ChangeKind)]
pub(crate) enum Kind {
    /// The file, weights, or what was restored.
    Config,
    /// A feature flag.
    Flag,
    /// A version that was let in, made stable or deployed.
    Code,
    /// What is known of the database.
    Database,
    /// A way back: no cause.
    WayBack,
}

/// A question of the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = TreeQuestion)]
pub(crate) struct Question {
    /// The question.
    pub(crate) question: &'static str,
    /// What the facts say.
    pub(crate) answer: bool,
    /// Which facts.
    pub(crate) because: String,
}

/// A way back for this trouble.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = RecommendedMethod)]
pub(crate) struct Recommended {
    /// Which.
    pub(crate) method: Way,
    /// Its name.
    pub(crate) name: &'static str,
    /// To copy.
    pub(crate) command: String,
    /// Why it is where it is in the list.
    pub(crate) because: String,
    /// Whether it can be done now.
    pub(crate) possible: bool,
    /// How long half of them took here, in microseconds; `null`: not measured yet.
    pub(crate) p50_us: Option<u64>,
    /// How long 99 % of them took no longer than.
    pub(crate) p99_us: Option<u64>,
    /// How many were measured.
    pub(crate) measured: usize,
    /// What it would do to data.
    pub(crate) data_risk: String,
}

/// What a recorded change was to a service; nothing if it only kept the books, as runbooks and drills do:
/// what changed nothing is no cause, and there is nothing to go back to.
pub(crate) fn changed(revision: &Revision, service: &Name) -> Option<Changed> {
    let change = revision.changes.get(service);
    let moves = change.is_some_and(|change| change.in_force_before != change.in_force_after);
    let migrates = change.is_some_and(|change| change.before.database != change.after.database);
    if !moves && !migrates && revision.flags.is_empty() {
        return None;
    }
    let kind = match revision.action.as_str() {
        "flag_on" | "flag_set" | "flag_shares" | "flag_unset" => Kind::Flag,
        "switch" | "rollout_start" | "rollout_promote" | "progress" | "backend_set" => Kind::Code,
        "schema_set" | "schema_phase" | "schema_rehearsed" | "schema_reverse_confirmed" => {
            Kind::Database
        }
        "rollback" | "block" | "flag_off" | "rollout_pause" => Kind::WayBack,
        _ if moves => Kind::Config,
        // A file, or a restore, that was about flags.
        _ if !revision.flags.is_empty() => Kind::Flag,
        _ => Kind::Database,
    };
    Some(Changed {
        revision: revision.revision,
        at: revision.at,
        kind,
        action: revision.action.clone(),
        by: revision.by.clone(),
        notes: revision.notes.clone(),
        flags: revision.flags.keys().cloned().collect(),
        before: change.and_then(|change| change.in_force_before.clone()),
    })
}

#[cfg(test)]
mod tests;
