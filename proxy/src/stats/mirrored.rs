//! What is counted of copies: how they ended, how that compares with their originals, and which were
//! not made.

use std::sync::Arc;

use crate::outcome::DIFFERENCES;
use crate::snapshot::Backend;
use crate::stats::{Alarm, BackendCells, Cell};
use crate::worker::Worker;

/// What one worker counted of the copies for one version.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct MirroredCells {
    /// The copies by themselves.
    pub attempts: BackendCells,
    /// Copies that were compared with their originals.
    pub compared: Cell,
    /// Those of them that failed.
    pub failed: Cell,
    /// Those of them that ended otherwise, by [`DIFFERENCES`].
    pub differences: [Cell; DIFFERENCES.len()],
    /// Pairs of which both were answered.
    pub timed: Cell,
    /// The sum of their copies' times to the head of the response.
    pub copies_us: Cell,
    /// The same of their originals.
    pub originals_us: Cell,
    /// Requests that were chosen and not copied, by [`DROPS`].
    pub dropped: [Cell; DROPS.len()],
}

/// Copies and their originals for the judge, as long as both sides keep their versions.
#[derive(Debug)]
pub struct PairCells {
    workers: Box<[Pairs]>,
    alarm: Option<Arc<Alarm>>,
}

/// `requests << 32 | failures` of each side: one store keeps both consistent.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Pairs {
    copies: Cell,
    originals: Cell,
}

impl PairCells {
    /// Zeros. `alarm` is raised on each copy that fails.
    #[must_use]
    pub fn new(workers: usize, alarm: Option<Arc<Alarm>>) -> Arc<Self> {
        Arc::new(Self {
            workers: (0..workers).map(|_| Pairs::default()).collect(),
            alarm,
        })
    }

    /// Counts a pair. Only the worker itself may call this.
    pub fn record(&self, worker: usize, copy_failed: bool, original_failed: bool) {
        let pairs = &self.workers[worker];
        pairs.originals.add(1 << 32 | u64::from(original_failed));
        pairs.copies.add(1 << 32 | u64::from(copy_failed));
        if copy_failed && let Some(alarm) = &self.alarm {
            alarm.raise();
        }
    }

    /// The packed counts of each worker: copies, originals. Differences of two readings of one side
    /// (`wrapping_sub`) are exact: `(requests << 32) + failures`.
    pub fn read(&self) -> impl Iterator<Item = [u64; 2]> {
        self.workers
            .iter()
            .map(|pairs| [pairs.copies.get(), pairs.originals.get()])
    }
}

/// Why requests that were chosen are not copied, in the order of [`MirroredCells::dropped`]: as many
/// copies as may be were under way; the body was too large or not whole; the original ended without
/// an answer, or was long; the backend had no usable endpoint or connection.
pub const DROPS: [&str; 4] = ["busy", "body", "original", "unavailable"];

/// One of [`DROPS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    Busy,
    Body,
    Original,
    Unavailable,
}

impl Dropped {
    /// Counts it for the version that got no copy.
    pub(crate) fn count(self, worker: &Worker, target: &Backend) {
        let index = match self {
            Self::Busy => 0,
            Self::Body => 1,
            Self::Original => 2,
            Self::Unavailable => 3,
        };
        target.stats.mirrored_cells(worker.index).dropped[index].add(1);
    }
}
