//! The last drill of a service on record: when it was, and what held.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A rehearsed rollback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Drill)]
pub struct DrillRecord {
    /// When it ended.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Who asked for it; `switchback` if it was due.
    pub by: String,
    /// Whether everything held.
    pub passed: bool,
    /// Whether a hundredth of the traffic was moved, too.
    pub live: bool,
    /// How long all of it took, in milliseconds.
    pub took_ms: u64,
    /// From the first failure to the last worker that sends nothing there any more, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back_in_ms: Option<u64>,
    /// What was looked at, in order.
    pub checks: Vec<DrillCheck>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrillCheck {
    /// What.
    pub name: String,
    /// Whether it held.
    pub passed: bool,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What was seen, in a sentence.
    pub finding: String,
}
