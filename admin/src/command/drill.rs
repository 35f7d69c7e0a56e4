//! What can be asked about a drill; only the process itself asks it.

use switchback_config::model::{Name, Service};

use crate::state::DrillRecord;

/// A drill begins or ends.
#[derive(Clone, Debug, PartialEq)]
pub struct DrillCommand {
    /// The service.
    pub service: Name,
    /// What becomes of it.
    pub act: DrillAct,
}

/// What becomes of a drill.
#[derive(Clone, Debug, PartialEq)]
pub enum DrillAct {
    /// A shadow of the service comes into force.
    Begin {
        /// The shadow.
        shadow: Box<Service>,
        /// The host that leads to it.
        host: String,
    },
    /// It is gone, and what was found is on record.
    End(DrillRecord),
}

impl DrillAct {
    pub(super) const fn verb(&self) -> &'static str {
        match self {
            Self::Begin { .. } => "drill_start",
            Self::End(DrillRecord { passed: true, .. }) => "drill_passed",
            Self::End(_) => "drill_failed",
        }
    }
}
