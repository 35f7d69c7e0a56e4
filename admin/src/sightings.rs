//! Which versions still get requests: the last time of each, so that nobody removes from a database what
//! somebody needs.
//!
//! Once a second the counters of all versions are compared with what they were, those of versions that have
//! left the snapshot included. Requests of any kind count: testers and copies use the database as well.
//! The times outlive the process. What is on disk is never too early: it is written ahead, and written anew
//! before the time is reached. How long anybody has looked at all is kept with it, since nobody can speak
//! for the time before.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use switchback_config::defaults::{
    SIGHTING_INTERVAL, SIGHTING_SAVED, SIGHTING_SLACK, SIGHTINGS_KEPT, USES_REMEMBERED,
};
use switchback_config::model::{Name, SchemaSupport};
use switchback_proxy::stats::BackendStats;
use tokio::task::JoinHandle;

use crate::control::{Controls, Published};
use crate::drill::shadow::is_shadow;
use crate::state::later;
use crate::store::Store;

/// The last requests of all versions. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sightings(Arc<Mutex<Kept>>);

/// When a version last got a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sighting {
    /// No request came later.
    pub(crate) at: Timestamp,
    /// What the version said about the database then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) schema: Option<SchemaSupport>,
}

/// What is on disk: the last requests by service and version, and since when anybody has looked.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Record {
    pub(crate) since: Option<Timestamp>,
    pub(crate) versions: BTreeMap<Name, BTreeMap<String, Sighting>>,
}

#[derive(Debug, Default)]
struct Kept {
    /// What the disk says; its times are ahead.
    disk: Record,
    /// Since when anybody has looked; none until the disk was asked.
    since: Option<Timestamp>,
    /// What was seen in this process.
    fresh: BTreeMap<Key, Sighting>,
    /// What was counted of each version.
    counted: HashMap<Key, u64>,
}

/// A service and the label of a version.
type Key = (Name, String);

/// What is known of the last requests of one service.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// Since when anybody has looked; none: nobody knows what was before.
    pub(crate) since: Option<Timestamp>,
    /// By version.
    pub(crate) versions: BTreeMap<String, Sighting>,
}

/// Looks until the process ends.
pub(crate) async fn run(controls: Controls, store: Store, sightings: Sightings) {
    let mut ticks = tokio::time::interval(SIGHTING_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut loaded = false;
    let mut saving: Option<JoinHandle<Option<Record>>> = None;
    loop {
        ticks.tick().await;
        let now = controls.published().clock.now();
        if !loaded && let Ok(record) = store.sightings().await {
            sightings.load(record, now);
            loaded = true;
        }
        sightings.look(&controls.published(), now);
        controls.timings.save(&store);
        // A disk that hangs keeps nobody from looking.
        if let Some(done) = saving.take_if(|saving| saving.is_finished())
            && let Ok(Some(written)) = done.await
        {
            sightings.note_saved(written);
        }
        if loaded
            && saving.is_none()
            && let Some(due) = sightings.due()
        {
            let store = store.clone();
            saving = Some(tokio::spawn(async move {
                let written = store.save_sightings(due.clone()).await;
                written.is_ok().then_some(due)
            }));
        }
    }
}

impl Sightings {
    /// What is known of a service.
    pub(crate) fn of(&self, service: &str) -> Seen {
        let kept = self.lock();
        let mut seen = Seen {
            since: kept.since,
            versions: kept.disk.versions.get(service).cloned().unwrap_or_default(),
        };
        let fresh = kept.fresh.iter().filter(|((of, _), _)| of == service);
        for ((_, version), sighting) in fresh {
            seen.versions.insert(version.clone(), sighting.clone());
        }
        seen
    }

    /// Whether all of it survives a crash.
    pub(crate) fn are_saved(&self) -> bool {
        self.due().is_none()
    }

    /// Looks and writes once more, before the process ends.
    pub(crate) async fn save_last(&self, controls: &Controls, store: &Store) {
        let published = controls.published();
        self.look(&published, published.clock.now());
        controls.timings.save(store);
        let is_loaded = self.lock().since.is_some();
        if let Some(due) = self.due().filter(|_| is_loaded) {
            let _ = store.save_sightings(due).await;
        }
    }

    /// Takes over what was seen before this process.
    fn load(&self, before: Record, now: Timestamp) {
        let mut kept = self.lock();
        kept.since = Some(before.since.unwrap_or(now));
        kept.disk = before;
    }

    /// Compares all counters with what they were.
    fn look(&self, published: &Published, now: Timestamp) {
        let mut kept = self.lock();
        kept.forget(published, now);
        let mut found: BTreeMap<Key, Count> = BTreeMap::new();
        let services = published.snapshot.services.iter();
        for live in services.filter(|live| !is_shadow(&live.name)) {
            let status = published.services.get(&*live.name);
            for backend in &live.backends {
                let deployed = status.and_then(|s| s.effective.backends.get(&*backend.name));
                let same = deployed.filter(|deployed| *deployed.version == *backend.version);
                let schema = same.and_then(|deployed| deployed.schema.clone());
                let key = (live.name.to_string(), backend.version.to_string());
                found
                    .entry(key)
                    .or_default()
                    .add(counts(&backend.stats), schema);
            }
        }
        let gone = published.retired.iter();
        for gone in gone.filter(|gone| !is_shadow(&gone.service)) {
            let key = (gone.service.to_string(), gone.version.to_string());
            found.entry(key).or_default().add(counts(&gone.stats), None);
        }
        let before = std::mem::take(&mut kept.counted);
        for (key, count) in found {
            kept.look_at(&before, key, count, now);
        }
    }

    /// What has to be written, if the disk knows too little or a time on it is about to be too early.
    fn due(&self) -> Option<Record> {
        let kept = self.lock();
        let margin = SIGHTING_SLACK.saturating_sub(SIGHTING_SAVED);
        let is_behind = |((service, version), sighting): &(&Key, &Sighting)| {
            let known = kept.disk.versions.get(service);
            let known = known.and_then(|versions| versions.get(version));
            known.is_none_or(|known| known.at < later(sighting.at, margin))
        };
        let mut behind = kept.fresh.iter().filter(is_behind).peekable();
        if behind.peek().is_none() && kept.disk.since == kept.since {
            return None;
        }
        let mut ahead = kept.disk.clone();
        ahead.since = kept.since;
        for ((service, version), sighting) in behind {
            let versions = ahead.versions.entry(service.clone()).or_default();
            let sighting = Sighting {
                at: later(sighting.at, SIGHTING_SLACK),
                schema: sighting.schema.clone(),
            };
            versions.insert(version.clone(), sighting);
            while versions.len() > SIGHTINGS_KEPT {
                let oldest = versions.iter().min_by_key(|(_, sighting)| sighting.at);
                let oldest = oldest
                    .map(|(version, _)| version.clone())
                    .unwrap_or_default();
                versions.remove(&oldest);
            }
        }
        Some(ahead)
    }

    fn note_saved(&self, written: Record) {
        let mut kept = self.lock();
        kept.disk = written;
        // What has left is on disk, and comes back by itself if it is seen again.
        let Kept { fresh, counted, .. } = &mut *kept;
        fresh.retain(|key, _| counted.contains_key(key));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Services that are in no file any more are not remembered for ever.
    fn forget(&mut self, published: &Published, now: Timestamp) {
        self.disk.versions.retain(|service, versions| {
            let is_young = |sighting: &Sighting| later(sighting.at, USES_REMEMBERED) > now;
            published.services.contains_key(service) || versions.values().any(is_young)
        });
    }

    fn look_at(&mut self, before: &HashMap<Key, u64>, key: Key, count: Count, now: Timestamp) {
        let Count {
            begun,
            in_flight,
            schema,
        } = count;
        let known = before.get(&key).copied().unwrap_or(0);
        self.counted.insert(key.clone(), begun);
        if begun == 0 || (begun == known && in_flight == 0) {
            return;
        }
        let last = self.fresh.get(&key).map_or(now, |last| last.at.max(now));
        let schema = schema.or_else(|| self.fresh.get(&key)?.schema.clone());
        self.fresh.insert(key, Sighting { at: last, schema });
    }
}

/// Requests of a backend that have begun, and those of them that have not ended.
fn counts(stats: &BackendStats) -> (u64, u64) {
    (stats.begun_of_any_kind(), stats.in_flight())
}

/// What was counted of a version, on all backends that carry or carried its label.
#[derive(Debug, Default)]
struct Count {
    /// Requests that have begun.
    begun: u64,
    /// Those of them that have not ended.
    in_flight: u64,
    schema: Option<SchemaSupport>,
}

impl Count {
    fn add(&mut self, (begun, in_flight): (u64, u64), schema: Option<SchemaSupport>) {
        self.begun += begun;
        self.in_flight += in_flight;
        self.schema = self.schema.take().or(schema);
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
    }

    fn key() -> Key {
        ("shop".into(), "41".into())
    }

    fn record(until: i64) -> Record {
        let sighting = Sighting {
            at: at(until),
            schema: None,
        };
        Record {
            since: Some(at(0)),
            versions: [("shop".into(), [("41".into(), sighting)].into())].into(),
        }
    }

    fn see(sightings: &Sightings, seconds: i64) {
        let sighting = Sighting {
            at: at(seconds),
            schema: None,
        };
        let mut kept = sightings.lock();
        kept.fresh.insert(key(), sighting);
        kept.counted.insert(key(), 1);
    }

    /// What the disk would say after a crash.
    fn saved(sightings: &Sightings) -> Option<i64> {
        let due = sightings.due()?;
        sightings.note_saved(due.clone());
        Some(due.versions["shop"]["41"].at.as_second())
    }

    #[test]
    fn what_is_on_disk_is_never_too_early() {
        let sightings = Sightings::default();
        sightings.load(Record::default(), at(0));
        assert!(sightings.due().is_some(), "since when anybody looks");
        see(&sightings, 10);
        assert_eq!(saved(&sightings), Some(130));
        for second in 11..=70 {
            see(&sightings, second);
            assert_eq!(saved(&sightings), None, "the disk is ahead at {second}");
        }
        see(&sightings, 71);
        assert_eq!(saved(&sightings), Some(191));
        assert_eq!(sightings.of("shop").versions["41"].at, at(71), "exact here");
    }

    #[test]
    fn what_a_former_process_saw_stays_as_it_was_written() {
        let sightings = Sightings::default();
        sightings.load(record(500), at(10_000));
        let seen = sightings.of("shop");
        assert_eq!((seen.since, seen.versions["41"].at), (Some(at(0)), at(500)));
        assert_eq!(sightings.due(), None, "nothing is new");
    }

    #[test]
    fn label_on_two_backends_is_one_version() {
        let sightings = Sightings::default();
        let look = |seconds: i64| {
            let mut count = Count::default();
            count.add((1, 0), None);
            count.add((2, 0), None);
            let mut kept = sightings.lock();
            let before = std::mem::take(&mut kept.counted);
            kept.look_at(&before, key(), count, at(seconds));
            let last = kept.fresh.get(&key());
            last.map(|sighting| sighting.at.as_second())
        };
        assert_eq!(look(5), Some(5));
        assert_eq!(look(6), Some(5), "nobody has asked since");
    }

    #[test]
    fn version_is_seen_when_requests_begin_and_not_otherwise() {
        let sightings = Sightings::default();
        let look = |before: u64, (begun, in_flight): (u64, u64), seconds: i64| {
            let before = HashMap::from([(key(), before)]);
            let count = Count {
                begun,
                in_flight,
                schema: None,
            };
            let mut kept = sightings.lock();
            kept.look_at(&before, key(), count, at(seconds));
            let last = kept.fresh.get(&key());
            last.map(|sighting| sighting.at.as_second())
        };
        assert_eq!(look(0, (0, 0), 5), None, "nobody has asked yet");
        assert_eq!(look(0, (1, 0), 6), Some(6));
        assert_eq!(look(1, (1, 0), 7), Some(6), "nothing new");
        assert_eq!(look(1, (2, 1), 8), Some(8));
        assert_eq!(look(2, (2, 1), 9), Some(9), "it is still there");
        assert_eq!(look(2, (2, 0), 10), Some(9));
    }
}
