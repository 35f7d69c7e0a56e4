//! All services at a glance, small enough to be asked for every second, and the recent past of one.

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::Serialize;
use switchback_config::defaults::PACE_SECONDS;
use switchback_config::model::Name;
use switchback_config::units::Percent;
use switchback_proxy::snapshot;
use utoipa::ToSchema;

use super::backend::{Health, endpoint_health, health};
use super::cluster::Cluster;
use super::service::routes_removed;
use super::{panics, schema};
use crate::builder::find;
use crate::cluster::Fleet;
use crate::conflict::conflicts;
use crate::control::{Published, ServiceStatus};
use crate::drill::shadow::is_shadow;
use crate::ready::{Readiness, Ready};
use crate::reload::Last;
use crate::signals::{SignalCondition, signals};
use crate::state::{RolloutState, ServiceState, Wait};
use crate::trend::{Pace, Point, Trends};

/// All services in a few words each.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Overview {
    /// The state.
    revision: u64,
    /// When this was so.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// The running version of switchback.
    version: &'static str,
    /// The recorded state was lost: every service serves stable only until somebody acknowledges.
    stable_only: bool,
    /// What became of the last attempt to read the file.
    last_reload: Last,
    /// The instances that share this state; left out: there is one only.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<Cluster>,
    /// Routes that are still used, and that the file of the last start has no longer, in sentences.
    routes_removed: Vec<String>,
    /// In the order of their names.
    services: Vec<Glance>,
}

/// A service in a few words.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Glance {
    /// Its name.
    name: Name,
    /// What a canary gives its traffic back to.
    stable: Name,
    /// Where rollback goes after a switch.
    previous: Option<Name>,
    /// The stable backend that is still being watched.
    on_trial: Option<Name>,
    /// Its backends.
    backends: IndexMap<Name, GlancedBackend>,
    /// The rollout that is under way.
    rollout: Option<GlancedRollout>,
    /// Whether it could be rolled back right now; none until it was looked.
    ready: Option<GlancedReady>,
    /// How close the nearest judge is to a rollback.
    #[schema(minimum = 0, maximum = 1)]
    evidence: f64,
    /// What it did in its last seconds.
    pace: Pace,
    /// What somebody should look at, the worst first.
    concerns: Vec<Concern>,
}

/// A backend in a few words.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
struct GlancedBackend {
    /// Label of what is deployed.
    version: String,
    /// Its part of the traffic, 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    share: f64,
    /// Whether any of its endpoints works.
    health: Health,
    /// Whether its version gets no traffic.
    blocked: bool,
}

/// A rollout in a few words.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
struct GlancedRollout {
    /// The backend that grows.
    canary: Name,
    /// `running` or `paused`.
    #[schema(pattern = "^(running|paused)$", example = "running")]
    status: &'static str,
    /// The canary's share in this stage.
    #[schema(value_type = schema::Percent)]
    weight: Percent,
}

/// Whether a service could be rolled back, in a few words.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
struct GlancedReady {
    /// Whether everything holds.
    ready: bool,
    /// What does not hold, in sentences.
    reasons: Vec<String>,
}

/// Something that somebody should look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Concern {
    /// A backend with weight has no endpoint that works.
    NoHealthyEndpoint,
    /// An endpoint of a backend with weight does not work.
    UnhealthyEndpoint,
    /// A plain rule fires about stable.
    RuleFires,
    /// A version that is deployed is blocked.
    VersionBlocked,
    /// The judge, or something else, speaks against giving a canary more.
    Held,
    /// A rollout waits for somebody.
    RolloutWaits,
    /// Nothing recent is known of a signal from outside.
    SignalMissing,
    /// The file and what is in force disagree.
    FileDisagrees,
}

/// What the backends of a service did in the last minutes.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Trend {
    /// The service.
    service: Name,
    /// The first second about which everything is known here, since 1970.
    from: u32,
    /// The last one; ask for what comes `after` it to go on.
    to: u32,
    /// By backend.
    backends: IndexMap<Name, Line>,
}

/// What one backend did.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = TrendLine)]
struct Line {
    /// Seconds in which requests ended, the oldest first. In those that are left out none did.
    points: Vec<Point>,
}

/// The view of all services.
pub(in crate::api) fn overview(
    published: &Published,
    trends: &Trends,
    readiness: &Readiness,
    last_reload: Last,
    fleet: Option<&Fleet>,
) -> Overview {
    let services = published.services.iter();
    let services = services.filter(|(name, _)| !is_shadow(name));
    let ready = readiness.last();
    Overview {
        revision: published.state.revision,
        at: Timestamp::now(),
        version: env!("CARGO_PKG_VERSION"),
        stable_only: published.state.stable_only,
        last_reload,
        cluster: fleet.map(Cluster::of),
        routes_removed: routes_removed(published),
        services: services
            .map(|(name, status)| glance(published, trends, ready.get(name), name, status))
            .collect(),
    }
}

/// The view of the recent past of a service; none if it is not configured.
pub(in crate::api) fn trend(
    published: &Published,
    trends: &Trends,
    service: &Name,
    after: Option<u32>,
) -> Option<Trend> {
    let status = published.services.get(service)?;
    let names = status.effective.backends.keys();
    let mut trend = Trend {
        service: service.clone(),
        from: 0,
        to: 0,
        backends: IndexMap::new(),
    };
    for (index, name) in names.enumerate() {
        let stretch = trends.after(service, name, after);
        if index == 0 {
            (trend.from, trend.to) = (stretch.from, stretch.to);
        }
        // A second that came in between is for the next time.
        let mut points = stretch.points;
        points.retain(|point| point.second <= trend.to);
        trend.backends.insert(name.clone(), Line { points });
    }
    Some(trend)
}

fn glance(
    published: &Published,
    trends: &Trends,
    ready: Option<&Ready>,
    name: &Name,
    status: &ServiceStatus,
) -> Glance {
    let effective = &status.effective;
    let live = find(&published.snapshot, name).map(|live| &**live);
    let state = published.state.services.get(name);
    let rollout = state.and_then(|state| state.rollout.as_ref());
    let rollout = rollout.filter(|rollout| rollout.is_running());
    let trial = effective.trial_at(published.clock.now());
    let evidence = status.gauges.iter().map(|(_, gauge)| gauge.evidence());
    Glance {
        name: name.clone(),
        stable: effective.stable.clone(),
        previous: effective.previous.clone(),
        on_trial: trial.map(|trial| trial.backend.clone()),
        backends: effective
            .backends
            .iter()
            .map(|(backend, deployed)| {
                let mut known = live.into_iter().flat_map(|live| &live.backends);
                let known = known.find(|known| *known.name == **backend);
                let glanced = GlancedBackend {
                    version: deployed.version.clone(),
                    share: effective.share(backend),
                    health: known.map_or(Health::Unknown, |known| health(known)),
                    blocked: effective.blocked.contains(backend),
                };
                (backend.clone(), glanced)
            })
            .collect(),
        rollout: rollout.map(|rollout| GlancedRollout {
            canary: rollout.canary.clone(),
            status: rollout.status(),
            weight: rollout.share(rollout.stage),
        }),
        ready: ready.map(|ready| GlancedReady {
            ready: ready.ready,
            reasons: ready.reasons.clone(),
        }),
        evidence: evidence.fold(0.0, f64::max),
        pace: trends.pace(name, PACE_SECONDS),
        concerns: concerns(published, name, status, live, rollout),
    }
}

/// What somebody should look at, the worst first.
fn concerns(
    published: &Published,
    name: &Name,
    status: &ServiceStatus,
    live: Option<&snapshot::Service>,
    rollout: Option<&RolloutState>,
) -> Vec<Concern> {
    let effective = &status.effective;
    let used = || {
        let backends = live.into_iter().flat_map(|live| &live.backends);
        backends.filter(|backend| effective.weight(&backend.name) > 0)
    };
    let is_down = |backend: &snapshot::Backend| health(backend) == Health::Unhealthy;
    let has_gap = |backend: &snapshot::Backend| {
        let mut endpoints = backend.endpoints.iter();
        endpoints.any(|endpoint| endpoint_health(endpoint) == Health::Unhealthy)
    };
    let held = status
        .gauges
        .iter()
        .any(|(backend, gauge)| effective.weight(backend) > 0 && gauge.standing().hold.is_some());
    let waits = rollout.is_some_and(|rollout| {
        let standing = crate::rollout::standing(published, name, rollout);
        let waits = rollout.waits_for(published.clock.now(), &standing);
        matches!(waits, Some(Wait::Resume | Wait::Approval))
    });
    let gauge = status.stable_gauge.as_ref();
    let is_missing = |condition| condition == SignalCondition::Missing;
    let unknown = ServiceState::default();
    let recorded = published.state.services.get(name).unwrap_or(&unknown);
    let disagrees = || {
        let file = published.file(name);
        let stable_only = published.state.stable_only;
        file.is_some_and(|file| !conflicts(name, file, recorded, effective, stable_only).is_empty())
    };
    let found = [
        (
            panics(published, name) || used().any(|backend| is_down(backend)),
            Concern::NoHealthyEndpoint,
        ),
        (
            used().any(|backend| !is_down(backend) && has_gap(backend)),
            Concern::UnhealthyEndpoint,
        ),
        (
            gauge.is_some_and(|gauge| !gauge.firing().is_empty()),
            Concern::RuleFires,
        ),
        (!effective.blocked.is_empty(), Concern::VersionBlocked),
        (held, Concern::Held),
        (waits, Concern::RolloutWaits),
        (
            signals(published, name)
                .iter()
                .any(|view| is_missing(view.state)),
            Concern::SignalMissing,
        ),
        (disagrees(), Concern::FileDisagrees),
    ];
    let found = found.into_iter().filter(|(is_so, _)| *is_so);
    found.map(|(_, concern)| concern).collect()
}
