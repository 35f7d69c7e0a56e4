//! Since when a backend has had nothing to do, and whether it may be stopped.
//!
//! Whoever scales a backend down after a rollback wants one bit: is anybody still there, or about to come?
//! Once a second the counters of all backends are looked at, and the time is kept since which one has had
//! neither weight nor requests. It is kept in memory only: a process that has just started has seen nothing,
//! and says so by waiting. Requests of testers and copies count too, since they fail when it is gone; health
//! checks do not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use switchback_config::units::TimeSpan;
use switchback_proxy::snapshot::{Backend, Snapshot};
use tokio::time::MissedTickBehavior;

use crate::control::{Controls, Published, ServiceStatus};

/// The times of all backends.
#[derive(Debug, Default)]
pub struct Quiet(Mutex<HashMap<Place, Seen>>);

/// Names of a service and of a backend.
type Place = (Arc<str>, Arc<str>);

/// What was seen of one backend.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    version: Arc<str>,
    /// Requests of any kind that it ever began.
    begun: u64,
    /// Since when there have been none, and no weight.
    since: Option<Timestamp>,
}

/// Looks until the process ends.
pub(crate) async fn run(controls: Controls) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let published = controls.published().clone();
        published
            .quiet
            .look(&published.snapshot, published.clock.now());
    }
}

impl Quiet {
    fn look(&self, snapshot: &Snapshot, now: Timestamp) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *kept);
        for service in &snapshot.services {
            for (index, backend) in service.backends.iter().enumerate() {
                let key = (service.name.clone(), backend.name.clone());
                let last = before.remove(&key);
                let has_weight = service.split.weight(index) > 0;
                kept.insert(key, Seen::look(last, backend, has_weight, now));
            }
        }
    }

    /// Since when a backend has had nothing to do, as far as that is known.
    fn since(&self, service: &str, backend: &Backend) -> Option<Timestamp> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = kept.get(&(service.into(), backend.name.clone()))?;
        // What began after the last look is seen in the next one.
        let is_same =
            seen.version == backend.version && seen.begun == backend.stats.begun_of_any_kind();
        seen.since.filter(|_| is_same)
    }
}

impl Seen {
    fn look(last: Option<Self>, backend: &Backend, has_weight: bool, now: Timestamp) -> Self {
        let begun = backend.stats.begun_of_any_kind();
        let is_busy = has_weight || backend.stats.in_flight() > 0;
        let is_same = |last: &Self| last.version == backend.version && last.begun == begun;
        let since = last.filter(is_same).and_then(|last| last.since);
        Self {
            version: backend.version.clone(),
            begun,
            since: (!is_busy).then(|| since.unwrap_or(now)),
        }
    }
}

/// What a backend is still needed for; nothing: it may be stopped.
pub(crate) fn needed(
    published: &Published,
    service: &str,
    status: &ServiceStatus,
    backend: &Backend,
) -> Option<String> {
    let (effective, now) = (&status.effective, published.clock.now());
    let name = &*backend.name;
    let weight = effective.weight(name);
    if *effective.stable == *name {
        return Some("it is stable".into());
    }
    if weight > 0 {
        return Some(format!("it has weight {weight}"));
    }
    if let Some(trial) = effective.trial_at(now)
        && effective.previous.as_deref() == Some(name)
    {
        return Some(format!("a rollback goes here until {}", trial.until));
    }
    let rollout = published
        .state
        .services
        .get(service)
        .and_then(|state| state.rollout.as_ref());
    if rollout.is_some_and(|rollout| rollout.is_running() && *rollout.canary == *name) {
        return Some("a rollout of it is under way".into());
    }
    let in_flight = backend.stats.in_flight();
    if in_flight > 0 {
        return Some(format!("{in_flight} of its requests are under way"));
    }
    let after = published.file(service)?.drain.safe_to_stop_after;
    let quiet = published.quiet.since(service, backend);
    let quiet_for = quiet.map_or(Duration::ZERO, |since| {
        now.duration_since(since).unsigned_abs()
    });
    let left = after
        .0
        .checked_sub(quiet_for)
        .filter(|left| !left.is_zero())?;
    let left = TimeSpan(Duration::from_secs(left.as_secs() + 1));
    Some(format!(
        "it has had nothing to do for less than {after}; {left} more"
    ))
}

#[cfg(test)]
mod tests {
    use switchback_proxy::stats::BackendStats;

    use super::*;

    fn backend(version: &str) -> Backend {
        Backend {
            name: "green".into(),
            version: version.into(),
            endpoints: Vec::new(),
            stats: BackendStats::new(1),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn time_runs_from_when_the_weight_was_gone_and_begins_anew_with_another_version() {
        let (one, other) = (backend("1"), backend("2"));
        let looks = [
            (&one, true, 1, None),
            (&one, false, 2, Some(2)),
            (&one, false, 3, Some(2)),
            (&other, false, 4, Some(4)),
            (&other, true, 5, None),
            (&other, false, 6, Some(6)),
        ];
        let mut seen = None;
        for (backend, has_weight, second, since) in looks {
            let now = Seen::look(seen.take(), backend, has_weight, at(second));
            assert_eq!(now.since, since.map(at), "second {second}");
            seen = Some(now);
        }
    }
}
