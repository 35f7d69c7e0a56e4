//! Rollbacks and their evidence.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::evidence::{Record, Summary};
use crate::history::Revision;
use crate::incident::Moment;

/// Rollbacks, the newest first.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Rollbacks {
    /// Each in one line.
    pub(in crate::api) rollbacks: Vec<Summary>,
    /// Ask for those `before` this one to go on; `null` at the end.
    pub(in crate::api) next_before: Option<u64>,
}

/// All evidence of one rollback.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Rollback {
    /// The record.
    #[serde(flatten)]
    #[schema(inline)]
    pub(crate) record: Record,
    /// Whether the judge, told the same again, comes to the same verdict at the same tick; `null` if
    /// what led to the rollback is nothing that can be played again.
    pub(crate) replayed: Option<bool>,
    /// What is different, if it does not: the record was changed.
    pub(crate) replay_problem: Option<String>,
    /// What else was changed for the service around it, in order.
    pub(crate) timeline: Vec<Moment>,
}

impl Rollback {
    /// Checks a record, and puts it among the revisions around it.
    pub(in crate::api) fn new(record: Record, revisions: &[Revision]) -> Self {
        let (replayed, replay_problem) = match record.verify() {
            Ok(false) => (None, None),
            Ok(true) => (Some(true), None),
            Err(problem) => (Some(false), Some(problem)),
        };
        Self {
            timeline: crate::incident::timeline(&record, revisions),
            record,
            replayed,
            replay_problem,
        }
    }
}
