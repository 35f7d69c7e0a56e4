//! What happened, for those who watch: a bounded ring, and a stream of what comes.
//!
//! Ids count up without holes, and grow over restarts too, so a client that reconnects with the last id
//! it saw misses nothing that is still kept, and is told if something is not.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use switchback_config::defaults::{EVENT_READERS, EVENTS_KEPT};
use switchback_config::model::Name;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use utoipa::ToSchema;

use crate::drill::shadow::{is_shadow, original};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Event {
    /// Grows with every event.
    pub id: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Stable kind: `rolled_back`, `weights_changed`, `reload_failed` and so on.
    pub kind: &'static str,
    /// The service it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Name>,
    /// Who brought it about.
    pub by: String,
    /// In words.
    pub message: String,
    /// The backend, where it is about one version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<Name>,
    /// The label of that version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The state after it, if it changed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// Where events are put and read. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Events {
    kept: Arc<Mutex<Kept>>,
    stream: broadcast::Sender<Event>,
    readers: Arc<Semaphore>,
}

/// Something that happens now.
struct Happened<'a> {
    kind: &'static str,
    service: Option<&'a str>,
    by: &'a str,
    message: String,
    /// Backend and label.
    version: Option<(&'a str, &'a str)>,
    revision: Option<u64>,
}

/// What a reader gets.
#[derive(Debug)]
pub struct Reading {
    /// What is kept of what the reader has not seen; first, if something is missing, an event of the kind
    /// `gap` that says so.
    pub kept: Vec<Event>,
    /// What comes, without a hole between. Who falls behind by more than the ring holds is told so.
    pub coming: broadcast::Receiver<Event>,
}

#[derive(Debug)]
struct Kept {
    next: u64,
    ring: VecDeque<Event>,
}

impl Events {
    /// An empty ring, whose ids are above those of any earlier process.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        let next = u64::try_from(now.as_millisecond()).unwrap_or(0) << 10;
        let ring = VecDeque::with_capacity(EVENTS_KEPT);
        Self {
            kept: Arc::new(Mutex::new(Kept { next, ring })),
            stream: broadcast::channel(EVENTS_KEPT).0,
            readers: Arc::new(Semaphore::new(EVENT_READERS)),
        }
    }

    /// Adds an event; also logs it.
    pub fn emit(
        &self,
        kind: &'static str,
        service: Option<&str>,
        by: &str,
        message: impl Into<String>,
        revision: Option<u64>,
    ) {
        let happened = Happened {
            kind,
            service,
            by,
            message: message.into(),
            version: None,
            revision,
        };
        self.put(happened);
    }

    /// Adds an event about a version of a backend.
    pub(crate) fn emit_about(
        &self,
        kind: &'static str,
        service: &str,
        version: (&str, &str),
        message: String,
    ) {
        self.put(Happened {
            kind,
            service: Some(service),
            by: "switchback",
            message,
            version: Some(version),
            revision: None,
        });
    }

    fn put(&self, happened: Happened<'_>) {
        let Happened {
            kind,
            service,
            by,
            message,
            version,
            revision,
        } = happened;
        let (kind, service) = match service {
            // Whoever waits for a rollback is not woken up by its rehearsal.
            Some(shadow) if is_shadow(shadow) => ("drill", Some(original(shadow))),
            service => (kind, service),
        };
        log(kind, service, by, &message);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let event = Event {
            id: kept.next,
            at: Timestamp::now(),
            kind,
            service: service.map(str::to_owned),
            by: by.into(),
            message,
            backend: version.map(|(backend, _)| backend.to_owned()),
            version: version.map(|(_, version)| version.to_owned()),
            revision,
        };
        kept.next += 1;
        if kept.ring.len() == EVENTS_KEPT {
            kept.ring.pop_front();
        }
        kept.ring.push_back(event.clone());
        // Nobody may be listening. Sent under the lock, so that ids arrive in order.
        let _ = self.stream.send(event);
    }

    /// A place for somebody who stays to read; none if there are too many already.
    #[must_use]
    pub fn reader(&self) -> Option<OwnedSemaphorePermit> {
        self.readers.clone().try_acquire_owned().ok()
    }

    /// What is kept after an id, and everything that comes.
    #[must_use]
    pub fn follow(&self, after: Option<u64>) -> Reading {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let coming = self.stream.subscribe();
        let gap = after.and_then(|after| kept.gap(after));
        let after = after.filter(|_| gap.is_none());
        let missed = kept.ring.iter();
        let missed = missed.filter(|event| after.is_none_or(|id| event.id > id));
        Reading {
            kept: gap.into_iter().chain(missed.cloned()).collect(),
            coming,
        }
    }
}

impl Kept {
    /// What is said to a reader for whom something is missing. Its id is the one before the first that is
    /// kept, so that it is not said again to who resumes after it.
    fn gap(&self, after: u64) -> Option<Event> {
        let first = self.ring.front().map_or(self.next, |event| event.id);
        if (first..=self.next).contains(&after.saturating_add(1)) {
            return None;
        }
        let message = format!(
            "what happened after event {after} is not all kept: there were more than {EVENTS_KEPT} events \
             since, or switchback was started again; history and audit have all changes"
        );
        Some(Event {
            id: first.saturating_sub(1),
            at: Timestamp::now(),
            kind: "gap",
            service: None,
            by: "switchback".into(),
            message,
            backend: None,
            version: None,
            revision: None,
        })
    }
}

/// Kinds that somebody should look at.
const ALARMING: &[&str] = &[
    "rolled_back",
    "rollback_held",
    "rollback_did_not_help",
    "drill_failed",
    "runbook_escalated",
    "runbook_overdue",
    "judge_hold",
    "judge_notify",
    "rule_fired",
    "stable_failing",
    "signal_missing",
    "rollout_ended",
    "reload_failed",
    "route_removed",
    "state_lost",
    "state_unavailable",
    "hook_message_lost",
    "conflict",
    "schema_conflict",
    "apply_unconfirmed",
];

fn log(kind: &str, service: Option<&str>, by: &str, message: &str) {
    if ALARMING.contains(&kind) {
        tracing::warn!(kind, service, by, "{message}");
    } else {
        tracing::info!(kind, service, by, "{message}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(count: usize) -> Events {
        let events = Events::new(Timestamp::UNIX_EPOCH);
        for number in 0..count {
            events.emit("test", None, "test", number.to_string(), None);
        }
        events
    }

    /// What a reader gets at once, as kind and message.
    fn kept(events: &Events, after: Option<u64>) -> Vec<(&'static str, String)> {
        let kept = events.follow(after).kept.into_iter();
        kept.map(|event| (event.kind, event.message)).collect()
    }

    #[test]
    fn reader_gets_what_came_after_the_last_id_and_nothing_twice() {
        let events = events(3);
        let message = |number: u64| ("test", number.to_string());
        assert_eq!(kept(&events, None), [message(0), message(1), message(2)]);
        assert_eq!(kept(&events, Some(0)), [message(1), message(2)]);
        assert!(kept(&events, Some(2)).is_empty());
        let mut reading = events.follow(Some(2));
        events.emit("test", None, "test", "3", None);
        assert_eq!(reading.coming.try_recv().unwrap().id, 3);
    }

    #[test]
    fn ring_that_has_moved_on_is_told_as_a_gap_on_both_sides_of_its_end() {
        let events = events(EVENTS_KEPT + 5);
        // The ring begins with event 5.
        assert_eq!(kept(&events, Some(4)).len(), EVENTS_KEPT);
        let after_gap = kept(&events, Some(3));
        assert_eq!((after_gap.len(), after_gap[0].0), (EVENTS_KEPT + 1, "gap"));
        let gap = events.follow(Some(3)).kept[0].id;
        assert_eq!(
            kept(&events, Some(gap)).len(),
            EVENTS_KEPT,
            "it is told once"
        );
    }

    #[test]
    fn ids_of_another_life_of_the_process_are_a_gap() {
        let events = Events::new(Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(1));
        assert_eq!(kept(&events, Some(7))[0].0, "gap", "before it");
        assert_eq!(kept(&events, Some(u64::MAX))[0].0, "gap", "after it");
        assert!(kept(&events, None).is_empty());
        let gap = events.follow(Some(7)).kept[0].id;
        assert!(kept(&events, Some(gap)).is_empty());
    }

    #[test]
    fn reader_that_falls_behind_is_told_and_can_resume() {
        let events = events(1);
        let mut reading = events.follow(None);
        for _ in 0..=EVENTS_KEPT {
            events.emit("test", None, "test", "", None);
        }
        let lagged = reading.coming.try_recv();
        assert!(matches!(
            lagged,
            Err(broadcast::error::TryRecvError::Lagged(1))
        ));
        assert_eq!(kept(&events, Some(0))[0].0, "gap");
    }

    #[test]
    fn places_for_readers_are_bounded() {
        let events = events(0);
        let places: Vec<_> = (0..EVENT_READERS)
            .map(|_| events.reader().unwrap())
            .collect();
        assert!(events.reader().is_none());
        drop(places);
        assert!(events.reader().is_some());
    }
}
