//! A request body on its way to an endpoint, over either protocol.
//!
//! Moves content from the client's side to the endpoint's, piece by piece, as fast as the slower of
//! the two. For requests that may be repeated, a bounded copy of what was sent is kept. Errors keep
//! their fault: a client that breaks off is not the backend's failure, and a backend that stops
//! reading may still answer.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use crate::error::RequestError;
use crate::flag::FlagHeader;
use crate::h1::transport::Transport;
use crate::h2::body::UploadSender;
use crate::h2::convert;
use crate::head::{Fields, Framing};
use crate::message::{Begin, MessageWriter, Pieces, SendError, WaitsFor};
use crate::mirror::body::BodyCopy;
use crate::source::{Content, Piece, Source};

/// A request body under way.
#[derive(Debug)]
pub(crate) struct Upload {
    content: KeptContent,
    framing: Framing,
    writer: MessageWriter,
    /// Over HTTP/2, where the writer has nothing to do.
    waits_for: WaitsFor,
}

/// Content, with a copy of what has gone.
#[derive(Debug)]
struct KeptContent {
    source: Source,
    kept: Option<Vec<u8>>,
    kept_bytes_max: usize,
    /// Bytes of content that have gone.
    gone: u64,
    /// Who else wants all of it.
    copy: Option<Rc<BodyCopy>>,
    /// What the backend is told of flags: a client cannot say it in its stead.
    flags: Option<Arc<FlagHeader>>,
}

impl Upload {
    /// An upload of what `source` will yield. `keep`: how much of it to keep for a second attempt.
    pub(crate) fn new(
        source: Source,
        framing: Framing,
        keep: Option<usize>,
        memory: Vec<u8>,
    ) -> Self {
        let kept = keep.map(|_| Vec::new());
        let content = KeptContent {
            source,
            kept,
            kept_bytes_max: keep.unwrap_or(0),
            gone: 0,
            copy: None,
            flags: None,
        };
        Self {
            content,
            framing,
            writer: MessageWriter::new(framing, memory),
            waits_for: WaitsFor::Source,
        }
    }

    /// Has what goes copied.
    pub(crate) fn copy_to(&mut self, copy: &Rc<BodyCopy>) {
        self.content.copy = Some(copy.clone());
    }

    /// Keeps trailers back that would tell the backend of flags.
    pub(crate) fn guard(&mut self, flags: Option<&Arc<FlagHeader>>) {
        self.content.flags = flags.cloned();
    }

    /// Where the head is written to before the first [`Upload::poll_h1`].
    pub(crate) const fn head(&mut self) -> &mut Vec<u8> {
        self.writer.head()
    }

    pub(crate) const fn framing(&self) -> Framing {
        self.framing
    }

    pub(crate) fn is_done(&self) -> bool {
        self.writer.is_done()
    }

    /// Whom it waits for; decides which deadline holds.
    pub(crate) const fn waits_for(&self) -> WaitsFor {
        self.waits_for
    }

    /// Grows with every byte that goes.
    pub(crate) const fn progress(&self) -> u64 {
        self.writer.sent() + self.content.gone
    }

    pub(crate) const fn source(&self) -> &Source {
        &self.content.source
    }

    /// Whether a second attempt could send the whole body again.
    pub(crate) const fn is_repeatable(&self) -> bool {
        self.content.kept.is_some() || !self.framing.has_body()
    }

    /// The same upload from its beginning.
    pub(crate) fn again(self) -> Self {
        let KeptContent {
            source,
            kept,
            kept_bytes_max,
            copy,
            flags,
            ..
        } = self.content;
        let keep = kept.as_ref().map(|_| kept_bytes_max);
        let sent = kept.map(Bytes::from).unwrap_or_default();
        let source = if sent.is_empty() {
            source
        } else {
            Source::Again(sent, Box::new(source))
        };
        let mut again = Self::new(source, self.framing, keep, self.writer.into_memory());
        again.content.flags = flags;
        if let Some(copy) = copy {
            copy.begin_again();
            again.content.copy = Some(copy);
        }
        again
    }

    /// The body of an upload that has sent nothing.
    pub(crate) fn into_source(self) -> Source {
        self.again().content.source
    }

    /// Nobody wants the rest.
    pub(crate) fn abandon(&mut self) {
        self.writer.abandon();
    }

    /// The memory of the head, once all has gone.
    pub(crate) fn take_memory(&mut self) -> Option<Vec<u8>> {
        self.is_done().then(|| std::mem::take(self.writer.head()))
    }

    /// Sends over HTTP/1 until the body has ended or one side has to be waited for. `begin` ties the
    /// first byte to the gate.
    ///
    /// # Errors
    /// Of the client or the gate, or [`RequestError::Reset`] when the endpoint does not take the
    /// body; in that case a response may still be there.
    pub(crate) fn poll_h1(
        &mut self,
        cx: &mut Context<'_>,
        endpoint: &Transport,
        begin: impl FnMut(Begin) -> Result<(), RequestError>,
    ) -> Poll<Result<(), RequestError>> {
        let polled = self.writer.poll(cx, endpoint, &mut self.content, begin);
        self.waits_for = self.writer.waits_for();
        polled.map_err(|error| match error {
            SendError::Source(error) | SendError::Gate(error) => error,
            SendError::Sink(cause) => RequestError::Reset(Some(cause)),
        })
    }

    /// Sends over HTTP/2 until the body has ended or one side has to be waited for.
    ///
    /// # Errors
    /// Of the client only; what the endpoint does shows in its response.
    pub(crate) fn poll_h2(
        &mut self,
        cx: &mut Context<'_>,
        endpoint: &UploadSender,
    ) -> Poll<Result<(), RequestError>> {
        while !self.is_done() {
            self.waits_for = WaitsFor::Sink;
            if !ready!(endpoint.poll_free(cx)) {
                self.abandon();
                break;
            }
            self.waits_for = WaitsFor::Source;
            match ready!(self.content.poll(cx))? {
                Piece::Content => {
                    let bytes = self.content.content().len();
                    self.content.keep(bytes);
                    endpoint.give(self.content.source.take(bytes));
                }
                Piece::End => {
                    let trailers = self.content.take_trailers();
                    endpoint.end(trailers.map(|fields| convert::to_map(&fields)));
                    self.abandon();
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl KeptContent {
    /// Notes that so much content goes now, and keeps a copy while it fits.
    fn keep(&mut self, bytes: usize) {
        self.gone += bytes as u64;
        if let Some(copy) = &self.copy {
            copy.add(&self.source.content()[..bytes]);
        }
        let Some(kept) = &mut self.kept else { return };
        if kept.len() + bytes > self.kept_bytes_max {
            self.kept = None;
        } else {
            kept.extend_from_slice(&self.source.content()[..bytes]);
        }
    }
}

impl Pieces for KeptContent {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, RequestError>> {
        let polled = self.source.poll(cx);
        if let (Some(copy), Poll::Ready(Ok(Piece::End))) = (&self.copy, &polled) {
            copy.end();
        }
        polled
    }

    fn content(&self) -> Content<'_> {
        self.source.content()
    }

    fn consume(&mut self, count: usize) {
        self.keep(count);
        self.source.consume(count);
    }

    fn take_trailers(&mut self) -> Option<Box<Fields>> {
        let trailers = self.source.take_trailers()?;
        // They are gone now, so the body could not be sent again as it was.
        self.kept = None;
        if let Some(copy) = &self.copy {
            copy.give_up();
        }
        let told = self.flags.as_ref().map(|flags| flags.header.as_bytes());
        match told.filter(|told| trailers.values(told).next().is_some()) {
            Some(told) => Some(Box::new(trailers.without(told))),
            None => Some(trailers),
        }
    }
}
