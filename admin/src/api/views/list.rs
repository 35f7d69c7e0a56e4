//! Pages of what is recorded, and other small answers.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Followed;
use crate::auth::Role;
use crate::history::{AuditRow, Revision};
use crate::reload::Last;

/// Recorded changes, the newest first.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Revisions {
    /// The changes.
    pub(in crate::api) revisions: Vec<Revision>,
    /// Ask for those `before` this one to go on; `null` at the end.
    pub(in crate::api) next_before: Option<u64>,
}

/// What was asked for, the newest first.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Audit {
    /// The entries.
    pub(in crate::api) entries: Vec<AuditRow>,
}

/// The configuration that is in force.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Config {
    /// The file.
    #[schema(value_type = Option<String>)]
    pub(in crate::api) path: Option<PathBuf>,
    /// What became of the last attempt to read it.
    pub(in crate::api) last_reload: Last,
    /// Its contents with every default filled in; `switchback schema` describes the keys. Secrets are
    /// masked.
    #[schema(value_type = Object)]
    pub(in crate::api) config: Value,
}

/// Whose token it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Identity {
    /// Its name, as recorded with changes.
    pub(in crate::api) name: String,
    /// What it may do.
    pub(in crate::api) role: Role,
}

/// A change of no service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Changed {
    /// Whether anything is different now.
    pub(in crate::api) changed: bool,
    /// The state after it.
    pub(in crate::api) revision: u64,
    /// It was a dry run: nothing has changed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::api) dry_run: bool,
    /// Whether the other instances follow.
    #[serde(flatten)]
    #[schema(inline)]
    pub(in crate::api) followed: Followed,
}

/// One message of the stream of events.
#[derive(ToSchema)]
#[schema(as = EventMessage)]
#[expect(dead_code, reason = "described, made by the stream")]
pub(crate) struct Message {
    /// To resume after it, with `Last-Event-ID`.
    id: Option<String>,
    /// The kind of the event.
    #[schema(example = "rolled_back")]
    event: Option<String>,
    /// An `Event` as JSON.
    data: Option<String>,
    /// How long to wait before a new connection, in milliseconds.
    retry: Option<u64>,
}
