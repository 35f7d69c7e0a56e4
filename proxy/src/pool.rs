//! Connections to endpoints, owned by one worker.
//!
//! Idle HTTP/1 connections form a stack: the one used last is used next, so the busy few stay warm
//! and the others age out. (First-in-first-out keeps them all just alive enough to never close, and
//! measured far worse.) HTTP/2 connections are shared by as many requests as the endpoint allows,
//! counted here: a request waits in our line and never inside a library, where the fence could not
//! reach it.
//!
//! The number of connections to one backend is limited for the whole process by one atomic that is
//! touched when a connection opens or closes. Each worker is always allowed its guaranteed part; one
//! that finds nothing left raises a flag, and the others then close instead of keeping what exceeds
//! theirs.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Context;
use std::time::{Duration, Instant};

use switchback_config::defaults::UPSTREAM_IDLE;
use switchback_config::units::Scheme;

use crate::h1::transport::Transport;
use crate::h2;
use crate::view::{BackendView, EndpointView};

/// The idle and shared connections to one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Vec<Rc<h2::client::Connection>>>,
    /// Connections being made.
    pub(crate) connecting: Cell<u32>,
    /// Whether an `https` endpoint chose HTTP/2 when it was last connected to.
    pub(crate) chose_h2: Cell<bool>,
}

#[derive(Debug)]
struct Idle {
    connection: H1,
    since: Instant,
}

/// A connection for one request.
#[derive(Debug)]
pub(crate) enum Connection {
    H1(H1),
    H2(h2::client::Slot),
}

/// An HTTP/1 connection that is in use.
#[derive(Debug)]
pub(crate) struct H1 {
    pub(crate) transport: Rc<Transport>,
    /// How long it was idle; `None`: it is new.
    pub(crate) idle_for: Option<Duration>,
    permit: Permit,
}

impl H1 {
    pub(crate) const fn new(transport: Rc<Transport>, permit: Permit) -> Self {
        Self {
            transport,
            idle_for: None,
            permit,
        }
    }
}

/// The right to one open connection to a backend; dropping it tells whoever waits for one.
#[derive(Debug)]
pub(crate) struct Permit(Rc<BackendView>);

impl Permit {
    /// A permit, if the process-wide limit or this worker's guaranteed part allows one more.
    pub(crate) fn take(backend: &Rc<BackendView>, limit: u64, workers: u64) -> Option<Self> {
        let open = &backend.backend.stats.connections;
        let before = open.fetch_add(1, Relaxed);
        if before >= limit && backend.open.get() >= guaranteed(limit, workers) {
            open.fetch_sub(1, Relaxed);
            backend.backend.stats.pressure.store(true, Relaxed);
            return None;
        }
        backend.open.set(backend.open.get() + 1);
        Some(Self(backend.clone()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.backend.stats.connections.fetch_sub(1, Relaxed);
        self.0.line.call_next();
    }
}

/// What a worker may open although the others have used up the limit.
fn guaranteed(limit: u64, workers: u64) -> u64 {
    (limit / workers.max(1) / 2).max(1)
}

impl Pool {
    /// An idle or shared connection, if there is a usable one.
    pub(crate) fn take(&self, cx: &mut Context<'_>, now: Instant) -> Option<Connection> {
        while let Some(Idle {
            mut connection,
            since,
        }) = self.pop_idle()
        {
            let idle_for = now.saturating_duration_since(since);
            if idle_for < UPSTREAM_IDLE && connection.transport.is_idle(cx) {
                connection.idle_for = Some(idle_for);
                return Some(Connection::H1(connection));
            }
        }
        self.take_shared()
    }

    fn pop_idle(&self) -> Option<Idle> {
        self.idle.borrow_mut().pop()
    }

    /// A slot on a shared connection, preferring the fullest so that others can drain and close.
    pub(crate) fn take_shared(&self) -> Option<Connection> {
        let mut shared = self.shared.borrow_mut();
        if shared.is_empty() {
            return None;
        }
        shared.retain(|connection| !connection.is_closed());
        let free = shared
            .iter()
            .filter(|connection| connection.free_slots() > 0);
        let fullest = free.min_by_key(|connection| connection.free_slots())?;
        Some(Connection::H2(h2::client::Slot::take(fullest)))
    }

    /// Keeps a connection whose response has ended for the next request, or closes it when others
    /// need it more.
    pub(crate) fn put_back(&self, connection: H1, now: Instant, limit: u64, workers: u64) {
        let backend = connection.permit.0.clone();
        let stats = &backend.backend.stats;
        if stats.pressure.load(Relaxed)
            && backend.open.get() > guaranteed(limit, workers)
            && backend.line.len() == 0
        {
            stats.pressure.store(false, Relaxed);
            return;
        }
        self.idle.borrow_mut().push(Idle {
            connection,
            since: now,
        });
        backend.line.call_next();
    }

    /// Adds a new HTTP/2 connection.
    pub(crate) fn share(&self, connection: &Rc<h2::client::Connection>) {
        self.shared.borrow_mut().push(connection.clone());
    }

    /// Closes one idle connection, to make room for one to another endpoint.
    pub(crate) fn give_up_one(&self) -> bool {
        let oldest = {
            let mut idle = self.idle.borrow_mut();
            (!idle.is_empty()).then(|| idle.remove(0))
        };
        oldest.is_some()
    }

    /// Closes connections that have been idle for too long or that the endpoint has closed.
    pub(crate) fn sweep(&self, cx: &mut Context<'_>, now: Instant) {
        let all = std::mem::take(&mut *self.idle.borrow_mut());
        let keep = |idle: &Idle| {
            now.saturating_duration_since(idle.since) < UPSTREAM_IDLE
                && idle.connection.transport.is_idle(cx)
        };
        let (kept, gone): (Vec<Idle>, Vec<Idle>) = all.into_iter().partition(keep);
        self.idle.borrow_mut().splice(0..0, kept);
        drop(gone);
        self.shared
            .borrow_mut()
            .retain(|connection| !connection.is_closed() && !connection.is_stale(now));
    }

    /// Whether requests to this endpoint share connections, as far as is known.
    pub(crate) fn shares(&self, scheme: Scheme) -> bool {
        scheme == Scheme::H2c || self.chose_h2.get()
    }
}

/// Makes room for a connection to `endpoint` by closing an idle one to a sibling.
pub(crate) fn make_room(backend: &BackendView, endpoint: &Rc<EndpointView>) -> bool {
    let mut siblings = backend
        .endpoints
        .iter()
        .filter(|other| !Rc::ptr_eq(other, endpoint));
    siblings.any(|other| other.pool.give_up_one())
}
