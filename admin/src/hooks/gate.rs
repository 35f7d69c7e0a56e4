//! Hooks for `before_switch`: asked one after the other before another backend becomes stable.
//!
//! Whoever wants the switch waits here, outside of the control thread, so that nothing else of the
//! service does. The switch itself is decided afterwards, as things are then; a rollback or block that
//! comes in meanwhile ends the wait. Giving up the wait (a client that closes its connection) ends it
//! too, and with it what was started: a switch never happens behind the back of who asked for it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use switchback_config::defaults::UNTIL_DEADLINE;
use switchback_config::model::{Check, Gate, GateFailure, Hook, HookEvent, Name, Until};
use switchback_config::units::TimeSpan;

use super::courier::wait_before;
use super::delivery::{Attempt, CloudEvent, Happening};
use super::{Hooks, Outcome, Program, Verdict, attempt, request};
use crate::command::{Asked, Refusal};
use crate::control::Published;

/// The services whose hooks are being asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Asking(Arc<Mutex<BTreeSet<Name>>>);

/// One service's hooks are being asked, until this is dropped.
#[derive(Debug)]
struct Turn {
    asking: Asking,
    service: Name,
}

impl Asking {
    /// One switch of a service at a time: programs that stop queues do not expect company.
    fn begin(&self, service: &Name) -> Option<Turn> {
        let mut services = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        services.insert(service.clone()).then(|| Turn {
            asking: self.clone(),
            service: service.clone(),
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut services = self.asking.0.lock().unwrap_or_else(PoisonError::into_inner);
        services.remove(&self.service);
    }
}

/// What hooks are asked to agree with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Coming {
    /// The service.
    pub(crate) service: Name,
    /// Its stable backend afterwards.
    pub(crate) to: Name,
    /// What that runs then.
    pub(crate) version: String,
    /// What would happen, in words.
    pub(crate) message: String,
}

impl Coming {
    /// Another backend is about to become stable, as it is.
    pub(crate) fn switch(published: &Published, service: &Name, to: &Name) -> Option<Self> {
        let effective = &published.services.get(service)?.effective;
        let version = effective.version(to).to_owned();
        let stable = &effective.stable;
        Some(Self {
            message: format!("{to} ({version}) is about to become stable in place of {stable}"),
            service: service.clone(),
            to: to.clone(),
            version,
        })
    }
}

/// Whether hooks want to be asked before another backend of this service becomes stable.
pub(crate) fn has_gate(published: &Published, service: &str) -> bool {
    let file = published.file(service);
    file.is_some_and(|file| file.hooks.iter().any(|hook| hook.gate.is_some()))
}

impl Hooks {
    /// Asks every hook of a service before another backend becomes stable.
    ///
    /// # Errors
    /// [`Refusal::BeforeSwitchFailed`] when one says no or does not answer in time,
    /// [`Refusal::BeforeSwitchRunning`] when they are being asked already, [`Refusal::Overtaken`] when a
    /// rollback or block comes in meanwhile.
    ///
    /// # Cancel safety
    /// Dropping it ends what was started; nothing has been switched.
    pub(crate) async fn pass(&self, coming: &Coming, asked: &Asked) -> Result<(), Refusal> {
        let Coming { service, to, .. } = coming;
        let published = self.controls.published();
        let Some(file) = published.file(service) else {
            return Err(Refusal::UnknownService(service.clone()));
        };
        let Some(event) = announcement(&published, coming, asked) else {
            return Err(Refusal::UnknownService(service.clone()));
        };
        let Some(_turn) = self.asking.begin(service) else {
            return Err(Refusal::BeforeSwitchRunning(service.clone()));
        };
        let blocked = blocked(&published, service);
        let version = version(&published, service, to);
        let mut following = self.controls.follow();
        // They answer for this version, and while nobody has rolled anything back.
        let overtaken = following.wait_for(|now| {
            !self::blocked(now, service).is_subset(&blocked)
                || self::version(now, service, to) != version
        });
        let asking = async {
            for hook in &file.hooks {
                if let Some(gate) = &hook.gate {
                    self.ask(hook, gate, service, &event).await?;
                }
            }
            Ok(())
        };
        tokio::select! {
            answer = asking => answer,
            _ = overtaken => Err(Refusal::Overtaken),
        }
    }

    async fn ask(
        &self,
        hook: &Hook,
        gate: &Gate,
        service: &Name,
        event: &CloudEvent,
    ) -> Result<(), Refusal> {
        let mut last = None;
        let until = gate.until.as_ref();
        let patience = until.map_or(UNTIL_DEADLINE, |until| until.deadline.0);
        let heard = heard(hook, gate, &self.base, event, &mut last);
        let agreed = tokio::time::timeout(patience, heard).await;
        let (result, output) = last.map_or_else(
            || ("no answer".into(), String::new()),
            |last: Attempt| (last.result, last.output),
        );
        let reason = match agreed {
            Ok(true) => {
                self.counts.note(service, &hook.name, "delivered");
                return Ok(());
            }
            Ok(false) => result,
            Err(_) => {
                let patience = TimeSpan(patience);
                match until {
                    Some(_) => {
                        format!("its condition did not hold within {patience}; last: {result}")
                    }
                    None => format!("it did not agree within {patience}; last: {result}"),
                }
            }
        };
        self.counts.note(service, &hook.name, "failed");
        let refusal = Refusal::BeforeSwitchFailed {
            hook: hook.name.clone(),
            reason,
            output,
        };
        let message = match gate.on_failure {
            GateFailure::Refuse => refusal.to_string(),
            GateFailure::Continue => format!("{refusal}; the switch goes on"),
        };
        let by = &event.data.by;
        self.events
            .emit("before_switch_failed", Some(service), by, message, None);
        match gate.on_failure {
            GateFailure::Refuse => Err(refusal),
            GateFailure::Continue => Ok(()),
        }
    }
}

/// Does what the hook does, then looks at its condition until it holds. `last`: what came of the last
/// attempt, also if this is dropped.
async fn heard(
    hook: &Hook,
    gate: &Gate,
    base: &Path,
    event: &CloudEvent,
    last: &mut Option<Attempt>,
) -> bool {
    let mut attempts = 0;
    loop {
        let (done, verdict) = attempt(hook, base, event).await;
        *last = Some(done);
        attempts += 1;
        match verdict {
            Verdict::Delivered => break,
            Verdict::Failed { .. } if attempts <= hook.retries => {
                tokio::time::sleep(wait_before(attempts + 1, fastrand::f64())).await;
            }
            Verdict::Failed { .. } | Verdict::Refused => return false,
        }
    }
    let Some(until) = &gate.until else {
        return true;
    };
    let mut looks = tokio::time::interval(until.every.0);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let began = std::time::Instant::now();
        let look = look(hook, until, base, event).await;
        let holds = look.verdict == Verdict::Delivered;
        *last = Some(look.into_attempt(began.elapsed()));
        if holds {
            return true;
        }
    }
}

async fn look(hook: &Hook, until: &Until, base: &Path, event: &CloudEvent) -> Outcome {
    let patience = hook.timeout.0;
    match &until.check {
        Check::Http(url) => request::get(url, patience).await,
        Check::Run(argv) => {
            let env = &std::collections::BTreeMap::new();
            let program = Program::new(argv, env, base);
            program.run(event, patience).await
        }
    }
}

/// What the hooks are told.
fn announcement(published: &Published, coming: &Coming, asked: &Asked) -> Option<CloudEvent> {
    let effective = &published.services.get(&coming.service)?.effective;
    let data = Happening {
        service: coming.service.clone(),
        event: HookEvent::BeforeSwitch,
        kind: HookEvent::BeforeSwitch.kind().into(),
        message: coming.message.clone(),
        backend: Some(coming.to.clone()),
        version: Some(coming.version.clone()),
        revision: None,
        by: asked.by.clone(),
        reason: asked.reason.clone(),
        cause: None,
        weights: effective.weights.clone(),
        stable: effective.stable.clone(),
    };
    Some(CloudEvent::new(Timestamp::now(), data))
}

/// What runs on a backend.
fn version(published: &Published, service: &str, backend: &str) -> Option<String> {
    let status = published.services.get(service)?;
    Some(status.effective.version(backend).to_owned())
}

/// The versions that are kept out.
fn blocked(published: &Published, service: &str) -> BTreeSet<String> {
    let state = published.state.services.get(service);
    let blocked = state.into_iter().flat_map(|state| state.blocked.keys());
    blocked.cloned().collect()
}
