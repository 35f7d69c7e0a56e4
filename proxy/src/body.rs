//! A response body on its way to the client, with everything that ends when it ends.
//!
//! The sink (an HTTP/1 writer or hyper) pulls; while it does, the rest of the request body, if any,
//! is still pushed up. When the body ends, and in whatever way it ends, the connection goes back to
//! its pool or is closed, the claim is released, the judge hears of it and the log line is written:
//! each exactly once.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use switchback_config::defaults::LONG_RESPONSE;

use crate::balance::Claim;
use crate::connect::put_back;
use crate::error::{Fault, RequestError};
use crate::forward::{Answer, Link};
use crate::head::{Fields, Framing, Name, ResponseHead, is_grpc};
use crate::message::{Pieces, WaitsFor};
use crate::outcome::{Outcome, grpc_code};
use crate::report::{Report, outcome_of};
use crate::snapshot::RequestLimits;
use crate::source::{Content, Piece, Source};
use crate::timer::Timer;
use crate::upload::Upload;
use crate::wait::Entry;

/// A response body.
#[derive(Debug)]
pub(crate) enum Body {
    /// Made by the proxy.
    Made(Source),
    /// Received from an endpoint.
    Exchange(Box<Exchange>),
}

impl Body {
    /// A body at hand.
    pub(crate) const fn made(bytes: Bytes) -> Self {
        Self::Made(Source::Made(bytes))
    }

    /// Notes that the client gets another status than the one that was received.
    pub(crate) fn note_status(&mut self, status: u16) {
        if let Self::Exchange(exchange) = self {
            exchange.report.note(|record| record.status = status);
        }
    }

    /// Takes content out.
    pub(crate) fn take(&mut self, count: usize) -> Bytes {
        match self {
            Self::Made(source) => source.take(count),
            Self::Exchange(exchange) => {
                exchange.note_sent(count);
                exchange.source.take(count)
            }
        }
    }

    /// Whether there is nothing to send, known before polling.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Made(source) => source.is_ended(),
            Self::Exchange(exchange) => exchange.is_empty(),
        }
    }
}

impl Pieces for Body {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, RequestError>> {
        match self {
            Self::Made(source) => source.poll(cx),
            Self::Exchange(exchange) => exchange.poll(cx),
        }
    }

    fn content(&self) -> Content<'_> {
        match self {
            Self::Made(source) => source.content(),
            Self::Exchange(exchange) => exchange.source.content(),
        }
    }

    fn consume(&mut self, count: usize) {
        match self {
            Self::Made(source) => source.consume(count),
            Self::Exchange(exchange) => {
                exchange.source.consume(count);
                exchange.note_sent(count);
            }
        }
    }

    fn take_trailers(&mut self) -> Option<Box<Fields>> {
        match self {
            Self::Made(_) => None,
            Self::Exchange(exchange) => exchange.trailers.take(),
        }
    }
}

/// A response body that comes from an endpoint.
#[derive(Debug)]
pub(crate) struct Exchange {
    source: Source,
    upload: Upload,
    link: Option<Link>,
    claim: Option<Claim>,
    report: Report,
    deadline: IdleDeadline,
    status: u16,
    grpc: Option<GrpcStatus>,
    is_event_stream: bool,
    reusable: bool,
    trailers: Option<Box<Fields>>,
    streams: Entry,
}

/// The status of a gRPC call, as far as the head told.
#[derive(Debug)]
struct GrpcStatus(Option<u8>);

/// The deadline of the next piece, and the moment from which the response counts as long.
#[derive(Debug)]
struct IdleDeadline {
    timer: Timer,
    idle: Option<Duration>,
    long_at: Instant,
    counted_long: bool,
    expires: Option<Instant>,
}

impl Exchange {
    /// The rest of an exchange whose response head has arrived.
    pub(crate) fn new(
        answer: Box<Answer>,
        limits: &RequestLimits,
        report: Report,
    ) -> (ResponseHead, Box<Self>) {
        let Answer {
            head,
            source,
            claim,
            mut upload,
            link,
            timer,
        } = *answer;
        if let Some(memory) = upload.take_memory() {
            claim.worker().keep_bytes(memory);
        }
        let content_type = head.fields.first(Name::ContentType);
        let grpc = is_grpc(content_type).then(|| {
            let code = head
                .fields
                .values(b"grpc-status")
                .next()
                .and_then(grpc_code);
            GrpcStatus(code)
        });
        let is_event_stream = content_type.is_some_and(|t| t.starts_with(b"text/event-stream"));
        let long_at = claim.claimed() + LONG_RESPONSE;
        // An endpoint that has answered before it was sent everything may not read the rest.
        let reusable = !head.close && head.framing != Framing::UntilClose && upload.is_done();
        let place = Box::new_uninit();
        let exchange = Self {
            source,
            upload,
            link: Some(link),
            claim: Some(claim),
            report,
            deadline: IdleDeadline {
                timer,
                idle: limits.upstream_body_idle,
                long_at,
                counted_long: false,
                expires: None,
            },
            status: head.status,
            grpc,
            is_event_stream,
            reusable,
            trailers: None,
            streams: Entry::default(),
        };
        (head, Box::write(place, exchange))
    }

    fn is_empty(&self) -> bool {
        self.source.is_ended()
    }

    fn note_sent(&mut self, count: usize) {
        self.report.note(|record| record.bytes += count as u64);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, RequestError>> {
        if let Err(error) = self.poll_upload(cx) {
            return Poll::Ready(Err(self.fail(error)));
        }
        match self.source.poll(cx) {
            Poll::Ready(Ok(Piece::Content)) => {
                self.deadline.expires = None;
                Poll::Ready(Ok(Piece::Content))
            }
            Poll::Ready(Ok(Piece::End)) => {
                self.trailers = self.source.take_trailers();
                self.finish();
                Poll::Ready(Ok(Piece::End))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.fail(error))),
            Poll::Pending => self.poll_deadlines(cx).map(|error| Err(self.fail(error))),
        }
    }

    /// Pushes the rest of the request body up.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), RequestError> {
        if self.upload.is_done() {
            return Ok(());
        }
        let polled = match &self.link {
            Some(Link::H1(connection)) => {
                self.upload.poll_h1(cx, &connection.transport, |_| Ok(()))
            }
            Some(Link::H2(_, Some(sender))) => self.upload.poll_h2(cx, sender),
            _ => Poll::Ready(Ok(())),
        };
        match polled {
            Poll::Ready(Err(error)) if error.fault() == Fault::Backend => {
                // It has answered; that it takes no more of the request is its right.
                self.upload.abandon();
                self.reusable = false;
            }
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        Ok(())
    }

    fn poll_deadlines(&mut self, cx: &mut Context<'_>) -> Poll<RequestError> {
        if let Some(claim) = &self.claim {
            if claim.is_cut() {
                return Poll::Ready(RequestError::Cut);
            }
            claim.view().streams.enter(&mut self.streams, cx);
        }
        if self.deadline.poll(cx).is_pending() {
            return Poll::Pending;
        }
        if self.deadline.just_became_long() {
            self.report.judge(Outcome::Status(self.status));
            self.deadline.expires = None;
            return self.poll_deadlines(cx);
        }
        let waits_for_client =
            !self.upload.is_done() && self.upload.waits_for() == WaitsFor::Source;
        Poll::Ready(if waits_for_client {
            RequestError::BodyTimeout
        } else {
            RequestError::ResponseBodyTimeout
        })
    }

    /// The body has ended as it should.
    fn finish(&mut self) {
        let mut outcome = Outcome::Status(self.status);
        if let Some(GrpcStatus(in_head)) = self.grpc {
            let in_trailers = self
                .trailers
                .as_ref()
                .and_then(|trailers| trailers.values(b"grpc-status").next().and_then(grpc_code));
            outcome = Outcome::Grpc(self.status, in_trailers.or(in_head));
        }
        self.report.judge(outcome);
        self.give_back_connection();
        self.end_claim(outcome);
    }

    /// The body broke off.
    fn fail(&mut self, error: RequestError) -> RequestError {
        if let Some(claim) = &self.claim {
            claim.worker().stats().count_limit(error.limit());
        }
        let outcome = match outcome_of(&error) {
            Outcome::Reset | Outcome::NotSent if self.is_event_stream => {
                Outcome::Status(self.status)
            }
            outcome => outcome,
        };
        self.report.judge(outcome);
        self.report.note_error(&error);
        self.end_claim(outcome);
        self.link = None;
        error
    }

    fn give_back_connection(&mut self) {
        let Some(claim) = &self.claim else { return };
        match self.link.take() {
            Some(Link::H1(connection)) => {
                let clean =
                    self.reusable && self.upload.is_done() && !connection.transport.has_input();
                if clean {
                    put_back(claim, connection, &claim.service.service.upstream);
                }
            }
            Some(Link::H2(slot, _)) => slot.end(claim.worker().now()),
            None => {}
        }
    }

    /// Reads and drops the body, up to a bound; a larger one is left, with its connection. So are
    /// event streams, which have no end.
    pub(crate) async fn drop_rest(mut self: Box<Self>, bytes_max: u64) {
        let mut left = bytes_max;
        while !self.is_event_stream {
            match poll_fn(|cx| self.poll(cx)).await {
                Ok(Piece::Content) => {
                    let count = self.source.content().len();
                    self.source.consume(count);
                    match left.checked_sub(count as u64) {
                        Some(rest) => left = rest,
                        None => break,
                    }
                }
                Ok(Piece::End) | Err(_) => return,
            }
        }
        self.link = None;
        self.end_claim(Outcome::Status(self.status));
    }

    fn end_claim(&mut self, outcome: Outcome) {
        if let Some(claim) = self.claim.take() {
            claim.view().streams.leave(&mut self.streams);
            claim.end(outcome);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.report
                .note(|record| record.error = Some("client_gone"));
            claim.view().streams.leave(&mut self.streams);
        }
    }
}

impl IdleDeadline {
    /// Ready when nothing came for too long, or when the response becomes a long one.
    fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.expires.is_none() {
            let idle = self.idle.map(|idle| self.timer.now() + idle);
            let long = (!self.counted_long).then_some(self.long_at);
            let next = idle.into_iter().chain(long).min();
            match next {
                Some(next) => self.timer.set_at(next),
                None => self.timer.clear(),
            }
            self.expires = next;
        }
        self.timer.poll_expired(cx)
    }

    fn just_became_long(&mut self) -> bool {
        let long = !self.counted_long && self.expires == Some(self.long_at);
        self.counted_long |= long;
        long
    }
}
