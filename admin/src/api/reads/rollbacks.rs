//! Rollbacks and their evidence.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use switchback_config::model::Name;
use utoipa::IntoParams;

use super::{Limit, Named, Problem, Query, store_failed};
use crate::api::Api;
use crate::api::views::rollback::{Rollback, Rollbacks};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct Of {
    /// Only those of this service.
    service: Option<Name>,
    /// How many at most; 50 if it is not said.
    #[param(value_type = Option<usize>, minimum = 1, maximum = 500)]
    limit: Option<Limit>,
    /// Only those before this number.
    before: Option<u64>,
}

/// Rollbacks that are kept, the newest first: what, when, why, and whether it helped.
#[utoipa::path(get, path = "/v1/rollbacks", operation_id = "incidents", tag = "record",
    params(Of),
    responses((status = 200, body = Rollbacks)))]
pub(in crate::api) async fn rollbacks(
    State(api): State<Api>,
    Query(of): Query<Of>,
) -> Result<Response, Problem> {
    let Limit(limit) = of.limit.unwrap_or_default();
    let rollbacks = api
        .store
        .rollbacks(of.service, of.before, limit)
        .await
        .map_err(store_failed)?;
    let next_before = rollbacks
        .last()
        .map(|last| last.id)
        .filter(|_| rollbacks.len() == limit);
    let page = Rollbacks {
        rollbacks,
        next_before,
    };
    Ok(Json(page).into_response())
}

/// Revisions that are looked through for what else happened to the service.
const LOOKED_THROUGH: usize = 200;

/// Of them, how many may be newer than the rollback.
const NEWER: u64 = 50;

/// All evidence of one rollback, checked: a judge's verdict is played again with what it was told.
#[utoipa::path(get, path = "/v1/rollbacks/{rollback}", operation_id = "incident", tag = "record",
    params(("rollback" = u64, Path, description = "Its number: that of the revision it made")),
    responses((status = 200, body = Rollback)))]
pub(in crate::api) async fn rollback(
    State(api): State<Api>,
    Named(id): Named<u64>,
) -> Result<Response, Problem> {
    let found = api.store.rollback(id).await.map_err(store_failed)?;
    let record = found.ok_or_else(|| Problem::not_found(format!("rollback {id} is not kept")))?;
    let below = id.saturating_add(NEWER);
    let revisions = api
        .store
        .revisions(Some(record.service.clone()), Some(below), LOOKED_THROUGH)
        .await
        .map_err(store_failed)?;
    Ok(Json(Rollback::new(record, &revisions)).into_response())
}
