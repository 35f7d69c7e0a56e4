//! When a route was last asked for.
//!
//! Kept only for routes that must not be removed while somebody uses them. Each worker writes into a line of
//! its own, so a request costs one store. What an earlier process has seen is given at the start; so is what
//! becomes known later, since reading it from disk must not delay the first request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::stats::Cell;

/// The uses of one route.
#[derive(Debug)]
pub struct RouteUse {
    workers: Box<[Line]>,
    /// The last use that an earlier process has seen, in milliseconds since 1970; 0: none.
    before_ms: AtomicU64,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Line {
    /// In milliseconds since 1970; 0: never.
    last_ms: Cell,
}

impl RouteUse {
    /// Not used yet, as far as this process knows.
    #[must_use]
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            workers: (0..workers).map(|_| Line::default()).collect(),
            before_ms: AtomicU64::new(0),
        })
    }

    /// Notes a request. Only the worker itself may call this.
    pub(crate) fn note(&self, worker: usize, unix_ms: u64) {
        let line = &self.workers[worker];
        // A cell only adds.
        line.last_ms.add(unix_ms.wrapping_sub(line.last_ms.get()));
    }

    /// Notes what an earlier process has seen.
    pub fn note_before(&self, unix_ms: u64) {
        self.before_ms.fetch_max(unix_ms, Relaxed);
    }

    /// When it was last used, in milliseconds since 1970; none: never, as far as anybody knows.
    #[must_use]
    pub fn last_ms(&self) -> Option<u64> {
        let lines = self.workers.iter().map(|line| line.last_ms.get());
        let last_ms = lines.fold(self.before_ms.load(Relaxed), u64::max);
        (last_ms > 0).then_some(last_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_use_is_the_latest_of_all_workers_and_of_earlier_processes() {
        let used = RouteUse::new(2);
        assert_eq!(used.last_ms(), None);
        used.note_before(5);
        used.note_before(3);
        assert_eq!(used.last_ms(), Some(5));
        used.note(1, 90);
        used.note(0, 70);
        // The machine's clock was set back.
        used.note(1, 80);
        assert_eq!(used.last_ms(), Some(80));
    }
}
