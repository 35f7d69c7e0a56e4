//! What is in force for a service: the file, then the overrides, then the blocks.
//!
//! Pure. Everything that asks "where does traffic go" starts here, so the order in which the three
//! beat each other is written once: an override beats the file, a block beats both, and the share of
//! a blocked version goes to stable. Stable itself is never a blocked version; a file that says so
//! is reported as a conflict and the service stays where it was.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::Serialize;
use switchback_config::model::{Backend, Migration, Name, OnFailure, Service};

use crate::state::{ServiceState, Trial};

/// The state of a service that is in force.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Effective {
    /// What a canary gives its traffic back to.
    pub stable: Name,
    /// Share of each backend; blocked ones have 0.
    pub weights: IndexMap<Name, u32>,
    /// The backends as deployed.
    pub backends: IndexMap<Name, Backend>,
    /// Backends whose version is blocked.
    pub blocked: BTreeSet<Name>,
    /// Where rollback goes after a switch.
    pub previous: Option<Name>,
    /// The stable backend that is still being watched.
    pub on_trial: Option<Trial>,
    /// Places where file and runtime disagree, in words.
    pub conflicts: Vec<String>,
}

impl Effective {
    /// Works out what is in force. `stable_only`: the recorded state was lost.
    #[must_use]
    pub fn new(file: &Service, state: &ServiceState, stable_only: bool) -> Self {
        let backends = effective_backends(file, state);
        let blocked = blocked_backends(&backends, state);
        let mut conflicts = Vec::new();
        let stable = effective_stable(file, state, &backends, &blocked, &mut conflicts);
        let weights = match &state.weights {
            Some(weights) => weights.value.clone(),
            None => file.weights.clone(),
        };
        let only_stable_stays =
            |name: &Name| *name != stable && (stable_only || blocked.contains(name));
        let weights = move_to_stable(&weights, &stable, &backends, only_stable_stays);
        let has = |name: &Name| backends.contains_key(name);
        Self {
            previous: state
                .previous
                .clone()
                .filter(|name| has(name) && *name != stable),
            on_trial: state
                .on_trial
                .clone()
                .filter(|trial| trial.backend == stable),
            blocked: blocked.into_iter().filter(|name| *name != stable).collect(),
            stable,
            weights,
            backends,
            conflicts,
        }
    }

    /// The weight of a backend.
    #[must_use]
    pub fn weight(&self, backend: &str) -> u32 {
        self.weights.get(backend).copied().unwrap_or(0)
    }

    /// Its part of all weights, 0 to 1.
    #[must_use]
    pub fn share(&self, backend: &str) -> f64 {
        let sum: u64 = self.weights.values().copied().map(u64::from).sum();
        #[expect(
            clippy::cast_precision_loss,
            reason = "sums of weights are far below 2^53"
        )]
        let share = f64::from(self.weight(backend)) / sum.max(1) as f64;
        share
    }

    /// The trial, if it has not ended.
    #[must_use]
    pub fn trial_at(&self, now: Timestamp) -> Option<&Trial> {
        self.on_trial.as_ref().filter(|trial| now < trial.until)
    }

    /// What is done when a backend fails, of what is asked for: one whose migration destroys is rolled back by
    /// people only.
    #[must_use]
    pub fn on_failure(&self, backend: &str, asked: OnFailure) -> OnFailure {
        let deployed = self.backends.get(backend);
        let destroys = deployed.is_some_and(|it| it.migration == Migration::Destructive);
        match asked {
            OnFailure::Rollback if destroys => OnFailure::Hold,
            asked => asked,
        }
    }

    /// The label of a backend.
    #[must_use]
    pub fn version(&self, backend: &str) -> &str {
        self.backends
            .get(backend)
            .map_or("", |backend| &backend.version)
    }
}

fn effective_backends(file: &Service, state: &ServiceState) -> IndexMap<Name, Backend> {
    let effective = file.backends.iter().map(|(name, backend)| {
        let value = match state.backends.get(name) {
            None => backend.clone(),
            // Only the file can say which flags belong to a backend.
            Some(set) => Backend {
                off_on_rollback: backend.off_on_rollback.clone(),
                ..set.value.clone()
            },
        };
        (name.clone(), value)
    });
    effective.collect()
}

fn blocked_backends(backends: &IndexMap<Name, Backend>, state: &ServiceState) -> BTreeSet<Name> {
    let blocked = backends
        .iter()
        .filter(|(_, backend)| state.blocked.contains_key(&backend.version));
    blocked.map(|(name, _)| name.clone()).collect()
}

fn effective_stable(
    file: &Service,
    state: &ServiceState,
    backends: &IndexMap<Name, Backend>,
    blocked: &BTreeSet<Name>,
    conflicts: &mut Vec<String>,
) -> Name {
    let wanted = state.stable.as_ref().map_or(&file.stable, |set| &set.value);
    let usable = |name: &Name| backends.contains_key(name) && !blocked.contains(name);
    if usable(wanted) {
        return wanted.clone();
    }
    let last = state.stable_last.as_ref().filter(|name| usable(name));
    let other = last.or_else(|| backends.keys().find(|name| usable(name)));
    let Some(other) = other else {
        conflicts.push(format!(
            "every version of this service is blocked; {wanted} keeps serving: unblock or deploy a new version"
        ));
        return wanted.clone();
    };
    conflicts.push(format!(
        "stable is {wanted}, whose version {:?} is blocked; {other} stays stable",
        backends.get(wanted).map_or("", |backend| &backend.version),
    ));
    other.clone()
}

/// The weights with those of some backends added to stable's.
pub(crate) fn move_to_stable(
    weights: &IndexMap<Name, u32>,
    stable: &str,
    backends: &IndexMap<Name, Backend>,
    leaves: impl Fn(&Name) -> bool,
) -> IndexMap<Name, u32> {
    let weight_of = |name: &Name| weights.get(name).copied().unwrap_or(0);
    let moved: u32 = backends
        .keys()
        .filter(|name| leaves(name))
        .map(weight_of)
        .sum();
    let rest: u32 = backends
        .keys()
        .filter(|name| !leaves(name))
        .map(weight_of)
        .sum();
    let after = backends.keys().map(|name| {
        let weight = match weight_of(name) {
            _ if leaves(name) => 0,
            // Nothing was left to anybody: an override that predates these backends.
            _ if name == stable && moved + rest == 0 => 1,
            weight if name == stable => weight + moved,
            weight => weight,
        };
        (name.clone(), weight)
    });
    after.collect()
}
