//! One backend of a service, as it serves now.

use std::time::Instant;

use serde::Serialize;
use switchback_config::model::Name;
use switchback_proxy::health::Probed;
use switchback_proxy::outcome::CLASSES;
use switchback_proxy::snapshot;
use utoipa::ToSchema;

use crate::builder::find;
use crate::control::{Published, ServiceStatus};
use crate::effective::Effective;
use crate::quiet;
use crate::state::Block;

/// One deployed version, and how it does.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Backend {
    /// Label of what is deployed.
    version: String,
    /// What it is to its service.
    role: Role,
    /// Its weight.
    weight: u32,
    /// Its part of the traffic, 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    share: f64,
    /// Why its version gets no traffic.
    blocked: Option<Block>,
    /// Which versions its responses named in the last one to two minutes, where the file has a
    /// `version_header`.
    versions_seen: Option<VersionsSeen>,
    /// Whether its processes may be stopped: it has neither weight nor requests, has had none for
    /// `drain.safe_to_stop_after`, and nothing is about to go back to it.
    safe_to_stop: bool,
    /// Why they may not, if they may not.
    #[serde(skip_serializing_if = "Option::is_none")]
    needed: Option<String>,
    /// What it does.
    #[serde(flatten)]
    #[schema(inline)]
    live: Live,
}

/// Which versions the responses of a backend named.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
struct VersionsSeen {
    /// Whether there are several: it is being redeployed, or was not redeployed everywhere.
    mixed: bool,
    /// The versions, the most frequent first; at most 16.
    versions: Vec<VersionSeen>,
    /// Responses that named none of these.
    other: u64,
    /// Responses without the header.
    unmarked: u64,
}

/// A version that responses named.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
struct VersionSeen {
    /// As they named it.
    version: String,
    /// How many responses.
    responses: u64,
    /// Their part of all responses, 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    share: f64,
}

/// What the data plane knows of a backend.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
struct Live {
    /// Whether any of its endpoints works.
    health: Health,
    /// Its addresses.
    endpoints: Vec<Endpoint>,
    /// Requests that are under way.
    in_flight: u64,
    /// Requests that were ever begun.
    begun: u64,
    /// Requests that have ended.
    requests: u64,
    /// Those of them that ended in 5xx, connect, timeout or reset.
    failures: u64,
}

/// What a backend is to its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = BackendRole)]
enum Role {
    /// What a canary gives its traffic back to.
    Stable,
    /// Where rollback goes after a switch.
    Previous,
    /// Any other.
    Canary,
}

/// What is known of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Health {
    /// Works.
    Healthy,
    /// Not known yet.
    Unknown,
    /// Does not work.
    Unhealthy,
}

/// One address of a backend.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = EndpointHealth)]
struct Endpoint {
    /// As configured, or an address that its name stands for.
    #[schema(example = "http://127.0.0.1:9001")]
    url: String,
    /// Where its name points.
    #[schema(value_type = String, example = "127.0.0.1:9001")]
    address: std::net::SocketAddr,
    /// What is known of it.
    health: Health,
}

/// The view of a backend; none if the data plane does not know it (yet).
pub(super) fn view(
    published: &Published,
    service: &str,
    status: &ServiceStatus,
    name: &Name,
) -> Option<Backend> {
    let effective = &status.effective;
    let version = effective.version(name);
    let state = published.state.services.get(service);
    let found = find(&published.snapshot, service)?;
    let index = found
        .backends
        .iter()
        .position(|live| *live.name == **name)?;
    let live = found.backends.get(index)?;
    let needed = quiet::needed(published, service, status, live);
    Some(Backend {
        versions_seen: versions_seen(found, index),
        safe_to_stop: needed.is_none(),
        needed,
        version: version.into(),
        role: role(effective, name),
        weight: effective.weight(name),
        share: effective.share(name),
        blocked: state.and_then(|state| state.blocked.get(version)).cloned(),
        live: Live::from(&**live),
    })
}

fn versions_seen(service: &snapshot::Service, index: usize) -> Option<VersionsSeen> {
    let mixture = service.versions.as_ref()?.backends.get(index)?;
    let mut seen = mixture.seen(Instant::now());
    seen.values
        .sort_by(|one, other| (other.1, &one.0).cmp(&(one.1, &other.0)));
    let all = seen.values.iter().map(|(_, count)| count).sum::<u64>() + seen.other + seen.unmarked;
    let versions = seen.values.into_iter().map(|(version, responses)| {
        #[expect(clippy::cast_precision_loss, reason = "counts of two minutes")]
        let share = responses as f64 / all.max(1) as f64;
        VersionSeen {
            version,
            responses,
            share,
        }
    });
    let versions: Vec<VersionSeen> = versions.collect();
    Some(VersionsSeen {
        mixed: versions.len() > 1 || (versions.len() == 1 && seen.other > 0),
        versions,
        other: seen.other,
        unmarked: seen.unmarked,
    })
}

impl From<&snapshot::Backend> for Live {
    fn from(backend: &snapshot::Backend) -> Self {
        let (requests, failures) = totals(backend);
        Self {
            health: health(backend),
            endpoints: backend
                .endpoints
                .iter()
                .map(|e| Endpoint::from(&**e))
                .collect(),
            in_flight: backend.stats.in_flight(),
            begun: backend.stats.begun(),
            requests,
            failures,
        }
    }
}

impl From<&snapshot::Endpoint> for Endpoint {
    fn from(endpoint: &snapshot::Endpoint) -> Self {
        Self {
            url: format!("{}://{}", endpoint.scheme.as_str(), endpoint.authority),
            address: endpoint.address,
            health: endpoint_health(endpoint),
        }
    }
}

/// Ended requests, and those of them that ended in 5xx, connect, timeout or reset.
fn totals(backend: &snapshot::Backend) -> (u64, u64) {
    let (mut requests, mut failures) = (0, 0);
    for cells in backend.stats.split() {
        for (class, cell) in CLASSES.iter().zip(&cells.classes) {
            requests += cell.get();
            if matches!(*class, "5xx" | "connect" | "timeout" | "reset") {
                failures += cell.get();
            }
        }
    }
    (requests, failures)
}

fn role(effective: &Effective, name: &Name) -> Role {
    if *name == effective.stable {
        Role::Stable
    } else if effective.previous.as_ref() == Some(name) {
        Role::Previous
    } else {
        Role::Canary
    }
}

pub(super) fn endpoint_health(endpoint: &snapshot::Endpoint) -> Health {
    match (endpoint.health.probed(), endpoint.health.is_failing()) {
        (Probed::Down, _) | (_, true) => Health::Unhealthy,
        (Probed::Unknown, false) => Health::Unknown,
        (Probed::Up, false) => Health::Healthy,
    }
}

pub(super) fn health(backend: &snapshot::Backend) -> Health {
    let any = |health| {
        let mut endpoints = backend.endpoints.iter();
        endpoints.any(|endpoint| endpoint_health(endpoint) == health)
    };
    match (any(Health::Healthy), any(Health::Unknown)) {
        (true, _) => Health::Healthy,
        (false, true) => Health::Unknown,
        (false, false) => Health::Unhealthy,
    }
}
