//! What is counted of copies: how they ended, how that compares with their originals, and which were
//! not made.

use crate::outcome::DIFFERENCES;
use crate::snapshot::Backend;
use crate::stats::{BackendCells, Cell};
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
