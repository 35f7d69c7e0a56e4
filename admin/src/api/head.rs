//! What the head of a request to the API may look like.
//!
//! The library that reads it is more generous than the listeners are: it goes by the last of several transfer
//! codings, and bounds a head only by its buffer. Here the same holds as there. What is ambiguous about the
//! body ends the connection.

use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, header};
use switchback_config::defaults::{ADMIN_HEADER_BYTES, ADMIN_HEADER_LINE_BYTES, ADMIN_URI_BYTES};

use super::problem::Problem;

/// Whether nothing about a head is ambiguous or too large.
pub(super) fn check(request: &Parts) -> Result<(), Problem> {
    if request.method == Method::CONNECT {
        let detail = "this is no proxy";
        let status = StatusCode::METHOD_NOT_ALLOWED;
        return Err(Problem::new(status, "method_not_allowed", detail).and_close());
    }
    check_coding(&request.headers)?;
    check_size(request)
}

fn check_coding(headers: &HeaderMap) -> Result<(), Problem> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok(());
    };
    let is_chunked = |name: &[u8]| name.trim_ascii().eq_ignore_ascii_case(b"chunked");
    if codings.next().is_none() && is_chunked(coding.as_bytes()) {
        return Ok(());
    }
    let all = headers.get_all(header::TRANSFER_ENCODING).iter();
    let mut names = all.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let is_known = names.all(|name| name.trim_ascii().is_empty() || is_chunked(name));
    let status = match is_known {
        true => StatusCode::BAD_REQUEST,
        false => StatusCode::NOT_IMPLEMENTED,
    };
    let detail = "a body is sent as it is, with its length, or chunked, which is said once";
    Err(Problem::new(status, "invalid_coding", detail).and_close())
}

fn check_size(request: &Parts) -> Result<(), Problem> {
    if request.uri.to_string().len() > ADMIN_URI_BYTES {
        let detail = format!("a target has at most {ADMIN_URI_BYTES} bytes");
        return Err(Problem::new(StatusCode::URI_TOO_LONG, "uri_too_long", detail).and_close());
    }
    // With the colon, a space and the end of the line.
    let lines = request.headers.iter();
    let mut lines = lines.map(|(name, value)| name.as_str().len() + value.len() + 4);
    let all = lines.try_fold(0, |all, line| {
        (line <= ADMIN_HEADER_LINE_BYTES).then_some(all + line)
    });
    if all.is_some_and(|all| all <= ADMIN_HEADER_BYTES) {
        return Ok(());
    }
    let detail = format!(
        "header fields have at most {ADMIN_HEADER_LINE_BYTES} bytes each and {ADMIN_HEADER_BYTES} in all"
    );
    let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    Err(Problem::new(status, "header_too_large", detail).and_close())
}
