//! Serving one client over HTTP/1: requests one after the other on one connection.
//!
//! Read a head, have it handled, write the reply, see whether the connection is fit for another. A
//! connection is closed rather than guessed about: when the framing of a request was in doubt, when
//! more of its body is left than is worth reading, when a response broke off (then with a reset, so
//! that nobody takes what arrived for everything).

use std::cell::Cell;
use std::future::poll_fn;
use std::io::IoSlice;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use switchback_config::defaults::{LINGER_BYTES, LINGER_TIME};

use crate::client::Client;
use crate::error::RequestError;
use crate::h1::encode::{self, LineSink};
use crate::h1::reader::{Reader, Sender, State};
use crate::h1::request_head;
use crate::h1::transport::{Filled, Transport};
use crate::head::{Framing, RequestHead, Version};
use crate::limit::Limit;
use crate::message::{MessageWriter, SendError, WaitsFor};
use crate::reply::{Reply, Response, announced_bytes, client_framing};
use crate::request;
use crate::source::{Piece, Source};
use crate::timer::Timer;
use crate::wait::Entry;
use crate::worker::Worker;

/// A client connection.
struct Server {
    worker: Rc<Worker>,
    client: Client,
    transport: Rc<Transport>,
    timer: Timer,
    requests: u32,
    /// It was closed for another client, who should not wait until this one has noticed.
    yielded: Cell<bool>,
}

/// What becomes of the connection after a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Another request may come.
    KeepAlive,
    /// Close it in order.
    Close,
    /// The client said that this was its last request.
    Hangup,
    /// Nothing more can be said on it.
    Abort,
}

/// Serves a client until the connection ends.
pub(crate) async fn serve(worker: Rc<Worker>, client: Client, transport: Rc<Transport>) {
    let timer = worker.wheel.timer();
    let mut server = Server {
        worker,
        client,
        transport,
        timer,
        requests: 0,
        yielded: Cell::new(false),
    };
    let mut head = RequestHead::default();
    let next = loop {
        match server.read_head(&mut head).await {
            Ok(true) => {}
            Ok(false) => break Next::Close,
            Err(error) => {
                server.worker.stats().count_limit(error.limit());
                break Box::pin(server.refuse(&head, &error)).await;
            }
        }
        // In a box, so that a connection that waits for its next request has no room for one. The
        // box comes first: what is made for a place that is there already need not be moved into it.
        let place = Box::new_uninit();
        let next = Box::into_pin(Box::write(place, server.serve_one(&head))).await;
        server.worker.keep_request_head(std::mem::take(&mut head));
        if next != Next::KeepAlive {
            break next;
        }
    };
    let is_read = next == Next::Hangup && server.has_nothing_unread().await;
    match next {
        Next::Close if server.yielded.get() => server.hang_up().await,
        Next::Hangup if is_read => server.hang_up().await,
        Next::KeepAlive | Next::Close | Next::Hangup => Box::pin(server.close()).await,
        Next::Abort => server.transport.reset_on_close(),
    }
}

impl Server {
    /// Reads the next request head; false: the client is done, or we are.
    async fn read_head(&mut self, head: &mut RequestHead) -> Result<bool, RequestError> {
        let limits = &self.client.listener.limits;
        let mut seen = 0;
        let mut begun = self.requests == 0 || self.transport.has_input();
        self.timer.set(if begun {
            limits.header_read
        } else {
            limits.keep_alive
        });
        let mut waiting = Entry::default();
        let outcome = poll_fn(|cx| {
            loop {
                let input = self.transport.input();
                if input.len() > seen {
                    if seen == 0 {
                        *head = self.worker.spare_request_head();
                    }
                    if let Some(bytes) = request_head::parse(&input, &mut seen, &limits.head, head)?
                    {
                        drop(input);
                        self.transport.consume(bytes);
                        return Poll::Ready(Ok(true));
                    }
                    if !std::mem::replace(&mut begun, true) {
                        self.worker.read_clock();
                        self.timer.set(limits.header_read);
                    }
                }
                let idle = input.is_empty();
                drop(input);
                match self
                    .transport
                    .poll_fill(cx, limits.head.bytes.saturating_add(1))
                {
                    Poll::Ready(Ok(Filled::Some)) => {}
                    Poll::Ready(Ok(Filled::Full)) => {
                        return Poll::Ready(Err(RequestError::HeadersTooLarge(
                            "request_header_bytes",
                        )));
                    }
                    Poll::Ready(Ok(Filled::Eof) | Err(_)) => return Poll::Ready(Ok(false)),
                    Poll::Pending => {
                        let gone = self.poll_idle(cx, idle, &mut waiting);
                        return gone.map(|patient| {
                            if patient {
                                Ok(false)
                            } else {
                                Err(RequestError::HeaderTimeout)
                            }
                        });
                    }
                }
            }
        })
        .await;
        self.worker.waiting.leave(&mut waiting);
        outcome
    }

    /// Ready when waiting for a request has to end: true in silence, false with an answer.
    fn poll_idle(&self, cx: &mut Context<'_>, idle: bool, waiting: &mut Entry) -> Poll<bool> {
        if idle && self.requests > 0 {
            if self.worker.closes_idle() {
                return Poll::Ready(true);
            }
            if self.worker.yields_connection() {
                self.yielded.set(true);
                return Poll::Ready(true);
            }
            self.worker.waiting.enter(waiting, cx);
        }
        self.timer.poll_expired(cx).map(|()| {
            // With an answer it is counted where the others are.
            let silent = match self.requests {
                0 => Limit::HeaderReadTimeout,
                _ => Limit::KeepAliveTimeout,
            };
            self.worker.stats().count_limit(idle.then_some(silent));
            idle
        })
    }

    async fn serve_one(&mut self, head: &RequestHead) -> Next {
        self.requests += 1;
        self.transport
            .set_owes_continue(head.expects_continue && head.framing.has_body());
        let reader = Reader::new(&self.transport, Sender::Client, head.framing);
        let reply = request::handle(&self.worker, &self.client, head, Source::H1(reader)).await;
        let next = match reply {
            Reply::Response(mut response) => self.respond(head, &mut response).await,
            Reply::Tunnel(tunnel) => {
                let mut lines = Vec::with_capacity(256);
                encode::status_line(&mut lines, 101);
                crate::headers::write_response(
                    &mut LineSink(&mut lines),
                    &tunnel.head,
                    &tunnel.notes.policy(),
                );
                lines.extend_from_slice(b"connection: upgrade\r\nupgrade: websocket\r\n\r\n");
                if self.write_all(&lines).await.is_ok() {
                    Box::pin(tunnel.run(&self.transport)).await;
                }
                Next::Close
            }
        };
        match self.transport.take_unfinished() {
            Some(rest) if next == Next::KeepAlive => Box::pin(self.drop_rest(rest)).await,
            Some(_) if next == Next::Hangup => Next::Close,
            _ => next,
        }
    }

    /// Writes a response with its body.
    async fn respond(&mut self, head: &RequestHead, response: &mut Response) -> Next {
        let next = self.next_after(head, response);
        let (mut writer, framing) = self.write_head(head, response, next);
        let sent = self.send(&mut writer, response).await;
        self.worker.keep_bytes(writer.into_memory());
        match sent {
            Ok(()) => {
                self.worker
                    .keep_response_head(std::mem::take(&mut response.head));
                if framing == Framing::UntilClose {
                    Next::Close
                } else {
                    next
                }
            }
            Err(Unsent::Nothing(error)) => {
                response.body.note_status(error.status());
                Box::pin(self.refuse(head, &error)).await
            }
            Err(Unsent::Rest) => Next::Abort,
        }
    }

    fn next_after(&self, head: &RequestHead, response: &Response) -> Next {
        let used_up = self
            .client
            .listener
            .limits
            .requests_per_connection
            .is_some_and(|max| self.requests >= max);
        let limit = used_up.then_some(Limit::RequestsPerConnection);
        self.worker.stats().count_limit(limit);
        // Without its 100, the client may send the body or not: the next bytes mean nothing certain.
        let uncertain = self.transport.owes_continue();
        self.transport.set_owes_continue(false);
        if response.notes.close || used_up || uncertain || self.worker.is_draining() {
            Next::Close
        } else if head.close {
            Next::Hangup
        } else {
            Next::KeepAlive
        }
    }

    fn write_head(
        &self,
        head: &RequestHead,
        response: &Response,
        next: Next,
    ) -> (MessageWriter, Framing) {
        let old = head.version == Version::H10;
        let framing = match client_framing(head, &response.head) {
            Framing::Streamed if old => Framing::UntilClose,
            framing => framing,
        };
        let mut writer = MessageWriter::new(framing, self.worker.spare_bytes());
        let lines = writer.head();
        encode::status_line(lines, response.head.status);
        response.write_headers(&mut LineSink(lines));
        encode::framing(lines, framing);
        if let Some(bytes) = announced_bytes(head, &response.head) {
            encode::content_length(lines, bytes);
        }
        match next {
            Next::KeepAlive if framing == Framing::UntilClose => {
                lines.extend_from_slice(b"connection: close\r\n")
            }
            Next::KeepAlive if old => lines.extend_from_slice(b"connection: keep-alive\r\n"),
            Next::KeepAlive => {}
            Next::Close | Next::Hangup | Next::Abort => {
                lines.extend_from_slice(b"connection: close\r\n")
            }
        }
        lines.extend_from_slice(b"\r\n");
        (writer, framing)
    }

    async fn send(
        &self,
        writer: &mut MessageWriter,
        response: &mut Response,
    ) -> Result<(), Unsent> {
        let stall = response
            .write_stall
            .or(self.client.listener.limits.write_stall);
        let mut armed_at = None;
        poll_fn(|cx| {
            match writer.poll(cx, &self.transport, &mut response.body, |_| Ok(())) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(SendError::Source(error))) if writer.sent() == 0 => {
                    return Poll::Ready(Err(Unsent::Nothing(error)));
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Unsent::Rest)),
                Poll::Pending => {}
            }
            if writer.waits_for() == WaitsFor::Source {
                armed_at = None;
                return self.transport.poll_gone(cx).map(|_| Err(Unsent::Rest));
            }
            if armed_at != Some(writer.sent()) {
                armed_at = Some(writer.sent());
                self.worker.read_clock();
                self.timer.set(stall);
            }
            self.timer.poll_expired(cx).map(|()| {
                self.worker.stats().limits.hit(Limit::WriteStallTimeout);
                Err(Unsent::Rest)
            })
        })
        .await
    }

    /// Answers what could not be served.
    async fn refuse(&mut self, head: &RequestHead, error: &RequestError) -> Next {
        if matches!(error, RequestError::ClientGone(_)) {
            return Next::Abort;
        }
        let mut response = Response::refusal(&self.worker, head, None, None, error);
        let close = response.notes.close || self.transport.owes_continue() || head.close;
        let next = if close { Next::Close } else { Next::KeepAlive };
        let (mut writer, _) = self.write_head(head, &response, next);
        match self.send(&mut writer, &mut response).await {
            Ok(()) => next,
            Err(_) => Next::Abort,
        }
    }

    /// Reads what is left of a request body, if it is little and comes soon.
    async fn drop_rest(&self, rest: State) -> Next {
        let mut reader = Reader::resume(&self.transport, rest);
        reader.limit(Some(LINGER_BYTES));
        self.worker.read_clock();
        self.timer.set(Some(LINGER_TIME));
        let ended = poll_fn(|cx| {
            loop {
                match reader.poll(cx) {
                    Poll::Ready(Ok(Piece::Content)) => {
                        let bytes = reader.content().len();
                        reader.consume(bytes);
                    }
                    Poll::Ready(Ok(Piece::End)) => return Poll::Ready(true),
                    Poll::Ready(Err(_)) => return Poll::Ready(false),
                    Poll::Pending => return self.timer.poll_expired(cx).map(|()| false),
                }
            }
        })
        .await;
        drop(reader);
        if ended { Next::KeepAlive } else { Next::Close }
    }

    /// Whether nothing of what the client sent waits for us, here or in the kernel: unread bytes would turn
    /// a close into a reset, which takes back what is still on its way.
    async fn has_nothing_unread(&self) -> bool {
        poll_fn(|cx| Poll::Ready(self.transport.is_idle(cx))).await
    }

    /// Closes when nothing more is to come: an ordinary close then loses nothing, and costs neither a
    /// wait nor another look. Over TLS the end is said first.
    async fn hang_up(&self) {
        if self.client.secure {
            self.timer.set(Some(LINGER_TIME));
            poll_fn(|cx| match self.transport.poll_shutdown(cx) {
                Poll::Ready(_) => Poll::Ready(()),
                Poll::Pending => self.timer.poll_expired(cx),
            })
            .await;
        }
    }

    /// Closes so that the last response arrives: ends our side, then reads a little of what the
    /// client may still send, since unread bytes would turn the close into a reset.
    async fn close(&self) {
        self.transport.take_unfinished();
        self.worker.read_clock();
        self.timer.set(Some(LINGER_TIME));
        let mut left = LINGER_BYTES;
        poll_fn(|cx| {
            if self.transport.poll_shutdown(cx).is_pending() {
                return self.timer.poll_expired(cx);
            }
            loop {
                let unread = self.transport.input().len();
                self.transport.consume(unread);
                left = left.saturating_sub(unread as u64);
                match self.transport.poll_fill(cx, 1) {
                    Poll::Ready(Ok(Filled::Some)) if left > 0 => {}
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return self.timer.poll_expired(cx),
                }
            }
        })
        .await;
    }

    async fn write_all(&self, mut bytes: &[u8]) -> std::io::Result<()> {
        self.timer.set(Some(
            self.client
                .listener
                .limits
                .write_stall
                .unwrap_or(Duration::MAX),
        ));
        poll_fn(|cx| {
            while !bytes.is_empty() {
                let written = ready!(self.transport.poll_write(cx, &[IoSlice::new(bytes)]))?;
                bytes = &bytes[written..];
            }
            self.transport.poll_flush(cx)
        })
        .await
    }
}

/// A response that could not be sent.
enum Unsent {
    /// Not one byte went out, so the client can still be told why.
    Nothing(RequestError),
    /// It broke off.
    Rest,
}
