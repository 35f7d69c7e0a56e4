//! A message body as it arrives over HTTP/1, from a client or an endpoint.
//!
//! Content is offered in place, in the connection's buffer, and consumed as the other side takes
//! it; what is not consumed stays in the buffer and then in the kernel, which is all the
//! back-pressure there is. A body that ends too early is an error, never an end.

use std::cell::Ref;
use std::io::IoSlice;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use switchback_config::defaults::{READ_BYTES, TRAILER_COUNT};

use crate::error::RequestError;
use crate::h1::chunked::{Decoder, Event};
use crate::h1::transport::{Filled, Transport};
use crate::head::{Fields, Framing};
use crate::source::{Piece, is_allowed_in_trailers};

/// Who sends the body, and so whose fault it is when it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    Client,
    Endpoint,
}

/// A body that is being received.
#[derive(Debug)]
pub(crate) struct Reader {
    transport: Rc<Transport>,
    sender: Sender,
    state: State,
    /// Content at the start of the input that may be used now.
    offered: usize,
    /// How much more content is allowed; `None`: any amount.
    allowed: Option<u64>,
    trailers: Option<Box<Fields>>,
    /// How much of `100 Continue` was sent.
    continue_sent: usize,
}

/// Where a body is.
#[derive(Debug)]
pub(crate) enum State {
    Length(u64),
    Chunked(Decoder),
    UntilClose,
    Ended,
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl Reader {
    pub(crate) fn new(transport: &Rc<Transport>, sender: Sender, framing: Framing) -> Self {
        let state = match framing {
            Framing::Empty | Framing::Length(0) => State::Ended,
            Framing::Length(bytes) => State::Length(bytes),
            Framing::Streamed => State::Chunked(Decoder::new()),
            Framing::UntilClose => State::UntilClose,
        };
        Self {
            transport: transport.clone(),
            sender,
            state,
            offered: 0,
            allowed: None,
            trailers: None,
            continue_sent: 0,
        }
    }

    /// A reader of what an earlier one left behind.
    pub(crate) fn resume(transport: &Rc<Transport>, state: State) -> Self {
        let mut reader = Self::new(transport, Sender::Client, Framing::Empty);
        reader.state = state;
        reader
    }

    /// Refuses more content than this.
    pub(crate) fn limit(&mut self, bytes: Option<u64>) {
        self.allowed = bytes;
    }

    pub(crate) const fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// The connection the body arrives on.
    pub(crate) fn transport(&self) -> &Rc<Transport> {
        &self.transport
    }

    /// Waits for content or the end.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, RequestError>> {
        loop {
            if self.offered > 0 {
                return Poll::Ready(Ok(Piece::Content));
            }
            if let Some(piece) = self.take_from_input()? {
                // Whoever has sent a part of the body waits for nothing.
                self.transport.set_owes_continue(false);
                return Poll::Ready(Ok(piece));
            }
            ready!(self.poll_continue(cx))?;
            match ready!(self.transport.poll_fill(cx, READ_BYTES)) {
                Ok(Filled::Some) => {}
                Ok(Filled::Eof) if matches!(self.state, State::UntilClose) => {
                    self.state = State::Ended
                }
                Ok(Filled::Eof) => return Poll::Ready(Err(self.broken(None))),
                Ok(Filled::Full) => return Poll::Ready(Err(self.invalid("trailers too large"))),
                Err(cause) => return Poll::Ready(Err(self.broken(Some(cause)))),
            }
        }
    }

    /// Looks at what has arrived; `None`: nothing usable yet.
    fn take_from_input(&mut self) -> Result<Option<Piece>, RequestError> {
        let input = self.transport.input();
        let arrived = input.len();
        let offered = match &mut self.state {
            State::Ended | State::Length(0) => {
                drop(input);
                self.state = State::Ended;
                return Ok(Some(Piece::End));
            }
            State::Length(left) => usize::try_from(*left).map_or(arrived, |left| left.min(arrived)),
            State::UntilClose => arrived,
            State::Chunked(decoder) => {
                let decoded = decoder.decode(&input);
                drop(input);
                return self.take_chunk(decoded);
            }
        };
        drop(input);
        self.offer(offered)
    }

    fn take_chunk(
        &mut self,
        decoded: Result<(usize, Event), &'static str>,
    ) -> Result<Option<Piece>, RequestError> {
        let (control, event) = decoded.map_err(|what| self.invalid(what))?;
        self.transport.consume(control);
        match event {
            Event::More => Ok(None),
            Event::Content(bytes) => self.offer(bytes),
            Event::Trailers(bytes) => {
                let trailers = parse_trailers(&self.transport.input()[..bytes])
                    .map_err(|what| self.invalid(what))?;
                self.trailers = Some(Box::new(trailers));
                self.transport.consume(bytes);
                self.state = State::Ended;
                Ok(Some(Piece::End))
            }
            Event::End => {
                self.state = State::Ended;
                Ok(Some(Piece::End))
            }
        }
    }

    fn offer(&mut self, bytes: usize) -> Result<Option<Piece>, RequestError> {
        if self.allowed.is_some_and(|allowed| bytes as u64 > allowed) {
            return Err(RequestError::BodyTooLarge);
        }
        self.offered = bytes;
        Ok((bytes > 0).then_some(Piece::Content))
    }

    /// Asks a client that waits for it to go on.
    fn poll_continue(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        while self.transport.owes_continue() {
            match ready!(
                self.transport
                    .poll_write(cx, &[IoSlice::new(&CONTINUE[self.continue_sent..])])
            ) {
                Ok(written) => self.continue_sent += written,
                Err(cause) => return Poll::Ready(Err(self.broken(Some(cause)))),
            }
            if self.continue_sent == CONTINUE.len() {
                self.transport.set_owes_continue(false);
                return self
                    .transport
                    .poll_flush(cx)
                    .map_err(|cause| self.broken(Some(cause)));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The content that may be used now.
    pub(crate) fn content(&self) -> Ref<'_, [u8]> {
        Ref::map(self.transport.input(), |input| &input[..self.offered])
    }

    /// Drops the first `count` bytes of content.
    pub(crate) fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.offered, "more consumed than was offered");
        self.offered -= count;
        self.transport.consume(count);
        if let Some(allowed) = &mut self.allowed {
            *allowed -= count as u64;
        }
        match &mut self.state {
            State::Length(left) => {
                *left -= count as u64;
                if *left == 0 {
                    self.state = State::Ended;
                }
            }
            State::Chunked(decoder) => decoder.advance(count),
            State::UntilClose | State::Ended => {}
        }
    }

    /// The trailers, once the body has ended.
    pub(crate) fn take_trailers(&mut self) -> Option<Box<Fields>> {
        self.trailers.take()
    }

    fn broken(&self, cause: Option<std::io::Error>) -> RequestError {
        match self.sender {
            Sender::Client => RequestError::ClientGone(cause),
            Sender::Endpoint => RequestError::Reset(cause),
        }
    }

    const fn invalid(&self, what: &'static str) -> RequestError {
        match self.sender {
            Sender::Client => RequestError::Malformed(what),
            Sender::Endpoint => RequestError::BadResponse(what),
        }
    }
}

impl Drop for Reader {
    /// What is left of a request body stays behind, for the connection to deal with.
    fn drop(&mut self) {
        if self.sender == Sender::Client && !self.is_ended() {
            self.transport
                .set_unfinished(std::mem::replace(&mut self.state, State::Ended));
        }
    }
}

/// Reads a trailer section and drops the fields that must not come late.
pub(crate) fn parse_trailers(section: &[u8]) -> Result<Fields, &'static str> {
    let mut breaks = memchr::memchr_iter(b'\n', section);
    if !breaks.all(|at| at > 0 && section[at - 1] == b'\r') {
        return Err("malformed trailers");
    }
    let mut storage = [httparse::EMPTY_HEADER; TRAILER_COUNT];
    let parsed = match httparse::parse_headers(section, &mut storage) {
        // An empty line that ends in a bare LF would end the section early, and hide the rest.
        Ok(httparse::Status::Complete((length, parsed))) if length == section.len() => parsed,
        Err(httparse::Error::TooManyHeaders) => return Err("too many trailers"),
        _ => return Err("malformed trailers"),
    };
    let mut fields = Fields::default();
    for field in parsed
        .iter()
        .filter(|field| is_allowed_in_trailers(field.name.as_bytes()))
    {
        fields.push(field.name.as_bytes(), field.value);
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_lose_what_must_not_come_late() {
        let section = b"Grpc-Status: 0\r\nContent-Length: 5\r\nHost: a\r\nX-Sum: 1\r\nAuthorization: b\r\n\r\n";
        let fields = parse_trailers(section).expect("valid");
        let names: Vec<_> = fields
            .list()
            .iter()
            .map(|f| String::from_utf8_lossy(fields.name(f)))
            .collect();
        assert_eq!(names, ["Grpc-Status", "X-Sum"]);
    }

    #[test]
    fn trailers_are_counted() {
        let section = |count: usize| format!("{}\r\n", "a: b\r\n".repeat(count));
        assert!(parse_trailers(section(TRAILER_COUNT).as_bytes()).is_ok());
        assert_eq!(
            parse_trailers(section(TRAILER_COUNT + 1).as_bytes()).err(),
            Some("too many trailers")
        );
        assert_eq!(
            parse_trailers(b"no colon\r\n\r\n").err(),
            Some("malformed trailers")
        );
        for bare_break in [
            &b"\n0\r\nX: 1\r\n\r\n"[..],
            b"X: 1\r\n\nY: 2\r\n\r\n",
            b"X: 1\nY: 2\r\n\r\n",
        ] {
            assert_eq!(parse_trailers(bare_break).err(), Some("malformed trailers"));
        }
    }
}
