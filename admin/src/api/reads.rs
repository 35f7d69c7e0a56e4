//! The endpoints that only look.

pub(super) mod overview;
pub(super) mod probes;
pub(super) mod rollbacks;

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use switchback_config::model::Name;
use switchback_config::units::TimeSpan;
use utoipa::IntoParams;

use super::condition::tagged;
use super::document::InService;
use super::extract::{Named, Query};
use super::problem::Problem;
use super::views::list::{Audit, Config, Identity};
use super::views::schema;
use super::{Api, views};
use crate::auth::Caller;
use crate::control::Published;
use crate::drill::shadow::without;
use crate::history::AuditCheck;

/// All services: who gets how much, and how they do.
#[utoipa::path(get, path = "/v1/services", operation_id = "status", tag = "look",
    responses((status = 200, body = views::Services, headers(("ETag" = String, description = "The state: `\"<revision>\"`")))))]
pub(super) async fn services(
    State(api): State<Api>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let published = api.controls.published();
    let view = Json(views::services(
        &published,
        api.reloader.last(),
        api.controls.fleet(),
    ));
    tagged(&headers, published.state.revision, view.into_response())
}

/// One service: who gets how much, and how its backends do.
#[utoipa::path(get, path = "/v1/services/{service}", operation_id = "status_service", tag = "look",
    params(InService),
    responses((status = 200, body = views::Service, headers(("ETag" = String, description = "The state: `\"<revision>\"`")))))]
pub(super) async fn service(
    State(api): State<Api>,
    Named(name): Named<Name>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let published = api.controls.published();
    let view = views::service(&published, &name).ok_or_else(|| unknown(&name))?;
    let revision = published.state.revision;
    tagged(&headers, revision, Json(view).into_response())
}

/// How long somebody may wait for a rollout in one request.
const WAIT_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WaitFor {
    /// How long to wait for the next move, at most 30 s.
    #[param(value_type = Option<schema::TimeSpan>, inline)]
    wait: Option<TimeSpan>,
}

/// The rollout that is under way, or the last one. With `wait` it is answered when that has moved or
/// stands, at the latest after that time.
#[utoipa::path(get, path = "/v1/services/{service}/rollout", operation_id = "rollout_show", tag = "rollouts",
    params(InService, WaitFor),
    responses((status = 200, body = views::Rollout, headers(("ETag" = String, description = "The state: `\"<revision>\"`")))))]
pub(super) async fn rollout(
    State(api): State<Api>,
    Named(name): Named<Name>,
    Query(WaitFor { wait }): Query<WaitFor>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut published = api.controls.follow();
    let progress = |published: &Published| {
        let state = published.state.services.get(&name);
        let rollout = state.and_then(|state| state.rollout.as_ref());
        rollout.map(|rollout| (rollout.stage, rollout.status()))
    };
    let before = progress(&published.borrow_and_update());
    let stands = before.is_none_or(|(_, status)| status != "running");
    if let Some(wait) = wait.filter(|_| !stands) {
        let moved = published.wait_for(|published| progress(published) != before);
        // At the end of its time, the caller sees that it has not moved.
        let _ = tokio::time::timeout(wait.0.min(WAIT_MAX), moved)
            .await
            .is_ok();
    }
    let published = published.borrow().clone();
    if !published.services.contains_key(&name) {
        return Err(unknown(&name));
    }
    let view = views::rollout(&published, &name).ok_or_else(|| {
        let detail = format!("there was no rollout of service {name:?} yet");
        Problem::new(StatusCode::NOT_FOUND, "no_rollout", detail)
    })?;
    let revision = published.state.revision;
    tagged(&headers, revision, Json(view).into_response())
}

pub(super) fn unknown(service: &str) -> Problem {
    let detail = format!("service {service:?} is not configured");
    Problem::new(StatusCode::NOT_FOUND, "unknown_service", detail)
}

/// The newest part of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Newest {
    /// How many at most; 50 if it is not said.
    #[param(value_type = Option<usize>, minimum = 1, maximum = 500)]
    limit: Option<Limit>,
}

/// Entries of a list: 1 to [`Limit::MAX`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "usize")]
pub(super) struct Limit(pub(super) usize);

impl Newest {
    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or_default().0
    }
}

impl Limit {
    const MAX: usize = 500;
}

impl Default for Limit {
    fn default() -> Self {
        Self(50)
    }
}

impl TryFrom<usize> for Limit {
    type Error = String;

    fn try_from(limit: usize) -> Result<Self, String> {
        if (1..=Self::MAX).contains(&limit) {
            Ok(Self(limit))
        } else {
            Err(format!("limit: {limit} is not within 1 to {}", Self::MAX))
        }
    }
}

/// What was asked for, by whom, and what came of it, the newest first.
#[utoipa::path(get, path = "/v1/audit", operation_id = "audit", tag = "record",
    params(Newest),
    responses((status = 200, body = Audit)))]
pub(super) async fn audit(
    State(api): State<Api>,
    Query(newest): Query<Newest>,
) -> Result<Response, Problem> {
    let entries = api
        .store
        .audit_entries(newest.limit())
        .await
        .map_err(store_failed)?;
    Ok(Json(Audit { entries }).into_response())
}

/// Whether the audit is what was written: every entry is bound to the one before it by a hash.
#[utoipa::path(get, path = "/v1/audit/check", operation_id = "check_audit", tag = "record",
    responses((status = 200, body = AuditCheck)))]
pub(super) async fn check_audit(State(api): State<Api>) -> Result<Json<AuditCheck>, Problem> {
    let check = api.store.check_audit().await.map_err(store_failed)?;
    Ok(Json(check))
}

pub(super) fn store_failed(error: String) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", error)
}

/// The configuration that is in force, with every default filled in; secrets are masked.
#[utoipa::path(get, path = "/v1/config", operation_id = "config", tag = "process",
    responses((status = 200, body = Config)))]
pub(super) async fn config(State(api): State<Api>) -> Response {
    let mut config = serde_json::json!(*without(&api.controls.published().config));
    switchback_config::mask(&mut config);
    let view = Config {
        path: api.reloader.path().map(Into::into),
        last_reload: api.reloader.last(),
        config,
    };
    Json(view).into_response()
}

/// Whose token this is, and what it may do.
#[utoipa::path(get, path = "/v1/whoami", operation_id = "whoami", tag = "process",
    responses((status = 200, body = Identity)))]
pub(super) async fn whoami(Extension(caller): Extension<Caller>) -> Response {
    let Caller { name, role, .. } = caller;
    Json(Identity { name, role }).into_response()
}

/// Counters in the Prometheus text format.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "process", security(()),
    responses((status = 200, body = String, content_type = "text/plain; version=0.0.4")))]
pub(super) async fn metrics(State(api): State<Api>) -> Response {
    let text = crate::metrics::render(&api);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}
