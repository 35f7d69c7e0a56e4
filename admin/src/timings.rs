//! How long each way back really took here: what was measured, never what somebody claims.
//!
//! A time runs from the swap until the last worker follows. Rollbacks that nobody asked for have theirs in
//! their records; the others are noted where they are answered, and written down a moment later. What a
//! program does for a backend (`carries_out` of a hook) takes from its start to its end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use switchback_config::model::{CarriedWay, Name};
use switchback_proxy::fence::Fence;
use utoipa::ToSchema;

use crate::command::{Command, FlagChange};
use crate::control::Published;
use crate::store::Store;

/// Times that wait to be written, at most; looked after once a second.
const WAITING_MAX: usize = 1_000;

/// A way to be rid of what a release did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WayBack)]
pub(crate) enum Way {
    /// A feature flag is turned off.
    FlagToggle,
    /// An earlier configuration comes back.
    ConfigRevert,
    /// The previous version gets everything back.
    BlueGreenSwitch,
    /// A canary gets nothing any more.
    CanaryToZero,
    /// The previous image is deployed in place of the new one.
    ImageRevert,
    /// The previous version replaces the new one, instance by instance.
    RollingRedeploy,
    /// The database goes back.
    DatabaseRollback,
}

impl Way {
    /// All of them, the fastest and safest first.
    pub(crate) const ALL: [Self; 7] = [
        Self::FlagToggle,
        Self::ConfigRevert,
        Self::BlueGreenSwitch,
        Self::CanaryToZero,
        Self::ImageRevert,
        Self::RollingRedeploy,
        Self::DatabaseRollback,
    ];

    /// What a program carries out.
    pub(crate) const fn of_carried(way: CarriedWay) -> Self {
        match way {
            CarriedWay::ImageRevert => Self::ImageRevert,
            CarriedWay::RollingRedeploy => Self::RollingRedeploy,
        }
    }

    /// As it is written.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::FlagToggle => "flag_toggle",
            Self::ConfigRevert => "config_revert",
            Self::BlueGreenSwitch => "blue_green_switch",
            Self::CanaryToZero => "canary_to_zero",
            Self::ImageRevert => "image_revert",
            Self::RollingRedeploy => "rolling_redeploy",
            Self::DatabaseRollback => "database_rollback",
        }
    }

    /// The way that is written so.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|way| way.as_str() == text)
    }
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Timing {
    /// When.
    pub(crate) at: Timestamp,
    /// How long it took, in microseconds.
    pub(crate) us: u64,
    /// It was a rehearsal.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) drill: bool,
}

/// Times that are not written yet. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timings(Arc<Mutex<Vec<(Name, Way, Timing)>>>);

/// Whose times they are that are not about one service.
pub(crate) const OF_ALL: &str = "";

impl Timings {
    /// Notes how long it took until something was in force.
    pub(crate) fn note(&self, way: (Name, Way), took: Duration) {
        self.add(way, took, false);
    }

    /// The same, for a rehearsal.
    pub(crate) fn note_drill(&self, way: (Name, Way), took: Duration) {
        self.add(way, took, true);
    }

    fn add(&self, (service, way): (Name, Way), took: Duration, drill: bool) {
        let timing = Timing {
            at: Timestamp::now(),
            us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            drill,
        };
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING_MAX {
            waiting.push((service, way, timing));
        }
    }

    /// Hands over what waits.
    pub(crate) fn save(&self, store: &Store) {
        let waiting = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for (service, way, timing) in waiting {
            store.add_timing(&service, way, timing);
        }
    }
}

/// The swap that took the weight from the canary of a drill, until its time is asked for. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rehearsed(Arc<Mutex<Option<Arc<Fence>>>>);

impl Rehearsed {
    /// Notes the swap.
    pub(crate) fn note(&self, fence: &Arc<Fence>) {
        *self.lock() = Some(fence.clone());
    }

    /// The last one, once.
    pub(crate) fn take(&self) -> Option<Arc<Fence>> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Fence>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a command is, if it is a way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Going {
    /// This one.
    By(Name, Way),
    /// Whether a canary or the whole traffic moves is seen afterwards.
    Back(Name),
}

impl Going {
    /// What a command is. What judges decide is not asked for, and has its time in its record. A file that is
    /// read again may say anything: it is no way back.
    pub(crate) fn of(command: &Command) -> Option<Self> {
        Some(match command {
            Command::ChangeFlag {
                change: FlagChange::Off | FlagChange::On,
                ..
            } => Self::By(OF_ALL.into(), Way::FlagToggle),
            Command::Restore { .. } => Self::By(OF_ALL.into(), Way::ConfigRevert),
            Command::Switch { service, .. } => Self::By(service.clone(), Way::BlueGreenSwitch),
            Command::Rollback { service, .. } => Self::Back(service.clone()),
            _ => return None,
        })
    }

    /// Which way it was.
    pub(crate) fn way(self, before: &Published, after: &Published) -> (Name, Way) {
        match self {
            Self::By(service, way) => (service, way),
            Self::Back(service) => {
                let stable = |published: &Published| {
                    let status = published.services.get(&service);
                    status.map(|status| status.effective.stable.clone())
                };
                let way = match stable(before) == stable(after) {
                    true => Way::CanaryToZero,
                    false => Way::BlueGreenSwitch,
                };
                (service, way)
            }
        }
    }
}

/// The time within which so many parts of a hundred were done, by nearest rank.
pub(crate) fn percentile(times: &[u64], percent: usize) -> Option<u64> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn percentile_is_a_time_that_was_measured() {
        let times: Vec<u64> = (1..=200).rev().collect();
        assert_eq!(percentile(&times, 50), Some(100));
        assert_eq!(percentile(&times, 99), Some(198));
        assert_eq!(percentile(&[7], 50), Some(7));
        assert_eq!(percentile(&[7], 99), Some(7));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn file_that_is_read_again_is_no_way_back_and_a_restore_is() {
        let restore = Command::Restore {
            revision: 1,
            services: BTreeMap::new(),
            flags: BTreeMap::new(),
            force: false,
        };
        let way = Going::By(OF_ALL.into(), Way::ConfigRevert);
        assert_eq!(Going::of(&restore), Some(way));
        let config = Arc::new(crate::testing::config(
            "version: 1\nlisteners: {web: {address: \"127.0.0.1:0\"}}\nroutes: [{service: a}]\nservices: {a: {backends: {b: {endpoints: [\"http://127.0.0.1:1\"]}}}}\n",
        ));
        assert_eq!(Going::of(&Command::Reload { config }), None);
    }

    #[test]
    fn every_way_is_read_as_it_is_written() {
        for way in Way::ALL {
            assert_eq!(Way::parse(way.as_str()), Some(way));
        }
        assert_eq!(Way::parse("magic"), None);
    }
}
