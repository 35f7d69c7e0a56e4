//! What handlers of writes begin with: who asks, under which conditions, and for what.

use std::marker::PhantomData;

use axum::Extension;
use axum::extract::{FromRequest, FromRequestParts, RawQuery, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::Write;
use crate::api::body;
use crate::auth::{Caller, Role};

/// A write whose caller may ask for it, with its body.
#[derive(Debug)]
pub(in crate::api) struct Order<R, T> {
    /// Everything but the body.
    pub(in crate::api) write: Write,
    /// The body.
    pub(in crate::api) wanted: T,
    role: PhantomData<R>,
}

/// Who may ask for something.
pub(in crate::api) trait Needs {
    /// At least this role.
    const ROLE: Role;
}

/// Whoever operates services.
#[derive(Debug)]
pub(in crate::api) struct MayOperate;

/// Also whoever may only roll back.
#[derive(Debug)]
pub(in crate::api) struct MayRollBack;

impl Needs for MayOperate {
    const ROLE: Role = Role::Operator;
}

impl Needs for MayRollBack {
    const ROLE: Role = Role::Rollback;
}

impl<S: Send + Sync, R: Needs, T: DeserializeOwned> FromRequest<S> for Order<R, T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let caller = Extension::<Caller>::from_request_parts(&mut parts, state).await;
        let Extension(caller) = caller.map_err(IntoResponse::into_response)?;
        let Ok(RawQuery(query)) = RawQuery::from_request_parts(&mut parts, state).await;
        let headers = parts.headers.clone();
        let text = Bytes::from_request(Request::from_parts(parts, body), state).await;
        let text = text.map_err(IntoResponse::into_response)?;
        let write = Write::new(caller, R::ROLE, query, &headers);
        let write = write.map_err(IntoResponse::into_response)?;
        let wanted = body::read(&text).map_err(IntoResponse::into_response)?;
        Ok(Self {
            write,
            wanted,
            role: PhantomData,
        })
    }
}
