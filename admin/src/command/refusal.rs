//! How a command may be refused: why, with which code, and what would help.
//!
//! Codes are for programs and never change; the texts are for people and name the repair.

use switchback_config::model::{Name, SchemaSupport};

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
    /// No such flag.
    #[error("there is no flag {0:?}")]
    UnknownFlag(Name),
    /// The change of a flag makes no sense.
    #[error("{0}")]
    InvalidFlag(String),
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
    /// Traffic would go to endpoints of which nothing is known yet.
    #[error(
        "nothing is known of the endpoints that backend {backend:?} would have as version {version:?}; register them while it has no weight (switchback backend set), so that they are probed, or force"
    )]
    TargetUnknown {
        /// The backend that would get the traffic.
        backend: Name,
        /// Its label then.
        version: String,
    },
    /// The version could not work with the database as it is.
    #[error(
        "version {version:?} of backend {backend:?} cannot live with schema {schema} of the database: {why}; deploy a version that can, or force"
    )]
    SchemaIncompatible {
        /// The backend that would get the traffic.
        backend: Name,
        /// Its label.
        version: String,
        /// The schema there is.
        schema: u32,
        /// Why.
        why: String,
    },
    /// What the version needs of the database is being removed.
    #[error(
        "the contract has begun, which leaves schema {leaves}, and version {version:?} of backend {backend:?} could not live with it: {why}; go forward with a fix, or force"
    )]
    ContractBegun {
        /// The backend that would get the traffic.
        backend: Name,
        /// Its label.
        version: String,
        /// The schema that will be left.
        leaves: u32,
        /// Why.
        why: String,
    },
    /// The old form of the database must not be removed yet.
    #[error("the contract must not begin yet: {}; force overrides", .reasons.join("; "))]
    ContractGateClosed {
        /// What is against it.
        reasons: Vec<String>,
    },
    /// A change of the schema goes step by step.
    #[error("{0}")]
    InvalidPhase(String),
    /// What is said about a version and the database makes no sense.
    #[error("schema reads {reads:?}, writes {writes}: {reason}; {repair}")]
    InvalidSchema {
        /// What it says it reads.
        reads: Vec<u32>,
        /// What it says it writes.
        writes: u32,
        /// What is wrong with it.
        reason: &'static str,
        /// What would not be.
        repair: String,
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
    /// The plan of a rollout makes no sense here.
    #[error("{0}")]
    InvalidRollout(String),
    /// One is enough.
    #[error(
        "a rollout of {canary:?} (version {version:?}) is under way; promote it, roll it back, or wait"
    )]
    RolloutRunning {
        /// Its canary.
        canary: Name,
        /// Its label.
        version: String,
    },
    /// The caller's key belongs to another rollout.
    #[error(
        "this Idempotency-Key was used for the rollout of {canary:?} (version {version:?}); use another one"
    )]
    KeyReused {
        /// Its canary.
        canary: Name,
        /// Its label.
        version: String,
    },
    /// There is none to act on.
    #[error("no rollout of service {0:?} is under way")]
    NoRollout(Name),
    /// The judge does not say that it may go on.
    #[error("the judge holds: {reason}; force overrides")]
    JudgeHolds {
        /// Why.
        reason: String,
    },
    /// Only what was stable before may skip the steps.
    #[error(
        "version {version:?} was not stable here before, so it cannot skip the steps of a rollout"
    )]
    NotProven {
        /// The label.
        version: String,
    },
    /// A hook does not agree with a switch, or did not answer.
    #[error("hook {hook:?} does not let another backend become stable: {reason}; force skips it")]
    BeforeSwitchFailed {
        /// The hook.
        hook: Name,
        /// Why.
        reason: String,
        /// What it answered or printed.
        output: String,
    },
    /// They are being asked for another switch.
    #[error("hooks of service {0:?} are being asked about another switch; wait for it")]
    BeforeSwitchRunning(Name),
    /// They were not asked.
    #[error("hooks want to be asked before another backend of service {0:?} becomes stable")]
    BeforeSwitchDue(Name),
    /// One drill at a time.
    #[error("a drill is under way; wait for it")]
    DrillRunning,
    /// It cannot take place.
    #[error("the drill cannot take place: {reason}")]
    DrillImpossible {
        /// Why.
        reason: String,
    },
    /// No such runbook for this service.
    #[error("there is no runbook {runbook:?} for this service; there are: {known}")]
    UnknownRunbook {
        /// What was asked for.
        runbook: Name,
        /// What there is.
        known: String,
    },
    /// What is asked of a run makes no sense here.
    #[error("{0}")]
    InvalidRunbook(String),
    /// One is enough.
    #[error("runbook {0:?} is being carried out for this service; finish or stop it first")]
    RunbookRunning(Name),
    /// There is none to act on.
    #[error("no runbook is being carried out for service {0:?}")]
    NoRunbook(Name),
    /// It has gone on.
    #[error("the runbook is at step {current}, not {asked}; look at it and tick again")]
    NotThisStep {
        /// What the caller has seen.
        asked: usize,
        /// What is.
        current: usize,
    },
    /// The recorded state was lost.
    #[error("the recorded state was lost; acknowledge that first")]
    StableOnly,
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
    /// Another process is taking over and will do it.
    #[error("another process is taking over from this one; ask again in a moment")]
    HandingOver,
    /// The other instances cannot be asked.
    #[error(
        "etcd cannot be reached, so the other instances would not know of it; rollbacks and blocks work all the same"
    )]
    ClusterAway,
    /// Nobody knows whether it was done.
    #[error(
        "etcd was lost while the change was being written; whether it holds shows as soon as etcd is back"
    )]
    ClusterUnknown,
    /// It does not fit into etcd.
    #[error(
        "the change takes {0} bytes, which is more than etcd takes; change fewer services at a time"
    )]
    ClusterTooLong(usize),
    /// Too many commands wait.
    #[error("too many changes are waiting; try again")]
    Busy,
    /// The process is ending.
    #[error("switchback is shutting down")]
    Stopping,
}

impl Refusal {
    /// Whatever a version says about the database, if that makes no sense.
    #[must_use]
    pub(crate) fn of_schema(support: &SchemaSupport) -> Option<Self> {
        let (reason, repair) = support.fault()?;
        Some(Self::InvalidSchema {
            reads: support.reads.clone(),
            writes: support.writes,
            reason,
            repair,
        })
    }

    /// Stable code of the refusal.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownService(_) => "unknown_service",
            Self::UnknownBackend { .. } => "unknown_backend",
            Self::UnknownFlag(_) => "unknown_flag",
            Self::InvalidFlag(_) => "invalid_flag",
            Self::InvalidWeights(_) => "invalid_weights",
            Self::Blocked { .. } => "blocked",
            Self::TargetUnhealthy { .. } | Self::TargetUnknown { .. } => "target_unhealthy",
            Self::NoTarget { .. } => "no_target",
            Self::InUse { .. } => "in_use",
            Self::EndpointRefused { .. } => "endpoint_refused",
            Self::SchemaIncompatible { .. } => "schema_incompatible",
            Self::ContractBegun { .. } => "contract_begun",
            Self::ContractGateClosed { .. } => "contract_gate_closed",
            Self::InvalidPhase(_) => "invalid_phase",
            Self::InvalidSchema { .. } => "invalid_schema",
            Self::InvalidRollout(_) => "invalid_rollout",
            Self::RolloutRunning { .. } => "rollout_running",
            Self::KeyReused { .. } => "idempotency_key_reused",
            Self::NoRollout(_) => "no_rollout",
            Self::JudgeHolds { .. } => "judge_holds",
            Self::NotProven { .. } => "not_proven",
            Self::BeforeSwitchFailed { .. } => "before_switch_failed",
            Self::BeforeSwitchRunning(_) => "before_switch_running",
            Self::BeforeSwitchDue(_) => "before_switch_due",
            Self::DrillRunning => "drill_running",
            Self::DrillImpossible { .. } => "drill_impossible",
            Self::UnknownRunbook { .. } => "unknown_runbook",
            Self::InvalidRunbook(_) => "invalid_runbook",
            Self::RunbookRunning(_) => "runbook_running",
            Self::NoRunbook(_) => "no_runbook",
            Self::NotThisStep { .. } => "not_this_step",
            Self::StableOnly => "stable_only",
            Self::RevisionMismatch { .. } => "revision_mismatch",
            Self::Overtaken => "overtaken",
            Self::NotDurable(_) => "not_durable",
            Self::HandingOver => "handing_over",
            Self::ClusterAway => "cluster_unreachable",
            Self::ClusterUnknown => "cluster_unknown",
            Self::ClusterTooLong(_) => "cluster_too_long",
            Self::Busy => "busy",
            Self::Stopping => "stopping",
        }
    }

    /// The HTTP status it is answered with.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::UnknownService(_)
            | Self::UnknownBackend { .. }
            | Self::UnknownFlag(_)
            | Self::UnknownRunbook { .. } => 404,
            Self::InvalidFlag(_)
            | Self::InvalidWeights(_)
            | Self::InvalidRollout(_)
            | Self::InvalidRunbook(_)
            | Self::InvalidSchema { .. }
            | Self::EndpointRefused { .. } => 422,
            Self::Blocked { .. }
            | Self::TargetUnhealthy { .. }
            | Self::TargetUnknown { .. }
            | Self::NoTarget { .. }
            | Self::SchemaIncompatible { .. }
            | Self::ContractBegun { .. }
            | Self::ContractGateClosed { .. }
            | Self::InvalidPhase(_)
            | Self::InUse { .. }
            | Self::RolloutRunning { .. }
            | Self::KeyReused { .. }
            | Self::NoRollout(_)
            | Self::JudgeHolds { .. }
            | Self::NotProven { .. }
            | Self::BeforeSwitchFailed { .. }
            | Self::BeforeSwitchRunning(_)
            | Self::BeforeSwitchDue(_)
            | Self::DrillRunning
            | Self::DrillImpossible { .. }
            | Self::RunbookRunning(_)
            | Self::NoRunbook(_)
            | Self::NotThisStep { .. }
            | Self::StableOnly
            | Self::Overtaken => 409,
            Self::RevisionMismatch { .. } => 412,
            Self::NotDurable(_) => 507,
            Self::ClusterTooLong(_) => 413,
            Self::HandingOver | Self::ClusterAway | Self::Busy | Self::Stopping => 503,
            Self::ClusterUnknown => 504,
        }
    }
}
