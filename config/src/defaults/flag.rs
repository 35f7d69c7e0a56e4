//! Bounds of feature flags and of the listener that answers about them.

use std::time::Duration;

/// Port of the flag evaluation API, the usual one of its kind.
pub const OFREP_PORT: u16 = 8_016;

/// Flags of the file, and as many again that are made over the API.
pub const FLAGS_MAX: usize = 1_000;

/// Variants of a flag.
pub const FLAG_VARIANTS_MAX: usize = 32;

/// Rules of a flag, and attributes of a rule: they are looked at one after the other.
pub const FLAG_RULES_MAX: usize = 50;

/// Largest value of a variant, as JSON.
pub const FLAG_VALUE_BYTES_MAX: usize = 8 << 10;

/// How old the last look at a kill switch's state may be.
pub const FLAG_AGE_MAX: Duration = Duration::from_secs(60);

/// The least and the most of that: the state is looked at once a second.
pub const FLAG_AGE_BOUNDS: (Duration, Duration) =
    (Duration::from_secs(3), Duration::from_secs(24 * 3_600));

/// From one look at the state of kill switches to the next.
pub const FLAG_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Connections of applications that ask for flags.
pub const OFREP_CONNECTIONS: usize = 1_000;

/// Largest body of a question about flags, which carries the whole context.
pub const OFREP_BODY_BYTES: usize = 256 << 10;

/// How long a new connection of an application may take until its first question has a whole head.
pub const OFREP_HEAD_TIME: Duration = Duration::from_secs(10);

/// How long a connection of an application may be silent afterwards: they ask again and again.
pub const OFREP_IDLE_TIME: Duration = Duration::from_secs(60);

/// How long a connection of an application stays open for a question once another process serves.
pub const OFREP_RETIRE_TIME: Duration = Duration::from_millis(500);
