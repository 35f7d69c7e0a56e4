//! What is in force, as other threads may look at it.

use std::collections::BTreeMap;
use std::sync::Arc;

use switchback_config::model::{Config, Name};
use switchback_proxy::flag::FlagTable;
use switchback_proxy::snapshot::Snapshot;

use crate::builder::Retired;
use crate::clock::SteadyClock;
use crate::effective::Effective;
use crate::observer::{Gauge, StableGauge};
use crate::quiet::Quiet;
use crate::route_uses::RouteUses;
use crate::state::State;

/// Everything that is in force at one moment. Immutable.
#[derive(Debug)]
pub struct Published {
    /// The file.
    pub config: Arc<Config>,
    /// Canaries get nothing, since other instances do not wait for this one.
    pub isolated: bool,
    /// The recorded state on top of it.
    pub state: Arc<State>,
    /// What both amount to, by service.
    pub services: BTreeMap<Name, ServiceStatus>,
    /// All flags in force.
    pub flags: Arc<FlagTable>,
    /// What the data plane works with.
    pub snapshot: Arc<Snapshot>,
    /// Counters of versions that are gone.
    pub retired: Vec<Retired>,
    /// The time that decisions are made by.
    pub clock: SteadyClock,
    /// When routes were last used.
    pub uses: Arc<RouteUses>,
    /// Since when backends have had nothing to do.
    pub quiet: Arc<Quiet>,
    /// Rollbacks since the start, by service and cause.
    pub rollbacks: BTreeMap<(Name, &'static str), u64>,
    /// What checks after rollbacks found out since the start, by service and result.
    pub recoveries: BTreeMap<(Name, &'static str), u64>,
}

/// One service.
#[derive(Clone, Debug)]
pub struct ServiceStatus {
    /// What is in force.
    pub effective: Arc<Effective>,
    /// The gauges of its judges, by backend.
    pub gauges: Vec<(Name, Arc<Gauge>)>,
    /// The gauge of the watch over stable, while no other version is judged.
    pub stable_gauge: Option<Arc<StableGauge>>,
}

impl Published {
    /// The file's settings of a service.
    #[must_use]
    pub fn file(&self, service: &str) -> Option<&switchback_config::model::Service> {
        self.config.services.get(service)
    }
}
