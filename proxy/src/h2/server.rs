//! Serving one client over HTTP/2: hyper drives the frames, each request is a task.
//!
//! A stream that the client resets drops its task, which releases everything the request holds. The
//! response body is pulled by hyper through [`ReplyBody`]; a body that breaks off becomes a reset of
//! the stream, never a clean end.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::body::Body;
use crate::client::Client;
use crate::error::RequestError;
use crate::h1::reader::Sender;
use crate::h2::LocalExecutor;
use crate::h2::activity::{Active, Activity};
use crate::h2::body::Received;
use crate::h2::convert::{self, MapSink};
use crate::h2::gather::Gather;
use crate::h2::io::PrefixedStream;
use crate::head::{Framing, RequestHead};
use crate::message::Pieces;
use crate::reply::{Reply, Response, announced_bytes, client_framing};
use crate::request;
use crate::source::{Piece, Source};
use crate::wait::Entry;
use crate::worker::Worker;

/// Window for request data of one stream.
const STREAM_WINDOW: u32 = 64 << 10;

/// Window of a whole connection.
const CONNECTION_WINDOW: u32 = 1 << 20;

/// Serves a client until the connection ends. `stream` begins with the preface.
pub(crate) async fn serve(worker: Rc<Worker>, client: Client, stream: PrefixedStream) {
    let limits = &client.listener.limits;
    let mut builder = Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(u32::try_from(limits.head.bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(64 << 10)
        .auto_date_header(false);
    let activity = Rc::new(Activity::default());
    let service = {
        let (worker, client, activity) = (worker.clone(), client.clone(), activity.clone());
        hyper::service::service_fn(move |request| {
            let guard = activity.begin();
            let (worker, client) = (worker.clone(), client.clone());
            // The library moves its futures around, so they had better be small.
            Box::pin(async move { answer(&worker, &client, request, guard).await })
        })
    };
    let output = Gather::new(stream);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(output.clone()), service));
    let (timer, stall_timer) = (worker.wheel.timer(), worker.wheel.timer());
    let write_stall = limits.write_stall;
    stall_timer.set(write_stall);
    let mut draining = Entry::default();
    let (mut closing, mut ended) = (None, false);
    poll_fn(|cx| {
        if !ended && let Poll::Ready(outcome) = connection.as_mut().poll(cx) {
            if let Err(error) = outcome {
                tracing::debug!(%error, "HTTP/2 connection of a client ended");
            }
            ended = true;
            closing.get_or_insert(worker.now());
        }
        // The turn is over: what all streams had to say goes now.
        match output.poll_send(cx) {
            Poll::Ready(Ok(())) if !ended => {}
            Poll::Ready(_) => return Poll::Ready(()),
            Poll::Pending => {}
        }
        worker.draining.enter(&mut draining, cx);
        while stall_timer.poll_expired(cx).is_ready() {
            let now = worker.read_clock();
            let since = write_stall.and_then(|stall| now.checked_sub(stall));
            let is_long_ago = |at: Instant| since.is_some_and(|since| at <= since);
            // Nor may the last bytes of a closing connection wait for ever to be taken.
            let stuck = closing.is_some_and(is_long_ago) && activity.is_idle();
            if stuck || since.is_some_and(|since| activity.has_stalled(since)) {
                tracing::debug!("the client of an HTTP/2 connection takes nothing");
                return Poll::Ready(());
            }
            stall_timer.set(write_stall);
        }
        let used_up = limits
            .requests_per_connection
            .is_some_and(|max| activity.requests() >= max);
        let idle = activity.poll_idle(cx, &timer, limits.keep_alive);
        if closing.is_none() && (worker.is_draining() || used_up || idle) {
            closing = Some(worker.now());
            connection.as_mut().graceful_shutdown();
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
    worker.draining.leave(&mut draining);
}

async fn answer(
    worker: &Rc<Worker>,
    client: &Client,
    request: hyper::Request<Incoming>,
    active: Active,
) -> Result<hyper::Response<ReplyBody>, RequestError> {
    let (parts, incoming) = request.into_parts();
    let received = Received::new(incoming, Sender::Client);
    let mut head = worker.spare_request_head();
    let converted = convert::from_client(
        &parts,
        received.is_ended(),
        &client.listener.limits.head,
        &mut head,
    );
    let mut response = match converted {
        Err(error) => Response::refusal(worker, &head, None, None, &error),
        Ok(()) => {
            match request::handle(worker, client, &head, Source::H2(Box::new(received))).await {
                Reply::Response(response) => response,
                // Over HTTP/2 no request is a WebSocket handshake.
                Reply::Tunnel(_) => return Err(RequestError::BadResponse("101 over HTTP/2")),
            }
        }
    };
    if response.body.is_empty() {
        // hyper does not ask an empty body, so its end is noted here.
        poll_fn(|cx| response.body.poll(cx)).await?;
    }
    Ok(to_hyper(worker, head, response, active))
}

fn to_hyper(
    worker: &Rc<Worker>,
    head: RequestHead,
    mut response: Response,
    active: Active,
) -> hyper::Response<ReplyBody> {
    let mut message = hyper::Response::new(());
    *message.status_mut() =
        http::StatusCode::from_u16(response.head.status).unwrap_or(http::StatusCode::BAD_GATEWAY);
    let mut sink = MapSink(message.headers_mut());
    response.write_headers(&mut sink);
    let announced = match client_framing(&head, &response.head) {
        Framing::Length(bytes) => Some(bytes),
        _ => announced_bytes(&head, &response.head),
    };
    if let Some(bytes) = announced {
        sink.0.insert(http::header::CONTENT_LENGTH, bytes.into());
    }
    worker.keep_response_head(std::mem::take(&mut response.head));
    worker.keep_request_head(head);
    let ended = response.body.is_empty();
    message.map(|()| ReplyBody {
        body: response.body,
        ended,
        active,
        worker: worker.clone(),
    })
}

/// A response body as hyper pulls it.
#[derive(Debug)]
struct ReplyBody {
    body: Body,
    ended: bool,
    active: Active,
    worker: Rc<Worker>,
}

impl HttpBody for ReplyBody {
    type Data = Bytes;
    type Error = RequestError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestError>>> {
        let this = self.get_mut();
        this.active.asked();
        if this.ended {
            return Poll::Ready(None);
        }
        match this.body.poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => {
                this.ended = true;
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(Ok(Piece::End)) => Poll::Ready(this.end().map(Ok)),
            Poll::Ready(Ok(Piece::Content)) => {
                let bytes = this.body.content().len();
                let data = this.body.take(bytes);
                // If that was all, hyper can say so in the same frame.
                if this.body.is_empty()
                    && let Poll::Ready(Ok(Piece::End)) = this.body.poll(cx)
                {
                    this.ended = true;
                }
                this.active.gave(this.worker.now());
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        if self.ended {
            SizeHint::with_exact(0)
        } else {
            SizeHint::default()
        }
    }
}

impl ReplyBody {
    fn end(&mut self) -> Option<Frame<Bytes>> {
        self.ended = true;
        self.body
            .take_trailers()
            .map(|trailers| Frame::trailers(convert::to_map(&trailers)))
    }
}
