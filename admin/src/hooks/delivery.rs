//! One message to one hook: what is told, how often that was tried, and what came of it.
//!
//! This is what the outbox keeps. It names its hook and does not contain it: URL, program and secrets
//! are those of the file at the time of each attempt.

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use switchback_config::model::{HookEvent, Name};
use utoipa::ToSchema;

/// Something that happened, as CloudEvents 1.0 writes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CloudEvent {
    /// Version of CloudEvents.
    pub specversion: String,
    /// The same for every attempt and every receiver: who has seen it may forget it.
    pub id: String,
    /// `/services/shop`.
    pub source: String,
    /// `switchback.rollback`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it happened.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// The backend it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Name>,
    /// `application/json`.
    pub datacontenttype: String,
    /// What happened.
    pub data: Happening,
}

/// What happened to a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Happening {
    /// The service.
    pub service: Name,
    /// The word of the file: `rollback`.
    #[schema(value_type = String, example = "rollback")]
    pub event: HookEvent,
    /// The kind of the event stream: `rolled_back`.
    pub kind: String,
    /// In words.
    pub message: String,
    /// The backend it is about; of several, the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Name>,
    /// Its label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The state after it, if it changed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Who brought it about.
    pub by: String,
    /// Why, in their words or the judge's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of rollbacks: `operator`, `judge`, `rule` or `unhealthy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The split after it.
    pub weights: IndexMap<Name, u32>,
    /// The stable backend after it.
    pub stable: Name,
}

impl CloudEvent {
    /// A new event. It gets its id here, once.
    #[must_use]
    pub fn new(at: Timestamp, data: Happening) -> Self {
        Self {
            specversion: "1.0".into(),
            id: uuid::Uuid::now_v7().to_string(),
            source: format!("/services/{}", data.service),
            kind: format!("switchback.{}", data.event.word()),
            time: at,
            subject: data.backend.clone(),
            datacontenttype: "application/json".into(),
            data,
        }
    }
}

/// A message on its way to a hook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Delivery {
    /// Its place in the outbox, given by the store. A dead letter that is sent again gets a new one.
    pub id: u64,
    /// The hook, among those of the event's service.
    pub hook: Name,
    /// What is told.
    pub event: CloudEvent,
    /// How often it was tried.
    pub attempts: u32,
    /// Not before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next: Option<Timestamp>,
    /// What came of the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Attempt>,
}

impl Delivery {
    /// A delivery that was not tried yet.
    #[must_use]
    pub const fn new(hook: Name, event: CloudEvent) -> Self {
        Self {
            id: 0,
            hook,
            event,
            attempts: 0,
            next: None,
            last: None,
        }
    }
}

/// One attempt and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attempt {
    /// When it ended.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// How long it took.
    pub took_ms: u64,
    /// Whether the hook has it now.
    pub delivered: bool,
    /// Status, exit code, or what went wrong.
    pub result: String,
    /// The end of what it answered or printed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}
