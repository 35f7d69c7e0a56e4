//! Looks at the recorded state again and again: kill switches are believed only while it is readable.
//!
//! What is in memory is right whatever becomes of the disk. But a process that cannot read its state is
//! in trouble of a kind that nobody has thought of, and a kill switch is for exactly that; so it fails
//! closed, as soon as the state is seen to be damaged, or when it could not be looked at for too long.

use std::time::{Duration, Instant};

use switchback_config::defaults::FLAG_LOOK_INTERVAL;
use switchback_proxy::flag::FlagTable;

use crate::control::Controls;
use crate::events::Events;
use crate::store::Store;

/// Looks until the process ends.
pub(crate) async fn run(store: Store, controls: Controls, events: Events) {
    let mut lookout = Lookout {
        store,
        controls,
        events,
        is_closed: false,
    };
    let mut ticks = tokio::time::interval(FLAG_LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        lookout.look().await;
    }
}

struct Lookout {
    store: Store,
    controls: Controls,
    events: Events,
    /// It was told that kill switches are off.
    is_closed: bool,
}

impl Lookout {
    async fn look(&mut self) {
        // Nothing is known about the time after it was begun.
        let begun = Instant::now();
        let (trust, is_lost, matters) = {
            let published = self.controls.published();
            let matters = has_kill_switch(&published.flags);
            let trust = published.flags.trust.clone();
            (trust, published.state.stable_only, matters)
        };
        let is_doubted = is_lost || self.is_closed || trust.age(begun).is_none();
        if !matters && !is_doubted {
            // Nobody goes by it; whoever is the first begins as at the start of the process.
            trust.confirm(begun);
            return;
        }
        let found = match is_lost {
            true => Some(Err("the recorded state was lost".to_owned())),
            false => self.found().await,
        };
        match found {
            // What is known gets older.
            None => self.tell_if_overdue(),
            Some(Ok(())) => {
                trust.confirm(begun);
                if std::mem::take(&mut self.is_closed) {
                    let message =
                        "the recorded state can be read again: kill switches say what they should";
                    self.emit("kill_switches_back", message.to_owned());
                }
            }
            Some(Err(reason)) => {
                trust.doubt();
                if has_kill_switch(&self.controls.published().flags) {
                    self.tell_closed(format!("all kill switches are off: {reason}"));
                }
            }
        }
    }

    /// What the store says. A disk that hangs may take its time to answer, but not to be told of.
    async fn found(&mut self) -> Option<Result<(), String>> {
        let store = self.store.clone();
        let mut look = std::pin::pin!(store.look());
        loop {
            match tokio::time::timeout(FLAG_LOOK_INTERVAL, look.as_mut()).await {
                Ok(found) => return found,
                Err(_) => self.tell_if_overdue(),
            }
        }
    }

    fn tell_if_overdue(&mut self) {
        let published = self.controls.published();
        if let Some(age) = overdue(&published.flags, Instant::now()) {
            let seconds = age.as_secs();
            self.tell_closed(format!(
                "kill switches are off: the recorded state could not be looked at for {seconds} s"
            ));
        }
    }

    fn tell_closed(&mut self, message: String) {
        if !std::mem::replace(&mut self.is_closed, true) {
            self.emit("kill_switches_closed", message);
        }
    }

    fn emit(&self, kind: &'static str, message: String) {
        self.events.emit(kind, None, "switchback", message, None);
    }
}

fn has_kill_switch(table: &FlagTable) -> bool {
    table.flags.values().any(|live| live.flag.kill_switch)
}

/// How old the last look is, if that is too old for a kill switch.
fn overdue(table: &FlagTable, now: Instant) -> Option<Duration> {
    let age = table.trust.age(now)?;
    let mut most = table.flags.values().filter_map(|live| live.flag.age_max());
    most.any(|most| age > most).then_some(age)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use switchback_config::parse_flag;
    use switchback_proxy::flag::{LiveFlag, Trust};

    use super::*;

    #[test]
    fn look_is_overdue_once_it_is_too_old_for_one_kill_switch() {
        let start = Instant::now();
        let mut table = FlagTable::empty(Trust::new(start));
        let add = |table: &mut FlagTable, name: &str, text: &str| {
            let flag = LiveFlag::new(parse_flag(text).expect("a flag"));
            table.flags.insert(name.into(), Arc::new(flag));
        };
        let after = |seconds| start + Duration::from_secs(seconds);
        add(&mut table, "plain", "{}");
        assert_eq!(overdue(&table, after(1_000)), None);
        assert!(!has_kill_switch(&table));
        add(&mut table, "slow", "{kill_switch: true}");
        add(&mut table, "fast", "{kill_switch: true, max_age: 10s}");
        assert!(has_kill_switch(&table));
        assert_eq!(overdue(&table, after(10)), None);
        let age = Duration::from_secs(11);
        assert_eq!(overdue(&table, after(11)), Some(age));
        table.trust.confirm(after(5));
        assert_eq!(overdue(&table, after(11)), None);
    }
}
