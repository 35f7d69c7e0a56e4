//! What can be said about the database behind a service, and about what a version makes of it.

use switchback_config::model::{Migration, SchemaSupport};

use crate::state::Phase;

/// Something to record about a database. switchback never changes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseChange {
    /// It has this schema now.
    Schema(u32),
    /// A change of its schema has come so far; none: it is over.
    Phase {
        /// How far.
        to: Option<Phase>,
        /// The schema that a contract leaves; none: the next one.
        leaves: Option<u32>,
        /// What the contract's gate has against it.
        against: Vec<String>,
        /// Even if the gate is closed.
        force: bool,
    },
    /// The reverse migration was rehearsed elsewhere.
    Rehearsed {
        /// How long it took, in seconds.
        took_s: Option<u64>,
    },
    /// Somebody has gone through the checklist and is about to run the reverse migration.
    Confirmed,
}

impl DatabaseChange {
    pub(super) const fn verb(&self) -> &'static str {
        match self {
            Self::Schema(_) => "schema_set",
            Self::Phase { .. } => "schema_phase",
            Self::Rehearsed { .. } => "schema_rehearsed",
            Self::Confirmed => "schema_reverse_confirmed",
        }
    }
}

/// What whoever registers a version says about it and the database. What is not said is as it was, as
/// long as it is the same version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// Which schemas it can live with.
    pub schema: Option<SchemaSupport>,
    /// What its release does to the database.
    pub migration: Option<Migration>,
}
