//! The endpoints that begin a runbook, tick its steps and stop it.
//!
//! Whoever may roll back may carry out a runbook; to bring back an earlier configuration it takes an
//! operator, in the run as everywhere else.

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use serde::Deserialize;
use switchback_config::model::{Method, Name};
use utoipa::ToSchema;

use super::{DryRun, IfMatch, Inputs, Reason, Write};
use crate::api::document::InService;
use crate::api::extract::Named;
use crate::api::problem::Problem;
use crate::api::views::{self, RunView, RunWritten, Runbooks};
use crate::api::{Api, body};
use crate::auth::Role;
use crate::command::{Command, Refusal, RunbookAct, RunbookCommand, RunbookStart};
use crate::runbook;

/// What to carry out.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = RunbookRequest)]
pub(in crate::api) struct Begin {
    /// Which runbook; may be left out where there is only one for the service.
    #[schema(example = "rollback")]
    runbook: Option<Name>,
    /// The way back, if it is decided already: `flag`, `config`, `traffic` or `redeploy`.
    #[schema(value_type = Option<String>, pattern = "^(flag|config|traffic|redeploy)$")]
    method: Option<Method>,
    /// Why, for the record.
    #[schema(max_length = 1000)]
    reason: Option<String>,
}

/// A step that is done, or may begin.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RunbookTick)]
pub(in crate::api) struct Tick {
    /// The step that waits, counted from 1.
    #[schema(value_type = usize, minimum = 1, maximum = 32)]
    step: std::num::NonZeroUsize,
    /// It is passed over.
    #[serde(default)]
    skip: bool,
    /// The way back that is chosen, of a step that decides or goes back.
    #[serde(default)]
    #[schema(value_type = Option<String>, pattern = "^(flag|config|traffic|redeploy)$")]
    method: Option<Method>,
    /// What was done or found, for the record.
    #[serde(default)]
    #[schema(max_length = 1000)]
    reason: Option<String>,
}

/// All runbooks of the file, and what is being done by them.
#[utoipa::path(get, path = "/v1/runbooks", operation_id = "runbooks", tag = "runbooks",
    responses((status = 200, body = Runbooks)))]
pub(in crate::api) async fn runbooks(State(api): State<Api>) -> Json<Runbooks> {
    Json(views::runbooks(&api.controls.published()))
}

/// The run of a service that is under way, or its last one.
#[utoipa::path(get, path = "/v1/services/{service}/runbook", operation_id = "runbook", tag = "runbooks",
    params(InService), responses((status = 200, body = RunView)))]
pub(in crate::api) async fn show(
    State(api): State<Api>,
    Named(service): Named<Name>,
) -> Result<Json<RunView>, Problem> {
    let published = api.controls.published();
    if !published.services.contains_key(&service) {
        return Err(Refusal::UnknownService(service).into());
    }
    let none = || Problem::not_found(format!("there was no runbook for {service} yet"));
    views::run(&published, &service).map(Json).ok_or_else(none)
}

/// Begins a runbook. Its steps are done one after the other; some wait for a tick.
#[utoipa::path(post, path = "/v1/services/{service}/runbook", operation_id = "runbook_start", tag = "runbooks",
    params(InService, DryRun, IfMatch), request_body = Option<Begin>,
    responses((status = 200, body = RunWritten)))]
pub(in crate::api) async fn begin(
    State(api): State<Api>,
    Named(service): Named<Name>,
    (Extension(caller), RawQuery(query), headers): Inputs,
    text: Bytes,
) -> Result<Response, Problem> {
    let write = Write::without_wait(caller, Role::Rollback, query, &headers)?;
    let Begin {
        runbook,
        method,
        reason,
    } = body::read(&text)?;
    let may_restore = may_restore(&write, method)?;
    let published = api.controls.published();
    if !published.services.contains_key(&service) {
        return Err(Refusal::UnknownService(service).into());
    }
    let (name, plan) = runbook::choose(&published, &service, runbook.as_deref())?;
    let act = RunbookAct::Start(RunbookStart {
        runbook: name.clone(),
        plan: plan.steps.clone(),
        trigger: None,
        since: runbook::since(&published, &service),
        method,
        may_restore,
    });
    change(&api, &write, service, act, reason).await
}

/// Says that a step is done, or may begin; also passes one over.
#[utoipa::path(post, path = "/v1/services/{service}/runbook/tick", operation_id = "runbook_tick", tag = "runbooks",
    params(InService, DryRun, IfMatch), request_body = Tick,
    responses((status = 200, body = RunWritten)))]
pub(in crate::api) async fn tick(
    State(api): State<Api>,
    Named(service): Named<Name>,
    (Extension(caller), RawQuery(query), headers): Inputs,
    text: Bytes,
) -> Result<Response, Problem> {
    let write = Write::without_wait(caller, Role::Rollback, query, &headers)?;
    let Tick {
        step,
        skip,
        method,
        reason,
    } = body::read(&text)?;
    let may_restore = may_restore(&write, method)?;
    let act = RunbookAct::Tick {
        step: step.get() - 1,
        skip,
        method,
        may_restore,
    };
    change(&api, &write, service, act, reason).await
}

/// Ends a run. What it has done stays done.
#[utoipa::path(post, path = "/v1/services/{service}/runbook/stop", operation_id = "runbook_stop", tag = "runbooks",
    params(InService, DryRun, IfMatch), request_body = Option<Reason>,
    responses((status = 200, body = RunWritten)))]
pub(in crate::api) async fn stop(
    State(api): State<Api>,
    Named(service): Named<Name>,
    (Extension(caller), RawQuery(query), headers): Inputs,
    text: Bytes,
) -> Result<Response, Problem> {
    let write = Write::without_wait(caller, Role::Rollback, query, &headers)?;
    let Reason { reason } = body::read(&text)?;
    change(&api, &write, service, RunbookAct::Stop, reason).await
}

/// Whether the caller may bring back an earlier configuration; refused if that is asked for and it may not.
fn may_restore(write: &Write, method: Option<Method>) -> Result<bool, Problem> {
    let may_restore = write.caller.role >= Role::Operator;
    if method == Some(Method::Config) && !may_restore {
        let detail = "to bring back an earlier configuration needs the role operator";
        return Err(Problem::new(
            http::StatusCode::FORBIDDEN,
            "forbidden",
            detail,
        ));
    }
    Ok(may_restore)
}

async fn change(
    api: &Api,
    write: &Write,
    service: Name,
    act: RunbookAct,
    reason: Option<String>,
) -> Result<Response, Problem> {
    let asked = write.asked(api, reason)?;
    let command = Command::Runbook(Box::new(RunbookCommand {
        service: service.clone(),
        act,
    }));
    let confirmed = api.controls.ask(command, asked).await?;
    let applied = &confirmed.applied;
    let published = &applied.published;
    let planned = applied.planned.as_deref();
    let run = match planned.and_then(|(decision, _)| decision.services.get(&service)) {
        Some(state) => {
            let run = state.runbook.as_ref();
            run.map(|run| views::run_view(&service, run, published.clock.now()))
        }
        None => views::run(published, &service),
    };
    let answer = RunWritten {
        changed: applied.changed,
        dry_run: write.options.dry_run,
        revision: published.state.revision,
        run,
        followed: confirmed.acknowledged.into(),
    };
    Ok(Json(answer).into_response())
}
