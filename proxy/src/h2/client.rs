//! HTTP/2 connections to endpoints, each shared by many requests.
//!
//! hyper drives the frames; this file decides who may use a connection. A [`Slot`] is one stream
//! that the endpoint's settings allow; it is counted from before the request is handed over until
//! its response has ended, so hyper never holds a request back.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use switchback_config::defaults::UPSTREAM_IDLE;

use crate::error::RequestError;
use crate::h2::LocalExecutor;
use crate::h2::body::UploadBody;
use crate::pool::Permit;
use crate::stream::Stream;
use crate::view::BackendView;

/// Window for response data of one stream; back-pressure begins when it is full.
const STREAM_WINDOW: u32 = 64 << 10;

/// Window of a whole connection.
const CONNECTION_WINDOW: u32 = 1 << 20;

/// A connection to an endpoint.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: SendRequest<UploadBody>,
    /// Streams in use.
    active: Cell<usize>,
    /// Streams the endpoint allows, by the last settings it sent.
    streams_allowed: Rc<Cell<usize>>,
    /// Streams we use at most, whatever the endpoint allows.
    streams_max: usize,
    /// When the last stream ended.
    idle_since: Cell<Instant>,
    backend: Rc<BackendView>,
}

impl Connection {
    /// Speaks HTTP/2 over a new stream and drives it until it ends.
    ///
    /// # Errors
    /// [`RequestError::Reset`] when the preface cannot be exchanged.
    pub(crate) async fn start(
        stream: Stream,
        permit: Permit,
        backend: &Rc<BackendView>,
        streams_max: u32,
        header_bytes: u32,
        now: Instant,
    ) -> Result<Rc<Self>, RequestError> {
        let mut builder = Builder::new(LocalExecutor);
        builder
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(header_bytes)
            // One until the endpoint's settings arrive: more might queue inside hyper.
            .initial_max_send_streams(1);
        let handshake = builder.handshake(TokioIo::new(stream)).await;
        let (sender, driver) = handshake.map_err(RequestError::StreamReset)?;
        let streams_allowed = Rc::new(Cell::new(1));
        tokio::task::spawn_local(drive(
            driver,
            permit,
            backend.clone(),
            streams_allowed.clone(),
        ));
        Ok(Rc::new(Self {
            sender,
            active: Cell::new(0),
            streams_allowed,
            streams_max: streams_max as usize,
            idle_since: Cell::new(now),
            backend: backend.clone(),
        }))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Streams that could be begun now.
    pub(crate) fn free_slots(&self) -> usize {
        let allowed = self.streams_max.min(self.streams_allowed.get());
        allowed.saturating_sub(self.active.get())
    }

    /// Whether nobody has used it for long.
    pub(crate) fn is_stale(&self, now: Instant) -> bool {
        self.active.get() == 0
            && now.saturating_duration_since(self.idle_since.get()) >= UPSTREAM_IDLE
    }
}

/// Runs a connection until it ends, and keeps an eye on the endpoint's settings.
async fn drive(
    driver: hyper::client::conn::http2::Connection<TokioIo<Stream>, UploadBody, LocalExecutor>,
    permit: Permit,
    backend: Rc<BackendView>,
    streams_allowed: Rc<Cell<usize>>,
) {
    let mut driver = pin!(driver);
    let outcome = poll_fn(|cx| {
        let polled = driver.as_mut().poll(cx);
        let allowed = driver.current_max_send_streams();
        if streams_allowed.replace(allowed) < allowed {
            backend.line.call_all();
        }
        polled
    })
    .await;
    if let Err(error) = outcome {
        tracing::debug!(%error, "HTTP/2 connection to an endpoint ended");
    }
    drop(permit);
}

/// One stream of a connection, reserved for one request.
#[derive(Debug)]
pub(crate) struct Slot {
    connection: Rc<Connection>,
}

impl Slot {
    pub(crate) fn take(connection: &Rc<Connection>) -> Self {
        connection.active.set(connection.active.get() + 1);
        Self {
            connection: connection.clone(),
        }
    }

    /// The handle that begins the request.
    pub(crate) fn sender(&self) -> SendRequest<UploadBody> {
        self.connection.sender.clone()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// Notes when the stream ended.
    pub(crate) fn end(&self, now: Instant) {
        self.connection.idle_since.set(now);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connection.active.set(self.connection.active.get() - 1);
        self.connection.backend.line.call_next();
    }
}
