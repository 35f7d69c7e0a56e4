//! What this proxy makes of some bytes, for fuzzers to compare with somebody else's opinion.
//!
//! Compiled only under `cfg(fuzzing)`. It runs the same code as a connection does, without a socket,
//! and gives it the bytes in any pieces: what arrives together must not change what is read.

mod forward;
mod watch;

use switchback_config::defaults::limits;

use crate::h1::chunked::{Decoder, Event};
use crate::h1::facts::HeadLimits;
use crate::h1::reader::parse_trailers;
use crate::h1::{request_head, response_head};
use crate::head::{Fields, Framing, RequestHead, ResponseHead};

pub use forward::{Peer, client_address, forward, forward_h2, shown};
pub use watch::{FLOODS, Watched, watch};

/// Names in lower case, and values.
pub type FieldList = Vec<(Vec<u8>, Vec<u8>)>;

/// A message as the codec understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Method and target, or the status.
    pub start: Vec<Vec<u8>>,
    /// Its fields.
    pub fields: FieldList,
    /// The body.
    pub body: Vec<u8>,
    /// Whether the body ends with the connection.
    pub until_close: bool,
}

/// What became of the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading<T = Message> {
    /// They are refused.
    Refused,
    /// More would have to come.
    Incomplete,
    /// They begin with this.
    Message(T),
}

/// A chunked body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunks {
    /// Its content.
    pub content: Vec<u8>,
    /// What came behind it, without the fields that must not come late.
    pub trailers: FieldList,
    /// Where it ends.
    pub length: usize,
}

/// Reads a request, and its body. `pieces`: the sizes in which the bytes arrive, over and over; none:
/// all at once.
#[must_use]
pub fn request(input: &[u8], pieces: &[usize]) -> Reading {
    let limits = HeadLimits::of_requests(&limits());
    let (mut head, mut seen) = (RequestHead::default(), 0);
    for arrived in arrivals(input.len(), pieces) {
        match request_head::parse(&input[..arrived], &mut seen, &limits, &mut head) {
            Err(_) => return Reading::Refused,
            Ok(None) => {}
            Ok(Some(length)) => {
                let start = vec![head.method().to_vec(), head.target().to_vec()];
                let rest = &input[length..];
                return finish(start, &head.fields, head.framing, rest, pieces);
            }
        }
    }
    Reading::Incomplete
}

/// Reads a response to a GET, and its body, in pieces as [`request`] does.
#[must_use]
pub fn response(input: &[u8], pieces: &[usize]) -> Reading {
    let limits = limits();
    let limits =
        HeadLimits::of_responses(limits.response_header_bytes, limits.response_header_count);
    let (mut head, mut seen) = (ResponseHead::default(), 0);
    for arrived in arrivals(input.len(), pieces) {
        match response_head::parse(&input[..arrived], &mut seen, &limits, false, &mut head) {
            Err(_) => return Reading::Refused,
            Ok(None) => {}
            Ok(Some(length)) => {
                let start = vec![head.status.to_string().into_bytes()];
                let rest = &input[length..];
                return finish(start, &head.fields, head.framing, rest, pieces);
            }
        }
    }
    Reading::Incomplete
}

/// Reads a chunked body, in pieces as [`request`] does.
#[must_use]
pub fn chunked(input: &[u8], pieces: &[usize]) -> Reading<Chunks> {
    let (mut decoder, mut content, mut at) = (Decoder::new(), Vec::new(), 0);
    for arrived in arrivals(input.len(), pieces) {
        loop {
            let Ok((dropped, event)) = decoder.decode(&input[at..arrived]) else {
                return Reading::Refused;
            };
            at += dropped;
            let section = match event {
                Event::More => break,
                Event::Content(bytes) => {
                    // Whoever takes content need not take all of it at once.
                    let taken = bytes.div_ceil(2);
                    content.extend_from_slice(&input[at..at + taken]);
                    decoder.advance(taken);
                    at += taken;
                    continue;
                }
                Event::Trailers(bytes) => &input[at..at + bytes],
                Event::End => b"",
            };
            let trailers = match section {
                b"" => Fields::default(),
                section => match parse_trailers(section) {
                    Ok(trailers) => trailers,
                    Err(_) => return Reading::Refused,
                },
            };
            return Reading::Message(Chunks {
                content,
                trailers: list(&trailers),
                length: at + section.len(),
            });
        }
    }
    Reading::Incomplete
}

fn finish(
    start: Vec<Vec<u8>>,
    fields: &Fields,
    framing: Framing,
    rest: &[u8],
    pieces: &[usize],
) -> Reading {
    let body = match body(framing, rest, pieces) {
        Reading::Refused => return Reading::Refused,
        Reading::Incomplete => return Reading::Incomplete,
        Reading::Message(chunks) => chunks.content,
    };
    Reading::Message(Message {
        start,
        fields: list(fields),
        body,
        until_close: framing == Framing::UntilClose,
    })
}

fn body(framing: Framing, rest: &[u8], pieces: &[usize]) -> Reading<Chunks> {
    let length = match framing {
        Framing::Empty => 0,
        Framing::Length(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
        Framing::UntilClose => rest.len(),
        Framing::Streamed => return chunked(rest, pieces),
    };
    rest.get(..length).map_or(Reading::Incomplete, |content| {
        Reading::Message(Chunks {
            content: content.to_vec(),
            trailers: FieldList::new(),
            length,
        })
    })
}

fn list(fields: &Fields) -> FieldList {
    let list = fields.list().iter();
    let list = list.map(|field| {
        let name = fields.name(field).to_ascii_lowercase();
        (name, fields.value(field).to_vec())
    });
    list.collect()
}

/// How much has arrived after each piece.
fn arrivals(bytes: usize, pieces: &[usize]) -> impl Iterator<Item = usize> {
    let sizes = pieces.iter().map(|size| (*size).max(1)).cycle();
    let mut arrived = 0;
    let cuts = sizes.map_while(move |size| {
        arrived += size;
        (arrived < bytes).then_some(arrived)
    });
    cuts.chain([bytes])
}
