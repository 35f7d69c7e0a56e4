//! Bytes of HTTP/1 in, request heads out: strict, and without I/O.
//!
//! `httparse` finds lines and checks characters; everything that decides where a request ends or
//! whom it is for is decided here, and what could be read in two ways is refused. The rules are
//! those of RFC 9112 with the choices an edge proxy has to make: both `Content-Length` and
//! `Transfer-Encoding`, lengths that differ, a coding other than exactly one `chunked`, two hosts,
//! line folding, control characters and space before a colon are errors, never guesses.
//!
//! A head is parsed when its end has arrived: a client that drips single bytes costs one search in
//! the new bytes each time and no parse.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::error::RequestError;
use crate::h1::facts::{FIELDS_MAX, Facts, HeadLimits, Spans, end_arrived};
use crate::head::{Framing, Name, RequestHead, Version};

/// Reads a request head from the start of `input`. `Ok(None)`: its end has not arrived.
/// `seen` is how much of `input` was searched for the end before, and is kept up to date.
///
/// # Errors
/// Any [`RequestError`] of the client; nothing after it on the connection can be trusted.
pub(crate) fn parse(
    input: &[u8],
    seen: &mut usize,
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<Option<usize>, RequestError> {
    let may_be_complete = *seen == 0 || end_arrived(input, *seen);
    if may_be_complete && let Some(length) = parse_complete(input, limits, head)? {
        return Ok(Some(length));
    }
    *seen = input.len();
    check_partial(input, limits)?;
    Ok(None)
}

fn parse_complete(
    input: &[u8],
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<Option<usize>, RequestError> {
    let mut storage = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let length = match parsed.parse_with_uninit_headers(input, &mut storage[..limits.count]) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(refusal(error, input)),
    };
    if length > limits.bytes {
        return Err(RequestError::HeadersTooLarge("request_header_bytes"));
    }
    let spans = Spans::of(input);
    let method = spans.span(parsed.method.unwrap_or_default().as_bytes());
    let target = spans.span(parsed.path.unwrap_or_default().as_bytes());
    head.clear();
    head.fields.set_bytes(&input[..length]);
    head.version = if parsed.version == Some(0) {
        Version::H10
    } else {
        Version::H11
    };
    head.set_line(method, target, None);
    read_fields(&spans, parsed.headers, limits, head)?;
    resolve_target(head, limits)?;
    Ok(Some(length))
}

/// Refuses a head that is too large before its end arrives.
fn check_partial(input: &[u8], limits: &HeadLimits) -> Result<(), RequestError> {
    let text = input.trim_ascii_start();
    let first_line_ended = memchr::memchr(b'\n', text).is_some();
    let method_bytes = memchr::memchr(b' ', text).unwrap_or(0);
    if !first_line_ended && text.len() > method_bytes + limits.uri_bytes + " HTTP/1.1\r\n".len() {
        return Err(RequestError::UriTooLong);
    }
    let last_line = memchr::memrchr(b'\n', input).map_or(0, |at| at + 1);
    if first_line_ended && input.len() - last_line > limits.line_bytes {
        return Err(RequestError::HeadersTooLarge("request_header_line_bytes"));
    }
    if input.len() > limits.bytes {
        return Err(RequestError::HeadersTooLarge("request_header_bytes"));
    }
    Ok(())
}

fn refusal(error: httparse::Error, input: &[u8]) -> RequestError {
    use httparse::Error as E;
    match error {
        E::TooManyHeaders => RequestError::HeadersTooLarge("request_header_count"),
        E::HeaderName => RequestError::Malformed("invalid character in a header name"),
        E::HeaderValue => RequestError::Malformed("invalid character in a header value"),
        E::NewLine => RequestError::Malformed("invalid line end"),
        E::Version if names_another_version(input) => RequestError::VersionNotSupported,
        E::Version => RequestError::Malformed("invalid HTTP version"),
        E::Token | E::Status => RequestError::Malformed("invalid request line"),
    }
}

/// Whether the request line ends in a version that is well formed but not ours.
fn names_another_version(input: &[u8]) -> bool {
    let line = input
        .trim_ascii_start()
        .split(|b| *b == b'\n')
        .next()
        .unwrap_or_default();
    let version = line
        .trim_ascii_end()
        .rsplit(|b| *b == b' ')
        .next()
        .unwrap_or_default();
    matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit() && !matches!((major, minor), (b'1', b'0' | b'1')))
}

fn read_fields(
    spans: &Spans,
    parsed: &[httparse::Header<'_>],
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<(), RequestError> {
    let mut facts = Facts::default();
    for field in parsed {
        if field.name.len() + field.value.len() + ": \r\n".len() > limits.line_bytes {
            return Err(RequestError::HeadersTooLarge("request_header_line_bytes"));
        }
        let known = spans.push(&mut head.fields, field);
        if known == Name::Other {
            continue;
        }
        facts
            .note(known, &head.fields, &mut head.listed)
            .map_err(|_| RequestError::Malformed("invalid content-length"))?;
        if known == Name::Host {
            note_host(field.value, head)?;
        }
    }
    let old = head.version == Version::H10;
    if facts.hosts > 1 || (facts.hosts == 0 && !old) {
        return Err(RequestError::Malformed("a request has exactly one host"));
    }
    head.framing = framing(&facts, old)?;
    head.close = facts.close || (old && !facts.keep_alive);
    head.expects_continue = facts.expects_continue && !old;
    head.te_trailers = facts.te_trailers;
    if facts.websocket
        && facts.upgrade
        && !old
        && !head.framing.has_body()
        && head.method() == b"GET"
    {
        let mut versions = head.fields.values(b"sec-websocket-version");
        if versions.next() != Some(b"13") || versions.next().is_some() {
            return Err(RequestError::Malformed(
                "only version 13 of websocket is supported",
            ));
        }
        drop(versions);
        head.websocket = true;
    }
    Ok(())
}

fn note_host(value: &[u8], head: &mut RequestHead) -> Result<(), RequestError> {
    if !is_authority(value) {
        return Err(RequestError::Malformed("invalid host"));
    }
    if let Some(field) = head.fields.list().last() {
        head.set_authority(crate::head::Fields::value_span(field));
    }
    Ok(())
}

fn framing(facts: &Facts, old: bool) -> Result<Framing, RequestError> {
    if facts.codings == 0 {
        return Ok(match facts.length {
            None => Framing::Empty,
            Some(length) => Framing::Length(length),
        });
    }
    if old || facts.length.is_some() {
        return Err(RequestError::Malformed(
            "transfer-encoding beside content-length or in HTTP/1.0",
        ));
    }
    if facts.unknown_coding {
        return Err(RequestError::UnknownCoding);
    }
    if facts.codings != 1 || !facts.chunked {
        return Err(RequestError::Malformed(
            "transfer-encoding is not exactly chunked",
        ));
    }
    Ok(Framing::Streamed)
}

/// Brings the forms of a request target (RFC 9112, 3.2) to a path and an authority.
fn resolve_target(head: &mut RequestHead, limits: &HeadLimits) -> Result<(), RequestError> {
    let text = head.target();
    if text.len() > limits.uri_bytes {
        return Err(RequestError::UriTooLong);
    }
    if head.method() == b"CONNECT" {
        return Err(RequestError::ConnectMethod);
    }
    if !text.iter().all(u8::is_ascii_graphic) || memchr::memchr(b'#', text).is_some() {
        return Err(RequestError::Malformed(
            "invalid character in the request target",
        ));
    }
    if text.starts_with(b"/") || (text == b"*" && head.method() == b"OPTIONS") {
        return Ok(());
    }
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| {
            text.len() > scheme.len() && text[..scheme.len()].eq_ignore_ascii_case(scheme)
        })
        .ok_or(RequestError::Malformed("invalid request target"))?;
    let rest = &text[scheme.len()..];
    let authority_bytes = rest
        .iter()
        .position(|b| matches!(b, b'/' | b'?'))
        .unwrap_or(rest.len());
    if !is_authority(&rest[..authority_bytes]) {
        return Err(RequestError::Malformed(
            "invalid host in the request target",
        ));
    }
    take_absolute_form(head, scheme.len(), authority_bytes);
    Ok(())
}

/// Splits `scheme://authority/path?query`; the authority replaces `Host` (RFC 9112, 3.2.2).
fn take_absolute_form(head: &mut RequestHead, scheme_bytes: usize, authority_bytes: usize) {
    let target = head.target_span();
    let authority = target.start + scheme_bytes..target.start + scheme_bytes + authority_bytes;
    let mut path: Range<usize> = authority.end..target.end;
    if head.fields.bytes().get(path.start) != Some(&b'/') || path.is_empty() {
        // `http://host` and `http://host?query` mean the path `/`, and the former the whole server when its
        // options are asked for (RFC 9112, 3.2.4).
        let query = head.fields.bytes()[path].to_vec();
        let is_about_server = query.is_empty() && head.method() == b"OPTIONS";
        let own: &[u8] = if is_about_server { b"*" } else { b"/" };
        let start = head.fields.push_bytes(own).start;
        path = start..head.fields.push_bytes(&query).end;
    }
    let method = head.method_span();
    head.set_line(method, path, Some(authority));
}

/// Whether this is `uri-host [ ":" port ]` (RFC 3986), not empty, without user information.
pub(crate) fn is_authority(value: &[u8]) -> bool {
    let Some((host_ok, port)) = split_authority(value) else {
        return false;
    };
    host_ok
        && port.len() <= 5
        && port.iter().all(u8::is_ascii_digit)
        && port
            .iter()
            .fold(0_u32, |n, digit| n * 10 + u32::from(digit - b'0'))
            <= 65_535
}

/// Whether the host is valid, and the port.
fn split_authority(value: &[u8]) -> Option<(bool, &[u8])> {
    if let [b'[', rest @ ..] = value {
        let end = memchr::memchr(b']', rest)?;
        let address = std::str::from_utf8(&rest[..end]).unwrap_or_default();
        let valid = address.parse::<std::net::Ipv6Addr>().is_ok();
        return match &rest[end + 1..] {
            [] => Some((valid, b"")),
            [b':', port @ ..] => Some((valid, port)),
            _ => None,
        };
    }
    let colon = memchr::memchr(b':', value);
    let host = &value[..colon.unwrap_or(value.len())];
    let port = colon.map_or(&b""[..], |at| &value[at + 1..]);
    // Percent-encoding is allowed by the grammar, but no name has it, and readers differ about it.
    let valid = |b: &u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(b);
    Some((!host.is_empty() && host.iter().all(valid), port))
}

#[cfg(test)]
mod tests;
