//! One course of events: recorded requests, perhaps with a fault in them, under one set of settings.
//!
//! All that decides is the product itself. Requests go into the cells that workers count in, the observer
//! looks at them at the times at which it would look, and its verdicts become commands that the controller
//! decides about. Only the clock is the log's, and nobody serves: what the log says a canary answered after
//! its rollback is counted as spared.
//!
//! Roles are those of the file throughout, since a log does not tell them. A canary gets its weight (that
//! of the file, at least 1) with its first request, and a new label in the log is a reload that brings it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use switchback_config::defaults::TICK;
use switchback_config::model::{Config, Name, OnFailure};
use switchback_config::units::EndpointHost;
use switchback_proxy::flag::{FlagTable, Trust};
use switchback_proxy::outcome::{Finding, Outcome};
use switchback_proxy::replay::{self, Ended, Repeats};
use switchback_proxy::snapshot::Service;
use switchback_proxy::stats::Alarm;

use super::injection::{Injection, What, Window};
use super::names::{Names, Place};
use super::tally::{Counts, Tally, Verdict};
use crate::builder::{Addresses, Builder, Material, Plan};
use crate::command::{Asked, Command, Failing};
use crate::controller::{self, Decision, Health, Outlook};
use crate::effective::Effective;
use crate::observer::{Alert, Clock, Notice, Observer};
use crate::state::{ServiceState, State};

/// While nothing happens, only the clocks of rules go on.
const QUIET_MS: i64 = 1_000;

/// And after a minute of that, they need not be looked at so often.
const STILL_MS: i64 = 60_000;

/// No more of a hole in the log is lived through: everything that waits for time has happened by then.
const HOLE_MS: i64 = 86_400_000;

/// Things to tell of one course.
const NOTES_MAX: usize = 100;

/// A request of the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observation {
    pub(super) place: Place,
    /// The number of its line.
    pub(super) line: u64,
    pub(super) began_ms: i64,
    pub(super) outcome: Outcome,
    pub(super) took: Option<Duration>,
    /// The hash of the client's address.
    pub(super) client: u64,
    /// Stable answered in the place of the backend, which failed.
    pub(super) rescued: bool,
    /// Stable may answer requests of this method in the place of a canary.
    pub(super) rescuable: bool,
}

/// A fault, and what came of it.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) injection: Injection,
    service: usize,
    backend: usize,
    window: Window,
    /// When its backend first had a request in its time.
    pub(super) since_ms: Option<i64>,
    pub(super) counts: Counts,
}

/// One service.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) name: Name,
    live: Arc<Service>,
    /// Requests that began before are not compared with any that began later.
    epoch_ms: i64,
    repeats: Repeats,
    pub(super) backends: Vec<Stage>,
}

/// One backend.
#[derive(Debug, Default)]
pub(super) struct Stage {
    pub(super) name: Name,
    /// Its weight in the file.
    weight: u32,
    /// All its versions; the last one is there now.
    pub(super) versions: Vec<Tally>,
    /// Requests of versions that were replaced before they ended.
    pub(super) late: u64,
}

/// Something that would have been told.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Told {
    /// When.
    pub at: Timestamp,
    /// Kind of event.
    pub kind: &'static str,
    /// The service.
    pub service: Option<Name>,
    /// In words.
    pub message: String,
}

/// One course of events.
#[derive(Debug)]
pub(super) struct World {
    world: controller::World,
    effective: BTreeMap<Name, Arc<Effective>>,
    builder: Builder,
    observer: Observer,
    alarm: Arc<Alarm>,
    flags: FlagTable,
    addresses: Addresses,
    origin_ms: i64,
    last_tick_ms: i64,
    last_busy_ms: i64,
    /// Something was counted since the last look.
    unread: bool,
    pub(super) trial: Option<Trial>,
    pub(super) services: Vec<Course>,
    pub(super) told: Vec<Told>,
    pub(super) told_more: u64,
}

impl World {
    /// A world whose time begins at `origin_ms`, and its log at `start_ms`. The fault's service and backend
    /// are in the file.
    pub(super) fn new(
        config: &Config,
        injection: Option<Injection>,
        origin_ms: i64,
        start_ms: i64,
    ) -> Self {
        let start = Instant::now();
        let alarm = Alarm::new(std::thread::current());
        let trust = Trust::new(start);
        let mut world = Self {
            world: controller::World {
                config: Arc::new(idle(config)),
                state: State::default(),
            },
            effective: BTreeMap::new(),
            builder: Builder::new(1, alarm.clone()),
            observer: Observer::default(),
            alarm,
            flags: FlagTable::empty(trust),
            addresses: reachable(config),
            origin_ms,
            last_tick_ms: origin_ms,
            last_busy_ms: origin_ms,
            unread: false,
            trial: injection.and_then(|injection| Trial::new(config, injection, start_ms)),
            services: Vec::new(),
            told: Vec::new(),
            told_more: 0,
        };
        let services = world.follow(origin_ms);
        world.services = config
            .services
            .iter()
            .filter_map(|(name, service)| {
                let live = services.iter().find(|live| *live.name == **name)?.clone();
                let stage = |(backend, weight): (&Name, &u32)| Stage {
                    name: backend.clone(),
                    weight: *weight,
                    ..Stage::default()
                };
                let weight = |backend| service.weights.get(backend).unwrap_or(&0);
                let backends = service.backends.keys();
                Some(Course {
                    name: name.clone(),
                    live,
                    epoch_ms: i64::MIN,
                    repeats: Repeats::new(start),
                    backends: backends.map(|name| stage((name, weight(name)))).collect(),
                })
            })
            .collect();
        world
    }

    /// Lets the time pass in which nothing happens.
    pub(super) fn pass_until(&mut self, at_ms: i64) {
        // A hole in the log, or a wrong clock: after a day without requests there is nothing left to wait for.
        self.last_tick_ms = self.last_tick_ms.max(at_ms - HOLE_MS);
        loop {
            let step = match self.last_tick_ms - self.last_busy_ms {
                _ if self.unread => tick_ms(),
                ..STILL_MS => QUIET_MS,
                _ => STILL_MS,
            };
            let next_ms = self.last_tick_ms + step;
            if next_ms >= at_ms {
                return;
            }
            self.tick(next_ms, false);
        }
    }

    /// Looks, if it is time to, after everything of this millisecond was heard.
    pub(super) fn look(&mut self, at_ms: i64) {
        let alarmed = self.alarm.take();
        if alarmed || at_ms - self.last_tick_ms >= tick_ms() {
            self.tick(at_ms, alarmed);
        }
    }

    /// The log is over: looks once more, at what nobody has looked at.
    pub(super) fn end(&mut self) {
        if self.unread {
            self.tick(self.last_busy_ms.max(self.last_tick_ms) + tick_ms(), false);
        }
    }

    /// Hears of a request that ended.
    pub(super) fn hear(&mut self, at_ms: i64, seen: &Observation, names: &Names) {
        let Place {
            service,
            backend,
            label,
        } = seen.place;
        let current = self.services[service].backends[backend].versions.last();
        if current.is_none_or(|current| current.label != label)
            && !self.begin_version(at_ms, seen, names)
        {
            self.services[service].backends[backend].late += 1;
            return;
        }
        let now = self.since_origin(at_ms);
        let course = &mut self.services[service];
        let live = &course.live;
        let Some(tally) = course.backends[backend].versions.last_mut() else {
            return;
        };
        let mut ended = Ended {
            outcome: seen.outcome,
            took: seen.took,
            key: (live.affinity.is_some() || live.pin.is_some()).then_some(seen.client),
        };
        let hit = match &mut self.trial {
            Some(trial) if trial.meets(seen) => trial.hit(seen, &mut ended),
            _ => None,
        };
        if !live.is_open(backend) {
            let finding = live.errors.find(ended.outcome);
            tally.spared.count(finding, seen.rescued, seen.client);
            return;
        }
        course.repeats.note_request(now);
        let finding = match seen.began_ms < course.epoch_ms {
            true => live.errors.find(ended.outcome),
            false => replay::count(live, backend, &ended, now),
        };
        let is_canary = backend != live.stable;
        let rescued = match hit {
            None => seen.rescued,
            Some(()) => {
                let may_be = finding == Finding::Failure && is_canary && seen.rescuable;
                may_be && course.repeats.take(&live.rescue, now)
            }
        };
        tally.counts.count(finding, rescued, seen.client);
        if let (Some(()), Some(trial)) = (hit, &mut self.trial) {
            trial.counts.count(finding, rescued, seen.client);
        }
        self.unread = true;
        self.last_busy_ms = at_ms;
    }

    fn since_origin(&self, at_ms: i64) -> Duration {
        // The first request may have begun, and so be heard of, a little before the origin.
        let since_ms = u64::try_from(at_ms - self.origin_ms).unwrap_or(0);
        Duration::from_secs(1) + Duration::from_millis(since_ms)
    }

    fn clock(&self, at_ms: i64) -> Clock {
        let at = timestamp(at_ms);
        Clock {
            now: self.since_origin(at_ms),
            at,
            told: at,
        }
    }

    /// A label that was not there before takes its backend over; false: it had its time.
    fn begin_version(&mut self, at_ms: i64, seen: &Observation, names: &Names) -> bool {
        let Place {
            service,
            backend,
            label,
        } = seen.place;
        let course = &mut self.services[service];
        let stage = &mut course.backends[backend];
        if stage.versions.iter().any(|tally| tally.label == label) {
            return false;
        }
        let is_first = stage.versions.is_empty();
        let version = names.label(seen.place);
        stage
            .versions
            .push(Tally::new(label, version.clone(), seen.began_ms));
        let weight = stage.weight.max(1);
        let mut config = (*self.world.config).clone();
        let Some(file) = config.services.get_mut(&course.name) else {
            return false;
        };
        if let Some(file) = file.backends.get_mut(&stage.name) {
            file.version = version;
        }
        if is_first {
            // Nobody has deployed anything: this is what was there before anybody looked.
            self.world.config = Arc::new(config.clone());
        }
        if let Some(file) = config.services.get_mut(&course.name) {
            file.weights.insert(stage.name.clone(), weight);
        }
        if backend != course.live.stable {
            course.epoch_ms = seen.began_ms;
        }
        let reload = Command::Reload {
            config: Arc::new(config),
        };
        let asked = Asked::by_itself("file", None);
        if let Ok(decision) = self.decide(at_ms, &reload, &asked) {
            self.carry_out(at_ms, &decision);
        }
        true
    }

    fn decide(
        &self,
        at_ms: i64,
        command: &Command,
        asked: &Asked,
    ) -> Result<Decision, crate::command::Refusal> {
        // A log does not tell who was well; nobody is refused for that.
        let health = |_: &str, _: &str| Health {
            healthy: true,
            known: true,
        };
        let standing = |service: &str, backend: &str| self.observer.standing(service, backend);
        let outlook = Outlook {
            health: &health,
            standing: &standing,
        };
        controller::apply(&self.world, timestamp(at_ms), outlook, command, asked)
    }

    fn carry_out(&mut self, at_ms: i64, decision: &Decision) {
        let revision = self.world.state.revision + 1;
        self.world = decision.follow(&self.world, revision);
        for live in self.follow(at_ms) {
            let mut courses = self.services.iter_mut();
            if let Some(course) = courses.find(|course| *course.name == *live.name) {
                course.live = live;
            }
        }
    }

    /// Brings what is in force to those who count and to those who watch.
    fn follow(&mut self, at_ms: i64) -> Vec<Arc<Service>> {
        let clock = self.clock(at_ms);
        let controller::World { config, state } = &self.world;
        let unrecorded = ServiceState::default();
        let effective = config.services.iter().map(|(name, file)| {
            let recorded = state.services.get(name).unwrap_or(&unrecorded);
            (
                name.clone(),
                Arc::new(Effective::new(file, recorded, false)),
            )
        });
        self.effective = effective.collect();
        let plan = Plan {
            config,
            effective: &self.effective,
            state,
            material: &Material::default(),
            addresses: &self.addresses,
            flags: &self.flags,
            new_routes: false,
        };
        let snapshot = self.builder.build(&plan, clock.now);
        let all = config.services.keys();
        self.observer
            .follow(clock, config, state, &self.effective, &snapshot, all);
        snapshot.services.clone()
    }

    fn tick(&mut self, at_ms: i64, alarmed: bool) {
        self.last_tick_ms = at_ms;
        self.unread = false;
        let clock = self.clock(at_ms);
        for notice in self.observer.tick(clock, alarmed) {
            match notice {
                Notice::Failing(alert) => self.heed(at_ms, alert),
                Notice::Tell(note) => self.tell(clock.at, note),
                // There are no copies, and nobody asks whether a rollback helped.
                Notice::MirrorFailing(_) | Notice::Afterwards { .. } => {}
            }
        }
    }

    fn tell(&mut self, at: Timestamp, note: controller::Note) {
        if self.told.len() >= NOTES_MAX {
            self.told_more += 1;
            return;
        }
        self.told.push(Told {
            at,
            kind: note.kind,
            service: note.service,
            message: note.message,
        });
    }

    /// What the control thread does about a verdict.
    fn heed(&mut self, at_ms: i64, alert: Alert) {
        let first = alert.first;
        let effective = self.effective.get(&alert.service);
        let asked = alert.action;
        let action = effective.map_or(asked, |it| it.on_failure(&alert.backend, asked));
        let action = match action {
            OnFailure::Hold => "hold",
            OnFailure::Notify => "notify",
            OnFailure::Rollback => {
                let asked = Asked::by_itself("judge", Some(alert.sentence.clone()));
                let condemn = Command::Condemn {
                    failing: Failing {
                        service: alert.service.clone(),
                        backend: alert.backend.clone(),
                        version: alert.version.clone(),
                        sentence: alert.sentence.clone(),
                    },
                    cause: alert.cause,
                    force: false,
                };
                let decision = self.decide(at_ms, &condemn, &asked);
                match decision {
                    Ok(decision) if decision.changes(&self.world) => {
                        self.note_verdict(at_ms, &alert, "rollback");
                        self.carry_out(at_ms, &decision);
                        return;
                    }
                    Ok(_) | Err(_) => "kept",
                }
            }
        };
        if first {
            self.note_verdict(at_ms, &alert, action);
        }
    }

    fn note_verdict(&mut self, at_ms: i64, alert: &Alert, action: &'static str) {
        let clock = self.clock(at_ms);
        let evidence = self
            .observer
            .evidence(clock, &alert.service, &alert.backend, false);
        let judges = evidence.iter().flat_map(|evidence| &evidence.judges);
        let decisive = judges
            .filter(|judge| alert.sentence.starts_with(&judge.sentence))
            .map(|judge| judge.explanation.seconds)
            .next();
        let mut courses = self.services.iter_mut();
        let course = courses.find(|course| course.name == alert.service);
        let stages = course.into_iter().flat_map(|course| &mut course.backends);
        let mut stages = stages.filter(|stage| stage.name == alert.backend);
        let Some(tally) = stages.next().and_then(|stage| stage.versions.last_mut()) else {
            return;
        };
        tally.verdicts.push(Verdict {
            at: clock.at,
            action,
            cause: alert.cause.as_str(),
            sentence: alert.sentence.clone(),
            stretch_seconds: decisive,
            requests: tally.counts.requests,
            failures: tally.counts.failures,
            users_hurt: tally.counts.users_hurt(),
        });
    }
}

impl Trial {
    fn new(config: &Config, injection: Injection, start_ms: i64) -> Option<Self> {
        let named = injection.service.as_deref();
        let mut services = config.services.iter().enumerate();
        let (service, (_, file)) = services.find(|(_, (name, file))| {
            named.is_none_or(|named| named == name.as_str())
                && file.backends.contains_key(&injection.backend)
        })?;
        Some(Self {
            service,
            backend: file.backends.get_index_of(&injection.backend)?,
            window: injection.window(start_ms),
            injection,
            since_ms: None,
            counts: Counts::default(),
        })
    }

    /// Whether a request is one of those of which some are hit.
    fn meets(&self, seen: &Observation) -> bool {
        (seen.place.service, seen.place.backend) == (self.service, self.backend)
            && self.window.has(seen.began_ms)
    }

    /// Lets it be hit, if it is one of them.
    fn hit(&mut self, seen: &Observation, ended: &mut Ended) -> Option<()> {
        self.since_ms.get_or_insert(seen.began_ms);
        if !self.injection.hits(seen.line) {
            return None;
        }
        match self.injection.what {
            What::Ends(outcome) => ended.outcome = outcome,
            What::Takes(more) => ended.took = Some(ended.took.unwrap_or_default() + more),
        }
        Some(())
    }

    /// The place of its backend.
    pub(super) const fn place(&self) -> (usize, usize) {
        (self.service, self.backend)
    }
}

/// The file before anything has happened: all weight is with stable.
fn idle(config: &Config) -> Config {
    let mut config = config.clone();
    for service in config.services.values_mut() {
        for (backend, weight) in &mut service.weights {
            *weight = match *backend == service.stable {
                true => (*weight).max(1),
                false => 0,
            };
        }
    }
    config
}

/// Every name of an endpoint leads somewhere; nobody connects.
fn reachable(config: &Config) -> Addresses {
    let services = config.services.values();
    let backends = services.flat_map(|service| service.backends.values());
    let endpoints = backends.flat_map(|backend| &backend.endpoints);
    let named = endpoints.filter_map(|endpoint| match &endpoint.host {
        EndpointHost::Name(name) => Some((name.clone(), endpoint.port)),
        EndpointHost::Address(_) => None,
    });
    let somewhere = |port| vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)];
    named
        .map(|(name, port)| ((name, port), somewhere(port)))
        .collect()
}

fn tick_ms() -> i64 {
    i64::try_from(TICK.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn timestamp(at_ms: i64) -> Timestamp {
    Timestamp::from_millisecond(at_ms).unwrap_or_default()
}
