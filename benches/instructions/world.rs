//! What is measured stands in a configuration: from the file to the snapshot, as the product does it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use switchback_admin::builder::{Addresses, Builder, Material, Plan};
use switchback_admin::effective::Effective;
use switchback_admin::observer::{Clock, Observer};
use switchback_admin::state::{ServiceState, State};
use switchback_config::model::{Config, Name};
use switchback_proxy::bench::{RoundTrip, Steps, count};
use switchback_proxy::flag::{FlagTable, Trust};
use switchback_proxy::snapshot::Snapshot;
use switchback_proxy::split::{Sampler, Split};
use switchback_proxy::stats::Alarm;

use crate::messages::{ANSWER, FEW};

/// Where nothing is: for what never connects.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

/// Between two of them.
const TICK: Duration = Duration::from_millis(50);

/// A configuration, and what is in force by it.
struct World {
    config: Config,
    state: State,
    effective: BTreeMap<Name, Arc<Effective>>,
    snapshot: Arc<Snapshot>,
}

impl World {
    fn new(text: &str) -> Self {
        let parsed = switchback_config::parse(text);
        let config = parsed
            .config
            .unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
        let state = State::default();
        let effective: BTreeMap<Name, Arc<Effective>> = config
            .services
            .iter()
            .map(|(name, file)| {
                let effective = Effective::new(file, &ServiceState::default(), false);
                (name.clone(), Arc::new(effective))
            })
            .collect();
        let plan = Plan {
            config: &config,
            effective: &effective,
            state: &state,
            material: &Material::default(),
            addresses: &Addresses::default(),
            flags: &FlagTable::empty(Trust::new(Instant::now())),
            new_routes: true,
        };
        let alarm = Alarm::new(std::thread::current());
        let snapshot = Builder::new(1, alarm).build(&plan, Duration::ZERO);
        Self {
            config,
            state,
            effective,
            snapshot,
        }
    }
}

/// A file with these routes and services. `log`: the format of the access log.
fn file(log: &str, routes: &str, services: &str) -> String {
    let head = "version: 1\nlisteners: {web: {address: \"127.0.0.1:0\"}}\n";
    format!("{head}access_log: {{format: {log}}}\nroutes:\n{routes}services:\n{services}")
}

/// A stable with canaries that share a twentieth of the traffic.
fn service(name: &str, backends: usize, origin: SocketAddr, more: &str) -> String {
    let canaries = backends - 1;
    let mut weights = format!("b0: {}", 95 * canaries);
    let mut list = format!("      b0: {{version: v0, endpoints: [\"http://{origin}\"]}}\n");
    for canary in 1..backends {
        let _ = write!(weights, ", b{canary}: 5");
        let _ = writeln!(
            list,
            "      b{canary}: {{version: v{canary}, endpoints: [\"http://{origin}\"]}}"
        );
    }
    format!("  {name}:\n    stable: b0\n    weights: {{{weights}}}\n{more}    backends:\n{list}")
}

/// Three routes: one with affinity, one that changes fields, and one for everything else.
fn shop(log: &str, backends: usize, origin: SocketAddr) -> Arc<Snapshot> {
    // Keys keep no more apart.
    let keyed = backends.min(3);
    let routes = "  - {path: /keyed, service: keyed}\n  - {path: /changed, service: shop, \
                  request_headers: {set: {x-env: prod}, remove: [x-debug]}, \
                  response_headers: {set: {x-frame-options: SAMEORIGIN}, remove: [server]}}\n  \
                  - {service: shop}\n";
    let affinity = "    affinity: {cookie: sb_user}\n";
    let services =
        service("shop", backends, origin, "") + &service("keyed", keyed, origin, affinity);
    World::new(&file(log, routes, &services)).snapshot
}

/// A request between its steps, where each service has so many backends.
pub(crate) fn steps(request: &[u8], backends: usize) -> Steps {
    Steps::new(&shop("off", backends, NOWHERE), request, ANSWER).unwrap()
}

/// The same with so many routes, on a hundred hosts at most, of which the last takes the request.
pub(crate) fn routed(routes: usize) -> Steps {
    let mut list = String::new();
    for number in 1..routes {
        let (host, path) = (number % 100, number / 100);
        let _ = writeln!(
            list,
            "  - {{host: h{host}.example, path: /p{path}, service: shop}}"
        );
    }
    list += "  - {host: shop.example, path: /items, service: shop}\n";
    let world = World::new(&file("off", &list, &service("shop", 2, NOWHERE, "")));
    assert_eq!(world.snapshot.routes.len(), routes);
    Steps::new(&world.snapshot, FEW, ANSWER).unwrap()
}

/// Shares of a stable and its canaries, with numbers that are drawn the same each time.
pub(crate) fn split_of(backends: usize) -> (Split, Sampler, fastrand::Rng) {
    let canaries = u32::try_from(backends - 1).unwrap();
    let mut weights = vec![5; backends];
    weights[0] = 95 * canaries;
    let split = Split::new(&weights, 0);
    let mut random = fastrand::Rng::with_seed(1);
    let sampler = Sampler::new(&split, &mut |bound| random.u64(0..bound));
    (split, sampler, random)
}

/// A client of the proxy, before an origin behind two backends of each service.
pub(crate) fn round_trip(request: &[u8], log: &str) -> RoundTrip {
    RoundTrip::new(|origin| shop(log, 2, origin), request, ANSWER).unwrap()
}

/// Services whose judges have looked for a while.
pub(crate) struct Judged {
    observer: Observer,
    clock: Clock,
}

impl Judged {
    /// `ticks`: how often, before the one that is counted.
    pub(crate) fn new(services: usize, ticks: u32) -> Self {
        let list: String = (0..services)
            .map(|number| service(&format!("s{number}"), 2, NOWHERE, ""))
            .collect();
        let world = World::new(&file("off", "  - {service: s0}\n", &list));
        let mut observer = Observer::default();
        let mut clock = Clock {
            now: Duration::ZERO,
            at: Timestamp::UNIX_EPOCH,
            told: Timestamp::UNIX_EPOCH,
        };
        observer.follow(
            clock,
            &world.config,
            &world.state,
            &world.effective,
            &world.snapshot,
            world.config.services.keys(),
        );
        for _ in 0..ticks {
            world.traffic();
            let notices = observer.tick(clock, false);
            assert!(notices.is_empty(), "{notices:?}");
            clock.now += TICK;
            clock.at += SignedDuration::try_from(TICK).unwrap();
        }
        world.traffic();
        Self { observer, clock }
    }

    pub(crate) fn into_parts(self) -> (Observer, Clock) {
        (self.observer, self.clock)
    }
}

impl World {
    /// What 2 000 requests a second for each service bring between two looks: 95 for stable, of
    /// which one fails, and 5 for the canary.
    fn traffic(&self) {
        for service in &self.snapshot.services {
            let [stable, canary] = &service.judged[..] else {
                panic!("{} is not judged", service.name);
            };
            count(stable, 95, 1);
            count(canary, 5, 0);
        }
    }
}
