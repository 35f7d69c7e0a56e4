//! What is told of reading the file: by the API, by verbs, and in the view of the configuration.

use jiff::Timestamp;
use serde::Serialize;
use switchback_config::diff::Change;
use utoipa::ToSchema;

use crate::api::views::{Followed, schema};

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Report {
    /// Whether the file differs from the one before.
    pub changed: bool,
    /// The state after it.
    pub revision: u64,
    /// What differs.
    #[schema(value_type = Vec<schema::Difference>)]
    pub changes: Vec<Change>,
    /// It was a dry run: the file was only looked at.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Whether the other instances follow.
    #[serde(flatten)]
    #[schema(inline)]
    pub(crate) followed: Followed,
}

/// The last attempt to read the file.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = LastReload)]
pub struct Last {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Whether it is in force.
    pub successful: bool,
    /// What was wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
