//! Reads the counters of one side of a comparison, each request once.

use std::sync::Arc;

use switchback_proxy::stats::JudgeCells;

/// Reads one side's counters, each request once.
#[derive(Debug)]
pub(super) struct Reader {
    cells: Option<Arc<JudgeCells>>,
    seen: Vec<u64>,
    limited: u64,
}

impl Reader {
    /// Nobody yet.
    pub(super) const fn nobody() -> Self {
        Self {
            cells: None,
            seen: Vec::new(),
            limited: 0,
        }
    }

    /// Begins with what will come; what was counted before is somebody else's.
    pub(super) fn new(cells: Option<&Arc<JudgeCells>>) -> Self {
        let seen = cells
            .map(|cells| cells.read().collect())
            .unwrap_or_default();
        Self {
            cells: cells.cloned(),
            seen,
            limited: cells.map_or(0, |cells| cells.limited()),
        }
    }

    /// From now on other cells; those of a new epoch are read from their beginning.
    pub(super) fn follow(&mut self, cells: Option<&Arc<JudgeCells>>) {
        let same = match (&self.cells, cells) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.seen = vec![0; cells.map_or(0, |cells| cells.read().count())];
            self.limited = 0;
            self.cells = cells.cloned();
        }
    }

    /// Requests and failures since the last call.
    pub(super) fn take(&mut self) -> (u64, u64) {
        let Some(cells) = &self.cells else {
            return (0, 0);
        };
        let (mut requests, mut failures) = (0, 0);
        for (seen, packed) in self.seen.iter_mut().zip(cells.read()) {
            let difference = packed.wrapping_sub(*seen);
            *seen = packed;
            requests += difference >> 32;
            failures += difference & 0xffff_ffff;
        }
        (requests, failures)
    }

    /// The same, with the failures that judges are not shown.
    pub(super) fn take_all(&mut self) -> (u64, u64) {
        let (requests, failures) = self.take();
        let now = self.cells.as_ref().map_or(0, |cells| cells.limited());
        let limited = now.saturating_sub(std::mem::replace(&mut self.limited, now));
        (requests + limited, failures + limited)
    }
}
