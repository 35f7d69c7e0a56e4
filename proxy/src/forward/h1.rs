//! One attempt over HTTP/1.

use std::future::poll_fn;
use std::io::IoSlice;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use switchback_config::defaults::INFORMATIONAL_TIME;

use crate::balance::Claim;
use crate::error::RequestError;
use crate::forward::{Answer, Deadline, Failure, Link, gate};
use crate::h1::encode::{self, LineSink};
use crate::h1::facts::HeadLimits;
use crate::h1::reader::{Reader, Sender};
use crate::h1::response_head;
use crate::h1::transport::{Filled, Transport};
use crate::head::{Framing, ResponseHead, Version};
use crate::pool::H1;
use crate::request::Request;
use crate::source::Source;
use crate::timer::Timer;
use crate::upload::Upload;

/// Sends the request and reads up to the head of the final response.
pub(super) async fn send(
    request: &Request<'_>,
    mut claim: Claim,
    mut upload: Upload,
    connection: H1,
    timer: Timer,
) -> Result<Box<Answer>, Box<Failure>> {
    write_head(request, &claim, &mut upload);
    let mut exchange = Awaiting::new(request, &claim, &connection);
    let mut deadline = Deadline::new(timer);
    let outcome =
        poll_fn(|cx| exchange.poll(cx, request, &mut claim, &mut upload, &mut deadline)).await;
    let Awaiting {
        mut head,
        answered,
        upload_broken,
        ..
    } = exchange;
    // An endpoint that stopped reading has answered, but will not understand another request.
    head.close |= upload_broken.is_some();
    match outcome {
        Ok(()) => {
            let source = Source::H1(Reader::new(
                &connection.transport,
                Sender::Endpoint,
                head.framing,
            ));
            Ok(Box::new(Answer {
                head,
                source,
                claim,
                upload,
                link: Link::H1(connection),
                timer: deadline.timer,
            }))
        }
        Err(error) => Err(Box::new(Failure {
            error,
            claim,
            upload,
            unprocessed: false,
            answered,
            idle_for: connection.idle_for,
            status: None,
            timer: deadline.timer,
        })),
    }
}

/// Puts the request head in front of the body.
fn write_head(request: &Request<'_>, claim: &Claim, upload: &mut Upload) {
    let framing = upload.framing();
    let line = (request.head.method(), request.target());
    let host = request.upstream_authority(claim);
    encode::request_head(upload.head(), line, host, framing, |sink| {
        request.write_headers(sink, true);
    });
}

/// An attempt that waits for its response head.
struct Awaiting<'a> {
    transport: &'a Transport,
    limits: HeadLimits,
    head: ResponseHead,
    /// How much of the input was searched for the end of a head.
    seen: usize,
    answered: bool,
    /// The endpoint stopped taking the body; it may have answered before.
    upload_broken: Option<RequestError>,
    informational: Informational,
}

/// 1xx responses on their way to the client.
#[derive(Default)]
struct Informational {
    count: u32,
    first: Option<Instant>,
    lines: Vec<u8>,
    sent: usize,
}

impl<'a> Awaiting<'a> {
    fn new(request: &Request<'_>, claim: &Claim, connection: &'a H1) -> Self {
        let service = &claim.service.service;
        Self {
            transport: &connection.transport,
            limits: service.upstream.response_head(),
            head: request.worker.spare_response_head(),
            seen: 0,
            answered: false,
            upload_broken: None,
            informational: Informational::default(),
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        request: &Request<'_>,
        claim: &mut Claim,
        upload: &mut Upload,
        deadline: &mut Deadline,
    ) -> Poll<Result<(), RequestError>> {
        if !upload.is_done() {
            match upload.poll_h1(cx, self.transport, |moment| gate(claim, moment)) {
                Poll::Ready(Err(error @ RequestError::Reset(_))) => {
                    self.upload_broken = Some(error);
                    upload.abandon();
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        if claim.has_begun()
            && let Poll::Ready(outcome) = self.poll_response(cx, request, upload)
        {
            return Poll::Ready(outcome);
        }
        if upload.is_done()
            && let Poll::Ready(gone) = upload.source().poll_gone(cx)
        {
            return Poll::Ready(Err(gone));
        }
        deadline.poll(cx, request, upload).map(Err)
    }

    fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        request: &Request<'_>,
        upload: &Upload,
    ) -> Poll<Result<(), RequestError>> {
        loop {
            ready!(self.informational.poll_send(cx, upload.source()))?;
            if self.parse(request)? {
                if self.head.status >= 200 || self.head.status == 101 {
                    return Poll::Ready(self.check_upgrade(request));
                }
                self.informational.take(&self.head, request)?;
                continue;
            }
            let buffered_max = self.limits.bytes.saturating_add(1);
            match ready!(self.transport.poll_fill(cx, buffered_max)) {
                Ok(Filled::Some) => self.answered = true,
                Ok(Filled::Full) => {
                    return Poll::Ready(Err(RequestError::ResponseTooLarge(
                        "response_header_bytes",
                    )));
                }
                Ok(Filled::Eof) => return Poll::Ready(Err(self.broken(None))),
                Err(cause) => return Poll::Ready(Err(self.broken(Some(cause)))),
            }
        }
    }

    /// Whether a whole head was there; it is consumed then.
    fn parse(&mut self, request: &Request<'_>) -> Result<bool, RequestError> {
        let input = self.transport.input();
        if input.is_empty() || input.len() == self.seen {
            return Ok(false);
        }
        let to_head = request.head.is_head();
        let parsed = response_head::parse(
            &input,
            &mut self.seen,
            &self.limits,
            to_head,
            &mut self.head,
        )?;
        drop(input);
        if let Some(bytes) = parsed {
            self.transport.consume(bytes);
            self.seen = 0;
        }
        Ok(parsed.is_some())
    }

    fn check_upgrade(&self, request: &Request<'_>) -> Result<(), RequestError> {
        if self.head.status == 101 && !request.head.websocket {
            return Err(RequestError::BadResponse(
                "101 to a request that asked for no upgrade",
            ));
        }
        Ok(())
    }

    fn broken(&mut self, cause: Option<std::io::Error>) -> RequestError {
        self.upload_broken
            .take()
            .unwrap_or(RequestError::Reset(cause))
    }
}

impl Informational {
    /// Queues a 1xx response for the client, or drops it where the client would not understand it.
    fn take(&mut self, head: &ResponseHead, request: &Request<'_>) -> Result<(), RequestError> {
        let now = request.worker.read_clock();
        let first = *self.first.get_or_insert(now);
        self.count += 1;
        if self.count > request.limits.informational_responses
            || now.saturating_duration_since(first) > INFORMATIONAL_TIME
        {
            return Err(RequestError::ResponseTooLarge("informational_responses"));
        }
        // 100 is between the endpoint and us; the client got its own.
        if head.status == 100 || request.head.version != Version::H11 {
            return Ok(());
        }
        let out = &mut self.lines;
        encode::status_line(out, head.status);
        crate::headers::write_response(
            &mut LineSink(out),
            head,
            &crate::headers::ResponsePolicy::default(),
        );
        encode::framing(out, Framing::Empty);
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        client: &Source,
    ) -> Poll<Result<(), RequestError>> {
        while self.sent < self.lines.len() {
            let Some(client) = client.transport() else {
                break;
            };
            let written = ready!(client.poll_write(cx, &[IoSlice::new(&self.lines[self.sent..])]));
            self.sent += written.map_err(|cause| RequestError::ClientGone(Some(cause)))?;
            if self.sent == self.lines.len() {
                ready!(client.poll_flush(cx))
                    .map_err(|cause| RequestError::ClientGone(Some(cause)))?;
            }
        }
        self.lines.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}
