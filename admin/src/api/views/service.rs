//! Services: who gets how much, and why.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::Serialize;
use switchback_config::model::{self, Name};
use switchback_proxy::health::Probed;
use utoipa::ToSchema;

use super::cluster::Cluster;
use super::{backend, judge, mirror, rollout, runbook, schema};
use crate::builder::find;
use crate::cluster::Fleet;
use crate::conflict::{Conflict, conflicts};
use crate::control::Published;
use crate::drill::shadow::is_shadow;
use crate::observer::FiringRule;
use crate::reload::Last;
use crate::signals::{SignalView, signals};
use crate::state::{Block, Lease, Override, ServiceState, Trial};

/// All services.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Services {
    /// The state.
    revision: u64,
    /// The recorded state was lost: every service serves stable only until somebody acknowledges.
    stable_only: bool,
    /// The instances that share this state; left out: there is one only.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<Cluster>,
    /// What became of the last attempt to read the file.
    last_reload: Last,
    /// Routes that are still used, and that the file of the last start has no longer, in sentences.
    routes_removed: Vec<String>,
    /// In the order of their names.
    services: Vec<Service>,
}

/// A service: who gets how much, and how they do.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Service {
    /// Its name.
    name: Name,
    /// The state, also in `ETag`.
    revision: u64,
    /// What a canary gives its traffic back to.
    stable: Name,
    /// Where rollback goes after a switch.
    previous: Option<Name>,
    /// The stable backend that is still being watched.
    on_trial: Option<Trial>,
    /// Weight of each backend that is in force.
    #[schema(example = json!({"blue": 95, "green": 5}))]
    weights: IndexMap<Name, u32>,
    /// Its backends.
    backends: IndexMap<Name, backend::Backend>,
    /// Versions that get no traffic, by label.
    blocked_versions: BTreeMap<String, Block>,
    /// What is known about all of its endpoints together.
    health: Health,
    /// The rollout that is under way, or the last one.
    rollout: Option<rollout::Rollout>,
    /// The runbook that is being carried out, or the last one.
    runbook: Option<runbook::RunView>,
    /// What its judges think, by backend.
    judge: IndexMap<Name, judge::View>,
    /// How copies of stable's requests do, if any are made.
    mirror: Option<mirror::Mirror>,
    /// What is measured elsewhere about versions that are watched.
    signals: Vec<SignalView>,
    /// Plain rules that fire about stable itself, while no other version has weight: nothing follows.
    rules_firing: Vec<FiringRule>,
    /// Fields in which the file and what is in force disagree.
    conflicts: Vec<Conflict>,
    /// What the file says.
    file: Settings,
    /// What was changed over the API.
    #[serde(rename = "override")]
    overrides: Overrides,
    /// What is in force: the file, then overrides, then blocks.
    effective: Settings,
}

/// What is known about all endpoints of a service together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ServiceHealth)]
struct Health {
    /// Probes say that nothing with weight works, and are therefore not believed.
    panic: bool,
}

/// Roles, weights and backends.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
struct Settings {
    /// The stable backend.
    stable: Name,
    /// Weight of each backend.
    weights: IndexMap<Name, u32>,
    /// What is deployed.
    #[schema(value_type = BTreeMap<String, schema::Backend>)]
    backends: IndexMap<Name, model::Backend>,
}

/// What was changed over the API, beside what the file said then.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
struct Overrides {
    /// The stable backend.
    stable: Option<Override<Name>>,
    /// The split.
    #[schema(value_type = Option<Override<schema::Weights>>)]
    weights: Option<Override<IndexMap<Name, u32>>>,
    /// Backends registered over the API.
    #[schema(value_type = BTreeMap<String, Override<schema::Backend>>)]
    backends: BTreeMap<Name, Override<model::Backend>>,
    /// When the weights end, and what comes back then.
    lease: Option<Lease>,
}

impl From<&ServiceState> for Overrides {
    fn from(state: &ServiceState) -> Self {
        Self {
            stable: state.stable.clone(),
            weights: state.weights.clone(),
            backends: state.backends.clone(),
            lease: state.lease.clone(),
        }
    }
}

/// The view of all services.
pub(crate) fn services(
    published: &Published,
    last_reload: Last,
    fleet: Option<&Fleet>,
) -> Services {
    let names = published.services.keys();
    Services {
        revision: published.state.revision,
        stable_only: published.state.stable_only,
        cluster: fleet.map(Cluster::of),
        last_reload,
        routes_removed: routes_removed(published),
        services: names.filter_map(|name| service(published, name)).collect(),
    }
}

/// What the last start has taken away although it is used.
pub(super) fn routes_removed(published: &Published) -> Vec<String> {
    let missing = published.uses.missing(&published.config, Timestamp::now());
    missing.iter().map(ToString::to_string).collect()
}

/// The view of one service; none if it is not configured.
pub(crate) fn service(published: &Published, name: &str) -> Option<Service> {
    let status = published.services.get(name).filter(|_| !is_shadow(name))?;
    let file = published.file(name)?;
    let effective = &status.effective;
    let backends = effective.backends.keys();
    let recorded = published.state.services.get(name);
    let gauges = status.gauges.iter();
    Some(Service {
        name: name.into(),
        revision: published.state.revision,
        stable: effective.stable.clone(),
        previous: effective.previous.clone(),
        on_trial: effective.trial_at(published.clock.now()).cloned(),
        weights: effective.weights.clone(),
        backends: backends
            .filter_map(|backend| {
                let view = backend::view(published, name, status, backend)?;
                Some((backend.clone(), view))
            })
            .collect(),
        blocked_versions: recorded
            .map(|state| state.blocked.clone())
            .unwrap_or_default(),
        health: Health {
            panic: panics(published, name),
        },
        rollout: rollout::rollout(published, name),
        runbook: runbook::run(published, name),
        judge: gauges
            .map(|(backend, gauge)| {
                let on_failure = effective.on_failure(backend, file.rollback.on_failure);
                (backend.clone(), judge::view(gauge, on_failure))
            })
            .collect(),
        mirror: mirror::view(published, name, file, status),
        signals: signals(published, name),
        rules_firing: status
            .stable_gauge
            .as_ref()
            .map(|gauge| gauge.firing().to_vec())
            .unwrap_or_default(),
        conflicts: conflicts(
            name,
            file,
            recorded.unwrap_or(&ServiceState::default()),
            effective,
            published.state.stable_only,
        ),
        file: Settings {
            stable: file.stable.clone(),
            weights: file.weights.clone(),
            backends: file.backends.clone(),
        },
        overrides: recorded.map(Overrides::from).unwrap_or_default(),
        effective: Settings {
            stable: effective.stable.clone(),
            weights: effective.weights.clone(),
            backends: effective.backends.clone(),
        },
    })
}

/// Whether probes say that nothing with weight works, and are therefore not believed.
pub(crate) fn panics(published: &Published, service: &str) -> bool {
    let Some(service) = find(&published.snapshot, service) else {
        return false;
    };
    let mut endpoints = (0..service.backends.len())
        .filter(|index| service.is_open(*index))
        .flat_map(|index| &service.backends[index].endpoints)
        .peekable();
    endpoints.peek().is_some() && endpoints.all(|endpoint| endpoint.health.probed() == Probed::Down)
}
