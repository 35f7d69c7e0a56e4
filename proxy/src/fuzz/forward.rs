//! What goes on of a message: requests as endpoints get them, fields as clients do.

use std::net::IpAddr;

use http::HeaderMap;
use http::request::Parts;
use ipnet::IpNet;
use switchback_config::defaults::limits;
use switchback_config::model::HeaderChanges;

use super::{FieldList, Reading, body, list};
use crate::h1::chunked::{CLOSE_CHUNK, open_chunk};
use crate::h1::encode::{self, LineSink};
use crate::h1::facts::HeadLimits;
use crate::h1::{request_head, response_head};
use crate::h2::convert;
use crate::head::{FieldSink, Fields, Framing, RequestHead, ResponseHead};
use crate::headers::{self, Ids, RequestPolicy, ResponsePolicy};
use crate::source::is_allowed_in_trailers;

/// Content in one chunk.
const CHUNK_BYTES: usize = 100;

/// Who sends a request.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// Its address.
    pub address: &'a str,
    /// Whether its word about the client is believed.
    pub is_trusted: bool,
    /// Whether what it sends is to be marked as a copy.
    pub mirrored: bool,
}

/// The bytes an endpoint gets for a request over HTTP/1, if it is accepted and whole.
#[must_use]
pub fn forward(input: &[u8], peer: Peer<'_>) -> Option<Vec<u8>> {
    let limits = HeadLimits::of_requests(&limits());
    let mut head = RequestHead::default();
    let length = request_head::parse(input, &mut 0, &limits, &mut head).ok()??;
    let Reading::Message(chunks) = body(head.framing, &input[length..], &[]) else {
        return None;
    };
    Some(write(&head, &chunks.content, &chunks.trailers, peer))
}

/// The same for a request over HTTP/2, with what came in its DATA.
#[must_use]
pub fn forward_h2(
    parts: &Parts,
    content: &[u8],
    trailers: &HeaderMap,
    peer: Peer<'_>,
) -> Option<Vec<u8>> {
    let limits = HeadLimits::of_requests(&limits());
    let mut head = RequestHead::default();
    let ended = content.is_empty() && trailers.is_empty();
    convert::from_client(parts, ended, &limits, &mut head).ok()?;
    let content = match head.framing {
        // Whatever differs from the announced length, the library takes for a broken stream.
        Framing::Length(bytes) => content.get(..usize::try_from(bytes).ok()?)?,
        _ => content,
    };
    let mut late = Fields::default();
    for (name, value) in trailers {
        if is_allowed_in_trailers(name.as_ref()) && convert::is_token(name) {
            late.push(name.as_ref(), value.as_bytes());
        }
    }
    Some(write(&head, content, &list(&late), peer))
}

fn write(head: &RequestHead, content: &[u8], trailers: &FieldList, peer: Peer<'_>) -> Vec<u8> {
    let ids = Ids::new(head, peer.is_trusted, 1, None, || [7; 16]);
    let policy = RequestPolicy {
        peer: peer.address,
        peer_is_trusted: peer.is_trusted,
        secure: true,
        ids: &ids,
        changes: &HeaderChanges::default(),
        flags: None,
        mirrored: peer.mirrored,
        underscores_pass: false,
        over_h1: true,
    };
    let host = head.authority().unwrap_or(b"endpoint.example:80");
    let mut out = Vec::new();
    let line = (head.method(), [head.target(), b""]);
    encode::request_head(&mut out, line, host, head.framing, |sink| {
        headers::write_request(sink, head, &policy);
    });
    if head.framing != Framing::Streamed {
        out.extend_from_slice(content);
        return out;
    }
    for chunk in content.chunks(CHUNK_BYTES) {
        open_chunk(&mut out, chunk.len());
        out.extend_from_slice(chunk);
        out.extend_from_slice(CLOSE_CHUNK);
    }
    out.extend_from_slice(b"0\r\n");
    let mut late = Fields::default();
    for (name, value) in trailers {
        late.push(name, value);
    }
    LineSink(&mut out).run(&late, 0..late.list().len());
    out.extend_from_slice(b"\r\n");
    out
}

/// The field lines a client gets of a response, apart from the framing.
#[must_use]
pub fn shown(input: &[u8]) -> Option<Vec<u8>> {
    let limits = limits();
    let limits =
        HeadLimits::of_responses(limits.response_header_bytes, limits.response_header_count);
    let mut head = ResponseHead::default();
    response_head::parse(input, &mut 0, &limits, false, &mut head).ok()??;
    let mut out = Vec::new();
    headers::write_response(&mut LineSink(&mut out), &head, &ResponsePolicy::default());
    Some(out)
}

/// Whom a request is from.
#[must_use]
pub fn client_address(input: &[u8], peer: IpAddr, trusted: &[IpNet]) -> Option<IpAddr> {
    let limits = HeadLimits::of_requests(&limits());
    let mut head = RequestHead::default();
    request_head::parse(input, &mut 0, &limits, &mut head).ok()??;
    Some(headers::client_address(&head, peer, trusted))
}
