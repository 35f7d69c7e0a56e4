//! The runtime state of services: what was changed over the API, and what must never be forgotten.
//!
//! The config file is the baseline. This is what lies on top of it: overrides with who, when and
//! why, roles, and blocked versions. It is plain data that travels to disk and back; what it means
//! together with the file is worked out by [`crate::effective`], and only [`crate::controller`]
//! changes it.

mod database;
mod drill;
mod flag;
mod rollout;
mod runbook;

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use switchback_config::model::{Backend, Name};
use utoipa::ToSchema;

use crate::api::views::schema;
use crate::cluster::{Head, Unshared};

pub use database::{
    CurrentSchema, DatabaseState, Mark, Phase, Rehearsal, Release, Unfit, objection,
};
pub use drill::{DrillCheck, DrillRecord};
pub use flag::{FlagOff, FlagSet, FlagState, flag_in_force};
pub(crate) use rollout::later;
pub use rollout::{Ended, Hold, Holdback, Outcome, Pause, RolloutState, Stage, Standing, Wait};
pub use runbook::{RunEnded, RunHold, RunHoldKind, RunOutcome, RunbookRun, StepRun, StepStatus};

/// The recorded state of all services.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Number of the last recorded change; 0: none yet.
    pub revision: u64,
    /// State by service. Services that left the file are kept: their blocks must hold when they
    /// come back.
    pub services: BTreeMap<Name, ServiceState>,
    /// State by flag, as far as it differs from the file. Flags that left the file are kept: what was
    /// turned off must be off when it comes back.
    /// Shared by all states among which no flag was changed: a rollback copies none.
    #[serde(default, skip_serializing_if = "no_flags")]
    pub flags: Arc<BTreeMap<Name, FlagState>>,
    /// The recorded state was lost: every service serves stable only until an operator acknowledges.
    #[serde(default)]
    pub stable_only: bool,
    /// The last change of the cluster that is in this state; none: this instance is alone, or has not joined
    /// yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<Head>,
    /// What was decided here and the cluster does not know yet, oldest first. In force here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) unshared: Vec<Unshared>,
}

fn no_flags(flags: &Arc<BTreeMap<Name, FlagState>>) -> bool {
    flags.is_empty()
}

/// The recorded state of one service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceState {
    /// The split, where it differs from the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Override<schema::Weights>>)]
    pub weights: Option<Override<IndexMap<Name, u32>>>,
    /// The stable backend, where it differs from the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<Override<Name>>,
    /// Backends registered over the API.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, Override<schema::Backend>>)]
    pub backends: BTreeMap<Name, Override<Backend>>,
    /// The rollback target after a switch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Name>,
    /// The stable backend that is still being watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_trial: Option<Trial>,
    /// Versions that get no traffic, by label.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub blocked: BTreeMap<String, Block>,
    /// Backends whose weight a rollback took, with the label the file gave them then. A new label in
    /// the file ends the rollback's hold on the weights.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rolled_back: BTreeMap<Name, String>,
    /// The last effective stable, in case the file names a blocked one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_last: Option<Name>,
    /// When a backend's share last rose, by the API, a switch or the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub changed: Option<Timestamp>,
    /// The rollout that is under way, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutState>,
    /// The weights are in force for a while only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// Versions that were stable until a newer one replaced them, by label: they may skip the steps
    /// of a rollout.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub proven: BTreeMap<String, Timestamp>,
    /// How often the streams of each backend were cut.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cuts: BTreeMap<Name, u64>,
    /// The runbook that is being carried out, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runbook: Option<RunbookRun>,
    /// The last rehearsal of a rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<DrillRecord>,
    /// The database behind it.
    #[serde(default, skip_serializing_if = "DatabaseState::is_empty")]
    pub database: DatabaseState,
    /// Versions that were stable before, the latest first, as they were deployed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retained: Vec<Retained>,
}

/// A value that beats the file's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Override<T> {
    /// The value.
    pub value: T,
    /// What the file said when it was overridden; once the file says something else, the file wins.
    pub file: T,
    /// Who set it.
    pub by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Why, in their words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Weights that end by themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Lease {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// What comes back then.
    pub weights: IndexMap<Name, u32>,
}

/// A stable backend under watch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Trial {
    /// Its name.
    pub backend: Name,
    /// When it became stable.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// When the watch ends.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
}

/// A version that was stable before, as it was deployed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = RetainedVersion)]
pub struct Retained {
    /// The backend that it was deployed on.
    pub backend: Name,
    /// The deployment.
    #[schema(value_type = schema::Backend)]
    pub deployed: Backend,
    /// When another one became stable.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
}

/// Why a version gets no traffic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Block {
    /// The backend it was deployed on.
    pub backend: Name,
    /// Who blocked it: a person's token, or the judge.
    pub by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// `operator`, `judge`, `rule` or `unhealthy`.
    pub cause: String,
    /// In words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
