//! Bounds of what is said about databases and about versions that are kept.

use std::time::Duration;

/// How long no request has gone to a version with the old schema before its form may be removed: as long
/// as a new stable is on trial.
pub const CONTRACT_AFTER: Duration = Duration::from_secs(48 * 3_600);

/// The least and the most of that: counters are looked at once a second.
pub const CONTRACT_AFTER_BOUNDS: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(90 * 86_400));

/// Schema versions that one version can live with.
pub const SCHEMA_READS_MAX: usize = 32;

/// Longest text of the reverse migration's command, and of an item of the checklist.
pub const DATABASE_TEXT_CHARS_MAX: usize = 1_000;

/// Items of the checklist before a reverse migration.
pub const CHECKLIST_MAX: usize = 20;

/// From one look at who got requests to the next.
pub const SIGHTING_INTERVAL: Duration = Duration::from_secs(1);

/// How often the last request of a version is written down while there are requests.
pub const SIGHTING_SAVED: Duration = Duration::from_secs(60);

/// What is written down says a time so much later than the last request: it must not be too early
/// after a crash, nor while a process that was taken over from ends.
pub const SIGHTING_SLACK: Duration = Duration::from_secs(120);

/// Versions whose last request is remembered, the latest of each service.
pub const SIGHTINGS_KEPT: usize = 100;

/// Earlier stable versions that may be kept reachable.
pub const RETAIN_MAX: u32 = 10;

/// A rehearsal of the way back is good for so long.
pub const DRILL_GOOD_FOR: Duration = Duration::from_secs(30 * 86_400);

/// How often the endpoints of earlier versions are looked at.
pub const RETAINED_INTERVAL: Duration = Duration::from_secs(5);

/// Earlier versions that are looked at at once.
pub const RETAINED_AT_ONCE: usize = 64;

/// Measured times that are kept of each way back.
pub const TIMINGS_KEPT: usize = 200;

/// How long the last request of a version or route is remembered whose service or route is in no file any more.
pub const USES_REMEMBERED: Duration = Duration::from_secs(400 * 86_400);

/// How often it goes to disk when routes were last used.
pub const USES_SAVED: Duration = Duration::from_secs(30);
