//! Why traffic goes where it goes, for people.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use switchback_config::model::Name;

use super::Api;
use super::document::InService;
use super::extract::Named;
use super::problem::Problem;
use super::reads::unknown;
use crate::explain::{Explanation, Facts};
use crate::state::ServiceState;

/// Why the traffic of a service goes where it goes, what will change by itself, and what one can do: in
/// sentences, and as commands.
#[utoipa::path(get, path = "/v1/services/{service}/explain", operation_id = "explain", tag = "look",
    params(InService),
    responses((status = 200, body = Explanation)))]
pub(super) async fn explain(
    State(api): State<Api>,
    Named(name): Named<Name>,
) -> Result<Response, Problem> {
    let published = api.controls.published();
    let unrecorded = ServiceState::default();
    let facts = Facts::collect(&published, &name, &unrecorded, published.clock.now());
    let facts = facts.ok_or_else(|| unknown(&name))?;
    Ok(Json(crate::explain::explain(&facts)).into_response())
}
