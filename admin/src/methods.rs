//! The ways back of a service beside each other: how fast each was here, and what it would do to data.
//!
//! Speeds are measured, from changes and rollbacks that were carried out, from programs that have brought a
//! backend back, and from rehearsals. What was
//! never measured has none: what others claim about it says nothing about this place.

use jiff::Timestamp;
use serde::Serialize;
use switchback_config::model::Name;
use utoipa::ToSchema;

use crate::command::Cause;
use crate::control::Published;
use crate::controller::database::unfit;
use crate::effective::Effective;
use crate::evidence::{RecoveryState, Summary};
use crate::state::{DatabaseState, Phase};
use crate::timings::{Timing, Way, percentile};

/// All ways back of a service.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = RecoveryMethods)]
pub(crate) struct Methods {
    /// The service.
    pub(crate) service: Name,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) at: Timestamp,
    /// The fastest and safest first.
    pub(crate) methods: Vec<Method>,
}

/// One way back.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = RecoveryMethod)]
pub(crate) struct Method {
    /// Which.
    pub(crate) method: Way,
    /// Its name.
    pub(crate) name: &'static str,
    /// Half of them took no longer, in microseconds; `null`: not measured yet.
    pub(crate) p50_us: Option<u64>,
    /// 99 % of them took no longer.
    pub(crate) p99_us: Option<u64>,
    /// How many were measured.
    pub(crate) measured: usize,
    /// When the last one was.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) last: Option<Timestamp>,
    /// When it was last rehearsed.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) last_drill: Option<Timestamp>,
    /// What it would do to data, with what the schema check says.
    pub(crate) data_risk: String,
    /// Who does it.
    pub(crate) done_by: &'static str,
}

/// What was measured of a service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    /// By way.
    pub(crate) timings: Vec<(Way, Timing)>,
    /// Rollbacks that were carried out.
    pub(crate) rollbacks: Vec<Summary>,
}

impl Measured {
    /// All times of a way, the database's rehearsals among them.
    pub(crate) fn of(&self, way: Way, database: &DatabaseState) -> Vec<Timing> {
        let noted = self.timings.iter().filter(|(of, _)| *of == way);
        let mut found: Vec<Timing> = noted.map(|(_, timing)| timing.clone()).collect();
        let of_rollback = |rollback: &Summary| {
            let is_meant = match way {
                Way::BlueGreenSwitch => rollback.switched_back,
                Way::CanaryToZero => !rollback.switched_back,
                _ => false,
            };
            // Those that somebody asked for were measured when they were answered.
            let is_meant = is_meant && rollback.cause != Cause::Operator;
            let us = rollback.applied_in_us.filter(|_| is_meant)?;
            let moved = rollback.recovery != RecoveryState::NotNeeded;
            let (at, drill) = (rollback.at, false);
            moved.then_some(Timing { at, us, drill })
        };
        found.extend(self.rollbacks.iter().filter_map(of_rollback));
        let rehearsed = database
            .rehearsed
            .as_ref()
            .filter(|_| way == Way::DatabaseRollback);
        found.extend(rehearsed.and_then(|rehearsal| {
            Some(Timing {
                at: rehearsal.mark.at,
                us: rehearsal.took_s?.saturating_mul(1_000_000),
                drill: true,
            })
        }));
        found
    }
}

/// The ways back of a service; none if it is not configured.
pub(crate) fn methods(
    published: &Published,
    service: &Name,
    measured: &Measured,
) -> Option<Methods> {
    let effective = &published.services.get(service)?.effective;
    let state = published.state.services.get(service);
    let database = state
        .map(|state| state.database.clone())
        .unwrap_or_default();
    let row = |way: Way| {
        let times = measured.of(way, &database);
        let us: Vec<u64> = times.iter().map(|timing| timing.us).collect();
        let drills = times.iter().filter(|timing| timing.drill).map(|t| t.at);
        let rehearsed = database
            .rehearsed
            .as_ref()
            .map(|rehearsal| rehearsal.mark.at);
        Method {
            method: way,
            name: name(way),
            p50_us: percentile(&us, 50),
            p99_us: percentile(&us, 99),
            measured: us.len(),
            last: times.iter().map(|timing| timing.at).max(),
            last_drill: match way {
                Way::DatabaseRollback => rehearsed,
                _ => drills.max(),
            },
            data_risk: data_risk(way, effective, &database),
            done_by: done_by(way),
        }
    };
    Some(Methods {
        service: service.clone(),
        at: published.clock.now(),
        methods: Way::ALL.map(row).into(),
    })
}

/// As people call it.
pub(crate) const fn name(way: Way) -> &'static str {
    match way {
        Way::FlagToggle => "feature flag toggle",
        Way::ConfigRevert => "config revert",
        Way::BlueGreenSwitch => "blue/green switch",
        Way::CanaryToZero => "canary route to 0 %",
        Way::ImageRevert => "container image revert",
        Way::RollingRedeploy => "rolling redeploy",
        Way::DatabaseRollback => "database rollback",
    }
}

const fn done_by(way: Way) -> &'static str {
    match way {
        Way::FlagToggle | Way::ConfigRevert | Way::BlueGreenSwitch | Way::CanaryToZero => {
            "switchback"
        }
        Way::ImageRevert | Way::RollingRedeploy => "your deployment, by a hook",
        Way::DatabaseRollback => "you: switchback never runs it",
    }
}

/// What a way back would do to data, as far as that is known.
pub(crate) fn data_risk(way: Way, effective: &Effective, database: &DatabaseState) -> String {
    match way {
        Way::FlagToggle => "none; what the feature has written stays".into(),
        Way::ConfigRevert => "none; what cannot live with the database gets no traffic back".into(),
        Way::BlueGreenSwitch => match &effective.previous {
            Some(previous) => compatibility(previous, effective, database),
            None => "there is no previous version".into(),
        },
        Way::CanaryToZero => compatibility(&effective.stable, effective, database),
        Way::ImageRevert => match &effective.previous {
            Some(previous) => compatibility(previous, effective, database),
            None => "nothing is known of the version before".into(),
        },
        Way::RollingRedeploy => {
            "two versions write at the same time while it lasts; both have to live with the schema"
                .into()
        }
        Way::DatabaseRollback => match database.phase() {
            Some(Phase::Contract) => "data loss: the old form is being removed".into(),
            _ => "data loss: what was written in the new form only is gone".into(),
        },
    }
}

/// The schema check's answer about a backend.
fn compatibility(backend: &Name, effective: &Effective, database: &DatabaseState) -> String {
    if let Some(refusal) = unfit(database, backend, &effective.backends) {
        return format!("refused: {refusal}");
    }
    let deployed = effective.backends.get(backend);
    let says = deployed.is_some_and(|deployed| deployed.schema.is_some());
    match (database.version(), says) {
        (None, _) => "unknown: nobody has said which schema the database has".into(),
        (Some(_), false) => {
            format!("unknown: {backend} does not say which schemas it can live with")
        }
        (Some(version), true) => format!("none: {backend} can live with schema {version}"),
    }
}
