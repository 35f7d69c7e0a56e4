//! What is recorded about the database behind a service: which schema it has, how far a change of it
//! has come, and who has rehearsed or confirmed the way back.
//!
//! All of this is said by people and their jobs. It is a fact about something that switchback does not
//! see, so it is no override of the file, and `restore` does not bring it back.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use switchback_config::model::SchemaSupport;
use utoipa::ToSchema;

/// What is known of the database behind a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DatabaseState {
    /// Where it is; none: nobody has said, and nothing is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<CurrentSchema>,
    /// The change of its schema that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Release>,
    /// When the reverse migration was last rehearsed elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsed: Option<Rehearsal>,
    /// Who last confirmed the checklist before running the reverse migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<Mark>,
}

/// The schema that the database has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CurrentSchema {
    /// Its version.
    pub version: u32,
    /// Who said so.
    #[serde(flatten)]
    #[schema(inline)]
    pub mark: Mark,
}

/// A change of the schema that is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = SchemaRelease)]
pub struct Release {
    /// How far it has come.
    pub phase: Phase,
    /// The schema that the contract leaves, once it has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaves: Option<u32>,
    /// Who said so.
    #[serde(flatten)]
    #[schema(inline)]
    pub mark: Mark,
}

/// A rehearsal of the reverse migration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Rehearsal {
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_s: Option<u64>,
    /// Who said so.
    #[serde(flatten)]
    #[schema(inline)]
    pub mark: Mark,
}

/// Who said something, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Mark {
    /// Name of the token.
    pub by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Why, in their words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How far a change of the schema has come. Before the contract everything can be rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ReleasePhase)]
pub enum Phase {
    /// The new form is added beside the old one; both are written.
    Expand,
    /// Old data is brought into the new form.
    Migrate,
    /// The new form is read.
    SwitchReads,
    /// The old form is removed. Versions that need it cannot come back.
    Contract,
}

impl Phase {
    /// All of them, in their order.
    pub const ALL: [Self; 4] = [
        Self::Expand,
        Self::Migrate,
        Self::SwitchReads,
        Self::Contract,
    ];

    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expand => "expand",
            Self::Migrate => "migrate",
            Self::SwitchReads => "switch_reads",
            Self::Contract => "contract",
        }
    }

    /// The one that may follow.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self {
            Self::Expand => Some(Self::Migrate),
            Self::Migrate => Some(Self::SwitchReads),
            Self::SwitchReads => Some(Self::Contract),
            Self::Contract => None,
        }
    }
}

/// Why a version must not get traffic for the sake of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It cannot live with the schema there is.
    Incompatible {
        /// That schema.
        schema: u32,
        /// Why.
        why: String,
    },
    /// What it needs is being removed, or nobody can tell that it is not.
    ContractBegun {
        /// The schema that will be left.
        leaves: u32,
        /// Why it could not live with it.
        why: String,
    },
}

impl DatabaseState {
    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The schema that the database has.
    #[must_use]
    pub fn version(&self) -> Option<u32> {
        self.schema.as_ref().map(|schema| schema.version)
    }

    /// The phase of the change that is under way.
    #[must_use]
    pub fn phase(&self) -> Option<Phase> {
        self.release.as_ref().map(|release| release.phase)
    }

    /// The schema that a contract leaves: the one that is being made, or the next one.
    #[must_use]
    pub fn contract_leaves(&self) -> Option<u32> {
        let leaves = self.release.as_ref().and_then(|release| release.leaves);
        leaves.or_else(|| self.version()?.checked_add(1))
    }

    /// Why a version that says this about itself must not get traffic. One that says nothing may, until
    /// a contract begins: then nobody could tell whether it still works.
    #[must_use]
    pub fn unfit(&self, support: Option<&SchemaSupport>) -> Option<Unfit> {
        if let Some(schema) = self.version()
            && let Some(why) = support.and_then(|support| support.objection(schema))
        {
            return Some(Unfit::Incompatible { schema, why });
        }
        if self.phase() != Some(Phase::Contract) {
            return None;
        }
        let leaves = self.contract_leaves()?;
        let why = objection(support, leaves)?;
        Some(Unfit::ContractBegun { leaves, why })
    }
}

/// Why nobody can say that a version lives with a schema.
#[must_use]
pub fn objection(support: Option<&SchemaSupport>, schema: u32) -> Option<String> {
    match support {
        Some(support) => support.objection(schema),
        None => Some("it does not say which schemas it can live with".into()),
    }
}
