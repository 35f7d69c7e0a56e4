//! A stream with its unread bytes: one HTTP/1 connection, seen from either side.
//!
//! A connection is used by two hands at once: one sends a message while the other receives one
//! (a response may begin before its request has ended). Both live on one thread, so the stream and
//! the bytes read ahead sit in cells and everyone holds the same `Rc`. A cell is borrowed only
//! inside one poll, never across an await.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use switchback_config::defaults::READ_BYTES;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::buffer::{Buffer, BufferPool};
use crate::error::RequestError;
use crate::h1::reader::State;
use crate::stream::Stream;

/// One HTTP/1 connection.
#[derive(Debug)]
pub(crate) struct Transport {
    stream: RefCell<Stream>,
    input: RefCell<Buffer>,
    /// The client waits for `100 Continue`.
    owes_continue: Cell<bool>,
    /// What is left of a request body that nobody reads any more.
    unfinished: RefCell<Option<State>>,
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// New bytes.
    Some,
    /// The peer will send nothing more.
    Eof,
    /// No room: that many bytes wait unread already.
    Full,
}

impl Transport {
    pub(crate) fn new(stream: Stream, pool: &Rc<BufferPool>) -> Rc<Self> {
        Rc::new(Self {
            stream: RefCell::new(stream),
            input: RefCell::new(Buffer::new(pool)),
            owes_continue: Cell::new(false),
            unfinished: RefCell::new(None),
        })
    }

    /// The bytes read and not consumed.
    pub(crate) fn input(&self) -> std::cell::Ref<'_, [u8]> {
        std::cell::Ref::map(self.input.borrow(), Buffer::filled)
    }

    pub(crate) fn has_input(&self) -> bool {
        !self.input.borrow().is_empty()
    }

    /// Drops the first `count` bytes; gives the buffer back when it is empty.
    pub(crate) fn consume(&self, count: usize) {
        let mut input = self.input.borrow_mut();
        input.consume(count);
        input.release_if_empty();
    }

    /// Reads once, so that up to `buffered_max` bytes wait unread. Gives the buffer back when
    /// nothing came.
    pub(crate) fn poll_fill(
        &self,
        cx: &mut Context<'_>,
        buffered_max: usize,
    ) -> Poll<io::Result<Filled>> {
        let mut input = self.input.borrow_mut();
        let space = input.space(buffered_max);
        if space.is_empty() {
            return Poll::Ready(Ok(Filled::Full));
        }
        let mut read = ReadBuf::new(space);
        let polled = Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, &mut read);
        let count = read.filled().len();
        input.filled_more(count);
        input.release_if_empty();
        ready!(polled)?;
        Poll::Ready(Ok(if count == 0 {
            Filled::Eof
        } else {
            Filled::Some
        }))
    }

    /// Writes some of `slices`. With TLS, [`Transport::poll_flush`] must follow before waiting.
    pub(crate) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut stream = self.stream.borrow_mut();
        let stream = Pin::new(&mut *stream);
        let written = match slices {
            [one] => ready!(stream.poll_write(cx, one))?,
            many => ready!(stream.poll_write_vectored(cx, many))?,
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        Poll::Ready(Ok(written))
    }

    /// Sends what waits inside a TLS session.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = self.stream.borrow_mut();
        if stream.is_tls() {
            Pin::new(&mut *stream).poll_flush(cx)
        } else {
            Poll::Ready(Ok(()))
        }
    }

    /// Ends the sending side.
    pub(crate) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(cx)
    }

    /// Ready with bytes or an end, or an error, when an idle connection is not usable any more.
    /// Costs no system call while nothing arrived.
    pub(crate) fn is_idle(&self, cx: &mut Context<'_>) -> bool {
        !self.has_input() && self.poll_fill(cx, 1).is_pending()
    }

    /// Ready when the peer is gone. What it sends ahead is kept, up to one buffer.
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<RequestError> {
        loop {
            match ready!(self.poll_fill(cx, READ_BYTES)) {
                Ok(Filled::Some) => {}
                Ok(Filled::Full) => return Poll::Pending,
                Ok(Filled::Eof) => return Poll::Ready(RequestError::ClientGone(None)),
                Err(cause) => return Poll::Ready(RequestError::ClientGone(Some(cause))),
            }
        }
    }

    /// Whether the client waits for `100 Continue`.
    pub(crate) fn owes_continue(&self) -> bool {
        self.owes_continue.get()
    }

    pub(crate) fn set_owes_continue(&self, owes: bool) {
        self.owes_continue.set(owes);
    }

    /// Leaves the rest of a request body behind.
    pub(crate) fn set_unfinished(&self, rest: State) {
        *self.unfinished.borrow_mut() = Some(rest);
    }

    /// The rest of a request body, to be dropped.
    pub(crate) fn take_unfinished(&self) -> Option<State> {
        self.unfinished.borrow_mut().take()
    }

    /// Makes the coming close a reset: the peer must not take what it got for everything.
    pub(crate) fn reset_on_close(&self) {
        let stream = self.stream.borrow();
        // A socket that is gone already needs no reset.
        let _ = socket2::SockRef::from(stream.socket()).set_linger(Some(std::time::Duration::ZERO));
    }

    /// Takes the stream and the bytes read ahead, when nobody else holds the connection.
    pub(crate) fn into_parts(self: Rc<Self>) -> Option<(Stream, Vec<u8>)> {
        let transport = Rc::into_inner(self)?;
        Some((
            transport.stream.into_inner(),
            transport.input.into_inner().filled().to_vec(),
        ))
    }
}
