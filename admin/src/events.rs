//! What happened, for those who watch: a bounded ring, and a stream of what comes.
//!
//! Ids grow over restarts too, so a client that reconnects with the last id it saw misses nothing
//! that is still kept.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use switchback_config::defaults::EVENTS_KEPT;
use switchback_config::model::Name;
use tokio::sync::broadcast;
use utoipa::ToSchema;

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
    /// The state after it, if it changed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// Where events are put and read. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Events {
    kept: Arc<Mutex<Kept>>,
    stream: broadcast::Sender<Event>,
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
        let message = message.into();
        log(kind, service, by, &message);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let event = Event {
            id: kept.next,
            at: Timestamp::now(),
            kind,
            service: service.map(str::to_owned),
            by: by.into(),
            message,
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

    /// What is kept after an id, and everything that comes. A reader that falls behind by more than
    /// the ring holds is told so by the stream.
    #[must_use]
    pub fn follow(&self, after: Option<u64>) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = self.stream.subscribe();
        let missed = kept
            .ring
            .iter()
            .filter(|event| after.is_none_or(|id| event.id > id));
        (missed.cloned().collect(), stream)
    }
}

/// Kinds that somebody should look at.
const ALARMING: [&str; 10] = [
    "rolled_back",
    "rollback_held",
    "judge_hold",
    "judge_notify",
    "stable_failing",
    "rollout_ended",
    "reload_failed",
    "state_lost",
    "conflict",
    "apply_unconfirmed",
];

fn log(kind: &str, service: Option<&str>, by: &str, message: &str) {
    if ALARMING.contains(&kind) {
        tracing::warn!(kind, service, by, "{message}");
    } else {
        tracing::info!(kind, service, by, "{message}");
    }
}
