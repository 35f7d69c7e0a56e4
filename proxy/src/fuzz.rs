//! What the HTTP/1 codec makes of some bytes, for fuzzers to compare with somebody else's opinion.
//!
//! Compiled only under `cfg(fuzzing)`. It runs the same code as a connection does, without a socket.

use switchback_config::defaults::limits;

use crate::h1::chunked::{Decoder, Event};
use crate::h1::facts::HeadLimits;
use crate::h1::reader::parse_trailers;
use crate::h1::{request_head, response_head};
use crate::head::{Fields, Framing, RequestHead, ResponseHead};

/// A message as the codec understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Method and target, or the status.
    pub start: Vec<Vec<u8>>,
    /// Names in lower case, and values.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
    /// Whether the body ends with the connection.
    pub until_close: bool,
}

/// What became of the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// They are refused.
    Refused,
    /// More would have to come.
    Incomplete,
    /// They begin with this message.
    Message(Message),
}

/// Reads a request, and its body.
#[must_use]
pub fn request(input: &[u8]) -> Reading {
    let limits = HeadLimits::of_requests(&limits());
    let mut head = RequestHead::default();
    match request_head::parse(input, &mut 0, &limits, &mut head) {
        Err(_) => Reading::Refused,
        Ok(None) => Reading::Incomplete,
        Ok(Some(length)) => {
            let start = vec![head.method().to_vec(), head.target().to_vec()];
            finish(start, &head.fields, head.framing, &input[length..])
        }
    }
}

/// Reads a response to a GET, and its body.
#[must_use]
pub fn response(input: &[u8]) -> Reading {
    let limits = limits();
    let limits =
        HeadLimits::of_responses(limits.response_header_bytes, limits.response_header_count);
    let mut head = ResponseHead::default();
    match response_head::parse(input, &mut 0, &limits, false, &mut head) {
        Err(_) => Reading::Refused,
        Ok(None) => Reading::Incomplete,
        Ok(Some(length)) => {
            let start = vec![head.status.to_string().into_bytes()];
            finish(start, &head.fields, head.framing, &input[length..])
        }
    }
}

fn finish(start: Vec<Vec<u8>>, fields: &Fields, framing: Framing, rest: &[u8]) -> Reading {
    let list = fields.list().iter();
    let fields = list.map(|field| {
        (
            fields.name(field).to_ascii_lowercase(),
            fields.value(field).to_vec(),
        )
    });
    let fields = fields.collect();
    let until_close = framing == Framing::UntilClose;
    let body = match framing {
        Framing::Empty => Some(Vec::new()),
        Framing::Length(bytes) => {
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            rest.get(..bytes).map(<[u8]>::to_vec)
        }
        Framing::UntilClose => Some(rest.to_vec()),
        Framing::Streamed => match chunked(rest) {
            Ok(body) => body,
            Err(()) => return Reading::Refused,
        },
    };
    match body {
        None => Reading::Incomplete,
        Some(body) => Reading::Message(Message {
            start,
            fields,
            body,
            until_close,
        }),
    }
}

/// The content of a chunked body, if all of it is there.
fn chunked(mut rest: &[u8]) -> Result<Option<Vec<u8>>, ()> {
    let (mut decoder, mut body) = (Decoder::new(), Vec::new());
    loop {
        let (dropped, event) = decoder.decode(rest).map_err(|_| ())?;
        rest = &rest[dropped..];
        match event {
            Event::More => return Ok(None),
            Event::Content(bytes) => {
                body.extend_from_slice(&rest[..bytes]);
                decoder.advance(bytes);
                rest = &rest[bytes..];
            }
            Event::Trailers(bytes) => {
                parse_trailers(&rest[..bytes]).map_err(|_| ())?;
                return Ok(Some(body));
            }
            Event::End => return Ok(Some(body)),
        }
    }
}
