//! Versions that were stable before, remembered as they were deployed: what to go back to is known, and
//! whether it is still there can be looked at.

use jiff::Timestamp;
use switchback_config::defaults::RETAIN_MAX;
use switchback_config::model::Service;

use crate::effective::Effective;
use crate::state::{Retained, ServiceState};

/// How many are remembered, whatever the file asks for.
const KEPT_MIN: usize = 2;

/// Remembers the version that was stable until now, if another one is. What is blocked was rolled back:
/// nobody wants it back.
pub(super) fn note(
    state: &mut ServiceState,
    file: &Service,
    before: &Effective,
    after: &Effective,
    at: Timestamp,
) {
    let version = after.version(&after.stable).to_owned();
    if before.version(&before.stable) == version {
        return;
    }
    if let Some(deployed) = before.backends.get(&before.stable)
        && !state.retained.iter().any(|kept| kept.deployed == *deployed)
    {
        let kept = Retained {
            backend: before.stable.clone(),
            deployed: deployed.clone(),
            until: at,
        };
        state
            .retained
            .retain(|other| other.deployed.version != kept.deployed.version);
        state.retained.insert(0, kept);
    }
    let blocked = &state.blocked;
    let is_back = |kept: &Retained| kept.deployed.version == version;
    state
        .retained
        .retain(|kept| !is_back(kept) && !blocked.contains_key(&kept.deployed.version));
    let most = file.retain.min(RETAIN_MAX);
    state
        .retained
        .truncate(usize::try_from(most).unwrap_or(KEPT_MIN).max(KEPT_MIN));
}
