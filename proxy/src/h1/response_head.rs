//! Bytes of HTTP/1 in, response heads out: as strict with endpoints as with clients.
//!
//! A response whose end could be found in two ways would let one client's answer run into the next
//! client's, so it is refused and its connection closed: both `Content-Length` and
//! `Transfer-Encoding`, two lengths, a coding other than `chunked`, control characters, folding.

use std::mem::MaybeUninit;

use crate::error::RequestError;
use crate::h1::facts::{FIELDS_MAX, Facts, HeadLimits, Spans, end_arrived};
use crate::head::{Framing, ResponseHead};

const TOO_LARGE: RequestError = RequestError::ResponseTooLarge("response_header_bytes");

/// Reads a response head from the start of `input`. `Ok(None)`: its end has not arrived.
/// `seen` is how much of `input` was searched for the end before, and is kept up to date.
/// `to_head`: the request was HEAD, so there is no body whatever the fields say.
///
/// # Errors
/// [`RequestError::BadResponse`]; the connection cannot be used again.
pub(crate) fn parse(
    input: &[u8],
    seen: &mut usize,
    limits: &HeadLimits,
    to_head: bool,
    head: &mut ResponseHead,
) -> Result<Option<usize>, RequestError> {
    let may_be_complete = *seen == 0 || end_arrived(input, *seen);
    if may_be_complete && let Some(length) = parse_complete(input, limits, to_head, head)? {
        return Ok(Some(length));
    }
    *seen = input.len();
    if input.len() > limits.bytes {
        Err(TOO_LARGE)
    } else {
        Ok(None)
    }
}

fn parse_complete(
    input: &[u8],
    limits: &HeadLimits,
    to_head: bool,
    head: &mut ResponseHead,
) -> Result<Option<usize>, RequestError> {
    let mut storage = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let outcome = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut parsed,
        input,
        &mut storage[..limits.count],
    );
    let length = match outcome {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(RequestError::ResponseTooLarge("response_header_count"));
        }
        Err(_) => {
            return Err(RequestError::BadResponse(
                "malformed status line or headers",
            ));
        }
    };
    if length > limits.bytes {
        return Err(TOO_LARGE);
    }
    head.clear();
    head.fields.set_bytes(&input[..length]);
    head.status = parsed.code.unwrap_or_default();
    if !(100..=599).contains(&head.status) {
        return Err(RequestError::BadResponse("status out of range"));
    }
    let spans = Spans::of(input);
    let mut facts = Facts::default();
    for field in parsed.headers.iter() {
        let known = spans.push(&mut head.fields, field);
        facts
            .note(known, &head.fields, &mut head.listed)
            .map_err(|_| RequestError::BadResponse("invalid content-length"))?;
    }
    let old = parsed.version == Some(0);
    head.close = facts.close || (old && !facts.keep_alive);
    head.framing = framing(head.status, to_head, &facts, old)?;
    head.announced_bytes = facts.length;
    Ok(Some(length))
}

fn framing(status: u16, to_head: bool, facts: &Facts, old: bool) -> Result<Framing, RequestError> {
    if facts.lengths > 1 {
        return Err(RequestError::BadResponse("two content-length lines"));
    }
    if facts.codings > 0 {
        if facts.length.is_some() {
            return Err(RequestError::BadResponse(
                "transfer-encoding beside content-length",
            ));
        }
        if old || facts.codings != 1 || !facts.chunked {
            return Err(RequestError::BadResponse(
                "transfer-encoding is not exactly chunked",
            ));
        }
    }
    if status == 101 && !(facts.upgrade && facts.websocket) {
        return Err(RequestError::BadResponse(
            "101 without upgrade to websocket",
        ));
    }
    if to_head || status < 200 || matches!(status, 204 | 304) {
        return Ok(Framing::Empty);
    }
    Ok(match (facts.chunked, facts.length) {
        (true, _) => Framing::Streamed,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::UntilClose,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 1024,
        line_bytes: 1024,
        count: 10,
        uri_bytes: 0,
    };

    fn parse_one(text: &str, to_head: bool) -> Result<ResponseHead, String> {
        let mut head = ResponseHead::default();
        match parse(text.as_bytes(), &mut 0, &LIMITS, to_head, &mut head) {
            Ok(Some(length)) => {
                assert!(text.as_bytes()[..length].ends_with(b"\n"));
                Ok(head)
            }
            Ok(None) => Err("partial".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn framing_follows_status_method_and_fields() {
        for (text, to_head, framing, close) in [
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
                false,
                Framing::Length(5),
                false,
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
                true,
                Framing::Empty,
                false,
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
                false,
                Framing::Length(0),
                false,
            ),
            (
                "HTTP/1.1 204 No\r\ncontent-length: 5\r\n\r\n",
                false,
                Framing::Empty,
                false,
            ),
            (
                "HTTP/1.1 304 No\r\ncontent-length: 5\r\n\r\n",
                false,
                Framing::Empty,
                false,
            ),
            (
                "HTTP/1.1 200\r\ntransfer-encoding: CHUNKED\r\n\r\n",
                false,
                Framing::Streamed,
                false,
            ),
            (
                "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
                false,
                Framing::UntilClose,
                true,
            ),
            ("HTTP/1.0 200 OK\r\n\r\n", false, Framing::UntilClose, true),
            (
                "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\n",
                false,
                Framing::Length(1),
                false,
            ),
            (
                "HTTP/1.1 101 Up\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n\r\n",
                false,
                Framing::Empty,
                false,
            ),
        ] {
            let head = parse_one(text, to_head).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((head.framing, head.close), (framing, close), "{text}");
        }
    }

    #[test]
    fn ambiguous_responses_are_refused() {
        for text in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 101 Up\r\n\r\n",
            "HTTP/1.1 101 Up\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
            "HTTP/1.1 099 Low\r\n\r\n",
            "HTTP/1.1 600 High\r\n\r\n",
            "HTTP/1.1 20 Short\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\rc\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\0c\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n",
            "HTTP/1.1 200 OK\r\na : b\r\n\r\n",
            "garbage\r\n\r\n",
        ] {
            let error = parse_one(text, false).expect_err(text);
            assert_ne!(error, "partial", "{text}");
        }
    }

    #[test]
    fn limits_hold_at_the_limit_and_not_before() {
        let with = |fields: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(fields));
        assert!(parse_one(&with(10), false).is_ok());
        assert!(parse_one(&with(11), false).is_err());
        let sized =
            |bytes: usize| format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "b".repeat(bytes - 24));
        assert!(parse_one(&sized(1024), false).is_ok());
        assert!(parse_one(&sized(1025), false).is_err());
        let mut head = ResponseHead::default();
        assert!(parse(&vec![b'H'; 1025], &mut 3, &LIMITS, false, &mut head).is_err());
    }
}
