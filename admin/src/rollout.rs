//! Keeps rollouts and leases moving: asks the control thread whenever one is due by the clock.
//!
//! Nothing is decided here. Whether a rollout may go on is worked out twice by the same function
//! ([`RolloutState::waits_for`]): here, so that the control thread is not asked ten times a second for
//! nothing, and there, as things are at that moment.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use switchback_config::defaults::ROLLOUT_POLL;
use switchback_config::model::Name;

use crate::builder::find;
use crate::command::{Asked, Command};
use crate::control::{Controls, Published};
use crate::state::{RolloutState, Standing};

/// After a refusal a service is left alone for so long.
const RETRY: Duration = Duration::from_secs(1);

/// Looks at all rollouts and leases for as long as the process runs.
pub(crate) async fn run(controls: Controls) {
    let mut ticks = tokio::time::interval(ROLLOUT_POLL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut refused: BTreeMap<Name, Instant> = BTreeMap::new();
    loop {
        ticks.tick().await;
        refused.retain(|_, at| at.elapsed() < RETRY);
        for service in due(&controls.published(), Timestamp::now()) {
            if refused.contains_key(&service) {
                continue;
            }
            let command = Command::Progress {
                service: service.clone(),
            };
            let asked = Asked::by_itself("rollout", None);
            if let Err(error) = controls.ask(command, asked).await {
                tracing::debug!(%error, service, "let a rollout go on");
                refused.insert(service, Instant::now());
            }
        }
    }
}

/// The services about which something is to be done now.
fn due(published: &Published, at: Timestamp) -> Vec<Name> {
    let services = published.state.services.iter();
    let is_due = services.filter(|(name, state)| {
        let lease_ended = state.lease.as_ref().is_some_and(|lease| at >= lease.until);
        let rollout = state
            .rollout
            .as_ref()
            .filter(|rollout| rollout.is_running());
        let moves = rollout.is_some_and(|rollout| {
            let standing = standing(published, name, rollout);
            at >= rollout.expires() || rollout.waits_for(at, &standing).is_none()
        });
        published.services.contains_key(*name) && (lease_ended || moves)
    });
    is_due.map(|(name, _)| name.clone()).collect()
}

/// How the canary of a rollout does.
pub(crate) fn standing(published: &Published, service: &str, rollout: &RolloutState) -> Standing {
    let status = published.services.get(service);
    let gauge = status.and_then(|status| {
        let mut gauges = status.gauges.iter();
        gauges.find(|(backend, _)| *backend == rollout.canary)
    });
    let standing = gauge.map_or_else(Standing::default, |(_, gauge)| gauge.standing());
    let live = find(&published.snapshot, service);
    let backend = live.and_then(|service| {
        let mut backends = service.backends.iter();
        backends.find(|backend| *backend.name == *rollout.canary)
    });
    let known = backend.is_some_and(|backend| {
        let mut endpoints = backend.endpoints.iter();
        endpoints.any(|endpoint| endpoint.health.is_known_healthy())
    });
    standing.with_health(&rollout.canary, known)
}
