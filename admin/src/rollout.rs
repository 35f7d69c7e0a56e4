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
use tokio::task::{JoinError, JoinSet};

use crate::builder::find;
use crate::command::{Asked, Command, Refusal};
use crate::control::{Controls, Published};
use crate::drill::shadow::is_shadow;
use crate::hooks::Hooks;
use crate::hooks::gate::{Coming, has_gate};
use crate::state::{RolloutState, Standing};

/// After a refusal a service is left alone for so long.
const RETRY: Duration = Duration::from_secs(1);

/// Looks at all rollouts and leases for as long as the process runs. Of a cluster, one instance does.
pub(crate) async fn run(controls: Controls, hooks: Hooks) {
    let mut ticks = tokio::time::interval(ROLLOUT_POLL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut refused: BTreeMap<Name, Instant> = BTreeMap::new();
    let mut asking = Asking::default();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Some(answer) = asking.answers.join_next() => asking.heed(&controls, answer).await,
        }
        refused.retain(|_, at| at.elapsed() < RETRY);
        let published = controls.published();
        // What all share one moves; what is rehearsed here is moved here.
        let mut due = due(&published, published.clock.now());
        due.retain(|service| controls.leads() || is_shadow(service));
        for service in due {
            if refused.contains_key(&service) || asking.begin(&controls, &hooks, &service) {
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

/// Hooks that are asked before canaries become stable. Everything else goes on meanwhile.
#[derive(Debug, Default)]
struct Asking {
    /// By service, when the rollout began that they are asked about.
    rollouts: BTreeMap<Name, Timestamp>,
    answers: JoinSet<(Name, Result<(), Refusal>)>,
}

impl Asking {
    /// Asks them if that is what comes next for a service; whether they are being asked.
    fn begin(&mut self, controls: &Controls, hooks: &Hooks, service: &Name) -> bool {
        let published = controls.published();
        let Some(rollout) = ends_now(&published, service, published.clock.now()) else {
            return false;
        };
        if self.rollouts.contains_key(service) {
            return true;
        }
        self.rollouts.insert(service.clone(), rollout.began);
        let coming = Coming::switch(&published, service, &rollout.canary);
        let (hooks, service) = (hooks.clone(), service.clone());
        self.answers.spawn(async move {
            let asked = Asked::by_itself("rollout", None);
            let answer = match coming {
                Some(coming) => hooks.pass(&coming, &asked).await,
                None => Err(Refusal::UnknownService(service.clone())),
            };
            (service, answer)
        });
        true
    }

    /// Makes the canary stable, or lets the rollout stand for somebody to look at.
    async fn heed(
        &mut self,
        controls: &Controls,
        answer: Result<(Name, Result<(), Refusal>), JoinError>,
    ) {
        let Ok((service, answer)) = answer else {
            // They are asked again.
            self.rollouts.clear();
            return;
        };
        let began = self.rollouts.remove(&service);
        let published = controls.published();
        let state = published.state.services.get(&service);
        let rollout = state.and_then(|state| state.rollout.as_ref());
        if rollout.map(|rollout| rollout.began) != began {
            return;
        }
        let mut asked = Asked::by_itself("rollout", None);
        let command = match answer {
            Ok(()) => {
                asked.heard = true;
                Command::Progress { service }
            }
            // Somebody else is asking, or has changed something: it is looked at again.
            Err(Refusal::BeforeSwitchRunning(_) | Refusal::Overtaken) => return,
            Err(refusal) => {
                asked.reason = Some(refusal.to_string());
                Command::Pause { service }
            }
        };
        if let Err(error) = controls.ask(command, asked).await {
            tracing::debug!(%error, "heed the hooks before a switch");
        }
    }
}

/// The rollout of a service whose canary would become stable now, where hooks want to be asked.
fn ends_now<'a>(
    published: &'a Published,
    service: &str,
    at: Timestamp,
) -> Option<&'a RolloutState> {
    let state = published.state.services.get(service)?;
    if !has_gate(published, service) || state.lease.as_ref().is_some_and(|l| at >= l.until) {
        return None;
    }
    let rollout = state.rollout.as_ref().filter(|r| r.is_running())?;
    let is_last = rollout.next_stage().is_none() && at < rollout.expires();
    let standing = standing(published, service, rollout);
    (is_last && rollout.waits_for(at, &standing).is_none()).then_some(rollout)
}

/// The services about which something is to be done now.
pub(crate) fn due(published: &Published, at: Timestamp) -> Vec<Name> {
    let services = published.state.services.iter();
    let is_due = services.filter(|(name, state)| {
        let lease_ended = state.lease.as_ref().is_some_and(|lease| at >= lease.until);
        let trial_ended = state.on_trial.as_ref().is_some_and(|t| at >= t.until);
        let rollout = state
            .rollout
            .as_ref()
            .filter(|rollout| rollout.is_running());
        let moves = rollout.is_some_and(|rollout| {
            let standing = standing(published, name, rollout);
            at >= rollout.expires() || rollout.waits_for(at, &standing).is_none()
        });
        let late = state.runbook.as_ref().is_some_and(|run| run.is_late(at));
        published.services.contains_key(*name) && (lease_ended || trial_ended || moves || late)
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
