//! Listening, accepting, and the limits on client connections.
//!
//! Every worker has its own socket for each listener (SO_REUSEPORT), so the kernel spreads
//! connections and workers never meet. Limits are process-wide and touched only when a connection
//! opens or closes; each worker is always allowed its guaranteed part. At the limit, or out of file
//! descriptors, accepting pauses: clients wait, one in our hand and the others in the kernel's queue, instead
//! of being turned away, and nothing spins. Whoever has to pause raises a flag, and an idle connection of a
//! worker that holds more than its part is closed for it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use ipnet::IpNet;
use socket2::{Domain, Protocol, Socket, Type};
use switchback_config::model::{Limits, Underscores};
use switchback_config::units::{ByteSize, TimeSpan};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::connection;
use crate::h1::facts::HeadLimits;
use crate::h2::watch::FloodLimits;
use crate::limit::Limit;
use crate::tls::ServerTls;
use crate::worker::Worker;

/// How long accepting pauses when there is no room or no file descriptor.
const PAUSE: Duration = Duration::from_millis(20);

/// Connections the kernel may hold for us until we accept them.
const BACKLOG: i32 = 4096;

/// A listener as its connections see it.
#[derive(Debug)]
pub struct Listener {
    /// Its name.
    pub name: Arc<str>,
    /// TLS; plain text without it.
    pub tls: Option<ServerTls>,
    /// Whether connections begin with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Limits of its connections.
    pub limits: ConnectionLimits,
    /// Peers that are exempt from the limit for each client.
    pub trusted_proxies: Vec<IpNet>,
    /// What happens to request headers with an underscore in their name.
    pub underscores: Underscores,
}

/// How workers get hold of a listener.
pub(crate) type ListenerHandle = Arc<Listener>;

/// The limits of client connections, before routing. `None`: no limit.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    pub(crate) header_read: Option<Duration>,
    pub(crate) tls_handshake: Option<Duration>,
    pub(crate) keep_alive: Option<Duration>,
    pub(crate) write_stall: Option<Duration>,
    pub(crate) head: HeadLimits,
    pub(crate) requests_per_connection: Option<u32>,
    pub(crate) connections_per_client: Option<u32>,
    pub(crate) h2: H2Limits,
}

/// The limits of HTTP/2 connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct H2Limits {
    pub(crate) streams: Option<u32>,
    pub(crate) streams_per_connection: Option<u32>,
    pub(crate) floods: FloodLimits,
    pub(crate) stream_window: u32,
    pub(crate) connection_window: u32,
    pub(crate) frame_bytes: u32,
    pub(crate) header_table_bytes: u32,
}

impl H2Limits {
    fn resolve(limits: &Limits) -> Self {
        let count = |limit: Option<std::num::NonZeroU32>| limit.map(std::num::NonZeroU32::get);
        // None of them can be `off`.
        let bytes = |limit: Option<ByteSize>| {
            limit
                .and_then(|size| u32::try_from(size.0).ok())
                .unwrap_or(64 << 10)
        };
        Self {
            streams: count(limits.h2_streams),
            streams_per_connection: count(limits.h2_streams_per_connection),
            floods: FloodLimits {
                resets: count(limits.h2_resets),
                continuations: count(limits.h2_continuations),
                empty_data: count(limits.h2_empty_data),
                control_frames: count(limits.h2_control_frames),
                streams_a_turn: count(limits.h2_streams),
                table_bytes: bytes(limits.h2_header_table_bytes),
            },
            stream_window: bytes(limits.h2_stream_window),
            connection_window: bytes(limits.h2_connection_window),
            frame_bytes: bytes(limits.h2_frame_bytes),
            header_table_bytes: bytes(limits.h2_header_table_bytes),
        }
    }
}

impl ConnectionLimits {
    /// The limits of a listener's connections.
    #[must_use]
    pub fn resolve(limits: &Limits) -> Self {
        let time = |limit: Option<TimeSpan>| limit.map(|span| span.0);
        let count = |limit: Option<std::num::NonZeroU32>| limit.map(std::num::NonZeroU32::get);
        Self {
            header_read: time(limits.header_read_timeout),
            tls_handshake: time(limits.tls_handshake_timeout),
            keep_alive: time(limits.keep_alive_timeout),
            write_stall: time(limits.write_stall_timeout),
            head: HeadLimits::of_requests(limits),
            requests_per_connection: count(limits.requests_per_connection),
            connections_per_client: count(limits.connections_per_client),
            h2: H2Limits::resolve(limits),
        }
    }
}

/// Opens one listening socket for each worker on one address. With port 0 the kernel chooses a
/// port, the same for all.
///
/// # Errors
/// When the address cannot be bound.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<std::net::TcpListener>> {
    let mut bound: Vec<std::net::TcpListener> = Vec::with_capacity(workers);
    for _ in 0..workers {
        let address = match bound.first() {
            Some(first) => first.local_addr()?,
            None => address,
        };
        bound.push(bind_one(address)?);
    }
    Ok(bound)
}

fn bind_one(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Accepted sockets inherit this.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Client connections of the whole process.
#[derive(Debug)]
pub(crate) struct Connections {
    open: AtomicUsize,
    open_max: AtomicUsize,
    workers: usize,
    /// Somebody waits who could be let in if an idle connection were closed.
    pressure: AtomicBool,
    by_client: Vec<Mutex<HashMap<IpAddr, u32, RandomState>>>,
}

/// Separate tables, so that workers that open connections at the same time rarely meet.
const TABLES: usize = 32;

impl Connections {
    pub(crate) fn new(open_max: usize, workers: usize) -> Self {
        let by_client = (0..TABLES).map(|_| Mutex::default()).collect();
        Self {
            open: AtomicUsize::new(0),
            open_max: AtomicUsize::new(open_max),
            workers,
            pressure: AtomicBool::new(false),
            by_client,
        }
    }

    pub(crate) fn set_max(&self, open_max: usize) {
        self.open_max.store(open_max, Relaxed);
    }

    pub(crate) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Whether a worker with so many connections may accept one more.
    fn has_room(&self, open_here: usize) -> bool {
        let has_room =
            self.open.load(Relaxed) < self.open_max.load(Relaxed) || open_here < self.guaranteed();
        if !has_room {
            self.pressure.store(true, Relaxed);
        }
        has_room
    }

    /// What a worker may hold although the others have used up the limit.
    fn guaranteed(&self) -> usize {
        (self.open_max.load(Relaxed) / self.workers.max(1) / 2).max(1)
    }

    /// Whether somebody waits for a place and a worker with so many connections should give one up.
    /// `agreed`: it does so now.
    pub(crate) fn takes_from(&self, open_here: usize, agreed: bool) -> bool {
        if !self.pressure.load(Relaxed) || open_here <= self.guaranteed() {
            return false;
        }
        !agreed || self.pressure.swap(false, Relaxed)
    }

    /// Counts a connection of a client; `None` when it has too many.
    pub(crate) fn admit_client<'a>(
        &'a self,
        client: IpAddr,
        listener: &Listener,
    ) -> Option<ClientPlace<'a>> {
        let unlimited = || ClientPlace {
            connections: self,
            client: None,
        };
        let Some(max) = listener.limits.connections_per_client else {
            return Some(unlimited());
        };
        if crate::headers::contains(&listener.trusted_proxies, client) {
            return Some(unlimited());
        }
        let mut table = self
            .table(client)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = table.entry(client).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(ClientPlace {
            connections: self,
            client: Some(client),
        })
    }

    fn table(&self, client: IpAddr) -> &Mutex<HashMap<IpAddr, u32, RandomState>> {
        let last = match client {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(address) => address.octets()[7] ^ address.octets()[15],
        };
        &self.by_client[usize::from(last) % TABLES]
    }
}

/// A counted connection of one client.
#[derive(Debug)]
pub(crate) struct ClientPlace<'a> {
    connections: &'a Connections,
    client: Option<IpAddr>,
}

impl Drop for ClientPlace<'_> {
    fn drop(&mut self) {
        let Some(client) = self.client else { return };
        let mut table = self
            .connections
            .table(client)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = table.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                table.remove(&client);
            }
        }
    }
}

/// The listeners one worker accepts on.
#[derive(Debug, Default)]
pub(crate) struct Listening {
    open: Vec<Open>,
}

/// One listening socket and what its next connections will see.
#[derive(Debug)]
struct Open {
    listener: Rc<RefCell<ListenerHandle>>,
    socket: Rc<TcpListener>,
    stop: Rc<Notify>,
    task: JoinHandle<()>,
}

impl Open {
    fn is(&self, name: &str) -> bool {
        *self.listener.borrow().name == *name
    }
}

impl Listening {
    /// Accepts on the sockets of a listener.
    pub(crate) fn start(
        &mut self,
        worker: &Rc<Worker>,
        handle: &ListenerHandle,
        sockets: Vec<std::net::TcpListener>,
    ) {
        self.stop(&handle.name);
        for socket in sockets {
            let socket = match TcpListener::from_std(socket) {
                Ok(socket) => Rc::new(socket),
                Err(error) => {
                    tracing::error!(%error, listener = %handle.name, "take over a listening socket");
                    continue;
                }
            };
            let listener = Rc::new(RefCell::new(handle.clone()));
            let stop = Rc::new(Notify::new());
            let accepting = accept(
                worker.clone(),
                listener.clone(),
                socket.clone(),
                stop.clone(),
            );
            let task = tokio::task::spawn_local(accepting);
            self.open.push(Open {
                listener,
                socket,
                stop,
                task,
            });
        }
    }

    /// The sockets once more, for somebody who goes on accepting on them.
    pub(crate) fn share(&self) -> io::Result<Vec<(Arc<str>, OwnedFd)>> {
        let shared = self.open.iter().map(|open| {
            let socket = open.socket.as_fd().try_clone_to_owned()?;
            Ok((open.listener.borrow().name.clone(), socket))
        });
        shared.collect()
    }

    /// Changes what the next connections of a listener see; its socket stays.
    pub(crate) fn update(&self, handle: &ListenerHandle) {
        for open in self.open.iter().filter(|open| open.is(&handle.name)) {
            *open.listener.borrow_mut() = handle.clone();
        }
    }

    /// Stops accepting on a listener.
    pub(crate) fn stop(&mut self, name: &str) {
        self.open.retain(|open| {
            let stops = open.is(name);
            if stops {
                open.stop.notify_one();
            }
            !stops
        });
    }

    /// Stops accepting everywhere, and waits until it has stopped.
    pub(crate) async fn stop_all(&mut self) {
        for Open { stop, task, .. } in self.open.drain(..) {
            stop.notify_one();
            let _ = task.await;
        }
    }
}

async fn accept(
    worker: Rc<Worker>,
    listener: Rc<RefCell<ListenerHandle>>,
    socket: Rc<TcpListener>,
    stop: Rc<Notify>,
) {
    let mut stopping = false;
    loop {
        // Once told to stop, only those are accepted whom the kernel has already let in.
        let accepted = tokio::select! {
            biased;
            accepted = socket.accept() => accepted,
            () = std::future::ready(()), if stopping => return,
            () = stop.notified(), if !stopping => {
                stopping = true;
                continue;
            }
        };
        match accepted {
            Ok((stream, peer)) => {
                stopping = stopping || wait_for_room(&worker, &stop).await;
                let handle = listener.borrow().clone();
                start(&worker, &handle, stream, peer);
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(_) if stopping => return,
            Err(error) => {
                let name = listener.borrow().name.clone();
                tracing::warn!(%error, listener = %name, "accept; pausing");
                stopping = tokio::time::timeout(PAUSE, stop.notified()).await.is_ok();
            }
        }
    }
}

/// Holds an accepted client back until there is room for it; true when told to stop meanwhile. Only a
/// client that is there raises the flag: an empty queue is no reason to close anything.
async fn wait_for_room(worker: &Worker, stop: &Notify) -> bool {
    let has_room = || {
        let open_here = worker.open_connections.get();
        worker.shared.connections.has_room(open_here)
    };
    if has_room() {
        return false;
    }
    worker.stats().limits.hit(Limit::Connections);
    loop {
        tokio::select! {
            () = stop.notified() => return true,
            () = tokio::time::sleep(PAUSE) => {}
        }
        if has_room() {
            return false;
        }
    }
}

/// Whether an accept error belongs to the connection that would have been accepted.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

fn start(worker: &Rc<Worker>, listener: &ListenerHandle, stream: TcpStream, peer: SocketAddr) {
    let place = Place::take(worker);
    let (worker, listener) = (worker.clone(), listener.clone());
    tokio::task::spawn_local(async move {
        connection::serve(&worker, stream, peer, listener).await;
        drop(place);
    });
}

/// A counted connection of the process.
struct Place(Rc<Worker>);

impl Place {
    fn take(worker: &Rc<Worker>) -> Self {
        worker.shared.connections.open.fetch_add(1, Relaxed);
        worker.stats().accepted.add(1);
        worker
            .open_connections
            .set(worker.open_connections.get() + 1);
        Self(worker.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.shared.connections.open.fetch_sub(1, Relaxed);
        self.0.stats().closed.add(1);
        self.0
            .open_connections
            .set(self.0.open_connections.get() - 1);
        if self.0.open_connections.get() == 0 {
            self.0.all_closed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_may_accept_its_part_when_others_have_taken_everything() {
        let connections = Connections::new(8, 2);
        connections.open.store(7, Relaxed);
        assert!(connections.has_room(7));
        connections.open.store(8, Relaxed);
        assert!(connections.has_room(1) && !connections.pressure.load(Relaxed));
        assert!(!connections.has_room(2));
        assert!(
            !connections.takes_from(2, true),
            "nobody gives of its own part"
        );
        assert!(connections.takes_from(6, false), "asking changes nothing");
        assert!(connections.takes_from(6, true));
        assert!(!connections.takes_from(6, true), "one is enough");
    }
}
