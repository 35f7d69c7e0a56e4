//! Whether a service can be rolled back right now, and if not, why.
//!
//! What a rollback would do is decided by the function that would carry it out; the rest is what it takes
//! for that to help: somebody who can serve all of it, a database they can live with, a way that was
//! tried lately, a disk that remembers. All of it is known beforehand, so that nobody finds out in an
//! incident.

mod checks;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use switchback_config::defaults::ROLLBACKS_KEPT;
use switchback_config::model::Name;
use utoipa::ToSchema;

use crate::control::{Controls, Published};
use crate::drill::{self, shadow::is_shadow};
use crate::retain::Reached;
use crate::store::Store;

/// How often all of it is looked at anew, in seconds; sooner when something has changed.
const LOOK_EVERY: u64 = 5;

/// How often it is looked up when services were last rolled back, in seconds.
const READ_EVERY: u64 = 30;

/// Whether a service can be rolled back.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Readiness)]
pub(crate) struct Ready {
    /// The service.
    pub(crate) service: Name,
    /// Whether everything holds.
    pub(crate) ready: bool,
    /// Who would get the traffic; none: nobody.
    pub(crate) target: Option<Name>,
    /// What does not hold, in sentences.
    pub(crate) reasons: Vec<String>,
    /// All that was looked at.
    pub(crate) checks: Vec<Check>,
}

/// One thing that has to hold.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ReadinessCheck)]
pub(crate) struct Check {
    /// What it is about; never changes its meaning.
    #[schema(example = "target_up")]
    pub(crate) check: &'static str,
    /// Whether it holds.
    pub(crate) ok: bool,
    /// In words.
    pub(crate) text: String,
}

/// What is known about the way back of all services. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readiness(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// Whether earlier versions can be reached, by service and label.
    reached: BTreeMap<(Name, String), Reached>,
    /// When services were last rolled back.
    rolled_back: BTreeMap<Name, Timestamp>,
    /// What was found when it was last looked.
    services: Arc<BTreeMap<Name, Ready>>,
}

/// What is known about the way back beside what is published.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inputs {
    /// When the way back was last taken.
    pub(crate) last_drill: Option<Timestamp>,
    /// Why the state cannot be written.
    pub(crate) trouble: Option<String>,
    /// Whether earlier versions can be reached, by label.
    pub(crate) reached: BTreeMap<String, Reached>,
}

/// Looks at all services until the process ends.
pub(crate) async fn run(controls: Controls, store: Store, readiness: Readiness) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut second, mut seen) = (0_u64, None);
    loop {
        ticks.tick().await;
        if second.is_multiple_of(READ_EVERY) {
            readiness.read_rollbacks(&store).await;
        }
        let published = controls.published();
        let revision = published.state.revision;
        if second.is_multiple_of(LOOK_EVERY) || seen != Some(revision) {
            let (readiness, trouble) = (readiness.clone(), store.trouble());
            // Of ten thousand services it takes a moment, for which nobody else should wait.
            let look = move || readiness.look_at_all(&published, trouble);
            let _ = tokio::task::spawn_blocking(look).await;
            seen = Some(revision);
        }
        second += 1;
    }
}

impl Readiness {
    /// Whether a service can be rolled back; none if it is not configured.
    pub(crate) fn of(
        &self,
        published: &Published,
        service: &Name,
        trouble: Option<String>,
    ) -> Option<Ready> {
        checks::ready(
            published,
            service,
            &self.inputs(published, service, trouble),
        )
    }

    /// What was found when it was last looked, some seconds ago at most.
    pub(crate) fn last(&self) -> Arc<BTreeMap<Name, Ready>> {
        self.lock().services.clone()
    }

    /// What the last look at an earlier version came to.
    pub(crate) fn reached(&self, service: &Name, version: &str) -> Option<Reached> {
        let key = (service.clone(), version.to_owned());
        self.lock().reached.get(&key).cloned()
    }

    /// Takes over what a look at all earlier versions came to.
    pub(crate) fn set_reached(&self, reached: BTreeMap<(Name, String), Reached>) {
        self.lock().reached = reached;
    }

    /// Looks up when services were last rolled back.
    pub(crate) async fn read_rollbacks(&self, store: &Store) {
        let limit = usize::try_from(ROLLBACKS_KEPT).unwrap_or(usize::MAX);
        let Ok(rollbacks) = store.rollbacks(None, None, limit).await else {
            return;
        };
        let mut known = self.lock();
        known.rolled_back.clear();
        for rollback in rollbacks.into_iter().rev() {
            known.rolled_back.insert(rollback.service, rollback.at);
        }
    }

    fn look_at_all(&self, published: &Published, trouble: Option<String>) {
        let names = published.services.keys().filter(|name| !is_shadow(name));
        let found = names.filter_map(|name| {
            let ready = self.of(published, name, trouble.clone())?;
            Some((name.clone(), ready))
        });
        let found = Arc::new(found.collect());
        self.lock().services = found;
    }

    fn inputs(&self, published: &Published, service: &Name, trouble: Option<String>) -> Inputs {
        let known = self.lock();
        let reached = known.reached.iter().filter(|((of, _), _)| of == service);
        Inputs {
            last_drill: last_drill(published, service, known.rolled_back.get(service).copied()),
            trouble,
            reached: reached
                .map(|((_, version), reached)| (version.clone(), reached.clone()))
                .collect(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When the way back was last taken, in earnest or as a rehearsal that held.
fn last_drill(
    published: &Published,
    service: &str,
    rolled_back: Option<Timestamp>,
) -> Option<Timestamp> {
    let rehearsed = drill::last_drill(published, service).filter(|drill| drill.passed);
    rolled_back.max(rehearsed.map(|drill| drill.at))
}
