//! What can be asked of a run of a runbook.

use jiff::Timestamp;
use switchback_config::model::{Method, Name, RunbookStep};

use crate::state::RunHoldKind;

/// Something about the runbook of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct RunbookCommand {
    /// The service.
    pub service: Name,
    /// What.
    pub act: RunbookAct,
}

/// What becomes of a run.
#[derive(Clone, Debug, PartialEq)]
pub enum RunbookAct {
    /// It begins.
    Start(RunbookStart),
    /// Somebody has done the step that is under way, or lets it begin.
    Tick {
        /// The step that they have seen, counted from 0.
        step: usize,
        /// It is passed over.
        skip: bool,
        /// The way back that they have chosen.
        method: Option<Method>,
        /// Whether they may bring back an earlier configuration.
        may_restore: bool,
    },
    /// What was found and done in the step that is under way.
    Report {
        /// The step, counted from 0.
        step: usize,
        /// In sentences.
        findings: Vec<String>,
        /// What comes of it.
        turn: StepTurn,
    },
    /// It ends.
    Stop,
}

/// A run to begin.
#[derive(Clone, Debug, PartialEq)]
pub struct RunbookStart {
    /// Its name in the file.
    pub runbook: Name,
    /// Its steps.
    pub plan: Vec<RunbookStep>,
    /// The trigger, if that begins it.
    pub trigger: Option<String>,
    /// A rollback since then is what it is about.
    pub since: Option<Timestamp>,
    /// The way back, if it is decided already.
    pub method: Option<Method>,
    /// Whether it may bring back an earlier configuration.
    pub may_restore: bool,
}

/// What comes of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepTurn {
    /// It is done.
    Done,
    /// It is done: this is the way back.
    Chose(Method),
    /// It is done: this rollback took the traffic.
    RolledBack(Option<u64>),
    /// The way back did not help, or could not be gone: the next one is tried.
    Escalate,
    /// Somebody has to do something.
    Hold(RunHoldKind, String),
}

impl RunbookAct {
    pub(super) const fn verb(&self) -> &'static str {
        match self {
            Self::Start(_) => "runbook_start",
            Self::Tick { .. } => "runbook_tick",
            Self::Report { .. } => "runbook_step",
            Self::Stop => "runbook_stop",
        }
    }
}
