//! Bounds of a hand-over from one process to the next.

use std::time::Duration;

/// How long a process that takes over waits for each answer of the one that serves: workers share
/// their sockets and the disk finishes a change, which takes milliseconds.
pub const TAKEOVER_TIME: Duration = Duration::from_secs(30);

/// How long a process that takes over may say nothing at first: it has nothing to do before.
pub const TAKEOVER_HELLO_TIME: Duration = Duration::from_secs(5);

/// Processes that may want to take over at the same time: one does, others were started by mistake.
pub const TAKEOVER_PEERS_MAX: usize = 16;

/// What is refused during a hand-over and kept for the audit: verbs ask once a second, people less often.
pub const TAKEOVER_AUDIT_MAX: usize = 1_024;

/// How long a process that has taken over waits for the word that the other one accepts nothing any more,
/// before it serves its API: as long as the other one's disk may take, which is the slowest part.
pub const TAKEOVER_RETIRED_TIME: Duration = Duration::from_secs(5);

/// How long connections without a request stay open in a process that another one has taken over from,
/// and never more than half of `shutdown_timeout`: most clients that keep one use it within that time.
pub const RETIRE_IDLE_TIME: Duration = Duration::from_secs(15);
