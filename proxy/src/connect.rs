//! Getting a connection for a request: from the pool, new, or after waiting in line.
//!
//! Whatever a request waits for here, it also watches two things: that its client is still there,
//! and that its backend has not been taken away. When a backend is closed, everyone who waits for it
//! is woken at once and picks again.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use switchback_config::units::Scheme;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::balance::Claim;
use crate::error::RequestError;
use crate::h1::transport::Transport;
use crate::h2;
use crate::health::is_own_want;
use crate::limit::Limit;
use crate::pool::{Connection, H1, Permit, make_room};
use crate::snapshot::UpstreamLimits;
use crate::source::Source;
use crate::stream::Stream;
use crate::timer::Timer;
use crate::wait::Entry;
use crate::worker::Worker;

/// What a request that waits for a connection watches.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    worker: &'a Worker,
    claim: &'a Claim,
    client: &'a Source,
    entry: Entry,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(claim: &'a Claim, client: &'a Source) -> Self {
        Self {
            worker: claim.worker(),
            claim,
            client,
            entry: Entry::default(),
        }
    }

    /// Ready when there is no point in waiting any more.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<RequestError> {
        if !self.claim.may_begin() {
            return Poll::Ready(RequestError::Closed);
        }
        self.worker.changes.enter(&mut self.entry, cx);
        self.client.poll_gone(cx)
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.worker.changes.leave(&mut self.entry);
    }
}

/// A connection to the claimed endpoint. `fresh`: not one that was used before.
///
/// # Errors
/// When no connection can be made or became free in time, when the client is gone, or when the
/// backend was closed ([`RequestError::Closed`]: pick again).
///
/// # Cancel safety
/// Dropping it gives up the place in line and the connection being made.
pub(crate) async fn acquire(
    claim: &Claim,
    client: &Source,
    limits: &UpstreamLimits,
    fresh: bool,
    timer: &Timer,
) -> Result<Connection, RequestError> {
    let pool = &claim.endpoint.pool;
    if !fresh && let Some(connection) = take(claim).await {
        return Ok(connection);
    }
    let backend = claim.view();
    let mut watch = Watch::new(claim, client);
    let mut waiting = false;
    loop {
        let shares = pool.shares(claim.endpoint.endpoint.scheme);
        if !(shares && pool.connecting.get() > 0)
            && let Some(permit) = permit(claim, limits)
        {
            // Rare and large: kept out of the future of every request.
            return Box::pin(connect(claim, permit, limits, timer, &mut watch)).await;
        }
        if backend.line.len() >= limits.queue {
            return Err(RequestError::QueueFull);
        }
        if !waiting && pool.connecting.get() == 0 {
            claim
                .worker()
                .stats()
                .limits
                .hit(Limit::UpstreamConnections);
        }
        if !std::mem::replace(&mut waiting, true) {
            timer.set(limits.queue_timeout);
        }
        let place = backend.line.join();
        poll_fn(|cx| {
            if place.is_called(cx) {
                return Poll::Ready(Ok(()));
            }
            if timer.poll_expired(cx).is_ready() {
                return Poll::Ready(Err(RequestError::QueueTimeout));
            }
            watch.poll(cx).map(Err)
        })
        .await?;
        if !claim.may_begin() {
            return Err(RequestError::Closed);
        }
        place.take_turn();
        if let Some(connection) = take(claim).await {
            return Ok(connection);
        }
    }
}

async fn take(claim: &Claim) -> Option<Connection> {
    poll_fn(|cx| Poll::Ready(claim.endpoint.pool.take(cx, claim.worker().now()))).await
}

/// The right to open one more connection, if need be by closing an idle one to a sibling.
fn permit(claim: &Claim, limits: &UpstreamLimits) -> Option<Permit> {
    let workers = claim.worker().shared.workers as u64;
    let take = || Permit::take(claim.view(), limits.connections, workers);
    take().or_else(|| {
        if make_room(claim.view(), &claim.endpoint) {
            take()
        } else {
            None
        }
    })
}

async fn connect(
    claim: &Claim,
    permit: Permit,
    limits: &UpstreamLimits,
    timer: &Timer,
    watch: &mut Watch<'_>,
) -> Result<Connection, RequestError> {
    let address = claim.endpoint.endpoint.address;
    let health = &claim.endpoint.endpoint.health;
    let _connecting = Connecting::new(claim);
    timer.set(limits.connect_timeout);
    let mut established = pin!(establish(claim, permit, limits));
    let outcome = poll_fn(|cx| {
        if let Poll::Ready(outcome) = established.as_mut().poll(cx) {
            return Poll::Ready(outcome);
        }
        if timer.poll_expired(cx).is_ready() {
            return Poll::Ready(Err(RequestError::ConnectTimeout(address)));
        }
        watch.poll(cx).map(Err)
    })
    .await;
    match &outcome {
        Ok(_) => health.connect_succeeded(),
        Err(RequestError::ClientGone(_) | RequestError::Closed | RequestError::OutOfSockets(_)) => {
        }
        Err(_) => health.connect_failed(claim.worker().uptime()),
    }
    outcome
}

/// Counts a connection being made, so that others who could share it wait for it.
struct Connecting<'a>(&'a Claim);

impl<'a> Connecting<'a> {
    fn new(claim: &'a Claim) -> Self {
        let connecting = &claim.endpoint.pool.connecting;
        connecting.set(connecting.get() + 1);
        Self(claim)
    }
}

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        let pool = &self.0.endpoint.pool;
        pool.connecting.set(pool.connecting.get() - 1);
        if pool.shares(self.0.endpoint.endpoint.scheme) {
            self.0.view().line.call_all();
        }
    }
}

async fn establish(
    claim: &Claim,
    permit: Permit,
    limits: &UpstreamLimits,
) -> Result<Connection, RequestError> {
    let endpoint = &claim.endpoint.endpoint;
    let address = endpoint.address;
    let refused = |cause| match is_own_want(&cause) {
        true => RequestError::OutOfSockets(cause),
        false => RequestError::Connect { address, cause },
    };
    let socket = TcpStream::connect(address).await.map_err(refused)?;
    socket.set_nodelay(true).map_err(refused)?;
    let stream = match &endpoint.tls {
        None => Stream::Plain(socket),
        Some(tls) => {
            let connector = TlsConnector::from(tls.config.clone());
            let stream = connector
                .connect(tls.server_name.clone(), socket)
                .await
                .map_err(refused)?;
            let chose_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            claim.endpoint.pool.chose_h2.set(chose_h2);
            Stream::Tls(Box::new(stream.into()))
        }
    };
    if claim.endpoint.pool.shares(endpoint.scheme) {
        return share(claim, stream, permit, limits).await;
    }
    debug_assert_ne!(endpoint.scheme, Scheme::H2c, "h2c endpoints always share");
    Ok(Connection::H1(H1::new(
        Transport::new(stream, &claim.worker().buffers),
        permit,
    )))
}

async fn share(
    claim: &Claim,
    stream: Stream,
    permit: Permit,
    limits: &UpstreamLimits,
) -> Result<Connection, RequestError> {
    let header_bytes = limits
        .response_header_bytes
        .and_then(|size| u32::try_from(size.0).ok())
        .unwrap_or(1 << 20);
    let now = claim.worker().now();
    let connection = h2::client::Connection::start(
        stream,
        permit,
        claim.view(),
        limits.h2_streams,
        header_bytes,
        now,
    );
    let connection = connection.await?;
    claim.endpoint.pool.share(&connection);
    Ok(Connection::H2(h2::client::Slot::take(&connection)))
}

/// An idle HTTP/1 connection goes back to its pool.
pub(crate) fn put_back(claim: &Claim, connection: H1, limits: &UpstreamLimits) {
    let worker: &Rc<Worker> = claim.worker();
    claim.endpoint.pool.put_back(
        connection,
        worker.now(),
        limits.connections,
        worker.shared.workers as u64,
    );
}
