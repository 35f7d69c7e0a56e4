//! The database behind a service, as far as a proxy has to know it: which schema versions a deployed
//! version can live with, and what has to be true before the old form is removed.
//!
//! Schema versions are numbers that only rise. switchback never looks into a database; it is told where
//! it is, and compares.

use serde::{Deserialize, Serialize};

use crate::units::TimeSpan;

/// Which versions of the database schema a deployed version can live with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaSupport {
    /// It works on a database with one of these.
    pub reads: Vec<u32>,
    /// It writes data in the form of this one; always one of `reads`.
    pub writes: u32,
}

impl SchemaSupport {
    /// Why a version cannot live with a database at this schema; nothing if it can.
    #[must_use]
    pub fn objection(&self, schema: u32) -> Option<String> {
        if !self.reads.contains(&schema) {
            let reads: Vec<String> = self.reads.iter().map(u32::to_string).collect();
            return Some(format!("it reads schema {} only", reads.join(", ")));
        }
        (self.writes > schema).then(|| format!("it writes schema {}", self.writes))
    }

    /// What makes no sense about it, and what would.
    #[must_use]
    pub fn fault(&self) -> Option<(&'static str, String)> {
        if self.reads.is_empty() {
            let reason = "a version that reads no schema can live with no database";
            return Some((reason, "list the schema versions it works on".into()));
        }
        if self.reads.len() > crate::defaults::SCHEMA_READS_MAX {
            let most = crate::defaults::SCHEMA_READS_MAX;
            let reason = "no version works on so many schemas";
            return Some((reason, format!("list at most {most}")));
        }
        if !self.reads.contains(&self.writes) {
            let reason = "a version has to read what it writes";
            return Some((reason, format!("add {} to reads", self.writes)));
        }
        None
    }
}

/// What the release of a version does to the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Migration {
    /// Nothing.
    #[default]
    None,
    /// It adds what older versions do not mind.
    Expand,
    /// It removes what only older versions need.
    Contract,
    /// It loses data that an older version would miss: nobody rolls it back unasked.
    Destructive,
}

impl Migration {
    /// Whether the database stays as it is.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}

/// What the operator of a service says about its database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Database {
    /// The contract may begin when no request has gone for so long to a version that could not live
    /// after it.
    pub contract_after: TimeSpan,
    /// The command of the reverse migration. It is printed, never run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reverse_command: Option<String>,
    /// What to look at before it is run, beside what always has to be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checklist: Vec<String>,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            contract_after: TimeSpan(crate::defaults::CONTRACT_AFTER),
            reverse_command: None,
            checklist: Vec::new(),
        }
    }
}

impl Database {
    /// Whether nobody has said anything about it.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
