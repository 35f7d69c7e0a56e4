//! Looks at the recorded state again and again: kill switches are believed only while it is readable.
//!
//! What is in memory is right whatever becomes of the disk. But a process that cannot read its state is
//! in trouble of a kind that nobody has thought of, and a kill switch is for exactly that; so it fails
//! closed, as soon as the state is seen to be damaged, or when it could not be looked at for too long.

use std::time::Instant;

use switchback_config::defaults::FLAG_LOOK_INTERVAL;

use crate::control::Controls;
use crate::events::Events;
use crate::store::Store;

/// Looks until the process ends.
pub(crate) async fn run(store: Store, controls: Controls, events: Events) {
    let trust = controls.published().flags.trust.clone();
    let mut ticks = tokio::time::interval(FLAG_LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut is_closed = false;
    loop {
        ticks.tick().await;
        // Nothing is known about the time after it was begun.
        let begun = Instant::now();
        let found = match controls.published().state.stable_only {
            true => Some(Err("the recorded state was lost".to_owned())),
            false => store.look().await,
        };
        let published = controls.published();
        let mut flags = published.flags.flags.values();
        let matters = flags.any(|live| live.flag.kill_switch);
        match found {
            // Nobody could look: what is known gets older.
            None => {}
            Some(Ok(())) => {
                trust.confirm(begun);
                if std::mem::take(&mut is_closed) {
                    let message =
                        "the recorded state can be read again: kill switches say what they should";
                    events.emit("kill_switches_back", None, "switchback", message, None);
                }
            }
            Some(Err(reason)) => {
                trust.doubt();
                if matters && !std::mem::replace(&mut is_closed, true) {
                    let message = format!("all kill switches are off: {reason}");
                    events.emit("kill_switches_closed", None, "switchback", message, None);
                }
            }
        }
    }
}
