//! Decides what a command does: the only place where runtime state changes.
//!
//! [`apply`] is pure. It takes the world as it is, the time, what is known about health, and a
//! command; it answers with the state that should follow, or with a refusal. Persisting, swapping
//! and answering are the business of [`crate::control`]; the same function decides live, for dry
//! runs and in tests.
//!
//! Roles: a switch makes a backend stable and *on trial*, and remembers the previous stable. Weights
//! alone never change roles. A rollback takes weight from canaries first, and only when there is
//! none goes back to the previous stable. It never toggles.

pub(crate) mod database;
mod drill;
mod flags;
mod reload;
mod restore;
mod retain;
mod roles;
mod rollout;
mod runbook;
mod settings;

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use jiff::Timestamp;
use switchback_config::model::{Config, Name, Service};

pub(crate) use settings::{allowed, own_addresses};

use crate::command::{Asked, Command, Refusal};
use crate::drill::shadow::is_shadow;
use crate::effective::Effective;
use crate::state::{FlagState, Override, RolloutState, ServiceState, Standing, State};

/// Everything decisions are based on.
#[derive(Clone, Debug)]
pub struct World {
    /// The current file.
    pub config: Arc<Config>,
    /// The recorded state on top of it.
    pub state: State,
}

/// What is known about a backend's endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// At least one endpoint has nothing against it.
    pub healthy: bool,
    /// At least one endpoint is known to work.
    pub known: bool,
}

/// What should follow.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The file in force afterwards.
    pub config: Arc<Config>,
    /// The services whose state changes, with their new state.
    pub services: BTreeMap<Name, ServiceState>,
    /// The flags whose state changes, with their new state; an empty one is not recorded.
    pub flags: BTreeMap<Name, FlagState>,
    /// Whether stable-only mode holds afterwards.
    pub stable_only: bool,
    /// What to tell the world.
    pub notes: Vec<Note>,
}

/// Something worth an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Stable kind, as in the event stream.
    pub kind: &'static str,
    /// The service it is about.
    pub service: Option<Name>,
    /// In words.
    pub message: String,
}

/// What is known about backends, by service and backend.
#[derive(Clone, Copy)]
pub struct Outlook<'a> {
    /// Their endpoints.
    pub health: &'a dyn Fn(&str, &str) -> Health,
    /// How they do as canaries.
    pub standing: &'a dyn Fn(&str, &str) -> Standing,
}

impl std::fmt::Debug for Outlook<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outlook")
    }
}

/// Decides what a command does. Nothing changes by itself: the caller carries the decision out.
///
/// # Errors
/// A [`Refusal`], when the command cannot be carried out as things are.
pub fn apply(
    world: &World,
    at: Timestamp,
    outlook: Outlook<'_>,
    command: &Command,
    asked: &Asked,
) -> Result<Decision, Refusal> {
    if let Some(expected) = asked.if_revision
        && !command.is_urgent()
        && expected != world.state.revision
    {
        let current = world.state.revision;
        return Err(Refusal::RevisionMismatch { expected, current });
    }
    if let Command::Drill(command) = command {
        return drill::carry_out(world, command);
    }
    let Some(service) = command.service() else {
        return Ok(match command {
            Command::Reload { config } => reload::reload(world, at, asked, config),
            Command::Restore {
                revision,
                services,
                flags,
                force,
            } => {
                let then = restore::Then {
                    revision: *revision,
                    services,
                    flags,
                };
                return restore::restore(world, at, outlook, asked, &then, *force);
            }
            Command::ChangeFlag { flag, change } => {
                return flags::change(world, at, asked, flag, change);
            }
            _ => acknowledge(world),
        });
    };
    let mut case = Case::open(world, service, at, outlook, asked)?;
    carry_out(&mut case, world, command)?;
    Ok(case.close(world))
}

fn carry_out(case: &mut Case<'_>, world: &World, command: &Command) -> Result<(), Refusal> {
    match command {
        Command::SetWeights { weights, lease, .. } => {
            settings::set_weights(case, weights, lease.map(|lease| lease.0))
        }
        Command::SetBackend {
            backend,
            version,
            endpoints,
            declared,
            force,
            ..
        } => {
            let value = settings::deployment(case, backend, version, endpoints, declared)?;
            settings::set_backend(case, backend, value, *force)
        }
        Command::Rollback { force, cut, .. } => roles::rollback(case, *force, *cut),
        Command::Condemn {
            failing,
            cause,
            force,
        } => roles::condemn(case, failing, *cause, *force),
        Command::Reject { failing } => roles::reject(case, failing),
        Command::Unite {
            version,
            block,
            force,
            ..
        } => roles::unite(case, version, block, *force),
        Command::Switch { to, force, .. } => roles::switch(case, to, *force),
        Command::Block { backend, force, .. } => roles::block(case, backend, *force),
        Command::Unblock { backend, .. } => roles::unblock(case, backend),
        Command::StartRollout(_) if world.state.stable_only => Err(Refusal::StableOnly),
        Command::StartRollout(start) => rollout::start(case, start),
        Command::Promote { .. } if world.state.stable_only => Err(Refusal::StableOnly),
        Command::Promote { full, force, .. } => rollout::promote(case, *full, *force),
        Command::Pause { .. } => rollout::pause(case),
        Command::Resume { .. } => rollout::resume(case),
        Command::Progress { .. } if world.state.stable_only => Ok(()),
        Command::Progress { .. } => {
            runbook::progress(case);
            rollout::progress(case)
        }
        Command::Runbook(command) => runbook::carry_out(case, &command.act),
        Command::Database { change, .. } => database::change(case, change),
        Command::Reload { .. }
        | Command::Acknowledge
        | Command::Drill(_)
        | Command::Restore { .. }
        | Command::ChangeFlag { .. } => Ok(()),
    }
}

fn acknowledge(world: &World) -> Decision {
    let mut decision = Decision::nothing(world);
    if world.state.stable_only {
        decision.stable_only = false;
        let message =
            "the loss of the recorded state was acknowledged; the file's weights are in force";
        decision.note("acknowledged", None, message);
    }
    decision
}

impl Decision {
    /// The decision to leave everything as it is.
    #[must_use]
    pub fn nothing(world: &World) -> Self {
        Self {
            config: world.config.clone(),
            services: BTreeMap::new(),
            flags: BTreeMap::new(),
            stable_only: world.state.stable_only,
            notes: Vec::new(),
        }
    }

    fn note(&mut self, kind: &'static str, service: Option<&Name>, message: impl Into<String>) {
        self.notes.push(Note {
            kind,
            service: service.cloned(),
            message: message.into(),
        });
    }

    /// Whether it differs from the world it was made for.
    #[must_use]
    pub fn changes(&self, world: &World) -> bool {
        !self.services.is_empty()
            || !self.flags.is_empty()
            || self.stable_only != world.state.stable_only
            || !Arc::ptr_eq(&self.config, &world.config)
    }

    /// The world after it, under this revision.
    #[must_use]
    pub fn follow(&self, world: &World, revision: u64) -> World {
        let mut state = world.state.clone();
        state.revision = revision;
        state.stable_only = self.stable_only;
        state.services.extend(self.services.clone());
        // Of a drill that is over, whoever ended it.
        let services = &self.config.services;
        state
            .services
            .retain(|name, _| !is_shadow(name) || services.contains_key(name));
        if !self.flags.is_empty() {
            let flags = Arc::make_mut(&mut state.flags);
            flags.extend(self.flags.clone());
            flags.retain(|_, flag| !flag.is_empty());
        }
        World {
            config: self.config.clone(),
            state,
        }
    }
}

/// One service on the operating table.
struct Case<'a> {
    name: Name,
    file: &'a Service,
    config: &'a Config,
    before: Effective,
    state: ServiceState,
    at: Timestamp,
    outlook: Outlook<'a>,
    asked: &'a Asked,
    notes: Vec<Note>,
}

impl<'a> Case<'a> {
    fn open(
        world: &'a World,
        name: &Name,
        at: Timestamp,
        outlook: Outlook<'a>,
        asked: &'a Asked,
    ) -> Result<Self, Refusal> {
        let Some(file) = world.config.services.get(name) else {
            return Err(Refusal::UnknownService(name.clone()));
        };
        let state = world.state.services.get(name).cloned().unwrap_or_default();
        Ok(Self {
            name: name.clone(),
            file,
            config: &world.config,
            before: Effective::new(file, &state, world.state.stable_only),
            state,
            at,
            outlook,
            asked,
            notes: Vec::new(),
        })
    }

    /// What the changes amount to. Values that say the same as the file are no overrides.
    fn close(mut self, world: &World) -> Decision {
        let mut decision = Decision::nothing(world);
        let before = world
            .state
            .services
            .get(&self.name)
            .cloned()
            .unwrap_or_default();
        let after = Effective::new(self.file, &self.state, world.state.stable_only);
        self.state.stable_last = Some(after.stable.clone());
        let rose = after
            .backends
            .keys()
            .any(|name| after.share(name) > self.before.share(name));
        if rose {
            self.state.changed = Some(self.at);
        }
        retain::note(&mut self.state, self.file, &self.before, &after, self.at);
        let only_bookkeeping = ServiceState {
            stable_last: before.stable_last.clone(),
            changed: before.changed,
            ..self.state.clone()
        } == before;
        if !only_bookkeeping {
            flags::follow_rollback(&mut self, world, &before, &mut decision);
            decision.services.insert(self.name, self.state);
        }
        decision.notes = self.notes;
        decision
    }

    fn note(&mut self, kind: &'static str, message: impl Into<String>) {
        self.notes.push(Note {
            kind,
            service: Some(self.name.clone()),
            message: message.into(),
        });
    }

    fn overriding<T>(&self, value: T, file: T) -> Override<T> {
        Override {
            value,
            file,
            by: self.asked.by.clone(),
            at: self.at,
            reason: self.asked.reason.clone(),
        }
    }

    fn override_weights(&mut self, weights: IndexMap<Name, u32>) {
        self.state.lease = None;
        if weights == self.before.weights {
            return;
        }
        self.state.weights = Some(self.overriding(weights, self.file.weights.clone()));
    }

    fn override_stable(&mut self, stable: &Name) {
        if *stable != self.before.stable {
            self.state.stable = Some(self.overriding(stable.clone(), self.file.stable.clone()));
        }
    }

    fn require_backend(&self, backend: &Name) -> Result<(), Refusal> {
        if self.before.backends.contains_key(backend) {
            return Ok(());
        }
        let known: Vec<&str> = self.before.backends.keys().map(String::as_str).collect();
        Err(Refusal::UnknownBackend {
            service: self.name.clone(),
            backend: backend.clone(),
            known: known.join(", "),
        })
    }

    fn require_unblocked(&self, backend: &Name, version: &str) -> Result<(), Refusal> {
        let Some(block) = self.state.blocked.get(version) else {
            return Ok(());
        };
        Err(Refusal::Blocked {
            backend: backend.clone(),
            version: version.into(),
            since: block.at.to_string(),
            reason: block
                .reason
                .clone()
                .unwrap_or_else(|| format!("by {}", block.by)),
        })
    }

    fn health(&self, backend: &str) -> Health {
        (self.outlook.health)(&self.name, backend)
    }

    fn standing(&self, backend: &str) -> Standing {
        let standing = (self.outlook.standing)(&self.name, backend);
        standing.with_health(backend, self.health(backend).known)
    }

    /// Another backend becomes stable only after hooks that want to be asked have agreed.
    fn require_heard(&self, force: bool) -> Result<(), Refusal> {
        if force || self.asked.heard || self.asked.dry_run || !self.has_gate() {
            return Ok(());
        }
        Err(Refusal::BeforeSwitchDue(self.name.clone()))
    }

    fn has_gate(&self) -> bool {
        self.file.hooks.iter().any(|hook| hook.gate.is_some())
    }

    fn running_rollout(&self) -> Option<&RolloutState> {
        let rollout = self.state.rollout.as_ref();
        rollout.filter(|rollout| rollout.is_running())
    }

    fn require_rollout(&self) -> Result<RolloutState, Refusal> {
        let running = self.running_rollout().cloned();
        running.ok_or_else(|| Refusal::NoRollout(self.name.clone()))
    }
}

#[cfg(test)]
mod tests;
