//! Bounds of runbooks, which are recorded with every step that is done, and of drills.

use std::time::Duration;

/// Runbooks of a file.
pub const RUNBOOKS_MAX: usize = 50;

/// Steps of a runbook.
pub const RUNBOOK_STEPS_MAX: usize = 32;

/// Longest text of a step.
pub const RUNBOOK_TEXT_BYTES_MAX: usize = 1_000;

/// Findings that are kept of a step; more would be noise.
pub const RUNBOOK_FINDINGS_MAX: usize = 20;

/// How long recovery is waited for, where a runbook does not say.
pub const RUNBOOK_VERIFY: Duration = Duration::from_secs(5 * 60);

/// Errors are back to usual below this share, where nothing says what is usual.
pub const RUNBOOK_CALM: f64 = 0.01;

/// Recovery is worked out from the last so many seconds.
pub const RUNBOOK_LOOK_SECONDS: u32 = 10;

/// How long after a rollback by a rule its runbook still begins: a process that was down for longer has
/// missed it.
pub const RUNBOOK_FRESH: Duration = Duration::from_secs(15 * 60);

/// The shortest time from one drill of a service to the next.
pub const DRILL_EVERY_MIN: Duration = Duration::from_secs(60);
