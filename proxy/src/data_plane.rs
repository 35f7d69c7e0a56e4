//! The data plane as the rest of the process sees it: workers, listeners, the current snapshot.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Release};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;

use crate::access_log::AccessLog;
use crate::fence::Fence;
use crate::server::{Connections, Listener, bind};
use crate::snapshot::{Routing, Snapshot};
use crate::stats::WorkerStats;
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
}

/// Sockets bound to one address, one for each worker.
#[derive(Debug)]
pub struct Bound {
    /// The address, with the port that the kernel chose if none was asked for.
    pub address: SocketAddr,
    sockets: Vec<std::net::TcpListener>,
}

/// Work that had to be cut off at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were still open.
    pub cut: usize,
}

impl DataPlane {
    /// Starts `workers` threads that serve `snapshot`; they accept nothing before
    /// [`DataPlane::listen`]. `start` is the zero of all durations that health and the judge see.
    ///
    /// # Errors
    /// When threads or their runtimes cannot be made.
    pub fn start(
        workers: usize,
        snapshot: Snapshot,
        log: AccessLog,
        start: Instant,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            routing: Routing::new(snapshot),
            start,
            workers,
            connections: Connections::new(usize::MAX, workers),
            draining: AtomicBool::new(false),
            stats: (0..workers).map(|_| WorkerStats::default()).collect(),
        });
        let mut orders = Vec::with_capacity(workers);
        let mut threads = Vec::with_capacity(workers);
        for index in 0..workers {
            let (sender, receiver) = mpsc::channel(ORDERS);
            orders.push(sender);
            threads.push(spawn(index, shared.clone(), log.clone(), receiver)?);
        }
        Ok(Self {
            shared,
            orders,
            threads: Mutex::new(threads),
            log,
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
        for orders in &self.orders {
            // A full queue means a stuck worker: the fence then reports it as late.
            let _ = orders.try_send(Order::Pass(fence.clone()));
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
            .map_or(Ok(address), std::net::TcpListener::local_addr)?;
        Ok(Bound { address, sockets })
    }

    /// Accepts connections on a bound address; replaces a listener of the same name, whose
    /// connections go on.
    pub fn listen(&self, bound: Bound, listener: &Arc<Listener>) {
        for (orders, socket) in self.orders.iter().zip(bound.sockets) {
            Self::order(orders, Order::Listen(listener.clone(), socket));
        }
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

    /// Reopens the access log.
    pub fn reopen_log(&self) {
        self.log.reopen();
    }

    /// Stops accepting, lets requests in flight finish for at most `patience`, and ends the workers.
    /// Blocks the calling thread; `hurry` cuts the wait short when it becomes true.
    #[must_use]
    pub fn drain(&self, patience: Option<Duration>, hurry: &AtomicBool) -> Drained {
        self.shared.draining.store(true, Release);
        for orders in &self.orders {
            let _ = orders.try_send(Order::Drain);
        }
        let started = Instant::now();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            threads.retain(|thread| !thread.is_finished());
            let out_of_time = patience.is_some_and(|patience| started.elapsed() >= patience);
            let hurried = hurry.load(std::sync::atomic::Ordering::Acquire);
            if threads.is_empty() || out_of_time || hurried {
                return Drained {
                    cut: if threads.is_empty() {
                        0
                    } else {
                        self.connections()
                    },
                };
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

fn spawn(
    index: usize,
    shared: Arc<Shared>,
    log: AccessLog,
    orders: mpsc::Receiver<Order>,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            let runtime = Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => runtime.block_on(async {
                    let worker = Worker::new(index, shared, log.buffer());
                    run(worker, orders).await;
                }),
                Err(error) => tracing::error!(%error, index, "make the runtime of a worker"),
            }
        })
}
