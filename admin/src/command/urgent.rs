//! Commands that wait for nobody, as they are sent along: to the process that takes over, or to the other
//! instances of a cluster.

use serde::{Deserialize, Serialize};
use switchback_config::model::Name;

use crate::state::Block;

use super::{Asked, Cause, Command, Failing, FlagChange};

/// A command that is carried out where it is given, whoever else has to follow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub(crate) enum Urgent {
    Rollback {
        service: Name,
        cut: bool,
    },
    Condemn {
        failing: Failing,
        cause: Cause,
    },
    Reject {
        failing: Failing,
    },
    Block {
        service: Name,
        backend: Name,
    },
    Pause {
        service: Name,
    },
    FlagOff {
        flag: Name,
    },
    Unite {
        service: Name,
        version: String,
        block: Box<Block>,
        #[serde(default)]
        force: bool,
    },
}

impl Urgent {
    /// What to send along for a command that was carried out here.
    pub(crate) fn of(command: &Command) -> Option<Self> {
        Some(match command.clone() {
            Command::Rollback { service, cut, .. } => Self::Rollback { service, cut },
            Command::Condemn { failing, cause, .. } => Self::Condemn { failing, cause },
            Command::Reject { failing } => Self::Reject { failing },
            Command::Block {
                service, backend, ..
            } => Self::Block { service, backend },
            Command::Pause { service } => Self::Pause { service },
            Command::Unite {
                service,
                version,
                block,
                force,
            } => Self::Unite {
                service,
                version,
                block,
                force,
            },
            Command::ChangeFlag {
                flag,
                change: FlagChange::Off | FlagChange::KeepOff,
            } => Self::FlagOff { flag },
            _ => return None,
        })
    }

    /// The command to carry out. It was decided by the process that knew what is healthy, so it is
    /// not refused here for that; a block that comes to another state is, unless somebody insisted.
    pub(crate) fn into_command(self) -> Command {
        let force = true;
        match self {
            Self::Rollback { service, cut } => Command::Rollback {
                service,
                cut,
                force,
            },
            Self::Condemn { failing, cause } => Command::Condemn {
                failing,
                cause,
                force,
            },
            Self::Reject { failing } => Command::Reject { failing },
            Self::Block { service, backend } => Command::Block {
                service,
                backend,
                force,
            },
            Self::Pause { service } => Command::Pause { service },
            Self::Unite {
                service,
                version,
                block,
                force,
            } => Command::Unite {
                service,
                version,
                block,
                force,
            },
            Self::FlagOff { flag } => Command::ChangeFlag {
                flag,
                change: FlagChange::KeepOff,
            },
        }
    }
}

/// Who asked for a command that was sent along.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Author {
    by: String,
    via: String,
    how: Option<String>,
    reason: Option<String>,
}

impl Author {
    pub(crate) fn of(asked: &Asked) -> Self {
        Self {
            by: asked.by.clone(),
            via: asked.via.into(),
            how: asked.how.clone(),
            reason: asked.reason.clone(),
        }
    }

    pub(crate) fn into_asked(self) -> Asked {
        let known = [
            "api", "judge", "rollout", "file", "start", "takeover", "cluster",
        ];
        let via = known.into_iter().find(|known| *known == self.via);
        Asked {
            by: self.by,
            how: self.how,
            reason: self.reason,
            ..Asked::by_itself(via.unwrap_or("api"), None)
        }
    }
}
