//! Files that are part of the program, as browsers get them.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, header};

/// An answer with a file of this kind. `policy` says what a page may load and do (`Content-Security-Policy`).
pub(super) fn answer(
    kind: &'static str,
    contents: impl IntoResponse,
    policy: &'static str,
) -> Response {
    let name = HeaderName::from_static("content-security-policy");
    let mut response = contents.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(name, HeaderValue::from_static(policy));
    let referrer = HeaderValue::from_static("no-referrer");
    headers.insert(header::REFERRER_POLICY, referrer);
    response
}
