//! The stream of a client's HTTP/2 connection, as hyper reads and writes it.
//!
//! Begins with what was read ahead to tell HTTP/2 from HTTP/1, and shows every byte to the [`Watch`]. When
//! that has seen enough, hyper gets nothing more to read, and whoever drives the connection finds the reason
//! in [`Line::verdict`], drops hyper with everything it holds, and has a GOAWAY sent from here.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use switchback_config::defaults::{LINGER_BYTES, LINGER_TIME};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::h2::watch::{Verdict, Watch};
use crate::limit::Limit;
use crate::stream::Stream;
use crate::timer::{Timer, Wheel};

/// One connection, shared by hyper and by who drives it.
#[derive(Debug)]
pub(crate) struct Line {
    stream: RefCell<Stream>,
    /// Bytes that were read and must wait.
    held: RefCell<Vec<u8>>,
    watch: RefCell<Watch>,
    wheel: Rc<Wheel>,
    verdict: Cell<Option<Verdict>>,
}

/// hyper's end of a [`Line`].
#[derive(Debug)]
pub(crate) struct GuardedStream(Rc<Line>);

impl Line {
    /// A connection of which `prefix` was read already.
    pub(crate) fn new(
        prefix: Vec<u8>,
        stream: Stream,
        watch: Watch,
        wheel: &Rc<Wheel>,
    ) -> Rc<Self> {
        Rc::new(Self {
            stream: RefCell::new(stream),
            held: RefCell::new(prefix),
            watch: RefCell::new(watch),
            wheel: wheel.clone(),
            verdict: Cell::new(None),
        })
    }

    pub(crate) fn stream(self: &Rc<Self>) -> GuardedStream {
        GuardedStream(self.clone())
    }

    /// Why the connection has to end, if it has to.
    pub(crate) const fn verdict(&self) -> Option<Verdict> {
        self.verdict.get()
    }

    pub(crate) fn watch(&self) -> std::cell::RefMut<'_, Watch> {
        self.watch.borrow_mut()
    }

    /// Tells the client why, and closes so that it can be read: what the client still sends is read for a
    /// while, since unread bytes would turn the close into a reset. Only when hyper is gone.
    pub(crate) async fn say_goodbye(&self, verdict: Verdict, timer: &Timer) {
        let frame = self.goaway(verdict);
        timer.set(Some(LINGER_TIME));
        let (mut sent, mut left) = (0, LINGER_BYTES);
        poll_fn(|cx| {
            let closed = self.poll_close(cx, &frame, &mut sent, &mut left);
            if closed.is_ready() {
                return Poll::Ready(());
            }
            timer.poll_expired(cx)
        })
        .await;
    }

    fn poll_close(
        &self,
        cx: &mut Context<'_>,
        frame: &[u8],
        sent: &mut usize,
        left: &mut u64,
    ) -> Poll<io::Result<()>> {
        let mut stream = self.stream.borrow_mut();
        let mut stream = Pin::new(&mut *stream);
        while *sent < frame.len() {
            match ready!(stream.as_mut().poll_write(cx, &frame[*sent..]))? {
                0 => return Poll::Ready(Ok(())),
                written => *sent += written,
            }
        }
        ready!(stream.as_mut().poll_shutdown(cx))?;
        let mut dropped = [0; 4096];
        while *left > 0 {
            let mut read = ReadBuf::new(&mut dropped);
            ready!(stream.as_mut().poll_read(cx, &mut read))?;
            match read.filled().len() as u64 {
                0 => break,
                bytes => *left = left.saturating_sub(bytes),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Nothing if hyper stopped in the middle of a frame.
    fn goaway(&self, verdict: Verdict) -> Vec<u8> {
        let watch = self.watch.borrow();
        if !watch.may_speak() {
            return Vec::new();
        }
        let about = verdict.limit().map_or("", Limit::name).as_bytes();
        let code = u32::from(verdict.reason());
        let length = u32::try_from(8 + about.len()).unwrap_or(8);
        let mut frame = length.to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[7, 0, 0, 0, 0, 0]);
        frame.extend_from_slice(&watch.highest_stream().to_be_bytes());
        frame.extend_from_slice(&code.to_be_bytes());
        frame.extend_from_slice(about);
        frame
    }

    /// Shows bytes that were just read to the watch; how many of them hyper may have now.
    fn admit(&self, bytes: &[u8]) -> usize {
        match self.watch.borrow_mut().received(bytes, self.wheel.now()) {
            Ok(count) => count,
            Err(verdict) => {
                self.verdict.set(Some(verdict));
                0
            }
        }
    }

    fn note_sent(&self, bytes: &[u8]) {
        if let Err(limit) = self.watch.borrow_mut().sent(bytes, self.wheel.now()) {
            self.verdict.set(Some(limit.into()));
        }
    }

    /// How much of these parts may be sent: so many of them, or the beginning of the first. `None`: all.
    fn find_end(&self, parts: &[IoSlice<'_>]) -> Option<(usize, usize)> {
        let end = self.watch.borrow().find_miscalled(parts);
        if end == Some((0, 0)) {
            let verdict = Verdict::Violation(h2::Reason::COMPRESSION_ERROR);
            self.verdict.set(Some(verdict));
        }
        end
    }

    fn poll_read_held(&self, buf: &mut ReadBuf<'_>) -> bool {
        let mut held = self.held.borrow_mut();
        if held.is_empty() {
            return false;
        }
        let count = held.len().min(buf.remaining());
        let count = self.admit(&held[..count]);
        buf.put_slice(&held[..count]);
        held.drain(..count);
        if held.is_empty() {
            *held = Vec::new();
        }
        true
    }
}

impl AsyncRead for GuardedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let line = &self.0;
        if line.verdict().is_some() {
            return Poll::Pending;
        }
        if line.watch().is_turn_over() {
            // What was begun, and what was reset since, is seen to before more is begun.
            line.watch().begin_turn();
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        if !line.poll_read_held(buf) {
            ready!(Pin::new(&mut *line.stream.borrow_mut()).poll_read(cx, buf))?;
            let read = &buf.filled()[before..];
            let admitted = line.admit(read);
            if admitted < read.len() {
                line.held.borrow_mut().extend_from_slice(&read[admitted..]);
                buf.set_filled(before + admitted);
            }
        }
        if line.verdict().is_some() {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let line = &self.0;
        let buf = match line.find_end(&[IoSlice::new(buf)]) {
            Some((_, 0)) => return Poll::Pending,
            Some((_, end)) => &buf[..end],
            None => buf,
        };
        let written = ready!(Pin::new(&mut *line.stream.borrow_mut()).poll_write(cx, buf))?;
        line.note_sent(&buf[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let line = &self.0;
        let bufs = match line.find_end(bufs) {
            Some((0, _)) => return self.poll_write(cx, &bufs[0]),
            Some((parts, _)) => &bufs[..parts],
            None => bufs,
        };
        let written =
            ready!(Pin::new(&mut *line.stream.borrow_mut()).poll_write_vectored(cx, bufs))?;
        let mut left = written;
        for buf in bufs {
            let part = left.min(buf.len());
            line.note_sent(&buf[..part]);
            left -= part;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_shutdown(cx)
    }
}
