//! The endpoints about the database behind a service. switchback never touches a database: it is told, and
//! keeps away what could not live with it.

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use serde::Deserialize;
use switchback_config::model::Name;
use switchback_config::units::TimeSpan;
use utoipa::ToSchema;

use super::document::InService;
use super::extract::Named;
use super::problem::Problem;
use super::reads::{store_failed, unknown};
use super::views::database::{self as views, Database, ReverseMigration};
use super::views::{Answer, schema};
use super::writes::order::{MayOperate, Order};
use super::writes::{IfMatch, Inputs, Options, Reason, Write, carry_out};
use super::{Api, body};
use crate::auth::Role;
use crate::command::{Command, DatabaseChange};
use crate::contract::{self, Gate};
use crate::state::Phase;

/// Rollbacks that are looked through for trouble.
const LOOKED_THROUGH: usize = 20;

/// Where the database is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SchemaRequest)]
pub(super) struct SetSchema {
    /// Version of its schema.
    #[schema(example = 4)]
    version: u32,
    /// Why, for the record.
    #[schema(max_length = 1000)]
    reason: Option<String>,
}

/// How far a change of the schema has come.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SchemaPhaseRequest)]
pub(super) struct SetPhase {
    /// The phase that begins.
    phase: WantedPhase,
    /// Of the contract: the schema that it leaves; the next one if it is not said.
    schema: Option<u32>,
    /// Of the contract: even if its gate is closed.
    #[serde(default)]
    force: bool,
    /// Why, for the record.
    #[schema(max_length = 1000)]
    reason: Option<String>,
}

/// The phase that begins, or the end of all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WantedReleasePhase)]
pub(super) enum WantedPhase {
    /// The new form is added beside the old one; both are written.
    Expand,
    /// Old data is brought into the new form.
    Migrate,
    /// The new form is read.
    SwitchReads,
    /// The old form is removed. Versions that need it cannot come back.
    Contract,
    /// The change is over.
    Done,
}

impl From<WantedPhase> for Option<Phase> {
    fn from(wanted: WantedPhase) -> Self {
        match wanted {
            WantedPhase::Expand => Some(Phase::Expand),
            WantedPhase::Migrate => Some(Phase::Migrate),
            WantedPhase::SwitchReads => Some(Phase::SwitchReads),
            WantedPhase::Contract => Some(Phase::Contract),
            WantedPhase::Done => None,
        }
    }
}

/// A rehearsal of the reverse migration.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = SchemaRehearsalRequest)]
pub(super) struct Rehearsed {
    /// How long it took.
    #[schema(value_type = Option<schema::TimeSpan>)]
    took: Option<TimeSpan>,
    /// Why, for the record.
    #[schema(max_length = 1000)]
    reason: Option<String>,
}

/// Which contract.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = ContractRequest)]
pub(super) struct Contract {
    /// The schema that it leaves; the next one if it is not said.
    schema: Option<u32>,
}

/// The database behind a service: its schema, how far a change of it has come, and who can live with it.
#[utoipa::path(get, path = "/v1/services/{service}/schema", operation_id = "schema_show", tag = "databases",
    params(InService), responses((status = 200, body = Database)))]
pub(super) async fn show(
    State(api): State<Api>,
    Named(name): Named<Name>,
) -> Result<Response, Problem> {
    let view = views::database(&api.controls.published(), &name, &api.sightings);
    Ok(Json(view.ok_or_else(|| unknown(&name))?).into_response())
}

/// Records which schema the database has now. What cannot live with it gets no traffic any more that it
/// does not have.
#[utoipa::path(put, path = "/v1/services/{service}/schema", operation_id = "schema_set", tag = "databases",
    params(InService, Options, IfMatch), request_body = SetSchema,
    responses((status = 200, body = Answer)))]
pub(super) async fn set(
    State(api): State<Api>,
    Named(service): Named<Name>,
    Order { write, wanted, .. }: Order<MayOperate, SetSchema>,
) -> Result<Response, Problem> {
    let change = DatabaseChange::Schema(wanted.version);
    let command = Command::Database { service, change };
    carry_out(&api, &write, command, wanted.reason).await
}

/// Records how far a change of the schema has come: expand, migrate, switch_reads, contract, done. The
/// contract begins only if its gate is open.
#[utoipa::path(post, path = "/v1/services/{service}/schema/phase", operation_id = "schema_phase", tag = "databases",
    params(InService, Options, IfMatch), request_body = SetPhase,
    responses((status = 200, body = Answer)))]
pub(super) async fn phase(
    State(api): State<Api>,
    Named(service): Named<Name>,
    Order { write, wanted, .. }: Order<MayOperate, SetPhase>,
) -> Result<Response, Problem> {
    let against = match wanted.phase {
        WantedPhase::Contract => gate_of(&api, &service, wanted.schema).await?.reasons,
        _ => Vec::new(),
    };
    let change = DatabaseChange::Phase {
        to: wanted.phase.into(),
        leaves: wanted.schema,
        against,
        force: wanted.force,
    };
    let command = Command::Database { service, change };
    carry_out(&api, &write, command, wanted.reason).await
}

/// Records that the reverse migration was rehearsed somewhere else.
#[utoipa::path(post, path = "/v1/services/{service}/schema/rehearsed", operation_id = "schema_rehearsed", tag = "databases",
    params(InService, Options, IfMatch), request_body = Option<Rehearsed>,
    responses((status = 200, body = Answer)))]
pub(super) async fn rehearsed(
    State(api): State<Api>,
    Named(service): Named<Name>,
    Order { write, wanted, .. }: Order<MayOperate, Rehearsed>,
) -> Result<Response, Problem> {
    let took_s = wanted.took.map(|took| took.0.as_secs());
    let change = DatabaseChange::Rehearsed { took_s };
    let command = Command::Database { service, change };
    carry_out(&api, &write, command, wanted.reason).await
}

/// How the reverse migration would go: its command, when it was rehearsed, and what to look at before.
/// switchback never runs it.
#[utoipa::path(get, path = "/v1/services/{service}/schema/reverse", operation_id = "schema_reverse", tag = "databases",
    params(InService), responses((status = 200, body = ReverseMigration)))]
pub(super) async fn reverse(
    State(api): State<Api>,
    Named(name): Named<Name>,
) -> Result<Response, Problem> {
    let view = views::reverse(&api.controls.published(), &name, &api.sightings.of(&name));
    Ok(Json(view.ok_or_else(|| unknown(&name))?).into_response())
}

/// Records who has gone through the checklist and runs the reverse migration.
#[utoipa::path(post, path = "/v1/services/{service}/schema/reverse", operation_id = "schema_reverse_confirm", tag = "databases",
    params(InService, Options, IfMatch), request_body = Option<Reason>,
    responses((status = 200, body = Answer)))]
pub(super) async fn confirm_reverse(
    State(api): State<Api>,
    Named(service): Named<Name>,
    Order { write, wanted, .. }: Order<MayOperate, Reason>,
) -> Result<Response, Problem> {
    let change = DatabaseChange::Confirmed;
    let command = Command::Database { service, change };
    carry_out(&api, &write, command, wanted.reason).await
}

/// Whether the old form of the database may be removed, and what is against it. Changes nothing.
#[utoipa::path(post, path = "/v1/services/{service}/gates/contract", operation_id = "gate_contract", tag = "databases",
    params(InService), request_body = Option<Contract>,
    responses((status = 200, body = Gate)))]
pub(super) async fn gate(
    State(api): State<Api>,
    Named(service): Named<Name>,
    (Extension(caller), RawQuery(query), headers): Inputs,
    text: Bytes,
) -> Result<Response, Problem> {
    Write::without_options(caller, Role::Viewer, query, &headers)?;
    let Contract { schema } = body::read(&text)?;
    Ok(Json(gate_of(&api, &service, schema).await?).into_response())
}

/// Looks at everything that could be against a contract.
pub(super) async fn gate_of(
    api: &Api,
    service: &Name,
    leaves: Option<u32>,
) -> Result<Gate, Problem> {
    let rollbacks = api
        .store
        .rollbacks(Some(service.clone()), None, LOOKED_THROUGH)
        .await
        .map_err(store_failed)?;
    let seen = api.sightings.of(service);
    let published = api.controls.published();
    let gate = contract::look(&published, service, &seen, &rollbacks, leaves);
    gate.ok_or_else(|| unknown(service))
}
