//! Everything an explanation is made of.

use std::collections::BTreeMap;

use jiff::Timestamp;
use switchback_config::model::{Name, Service};
use switchback_proxy::health::Probed;
use switchback_proxy::snapshot::Backend;

use crate::age;
use crate::builder::{find, health};
use crate::command::{Asked, Cause, Command, Failing, Refusal};
use crate::control::Published;
use crate::controller::{Decision, Outlook, World, apply};
use crate::effective::Effective;
use crate::observer::Reading;
use crate::state::{RolloutState, ServiceState, Standing, State};

/// What is known of a backend's endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// At least one may be used.
    pub(crate) usable: bool,
    /// Probes say that all are down.
    pub(crate) all_down: bool,
}

/// What a judge last had to say.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    /// 0 to 1; 1 rolls back.
    pub(crate) evidence: f64,
    /// Its numbers, if it has any.
    pub(crate) reading: Option<Reading>,
    /// Requests that it has heard of since the share changed.
    pub(crate) requests: u64,
    /// Why its verdict would take no traffic away.
    pub(crate) refused: Option<Refusal>,
}

/// A service at one moment.
pub(crate) struct Facts<'a> {
    pub(crate) service: &'a Name,
    pub(crate) revision: u64,
    pub(crate) at: Timestamp,
    pub(crate) file: &'a Service,
    pub(crate) state: &'a ServiceState,
    pub(crate) effective: &'a Effective,
    pub(crate) stable_only: bool,
    pub(crate) seen: BTreeMap<Name, Seen>,
    pub(crate) judges: BTreeMap<Name, Judged>,
    /// How the canary of the rollout does.
    pub(crate) standing: Standing,
    /// What a rollback would do now; none: nothing.
    pub(crate) button: Result<Option<Effective>, Refusal>,
}

impl<'a> Facts<'a> {
    /// Collects what is known of a service; none if it is not configured.
    pub(crate) fn collect(
        published: &'a Published,
        service: &'a Name,
        unrecorded: &'a ServiceState,
        at: Timestamp,
    ) -> Option<Self> {
        let status = published.services.get(service)?;
        let file = published.file(service)?;
        let state = published.state.services.get(service).unwrap_or(unrecorded);
        let live = find(&published.snapshot, service)?;
        let seen = live.backends.iter();
        let rollout = state.rollout.as_ref();
        let standing = rollout.map(|rollout| crate::rollout::standing(published, service, rollout));
        let world = world_of(published, service);
        let health = |service: &str, backend: &str| health(&published.snapshot, service, backend);
        let outlook = Outlook {
            health: &health,
            standing: &|_, _| Standing::default(),
        };
        let judges = status.gauges.iter().map(|(name, gauge)| {
            let verdict = condemn(service, name, status.effective.version(name));
            let judged = Judged {
                evidence: gauge.evidence(),
                reading: gauge.nearest(),
                requests: gauge.standing().requests,
                refused: follow(&world, service, outlook, at, &verdict).err(),
            };
            (name.clone(), judged)
        });
        Some(Self {
            service,
            revision: published.state.revision,
            at,
            file,
            state,
            effective: &status.effective,
            stable_only: published.state.stable_only,
            seen: seen.map(|b| (b.name.to_string(), see(b))).collect(),
            judges: judges.collect(),
            standing: standing.unwrap_or_default(),
            button: press(&world, service, outlook, at),
        })
    }

    /// The rollout that is under way.
    pub(crate) fn rollout(&self) -> Option<&'a RolloutState> {
        self.state
            .rollout
            .as_ref()
            .filter(|rollout| rollout.is_running())
    }

    /// Whether requests may be sent to a backend; one of which nothing is known may be tried.
    pub(crate) fn is_usable(&self, backend: &str) -> bool {
        self.seen.get(backend).is_none_or(|seen| seen.usable)
    }

    /// Whether probes say that nothing with weight works, so that they are not believed.
    pub(crate) fn panics(&self) -> bool {
        let mut weighted = self
            .seen
            .iter()
            .filter(|(name, _)| self.effective.weight(name) > 0);
        weighted.all(|(_, seen)| seen.all_down)
    }

    /// `blue (version 41, stable)`.
    pub(crate) fn named(&self, backend: &Name) -> String {
        let effective = self.effective;
        let role = if *backend == effective.stable {
            "stable"
        } else if effective.previous.as_ref() == Some(backend) {
            "previous"
        } else {
            "canary"
        };
        match effective.version(backend) {
            "" => format!("{backend} ({role})"),
            version => format!("{backend} (version {version}, {role})"),
        }
    }

    /// `5 min ago (2026-11-25T22:00:00Z)`.
    pub(crate) fn ago(&self, at: Timestamp) -> String {
        format!("{} ago ({})", age::between(at, self.at), seconds(at))
    }

    /// `in 5 min (2026-11-25T22:00:00Z)`.
    pub(crate) fn ahead(&self, at: Timestamp) -> String {
        format!("in {} ({})", age::until(self.at, at), seconds(at))
    }
}

/// What would be in force after a command about a service; none: what is now.
pub(crate) fn plan(
    published: &Published,
    service: &Name,
    at: Timestamp,
    command: &Command,
) -> Result<Option<Effective>, Refusal> {
    let health = |service: &str, backend: &str| health(&published.snapshot, service, backend);
    let outlook = Outlook {
        health: &health,
        standing: &|_, _| Standing::default(),
    };
    follow(&world_of(published, service), service, outlook, at, command)
}

/// The world as far as one service is concerned.
fn world_of(published: &Published, service: &Name) -> World {
    let recorded = published.state.services.get(service);
    let recorded = recorded.map(|state| (service.clone(), state.clone()));
    World {
        config: published.config.clone(),
        state: State {
            shared: None,
            unshared: Vec::new(),
            revision: published.state.revision,
            services: recorded.into_iter().collect(),
            flags: published.state.flags.clone(),
            stable_only: published.state.stable_only,
        },
    }
}

/// A time without fractions of a second.
fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// As the data plane looks at it: a single endpoint is tried until a probe says no.
fn see(backend: &Backend) -> Seen {
    let only = backend.endpoints.len() == 1;
    let mut endpoints = backend.endpoints.iter().map(|endpoint| &endpoint.health);
    Seen {
        usable: endpoints
            .clone()
            .any(|health| health.probed() != Probed::Down && (only || !health.is_failing())),
        all_down: endpoints.all(|health| health.probed() == Probed::Down),
    }
}

/// What a rollback would do.
pub(crate) fn press(
    world: &World,
    service: &Name,
    outlook: Outlook<'_>,
    at: Timestamp,
) -> Result<Option<Effective>, Refusal> {
    let command = Command::Rollback {
        service: service.clone(),
        force: false,
        cut: false,
    };
    follow(world, service, outlook, at, &command)
}

/// The verdict of a judge.
pub(crate) fn condemn(service: &Name, backend: &Name, version: &str) -> Command {
    Command::Condemn {
        failing: Failing {
            service: service.clone(),
            backend: backend.clone(),
            version: version.into(),
            sentence: String::new(),
        },
        cause: Cause::Judge,
        force: false,
    }
}

/// What would be in force after a command; none: what is now.
pub(crate) fn follow(
    world: &World,
    service: &Name,
    outlook: Outlook<'_>,
    at: Timestamp,
    command: &Command,
) -> Result<Option<Effective>, Refusal> {
    let asked = Asked {
        dry_run: true,
        ..Asked::by_itself("explain", None)
    };
    let decision: Decision = apply(world, at, outlook, command, &asked)?;
    let after = decision.services.get(service);
    let file = decision.config.services.get(service);
    Ok(after
        .zip(file)
        .map(|(state, file)| Effective::new(file, state, decision.stable_only)))
}
