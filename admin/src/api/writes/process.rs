//! The endpoints that concern the process as a whole.

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;

use super::{DryRun, IfMatch, Inputs, Reason, WaitApplied, Write};
use crate::api::problem::Problem;
use crate::api::views::list::Changed;
use crate::api::{Api, body, extract};
use crate::auth::Role;
use crate::command::Command;
use crate::reload::{ReloadError, Report};

/// What a reload may be asked in its query.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct ReloadOptions {
    /// `true`: tell what would change, and change nothing.
    #[serde(default)]
    dry_run: bool,
    /// `true`: also remove routes that are still used (`keep_while_used`).
    #[serde(default)]
    force: bool,
    /// `applied`: answer when every instance of the cluster follows, after 2 s at the latest; that is how it
    /// is anyway.
    #[param(inline)]
    #[expect(dead_code, reason = "there is nothing else to wait for")]
    wait: Option<WaitApplied>,
}

/// Reads the config file again.
///
/// It is taken over as a whole or not at all. A dry run checks it and tells what would change.
#[utoipa::path(post, path = "/v1/reload", operation_id = "reload", tag = "process",
    params(ReloadOptions, IfMatch),
    responses((status = 200, body = Report)))]
pub(in crate::api) async fn reload(
    State(api): State<Api>,
    (Extension(caller), RawQuery(query), headers): Inputs,
    text: Bytes,
) -> Result<Response, Problem> {
    let ReloadOptions { dry_run, force, .. } = extract::query(query.as_deref())?;
    let dry = dry_run.then(|| "dry_run=true".to_owned());
    let write = Write::without_wait(caller, Role::Operator, dry, &headers)?;
    // The file is the reason; whatever else is said would not be kept.
    body::read_nothing(&text)?;
    let report = if write.options.dry_run {
        api.reloader.plan(force).await
    } else {
        api.reloader.reload_as(write.if_revision(&api), force).await
    };
    match report {
        Ok(report) => Ok(Json(report).into_response()),
        Err(ReloadError::Refused(refused)) => Err(refused.into()),
        Err(error) => {
            let status = match &error {
                ReloadError::RouteInUse(_) => StatusCode::CONFLICT,
                _ => StatusCode::UNPROCESSABLE_ENTITY,
            };
            let problem = Problem::new(status, error.code(), error.to_string());
            Err(problem.with("diagnostics", json!(error.diagnostics())))
        }
    }
}

/// Leaves the stable-only state after the recorded state was lost.
#[utoipa::path(post, path = "/v1/acknowledge", operation_id = "acknowledge", tag = "process",
    params(DryRun, IfMatch), request_body = Option<Reason>,
    responses((status = 200, body = Changed)))]
pub(in crate::api) async fn acknowledge(
    State(api): State<Api>,
    (Extension(caller), RawQuery(query), headers): Inputs,
    text: Bytes,
) -> Result<Response, Problem> {
    let write = Write::without_wait(caller, Role::Admin, query, &headers)?;
    let Reason { reason } = body::read(&text)?;
    let asked = write.asked(&api, reason)?;
    let confirmed = api.controls.ask(Command::Acknowledge, asked).await?;
    let applied = confirmed.applied;
    let answer = Changed {
        changed: applied.changed,
        revision: applied.published.state.revision,
        dry_run: write.options.dry_run,
        followed: confirmed.acknowledged.into(),
    };
    Ok(Json(answer).into_response())
}
