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
use switchback_config::model::{Backend, Name};
use utoipa::ToSchema;

use crate::api::views::schema;
use crate::effective::Effective;
use crate::state::ServiceState;
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

/// What was in force for a service at one time: the file, overrides and blocks taken together, so
/// that it can be brought back whatever the file says by then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Settled {
    /// The rollback target.
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Name of the token, or `switchback` itself.
    pub by: String,
    /// `api`, `judge`, `file` or `start`.
    pub via: String,
    /// The verb.
    pub action: String,
    /// The service it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Name>,
    /// Why, in their words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `done`, `unchanged`, or the code of the refusal.
    pub result: String,
    /// The revision it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}
