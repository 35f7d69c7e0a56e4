//! Where the clock meets the judge: reads the counters of watched versions and says what to do.
//!
//! Every service has one [`Watch`] for each backend that is not stable, and one for a stable backend
//! on trial; while none of these judges anybody, a [`stable::StableWatch`] looks at the plain rules. A
//! watch holds a [`case::Case`] with its judge for each kind of trouble, the plain rules,
//! and an eye on the endpoints. The control thread calls [`Observer::tick`] every 50 ms, and at once
//! when a watched version fails; it gets back what it should do. After a rollback an
//! [`aftermath::Aftermath`] asks whether it helped. Nothing here changes traffic.

mod aftermath;
mod case;
mod gauge;
mod mirror;
mod pace;
mod reader;
mod recorder;
mod rules;
mod signal;
mod stable;
mod vitals;
mod watch;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use switchback_config::model::{Config, Name, OnFailure, Service};
use switchback_proxy::snapshot::{self, Snapshot};

use crate::builder::find;
use crate::command::Cause;
use crate::controller::Note;
use crate::effective::Effective;
use crate::evidence::{Amendment, VersionEvidence};
use crate::state::{Standing, State};
use aftermath::Aftermath;
pub use aftermath::RolledBack;
pub use case::Trouble;
pub use gauge::{Gauge, Reading};
pub use mirror::MirrorAlert;
use mirror::MirrorWatch;
use pace::Pace;
use stable::StableWatch;
pub use stable::{FiringRule, StableGauge};
use watch::{Roles, Watch};

/// A watched version has failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Its service.
    pub service: Name,
    /// Its backend.
    pub backend: Name,
    /// Its label.
    pub version: String,
    /// What found it out.
    pub cause: Cause,
    /// The finding in one sentence.
    pub sentence: String,
    /// What is to be done.
    pub action: OnFailure,
    /// Whether this is the first time it is said.
    pub first: bool,
}

/// What the control thread should know.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// Something is to be done about a version.
    Failing(Alert),
    /// A version fails that gets only copies.
    MirrorFailing(MirrorAlert),
    /// Somebody should hear of this.
    Tell(Note),
    /// Something was learnt of a rollback.
    Afterwards {
        /// The number of its record.
        id: u64,
        /// The service.
        service: Name,
        /// What.
        amendment: Box<Amendment>,
        /// What somebody should hear of it.
        said: Option<Note>,
    },
}

/// Watches all services.
#[derive(Debug, Default)]
pub struct Observer {
    services: BTreeMap<Name, Watched>,
    mirrors: BTreeMap<Name, MirrorWatch>,
    /// The last rollback of each service, while there is something to learn of it.
    aftermaths: BTreeMap<Name, Aftermath>,
    /// What was found out apart from ticks.
    found: Vec<Notice>,
    /// How many other instances share the promise about false rollbacks.
    others: u32,
}

/// One service.
#[derive(Debug, Default)]
struct Watched {
    watches: BTreeMap<Name, Watch>,
    /// The plain rules about stable, while nobody else is judged.
    stable: Option<StableWatch>,
    /// What slow is, where that follows stable.
    pace: Option<Pace>,
    /// When to look next while there are no requests.
    next_look: Duration,
    /// Whether there were none at the last look.
    rests: bool,
}

impl Watched {
    /// Whether nothing can be learnt now. A service without requests is looked at twice a second only:
    /// with a thousand of them, looking is what costs.
    fn can_wait(&self, now: Duration, alarmed: bool) -> bool {
        self.rests && !alarmed && now < self.next_look
    }

    /// Decides when to look next. Those that come to rest together do not stay together.
    fn plan(&mut self, service: &Name, now: Duration) {
        let has_rest = self.stable.is_none() && self.pace.is_none();
        let rests = has_rest && self.watches.values().all(Watch::is_at_rest);
        if rests && self.rests {
            self.next_look = now + REST;
        } else if rests {
            self.next_look = now + stagger(service, REST);
        }
        self.rests = rests;
    }
}

/// How long a service without requests is left alone.
const REST: Duration = Duration::from_millis(500);

/// A part of a time that is the same for the same thing.
fn stagger(what: impl Hash, of: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    of * u32::try_from(hasher.finish() % 1_000).unwrap_or(0) / 1_000
}

/// The time, as those who decide and those who watch need it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Since the start, monotonic.
    pub now: Duration,
    /// Of day, by a clock that never leaps: what is decided by.
    pub at: Timestamp,
    /// Of day, by the machine's clock: what people are told.
    pub told: Timestamp,
}

impl Observer {
    /// Takes over what is in force now, for the services in `changed`.
    pub fn follow<'a>(
        &mut self,
        clock: Clock,
        config: &Config,
        state: &State,
        effective: &BTreeMap<Name, Arc<Effective>>,
        snapshot: &Snapshot,
        changed: impl Iterator<Item = &'a Name>,
    ) {
        self.services
            .retain(|name, _| config.services.contains_key(name));
        self.mirrors
            .retain(|name, _| config.services.contains_key(name));
        for name in changed {
            let (Some(file), Some(effective)) = (config.services.get(name), effective.get(name))
            else {
                continue;
            };
            let changed_at = state.services.get(name).and_then(|state| state.changed);
            let watched = self.services.entry(name.clone()).or_default();
            watched.rests = false;
            let Watched {
                watches,
                stable,
                pace,
                ..
            } = watched;
            let slow = find(snapshot, name).and_then(|service| service.slow.as_ref());
            *pace = slow.and_then(|slow| Pace::follow(pace.take(), &slow.limit, clock.now));
            let instances = self.others.saturating_add(1);
            follow_service(
                watches, clock, name, file, effective, snapshot, changed_at, instances,
            );
            let mut before = stable.take();
            *stable = find(snapshot, name)
                .filter(|service| !is_judged(effective, clock, service))
                .and_then(|live| StableWatch::follow(&mut before, clock.now, &file.rollback, live));
            if let Some(ended) = before {
                self.found.extend(notes(name, &ended, ended.end()));
            }
            let before = self.mirrors.remove(name);
            let mirror = find(snapshot, name)
                .and_then(|service| MirrorWatch::follow(before, clock.now, file, service));
            self.mirrors
                .extend(mirror.map(|mirror| (name.clone(), mirror)));
            if let (Some(aftermath), Some(service)) =
                (self.aftermaths.get_mut(name), find(snapshot, name))
            {
                self.found.extend(aftermath.follow(clock, service));
            }
        }
        let gone = "the service has left the configuration";
        for (name, aftermath) in &mut self.aftermaths {
            if !config.services.contains_key(name) {
                self.found.extend(aftermath.interrupt(clock, gone));
            }
        }
        self.aftermaths
            .retain(|name, _| config.services.contains_key(name));
    }

    /// So many instances, with this one, share the promise about false rollbacks. Holds from the next
    /// [`Observer::follow`] on.
    pub fn share_promise(&mut self, instances: u32) {
        self.others = instances.saturating_sub(1);
    }

    /// What was seen of a version, for the record of its rollback.
    #[must_use]
    pub fn evidence(
        &self,
        clock: Clock,
        service: &str,
        backend: &str,
        tapes: bool,
    ) -> Option<VersionEvidence> {
        let watch = self.services.get(service)?.watches.get(backend)?;
        Some(watch.evidence(clock.now, backend, tapes))
    }

    /// What was seen of the version that gets a service's copies, for the record of its block.
    #[must_use]
    pub fn mirror_evidence(&self, clock: Clock, service: &str) -> Option<VersionEvidence> {
        let mirror = self.mirrors.get(service)?;
        Some(mirror.evidence(clock.now))
    }

    /// What the backend that a version is compared with usually fails at most.
    #[must_use]
    pub fn usual_rate(&self, service: &str, backend: &str) -> Option<f64> {
        let watch = self.services.get(service)?.watches.get(backend)?;
        Some(watch.usual_rate())
    }

    /// How often that is usually slow at most, if slowness is what the version is to be rolled back for.
    #[must_use]
    pub fn usual_slow_rate(&self, service: &str, backend: &str) -> Option<f64> {
        let watch = self.services.get(service)?.watches.get(backend)?;
        watch.usual_slow_rate()
    }

    /// Begins to watch whether a rollback helps; an earlier one of the same service is not watched any
    /// longer.
    pub fn watch_aftermath(&mut self, clock: Clock, service: &Name, rolled_back: &RolledBack<'_>) {
        let mut aftermath = Aftermath::new(clock, rolled_back);
        if let Some(watched) = self.services.get(service) {
            aftermath.go_on(&watched.watches);
        }
        if let Some(mut before) = self.aftermaths.insert(service.clone(), aftermath) {
            let why = "another rollback came before this was known";
            self.found.extend(before.interrupt(clock, why));
        }
    }

    /// Looks at every watched version that may have had requests. `alarmed`: one has failed since.
    pub fn tick(&mut self, clock: Clock, alarmed: bool) -> Vec<Notice> {
        let mut notices = std::mem::take(&mut self.found);
        for (service, watched) in &mut self.services {
            if watched.can_wait(clock.now, alarmed) {
                continue;
            }
            let Watched {
                watches,
                stable,
                pace,
                ..
            } = watched;
            for (backend, watch) in watches.iter_mut() {
                if let Some(finding) = watch.tick(clock) {
                    notices.push(Notice::Failing(Alert {
                        service: service.clone(),
                        backend: backend.clone(),
                        version: watch.version().to_owned(),
                        cause: finding.cause,
                        sentence: finding.sentence,
                        action: finding.action,
                        first: finding.first,
                    }));
                }
                for (kind, message) in watch.take_said() {
                    notices.push(Notice::Tell(Note {
                        kind,
                        service: Some(service.clone()),
                        message: format!("{backend}: {message}"),
                    }));
                }
            }
            if let Some(watch) = stable {
                let said = watch.tick(clock);
                notices.extend(notes(service, watch, said));
            }
            // Afterwards: what was counted until now was not slow by the limit that comes now.
            if let Some(pace) = pace {
                pace.tick(clock.now);
            }
            watched.plan(service, clock.now);
        }
        let mirrors = self.mirrors.iter_mut();
        notices.extend(
            mirrors
                .filter_map(|(service, mirror)| mirror.tick(clock.now, service))
                .map(Notice::MirrorFailing),
        );
        let aftermaths = self.aftermaths.values_mut();
        notices.extend(aftermaths.filter_map(|aftermath| aftermath.tick(clock)));
        self.aftermaths.retain(|_, aftermath| !aftermath.is_done());
        notices
    }

    /// How a watched backend does with the share it has now.
    #[must_use]
    pub fn standing(&self, service: &str, backend: &str) -> Standing {
        let watch = self
            .services
            .get(service)
            .and_then(|watched| watched.watches.get(backend));
        watch.map_or_else(Standing::default, Watch::standing)
    }

    /// The gauge of the watch over stable, while nobody else is judged.
    #[must_use]
    pub fn stable_gauge(&self, service: &str) -> Option<Arc<StableGauge>> {
        let watch = self.services.get(service)?.stable.as_ref()?;
        Some(watch.gauge().clone())
    }

    /// The gauges of a service's watches, by backend.
    #[must_use]
    pub fn gauges(&self, service: &str) -> Vec<(Name, Arc<Gauge>)> {
        let watched = self.services.get(service).into_iter();
        let watches = watched.flat_map(|watched| &watched.watches);
        watches
            .map(|(backend, watch)| (backend.clone(), watch.gauge().clone()))
            .collect()
    }
}

/// What a watch over stable has to say.
fn notes(
    service: &Name,
    watch: &StableWatch,
    said: Vec<(&'static str, String)>,
) -> impl Iterator<Item = Notice> {
    let (service, backend) = (service.clone(), watch.gauge().backend().clone());
    said.into_iter().map(move |(kind, message)| {
        Notice::Tell(Note {
            kind,
            service: Some(service.clone()),
            message: format!("{backend}: {message}"),
        })
    })
}

/// Whether a version is judged now: a canary with weight, or a stable on trial.
fn is_judged(effective: &Effective, clock: Clock, service: &snapshot::Service) -> bool {
    let mut canaries = (0..service.backends.len()).filter(|index| *index != service.stable);
    effective.trial_at(clock.at).is_some() || canaries.any(|index| service.split.weight(index) > 0)
}

#[expect(
    clippy::too_many_arguments,
    reason = "the parts of what is in force, named one by one"
)]
fn follow_service(
    watches: &mut BTreeMap<Name, Watch>,
    clock: Clock,
    name: &str,
    file: &Service,
    effective: &Effective,
    snapshot: &Snapshot,
    changed_at: Option<Timestamp>,
    instances: u32,
) {
    let Some(service) = find(snapshot, name) else {
        return;
    };
    let trial = effective.trial_at(clock.at);
    watches.retain(|backend, _| {
        effective.backends.contains_key(backend)
            && (*backend != effective.stable || trial.is_some())
    });
    for (index, backend) in effective.backends.keys().enumerate() {
        let is_stable = *backend == effective.stable;
        if is_stable && trial.is_none() {
            continue;
        }
        // The one on trial is compared with the one before it; everyone else with stable.
        let control = if is_stable {
            effective.previous.as_ref()
        } else {
            Some(&effective.stable)
        };
        let roles = Roles {
            service,
            instances,
            index,
            control: control.and_then(|name| effective.backends.get_index_of(name)),
            trial_until: trial.filter(|_| is_stable).map(|trial| trial.until),
            changed_at,
        };
        match watches.get_mut(backend) {
            Some(watch) => watch.follow(clock, file, &roles),
            None => {
                watches.insert(backend.clone(), Watch::new(clock, file, &roles));
            }
        }
    }
}
