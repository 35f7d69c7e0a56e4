//! Drills: a rollback is rehearsed before it is needed.
//!
//! A shadow of the service ([`shadow`]) is put beside it for some seconds, requests of this process's own go
//! through a real listener to backends of the drill's own ([`stage`]), of which one begins to fail. What
//! follows is what would follow: the same cells, judge, command, fence, block, store and outbox. No request
//! of a user sees the shadow, no counter of a user's request moves, and no backend of the service is asked
//! for anything.
//!
//! With `live`, a hundredth of the service's own traffic is moved to its other backend and back as well.

mod live;
mod rehearsal;
pub(crate) mod shadow;
mod stage;
mod tls;
mod walk;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use switchback_config::model::Name;
use tokio::sync::Mutex;

use crate::command::{Asked, Refusal};
use crate::control::{Controls, Published};
use crate::events::Events;
use crate::reload::Reloader;
use crate::state::{DrillRecord, later};
use crate::store::Store;

/// How often it is looked whether a drill is due.
const LOOK: Duration = Duration::from_secs(1);

/// A drill that is due and cannot take place is tried again after this.
const AGAIN: Duration = Duration::from_secs(60);

/// Everything that a drill needs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Drills {
    pub(crate) controls: Controls,
    pub(crate) store: Store,
    pub(crate) events: Events,
    pub(crate) reloader: Arc<Reloader>,
    pub(crate) base: Arc<Path>,
    /// One at a time: they would wait for the same disk.
    turn: Arc<Mutex<()>>,
}

impl Drills {
    pub(crate) fn new(
        controls: Controls,
        store: Store,
        events: Events,
        reloader: Arc<Reloader>,
        base: &Path,
    ) -> Self {
        Self {
            controls,
            store,
            events,
            reloader,
            base: base.into(),
            turn: Arc::default(),
        }
    }

    /// Rehearses a rollback of a service; with `live`, moves a hundredth of its traffic, too.
    ///
    /// # Errors
    /// When it cannot take place. That something did not hold is no error.
    ///
    /// # Cancel safety
    /// It goes on if this is dropped.
    pub(crate) async fn run(
        &self,
        service: &Name,
        live: bool,
        asked: Asked,
    ) -> Result<DrillRecord, Refusal> {
        let (drills, service) = (self.clone(), service.clone());
        let task = tokio::spawn(async move {
            let Ok(_turn) = drills.turn.try_lock() else {
                return Err(Refusal::DrillRunning);
            };
            rehearsal::run(&drills, &service, live, &asked).await
        });
        task.await.unwrap_or(Err(Refusal::Stopping))
    }

    /// Runs the drills that are due, for as long as the process runs, on one instance of a cluster.
    pub(crate) async fn keep(self) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut refused: BTreeMap<Name, Instant> = BTreeMap::new();
        loop {
            ticks.tick().await;
            refused.retain(|_, at| at.elapsed() < AGAIN);
            if !self.controls.leads() {
                continue;
            }
            let published = self.controls.published();
            for service in due(&published, published.clock.now()) {
                if refused.contains_key(&service) {
                    continue;
                }
                let asked = Asked::by_itself("drill", Some("it is due".into()));
                if let Err(refusal) = self.run(&service, false, asked).await {
                    tracing::warn!(%refusal, service, "a drill that is due could not take place");
                    refused.insert(service, Instant::now());
                }
            }
        }
    }
}

/// The last drill of a service.
pub(crate) fn last_drill<'a>(published: &'a Published, service: &str) -> Option<&'a DrillRecord> {
    published.state.services.get(service)?.drill.as_ref()
}

/// The services whose last drill is longer ago than the file says.
fn due(published: &Published, now: Timestamp) -> Vec<Name> {
    let services = published.config.services.iter();
    let due = services.filter(|(name, file)| {
        let Some(drill) = &file.drill else {
            return false;
        };
        let last = last_drill(published, name);
        last.is_none_or(|last| now >= later(last.at, drill.every.0))
    });
    due.map(|(name, _)| name.clone()).collect()
}
