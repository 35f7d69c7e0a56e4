//! Feature flags in force, worked out from the file and what is recorded on top of it.

pub(crate) mod look;

use std::collections::BTreeSet;
use std::sync::Arc;

use switchback_config::model::{Config, Name};
use switchback_proxy::flag::{FlagTable, LiveFlag};

use crate::state::{State, flag_in_force};

/// All flags in force. What has not changed is taken over, with its counts.
pub(crate) fn table(config: &Config, state: &State, before: &FlagTable) -> FlagTable {
    let trust = before.trust.clone();
    if state.stable_only {
        // What was turned off is not known any more.
        trust.doubt();
    }
    let names: BTreeSet<&Name> = config.flags.keys().chain(state.flags.keys()).collect();
    let live = names.into_iter().filter_map(|name| {
        let flag = flag_in_force(config.flags.get(name), state.flags.get(name))?;
        let live = match before.flags.get(name) {
            Some(same) if same.flag == flag => same.clone(),
            Some(other) => Arc::new(other.with(flag)),
            None => Arc::new(LiveFlag::new(flag)),
        };
        Some((name.clone(), live))
    });
    FlagTable {
        flags: live.collect(),
        trust,
    }
}
