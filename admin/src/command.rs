//! What can be asked of the controller, and how it may refuse.
//!
//! Operators, the judge, the file and the resolver all enter by this door. Each command carries who
//! asked and why, since every change is recorded with it.

use std::sync::Arc;

use indexmap::IndexMap;
use serde::Serialize;
use switchback_config::model::{Config, Name};
use switchback_config::units::Endpoint;

/// A change of runtime state.
#[derive(Clone, Debug)]
pub enum Command {
    /// Sets the whole split of a service.
    SetWeights {
        /// The service.
        service: Name,
        /// Share of each of its backends.
        weights: IndexMap<Name, u32>,
    },
    /// Takes all weight from canaries, or goes back to the previous stable.
    Rollback {
        /// The service.
        service: Name,
        /// Even if the target has no healthy endpoint.
        force: bool,
        /// Ends open streams of the losing backends.
        cut: bool,
    },
    /// The judge's rollback: takes the weight of one failing backend.
    Condemn {
        /// The service.
        service: Name,
        /// The backend that failed.
        backend: Name,
        /// The label it was judged under; nothing happens if it has another one by now.
        version: String,
        /// What brought it about.
        cause: Cause,
        /// The verdict in one sentence.
        sentence: String,
    },
    /// Makes another backend stable, at once.
    Switch {
        /// The service.
        service: Name,
        /// The new stable.
        to: Name,
        /// Even if it is not known to be healthy.
        force: bool,
    },
    /// Keeps a version out.
    Block {
        /// The service.
        service: Name,
        /// The backend it runs on.
        backend: Name,
        /// Even if stable has no healthy endpoint.
        force: bool,
    },
    /// Allows a version again; moves no traffic.
    Unblock {
        /// The service.
        service: Name,
        /// The backend it runs on.
        backend: Name,
    },
    /// Registers what is deployed on a backend.
    SetBackend {
        /// The service.
        service: Name,
        /// The backend.
        backend: Name,
        /// The new label.
        version: String,
        /// The new addresses.
        endpoints: Vec<Endpoint>,
        /// Even if it has weight.
        force: bool,
    },
    /// Takes over a new file.
    Reload {
        /// Its contents, valid.
        config: Arc<Config>,
    },
    /// Leaves the stable-only state after a loss of the recorded state.
    Acknowledge,
}

/// What brought a rollback about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A person or their tools.
    Operator,
    /// The judge compared it.
    Judge,
    /// A plain rule.
    Rule,
    /// It has no healthy endpoint.
    Unhealthy,
}

impl Cause {
    /// As written in events and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Judge => "judge",
            Self::Rule => "rule",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// Who asked, and under which conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Name of the token, or `switchback` itself.
    pub by: String,
    /// `api`, `judge`, `file`.
    pub via: &'static str,
    /// Why, in their words.
    pub reason: Option<String>,
    /// Only if the recorded state is still this one.
    pub if_revision: Option<u64>,
    /// Only tell what would change.
    pub dry_run: bool,
}

impl Asked {
    /// Asked by the process itself.
    #[must_use]
    pub fn by_itself(via: &'static str, reason: Option<String>) -> Self {
        Self {
            by: "switchback".into(),
            via,
            reason,
            if_revision: None,
            dry_run: false,
        }
    }
}

impl Command {
    /// Whether it is served first and applied before it is persisted.
    #[must_use]
    pub const fn is_urgent(&self) -> bool {
        matches!(
            self,
            Self::Rollback { .. } | Self::Condemn { .. } | Self::Block { .. }
        )
    }

    /// The verb, as recorded.
    #[must_use]
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::SetWeights { .. } => "weights",
            Self::Rollback { .. } | Self::Condemn { .. } => "rollback",
            Self::Switch { .. } => "switch",
            Self::Block { .. } => "block",
            Self::Unblock { .. } => "unblock",
            Self::SetBackend { .. } => "backend_set",
            Self::Reload { .. } => "reload",
            Self::Acknowledge => "acknowledge",
        }
    }

    /// The service it is about, if it is about one.
    #[must_use]
    pub const fn service(&self) -> Option<&Name> {
        match self {
            Self::SetWeights { service, .. }
            | Self::Rollback { service, .. }
            | Self::Condemn { service, .. }
            | Self::Switch { service, .. }
            | Self::Block { service, .. }
            | Self::Unblock { service, .. }
            | Self::SetBackend { service, .. } => Some(service),
            Self::Reload { .. } | Self::Acknowledge => None,
        }
    }
}

/// Why a command was not carried out. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such service.
    #[error("service {0:?} is not configured")]
    UnknownService(Name),
    /// No such backend.
    #[error("service {service:?} has no backend {backend:?}; it has {known}")]
    UnknownBackend {
        /// The service.
        service: Name,
        /// What was asked for.
        backend: Name,
        /// What there is.
        known: String,
    },
    /// The table of weights makes no sense.
    #[error("{0}")]
    InvalidWeights(String),
    /// The version is blocked.
    #[error(
        "version {version:?} of backend {backend:?} is blocked since {since}: {reason}; unblock it or deploy a new version"
    )]
    Blocked {
        /// The backend.
        backend: Name,
        /// Its label.
        version: String,
        /// Since when.
        since: String,
        /// Why.
        reason: String,
    },
    /// Traffic would go to a backend without a healthy endpoint.
    #[error("backend {backend:?} has no healthy endpoint; force overrides")]
    TargetUnhealthy {
        /// The backend that would get the traffic.
        backend: Name,
    },
    /// Stable cannot be blocked while nothing can take its traffic.
    #[error(
        "backend {backend:?} is stable and no previous backend can take its traffic; switch to another one first"
    )]
    NoTarget {
        /// The stable backend.
        backend: Name,
    },
    /// Its version cannot change while it serves.
    #[error("backend {backend:?} has weight {weight}; set its weight to 0 first, or force")]
    InUse {
        /// The backend.
        backend: Name,
        /// Its weight.
        weight: u32,
    },
    /// An endpoint may not be set over the API.
    #[error("endpoint {endpoint}: {reason}")]
    EndpointRefused {
        /// The endpoint.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// The state is not the one the caller saw.
    #[error("the current revision is {current}, not {expected}")]
    RevisionMismatch {
        /// What the caller expected.
        expected: u64,
        /// What is.
        current: u64,
    },
    /// A rollback or block came in between, and this would undo it.
    #[error("a rollback or block of this service came in between; look at its state and ask again")]
    Overtaken,
    /// It could not be persisted.
    #[error("the change could not be persisted: {0}; nothing has changed")]
    NotDurable(String),
    /// Too many commands wait.
    #[error("too many changes are waiting; try again")]
    Busy,
    /// The process is ending.
    #[error("switchback is shutting down")]
    Stopping,
}

impl Refusal {
    /// Stable code of the refusal.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownService(_) => "unknown_service",
            Self::UnknownBackend { .. } => "unknown_backend",
            Self::InvalidWeights(_) => "invalid_weights",
            Self::Blocked { .. } => "blocked",
            Self::TargetUnhealthy { .. } => "target_unhealthy",
            Self::NoTarget { .. } => "no_target",
            Self::InUse { .. } => "in_use",
            Self::EndpointRefused { .. } => "endpoint_refused",
            Self::RevisionMismatch { .. } => "revision_mismatch",
            Self::Overtaken => "overtaken",
            Self::NotDurable(_) => "not_durable",
            Self::Busy => "busy",
            Self::Stopping => "stopping",
        }
    }

    /// The HTTP status it is answered with.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::UnknownService(_) | Self::UnknownBackend { .. } => 404,
            Self::InvalidWeights(_) | Self::EndpointRefused { .. } => 422,
            Self::Blocked { .. }
            | Self::TargetUnhealthy { .. }
            | Self::NoTarget { .. }
            | Self::InUse { .. }
            | Self::Overtaken => 409,
            Self::RevisionMismatch { .. } => 412,
            Self::NotDurable(_) => 507,
            Self::Busy | Self::Stopping => 503,
        }
    }
}
