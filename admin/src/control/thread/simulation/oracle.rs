//! What must hold after every step, whatever has happened.
//!
//! * A rollback ends with weight 0 and a blocked version, and nothing gives that version traffic again
//!   but its unblocking.
//! * Revisions only grow, and nothing changes without a new one.
//! * What was acknowledged as durable is found again, whatever was lost beside it. What was refused is
//!   not.
//! * Nothing moves all traffic onto backends that do not work, unless somebody insists.
//! * A flag that was turned off is off when that is answered, and one that was turned on is on.
//! * Workers are told what is in force, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use switchback_config::model::Name;
use switchback_proxy::snapshot::{Service, Snapshot};

use super::Keeper;
use crate::builder::find;
use crate::command::{Command, FlagChange};
use crate::control::Published;
use crate::effective::Effective;
use crate::state::State;

#[derive(Default)]
pub(super) struct Oracle {
    /// What was in force since the process began, by revision; the same revision may begin anew.
    in_force: BTreeMap<u64, Vec<State>>,
    /// What is on its way to the disk before it is in force.
    proposed: BTreeMap<u64, State>,
    /// Of that, what was withdrawn.
    withdrawn: BTreeMap<u64, State>,
    /// The lowest revision that the disk may hold.
    durable: u64,
    /// Unblocking that was asked for and not answered.
    unblocks: Vec<(Name, Name)>,
    /// What was carried out since the last look.
    causes: Vec<Command>,
    /// Services all of whose traffic is on backends that do not work.
    dead: BTreeSet<Name>,
    health_changed: bool,
}

impl Oracle {
    /// A process finds this on the disk.
    pub(super) fn recovered(&mut self, state: &State) {
        let revision = state.revision;
        assert!(
            revision >= self.durable,
            "revision {} was durable, revision {revision} was found",
            self.durable
        );
        let mut known = self.in_force.get(&revision).into_iter().flatten();
        let is_known = known.any(|known| known == state)
            || self.proposed.get(&revision) == Some(state)
            || self.withdrawn.get(&revision) == Some(state)
            || *state == State::default();
        assert!(
            is_known,
            "found what was never in force: {state:#?}\nin force: {:#?}",
            self.in_force.last_key_value()
        );
        self.in_force = BTreeMap::from([(revision, vec![state.clone()])]);
        self.proposed.clear();
        self.withdrawn.clear();
        self.unblocks.clear();
        self.durable = revision;
    }

    /// A process has begun.
    pub(super) fn begins(&mut self, keeper: &Keeper) {
        let state = keeper.world.state.clone();
        self.in_force.entry(state.revision).or_default().push(state);
        self.dead = dead(&keeper.plane.snapshot());
        self.causes.clear();
    }

    /// The process ended as it should.
    pub(super) fn stopped(&mut self) {
        self.durable = self.revision();
        self.proposed.clear();
        self.withdrawn.clear();
    }

    /// The process was killed. `settled`: there was nothing left to write.
    pub(super) fn killed(&mut self, settled: bool) {
        if settled {
            self.durable = self.revision();
            self.withdrawn.clear();
        }
    }

    /// The revision in force.
    fn revision(&self) -> u64 {
        let last = self.in_force.last_key_value();
        last.map_or(0, |(revision, _)| *revision)
    }

    pub(super) fn health_changed(&mut self) {
        self.health_changed = true;
    }

    pub(super) fn asked(&mut self, command: &Command) {
        if let Command::Unblock { service, backend } = command {
            self.unblocks.push((service.clone(), backend.clone()));
        }
    }

    /// A change is being written.
    pub(super) fn proposed(&mut self, revision: u64, state: State) {
        self.proposed.entry(revision).or_insert(state);
    }

    /// A revision is known to be on disk.
    pub(super) fn durable(&mut self, revision: u64) {
        self.durable = self.durable.max(revision);
    }

    /// Somebody hears that a change is in force.
    pub(super) fn applied(&mut self, command: &Command, published: &Published) {
        self.causes.push(command.clone());
        if let Command::ChangeFlag { flag, change } = command {
            let live = published.flags.flags.get(flag);
            let enabled = live.is_some_and(|live| live.flag.enabled);
            match change {
                FlagChange::Off | FlagChange::KeepOff => assert!(!enabled, "{flag} is on"),
                FlagChange::On => assert!(enabled, "{flag} is off"),
                _ => {}
            }
        }
        let Some(service) = command.service() else {
            return;
        };
        let Some(status) = published.services.get(service) else {
            return;
        };
        let effective = &status.effective;
        match command {
            Command::SetWeights { weights, .. } => {
                let mut weights = weights.iter();
                assert!(
                    weights.all(|(name, weight)| effective.weight(name) == *weight),
                    "{command:?} gave {:?}",
                    effective.weights
                );
            }
            Command::Switch { to, .. } => assert_eq!(effective.stable, *to, "{command:?}"),
            Command::Rollback { .. } => {
                let mut weights = effective.weights.iter();
                assert!(
                    weights.all(|(name, weight)| *weight == 0 || *name == effective.stable),
                    "{command:?} left {:?}",
                    effective.weights
                );
            }
            Command::Block { backend, .. } => {
                let blocked = &published.state.services[service].blocked;
                assert!(
                    blocked.contains_key(effective.version(backend)),
                    "{command:?} left {blocked:?}"
                );
            }
            _ => {}
        }
    }

    /// The control thread has turned.
    pub(super) fn look(&mut self, keeper: &Keeper) {
        let state = &keeper.world.state;
        let last = self.in_force.last_key_value();
        let (revision, before) =
            last.map_or((0, None), |(number, states)| (*number, states.last()));
        if before != Some(state) {
            assert!(
                state.revision > revision,
                "revision {} comes after {revision}",
                state.revision
            );
            if let Some(before) = before {
                self.check_unblocked(before, keeper);
            }
            self.in_force
                .entry(state.revision)
                .or_default()
                .push(state.clone());
        }
        let snapshot = keeper.plane.snapshot();
        for (name, effective) in &keeper.effective {
            check_blocks(name, effective, state);
            let service = find(&snapshot, name).expect("workers know every service");
            check_snapshot(name, effective, service);
        }
    }

    /// Only who asks for it lets a version in again.
    fn check_unblocked(&self, before: &State, keeper: &Keeper) {
        for (name, old) in &before.services {
            let new = &keeper.world.state.services[name];
            let gone = old
                .blocked
                .keys()
                .filter(|label| !new.blocked.contains_key(*label));
            for label in gone {
                let version = |backend: &Name| {
                    let effective = keeper.effective.get(name);
                    effective.map_or("", |effective| effective.version(backend))
                };
                let mut asked = self.unblocks.iter();
                assert!(
                    asked.any(|(service, backend)| service == name && version(backend) == label),
                    "{name}: nobody asked for {label:?} to be let in again"
                );
            }
        }
    }

    /// Those who asked have heard.
    pub(super) fn turned(&mut self, keeper: &Keeper) {
        for cause in &self.causes {
            if let Command::Unblock { service, backend } = cause {
                let mut unblocks = self.unblocks.iter();
                let asked = unblocks.position(|(s, b)| (s, b) == (service, backend));
                asked.map(|asked| self.unblocks.remove(asked));
            }
        }
        let pending = keeper.pending.as_ref().map(|pending| pending.revision);
        let (kept, gone): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.proposed)
            .into_iter()
            .partition(|(revision, _)| Some(*revision) == pending);
        self.proposed = kept;
        self.withdrawn.extend(gone);
        let dead = dead(&keeper.plane.snapshot());
        let insisted = self.causes.iter().any(insists);
        if !self.health_changed && !insisted {
            for name in &dead {
                assert!(
                    self.dead.contains(name),
                    "{name}: all traffic was moved to where nothing works, by {:?}",
                    self.causes
                );
            }
        }
        self.dead = dead;
        self.causes.clear();
        self.health_changed = false;
    }
}

/// Whether somebody wants it whatever works.
fn insists(command: &Command) -> bool {
    match command {
        Command::SetWeights { .. } | Command::Reload { .. } => true,
        Command::Rollback { force, .. }
        | Command::Switch { force, .. }
        | Command::Block { force, .. }
        | Command::SetBackend { force, .. }
        | Command::Promote { force, .. } => *force,
        Command::StartRollout(start) => start.force,
        _ => false,
    }
}

pub(super) fn check_blocks(name: &Name, effective: &Effective, state: &State) {
    let blocked = |label: &str| {
        let state = state.services.get(name);
        state.is_some_and(|state| state.blocked.contains_key(label))
    };
    let versions = effective.backends.values();
    let all_blocked = versions
        .map(|backend| &backend.version)
        .all(|label| blocked(label));
    let mut serves = false;
    for (backend, weight) in &effective.weights {
        serves |= *weight > 0;
        assert!(
            *weight == 0
                || !blocked(effective.version(backend))
                || (all_blocked && *backend == effective.stable),
            "{name}: {backend} is blocked and has weight: {effective:#?}"
        );
    }
    assert!(serves, "{name}: nobody serves: {effective:#?}");
    assert_ne!(
        effective.previous.as_ref(),
        Some(&effective.stable),
        "{name}"
    );
}

/// Workers follow what is in force.
fn check_snapshot(name: &Name, effective: &Effective, service: &Service) {
    for (index, backend) in service.backends.iter().enumerate() {
        let open = effective.weight(&backend.name) > 0;
        assert_eq!(service.is_open(index), open, "{name}: {}", backend.name);
        assert_eq!(
            *backend.version,
            *effective.version(&backend.name),
            "{name}"
        );
    }
    let stable = &service.backends[service.stable];
    assert_eq!(*stable.name, *effective.stable, "{name}");
}

fn dead(snapshot: &Snapshot) -> BTreeSet<Name> {
    let works = |service: &Service| {
        let backends = service.backends.iter().enumerate();
        let mut open = backends.filter(|(index, _)| service.is_open(*index));
        open.any(|(_, backend)| backend.endpoints.iter().any(|e| e.health.is_healthy()))
    };
    let services = snapshot.services.iter().filter(|service| !works(service));
    services.map(|service| service.name.to_string()).collect()
}
