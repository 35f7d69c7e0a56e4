//! Reads the counters of one side of a comparison, each request once.

use std::sync::Arc;

use switchback_proxy::stats::{JudgeCells, Tally};

use super::case::Trouble;

/// Reads one side's counters, each request once.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    trouble: Trouble,
    cells: Option<Arc<JudgeCells>>,
    seen: Vec<u64>,
    limited: u64,
}

impl Reader {
    /// Nobody yet.
    pub(super) const fn nobody(trouble: Trouble) -> Self {
        Self {
            trouble,
            cells: None,
            seen: Vec::new(),
            limited: 0,
        }
    }

    /// Begins with what will come; what was counted before is somebody else's.
    pub(super) fn new(trouble: Trouble, cells: Option<&Arc<JudgeCells>>) -> Self {
        let tally = cells.and_then(|cells| tally(trouble, cells));
        Self {
            trouble,
            seen: tally
                .map(|tally| tally.read().collect())
                .unwrap_or_default(),
            cells: cells.cloned(),
            limited: tally.map_or(0, Tally::limited),
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
            let tally = cells.and_then(|cells| tally(self.trouble, cells));
            self.seen = vec![0; tally.map_or(0, |tally| tally.read().count())];
            self.limited = 0;
            self.cells = cells.cloned();
        }
    }

    /// Requests, and those of them with the trouble, since the last call.
    pub(super) fn take(&mut self) -> (u64, u64) {
        let tally = self
            .cells
            .as_ref()
            .and_then(|cells| tally(self.trouble, cells));
        let (mut requests, mut bad) = (0, 0);
        let read = tally.into_iter().flat_map(Tally::read);
        for (seen, packed) in self.seen.iter_mut().zip(read) {
            let difference = packed.wrapping_sub(*seen);
            *seen = packed;
            requests += difference >> 32;
            bad += difference & 0xffff_ffff;
        }
        (requests, bad)
    }

    /// The same, with the failures that judges are not shown.
    pub(super) fn take_all(&mut self) -> (u64, u64) {
        let (requests, failures) = self.take();
        let tally = self
            .cells
            .as_deref()
            .and_then(|cells| tally(self.trouble, cells));
        let now = tally.map_or(0, Tally::limited);
        let limited = now.saturating_sub(std::mem::replace(&mut self.limited, now));
        (requests + limited, failures + limited)
    }
}

fn tally(trouble: Trouble, cells: &JudgeCells) -> Option<&Tally> {
    match trouble {
        Trouble::Errors => Some(cells.errors()),
        Trouble::Slow => cells.times(),
    }
}
