//! Weights and backends: the commands that change settings but no roles.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use indexmap::IndexMap;
use switchback_config::check_endpoint_address;
use switchback_config::defaults::{ENDPOINTS_MAX, WEIGHT_MAX};
use switchback_config::model::{Backend, Config, Name};
use switchback_config::units::{Endpoint, EndpointHost};

use super::{Case, database, roles, rollout};
use crate::command::{Declared, Refusal};
use crate::state::{Lease, later};

/// Sets the whole split, for good or for a while.
pub(super) fn set_weights(
    case: &mut Case<'_>,
    weights: &IndexMap<Name, u32>,
    lease: Option<Duration>,
) -> Result<(), Refusal> {
    let weights = check_weights(case, weights)?;
    for (backend, weight) in &weights {
        if *weight > 0 {
            case.require_unblocked(backend, case.before.version(backend))?;
        }
    }
    let unchanged = weights == case.before.weights;
    let running = case.state.lease.take();
    if let Some(lease) = lease {
        // A renewed lease brings back what was there before it began.
        let before = running
            .filter(|_| unchanged)
            .map_or_else(|| case.before.weights.clone(), |lease| lease.weights);
        rollout::begin_lease(case, later(case.at, lease), before);
    }
    if unchanged {
        return Ok(());
    }
    case.require_fit_weights(&case.before.backends, &weights)?;
    let lease = case.state.lease.take();
    rollout::supersede(case, "its weights were set");
    let table: Vec<String> = weights
        .iter()
        .map(|(name, weight)| format!("{name}={weight}"))
        .collect();
    case.override_weights(weights);
    case.state.lease = lease;
    case.state.rolled_back.clear();
    case.note(
        "weights_changed",
        format!("weights are {}", table.join(" ")),
    );
    Ok(())
}

/// The table in the order of the service's backends, if it makes sense.
fn check_weights(
    case: &Case<'_>,
    weights: &IndexMap<Name, u32>,
) -> Result<IndexMap<Name, u32>, Refusal> {
    for backend in weights.keys() {
        case.require_backend(backend)?;
    }
    let mut table = IndexMap::new();
    for name in case.before.backends.keys() {
        let Some(weight) = weights.get(name) else {
            return Err(invalid(format!(
                "the weight of {name} is missing: name every backend, 0 means none"
            )));
        };
        if *weight > WEIGHT_MAX {
            return Err(invalid(format!(
                "the weight of {name} is {weight}, more than {WEIGHT_MAX}"
            )));
        }
        table.insert(name.clone(), *weight);
    }
    if table.values().all(|weight| *weight == 0) {
        return Err(invalid(
            "all weights are 0: give at least one backend weight".into(),
        ));
    }
    check_labels(case, &table)?;
    let canaries = table
        .iter()
        .filter(|(name, weight)| **name != case.before.stable && **weight > 0);
    if case.file.affinity.is_some() && canaries.count() > 2 {
        return Err(invalid(
            "with affinity at most two canaries can have weight".into(),
        ));
    }
    Ok(table)
}

/// Two weighted backends with one label could not be told apart by blocks.
pub(super) fn check_labels(case: &Case<'_>, table: &IndexMap<Name, u32>) -> Result<(), Refusal> {
    check_labels_of(&case.before.backends, table)
}

/// The same, for backends that are not in force yet.
pub(super) fn check_labels_of(
    backends: &IndexMap<Name, Backend>,
    table: &IndexMap<Name, u32>,
) -> Result<(), Refusal> {
    let mut labels: BTreeMap<&str, &Name> = BTreeMap::new();
    for (name, _) in table.iter().filter(|(_, weight)| **weight > 0) {
        let version = backends.get(name).map_or("", |backend| &backend.version);
        if let Some(other) = labels.insert(version, name) {
            return Err(invalid(format!(
                "{other} and {name} both run version {version:?}: only one of them can have weight"
            )));
        }
    }
    Ok(())
}

fn invalid(message: String) -> Refusal {
    Refusal::InvalidWeights(message)
}

/// What would be deployed on a backend, if it may be.
pub(super) fn deployment(
    case: &Case<'_>,
    backend: &Name,
    version: &str,
    endpoints: &[Endpoint],
    declared: &Declared,
) -> Result<Backend, Refusal> {
    case.require_backend(backend)?;
    case.require_unblocked(backend, version)?;
    check_endpoints(case.config, endpoints)?;
    let current = &case.before.backends[backend];
    let (schema, migration) = database::declared(case, backend, version, declared)?;
    Ok(Backend {
        version: version.into(),
        endpoints: endpoints.to_vec(),
        tls: current.tls.clone(),
        off_on_rollback: current.off_on_rollback.clone(),
        schema,
        migration,
    })
}

/// Registers what is deployed on a backend.
pub(super) fn set_backend(
    case: &mut Case<'_>,
    backend: &Name,
    value: Backend,
    force: bool,
) -> Result<(), Refusal> {
    let version = value.version.clone();
    let current = &case.before.backends[backend];
    let weight = case.before.weight(backend);
    let new_version = current.version != version;
    if new_version && weight > 0 && !force {
        return Err(Refusal::InUse {
            backend: backend.clone(),
            weight,
        });
    }
    if value == *current {
        return Ok(());
    }
    if weight > 0 {
        let other = case.before.weights.iter().find(|(name, weight)| {
            *name != backend && **weight > 0 && case.before.version(name) == version
        });
        if let Some((other, _)) = other {
            return Err(invalid(format!(
                "{other} already has weight with version {version:?}"
            )));
        }
    }
    if new_version {
        if case
            .running_rollout()
            .is_some_and(|rollout| rollout.canary == *backend)
        {
            rollout::supersede(case, "another version was set on its canary");
        }
        note_new_version(case, backend, weight);
    }
    let set = case.overriding(value, case.file.backends[backend].clone());
    case.state.backends.insert(backend.clone(), set);
    case.note(
        "backend_set",
        format!("{backend} is version {version:?} now"),
    );
    Ok(())
}

/// A new version ends what was known of the old one: the rollback target is gone, and a stable that
/// changed under traffic is on trial.
pub(super) fn note_new_version(case: &mut Case<'_>, backend: &Name, weight: u32) {
    if case.before.previous.as_ref() == Some(backend) {
        case.state.previous = None;
        case.state.on_trial = None;
        case.note(
            "window_ended",
            format!("{backend} was the rollback target and got a new version; there is none now"),
        );
    }
    if *backend == case.before.stable && weight > 0 {
        roles::put_on_trial(case, backend);
    }
    let in_lease = |lease: &mut Lease| {
        let comes_back = lease.weights.get(backend).is_some_and(|weight| *weight > 0);
        comes_back || case.before.weight(backend) > 0
    };
    if case.state.lease.take_if(in_lease).is_some() {
        let message =
            format!("{backend} got a new version: the weights stay when their lease ends");
        case.note("lease_ended", message);
    }
    case.state.changed = Some(case.at);
}

/// Checks addresses that arrive over the API, or from the past.
pub(super) fn check_endpoints(config: &Config, endpoints: &[Endpoint]) -> Result<(), Refusal> {
    let refuse = |endpoint: &dyn std::fmt::Display, reason: String| Refusal::EndpointRefused {
        endpoint: endpoint.to_string(),
        reason,
    };
    if endpoints.is_empty() || endpoints.len() > ENDPOINTS_MAX {
        return Err(refuse(
            &"list",
            format!("give 1 to {ENDPOINTS_MAX} endpoints"),
        ));
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        if endpoints[..index].contains(endpoint) {
            return Err(refuse(endpoint, "is named twice".into()));
        }
        if let EndpointHost::Address(address) = endpoint.host
            && let Err(reason) = allowed(config, address, endpoint.port)
        {
            return Err(refuse(endpoint, reason));
        }
    }
    Ok(())
}

/// Whether an endpoint that was set over the API may have this address. Names are checked with the
/// same function when they are looked up.
///
/// # Errors
/// The reason why not.
pub(crate) fn allowed(config: &Config, address: IpAddr, port: u16) -> Result<(), String> {
    let address = address.to_canonical();
    let own: Vec<SocketAddr> = own_addresses(config).collect();
    check_endpoint_address(address, port, &own).map_err(str::to_owned)?;
    let allow = &config.admin.endpoint_allow;
    let inside = match allow.is_empty() {
        true => is_private(address),
        false => allow.iter().any(|net| net.contains(&address)),
    };
    if inside {
        Ok(())
    } else {
        Err("is outside admin.endpoint_allow (by default loopback and private ranges)".into())
    }
}

/// Where this process listens, as configured.
pub(crate) fn own_addresses(config: &Config) -> impl Iterator<Item = SocketAddr> {
    let listeners = config.listeners.values().map(|listener| listener.address);
    let ofrep = config.ofrep.as_ref().map(|ofrep| ofrep.address);
    listeners.chain([config.admin.address]).chain(ofrep)
}

fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    }
}
