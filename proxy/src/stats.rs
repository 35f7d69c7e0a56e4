//! Counters: each is written by one worker only and read by everyone.
//!
//! A worker adds with a plain load and store to its own cache lines, so counting costs a nanosecond
//! and no worker waits for another. Readers (judge, metrics, API) add up the workers. Three kinds
//! with three lifetimes:
//!
//! * [`BackendStats`] belong to a deployed version and grow for as long as it is known.
//! * [`JudgeCells`] belong to a version *and an epoch*. The epoch advances when a canary's share
//!   rises; a request keeps the cells it began with. Otherwise fast failures of new requests would
//!   meet slow successes that are still on their way, and healthy canaries would be rolled back at
//!   their start.
//! * [`WorkerStats`] belong to a worker.

pub mod mirrored;

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed,
};
use std::thread::Thread;
use std::time::Duration;

use crate::balance::Pick;
use crate::limit::{Limit, LimitHits};
use crate::outcome::{CLASSES, Finding, Outcome};
use mirrored::MirroredCells;

/// A number that one thread writes and all may read.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Nothing yet.
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds. Only the owning worker may call this: it is a load and a store.
    pub fn add(&self, count: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// The number as last written.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of the latency buckets in microseconds; the last bucket has none.
pub const LATENCY_BOUNDS_US: [u64; 14] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000,
];

/// What one worker counted for one version.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct BackendCells {
    /// Requests whose first byte was given to a socket.
    pub begun: Cell,
    /// Those of them that ended.
    pub ended: Cell,
    /// Ended requests by [`CLASSES`].
    pub classes: [Cell; CLASSES.len()],
    /// Ended requests by time, see [`LATENCY_BOUNDS_US`].
    pub latency: [Cell; LATENCY_BOUNDS_US.len() + 1],
    /// The sum of their times.
    pub latency_us: Cell,
    /// Requests of this version that stable answered in its place.
    pub rescued: Cell,
    /// Requests sent to it again.
    pub retries: Cell,
    /// Requests that waited too long for an answer, where that matters.
    pub slow: Cell,
}

impl BackendCells {
    pub(crate) fn end(&self, outcome: Outcome, took: Duration) {
        if let Some(class) = outcome.class() {
            self.classes[class].add(1);
        }
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < took_us);
        self.latency[bucket].add(1);
        self.latency_us.add(took_us);
    }
}

/// What all workers counted for one version of a backend.
#[derive(Debug)]
pub struct BackendStats {
    split: Box<[BackendCells]>,
    preview: Box<[BackendCells]>,
    mirrored: Box<[MirroredCells]>,
    /// Open connections of all workers.
    pub(crate) connections: AtomicU64,
    /// Some worker lacks connections that others hold idle.
    pub(crate) pressure: AtomicBool,
}

impl BackendStats {
    /// Zeros for so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Arc<Self> {
        let cells = || (0..workers).map(|_| BackendCells::default()).collect();
        Arc::new(Self {
            split: cells(),
            preview: cells(),
            mirrored: (0..workers).map(|_| MirroredCells::default()).collect(),
            connections: AtomicU64::new(0),
            pressure: AtomicBool::new(false),
        })
    }

    /// Where a worker counts requests that were picked so.
    pub(crate) fn cells(&self, worker: usize, pick: Pick) -> &BackendCells {
        match pick {
            Pick::Split | Pick::Diverted | Pick::Rescue => &self.split[worker],
            Pick::Preview | Pick::Asset => &self.preview[worker],
            Pick::Mirror => &self.mirrored[worker].attempts,
        }
    }

    /// Where a worker counts what copies are compared by.
    pub(crate) fn mirrored_cells(&self, worker: usize) -> &MirroredCells {
        &self.mirrored[worker]
    }

    /// Split traffic, by worker.
    #[must_use]
    pub fn split(&self) -> &[BackendCells] {
        &self.split
    }

    /// Traffic that testers sent here by name, by worker.
    #[must_use]
    pub fn preview(&self) -> &[BackendCells] {
        &self.preview
    }

    /// Copies of other backends' requests, by worker.
    #[must_use]
    pub fn mirrored(&self) -> &[MirroredCells] {
        &self.mirrored
    }

    /// Split requests begun so far.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.split.iter().map(|cells| cells.begun.get()).sum()
    }

    /// Requests of any kind that have begun and not ended.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        // Ended first: a request that ends in between is then seen as in flight, never as negative.
        let ended: u64 = self.all().map(|cells| cells.ended.get()).sum();
        self.begun_of_any_kind().saturating_sub(ended)
    }

    /// Requests of any kind begun so far: the split's, testers' and copies.
    #[must_use]
    pub fn begun_of_any_kind(&self) -> u64 {
        self.all().map(|cells| cells.begun.get()).sum()
    }

    fn all(&self) -> impl Iterator<Item = &BackendCells> {
        let mirrored = self.mirrored.iter().map(|cells| &cells.attempts);
        self.split.iter().chain(&self.preview).chain(mirrored)
    }

    /// Open connections to the version.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }
}

/// Requests, failures and slow requests of one version in one epoch: what the judges read.
#[derive(Debug)]
pub struct JudgeCells {
    errors: Tally,
    /// Where requests are judged for the time they take.
    times: Option<Tally>,
    alarm: Option<Arc<Alarm>>,
}

/// Requests, and those of them that were bad.
#[derive(Debug)]
pub struct Tally {
    /// By worker.
    workers: Box<[PaddedCell]>,
    /// What other instances have counted; written by one thread only, which is no worker.
    elsewhere: Cell,
    limiter: Option<Arc<Limiter>>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct PaddedCell {
    /// `requests << 32 | bad`: one store keeps both consistent.
    counts: Cell,
    /// Bad ones that the limiter kept from being counted.
    limited: Cell,
}

impl Tally {
    fn new(workers: usize, limiter: Option<Arc<Limiter>>) -> Self {
        Self {
            workers: (0..workers).map(|_| PaddedCell::default()).collect(),
            elsewhere: Cell::default(),
            limiter,
        }
    }

    /// Whether it was counted.
    fn count(&self, worker: usize, bad: bool, key: Option<u64>, now: Duration) -> bool {
        if bad
            && let (Some(limiter), Some(key)) = (&self.limiter, key)
            && !limiter.admits(key, now)
        {
            self.workers[worker].limited.add(1);
            return false;
        }
        self.workers[worker].counts.add(1 << 32 | u64::from(bad));
        true
    }

    /// Adds what other instances have counted: requests, and those of them that were bad. For one thread at a
    /// time.
    fn add_elsewhere(&self, requests: u32, bad: u32) {
        let bad = bad.min(requests);
        self.elsewhere
            .add(u64::from(requests) << 32 | u64::from(bad));
    }

    /// Requests that ended here, and those of them that were bad.
    #[must_use]
    pub fn here(&self) -> (u64, u64) {
        let counts = self.workers.iter().map(|cell| cell.counts.get());
        counts.fold((0, 0), |(requests, bad), packed| {
            (requests + (packed >> 32), bad + (packed & 0xffff_ffff))
        })
    }

    /// The packed counts of each worker, and of other instances. Differences of two readings (`wrapping_sub`) are exact:
    /// `(requests << 32) + bad`.
    pub fn read(&self) -> impl Iterator<Item = u64> {
        let workers = self.workers.iter().map(|cell| cell.counts.get());
        workers.chain([self.elsewhere.get()])
    }

    /// What was left out because clients of a pinned version must not be its only judges.
    #[must_use]
    pub fn limited(&self) -> u64 {
        self.workers.iter().map(|cell| cell.limited.get()).sum()
    }
}

impl JudgeCells {
    /// Zeros. `alarm`: raised on each failure (for versions that are watched). `limiter`: for
    /// services whose clients stay on one backend.
    #[must_use]
    pub fn new(workers: usize, alarm: Option<Arc<Alarm>>, limiter: Option<Arc<Limiter>>) -> Self {
        Self {
            errors: Tally::new(workers, limiter),
            times: None,
            alarm,
        }
    }

    /// Also counts how many requests were slow, with a limiter of their own.
    #[must_use]
    pub fn timed(self, limiter: Option<Arc<Limiter>>) -> Self {
        let workers = self.errors.workers.len();
        Self {
            times: Some(Tally::new(workers, limiter)),
            ..self
        }
    }

    /// Counts one finished request. `key`: the hash of its affinity key, if it has one.
    pub fn record(&self, worker: usize, finding: Finding, key: Option<u64>, now: Duration) {
        let failed = match finding {
            Finding::NotCounted => return,
            Finding::Success => false,
            Finding::Failure => true,
        };
        let counted = self.errors.count(worker, failed, key, now);
        self.raise(counted && failed);
    }

    /// Counts one request that was answered, or waits for too long.
    pub(crate) fn record_time(&self, worker: usize, slow: bool, key: Option<u64>, now: Duration) {
        if let Some(times) = &self.times {
            let counted = times.count(worker, slow, key, now);
            self.raise(counted && slow);
        }
    }

    /// Adds what another instance has counted of the same version: requests, and those of them that failed;
    /// the same of time. For one thread at a time.
    pub fn record_elsewhere(&self, errors: (u32, u32), times: Option<(u32, u32)>) {
        self.errors.add_elsewhere(errors.0, errors.1);
        if let (Some(tally), Some((requests, slow))) = (&self.times, times) {
            tally.add_elsewhere(requests, slow);
        }
        self.raise(errors.1 > 0 || times.is_some_and(|(_, slow)| slow > 0));
    }

    fn raise(&self, bad: bool) {
        if bad && let Some(alarm) = &self.alarm {
            alarm.raise();
        }
    }

    /// Finished requests and failures.
    #[must_use]
    pub const fn errors(&self) -> &Tally {
        &self.errors
    }

    /// Requests that were answered or waited for too long, and the latter; none where nobody judges
    /// that.
    #[must_use]
    pub const fn times(&self) -> Option<&Tally> {
        self.times.as_ref()
    }
}

/// Wakes the control thread when something happened that it should look at now.
#[derive(Debug)]
pub struct Alarm {
    raised: AtomicBool,
    thread: Thread,
}

impl Alarm {
    /// An alarm that unparks `thread`.
    #[must_use]
    pub fn new(thread: Thread) -> Arc<Self> {
        Arc::new(Self {
            raised: AtomicBool::new(false),
            thread,
        })
    }

    /// Raises it. While it is raised, this is one load.
    pub fn raise(&self) {
        if !self.raised.load(Relaxed) && !self.raised.swap(true, AcqRel) {
            self.thread.unpark();
        }
    }

    /// Lowers it; tells whether it was raised.
    pub fn take(&self) -> bool {
        self.raised.load(Acquire) && self.raised.swap(false, AcqRel)
    }
}

/// Slots of a [`Limiter`].
const LIMITER_SLOTS: usize = 64;

/// A slot admits one failure in this time.
const LIMITER_TIME: Duration = Duration::from_secs(10);

/// Keeps one client who is pinned to a canary from being its judge: of the failures of clients that
/// share a slot, one in ten seconds counts.
#[derive(Debug)]
pub struct Limiter {
    /// When each slot last admitted a failure, in milliseconds since the start plus one; 0: never.
    slots: [AtomicU64; LIMITER_SLOTS],
}

impl Limiter {
    /// A limiter that has admitted nothing.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            slots: [const { AtomicU64::new(0) }; LIMITER_SLOTS],
        })
    }

    fn admits(&self, key: u64, now: Duration) -> bool {
        let slot = usize::try_from(key % LIMITER_SLOTS as u64)
            .map_or(&self.slots[0], |slot| &self.slots[slot]);
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX - 1) + 1;
        let last_ms = slot.load(Relaxed);
        let free =
            last_ms == 0 || Duration::from_millis(now_ms.saturating_sub(last_ms)) >= LIMITER_TIME;
        free && slot
            .compare_exchange(last_ms, now_ms, Relaxed, Relaxed)
            .is_ok()
    }
}

/// What one worker counted of itself.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerStats {
    /// Client connections accepted.
    pub accepted: Cell,
    /// Client connections closed.
    pub closed: Cell,
    /// Requests refused before a backend was picked, by the first digit of their status (4xx, 5xx).
    pub refused: [Cell; 2],
    /// Access log lines dropped because the log could not keep up.
    pub log_dropped: Cell,
    /// TLS handshakes that failed.
    pub handshake_failures: Cell,
    /// How often each limit was hit.
    pub limits: LimitHits,
}

impl WorkerStats {
    pub(crate) fn count_refusal(&self, status: u16) {
        self.refused[usize::from(status >= 500)].add(1);
    }

    pub(crate) fn count_limit(&self, limit: Option<Limit>) {
        if let Some(limit) = limit {
            self.limits.hit(limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(cells: &JudgeCells) -> Vec<(u64, u64)> {
        cells
            .errors()
            .read()
            .map(|packed| (packed >> 32, packed & 0xffff_ffff))
            .collect()
    }

    #[test]
    fn judge_cells_keep_requests_and_failures_together() {
        let cells = JudgeCells::new(2, None, None);
        cells.record(0, Finding::Success, None, Duration::ZERO);
        cells.record(0, Finding::Failure, None, Duration::ZERO);
        cells.record(1, Finding::NotCounted, None, Duration::ZERO);
        cells.record(1, Finding::Failure, Some(5), Duration::ZERO);
        assert_eq!(read(&cells), [(2, 1), (1, 1), (0, 0)]);
    }

    #[test]
    fn what_others_have_counted_is_read_beside_it_and_told_to_nobody() {
        let cells = JudgeCells::new(1, None, None).timed(None);
        cells.record(0, Finding::Failure, None, Duration::ZERO);
        cells.record_elsewhere((7, 2), Some((7, 1)));
        cells.record_elsewhere((1, 1), None);
        assert_eq!(read(&cells), [(1, 1), (8, 3)]);
        assert_eq!(cells.errors().here(), (1, 1));
        let times = cells.times().expect("timed");
        assert_eq!(times.read().collect::<Vec<_>>(), [0, 7 << 32 | 1]);
        assert_eq!(times.here(), (0, 0));
    }

    #[test]
    fn slow_requests_are_counted_apart_where_they_are_judged() {
        let limited = Limiter::new();
        let cells = JudgeCells::new(1, None, None).timed(Some(limited));
        cells.record(0, Finding::Failure, Some(5), Duration::ZERO);
        for (slow, key) in [(false, 5), (true, 5), (true, 5), (true, 6)] {
            cells.record_time(0, slow, Some(key), Duration::ZERO);
        }
        assert_eq!(read(&cells), [(1, 1), (0, 0)]);
        let times: Vec<u64> = cells.times().expect("timed").read().collect();
        assert_eq!(
            times,
            [3 << 32 | 2, 0],
            "of a pinned client's slow requests one counts"
        );
        let untimed = JudgeCells::new(1, None, None);
        untimed.record_time(0, true, None, Duration::ZERO);
        assert!(untimed.times().is_none());
    }

    #[test]
    fn one_pinned_client_counts_once_in_ten_seconds() {
        let cells = JudgeCells::new(1, None, Some(Limiter::new()));
        for (second, key, counted) in [
            (0, 1, 1),
            (0, 1, 1),
            (1, 2, 2),
            (9, 1, 2),
            (10, 1, 3),
            (10, 65, 3),
            (11, 2, 4),
        ] {
            cells.record(0, Finding::Failure, Some(key), Duration::from_secs(second));
            assert_eq!(
                read(&cells),
                [(counted, counted), (0, 0)],
                "second {second} key {key}"
            );
        }
        cells.record(0, Finding::Success, Some(1), Duration::from_secs(11));
        assert_eq!(read(&cells), [(5, 4), (0, 0)], "successes always count");
        assert_eq!(cells.errors().limited(), 3, "nothing is forgotten");
    }

    #[test]
    fn alarm_is_raised_once_until_taken() {
        let alarm = Alarm::new(std::thread::current());
        assert!(!alarm.take());
        alarm.raise();
        alarm.raise();
        assert!(alarm.take());
        assert!(!alarm.take());
        std::thread::park_timeout(Duration::from_secs(10));
    }

    #[test]
    fn latency_buckets_hold_their_upper_bound() {
        let cells = BackendCells::default();
        for took_us in [0, 1_000, 1_001, 30_000_000, 30_000_001] {
            cells.end(Outcome::Status(200), Duration::from_micros(took_us));
        }
        let counts: Vec<u64> = cells.latency.iter().map(Cell::get).collect();
        assert_eq!((counts[0], counts[1], counts[13], counts[14]), (2, 1, 1, 1));
        assert_eq!(cells.classes[1].get(), 5);
    }
}
