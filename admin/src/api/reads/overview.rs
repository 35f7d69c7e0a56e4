//! What a dashboard asks for every second: all services at a glance, and what one did lately.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use switchback_config::model::Name;
use utoipa::IntoParams;

use super::{Named, Problem, Query, unknown};
use crate::api::Api;
use crate::api::document::InService;
use crate::api::views::overview as views;

/// All services at a glance: who gets how much, what somebody should look at, and how much there is to do.
#[utoipa::path(get, path = "/v1/overview", operation_id = "overview", tag = "look",
    responses((status = 200, body = views::Overview)))]
pub(in crate::api) async fn overview(State(api): State<Api>) -> Response {
    let published = api.controls.published();
    let last_reload = api.reloader.last();
    let fleet = api.controls.fleet();
    let view = views::overview(&published, &api.trends, &api.readiness, last_reload, fleet);
    Json(view).into_response()
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct After {
    /// Only what came after this second, since 1970: `to` of the answer before.
    after: Option<u32>,
}

/// What each backend of a service did in the last ten minutes, second by second.
#[utoipa::path(get, path = "/v1/services/{service}/trend", operation_id = "trend", tag = "look",
    params(InService, After),
    responses((status = 200, body = views::Trend)))]
pub(in crate::api) async fn trend(
    State(api): State<Api>,
    Named(name): Named<Name>,
    Query(After { after }): Query<After>,
) -> Result<Response, Problem> {
    let published = api.controls.published();
    let trend = views::trend(&published, &api.trends, &name, after);
    let trend = trend.ok_or_else(|| unknown(&name))?;
    Ok(Json(trend).into_response())
}
