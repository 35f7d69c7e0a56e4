//! Paths and queries as handlers get them; what cannot be read is answered like every other error.
//!
//! axum has extractors for both, but answers in plain text when they fail.

use axum::extract::{FromRequestParts, Path, RawQuery};
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// What a path names: one value, or several in the order of the path.
#[derive(Debug)]
pub(super) struct Named<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(named)) => Ok(Self(named)),
            Err(rejection) => Err(Problem::bad_request("invalid_path", rejection.body_text())),
        }
    }
}

/// What a query asks for.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Ok(RawQuery(text)) = RawQuery::from_request_parts(parts, state).await;
        query(text.as_deref()).map(Self)
    }
}

/// Reads a query.
pub(super) fn query<T: DeserializeOwned>(text: Option<&str>) -> Result<T, Problem> {
    serde_urlencoded::from_str(text.unwrap_or_default())
        .map_err(|error| Problem::bad_request("invalid_query", error.to_string()))
}
