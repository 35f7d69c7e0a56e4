//! Feature flags in force, worked out from the file and what is recorded on top of it.

pub(crate) mod look;

use std::collections::BTreeSet;
use std::sync::Arc;

use switchback_config::model::{Config, Name};
use switchback_proxy::flag::{FlagTable, LiveFlag};

use crate::state::{State, flag_in_force};

/// The flags in force after some were changed. The others are taken over without a look at them.
pub(crate) fn changed<'a>(
    config: &Config,
    state: &State,
    before: &FlagTable,
    names: impl Iterator<Item = &'a Name>,
) -> FlagTable {
    let mut flags = before.flags.clone();
    for name in names {
        match live(config, state, before, name) {
            Some(live) => drop(flags.insert(name.clone(), live)),
            None => drop(flags.remove(name)),
        }
    }
    let trust = before.trust.clone();
    FlagTable { flags, trust }
}

/// A flag in force; what has not changed is taken over, with its counts.
fn live(config: &Config, state: &State, before: &FlagTable, name: &Name) -> Option<Arc<LiveFlag>> {
    let flag = flag_in_force(config.flags.get(name), state.flags.get(name))?;
    Some(match before.flags.get(name) {
        Some(same) if same.flag == flag => same.clone(),
        Some(other) => Arc::new(other.with(flag)),
        None => Arc::new(LiveFlag::new(flag)),
    })
}

/// All flags in force.
pub(crate) fn table(config: &Config, state: &State, before: &FlagTable) -> FlagTable {
    let trust = before.trust.clone();
    if state.stable_only {
        // What was turned off is not known any more.
        trust.doubt();
    }
    let names: BTreeSet<&Name> = config.flags.keys().chain(state.flags.keys()).collect();
    let names = names.into_iter();
    let found = names.filter_map(|name| Some((name.clone(), live(config, state, before, name)?)));
    FlagTable {
        flags: found.collect(),
        trust,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use switchback_proxy::flag::Trust;

    use super::*;
    use crate::state::{FlagOff, FlagState};

    #[test]
    fn flag_that_changes_leaves_the_others_what_they_are() {
        let config = crate::testing::config(
            "version: 1
listeners: {web: {address: \"127.0.0.1:0\"}}
routes: [{service: a}]
services: {a: {backends: {b: {endpoints: [\"http://127.0.0.1:1\"]}}}}
flags: {one: {default: true}, two: {default: true}}
",
        );
        let empty = FlagTable::empty(Trust::new(Instant::now()));
        let before = table(&config, &State::default(), &empty);
        let off = FlagOff {
            by: "ann".into(),
            at: jiff::Timestamp::UNIX_EPOCH,
            reason: None,
        };
        let (set, off) = (None, Some(off));
        let flags = [("one".to_owned(), FlagState { set, off })];
        let state = State {
            flags: Arc::new(flags.into()),
            ..State::default()
        };
        let one = "one".to_owned();
        let after = changed(&config, &state, &before, [&one].into_iter());
        assert!(!after.flags["one"].flag.enabled);
        assert!(Arc::ptr_eq(&after.flags["two"], &before.flags["two"]));
        let all = table(&config, &state, &before);
        assert_eq!(all.flags.keys().collect::<Vec<_>>(), ["one", "two"]);
        assert!(!all.flags["one"].flag.enabled);
        // One that is in no file and nowhere set is gone.
        let gone = "three".to_owned();
        let after = changed(&config, &state, &after, [&gone].into_iter());
        assert_eq!(after.flags.len(), 2);
    }
}
