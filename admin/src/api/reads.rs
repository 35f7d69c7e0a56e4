//! The endpoints that only look.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use switchback_config::model::Name;
use switchback_config::units::TimeSpan;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use utoipa::IntoParams;

use super::document::InService;
use super::problem::Problem;
use super::views::list::{Audit, Config, Identity, Revisions};
use super::views::schema;
use super::{Api, views};
use crate::auth::Caller;
use crate::control::Published;
use crate::events::Event;
use crate::history::Revision;

/// All services: who gets how much, and how they do.
#[utoipa::path(get, path = "/v1/services", operation_id = "status", tag = "look",
    responses((status = 200, body = views::Services, headers(("ETag" = String, description = "The state: `\"<revision>\"`")))))]
pub(super) async fn services(State(api): State<Api>) -> Response {
    let published = api.controls.published();
    with_etag(
        published.state.revision,
        Json(views::services(&published)).into_response(),
    )
}

/// One service: who gets how much, and how its backends do.
#[utoipa::path(get, path = "/v1/services/{service}", operation_id = "status_service", tag = "look",
    params(InService),
    responses((status = 200, body = views::Service, headers(("ETag" = String, description = "The state: `\"<revision>\"`")))))]
pub(super) async fn service(
    State(api): State<Api>,
    Path(name): Path<Name>,
) -> Result<Response, Problem> {
    let published = api.controls.published();
    let view = views::service(&published, &name).ok_or_else(|| unknown(&name))?;
    Ok(with_etag(
        published.state.revision,
        Json(view).into_response(),
    ))
}

/// How long somebody may wait for a rollout in one request.
const WAIT_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WaitFor {
    /// How long to wait for the next move, at most 30 s.
    #[param(value_type = Option<schema::TimeSpan>)]
    wait: Option<TimeSpan>,
}

/// The rollout that is under way, or the last one. With `wait` it is answered when that has moved or
/// stands, at the latest after that time.
#[utoipa::path(get, path = "/v1/services/{service}/rollout", operation_id = "rollout_show", tag = "rollouts",
    params(InService, WaitFor),
    responses((status = 200, body = views::Rollout, headers(("ETag" = String, description = "The state: `\"<revision>\"`")))))]
pub(super) async fn rollout(
    State(api): State<Api>,
    Path(name): Path<Name>,
    Query(WaitFor { wait }): Query<WaitFor>,
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
    Ok(with_etag(
        published.state.revision,
        Json(view).into_response(),
    ))
}

fn unknown(service: &str) -> Problem {
    let detail = format!("service {service:?} is not configured");
    Problem::new(StatusCode::NOT_FOUND, "unknown_service", detail)
}

fn with_etag(revision: u64, mut response: Response) -> Response {
    if let Ok(value) = HeaderValue::try_from(format!("\"{revision}\"")) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// How many at most: 1 to 500, 50 if it is not said.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
    /// Only those before this number.
    before: Option<u64>,
}

/// Entries of a list, if the caller does not say.
const PAGE: usize = 50;

/// Entries of a list at most.
const PAGE_MAX: usize = 500;

impl Page {
    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX)
    }
}

/// Every change of runtime state that is kept, the newest first: who, when, why, and what it was before.
#[utoipa::path(get, path = "/v1/revisions", operation_id = "history", tag = "record",
    params(Page),
    responses((status = 200, body = Revisions)))]
pub(super) async fn revisions(
    State(api): State<Api>,
    Query(page): Query<Page>,
) -> Result<Response, Problem> {
    let revisions = api
        .store
        .revisions(page.before, page.limit())
        .await
        .map_err(store_failed)?;
    let next = revisions
        .last()
        .map(|last| last.revision)
        .filter(|_| revisions.len() == page.limit());
    let page = Revisions {
        revisions,
        next_before: next,
    };
    Ok(Json(page).into_response())
}

/// One recorded change.
#[utoipa::path(get, path = "/v1/revisions/{revision}", operation_id = "history_show", tag = "record",
    params(("revision" = u64, Path, description = "Its number")),
    responses((status = 200, body = Revision)))]
pub(super) async fn revision(
    State(api): State<Api>,
    Path(number): Path<u64>,
) -> Result<Response, Problem> {
    let found = api.store.revision(number).await.map_err(store_failed)?;
    let found =
        found.ok_or_else(|| Problem::not_found(format!("revision {number} is not kept")))?;
    Ok(Json(found).into_response())
}

/// What was asked for, by whom, and what came of it, the newest first.
#[utoipa::path(get, path = "/v1/audit", operation_id = "audit", tag = "record",
    params(Page),
    responses((status = 200, body = Audit)))]
pub(super) async fn audit(
    State(api): State<Api>,
    Query(page): Query<Page>,
) -> Result<Response, Problem> {
    let entries = api
        .store
        .audit_entries(page.limit())
        .await
        .map_err(store_failed)?;
    Ok(Json(Audit { entries }).into_response())
}

pub(super) fn store_failed(error: String) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", error)
}

/// The configuration that is in force, with every default filled in; secrets are masked.
#[utoipa::path(get, path = "/v1/config", operation_id = "config", tag = "process",
    responses((status = 200, body = Config)))]
pub(super) async fn config(State(api): State<Api>) -> Response {
    let mut config = serde_json::json!(*api.controls.published().config);
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
    let Caller { name, role } = caller;
    Json(Identity { name, role }).into_response()
}

/// How often an idle stream shows that it lives.
const HEARTBEAT: Duration = Duration::from_secs(15);

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Follow {
    /// `false`: only what is kept, then the end.
    follow: Option<bool>,
}

/// What happens, as server-sent events: first what is kept, then what comes. Resumes after `Last-Event-ID`.
#[utoipa::path(get, path = "/v1/events", operation_id = "events", tag = "record",
    params(Follow, ("Last-Event-ID" = Option<String>, Header, description = "Only what came after this event")),
    responses((status = 200, body = String, content_type = "text/event-stream", description = "Messages with `id`, `event` (the kind) and `data` (the Event as JSON)")))]
pub(super) async fn events(
    State(api): State<Api>,
    Query(Follow { follow }): Query<Follow>,
    headers: HeaderMap,
) -> Response {
    let last = headers
        .get("last-event-id")
        .and_then(|id| id.to_str().ok()?.parse().ok());
    let (kept, coming) = api.events.follow(last);
    let coming = live(coming).take(if follow == Some(false) { 0 } else { usize::MAX });
    let stream = stream::iter(kept).chain(coming).map(|event| {
        let message = sse::Event::default()
            .id(event.id.to_string())
            .event(event.kind);
        Ok::<_, Infallible>(message.json_data(&event).unwrap_or_default())
    });
    Sse::new(stream)
        .keep_alive(KeepAlive::new().interval(HEARTBEAT))
        .into_response()
}

/// Events as they come. A reader that falls behind is cut off, and resumes with `Last-Event-ID`.
fn live(coming: Receiver<Event>) -> impl Stream<Item = Event> {
    stream::unfold(coming, |mut coming| async move {
        match coming.recv().await {
            Ok(event) => Some((event, coming)),
            Err(RecvError::Lagged(_) | RecvError::Closed) => None,
        }
    })
}

/// Whether the process lives.
#[utoipa::path(get, path = "/livez", operation_id = "livez", tag = "process", security(()),
    responses((status = 200, body = String, content_type = "text/plain; charset=utf-8")))]
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Whether clients may be sent here.
///
/// Ready: a configuration is in force, listeners are bound, and the process is not ending. What
/// backends do is not part of it: a proxy that is taken out because its backends fail fails more.
#[utoipa::path(get, path = "/readyz", operation_id = "healthcheck", tag = "process", security(()),
    responses(
        (status = 200, body = String, content_type = "text/plain; charset=utf-8"),
        (status = 503, body = String, content_type = "text/plain; charset=utf-8", description = "Not ready"),
    ))]
pub(super) async fn readyz(State(api): State<Api>) -> Response {
    if api.life.is_ready() {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
    }
}

/// The same as `/readyz`.
#[utoipa::path(get, path = "/healthz", operation_id = "healthz", tag = "process", security(()),
    responses(
        (status = 200, body = String, content_type = "text/plain; charset=utf-8"),
        (status = 503, body = String, content_type = "text/plain; charset=utf-8", description = "Not ready"),
    ))]
pub(super) async fn healthz(state: State<Api>) -> Response {
    readyz(state).await
}

/// Counters in the Prometheus text format.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "process", security(()),
    responses((status = 200, body = String, content_type = "text/plain; version=0.0.4")))]
pub(super) async fn metrics(State(api): State<Api>) -> Response {
    let text = crate::metrics::render(&api);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}
