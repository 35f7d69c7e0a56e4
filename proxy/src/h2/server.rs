//! Serving one client over HTTP/2: hyper drives the frames, each request is a task.
//!
//! A stream that the client resets drops its task, which releases everything the request holds. The
//! response body is pulled by hyper through [`ReplyBody`]; a body that breaks off becomes a reset of
//! the stream, never a clean end. A malformed request resets its stream, as RFC 9113, 8.1.1 has it.
//! Beside hyper stand the checks of [`crate::h2::watch`] and the deadlines that hyper does not have.

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
use crate::h2::io::Line;
use crate::h2::watch::{Verdict, Watch};
use crate::head::{Framing, RequestHead};
use crate::limit::Limit;
use crate::message::Pieces;
use crate::reply::{Reply, Response, announced_bytes, client_framing};
use crate::request;
use crate::server::ConnectionLimits;
use crate::source::{Piece, Source};
use crate::stream::Stream;
use crate::timer::Timer;
use crate::wait::Entry;
use crate::worker::Worker;

/// Serves a client until the connection ends. `prefix`: what was read ahead, the preface at least.
pub(crate) async fn serve(worker: Rc<Worker>, client: Client, stream: Stream, prefix: Vec<u8>) {
    let limits = &client.listener.limits.h2;
    let line = Line::new(prefix, stream, Watch::new(limits.floods), &worker.wheel);
    let activity = Rc::new(Activity::default());
    let ended = drive(&worker, &client, &line, &activity).await;
    if let Some(limit) = line.watch().calmed() {
        worker.stats().limits.hit(limit);
    }
    if let Err(verdict) = ended {
        worker.stats().count_limit(verdict.limit());
        tracing::debug!(peer = %client.peer, ?verdict, "an HTTP/2 connection of a client is ended");
        line.say_goodbye(verdict, &worker.wheel.timer()).await;
    }
}

/// Has hyper speak with the client until the connection ends, or has to end.
async fn drive(
    worker: &Rc<Worker>,
    client: &Client,
    line: &Rc<Line>,
    activity: &Rc<Activity>,
) -> Result<(), Verdict> {
    let builder = builder(&client.listener.limits);
    let service = {
        let (worker, client, activity) = (worker.clone(), client.clone(), activity.clone());
        hyper::service::service_fn(move |request| {
            let guard = activity.begin();
            let (worker, client) = (worker.clone(), client.clone());
            // The library moves its futures around, so they had better be small.
            Box::pin(async move { answer(&worker, &client, request, guard).await })
        })
    };
    let output = Gather::new(line.stream());
    let mut connection = pin!(builder.serve_connection(TokioIo::new(output.clone()), service));
    let mut course = Course::new(worker, client, line, activity);
    let mut ended = false;
    poll_fn(|cx| {
        if !ended && let Poll::Ready(outcome) = connection.as_mut().poll(cx) {
            if let Err(error) = outcome {
                tracing::debug!(%error, "HTTP/2 connection of a client ended");
            }
            ended = true;
            course.close();
        }
        // The turn is over: what all streams had to say goes now.
        match output.poll_send(cx) {
            Poll::Ready(Ok(())) if !ended => {}
            Poll::Ready(_) => return Poll::Ready(Ok(())),
            Poll::Pending => {}
        }
        if let Err(verdict) = course.check(cx) {
            return Poll::Ready(Err(verdict));
        }
        if course.begins_to_close(cx) {
            connection.as_mut().graceful_shutdown();
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await
}

fn builder(limits: &ConnectionLimits) -> Builder<LocalExecutor> {
    let h2 = &limits.h2;
    let mut builder = Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(h2.stream_window)
        .initial_connection_window_size(h2.connection_window)
        .max_frame_size(h2.frame_bytes)
        .header_table_size(h2.header_table_bytes)
        .max_concurrent_streams(h2.streams)
        .max_header_list_size(u32::try_from(limits.head.bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(64 << 10)
        .auto_date_header(false);
    builder
}

/// What ends a connection from outside of hyper.
#[derive(Debug)]
struct Course<'a> {
    worker: &'a Worker,
    limits: &'a ConnectionLimits,
    line: &'a Line,
    activity: &'a Activity,
    idle_timer: Timer,
    stall_timer: Timer,
    /// For an incomplete header block; and once the connection closes, for its last bytes.
    patience: Timer,
    block_since: Option<Instant>,
    waiting: Entry,
    closing: bool,
}

impl<'a> Course<'a> {
    fn new(worker: &'a Worker, client: &'a Client, line: &'a Line, activity: &'a Activity) -> Self {
        Self {
            worker,
            limits: &client.listener.limits,
            line,
            activity,
            idle_timer: worker.wheel.timer(),
            stall_timer: worker.wheel.timer(),
            patience: worker.wheel.timer(),
            block_since: None,
            waiting: Entry::default(),
            closing: false,
        }
    }

    /// Whether the connection may go on.
    fn check(&mut self, cx: &Context<'_>) -> Result<(), Verdict> {
        for _ in 0..self.line.watch().take_refused_streams() {
            self.worker.stats().limits.hit(Limit::H2Streams);
        }
        if let Some(verdict) = self.line.verdict() {
            return Err(verdict);
        }
        if self.activity.poll_stalled(cx, &self.stall_timer) {
            return Err(Limit::WriteStallTimeout.into());
        }
        let block_since = self.line.watch().block_since();
        if !self.closing && block_since != self.block_since {
            self.block_since = block_since;
            match block_since.zip(self.limits.header_read) {
                Some((since, patience)) => self.patience.set_at(since + patience),
                None => self.patience.clear(),
            }
        }
        if self.patience.poll_expired(cx).is_ready() {
            if !self.closing {
                return Err(Limit::HeaderReadTimeout.into());
            }
            // Nor may the last bytes of a closing connection wait for ever to be taken.
            if self.activity.is_idle() {
                return Err(Limit::WriteStallTimeout.into());
            }
            self.patience.set(self.limits.write_stall);
            let _ = self.patience.poll_expired(cx);
        }
        Ok(())
    }

    /// Whether no more requests are wanted from now on.
    fn begins_to_close(&mut self, cx: &Context<'_>) -> bool {
        if self.closing {
            return false;
        }
        self.worker.waiting.enter(&mut self.waiting, cx);
        let used_up = self.find_used_up();
        let idle = self
            .activity
            .poll_idle(cx, &self.idle_timer, self.limits.keep_alive);
        let yields = self.activity.is_idle() && self.worker.yields_connection();
        if let Some(limit) = used_up.or(idle.then_some(Limit::KeepAliveTimeout)) {
            self.worker.stats().limits.hit(limit);
        } else if !yields && !self.worker.is_draining() {
            return false;
        }
        self.close();
        true
    }

    /// From now on only the last bytes are waited for.
    fn close(&mut self) {
        if !std::mem::replace(&mut self.closing, true) {
            self.patience.set(self.limits.write_stall);
        }
    }

    fn find_used_up(&self) -> Option<Limit> {
        let requests = self.activity.requests();
        if (self.limits.requests_per_connection).is_some_and(|max| requests >= max) {
            return Some(Limit::RequestsPerConnection);
        }
        let streams = self.line.watch().streams();
        let max = self.limits.h2.streams_per_connection;
        max.is_some_and(|max| streams >= u64::from(max))
            .then_some(Limit::H2StreamsPerConnection)
    }
}

impl Drop for Course<'_> {
    fn drop(&mut self) {
        self.worker.waiting.leave(&mut self.waiting);
    }
}

/// How a request ends that gets no response.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error(transparent)]
    Failed(#[from] RequestError),
    /// Its stream is reset with this reason (RFC 9113, 8.1.1).
    #[error("{0}")]
    Malformed(RequestError, #[source] h2::Error),
}

async fn answer(
    worker: &Rc<Worker>,
    client: &Client,
    request: hyper::Request<Incoming>,
    active: Active,
) -> Result<hyper::Response<ReplyBody>, Unanswered> {
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
        Err(error @ RequestError::Malformed(_)) => {
            worker.read_clock();
            worker.stats().count_refusal(error.status());
            tracing::debug!(peer = %client.peer, "{error}");
            return Err(Unanswered::Malformed(
                error,
                h2::Reason::PROTOCOL_ERROR.into(),
            ));
        }
        Err(error) => {
            worker.stats().count_limit(error.limit());
            Response::refusal(worker, &head, None, None, &error)
        }
        Ok(()) => {
            match request::handle(worker, client, &head, Source::H2(Box::new(received))).await {
                Reply::Response(response) => response,
                // Over HTTP/2 no request is a WebSocket handshake.
                Reply::Tunnel(_) => return Err(RequestError::BadResponse("101 over HTTP/2").into()),
            }
        }
    };
    active.set_stall(response.write_stall.or(client.listener.limits.write_stall));
    if response.body.is_empty() {
        // hyper does not ask an empty body, so its end is noted here.
        poll_fn(|cx| response.body.poll(cx)).await?;
    } else {
        // A client without any window never has the body asked for anything.
        active.gave(worker.now());
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
