//! What many streams of one HTTP/2 connection send in one turn of the loop, in one write.
//!
//! The h2 library flushes after each frame that carries content: a system call, and over TLS a record,
//! for each response. Here its output is gathered, up to what one TLS record holds, and goes when the
//! connection has nothing more to say in this turn ([`Gather::poll_send`]). Flushes in between are
//! ignored, shutting down is not. What is large already is written from where it lies.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// As much as a TLS record holds (RFC 8446, 5.1).
const GATHER_BYTES: usize = 16 << 10;

/// Larger pieces are not copied.
const PIECE_BYTES_MAX: usize = 4 << 10;

/// A stream whose output waits for the end of the turn. One handle is the library's, the other belongs
/// to whoever says when the turn ends.
#[derive(Debug)]
pub(crate) struct Gather<S>(Rc<RefCell<Output<S>>>);

#[derive(Debug)]
struct Output<S> {
    stream: S,
    /// Written by the library, not yet by us. Idle connections hold no memory.
    gathered: Vec<u8>,
    /// How much of it has gone.
    sent: usize,
    /// Whether bytes were given to the stream that it may still hold.
    unflushed: bool,
}

impl<S> Clone for Gather<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self(Rc::new(RefCell::new(Output {
            stream,
            gathered: Vec::new(),
            sent: 0,
            unflushed: false,
        })))
    }

    /// Sends what was gathered; ready when all of it has gone.
    ///
    /// # Errors
    /// Of the stream.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_send(cx)
    }
}

impl<S: AsyncWrite + Unpin> Output<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.gathered.len() {
            let rest = &self.gathered[self.sent..];
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written;
            self.unflushed = true;
        }
        if self.sent > 0 {
            (self.gathered, self.sent) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes: usize = bufs.iter().map(|buf| buf.len()).sum();
        let is_large = bytes > PIECE_BYTES_MAX;
        if is_large || self.gathered.len() + bytes > GATHER_BYTES {
            ready!(self.poll_drain(cx))?;
        }
        if is_large {
            self.unflushed = true;
            return Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        }
        self.gathered.reserve(GATHER_BYTES - self.gathered.len());
        bufs.iter()
            .for_each(|buf| self.gathered.extend_from_slice(buf));
        Poll::Ready(Ok(bytes))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut output = self.0.borrow_mut();
        ready!(output.poll_send(cx))?;
        Pin::new(&mut output.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gather<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_read(cx, buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes the length of each write; takes so many bytes at a time.
    #[derive(Default)]
    struct Sink {
        writes: Vec<usize>,
        bytes: Vec<u8>,
        takes: usize,
    }

    impl AsyncWrite for Sink {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            let count = buf.len().min(self.takes);
            self.writes.push(count);
            self.bytes.extend_from_slice(&buf[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Writes pieces of these lengths, then flushes.
    fn written(pieces: &[usize], takes: usize) -> Sink {
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let mut gather = Gather::new(Sink {
            takes,
            ..Sink::default()
        });
        let mut sent = Vec::new();
        for (number, bytes) in pieces.iter().enumerate() {
            let piece = vec![u8::try_from(number).expect("few pieces"); *bytes];
            let mut rest = &piece[..];
            while !rest.is_empty() {
                let Poll::Ready(Ok(count)) = Pin::new(&mut gather).poll_write(cx, rest) else {
                    unreachable!("the sink is always ready");
                };
                rest = &rest[count..];
            }
            sent.extend(piece);
        }
        assert!(Pin::new(&mut gather).poll_flush(cx).is_ready());
        assert!(gather.poll_send(cx).is_ready());
        let output = Rc::into_inner(gather.0).expect("no other handle");
        let sink = output.into_inner().stream;
        assert_eq!(sink.bytes, sent, "in order, and all of it");
        sink
    }

    #[test]
    fn small_pieces_leave_together_and_large_ones_as_they_are() {
        assert_eq!(written(&[1_000; 9], usize::MAX).writes, [9_000]);
        assert_eq!(written(&[1_000; 20], usize::MAX).writes, [16_000, 4_000]);
        assert_eq!(
            written(&[10, 8_000, 10], usize::MAX).writes,
            [10, 8_000, 10],
            "what is large is not copied"
        );
        assert_eq!(written(&[3, 4], 2).writes, [2, 2, 2, 1]);
        assert!(written(&[], 1).writes.is_empty());
    }
}
