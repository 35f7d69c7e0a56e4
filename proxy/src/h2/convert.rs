//! Heads between hyper's HTTP/2 types and ours.
//!
//! A request that comes over HTTP/2 is written into the same line-shaped head that HTTP/1 is parsed
//! into, after the checks that hyper leaves to us: the path must be a path, `:authority` and `Host`
//! must not contradict each other, cookies that came in crumbs are joined. In the other direction a
//! [`MapSink`] collects what policy lets through into a header map.

use std::ops::Range;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{request, response};

use crate::balance::Claim;
use crate::error::RequestError;
use crate::h1::facts::{HeadLimits, parse_length};
use crate::h1::request_head::is_authority;
use crate::h2::body::UploadBody;
use crate::head::{
    FieldSink, Fields, Framing, Name, RequestHead, ResponseHead, Version, list_elements,
};
use crate::request::Request;

/// Fills `head` from a request that arrived over HTTP/2. `ended`: it has no body.
///
/// # Errors
/// [`RequestError::Malformed`] and the limits of request heads.
pub(crate) fn from_client(
    parts: &request::Parts,
    ended: bool,
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<(), RequestError> {
    head.clear();
    head.version = Version::H2;
    if parts.method == http::Method::CONNECT {
        return Err(RequestError::ConnectMethod);
    }
    // Without an authority the library has checked the scheme, and dropped it.
    if !matches!(parts.uri.scheme_str(), None | Some("http" | "https")) {
        return Err(RequestError::Malformed("invalid :scheme"));
    }
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    if target.len() > limits.uri_bytes {
        return Err(RequestError::UriTooLong);
    }
    let is_path =
        target.starts_with('/') || (target == "*" && parts.method == http::Method::OPTIONS);
    if !is_path || !target.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(RequestError::Malformed("invalid :path"));
    }
    let method = head.fields.push_bytes(parts.method.as_str().as_bytes());
    let target = head.fields.push_bytes(target.as_bytes());
    let authority = authority(parts, head)?;
    head.set_line(method, target, Some(authority));
    copy_fields(parts, limits, head)?;
    head.framing = framing(&parts.headers, ended)?;
    Ok(())
}

/// The authority, from `:authority` or else from the one `Host`.
fn authority(parts: &request::Parts, head: &mut RequestHead) -> Result<Range<usize>, RequestError> {
    let mut hosts = parts.headers.get_all(http::header::HOST).iter();
    let host = hosts.next().map(HeaderValue::as_bytes);
    if hosts.next().is_some() {
        return Err(RequestError::Malformed("a request has exactly one host"));
    }
    let authority = parts
        .uri
        .authority()
        .map(|authority| authority.as_str().as_bytes());
    if let (Some(authority), Some(host)) = (authority, host)
        && !authority.eq_ignore_ascii_case(host)
    {
        return Err(RequestError::Malformed(":authority and host differ"));
    }
    let chosen = authority
        .or(host)
        .ok_or(RequestError::Malformed("a request has exactly one host"))?;
    if !is_authority(chosen) {
        return Err(RequestError::Malformed("invalid host"));
    }
    Ok(head.fields.push_bytes(chosen))
}

fn copy_fields(
    parts: &request::Parts,
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<(), RequestError> {
    let (mut bytes, mut count) = (0, 0);
    let mut crumbs: Vec<u8> = Vec::new();
    for (name, value) in &parts.headers {
        if !is_token(name) {
            return Err(RequestError::Malformed(
                "invalid character in a header name",
            ));
        }
        let line_bytes = name.as_str().len() + value.len() + ": \r\n".len();
        bytes += line_bytes;
        count += 1;
        if line_bytes > limits.line_bytes {
            return Err(RequestError::HeadersTooLarge("request_header_line_bytes"));
        }
        if value.as_bytes().trim_ascii().len() != value.len() {
            return Err(RequestError::Malformed("space around a header value"));
        }
        if name == http::header::COOKIE {
            if !crumbs.is_empty() {
                crumbs.extend_from_slice(b"; ");
            }
            crumbs.extend_from_slice(value.as_bytes());
            continue;
        }
        match head.fields.push(name.as_ref(), value.as_bytes()) {
            Name::Te => {
                head.te_trailers |=
                    list_elements(value.as_bytes()).any(|e| e.eq_ignore_ascii_case(b"trailers"));
            }
            Name::Connection
            | Name::KeepAlive
            | Name::ProxyConnection
            | Name::TransferEncoding
            | Name::Upgrade => {
                return Err(RequestError::Malformed("connection header over HTTP/2"));
            }
            _ => {}
        }
    }
    if bytes > limits.bytes {
        return Err(RequestError::HeadersTooLarge("request_header_bytes"));
    }
    if count > limits.count {
        return Err(RequestError::HeadersTooLarge("request_header_count"));
    }
    if !crumbs.is_empty() {
        head.fields.push(b"cookie", &crumbs);
    }
    Ok(())
}

fn framing(headers: &HeaderMap, ended: bool) -> Result<Framing, RequestError> {
    let mut lengths = headers.get_all(http::header::CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (None, _) if ended => Ok(Framing::Empty),
        (None, _) => Ok(Framing::Streamed),
        (Some(length), None) => {
            let length = parse_length(length.as_bytes())
                .ok_or(RequestError::Malformed("invalid content-length"))?;
            if ended && length > 0 {
                return Err(RequestError::Malformed("content-length without a body"));
            }
            Ok(Framing::Length(length))
        }
        _ => Err(RequestError::Malformed("invalid content-length")),
    }
}

/// A request for an endpoint that speaks HTTP/2.
///
/// # Errors
/// [`RequestError::Malformed`] for what the types of `http` do not accept.
pub(crate) fn to_endpoint(
    request: &Request<'_>,
    claim: &Claim,
    framing: Framing,
    body: UploadBody,
) -> Result<http::Request<UploadBody>, RequestError> {
    let unacceptable = |_| RequestError::Malformed("request cannot be sent over HTTP/2");
    let secure = claim.endpoint.endpoint.tls.is_some();
    let uri = http::Uri::builder()
        .scheme(if secure { "https" } else { "http" })
        .authority(request.upstream_authority(claim))
        .path_and_query(request.target().concat())
        .build()
        .map_err(unacceptable)?;
    let method = http::Method::from_bytes(request.head.method())
        .map_err(|_| RequestError::Malformed("invalid method"))?;
    let mut message = http::Request::new(body);
    *message.uri_mut() = uri;
    *message.method_mut() = method;
    *message.version_mut() = http::Version::HTTP_2;
    let mut sink = MapSink(message.headers_mut());
    request.write_headers(&mut sink, false);
    if let Framing::Length(bytes) = framing {
        sink.0.insert(http::header::CONTENT_LENGTH, bytes.into());
    }
    Ok(message)
}

/// Fills `head` from a response that arrived over HTTP/2. `ended`: it has no body. `to_head`: the request
/// was HEAD.
///
/// # Errors
/// [`RequestError::BadResponse`] for what another reader could understand differently, and the limits of
/// response heads.
pub(crate) fn from_endpoint(
    parts: &response::Parts,
    ended: bool,
    to_head: bool,
    limits: &HeadLimits,
    head: &mut ResponseHead,
) -> Result<(), RequestError> {
    head.clear();
    head.status = parts.status.as_u16();
    for (name, value) in parts.headers.iter().filter(|(name, _)| is_token(name)) {
        head.fields.push(name.as_ref(), value.as_bytes());
    }
    if !(200..=599).contains(&head.status) {
        return Err(RequestError::BadResponse("status out of range"));
    }
    if parts.headers.len() > limits.count {
        return Err(RequestError::ResponseTooLarge("response_header_count"));
    }
    let mut lengths = parts.headers.get_all(http::header::CONTENT_LENGTH).iter();
    head.announced_bytes = match (lengths.next(), lengths.next()) {
        (None, _) => None,
        (Some(length), None) => {
            let length = parse_length(length.as_bytes());
            Some(length.ok_or(RequestError::BadResponse("invalid content-length"))?)
        }
        _ => return Err(RequestError::BadResponse("two content-length fields")),
    };
    let bodiless = to_head || matches!(head.status, 204 | 304);
    head.framing = match head.announced_bytes {
        _ if bodiless => Framing::Empty,
        Some(bytes) => Framing::Length(bytes),
        None if ended => Framing::Length(0),
        None => Framing::Streamed,
    };
    Ok(())
}

/// Whether a name is one over HTTP/1 too: over HTTP/2 the library lets quotation marks pass, which are
/// no part of a token (RFC 9110, 5.6.2).
pub(crate) fn is_token(name: &HeaderName) -> bool {
    memchr::memchr(b'"', name.as_str().as_bytes()).is_none()
}

/// Collects header fields into a map. What the map's types refuse is left out: it was checked for
/// the same characters when it was received.
#[derive(Debug)]
pub(crate) struct MapSink<'a>(pub(crate) &'a mut HeaderMap);

impl MapSink<'_> {
    fn append(&mut self, name: &[u8], value: &[u8]) {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            self.0.append(name, value);
        }
    }
}

impl FieldSink for MapSink<'_> {
    fn run(&mut self, fields: &Fields, range: Range<usize>) {
        for field in &fields.list()[range] {
            self.append(fields.name(field), fields.value(field));
        }
    }

    fn field(&mut self, name: &'static str, value: &[u8]) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            self.0.append(HeaderName::from_static(name), value);
        }
    }

    fn configured(&mut self, name: &str, value: &[u8]) {
        self.append(name.as_bytes(), value);
    }
}

/// Trailers as a map.
pub(crate) fn to_map(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.list().len());
    MapSink(&mut map).run(fields, 0..fields.list().len());
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 1024,
        line_bytes: 1024,
        count: 10,
        uri_bytes: 1024,
    };

    #[test]
    fn names_that_are_none_over_http_1_do_not_pass() {
        let name = HeaderName::from_lowercase(b"a\"b").expect("let pass by the library");
        let mut request = http::Request::get("http://shop.example/");
        let mut response = http::Response::builder();
        for headers in [request.headers_mut(), response.headers_mut()] {
            let headers = headers.expect("valid");
            headers.insert(&name, HeaderValue::from_static("1"));
            headers.insert("a-b", HeaderValue::from_static("2"));
        }
        let (request, ()) = request.body(()).expect("valid").into_parts();
        let mut head = RequestHead::default();
        let refused = from_client(&request, true, &LIMITS, &mut head);
        assert!(
            matches!(refused, Err(RequestError::Malformed(_))),
            "{refused:?}"
        );
        let (response, ()) = response.body(()).expect("valid").into_parts();
        let mut head = ResponseHead::default();
        from_endpoint(&response, true, false, &LIMITS, &mut head).expect("valid");
        let names = head
            .fields
            .list()
            .iter()
            .map(|field| head.fields.name(field));
        assert_eq!(names.collect::<Vec<_>>(), [b"a-b"]);
    }
}
