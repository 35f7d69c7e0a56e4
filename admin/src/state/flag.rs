//! The recorded state of a feature flag: what it was set to, and whether it was turned off.
//!
//! The two are apart because they end differently. What was set ends when the file says something else,
//! like every override. Off is like a block: it beats the file and everything that is set, until
//! somebody turns the flag on again.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use switchback_config::model::Flag;
use utoipa::ToSchema;

use crate::api::views::schema;

/// The recorded state of one flag.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FlagState {
    /// What it was set to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<FlagSet>,
    /// It was turned off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off: Option<FlagOff>,
}

impl FlagState {
    /// Whether there is nothing to record.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.set.is_none() && self.off.is_none()
    }
}

/// A flag that was set over the API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FlagSet {
    /// The flag.
    #[schema(value_type = schema::Flag)]
    pub value: Flag,
    /// What the file said then, if it named the flag; once it says something else, the file wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Flag>)]
    pub file: Option<Flag>,
    /// Who set it.
    pub by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Why, in their words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Why a flag is off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FlagOff {
    /// Who turned it off: a person's token, or the judge.
    pub by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A flag as it is in force: as set, else as in the file; not enabled while it is turned off.
#[must_use]
pub fn flag_in_force(file: Option<&Flag>, state: Option<&FlagState>) -> Option<Flag> {
    let set = state.and_then(|state| state.set.as_ref());
    let mut flag = set.map(|set| &set.value).or(file)?.clone();
    flag.enabled &= state.is_none_or(|state| state.off.is_none());
    Some(flag)
}
