//! Sending one HTTP/1 message, the same for requests to endpoints and responses to clients.
//!
//! Heads, chunk lines and small bodies are gathered in one buffer; large content is written straight
//! from where it was read. Both go out in one vectored write, so a usual message costs one system
//! call, whichever side it is for. Nothing is buffered beyond what was read at once: when the sink
//! does not take more, the source is not asked for more.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use crate::error::RequestError;
use crate::h1::chunked::{CLOSE_CHUNK, LAST_CHUNK, open_chunk};
use crate::h1::encode::LineSink;
use crate::h1::transport::Transport;
use crate::head::{FieldSink, Fields, Framing};
use crate::source::{Content, Piece};

/// Content up to this size is copied behind the head; a copy is cheaper than a second slice.
const GATHER_BYTES: usize = 4 << 10;

/// Where the content of a message comes from.
pub(crate) trait Pieces {
    /// Waits for content or the end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, RequestError>>;
    /// The content that may be used now.
    fn content(&self) -> Content<'_>;
    /// Drops the first `count` bytes of content.
    fn consume(&mut self, count: usize);
    /// The trailers, once the body has ended.
    fn take_trailers(&mut self) -> Option<Box<Fields>>;
}

/// Why a message could not be sent.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The source failed.
    Source(RequestError),
    /// The sink takes nothing more.
    Sink(io::Error),
    /// It must not begin.
    Gate(RequestError),
}

/// The two moments of a beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// The next write may give the first byte to the socket.
    About,
    /// It has.
    Done,
}

/// Whom a message waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    Source,
    Sink,
}

/// A message that is being sent.
#[derive(Debug)]
pub(crate) struct MessageWriter {
    framing: Framing,
    /// The head, chunk lines and small content; what has gone of it.
    gathered: Vec<u8>,
    gathered_sent: usize,
    /// Content at the front of the source that may be written behind the gathered bytes.
    direct: usize,
    stage: Stage,
    waits_for: WaitsFor,
    /// All bytes given to the sink so far.
    sent: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Content,
    /// Everything that is left has been gathered.
    LastBytes,
    Done,
}

impl MessageWriter {
    /// A message whose head will be appended to [`MessageWriter::head`]. `memory` is reused.
    pub(crate) fn new(framing: Framing, mut memory: Vec<u8>) -> Self {
        memory.clear();
        Self {
            framing,
            gathered: memory,
            gathered_sent: 0,
            direct: 0,
            stage: Stage::Content,
            waits_for: WaitsFor::Source,
            sent: 0,
        }
    }

    /// Where the head is written to before the first poll.
    pub(crate) const fn head(&mut self) -> &mut Vec<u8> {
        &mut self.gathered
    }

    /// The buffer, to be reused.
    pub(crate) fn into_memory(self) -> Vec<u8> {
        self.gathered
    }

    pub(crate) fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    pub(crate) const fn waits_for(&self) -> WaitsFor {
        self.waits_for
    }

    /// All bytes given to the sink so far.
    pub(crate) const fn sent(&self) -> u64 {
        self.sent
    }

    /// Nobody wants the rest.
    pub(crate) fn abandon(&mut self) {
        self.stage = Stage::Done;
    }

    /// Sends until the message has ended or one side has to be waited for. `begin` is called right
    /// before and after each write, in the same step, and may forbid it.
    pub(crate) fn poll<P: Pieces>(
        &mut self,
        cx: &mut Context<'_>,
        sink: &Transport,
        pieces: &mut P,
        mut begin: impl FnMut(Begin) -> Result<(), RequestError>,
    ) -> Poll<Result<(), SendError>> {
        loop {
            let more = self.gather(cx, pieces).map_err(SendError::Source)?;
            if self.gathered_sent < self.gathered.len() || self.direct > 0 {
                begin(Begin::About).map_err(SendError::Gate)?;
                self.waits_for = WaitsFor::Sink;
                ready!(self.write(cx, sink, pieces)).map_err(SendError::Sink)?;
                begin(Begin::Done).map_err(SendError::Gate)?;
                continue;
            }
            if more.is_pending() || self.stage == Stage::LastBytes {
                self.waits_for = WaitsFor::Sink;
                ready!(sink.poll_flush(cx)).map_err(SendError::Sink)?;
            }
            if self.stage == Stage::LastBytes {
                self.stage = Stage::Done;
            }
            if self.stage == Stage::Done {
                return Poll::Ready(Ok(()));
            }
            if more.is_pending() {
                self.waits_for = WaitsFor::Source;
                return Poll::Pending;
            }
        }
    }

    /// Takes what the source has, by copy or for direct writing.
    fn gather<P: Pieces>(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &mut P,
    ) -> Result<Poll<()>, RequestError> {
        while self.stage == Stage::Content
            && self.direct == 0
            && self.gathered.len() - self.gathered_sent < GATHER_BYTES
        {
            match pieces.poll(cx)? {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Piece::Content) => self.gather_content(pieces),
                Poll::Ready(Piece::End) => self.gather_end(pieces),
            }
        }
        Ok(Poll::Ready(()))
    }

    fn gather_content<P: Pieces>(&mut self, pieces: &mut P) {
        let content = pieces.content();
        let bytes = content.len();
        let chunked = self.framing == Framing::Streamed;
        if chunked {
            open_chunk(&mut self.gathered, bytes);
        }
        if bytes > GATHER_BYTES {
            self.direct = bytes;
            return;
        }
        self.gathered.extend_from_slice(&content);
        drop(content);
        pieces.consume(bytes);
        if chunked {
            self.gathered.extend_from_slice(CLOSE_CHUNK);
        }
    }

    fn gather_end<P: Pieces>(&mut self, pieces: &mut P) {
        self.stage = Stage::LastBytes;
        if self.framing != Framing::Streamed {
            return;
        }
        match pieces.take_trailers() {
            None => self.gathered.extend_from_slice(LAST_CHUNK),
            Some(trailers) => {
                self.gathered.extend_from_slice(b"0\r\n");
                LineSink(&mut self.gathered).run(&trailers, 0..trailers.list().len());
                self.gathered.extend_from_slice(b"\r\n");
            }
        }
    }

    fn write<P: Pieces>(
        &mut self,
        cx: &mut Context<'_>,
        sink: &Transport,
        pieces: &mut P,
    ) -> Poll<io::Result<()>> {
        let gathered = &self.gathered[self.gathered_sent..];
        let content = pieces.content();
        let direct = &content[..self.direct];
        let polled = match (gathered.is_empty(), direct.is_empty()) {
            (false, true) => sink.poll_write(cx, &[IoSlice::new(gathered)]),
            (true, false) => sink.poll_write(cx, &[IoSlice::new(direct)]),
            _ => sink.poll_write(cx, &[IoSlice::new(gathered), IoSlice::new(direct)]),
        };
        let of_gathered_max = gathered.len();
        drop(content);
        let written = ready!(polled)?;
        self.sent += written as u64;
        let of_gathered = written.min(of_gathered_max);
        self.gathered_sent += of_gathered;
        if self.gathered_sent == self.gathered.len() {
            self.gathered.clear();
            self.gathered_sent = 0;
        }
        let of_direct = written - of_gathered;
        if of_direct > 0 {
            pieces.consume(of_direct);
            self.direct -= of_direct;
            if self.direct == 0 && self.framing == Framing::Streamed {
                self.gathered.extend_from_slice(CLOSE_CHUNK);
            }
        }
        Poll::Ready(Ok(()))
    }
}
