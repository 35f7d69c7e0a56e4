//! The data plane as the rest of the process sees it: workers, listeners, the current snapshot.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering::Release};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::SockRef;
use switchback_timeslice as timeslice;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::access_log::AccessLog;
use crate::fence::Fence;
use crate::server::{Connections, Listener, bind};
use crate::snapshot::{Routing, Snapshot};
use crate::stats::WorkerStats;
use crate::trace::{Lost, SpanBuffer, Traces};
use crate::worker::{Order, Shared, Worker, run};

/// Orders a worker may have waiting; more means that it is stuck.
const ORDERS: usize = 256;

/// Running workers.
#[derive(Debug)]
pub struct DataPlane {
    shared: Arc<Shared>,
    orders: Vec<mpsc::Sender<Order>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    log: AccessLog,
    spans_lost: Lost,
}

/// Sockets bound to one address, one for each worker.
#[derive(Debug)]
pub struct Bound {
    /// The address, with the port that the kernel chose if none was asked for.
    pub address: SocketAddr,
    sockets: Vec<TcpListener>,
}

impl Bound {
    /// Sockets that somebody else has bound and listened on. There may be more or fewer than
    /// workers: then some workers accept on several, or several on one.
    ///
    /// # Errors
    /// When there is none, or one has no address.
    pub fn inherited(sockets: Vec<TcpListener>) -> io::Result<Self> {
        let none = || io::Error::new(io::ErrorKind::InvalidInput, "no socket was passed on");
        let address = sockets.first().ok_or_else(none)?.local_addr()?;
        for socket in &sockets {
            socket.set_nonblocking(true)?;
            // Accepted sockets inherit this.
            SockRef::from(socket).set_tcp_nodelay(true)?;
        }
        Ok(Self { address, sockets })
    }

    /// The sockets of each worker: each accepts on at least one, and none is left without a worker.
    fn shares(self, workers: usize) -> io::Result<Vec<Vec<TcpListener>>> {
        let mut shares: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
        let passed_on = self.sockets.len();
        for (worker, share) in shares.iter_mut().enumerate().skip(passed_on) {
            share.push(self.sockets[worker % passed_on].try_clone()?);
        }
        for (index, socket) in self.sockets.into_iter().enumerate() {
            shares[index % workers].push(socket);
        }
        Ok(shares)
    }
}

/// Work that had to be cut off at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were still open.
    pub cut: usize,
}

impl DataPlane {
    /// Starts `workers` threads that serve `snapshot`; they accept nothing before
    /// [`DataPlane::listen`]. `traces` is where spans go, if somebody collects them; `start` the zero of all
    /// durations that health and the judge see.
    ///
    /// # Errors
    /// When threads or their runtimes cannot be made.
    pub fn start(
        workers: usize,
        snapshot: Snapshot,
        log: AccessLog,
        traces: Option<Traces>,
        start: Instant,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            routing: Routing::new(snapshot),
            start,
            workers,
            connections: Connections::new(usize::MAX, workers),
            draining: AtomicBool::new(false),
            waits_for_idle: AtomicBool::new(false),
            stats: (0..workers).map(|_| WorkerStats::default()).collect(),
        });
        let mut orders = Vec::with_capacity(workers);
        let mut threads = Vec::with_capacity(workers);
        for index in 0..workers {
            let (sender, receiver) = mpsc::channel(ORDERS);
            orders.push(sender);
            threads.push(spawn(
                index,
                shared.clone(),
                log.clone(),
                traces.as_ref().map(Traces::buffer),
                receiver,
            )?);
        }
        Ok(Self {
            shared,
            orders,
            threads: Mutex::new(threads),
            log,
            // Its end of the queue goes: the queue ends with the workers.
            spans_lost: traces
                .map(|traces| traces.lost().clone())
                .unwrap_or_default(),
        })
    }

    /// Number of workers.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.shared.workers
    }

    /// Time since the start.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.shared.start.elapsed()
    }

    /// Makes `snapshot` the current one. From now on no request begins by an older one, except in
    /// steps that are under way; the fence opens when those have ended too.
    pub fn swap(&self, snapshot: Arc<Snapshot>) -> Arc<Fence> {
        let fence = Arc::new(Fence::new(self.shared.workers, Instant::now()));
        self.shared.routing.swap(snapshot);
        for (worker, orders) in self.orders.iter().enumerate() {
            match orders.try_send(Order::Pass(fence.clone())) {
                // It has ended, so nothing begins there any more.
                Err(TrySendError::Closed(_)) => fence.pass(worker),
                // A full queue means a stuck worker: the fence then reports it as late.
                Ok(()) | Err(TrySendError::Full(_)) => {}
            }
        }
        fence
    }

    /// The current snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.routing.current()
    }

    /// Binds an address: one socket for each worker, not yet accepting.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub fn bind(&self, address: SocketAddr) -> io::Result<Bound> {
        let sockets = bind(address, self.shared.workers)?;
        let address = sockets
            .first()
            .map_or(Ok(address), TcpListener::local_addr)?;
        Ok(Bound { address, sockets })
    }

    /// Accepts connections on a bound address; replaces a listener of the same name, whose
    /// connections go on.
    pub fn listen(&self, bound: Bound, listener: &Arc<Listener>) {
        let shares = match bound.shares(self.orders.len()) {
            Ok(shares) => shares,
            Err(error) => {
                tracing::error!(%error, listener = %listener.name, "share listening sockets");
                return;
            }
        };
        for (orders, sockets) in self.orders.iter().zip(shares) {
            Self::order(orders, Order::Listen(listener.clone(), sockets));
        }
    }

    /// All listening sockets once more, by the name of their listener, for a process that goes on
    /// accepting on them. Blocks the calling thread for at most `patience` for each worker.
    ///
    /// # Errors
    /// When a worker does not answer or there is no descriptor left.
    pub fn share_sockets(&self, patience: Duration) -> io::Result<Vec<(Arc<str>, OwnedFd)>> {
        let mut sockets = Vec::new();
        for orders in &self.orders {
            let (reply, answer) = sync_channel(1);
            Self::order(orders, Order::Share(reply));
            let answer = answer.recv_timeout(patience);
            sockets.extend(answer.map_err(|_| io::Error::other("a worker does not answer"))??);
        }
        Ok(sockets)
    }

    /// Changes what the next connections of a listener see; its sockets stay as they are, so that
    /// nobody who is just connecting is turned away.
    pub fn update_listener(&self, listener: &Arc<Listener>) {
        for orders in &self.orders {
            Self::order(orders, Order::Update(listener.clone()));
        }
    }

    fn order(orders: &mpsc::Sender<Order>, order: Order) {
        if orders.try_send(order).is_err() {
            tracing::error!("a worker does not take orders");
        }
    }

    /// Stops accepting on a listener.
    pub fn unlisten(&self, name: &Arc<str>) {
        for orders in &self.orders {
            let _ = orders.try_send(Order::Unlisten(name.clone()));
        }
    }

    /// Limits client connections of the whole process.
    pub fn set_connections_max(&self, max: usize) {
        self.shared.connections.set_max(max);
    }

    /// Client connections open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.open()
    }

    /// What each worker counted of itself.
    #[must_use]
    pub fn worker_stats(&self) -> &[WorkerStats] {
        &self.shared.stats
    }

    /// Spans that reached nobody.
    #[must_use]
    pub fn spans_lost(&self) -> u64 {
        self.spans_lost.get()
    }

    /// Reopens the access log.
    pub fn reopen_log(&self) {
        self.log.reopen();
    }

    /// Stops accepting, since another process goes on with the same sockets. Connections are closed
    /// with the response to their next request: closing an idle one could cross with a request that
    /// is already on its way. [`DataPlane::drain`] ends that.
    pub fn retire(&self) {
        self.shared.waits_for_idle.store(true, Release);
        self.shared.draining.store(true, Release);
        for orders in &self.orders {
            let _ = orders.try_send(Order::Drain);
        }
    }

    /// Waits until every worker has ended, at most `patience`. Blocks the calling thread; `hurry`
    /// cuts the wait short when it becomes true.
    #[must_use]
    pub fn has_drained(&self, patience: Duration, hurry: &AtomicBool) -> bool {
        self.wait(Some(patience), hurry)
    }

    /// Stops accepting, lets requests in flight finish for at most `patience`, and ends the workers.
    /// Blocks the calling thread; `hurry` cuts the wait short when it becomes true.
    #[must_use]
    pub fn drain(&self, patience: Option<Duration>, hurry: &AtomicBool) -> Drained {
        self.shared.waits_for_idle.store(false, Release);
        self.shared.draining.store(true, Release);
        for orders in &self.orders {
            let _ = orders.try_send(Order::Drain);
        }
        let cut = if self.wait(patience, hurry) {
            0
        } else {
            self.connections()
        };
        Drained { cut }
    }

    /// Whether all workers have ended in time.
    fn wait(&self, patience: Option<Duration>, hurry: &AtomicBool) -> bool {
        let started = Instant::now();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            threads.retain(|thread| !thread.is_finished());
            let out_of_time = patience.is_some_and(|patience| started.elapsed() >= patience);
            let hurried = hurry.load(std::sync::atomic::Ordering::Acquire);
            if threads.is_empty() || out_of_time || hurried {
                return threads.is_empty();
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

fn spawn(
    index: usize,
    shared: Arc<Shared>,
    log: AccessLog,
    spans: Option<SpanBuffer>,
    orders: mpsc::Receiver<Order>,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            // Long slices: fewer changes between threads. Where they cannot be had, they were not short.
            let _ = timeslice::ask(Duration::ZERO);
            let runtime = Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => runtime.block_on(async {
                    let worker = Worker::new(index, shared, log.buffer(), spans);
                    run(worker, orders).await;
                }),
                Err(error) => tracing::error!(%error, index, "make the runtime of a worker"),
            }
        })
}
