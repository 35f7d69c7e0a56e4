//! One data-plane thread: its loop, its clock, and everything its connections share.
//!
//! Each worker runs a single-threaded runtime with its own listening sockets, connections, pools and
//! counters. Nothing it holds ever leaves the thread, so sharing inside it is an `Rc` and a `Cell`.
//! What connects it to the rest of the process is the snapshot, the fence, single-writer counters
//! and a bounded queue of [`Order`]s.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Acquire};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};

use crate::access_log::LogBuffer;
use crate::buffer::BufferPool;
use crate::exposure::About;
use crate::fence::Fence;
use crate::head::{RequestHead, ResponseHead};
use crate::server::{Connections, ListenerHandle};
use crate::snapshot::Routing;
use crate::stats::WorkerStats;
use crate::stopwatch;
use crate::timer::{TICK, Wheel};
use crate::trace::SpanBuffer;
use crate::view::{BackendView, ServiceView, View};
use crate::wait::Roster;

/// What a worker is told to do.
#[derive(Debug)]
pub(crate) enum Order {
    /// Acknowledge that everything from now on follows the current snapshot.
    Pass(Arc<Fence>),
    /// Accept on sockets.
    Listen(ListenerHandle, Vec<std::net::TcpListener>),
    /// Give the listening sockets to somebody who goes on accepting on them.
    Share(SyncSender<io::Result<SharedSockets>>),
    /// Change what the next connections of a listener see.
    Update(ListenerHandle),
    /// Stop accepting on a listener; its connections go on.
    Unlisten(Arc<str>),
    /// Stop accepting, finish what is under way, then end.
    Drain,
}

/// Listening sockets by the name of their listener.
pub(crate) type SharedSockets = Vec<(Arc<str>, OwnedFd)>;

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) routing: Arc<Routing>,
    /// When the process started: the zero of every duration that leaves a worker.
    pub(crate) start: Instant,
    pub(crate) workers: usize,
    pub(crate) connections: Connections,
    pub(crate) draining: AtomicBool,
    /// While draining: idle connections may bring one more request.
    pub(crate) waits_for_idle: AtomicBool,
    pub(crate) stats: Vec<WorkerStats>,
}

/// One data-plane thread's own state.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) buffers: Rc<BufferPool>,
    pub(crate) wheel: Rc<Wheel>,
    pub(crate) log: LogBuffer,
    /// Where spans go, if somebody collects them.
    pub(crate) spans: Option<SpanBuffer>,
    /// Requests that must look again when the snapshot changes.
    pub(crate) changes: Roster,
    /// Connections that may have to end: the worker drains, or others need their place more.
    pub(crate) waiting: Roster,
    pub(crate) open_connections: Cell<usize>,
    /// Notified when the last connection closes.
    pub(crate) all_closed: Notify,
    /// Memory of finished requests, to be used again.
    spare: Spare,
    view: RefCell<Rc<View>>,
    generation: Cell<u64>,
    rng: RefCell<fastrand::Rng>,
    /// Unix time in milliseconds at `clock_base`, to turn instants into times of day.
    unix_base: Cell<(Instant, Duration)>,
}

impl Worker {
    pub(crate) fn new(
        index: usize,
        shared: Arc<Shared>,
        log: LogBuffer,
        spans: Option<SpanBuffer>,
    ) -> Rc<Self> {
        let now = Instant::now();
        let mut rng = fastrand::Rng::new();
        let generation = shared.routing.generation();
        let view = View::new(shared.routing.current(), None, now, &mut |bound| {
            rng.u64(0..bound)
        });
        Rc::new(Self {
            index,
            buffers: Rc::new(BufferPool::default()),
            wheel: Wheel::new(now),
            log,
            spans,
            changes: Roster::default(),
            waiting: Roster::default(),
            open_connections: Cell::new(0),
            all_closed: Notify::new(),
            spare: Spare::default(),
            view: RefCell::new(Rc::new(view)),
            generation: Cell::new(generation),
            rng: RefCell::new(rng),
            unix_base: Cell::new((now, unix_now())),
            shared,
        })
    }

    /// Hands over what has gathered for the log and of spans.
    fn flush(&self) {
        self.log.flush();
        if let Some(spans) = &self.spans {
            spans.flush();
        }
    }

    /// The current view. One load while the snapshot is the same; otherwise the view follows first.
    pub(crate) fn view(&self) -> Rc<View> {
        let generation = self.shared.routing.generation();
        if generation != self.generation.get() {
            self.generation.set(generation);
            self.follow_snapshot();
        }
        self.view.borrow().clone()
    }

    fn follow_snapshot(&self) {
        let before = self.view.borrow().clone();
        let snapshot = self.shared.routing.current();
        let random = &mut |bound| self.random(bound);
        let after = Rc::new(View::new(snapshot, Some(&before), self.now(), random));
        *self.view.borrow_mut() = after.clone();
        for service in &before.services {
            let next = after.find(&service.service.name, service.place.get());
            if next.is_some_and(|next| Rc::ptr_eq(next, service)) {
                continue;
            }
            service
                .backends
                .iter()
                .for_each(|backend| backend.line.call_all());
            if let Some(next) = next {
                self.close_streams(service, next);
            }
        }
        self.changes.wake_all();
    }

    /// Cuts the long-lived streams of backends that have lost their weight, now or later.
    fn close_streams(&self, before: &Rc<ServiceView>, after: &Rc<ServiceView>) {
        for (index, view) in after.backends.iter().enumerate() {
            let Some((old_index, old_view)) = before.backend_named(&view.backend.name) else {
                continue;
            };
            if after.service.cuts.get(index) != before.service.cuts.get(old_index) {
                old_view.cut_streams();
                view.cut_streams();
            }
            let lost_weight = before.service.is_open(old_index) && !after.service.is_open(index);
            if lost_weight && let Some(patience) = after.service.drain_streams {
                tokio::task::spawn_local(cut_later(
                    view.clone(),
                    after.service.name.clone(),
                    patience,
                    self.shared.clone(),
                ));
            }
        }
    }

    /// The time as of the last request or tick.
    pub(crate) fn now(&self) -> Instant {
        self.wheel.now()
    }

    /// Time since the process started, as of the last request or tick.
    pub(crate) fn uptime(&self) -> Duration {
        self.now().saturating_duration_since(self.shared.start)
    }

    /// The time of day since 1970, as of the last request or tick. Follows the monotonic clock, so
    /// it never runs backwards; resynchronised by no one, it is for logs and ids only.
    pub(crate) fn unix_time(&self, at: Instant) -> Duration {
        let (base, unix) = self.unix_base.get();
        unix + at.saturating_duration_since(base)
    }

    pub(crate) fn stats(&self) -> &WorkerStats {
        &self.shared.stats[self.index]
    }

    /// A random number below `bound`, which is at least 1.
    pub(crate) fn random(&self, bound: u64) -> u64 {
        self.rng.borrow_mut().u64(0..bound)
    }

    pub(crate) fn random_index(&self, bound: usize) -> usize {
        self.rng.borrow_mut().usize(0..bound)
    }

    /// Sixteen random bytes, for ids.
    pub(crate) fn random_id(&self) -> [u8; 16] {
        self.rng.borrow_mut().u128(..).to_be_bytes()
    }

    /// Reads the clock: once for each request and whenever a wait ends.
    pub(crate) fn read_clock(&self) -> Instant {
        self.wheel.read_clock()
    }

    pub(crate) fn spare_response_head(&self) -> ResponseHead {
        self.spare
            .response_heads
            .borrow_mut()
            .pop()
            .unwrap_or_default()
    }

    pub(crate) fn keep_response_head(&self, head: ResponseHead) {
        keep(&self.spare.response_heads, head);
    }

    pub(crate) fn spare_request_head(&self) -> RequestHead {
        self.spare
            .request_heads
            .borrow_mut()
            .pop()
            .unwrap_or_default()
    }

    pub(crate) fn keep_request_head(&self, head: RequestHead) {
        keep(&self.spare.request_heads, head);
    }

    pub(crate) fn spare_about(&self) -> Box<About> {
        self.spare.abouts.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn keep_about(&self, about: Box<About>) {
        keep(&self.spare.abouts, about);
    }

    /// An empty byte buffer.
    pub(crate) fn spare_bytes(&self) -> Vec<u8> {
        self.spare.bytes.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn keep_bytes(&self, bytes: Vec<u8>) {
        if bytes.capacity() <= SPARE_BYTES_MAX {
            keep(&self.spare.bytes, bytes);
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.shared.draining.load(Acquire)
    }

    /// Whether connections that carry no request are to be closed.
    pub(crate) fn closes_idle(&self) -> bool {
        self.is_draining() && !self.shared.waits_for_idle.load(Acquire)
    }

    /// Whether an idle connection of this worker should make room; the first one that asks is it.
    pub(crate) fn yields_connection(&self) -> bool {
        self.shared
            .connections
            .takes_from(self.open_connections.get(), true)
    }
}

/// Memory that the next request uses instead of asking the allocator.
#[derive(Debug, Default)]
struct Spare {
    response_heads: RefCell<Vec<ResponseHead>>,
    request_heads: RefCell<Vec<RequestHead>>,
    #[expect(clippy::vec_box, reason = "boxes are what is handed on")]
    abouts: RefCell<Vec<Box<About>>>,
    bytes: RefCell<Vec<Vec<u8>>>,
}

/// Spare items of each kind; a worker has rarely more requests in one turn of its loop.
const SPARE_MAX: usize = 128;

/// Larger buffers go back to the allocator.
const SPARE_BYTES_MAX: usize = 16 << 10;

fn keep<T>(spare: &RefCell<Vec<T>>, item: T) {
    let mut spare = spare.borrow_mut();
    if spare.len() < SPARE_MAX {
        spare.push(item);
    }
}

async fn cut_later(
    view: Rc<BackendView>,
    service: Arc<str>,
    patience: Duration,
    shared: Arc<Shared>,
) {
    tokio::time::sleep(patience).await;
    let snapshot = shared.routing.current();
    let found = snapshot.services.iter().find(|s| s.name == service);
    let open_again = found.is_some_and(|service| {
        let index = service
            .backends
            .iter()
            .position(|backend| Arc::ptr_eq(backend, &view.backend));
        index.is_some_and(|index| service.is_open(index))
    });
    if !open_again {
        view.cut_streams();
    }
}

/// Runs a worker until it has drained. The body of a worker's thread.
pub(crate) async fn run(worker: Rc<Worker>, mut orders: mpsc::Receiver<Order>) {
    tokio::task::spawn_local(keep_time(worker.clone()));
    let mut listening = crate::server::Listening::default();
    while let Some(order) = orders.recv().await {
        match order {
            Order::Pass(fence) => pass(&worker, &fence).await,
            Order::Listen(handle, sockets) => listening.start(&worker, &handle, sockets),
            Order::Share(reply) => {
                let _ = reply.try_send(listening.share());
            }
            Order::Update(handle) => listening.update(&handle),
            Order::Unlisten(name) => listening.stop(&name),
            Order::Drain => {
                listening.stop_all().await;
                worker.waiting.wake_all();
                break;
            }
        }
    }
    // Fences must pass while the last requests finish.
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Pass(fence)) => pass(&worker, &fence).await,
                // The time of idle connections is over.
                Some(Order::Drain) => worker.waiting.wake_all(),
                Some(_) => {}
                None => break,
            },
            () = all_closed(&worker) => break,
        }
    }
    // Whoever does nothing any more follows every snapshot.
    orders.close();
    while let Ok(order) = orders.try_recv() {
        if let Order::Pass(fence) = order {
            fence.pass(worker.index);
        }
    }
    worker.flush();
}

async fn pass(worker: &Worker, fence: &Fence) {
    worker.view();
    // One full turn: everything that was ready before runs before this task again.
    tokio::task::yield_now().await;
    fence.pass(worker.index);
}

async fn all_closed(worker: &Worker) {
    while worker.open_connections.get() > 0 {
        worker.all_closed.notified().await;
    }
}

/// Log lines and spans wait for at most so many ticks.
const TICKS_PER_FLUSH: u32 = 10;

/// Ticks: expires deadlines, and once a second looks after what nobody waits for.
async fn keep_time(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut next_sweep = worker.now() + Duration::from_secs(1);
    let mut ticks_to_flush = TICKS_PER_FLUSH;
    loop {
        ticks.tick().await;
        worker.wheel.sweep();
        stopwatch::sweep(&worker);
        let open = worker.open_connections.get();
        if worker.shared.connections.takes_from(open, false) {
            worker.waiting.wake_all();
        }
        ticks_to_flush = ticks_to_flush.checked_sub(1).unwrap_or_else(|| {
            worker.flush();
            TICKS_PER_FLUSH
        });
        if worker.now() >= next_sweep {
            next_sweep = worker.now() + Duration::from_secs(1);
            // The clock of the machine may have been set.
            worker.unix_base.set((worker.now(), unix_now()));
            sweep_pools(&worker).await;
            worker.stats().log_dropped.add(worker.log.take_dropped());
        }
    }
}

fn unix_now() -> Duration {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default()
}

async fn sweep_pools(worker: &Worker) {
    let view = worker.view();
    std::future::poll_fn(|cx| {
        for backend in view.services.iter().flat_map(|service| &service.backends) {
            backend
                .endpoints
                .iter()
                .for_each(|endpoint| endpoint.pool.sweep(cx, worker.now()));
            if backend.line.len() > 0 {
                // Others may have closed connections in the meantime.
                backend.line.call_next();
            }
        }
        std::task::Poll::Ready(())
    })
    .await;
}
