//! What many streams of one HTTP/2 connection send in one turn of the loop, in one write.
//!
//! The h2 library hands over each frame with content by itself: a write, and over TLS a record, for
//! each response. Here they are gathered until the library has nothing more to say and flushes, or
//! until one TLS record is full. What is large already is written from where it lies.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// As much as a TLS record holds (RFC 8446, 5.1).
const GATHER_BYTES: usize = 16 << 10;

/// Larger pieces are not copied.
const PIECE_BYTES_MAX: usize = 4 << 10;

/// A stream whose writes wait for the flush.
#[derive(Debug)]
pub(crate) struct Gather<S> {
    stream: S,
    /// Written by the library, not yet by us. Idle connections hold no memory.
    gathered: Vec<u8>,
    /// How much of it has gone.
    sent: usize,
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    pub(crate) const fn new(stream: S) -> Self {
        Self {
            stream,
            gathered: Vec::new(),
            sent: 0,
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.gathered.len() {
            let rest = &self.gathered[self.sent..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        (self.gathered, self.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let bytes: usize = bufs.iter().map(|buf| buf.len()).sum();
        if bytes > PIECE_BYTES_MAX || this.gathered.len() + bytes > GATHER_BYTES {
            ready!(this.poll_drain(cx))?;
        }
        if bytes > PIECE_BYTES_MAX {
            return Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        }
        this.gathered.reserve(GATHER_BYTES - this.gathered.len());
        bufs.iter()
            .for_each(|buf| this.gathered.extend_from_slice(buf));
        Poll::Ready(Ok(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gather<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
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
        assert_eq!(gather.stream.bytes, sent, "in order, and all of it");
        gather.stream
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
