//! The endpoints that rehearse a rollback and tell of the last rehearsal.

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use serde::Deserialize;
use switchback_config::model::Name;
use utoipa::ToSchema;

use super::{Inputs, Write};
use crate::api::document::InService;
use crate::api::extract::Named;
use crate::api::problem::Problem;
use crate::api::{Api, body};
use crate::auth::Role;
use crate::command::Refusal;
use crate::drill::last_drill;
use crate::state::DrillRecord;

/// What to rehearse.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = DrillRequest)]
pub(in crate::api) struct Wanted {
    /// Moves a hundredth of the service's own traffic to its other backend and back, too.
    live: bool,
    /// Why, for the record.
    #[schema(max_length = 1000)]
    reason: Option<String>,
}

/// The last rehearsal of a rollback.
#[utoipa::path(get, path = "/v1/services/{service}/drill", operation_id = "drill_show", tag = "runbooks",
    params(InService), responses((status = 200, body = DrillRecord)))]
pub(in crate::api) async fn show(
    State(api): State<Api>,
    Named(service): Named<Name>,
) -> Result<Json<DrillRecord>, Problem> {
    let published = api.controls.published();
    if !published.config.services.contains_key(&service) {
        return Err(Refusal::UnknownService(service).into());
    }
    let none = || Problem::not_found(format!("no rollback of {service} was rehearsed yet"));
    last_drill(&published, &service)
        .cloned()
        .map(Json)
        .ok_or_else(none)
}

/// Rehearses a rollback on a shadow of the service, which no user meets: detection, weight 0, block, hooks
/// (dry), events, disk. Answered when it is over; `passed` says whether everything held.
#[utoipa::path(post, path = "/v1/services/{service}/drill", operation_id = "drill", tag = "runbooks",
    params(InService), request_body = Option<Wanted>,
    responses((status = 200, body = DrillRecord)))]
pub(in crate::api) async fn drill(
    State(api): State<Api>,
    Named(service): Named<Name>,
    (Extension(caller), RawQuery(query), headers): Inputs,
    text: Bytes,
) -> Result<Response, Problem> {
    let write = Write::without_options(caller, Role::Operator, query, &headers)?;
    let Wanted { live, reason } = body::read(&text)?;
    let asked = write.asked(&api, reason)?;
    let record = api.drills.run(&service, live, asked).await?;
    Ok(Json(record).into_response())
}
