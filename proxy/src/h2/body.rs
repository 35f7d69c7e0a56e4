//! Bodies over HTTP/2: received from hyper piece by piece, or handed to it.
//!
//! hyper pulls a request body from its own task. [`UploadSender`] and [`UploadBody`] are the two ends of a
//! one-piece channel on the same thread, so that reading from the client, its deadlines and its
//! errors stay in the request's own task and hyper only ever sees bytes that are there.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::HeaderMap;
use http::header::HeaderName;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::error::RequestError;
use crate::h1::reader::Sender;
use crate::h2::convert::is_token;
use crate::head::Fields;
use crate::source::{Piece, is_allowed_in_trailers};

/// A body that arrives over HTTP/2.
#[derive(Debug)]
pub(crate) struct Received {
    incoming: Incoming,
    sender: Sender,
    current: Bytes,
    allowed: Option<u64>,
    trailers: Option<Box<Fields>>,
    ended: bool,
}

impl Received {
    pub(crate) fn new(incoming: Incoming, sender: Sender) -> Self {
        let ended = incoming.is_end_stream();
        Self {
            incoming,
            sender,
            current: Bytes::new(),
            allowed: None,
            trailers: None,
            ended,
        }
    }

    pub(crate) fn limit(&mut self, bytes: Option<u64>) {
        self.allowed = bytes;
    }

    pub(crate) const fn is_ended(&self) -> bool {
        self.ended && self.current.is_empty()
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, RequestError>> {
        loop {
            if !self.current.is_empty() {
                return Poll::Ready(Ok(Piece::Content));
            }
            if self.ended {
                return Poll::Ready(Ok(Piece::End));
            }
            match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
                Some(Ok(frame)) => self.receive(frame)?,
                // A reset with NO_ERROR looks like an end but is none.
                None if !self.incoming.is_end_stream() => return Poll::Ready(Err(self.broken())),
                None => self.ended = true,
                Some(Err(cause)) => {
                    return Poll::Ready(Err(match self.sender {
                        Sender::Client => RequestError::ClientGone(None),
                        Sender::Endpoint => RequestError::StreamReset(cause),
                    }));
                }
            }
        }
    }

    fn receive(&mut self, frame: Frame<Bytes>) -> Result<(), RequestError> {
        match frame.into_data() {
            Ok(data) => {
                if self
                    .allowed
                    .is_some_and(|allowed| data.len() as u64 > allowed)
                {
                    return Err(RequestError::BodyTooLarge);
                }
                self.current = data;
            }
            Err(frame) => {
                if let Ok(map) = frame.into_trailers() {
                    let mut fields = Fields::default();
                    let allowed =
                        |name: &HeaderName| is_allowed_in_trailers(name.as_ref()) && is_token(name);
                    for (name, value) in map.iter().filter(|(name, _)| allowed(name)) {
                        fields.push(name.as_ref(), value.as_bytes());
                    }
                    self.trailers = Some(Box::new(fields));
                    self.ended = true;
                }
            }
        }
        Ok(())
    }

    const fn broken(&self) -> RequestError {
        match self.sender {
            Sender::Client => RequestError::ClientGone(None),
            Sender::Endpoint => RequestError::Reset(None),
        }
    }

    pub(crate) fn content(&self) -> &[u8] {
        &self.current
    }

    pub(crate) fn consume(&mut self, count: usize) {
        drop(self.take(count));
    }

    pub(crate) fn take(&mut self, count: usize) -> Bytes {
        if let Some(allowed) = &mut self.allowed {
            *allowed -= count as u64;
        }
        self.current.split_to(count)
    }

    pub(crate) fn take_trailers(&mut self) -> Option<Box<Fields>> {
        self.trailers.take()
    }
}

/// The request's end of a body that is handed to hyper.
#[derive(Debug)]
pub(crate) struct UploadSender(Rc<RefCell<Channel>>);

/// hyper's end.
#[derive(Debug)]
pub(crate) struct UploadBody(Option<Rc<RefCell<Channel>>>);

#[derive(Debug, Default)]
struct Channel {
    piece: Option<Bytes>,
    trailers: Option<HeaderMap>,
    ended: bool,
    aborted: bool,
    /// hyper has let go of the body: the stream was reset or the response came first.
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Channel {
    fn wake(waker: &mut Option<Waker>) {
        if let Some(waker) = waker.take() {
            waker.wake();
        }
    }
}

impl UploadBody {
    /// A request without a body.
    pub(crate) const fn empty() -> Self {
        Self(None)
    }

    /// A request with a body.
    pub(crate) fn channel() -> (UploadSender, Self) {
        let channel = Rc::new(RefCell::new(Channel::default()));
        (UploadSender(channel.clone()), Self(Some(channel)))
    }
}

impl UploadSender {
    /// Ready when the next piece can be given; false: nobody wants it any more.
    pub(crate) fn poll_free(&self, cx: &Context<'_>) -> Poll<bool> {
        let mut channel = self.0.borrow_mut();
        if channel.closed {
            return Poll::Ready(false);
        }
        if channel.piece.is_none() {
            return Poll::Ready(true);
        }
        channel.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Gives the next piece.
    pub(crate) fn give(&self, piece: Bytes) {
        let mut channel = self.0.borrow_mut();
        debug_assert!(channel.piece.is_none(), "the piece before was not taken");
        channel.piece = Some(piece);
        Channel::wake(&mut channel.reader);
    }

    /// Ends the body.
    pub(crate) fn end(&self, trailers: Option<HeaderMap>) {
        let mut channel = self.0.borrow_mut();
        channel.trailers = trailers;
        channel.ended = true;
        Channel::wake(&mut channel.reader);
    }
}

impl Drop for UploadSender {
    fn drop(&mut self) {
        let mut channel = self.0.borrow_mut();
        if !channel.ended {
            channel.aborted = true;
            Channel::wake(&mut channel.reader);
        }
    }
}

/// The client broke off its upload: the stream is reset, never ended cleanly.
#[derive(Debug, thiserror::Error)]
#[error("the request body was not completed")]
pub(crate) struct Aborted;

impl Body for UploadBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let Some(channel) = &self.0 else {
            return Poll::Ready(None);
        };
        let mut channel = channel.borrow_mut();
        if let Some(piece) = channel.piece.take() {
            Channel::wake(&mut channel.writer);
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if channel.aborted {
            return Poll::Ready(Some(Err(Aborted)));
        }
        if channel.ended {
            return Poll::Ready(
                channel
                    .trailers
                    .take()
                    .map(|trailers| Ok(Frame::trailers(trailers))),
            );
        }
        channel.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|channel| {
            let channel = channel.borrow();
            channel.ended && channel.piece.is_none() && channel.trailers.is_none()
        })
    }

    fn size_hint(&self) -> SizeHint {
        if self.0.is_none() {
            SizeHint::with_exact(0)
        } else {
            SizeHint::default()
        }
    }
}

impl Drop for UploadBody {
    fn drop(&mut self) {
        if let Some(channel) = &self.0 {
            let mut channel = channel.borrow_mut();
            channel.closed = true;
            Channel::wake(&mut channel.writer);
        }
    }
}
