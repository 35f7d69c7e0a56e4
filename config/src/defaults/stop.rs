//! When what lost its weight may be stopped.

use std::time::Duration;

/// How long a backend has had neither weight nor requests before it may be stopped: what Argo Rollouts
/// waits, and longer than clients and load balancers in front remember an open connection's backend.
pub const SAFE_TO_STOP_AFTER: Duration = Duration::from_secs(30);
