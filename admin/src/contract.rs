//! The gate before the contract: whether the old form of a database may be removed.
//!
//! After that, what needs the old form cannot come back, so everything that could want it must be gone for
//! long enough: versions with traffic, the rollback target, versions that got a request lately, and
//! trouble that might make somebody go back. A backend that does not say which schemas it can live with is
//! named even without traffic: once the contract is over, nothing would keep it from any. Pure; who asks brings what the disk and the counters know.

use jiff::Timestamp;
use serde::Serialize;
use switchback_config::model::{Name, SchemaSupport, Service};
use switchback_config::units::TimeSpan;
use utoipa::ToSchema;

use crate::age;
use crate::api::views::schema;
use crate::control::{Published, ServiceStatus};
use crate::effective::Effective;
use crate::evidence::{RecoveryState, Summary};
use crate::sightings::{Seen, Sighting};
use crate::state::{DatabaseState, Phase, later, objection};

/// Whether the contract may begin.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ContractGate)]
pub(crate) struct Gate {
    /// The service.
    pub(crate) service: Name,
    /// Whether nothing is against it.
    pub(crate) open: bool,
    /// The schema that the contract would leave; none: nobody has said which there is.
    pub(crate) leaves: Option<u32>,
    /// No request must have gone for so long to a version that could not live after it.
    #[schema(value_type = schema::TimeSpan)]
    pub(crate) contract_after: TimeSpan,
    /// What is against it.
    pub(crate) reasons: Vec<String>,
}

/// What the gate goes by.
pub(crate) struct Facts<'a> {
    pub(crate) service: &'a Name,
    pub(crate) file: &'a Service,
    pub(crate) database: &'a DatabaseState,
    pub(crate) effective: &'a Effective,
    pub(crate) seen: &'a Seen,
    /// What is wrong at the moment.
    pub(crate) incidents: Vec<String>,
    /// The schema that is to be left, if it is not the next one.
    pub(crate) leaves: Option<u32>,
    pub(crate) at: Timestamp,
}

/// Looks at everything that could be against it.
pub(crate) fn gate(facts: &Facts<'_>) -> Gate {
    let leaves = facts.leaves.or_else(|| facts.database.contract_leaves());
    let mut reasons = Vec::new();
    match leaves {
        None => reasons.push(format!(
            "nobody has said which schema the database has: switchback schema set {} N",
            facts.service
        )),
        Some(leaves) => {
            reasons.extend(deployed(facts, leaves));
            reasons.extend(seen(facts, leaves));
        }
    }
    let phase = facts.database.phase();
    if leaves.is_some() || phase.is_some() {
        reasons.extend(unknown(facts));
    }
    if let Some(phase) = phase.filter(|phase| *phase < Phase::SwitchReads) {
        reasons.push(format!(
            "the change of the schema is in phase {}; the contract follows switch_reads",
            phase.as_str()
        ));
    }
    reasons.extend(watched_too_short(facts));
    let blocked = facts.effective.blocked.iter();
    reasons.extend(blocked.map(|name| {
        let version = facts.effective.version(name);
        format!("{name} (version {version}) is blocked: whatever it was, it is not over")
    }));
    reasons.extend(facts.incidents.iter().cloned());
    Gate {
        service: facts.service.clone(),
        open: reasons.is_empty(),
        leaves,
        contract_after: facts.file.database.contract_after,
        reasons,
    }
}

/// Backends that serve or would after a rollback, and could not live after the contract.
fn deployed<'a>(facts: &'a Facts<'_>, leaves: u32) -> impl Iterator<Item = String> + 'a {
    let effective = facts.effective;
    effective
        .backends
        .iter()
        .filter_map(move |(name, deployed)| {
            let role = role(effective, name)?;
            let why = deployed.schema.as_ref()?.objection(leaves)?;
            let version = &deployed.version;
            Some(format!(
                "{name} (version {version}) {role}, and could not live with schema {leaves}: {why}"
            ))
        })
}

/// What a backend is that serves or would after a rollback.
fn role(effective: &Effective, name: &Name) -> Option<&'static str> {
    match () {
        () if *name == effective.stable => Some("is stable"),
        () if effective.previous.as_ref() == Some(name) => Some("is the rollback target"),
        () if effective.weight(name) > 0 => Some("has traffic"),
        () => None,
    }
}

/// Backends of which nobody can tell, whatever they do now.
fn unknown<'a>(facts: &'a Facts<'_>) -> impl Iterator<Item = String> + 'a {
    let backends = facts.effective.backends.iter();
    let silent = backends.filter(|(_, deployed)| deployed.schema.is_none());
    silent.map(|(name, deployed)| {
        let role = role(facts.effective, name).unwrap_or("may get traffic");
        let version = &deployed.version;
        format!(
            "{name} (version {version}) {role}, and it is unknown which schemas it can live with: give it schema, or remove it"
        )
    })
}

/// Versions that got a request too lately, and could not live after the contract.
fn seen<'a>(facts: &'a Facts<'_>, leaves: u32) -> impl Iterator<Item = String> + 'a {
    let patience = facts.file.database.contract_after;
    facts.seen.versions.iter().filter_map(move |(version, sighting)| {
        let why = objection(declared(facts, version, sighting), leaves)?;
        if later(sighting.at, patience.0) <= facts.at {
            return None;
        }
        let ago = match sighting.at >= facts.at {
            true => "just now".to_owned(),
            false => format!("{} ago", age::between(sighting.at, facts.at)),
        };
        Some(format!(
            "version {version} got a request {ago}, and could not live with schema {leaves}: {why}; there must be none for {patience}"
        ))
    })
}

/// What a version says about itself, now or when it was last seen.
fn declared<'a>(
    facts: &'a Facts<'_>,
    version: &str,
    sighting: &'a Sighting,
) -> Option<&'a SchemaSupport> {
    let mut backends = facts.effective.backends.values();
    let now = backends.find(|deployed| deployed.version == version);
    let now = now.and_then(|deployed| deployed.schema.as_ref());
    now.or(sighting.schema.as_ref())
}

fn watched_too_short(facts: &Facts<'_>) -> Option<String> {
    let patience = facts.file.database.contract_after;
    let Some(since) = facts.seen.since else {
        return Some("it is not known yet who got requests before this process".into());
    };
    (later(since, patience.0) > facts.at).then(|| {
        format!(
            "requests are counted for {} only; nobody knows who got some before, and there must be none for {patience}",
            age::between(since, facts.at)
        )
    })
}

/// What is wrong at the moment with a service, as far as rollbacks and rules tell. `rollbacks`: the last
/// ones, the newest first.
pub(crate) fn incidents(
    status: &ServiceStatus,
    rollbacks: &[Summary],
    patience: TimeSpan,
    at: Timestamp,
) -> Vec<String> {
    let mut found = Vec::new();
    for rollback in rollbacks {
        let id = rollback.id;
        match rollback.recovery {
            RecoveryState::Pending => found.push(format!(
                "whether rollback {id} has helped is still being checked: switchback incident {id}"
            )),
            RecoveryState::DidNotHelp if later(rollback.at, patience.0) > at => {
                found.push(format!(
                    "rollback {id} did not help {} ago: switchback incident {id}",
                    age::between(rollback.at, at)
                ));
            }
            _ => {}
        }
    }
    let gauge = status.stable_gauge.as_ref();
    let firing = gauge
        .map(|gauge| gauge.firing().to_vec())
        .unwrap_or_default();
    found.extend(
        firing
            .iter()
            .map(|rule| format!("a rule fires: {}", rule.sentence)),
    );
    let held = status.gauges.iter().filter_map(|(name, gauge)| {
        let hold = gauge.standing().hold?;
        let has_traffic = status.effective.weight(name) > 0;
        (has_traffic && !hold.stable_fails && gauge.evidence() >= 1.0)
            .then(|| format!("the judge has a finding against {name}: {}", hold.reason))
    });
    found.extend(held);
    found
}

/// Everything the gate goes by, of what is published; none if the service is not configured.
pub(crate) fn look(
    published: &Published,
    service: &Name,
    seen: &Seen,
    rollbacks: &[Summary],
    leaves: Option<u32>,
) -> Option<Gate> {
    let (status, file) = (published.services.get(service)?, published.file(service)?);
    let unknown = DatabaseState::default();
    let state = published.state.services.get(service);
    let at = published.clock.now();
    let patience = file.database.contract_after;
    Some(gate(&Facts {
        service,
        file,
        database: state.map_or(&unknown, |state| &state.database),
        effective: &status.effective,
        seen,
        incidents: incidents(status, rollbacks, patience, at),
        leaves,
        at,
    }))
}

#[cfg(test)]
mod tests;
