//! What can be asked of the controller.
//!
//! Operators, the judge, the file and the resolver all enter by this door. Each command carries who
//! asked and why, since every change is recorded with it.

mod database;
mod drill;
mod refusal;
mod runbook;
mod urgent;

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use switchback_config::model::{Bake, Config, Flag, Name, Step};
use switchback_config::units::{Endpoint, Percent, TimeSpan};
use utoipa::ToSchema;

use crate::history::Settled;
use crate::state::Block;
pub use database::{DatabaseChange, Declared};
pub use drill::{DrillAct, DrillCommand};
pub use refusal::Refusal;
pub use runbook::{RunbookAct, RunbookCommand, RunbookStart, StepTurn};
pub(crate) use urgent::{Author, Urgent};

/// A change of runtime state.
#[derive(Clone, Debug)]
pub enum Command {
    /// Sets the whole split of a service.
    SetWeights {
        /// The service.
        service: Name,
        /// Share of each of its backends.
        weights: IndexMap<Name, u32>,
        /// They end after this time, unless they are set again.
        lease: Option<TimeSpan>,
    },
    /// Takes all weight from canaries, or goes back to the previous stable.
    Rollback {
        /// The service.
        service: Name,
        /// Even if the target has no healthy endpoint, or cannot live with the database.
        force: bool,
        /// Ends open streams of the losing backends.
        cut: bool,
    },
    /// The judge's rollback: takes the weight of one failing backend.
    Condemn {
        /// Which version.
        failing: Failing,
        /// What brought it about.
        cause: Cause,
        /// Even if the target has no healthy endpoint: the process that decided it knew better.
        force: bool,
    },
    /// The judge's block of a version without weight, which failed the copies it got.
    Reject {
        /// Which version.
        failing: Failing,
    },
    /// A block that was decided on another state than this one: kept, and whatever still runs the version
    /// loses its weight.
    Unite {
        /// The service.
        service: Name,
        /// The blocked version.
        version: String,
        /// The block as it was decided.
        block: Box<Block>,
        /// Even if the target has no healthy endpoint: somebody insisted where it was decided.
        force: bool,
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
        /// What is said about it and the database.
        declared: Declared,
        /// Even if it has weight.
        force: bool,
    },
    /// Begins to give a canary more and more.
    StartRollout(Box<StartRollout>),
    /// Goes on to the next stage of a rollout now.
    Promote {
        /// The service.
        service: Name,
        /// To the end: the canary becomes stable.
        full: bool,
        /// Even if the judge holds.
        force: bool,
    },
    /// Keeps a rollout from advancing.
    Pause {
        /// The service.
        service: Name,
    },
    /// Lets a paused rollout advance again.
    Resume {
        /// The service.
        service: Name,
    },
    /// Does what is due by the clock: advances or gives up a rollout, ends a lease.
    Progress {
        /// The service.
        service: Name,
    },
    /// Brings back what was in force after an earlier revision.
    Restore {
        /// Its number.
        revision: u64,
        /// What was in force then, by service.
        services: BTreeMap<Name, Settled>,
        /// The flags of that time.
        flags: BTreeMap<Name, Flag>,
        /// Even if a stable has no healthy endpoint.
        force: bool,
    },
    /// Records something about the database behind a service.
    Database {
        /// The service.
        service: Name,
        /// What.
        change: DatabaseChange,
    },
    /// Changes a feature flag.
    ChangeFlag {
        /// The flag.
        flag: Name,
        /// How.
        change: FlagChange,
    },
    /// Begins or ends the rehearsal of a rollback.
    Drill(Box<DrillCommand>),
    /// Begins, moves or ends the run of a runbook; moves no traffic.
    Runbook(Box<RunbookCommand>),
    /// Takes over a new file.
    Reload {
        /// Its contents, valid.
        config: Arc<Config>,
    },
    /// Leaves the stable-only state after a loss of the recorded state.
    Acknowledge,
}

/// A version that fails, and why it is thought so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// The service.
    pub service: Name,
    /// The backend that failed.
    pub backend: Name,
    /// The label it was judged under; nothing happens if it has another one by now.
    pub version: String,
    /// The verdict in one sentence.
    pub sentence: String,
}

/// A change of a feature flag.
#[derive(Clone, Debug, PartialEq)]
pub enum FlagChange {
    /// Off, whatever the file says, until it is turned on again.
    Off,
    /// The same as decided by the process before, whose file may name a flag that is not there any more.
    KeepOff,
    /// On again.
    On,
    /// Another share of keys for each variant.
    Shares(IndexMap<Name, Percent>),
    /// Another flag altogether, or a new one.
    Set(Box<Flag>),
    /// As the file says; what the file does not name is gone.
    Unset,
}

/// A rollout to begin. What is not given comes from the file.
#[derive(Clone, Debug, Default)]
pub struct StartRollout {
    /// The service.
    pub service: Name,
    /// The backend that grows; may be left out where there is only one besides stable.
    pub canary: Option<Name>,
    /// Other steps than the file's.
    pub steps: Option<Vec<Step>>,
    /// Another bake than the file's; `Some(None)`: none.
    pub bake: Option<Option<Bake>>,
    /// Skips the steps, for a version that was stable before.
    pub fast: bool,
    /// Even if the canary is not known to be healthy.
    pub force: bool,
    /// The caller's key: the same again is no second rollout.
    pub key: Option<String>,
}

/// What brought a rollback about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
    /// The cause with this word; what is not known was somebody's decision.
    #[must_use]
    pub fn of(word: &str) -> Self {
        let known = [Self::Judge, Self::Rule, Self::Unhealthy];
        let cause = known.into_iter().find(|cause| cause.as_str() == word);
        cause.unwrap_or(Self::Operator)
    }

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
    /// `api`, `judge`, `rollout`, `file` or `start`.
    pub via: &'static str,
    /// The request, the file, or the finding that it came by.
    pub how: Option<String>,
    /// Why, in their words.
    pub reason: Option<String>,
    /// Only if the recorded state is still this one.
    pub if_revision: Option<u64>,
    /// Only tell what would change.
    pub dry_run: bool,
    /// The hooks for `before_switch` were asked, and agree.
    pub heard: bool,
}

impl Asked {
    /// Asked by the process itself.
    #[must_use]
    pub fn by_itself(via: &'static str, reason: Option<String>) -> Self {
        Self {
            by: "switchback".into(),
            via,
            how: None,
            reason,
            if_revision: None,
            dry_run: false,
            heard: false,
        }
    }
}

impl FlagChange {
    const fn verb(&self) -> &'static str {
        match self {
            Self::Off | Self::KeepOff => "flag_off",
            Self::On => "flag_on",
            Self::Shares(_) => "flag_shares",
            Self::Set(_) => "flag_set",
            Self::Unset => "flag_unset",
        }
    }
}

impl Command {
    /// Whether it is served first and applied before it is persisted.
    #[must_use]
    pub const fn is_urgent(&self) -> bool {
        matches!(
            self,
            Self::Rollback { .. }
                | Self::Condemn { .. }
                | Self::Reject { .. }
                | Self::Unite { .. }
                | Self::Block { .. }
                | Self::ChangeFlag {
                    change: FlagChange::Off | FlagChange::KeepOff,
                    ..
                }
        )
    }

    /// Whether a caller moves a rollout with it.
    #[must_use]
    pub const fn is_about_rollout(&self) -> bool {
        matches!(
            self,
            Self::StartRollout(_) | Self::Promote { .. } | Self::Pause { .. } | Self::Resume { .. }
        )
    }

    /// Whether it is to be carried out against advice.
    #[must_use]
    pub const fn is_forced(&self) -> bool {
        matches!(
            self,
            Self::Switch { force: true, .. }
                | Self::Promote { force: true, .. }
                | Self::Restore { force: true, .. }
        )
    }

    /// The verb, as recorded.
    #[must_use]
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::SetWeights { .. } => "weights",
            Self::Rollback { .. } | Self::Condemn { .. } => "rollback",
            Self::Switch { .. } => "switch",
            Self::Block { .. } | Self::Reject { .. } | Self::Unite { .. } => "block",
            Self::Unblock { .. } => "unblock",
            Self::SetBackend { .. } => "backend_set",
            Self::StartRollout(_) => "rollout_start",
            Self::Promote { .. } => "rollout_promote",
            Self::Pause { .. } => "rollout_pause",
            Self::Resume { .. } => "rollout_resume",
            Self::Progress { .. } => "progress",
            Self::Restore { .. } => "restore",
            Self::Database { change, .. } => change.verb(),
            Self::ChangeFlag { change, .. } => change.verb(),
            Self::Drill(drill) => drill.act.verb(),
            Self::Runbook(runbook) => runbook.act.verb(),
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
            | Self::Switch { service, .. }
            | Self::Block { service, .. }
            | Self::Unite { service, .. }
            | Self::Unblock { service, .. }
            | Self::SetBackend { service, .. }
            | Self::Promote { service, .. }
            | Self::Database { service, .. }
            | Self::Pause { service }
            | Self::Resume { service }
            | Self::Progress { service } => Some(service),
            Self::Condemn { failing, .. } | Self::Reject { failing } => Some(&failing.service),
            Self::StartRollout(start) => Some(&start.service),
            Self::Drill(drill) => Some(&drill.service),
            Self::Runbook(runbook) => Some(&runbook.service),
            Self::Reload { .. }
            | Self::Acknowledge
            | Self::Restore { .. }
            | Self::ChangeFlag { .. } => None,
        }
    }

    /// The flag it is about, if it is about one.
    #[must_use]
    pub const fn flag(&self) -> Option<&Name> {
        match self {
            Self::ChangeFlag { flag, .. } => Some(flag),
            _ => None,
        }
    }
}
