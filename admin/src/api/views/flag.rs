//! Flags as they are in force, beside the file and what was set.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;
use serde_json::Value;
use switchback_config::model::{Flag, Name};
use utoipa::ToSchema;

use super::{Followed, schema};
use crate::control::Published;
use crate::history::difference::Difference;
use crate::state::{FlagOff, FlagSet};

/// All flags.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Flags {
    /// The state.
    pub(in crate::api) revision: u64,
    /// Whether kill switches say what they should; otherwise all of them are off.
    pub(in crate::api) kill_switches_believed: bool,
    /// The flags, by name.
    pub(in crate::api) flags: Vec<FlagView>,
}

/// One flag.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = FlagView)]
pub(crate) struct FlagView {
    /// Its name.
    pub(in crate::api) flag: Name,
    /// Whether it is in use; otherwise everybody gets its variant `off`.
    enabled: bool,
    /// Whether it fails closed.
    kill_switch: bool,
    /// It is a kill switch, and its state cannot be read: it is off.
    closed: bool,
    /// Who turned it off, until it is turned on again.
    off: Option<FlagOff>,
    /// What the file says.
    #[schema(value_type = Option<schema::Flag>)]
    file: Option<Flag>,
    /// What was set at run time.
    #[serde(rename = "override")]
    overridden: Option<FlagSet>,
    /// What is in force.
    #[schema(value_type = schema::Flag)]
    effective: Flag,
    /// How file and what is in force disagree, and what would end it, in words.
    conflict: Option<String>,
    /// How often applications got each variant since the start.
    answers: BTreeMap<String, u64>,
}

/// What became of a flag.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = FlagWritten)]
pub(crate) struct FlagWritten {
    /// The flag.
    pub(in crate::api) flag: Name,
    /// Whether anything is different now, or would be.
    pub(in crate::api) changed: bool,
    /// It was a dry run: nothing has changed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::api) dry_run: bool,
    /// The state after it.
    pub(in crate::api) revision: u64,
    /// Whether it is in use; none: there is no such flag any more.
    pub(in crate::api) enabled: Option<bool>,
    /// What changed, or would.
    pub(in crate::api) differences: Vec<Difference>,
    /// Microseconds until every worker followed; applications get the new answer from then on at the
    /// latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) applied_in_us: Option<u64>,
    /// Whether it survives a crash; otherwise it is persisted as soon as the disk allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) durable: Option<bool>,
    /// Whether the other instances follow.
    #[serde(flatten)]
    #[schema(inline)]
    pub(in crate::api) followed: Followed,
}

/// What a flag says to one who asks.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = FlagAnswer)]
pub(crate) struct FlagAnswer {
    /// The flag.
    pub(in crate::api) flag: Name,
    /// Name of the variant.
    pub(in crate::api) variant: String,
    /// Its value.
    pub(in crate::api) value: Value,
    /// Why, in the words of OpenFeature.
    #[schema(example = "SPLIT")]
    pub(in crate::api) reason: &'static str,
}

/// All flags.
pub(crate) fn flags(published: &Published) -> Flags {
    let names = published.flags.flags.keys();
    Flags {
        revision: published.state.revision,
        kill_switches_believed: published.flags.trust.age(Instant::now()).is_some(),
        flags: names.filter_map(|name| flag(published, name)).collect(),
    }
}

/// One flag; none if there is no such flag.
pub(crate) fn flag(published: &Published, name: &Name) -> Option<FlagView> {
    let live = published.flags.flags.get(name)?;
    let state = published.state.flags.get(name);
    let state = state.cloned().unwrap_or_default();
    let file = published.config.flags.get(name);
    let flag = &live.flag;
    let variants = flag.variants.keys();
    let age = published.flags.trust.age(Instant::now());
    let closed = flag
        .age_max()
        .is_some_and(|most| age.is_none_or(|age| age > most));
    Some(FlagView {
        flag: name.clone(),
        enabled: flag.enabled,
        kill_switch: flag.kill_switch,
        closed,
        conflict: conflict(name, file, &state),
        off: state.off,
        file: file.cloned(),
        overridden: state.set,
        effective: flag.clone(),
        answers: variants.map(|v| (v.clone(), live.served(v))).collect(),
    })
}

/// How file and what is in force disagree.
fn conflict(name: &Name, file: Option<&Flag>, state: &crate::state::FlagState) -> Option<String> {
    let why = |reason: &Option<String>| match reason {
        Some(reason) => format!(" ({reason})"),
        None => String::new(),
    };
    if let Some(off) = &state.off {
        let (by, at, why) = (&off.by, off.at, why(&off.reason));
        return Some(format!(
            "{name} is off, turned off by {by} at {at:.0}{why}; it stays off whatever the file says, until: switchback flag on {name}"
        ));
    }
    let set = state.set.as_ref()?;
    let (by, at, why) = (&set.by, set.at, why(&set.reason));
    Some(match file {
        Some(_) => format!(
            "{name} was set by {by} at {at:.0}{why}; the file says something else; edit flags.{name} in the file, or: switchback flag unset {name}"
        ),
        None => format!(
            "{name} was made by {by} at {at:.0}{why}; the file does not name it; add flags.{name} to the file, or: switchback flag unset {name}"
        ),
    })
}
