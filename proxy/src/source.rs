//! Where the bytes of a body come from, whatever the protocol.
//!
//! Requests and responses, HTTP/1 and HTTP/2, all offer content the same way: wait for a piece, look
//! at it in place, consume what the other side took. So the code that moves bodies exists once for
//! each kind of sink and not once for each pair of protocols.

use std::cell::Ref;
use std::ops::Deref;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::error::RequestError;
use crate::h1::reader::Reader;
use crate::h1::transport::Transport;
use crate::h2::body::Received;
use crate::head::Fields;

/// What a source has next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Some content, see [`Source::content`].
    Content,
    /// Nothing more; trailers can be taken.
    End,
}

/// A body that is being received, or is there already.
#[derive(Debug)]
pub(crate) enum Source {
    /// Bytes at hand: a reply the proxy made, or a request body kept for a second attempt.
    Made(Bytes),
    /// Arrives over HTTP/1.
    H1(Reader),
    /// Arrives over HTTP/2.
    H2(Box<Received>),
    /// What a first attempt has used up already, then the rest.
    Again(Bytes, Box<Self>),
}

/// Content that can be used now.
#[derive(Debug)]
pub(crate) enum Content<'a> {
    Slice(&'a [u8]),
    Guarded(Ref<'a, [u8]>),
}

impl Deref for Content<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Slice(slice) => slice,
            Self::Guarded(guard) => guard,
        }
    }
}

impl Source {
    /// No body.
    pub(crate) const fn empty() -> Self {
        Self::Made(Bytes::new())
    }

    /// Waits for content or the end.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, RequestError>> {
        match self {
            Self::Made(bytes) => Poll::Ready(Ok(if bytes.is_empty() {
                Piece::End
            } else {
                Piece::Content
            })),
            Self::H1(reader) => reader.poll(cx),
            Self::H2(received) => received.poll(cx),
            Self::Again(bytes, _) if !bytes.is_empty() => Poll::Ready(Ok(Piece::Content)),
            Self::Again(_, rest) => rest.poll(cx),
        }
    }

    /// The content that may be used now.
    pub(crate) fn content(&self) -> Content<'_> {
        match self {
            Self::Made(bytes) => Content::Slice(bytes),
            Self::H1(reader) => Content::Guarded(reader.content()),
            Self::H2(received) => Content::Slice(received.content()),
            Self::Again(bytes, _) if !bytes.is_empty() => Content::Slice(bytes),
            Self::Again(_, rest) => rest.content(),
        }
    }

    /// Drops the first `count` bytes of content.
    pub(crate) fn consume(&mut self, count: usize) {
        match self {
            Self::Made(bytes) => drop(bytes.split_to(count)),
            Self::H1(reader) => reader.consume(count),
            Self::H2(received) => received.consume(count),
            Self::Again(bytes, _) if !bytes.is_empty() => drop(bytes.split_to(count)),
            Self::Again(_, rest) => rest.consume(count),
        }
    }

    /// Takes `count` bytes of content out, without copying where they can be shared.
    pub(crate) fn take(&mut self, count: usize) -> Bytes {
        match self {
            Self::Made(bytes) => bytes.split_to(count),
            Self::H2(received) => received.take(count),
            Self::H1(reader) => {
                let bytes = Bytes::copy_from_slice(&reader.content()[..count]);
                reader.consume(count);
                bytes
            }
            Self::Again(bytes, _) if !bytes.is_empty() => bytes.split_to(count),
            Self::Again(_, rest) => rest.take(count),
        }
    }

    /// The trailers, once the body has ended.
    pub(crate) fn take_trailers(&mut self) -> Option<Box<Fields>> {
        match self {
            Self::Made(_) => None,
            Self::H1(reader) => reader.take_trailers(),
            Self::H2(received) => received.take_trailers(),
            Self::Again(_, rest) => rest.take_trailers(),
        }
    }

    /// Whether everything has been received.
    pub(crate) fn is_ended(&self) -> bool {
        match self {
            Self::Made(bytes) => bytes.is_empty(),
            Self::H1(reader) => reader.is_ended(),
            Self::H2(received) => received.is_ended(),
            Self::Again(bytes, rest) => bytes.is_empty() && rest.is_ended(),
        }
    }

    /// Refuses more content than this.
    pub(crate) fn limit(&mut self, bytes: Option<u64>) {
        match self {
            Self::Made(_) => {}
            Self::H1(reader) => reader.limit(bytes),
            Self::H2(received) => received.limit(bytes),
            Self::Again(_, rest) => rest.limit(bytes),
        }
    }

    /// The connection the body arrives on, if that is an HTTP/1 connection.
    pub(crate) fn transport(&self) -> Option<&Transport> {
        match self {
            Self::H1(reader) => Some(reader.transport()),
            Self::Again(_, rest) => rest.transport(),
            Self::Made(_) | Self::H2(_) => None,
        }
    }

    /// Ready when the client that sends this body is gone. Over HTTP/2 the stream's end drops the
    /// whole request instead.
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<RequestError> {
        match self {
            Self::H1(reader) => reader.transport().poll_gone(cx),
            Self::Again(_, rest) => rest.poll_gone(cx),
            Self::Made(_) | Self::H2(_) => Poll::Pending,
        }
    }
}

/// Whether a field may come in trailers: not if it frames, routes, authenticates or describes the
/// content (RFC 9110, 6.5.1).
pub(crate) fn is_allowed_in_trailers(name: &[u8]) -> bool {
    const REFUSED: [&str; 27] = [
        "authorization",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "expect",
        "forwarded",
        "host",
        "if-match",
        "if-none-match",
        "keep-alive",
        "max-forwards",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
    ];
    !REFUSED
        .iter()
        .any(|refused| name.eq_ignore_ascii_case(refused.as_bytes()))
        && memchr::memchr(b'_', name).is_none()
}
