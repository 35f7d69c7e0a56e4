//! The endpoints about hooks: who is told, what is on its way, what arrived, and what did not.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::extract::{Named, Query};
use super::problem::Problem;
use super::reads::{Newest, store_failed};
use super::writes::{Inputs, Write};
use crate::auth::{Caller, Role};
use crate::drill::shadow::is_shadow;
use crate::hooks::delivery::Delivery;
use crate::store::List;

/// Whom the file tells of what.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct Hooks {
    /// As in the file, with their service and every default filled in; secrets are masked.
    #[schema(value_type = Vec<Object>)]
    hooks: Vec<Value>,
    /// Messages that are on their way.
    waiting: usize,
    /// Messages that were given up.
    dead: u64,
}

/// Messages to hooks, the newest first.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct Deliveries {
    /// Those on their way.
    waiting: Vec<Delivery>,
    /// The last ones that arrived.
    delivered: Vec<Delivery>,
}

/// Messages that were given up, the newest first.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct DeadLetters {
    /// The messages.
    dead: Vec<Delivery>,
}

/// What was done about a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct LetterChanged {
    /// Its number.
    id: u64,
    /// It is on its way again, under another number.
    retried: bool,
    /// It is forgotten.
    dropped: bool,
}

/// Which dead letter it is about.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "described here, read by the router")]
struct OfLetter {
    /// Its number.
    id: u64,
}

/// The hooks of the file, without their secrets.
#[utoipa::path(get, path = "/v1/hooks", operation_id = "hooks", tag = "hooks",
    responses((status = 200, body = Hooks)))]
pub(super) async fn hooks(State(api): State<Api>) -> Response {
    let published = api.controls.published();
    let services = published.config.services.iter();
    let services = services.filter(|(name, _)| !is_shadow(name));
    let hooks = services.flat_map(|(service, file)| file.hooks.iter().map(move |h| (service, h)));
    let views = hooks.map(|(service, hook)| {
        let mut view = json!(hook);
        view["service"] = service.as_str().into();
        view
    });
    let mut masked = json!({"hooks": views.collect::<Vec<Value>>()});
    switchback_config::mask(&mut masked);
    let hooks = masked["hooks"].as_array().cloned().unwrap_or_default();
    let counts = &api.hooks.counts;
    let (waiting, dead) = (counts.waiting(), counts.dead());
    #[rustfmt::skip]
    let view = Hooks { hooks, waiting, dead };
    Json(view).into_response()
}

/// Messages that are on their way, and the last ones that arrived. What receivers have answered is shown
/// to operators only.
#[utoipa::path(get, path = "/v1/hooks/deliveries", operation_id = "hook_deliveries", tag = "hooks",
    params(Newest), responses((status = 200, body = Deliveries)))]
pub(super) async fn deliveries(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Query(newest): Query<Newest>,
) -> Result<Response, Problem> {
    let waiting = read(&api, &caller, List::Waiting, newest.limit()).await?;
    let delivered = read(&api, &caller, List::Delivered, newest.limit()).await?;
    Ok(Json(Deliveries { waiting, delivered }).into_response())
}

/// Dead letters: messages that were given up. They are kept until somebody retries or drops them.
#[utoipa::path(get, path = "/v1/hooks/dead", operation_id = "dead_letters", tag = "hooks",
    params(Newest), responses((status = 200, body = DeadLetters)))]
pub(super) async fn dead_letters(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Query(newest): Query<Newest>,
) -> Result<Response, Problem> {
    let dead = read(&api, &caller, List::Dead, newest.limit()).await?;
    Ok(Json(DeadLetters { dead }).into_response())
}

async fn read(
    api: &Api,
    caller: &Caller,
    list: List,
    limit: usize,
) -> Result<Vec<Delivery>, Problem> {
    let found = api.hooks.store.deliveries(list, limit).await;
    let mut found = found.map_err(store_failed)?;
    // What programs print and others answer may be more than everybody should see.
    if caller.role < Role::Operator {
        let attempts = found
            .iter_mut()
            .filter_map(|delivery| delivery.last.as_mut());
        attempts.for_each(|attempt| attempt.output.clear());
    }
    Ok(found)
}

/// Sends a dead letter again, as if it had never been tried. Its receiver sees the same id.
#[utoipa::path(post, path = "/v1/hooks/dead/{id}/retry", operation_id = "dead_letter_retry", tag = "hooks",
    params(OfLetter), responses((status = 200, body = LetterChanged)))]
pub(super) async fn retry(
    State(api): State<Api>,
    Named(id): Named<u64>,
    (Extension(caller), query, headers): Inputs,
) -> Result<Response, Problem> {
    Write::without_options(caller, Role::Operator, query.0, &headers)?;
    let retried = api.hooks.store.revive(id).await.map_err(store_failed)?;
    answer(id, retried, false)
}

/// Forgets a dead letter.
#[utoipa::path(delete, path = "/v1/hooks/dead/{id}", operation_id = "dead_letter_drop", tag = "hooks",
    params(OfLetter), responses((status = 200, body = LetterChanged)))]
pub(super) async fn drop(
    State(api): State<Api>,
    Named(id): Named<u64>,
    (Extension(caller), query, headers): Inputs,
) -> Result<Response, Problem> {
    Write::without_options(caller, Role::Operator, query.0, &headers)?;
    let dropped = api.hooks.store.bury(id).await.map_err(store_failed)?;
    answer(id, false, dropped)
}

fn answer(id: u64, retried: bool, dropped: bool) -> Result<Response, Problem> {
    if !retried && !dropped {
        let detail = format!("there is no dead letter {id}");
        let status = StatusCode::NOT_FOUND;
        return Err(Problem::new(status, "unknown_dead_letter", detail));
    }
    #[rustfmt::skip]
    let view = LetterChanged { id, retried, dropped };
    Ok(Json(view).into_response())
}
