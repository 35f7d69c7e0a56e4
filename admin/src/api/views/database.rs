//! What is known of the database behind a service, and how its reverse migration would go.

use jiff::Timestamp;
use serde::Serialize;
use switchback_config::defaults::DRILL_GOOD_FOR;
use switchback_config::model::{self, Name};
use switchback_config::units::TimeSpan;
use utoipa::ToSchema;

use super::schema;
use crate::age;
use crate::control::Published;
use crate::controller::database::unfit;
use crate::sightings::{Seen, Sightings};
use crate::state::{
    CurrentSchema, DatabaseState, Mark, Phase, Rehearsal, Release, ServiceState, later,
};

/// The database behind a service, as far as somebody has said.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Database {
    /// The service.
    service: Name,
    /// The state.
    revision: u64,
    /// The schema it has.
    schema: Option<CurrentSchema>,
    /// The change of its schema that is under way.
    release: Option<Release>,
    /// Whether nothing of the old form has been removed yet.
    rollback_is_free: bool,
    /// How long the contract waits after the last request to a version with the old schema.
    #[schema(value_type = schema::TimeSpan)]
    contract_after: TimeSpan,
    /// What each backend can live with.
    backends: Vec<Version>,
    /// Whether all times of last requests survive a crash.
    last_requests_durable: bool,
    /// Other versions that got requests, the last time of each.
    others: Vec<Gone>,
    /// When the reverse migration was last rehearsed elsewhere.
    rehearsed: Option<Rehearsal>,
    /// Who last confirmed its checklist.
    confirmed: Option<Mark>,
}

/// A backend and what it can live with.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = SchemaOfBackend)]
struct Version {
    /// The backend.
    backend: Name,
    /// Label of what is deployed.
    version: String,
    /// Its weight.
    weight: u32,
    /// What it says about itself; `null`: nothing.
    #[schema(value_type = Option<schema::SchemaSupport>)]
    schema: Option<model::SchemaSupport>,
    /// What its release does to the database.
    #[schema(value_type = schema::Migration)]
    migration: model::Migration,
    /// Why it must not get traffic, for the sake of the database; `null`: it may.
    refused: Option<String>,
    /// When it last got a request of any kind.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_request: Option<Timestamp>,
}

/// A version that is not deployed any more.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = SchemaOfFormerVersion)]
struct Gone {
    /// Its label.
    version: String,
    /// When it last got a request of any kind.
    #[schema(value_type = String, format = DateTime)]
    last_request: Timestamp,
}

/// How the reverse migration would go. switchback never runs it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct ReverseMigration {
    /// The service.
    service: Name,
    /// The command to run, from the file; `null`: nobody has written it down.
    command: Option<String>,
    /// When it was last rehearsed elsewhere.
    rehearsed: Option<Rehearsal>,
    /// How long ago that was, in words.
    rehearsed_ago: Option<String>,
    /// What to look at before.
    checklist: Vec<Item>,
    /// Who last confirmed it.
    confirmed: Option<Mark>,
}

/// Something to look at.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ChecklistItem)]
struct Item {
    /// What has to hold.
    text: String,
    /// Whether it does; `null`: only people know.
    holds: Option<bool>,
}

/// What is known of the database of a service; none if it is not configured.
pub(in crate::api) fn database(
    published: &Published,
    name: &Name,
    sightings: &Sightings,
) -> Option<Database> {
    let seen = &sightings.of(name);
    let status = published.services.get(name)?;
    let file = published.file(name)?;
    let effective = &status.effective;
    let recorded = recorded(published, name);
    let last = |version: &str| seen.versions.get(version).map(|sighting| sighting.at);
    let is_deployed = |label: &str| effective.backends.values().any(|b| b.version == label);
    let backends = effective
        .backends
        .iter()
        .map(|(backend, deployed)| Version {
            backend: backend.clone(),
            version: deployed.version.clone(),
            weight: effective.weight(backend),
            schema: deployed.schema.clone(),
            migration: deployed.migration,
            refused: unfit(&recorded, backend, &effective.backends)
                .map(|refusal| refusal.to_string()),
            last_request: last(&deployed.version),
        });
    let others = seen
        .versions
        .iter()
        .filter(|(label, _)| !is_deployed(label));
    let others = others.map(|(version, sighting)| Gone {
        version: version.clone(),
        last_request: sighting.at,
    });
    Some(Database {
        service: name.clone(),
        revision: published.state.revision,
        backends: backends.collect(),
        others: others.collect(),
        last_requests_durable: sightings.are_saved(),
        rollback_is_free: recorded.phase() != Some(Phase::Contract),
        contract_after: file.database.contract_after,
        schema: recorded.schema,
        release: recorded.release,
        rehearsed: recorded.rehearsed,
        confirmed: recorded.confirmed,
    })
}

/// How the reverse migration of a service would go; none if it is not configured.
pub(in crate::api) fn reverse(
    published: &Published,
    name: &Name,
    seen: &Seen,
) -> Option<ReverseMigration> {
    let file = published.file(name)?;
    let recorded = recorded(published, name);
    let now = published.clock.now();
    let rehearsed = recorded
        .rehearsed
        .as_ref()
        .map(|rehearsal| rehearsal.mark.at);
    let mut checklist = facts(published, name, &recorded, seen)?;
    checklist.extend(
        [
            "somebody else has looked at it and agrees",
            "a backup from before it can be restored",
        ]
        .map(|text| Item {
            text: text.into(),
            holds: None,
        }),
    );
    checklist.extend(file.database.checklist.iter().map(|text| Item {
        text: text.clone(),
        holds: None,
    }));
    Some(ReverseMigration {
        service: name.clone(),
        command: file.database.reverse_command.clone(),
        rehearsed_ago: rehearsed.map(|at| age::between(at, now)),
        rehearsed: recorded.rehearsed,
        checklist,
        confirmed: recorded.confirmed,
    })
}

/// What can be looked up.
fn facts(
    published: &Published,
    name: &Name,
    recorded: &DatabaseState,
    seen: &Seen,
) -> Option<Vec<Item>> {
    let effective = &published.services.get(name)?.effective;
    let now = published.clock.now();
    let rehearsed = recorded.rehearsed.as_ref();
    let rehearsed = rehearsed.is_some_and(|r| later(r.mark.at, DRILL_GOOD_FOR) > now);
    let before = recorded
        .version()
        .and_then(|version| version.checked_sub(1));
    let support = |label: &str| {
        let mut deployed = effective.backends.values();
        let deployed = deployed.find(|deployed| deployed.version == label);
        let seen = seen
            .versions
            .get(label)
            .and_then(|seen| seen.schema.as_ref());
        deployed
            .and_then(|deployed| deployed.schema.as_ref())
            .or(seen)
    };
    // Whoever got a request has written what it writes.
    let wrote_new = before.map(|before| {
        let mut labels = seen.versions.keys();
        labels.any(|label| support(label).is_some_and(|support| support.writes > before))
    });
    let lives_before = before.map(|before| {
        let mut weighted = effective.backends.iter();
        weighted.all(|(name, deployed)| {
            effective.weight(name) == 0
                || crate::state::objection(deployed.schema.as_ref(), before).is_none()
        })
    });
    let item = |text: &str, holds: Option<bool>| Item {
        text: text.into(),
        holds,
    };
    Some(vec![
        item(
            "it was rehearsed elsewhere in the last 30 d",
            Some(rehearsed),
        ),
        item(
            "the contract has not begun: the old form is still there",
            Some(recorded.phase() != Some(Phase::Contract)),
        ),
        item(
            "every version with traffic can live with the schema before",
            lives_before,
        ),
        item(
            "no version that writes the new form has got a request: nothing is lost with it",
            wrote_new.map(|wrote| !wrote),
        ),
    ])
}

fn recorded(published: &Published, name: &str) -> DatabaseState {
    let state = published.state.services.get(name);
    state.map_or_else(DatabaseState::default, |state: &ServiceState| {
        state.database.clone()
    })
}
