//! Builds the snapshot that the data plane works with from the file and what is in force.
//!
//! What has not changed is taken over by pointer from the snapshot before: counters and health
//! belong to a version and must survive, and workers recognise by the pointer that their pools and
//! samplers are still good. A weight change in one service makes one new service and nothing else.

mod deprecation;
mod endpoint;
mod exposures;
mod mirror;
mod mixture;
mod pin;
mod route;
mod slowness;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use switchback_config::defaults::SERIES_KEPT;
use switchback_config::model::{self, Config, Name};
use switchback_proxy::flag::{FlagHeader, FlagTable};
use switchback_proxy::health::Probed;
use switchback_proxy::outcome::ErrorRules;
use switchback_proxy::router::Router;
use switchback_proxy::snapshot::{Backend, Endpoint, Service, Snapshot, UpstreamLimits};
use switchback_proxy::split::Split;
use switchback_proxy::stats::{Alarm, BackendStats, JudgeCells, Limiter};

use crate::controller::Health;
use crate::effective::Effective;
use crate::route_uses::RouteUses;
use crate::state::State;

/// What files and name servers contributed.
#[derive(Clone, Debug, Default)]
pub struct Material {
    /// TLS towards the endpoints of a backend, by service and backend.
    pub upstream_tls: HashMap<(Name, Name), Arc<ClientConfig>>,
    /// The same by the contents of their files.
    pub by_contents: crate::files::ByContents,
}

impl Material {
    /// Whether both were made from the same contents.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let same = |(key, made): (&(Name, Name), &Arc<ClientConfig>)| {
            other
                .upstream_tls
                .get(key)
                .is_some_and(|other| Arc::ptr_eq(made, other))
        };
        self.upstream_tls.len() == other.upstream_tls.len() && self.upstream_tls.iter().all(same)
    }
}

/// The addresses of endpoints that are given by name, by name and port.
pub type Addresses = HashMap<(String, u16), Vec<SocketAddr>>;

/// Everything a snapshot is made from.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The file.
    pub config: &'a Config,
    /// What is in force, by service.
    pub effective: &'a BTreeMap<Name, Arc<Effective>>,
    /// The recorded state.
    pub state: &'a State,
    /// TLS.
    pub material: &'a Material,
    /// Looked-up names.
    pub addresses: &'a Addresses,
    /// Flags in force.
    pub flags: &'a FlagTable,
    /// Whether routes may have changed.
    pub new_routes: bool,
}

/// Counters of a version that has left the snapshot.
#[derive(Clone, Debug)]
pub struct Retired {
    /// Its service.
    pub service: Arc<str>,
    /// Its backend.
    pub backend: Arc<str>,
    /// Its label.
    pub version: Arc<str>,
    /// What was counted.
    pub stats: Arc<BackendStats>,
    since: Duration,
}

/// Builds snapshots, one after the other.
#[derive(Debug)]
pub struct Builder {
    workers: usize,
    alarm: Arc<Alarm>,
    last: Arc<Snapshot>,
    retired: Vec<Retired>,
    /// Of errors and of slow requests, by version.
    limiters: HashMap<(Name, Name, String), [Arc<Limiter>; 2]>,
    uses: Arc<RouteUses>,
}

impl Builder {
    /// A builder for so many workers. `alarm` is raised when a watched version fails.
    #[must_use]
    pub fn new(workers: usize, alarm: Arc<Alarm>) -> Self {
        Self {
            workers,
            alarm,
            last: Arc::new(Snapshot::empty()),
            retired: Vec::new(),
            limiters: HashMap::new(),
            uses: RouteUses::new(workers),
        }
    }

    /// When routes were last used.
    #[must_use]
    pub const fn uses(&self) -> &Arc<RouteUses> {
        &self.uses
    }

    /// Counters of versions that are gone, for as long as their series are shown.
    #[must_use]
    pub fn retired(&self) -> &[Retired] {
        &self.retired
    }

    /// The next snapshot. `now`: time since the start.
    pub fn build(&mut self, plan: &Plan<'_>, now: Duration) -> Arc<Snapshot> {
        let services: Vec<Arc<Service>> = plan
            .effective
            .iter()
            .filter_map(|(name, effective)| {
                let file = plan.config.services.get(name)?;
                Some(self.service(plan, name, file, effective))
            })
            .collect();
        let (router, routes) = if plan.new_routes {
            let routes = plan
                .config
                .routes
                .iter()
                .map(|route| route::build(plan.config, route, &services, &self.uses));
            (Arc::new(Router::new(&plan.config.routes)), routes.collect())
        } else {
            (self.last.router.clone(), self.last.routes.clone())
        };
        let snapshot = Arc::new(Snapshot {
            revision: plan.state.revision,
            router,
            routes,
            services,
            trusted_proxies: plan.config.trusted_proxies.clone(),
            access_log: plan.config.access_log.format,
        });
        self.retire(&snapshot, now);
        self.last = snapshot.clone();
        snapshot
    }

    fn service(
        &mut self,
        plan: &Plan<'_>,
        name: &Name,
        file: &model::Service,
        effective: &Effective,
    ) -> Arc<Service> {
        let before = find(&self.last, name).cloned();
        let backends: Vec<Arc<Backend>> = effective
            .backends
            .iter()
            .map(|(backend, value)| {
                let by_file = file.backends.get(backend) == Some(value);
                self.backend(plan, name, before.as_deref(), backend, value, by_file)
            })
            .collect();
        let stable = stable_of(effective);
        let split = split_of(effective, stable);
        let judged = self.judged(
            name,
            file,
            effective,
            before.as_deref(),
            &backends,
            &split,
            stable,
        );
        let parts = mirror::Parts {
            effective,
            before: before.as_deref(),
            backends: &backends,
            split: &split,
            stable,
            workers: self.workers,
            alarm: &self.alarm,
        };
        let exposures = exposures::of(
            before.as_deref(),
            &backends,
            &split,
            |index| index != stable || effective.on_trial.is_some(),
            file.rollback.sample_paths,
            self.workers,
        );
        let versions = mixture::versions(file, before.as_deref(), &backends, self.workers);
        let service = Service {
            versions,
            no_store: mixture::no_store(file, effective, &split, stable),
            mirror: mirror::build(file, &parts),
            name: name_of(before.as_deref(), name),
            blocked: blocked(effective),
            cuts: cuts(plan, name, effective),
            backends,
            split,
            stable,
            exposures,
            judged,
            errors: ErrorRules::new(&file.rollback.errors),
            slow: slowness::slowness(self.workers, file, effective, before.as_deref()),
            balance: file.balance,
            affinity: file.affinity.clone(),
            pin: pin::build(file, effective, stable, before.as_deref()),
            preview: file.preview.clone(),
            rescue: file.rescue.clone(),
            spill_to_canary: file.spill_to_canary,
            expose: file.expose,
            upstream_host: file.upstream_host.clone(),
            drain_streams: file.drain.streams.map(|span| span.0),
            upstream: UpstreamLimits::resolve(&plan.config.limits, &file.limits),
            flags: flag_header(plan, file, before.as_deref()),
        };
        match before {
            Some(before) if same_service(&before, &service) => before,
            _ => Arc::new(service),
        }
    }

    fn backend(
        &self,
        plan: &Plan<'_>,
        service: &Name,
        before: Option<&Service>,
        name: &Name,
        value: &model::Backend,
        by_file: bool,
    ) -> Arc<Backend> {
        let before = before.and_then(|service| service.backends.iter().find(|b| *b.name == **name));
        let before = before.filter(|backend| *backend.version == *value.version);
        // What the file names is believed until probes say otherwise; the API's word is checked.
        let probed = if by_file { Probed::Up } else { Probed::Unknown };
        let tls = plan
            .material
            .upstream_tls
            .get(&(service.clone(), name.clone()));
        let endpoints: Vec<Arc<Endpoint>> = value
            .endpoints
            .iter()
            .flat_map(|endpoint| {
                endpoint::addresses(endpoint, plan.addresses)
                    .map(move |address| (endpoint, address))
            })
            .map(|(endpoint, address)| {
                let made = endpoint::build(endpoint, address, tls, &value.tls, probed);
                let same =
                    before.and_then(|b| b.endpoints.iter().find(|e| endpoint::same(e, &made)));
                same.cloned().unwrap_or_else(|| Arc::new(made))
            })
            .collect();
        if let Some(before) = before {
            let unchanged = before.endpoints.len() == endpoints.len()
                && before
                    .endpoints
                    .iter()
                    .zip(&endpoints)
                    .all(|(a, b)| Arc::ptr_eq(a, b));
            if unchanged {
                return before.clone();
            }
        }
        let stats = before.map(|backend| backend.stats.clone()).or_else(|| {
            let same = |r: &&Retired| {
                *r.service == **service && *r.backend == **name && *r.version == *value.version
            };
            self.retired
                .iter()
                .find(same)
                .map(|retired| retired.stats.clone())
        });
        Arc::new(Backend {
            name: name.as_str().into(),
            version: value.version.as_str().into(),
            endpoints,
            stats: stats.unwrap_or_else(|| BackendStats::new(self.workers)),
        })
    }

    /// The cells in which the judge finds requests of the current epoch. All begin anew when a
    /// watched backend's share rises, when roles change, and when a version changes.
    #[expect(
        clippy::too_many_arguments,
        reason = "both snapshots' parts, compared one by one"
    )]
    fn judged(
        &mut self,
        name: &Name,
        file: &model::Service,
        effective: &Effective,
        before: Option<&Service>,
        backends: &[Arc<Backend>],
        split: &Split,
        stable: usize,
    ) -> Vec<Arc<JudgeCells>> {
        let on_trial = effective.on_trial.is_some();
        let is_watched = |index: usize| index != stable || on_trial;
        let timed = file.rollback.max_extra_slow.is_some();
        let same_epoch = before.is_some_and(|before| {
            let same_backends = before.backends.len() == backends.len()
                && before
                    .backends
                    .iter()
                    .zip(backends)
                    .all(|(a, b)| a.name == b.name && a.version == b.version);
            same_backends
                && before.stable == stable
                && before.affinity == file.affinity
                && before.pin.is_some() == file.pin.is_some()
                && before
                    .judged
                    .iter()
                    .all(|cells| cells.times().is_some() == timed)
                && (0..backends.len()).all(|index| {
                    !is_watched(index) || split.share(index) <= before.split.share(index)
                })
        });
        if let Some(before) = before.filter(|_| same_epoch) {
            return before.judged.clone();
        }
        let cells = backends.iter().enumerate().map(|(index, backend)| {
            let is_sticky = file.affinity.is_some() || file.pin.is_some();
            let limiters = is_sticky.then(|| {
                let key = (
                    name.clone(),
                    backend.name.to_string(),
                    backend.version.to_string(),
                );
                let new = || [Limiter::new(), Limiter::new()];
                self.limiters.entry(key).or_insert_with(new).clone()
            });
            let (errors, slow) =
                limiters.map_or((None, None), |[errors, slow]| (Some(errors), Some(slow)));
            let alarm = is_watched(index).then(|| self.alarm.clone());
            let cells = JudgeCells::new(self.workers, alarm, errors);
            Arc::new(if timed { cells.timed(slow) } else { cells })
        });
        cells.collect()
    }

    /// Keeps the counters of versions that left, and drops those that left long ago.
    fn retire(&mut self, next: &Snapshot, now: Duration) {
        let is_current = |service: &str, stats: &Arc<BackendStats>| {
            find(next, service)
                .is_some_and(|s| s.backends.iter().any(|b| Arc::ptr_eq(&b.stats, stats)))
        };
        self.retired.retain(|r| {
            now.saturating_sub(r.since) < SERIES_KEPT && !is_current(&r.service, &r.stats)
        });
        for service in &self.last.services {
            if find(next, &service.name).is_some_and(|same| Arc::ptr_eq(same, service)) {
                continue;
            }
            for backend in &service.backends {
                if !is_current(&service.name, &backend.stats) {
                    self.limiters.remove(&(
                        service.name.to_string(),
                        backend.name.to_string(),
                        backend.version.to_string(),
                    ));
                    self.retired.push(Retired {
                        service: service.name.clone(),
                        backend: backend.name.clone(),
                        version: backend.version.clone(),
                        stats: backend.stats.clone(),
                        since: now,
                    });
                }
            }
        }
    }
}

/// Which flags the backends of a service are told.
fn flag_header(
    plan: &Plan<'_>,
    file: &model::Service,
    before: Option<&Service>,
) -> Option<Arc<FlagHeader>> {
    let written = file.flags.as_ref()?;
    let live = |name: &Name| Some((name.clone(), plan.flags.flags.get(name)?.clone()));
    let header = FlagHeader {
        header: written.header.clone(),
        flags: written.names.iter().filter_map(live).collect(),
        trust: plan.flags.trust.clone(),
    };
    let before = before.and_then(|service| service.flags.as_ref());
    match before.filter(|before| before.is_same(&header)) {
        Some(same) => Some(same.clone()),
        None => Some(Arc::new(header)),
    }
}

/// How often the streams of each backend were cut.
fn cuts(plan: &Plan<'_>, service: &Name, effective: &Effective) -> Vec<u64> {
    let cut = plan.state.services.get(service).map(|state| &state.cuts);
    let cuts = effective
        .backends
        .keys()
        .map(|backend| cut.and_then(|cut| cut.get(backend)).copied().unwrap_or(0));
    cuts.collect()
}

fn name_of(before: Option<&Service>, name: &str) -> Arc<str> {
    before.map_or_else(|| name.into(), |before| before.name.clone())
}

fn stable_of(effective: &Effective) -> usize {
    let stable = effective.backends.get_index_of(&effective.stable);
    stable.unwrap_or(0)
}

fn split_of(effective: &Effective, stable: usize) -> Split {
    let names = effective.backends.keys();
    let weights: Vec<u32> = names.map(|backend| effective.weight(backend)).collect();
    Split::new(&weights, stable)
}

fn blocked(effective: &Effective) -> Vec<bool> {
    let names = effective.backends.keys();
    names
        .map(|backend| effective.blocked.contains(backend))
        .collect()
}

/// A service of a snapshot.
pub(crate) fn find<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Arc<Service>> {
    let found = snapshot
        .services
        .binary_search_by(|service| (*service.name).cmp(name));
    found.ok().map(|index| &snapshot.services[index])
}

/// What is known of a backend's endpoints; nothing works of one that is not there.
pub(crate) fn health(snapshot: &Snapshot, service: &str, backend: &str) -> Health {
    let service = find(snapshot, service);
    let found = service.and_then(|service| service.backends.iter().find(|b| *b.name == *backend));
    let endpoints = found
        .map(|backend| &backend.endpoints[..])
        .unwrap_or_default();
    Health {
        healthy: endpoints.iter().any(|e| e.health.is_healthy()),
        known: endpoints.iter().any(|e| e.health.is_known_healthy()),
    }
}

fn same_service(one: &Service, other: &Service) -> bool {
    fn same<T>(one: &[Arc<T>], other: &[Arc<T>]) -> bool {
        one.len() == other.len() && one.iter().zip(other).all(|(a, b)| Arc::ptr_eq(a, b))
    }
    same(&one.backends, &other.backends)
        && same(&one.judged, &other.judged)
        && exposures::same(&one.exposures, &other.exposures)
        && (&one.split, one.stable, &one.blocked, &one.cuts)
            == (&other.split, other.stable, &other.blocked, &other.cuts)
        && one.slow == other.slow
        && (&one.errors, one.balance, &one.affinity, &one.preview)
            == (
                &other.errors,
                other.balance,
                &other.affinity,
                &other.preview,
            )
        && (
            &one.rescue,
            one.spill_to_canary,
            one.expose,
            &one.upstream_host,
        ) == (
            &other.rescue,
            other.spill_to_canary,
            other.expose,
            &other.upstream_host,
        )
        && one.mirror.as_ref().map(Arc::as_ptr) == other.mirror.as_ref().map(Arc::as_ptr)
        && one.pin.as_ref().map(Arc::as_ptr) == other.pin.as_ref().map(Arc::as_ptr)
        && (one.drain_streams, &one.upstream) == (other.drain_streams, &other.upstream)
        && one.flags.as_ref().map(Arc::as_ptr) == other.flags.as_ref().map(Arc::as_ptr)
        && mixture::same(one.versions.as_ref(), other.versions.as_ref())
        && one.no_store == other.no_store
}
