//! The endpoints that concern the process as a whole.

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::StatusCode;
use serde_json::json;

use super::{Inputs, Write};
use crate::api::Api;
use crate::api::problem::Problem;
use crate::api::views::list::Changed;
use crate::auth::Role;
use crate::command::Command;

/// Reads the config file again.
#[utoipa::path(post, path = "/v1/reload", operation_id = "reload", tag = "process",
    responses((status = 200, body = crate::reload::Report)))]
pub(in crate::api) async fn reload(
    State(api): State<Api>,
    (Extension(caller), RawQuery(query), headers): Inputs,
) -> Result<Response, Problem> {
    Write::new(caller, Role::Operator, query, &headers)?;
    match api.reloader.reload().await {
        Ok(report) => Ok(Json(report).into_response()),
        Err(error) => {
            let problem = Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                error.code(),
                error.to_string(),
            );
            Err(problem.with("diagnostics", json!(error.diagnostics())))
        }
    }
}

/// Leaves the stable-only state after the recorded state was lost.
#[utoipa::path(post, path = "/v1/acknowledge", operation_id = "acknowledge", tag = "process",
    responses((status = 200, body = Changed)))]
pub(in crate::api) async fn acknowledge(
    State(api): State<Api>,
    (Extension(caller), RawQuery(query), headers): Inputs,
) -> Result<Response, Problem> {
    let write = Write::new(caller, Role::Admin, query, &headers)?;
    let confirmed = api
        .controls
        .ask(Command::Acknowledge, write.asked(None))
        .await?;
    let revision = confirmed.applied.published.state.revision;
    let changed = confirmed.applied.changed;
    Ok(Json(Changed { changed, revision }).into_response())
}
