//! What all instances have counted of watched versions, for the one that judges for all of them.
//!
//! Each instance tells its totals, and which ones they are (their epoch), so that a message that is lost or comes
//! twice, or after a session that was lost, changes nothing. Who leads
//! adds what has come since to its own counters ([`JudgeCells::record_elsewhere`]): its judges then see the whole
//! fleet, and nothing else about them is different.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use switchback_config::model::Name;
use switchback_proxy::snapshot::Snapshot;
use switchback_proxy::stats::{JudgeCells, Tally};

use crate::builder::find;
use crate::control::Published;

/// Totals of one backend of one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Count {
    /// What runs on it.
    version: String,
    /// Totals of another epoch begin at 0.
    epoch: u64,
    /// Requests, and those of them that failed.
    errors: (u64, u64),
    /// Requests, and those of them that were slow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    times: Option<(u64, u64)>,
}

/// Totals of one instance, by service and backend.
pub(crate) type Counts = BTreeMap<Name, BTreeMap<Name, Count>>;

/// Reads the totals of this instance.
#[derive(Debug)]
pub(crate) struct Counter {
    epochs: BTreeMap<(Name, Name), (Arc<JudgeCells>, u64)>,
    last: u64,
}

impl Counter {
    /// Epochs are numbered from `first` on: another one for each process, and room for all that it will see.
    pub(crate) const fn new(first: u64) -> Self {
        Self {
            epochs: BTreeMap::new(),
            last: first,
        }
    }

    /// Of every service that has a version under judgement.
    pub(crate) fn read(&mut self, published: &Published) -> Counts {
        let at = published.clock.now();
        let mut counts = Counts::new();
        let mut epochs = BTreeMap::new();
        for (name, status) in &published.services {
            let effective = &status.effective;
            let mut others = effective.backends.keys();
            let has_canary =
                others.any(|backend| *backend != effective.stable && effective.weight(backend) > 0);
            if !has_canary && effective.trial_at(at).is_none() {
                continue;
            }
            let Some(service) = find(&published.snapshot, name) else {
                continue;
            };
            let of = counts.entry(name.clone()).or_default();
            for (backend, cells) in service.backends.iter().zip(&service.judged) {
                let key = (name.clone(), backend.name.to_string());
                let epoch = self.epoch(&key, cells);
                let count = Count {
                    version: backend.version.to_string(),
                    epoch,
                    errors: cells.errors().here(),
                    times: cells.times().map(Tally::here),
                };
                of.insert(key.1.clone(), count);
                epochs.insert(key, (cells.clone(), epoch));
            }
        }
        self.epochs = epochs;
        counts
    }

    fn epoch(&mut self, key: &(Name, Name), cells: &Arc<JudgeCells>) -> u64 {
        match self.epochs.get(key) {
            Some((known, epoch)) if Arc::ptr_eq(known, cells) => *epoch,
            _ => {
                self.last += 1;
                self.last
            }
        }
    }
}

/// What others have told so far.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    seen: BTreeMap<Name, Counts>,
}

impl Pool {
    /// Takes note of what was counted before this instance led: it was somebody else's to judge.
    pub(crate) fn begin(&mut self, instance: Name, counts: Counts) {
        self.seen.insert(instance, counts);
    }

    /// Adds what an instance has counted since it last told.
    pub(crate) fn add(&mut self, instance: Name, counts: Counts, snapshot: &Snapshot) {
        let before = self.seen.remove(&instance).unwrap_or_default();
        for (service, backends) in &counts {
            let Some(live) = find(snapshot, service) else {
                continue;
            };
            for (backend, count) in backends {
                let known = before.get(service).and_then(|of| of.get(backend));
                let known = known.filter(|known| known.epoch == count.epoch);
                let mut here = live.backends.iter().zip(&live.judged);
                let same = here
                    .find(|(here, _)| *here.name == **backend && *here.version == *count.version);
                let Some((_, cells)) = same else { continue };
                let since = |now: (u64, u64), before: Option<(u64, u64)>| {
                    let (requests, bad) = before.unwrap_or_default();
                    (narrow(now.0, requests), narrow(now.1, bad))
                };
                let errors = since(count.errors, known.map(|known| known.errors));
                let times = count
                    .times
                    .map(|now| since(now, known.and_then(|known| known.times)));
                cells.record_elsewhere(errors, times);
            }
        }
        self.seen.insert(instance, counts);
    }
}

/// A difference of totals; more than fits is not counted in 100 ms.
fn narrow(now: u64, before: u64) -> u32 {
    u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use switchback_proxy::outcome::Finding;
    use switchback_proxy::stats::Alarm;

    use super::*;

    #[test]
    fn epochs_go_on_over_sessions_and_begin_anew_with_other_cells() {
        let cells = |_| Arc::new(JudgeCells::new(1, None::<Arc<Alarm>>, None));
        let (one, other) = (cells(()), cells(()));
        one.record(0, Finding::Failure, None, std::time::Duration::ZERO);
        let key = ("shop".to_owned(), "green".to_owned());
        let mut counter = Counter::new(7);
        let first = counter.epoch(&key, &one);
        counter.epochs.insert(key.clone(), (one.clone(), first));
        assert_eq!(counter.epoch(&key, &one), first, "however often it is read");
        assert_ne!(counter.epoch(&key, &other), first);
        // Another process with the same name.
        assert_ne!(Counter::new(7_000).epoch(&key, &one), first);
    }
}
