//! The record of every change: who, when, why, how, and what it was before.
//!
//! A revision names the services it changed, with their recorded state and what was in force before
//! and after. What was in force at any earlier time is worked out from that by [`past`], and said field
//! by field by [`difference`].

pub mod difference;
mod file;
pub mod past;

use std::collections::BTreeMap;

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use switchback_config::model::{Backend, Flag, Name};
use utoipa::ToSchema;

use crate::api::views::schema;
use crate::effective::Effective;
use crate::state::{FlagState, ServiceState};
pub(crate) use file::file_notes;

/// One recorded change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Revision {
    /// Its number, counting up from 1.
    pub revision: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Name of the token, or `switchback` itself.
    pub by: String,
    /// `api`, `judge`, `rollout`, `file` or `start`.
    pub via: String,
    /// The request, the file, or the finding that it came by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
    /// The verb.
    pub action: String,
    /// Why, in their words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What happened, in sentences.
    pub notes: Vec<String>,
    /// The services that changed.
    pub changes: BTreeMap<Name, Change>,
    /// The flags that changed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub flags: BTreeMap<Name, FlagTurn>,
}

/// The state of a service around a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// What it was.
    pub before: ServiceState,
    /// What it is since.
    pub after: ServiceState,
    /// What was in force; none: it was not configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force_before: Option<Settled>,
    /// What is in force since; none: it is not configured any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force_after: Option<Settled>,
}

/// A flag around a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FlagTurn {
    /// What was recorded.
    pub before: FlagState,
    /// What is recorded since.
    pub after: FlagState,
    /// What was in force; none: there was no such flag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Flag>)]
    pub in_force_before: Option<Flag>,
    /// What is in force since; none: there is no such flag any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Flag>)]
    pub in_force_after: Option<Flag>,
}

/// What was in force for a service at one time: the file, overrides and blocks taken together, so
/// that it can be brought back whatever the file says by then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Settled {
    /// What a canary gives its traffic back to.
    pub stable: Name,
    /// Where rollback went after a switch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Name>,
    /// Share of each backend.
    pub weights: IndexMap<Name, u32>,
    /// The backends as deployed.
    #[schema(value_type = BTreeMap<String, schema::Backend>)]
    pub backends: IndexMap<Name, Backend>,
}

impl From<&Effective> for Settled {
    fn from(effective: &Effective) -> Self {
        Self {
            stable: effective.stable.clone(),
            previous: effective.previous.clone(),
            weights: effective.weights.clone(),
            backends: effective.backends.clone(),
        }
    }
}

/// One thing that somebody asked for, whether it was done or not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Name of the token, or `switchback` itself.
    pub by: String,
    /// `api`, `judge`, `file`, `start` or `hooks`.
    pub via: String,
    /// The verb.
    pub action: String,
    /// The service it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Name>,
    /// The flag it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flag: Option<Name>,
    /// The instance of the cluster it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Name>,
    /// Why, in their words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `done`, `unchanged`, or the code of the refusal.
    pub result: String,
    /// The revision it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// What was in force before it, for each service that it changed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub before: BTreeMap<Name, Stand>,
    /// What is in force since.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub after: BTreeMap<Name, Stand>,
}

/// Where the traffic of a service goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Stand {
    /// What a canary gives its traffic back to.
    pub stable: Name,
    /// Share of each backend.
    pub weights: IndexMap<Name, u32>,
    /// Label of what runs on each backend.
    pub versions: IndexMap<Name, String>,
}

impl From<&Settled> for Stand {
    fn from(settled: &Settled) -> Self {
        let versions = settled.backends.iter();
        let versions = versions.map(|(name, backend)| (name.clone(), backend.version.clone()));
        Self {
            stable: settled.stable.clone(),
            weights: settled.weights.clone(),
            versions: versions.collect(),
        }
    }
}

/// An entry and its place.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct AuditRow {
    /// Counts up from 1 without holes.
    pub number: u64,
    /// What happened.
    #[serde(flatten)]
    pub entry: AuditEntry,
}

/// Whether the audit is what was written. Each entry carries a hash that covers the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct AuditCheck {
    /// How many entries hold.
    pub entries: u64,
    /// The first that is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
    /// The last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// SHA-256 over all of them, in hexadecimal; the log has the hash of each as it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// What is wrong; none: nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<AuditFault>,
}

/// The first entry that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AuditFault {
    /// Its number.
    pub number: u64,
    /// What is wrong with it.
    pub reason: String,
}

impl AuditFault {
    pub(crate) fn new(number: u64, reason: &str) -> Self {
        Self {
            number,
            reason: reason.into(),
        }
    }
}
