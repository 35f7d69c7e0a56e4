//! Waits and bounds of several instances that share one state.

use std::time::Duration;

use super::TimeSpan;

/// How long an instance is waited for after it was last heard of. Long enough for a pause of etcd while it
/// elects a leader (1 s by default), short enough that nobody presses a button twice.
pub const CLUSTER_LEASE: TimeSpan = TimeSpan(Duration::from_secs(10));

/// What may be set. etcd itself lets no lease end sooner than after 2 s.
pub const CLUSTER_LEASE_BOUNDS: (Duration, Duration) =
    (Duration::from_secs(2), Duration::from_secs(60));

/// What all keys begin with.
pub const CLUSTER_PREFIX: &str = "/switchback";

/// How long a change waits until every instance follows it. A fleet follows within milliseconds.
pub const FLEET_TIME: Duration = Duration::from_secs(2);

/// How long one question to etcd may take.
pub const ETCD_TIME: Duration = Duration::from_secs(2);

/// How long a start waits for the shared state before it goes on with what was last known here.
pub const JOIN_TIME: Duration = Duration::from_secs(5);

/// Changes between two copies of the whole state, which spare newcomers the reading of all changes.
pub const CHECKPOINT_APART: u64 = 64;

/// Changes that are kept for instances that were away; whoever was away for longer begins with a copy.
pub const SHARED_LOG_KEPT: u64 = 1_024;

/// Longest change or copy in etcd, whose members refuse requests above 1.5 MiB.
pub const SHARED_BYTES_MAX: usize = 1_400 << 10;

/// How often instances tell what they have counted of watched versions.
pub const POOL_APART: Duration = Duration::from_millis(100);
