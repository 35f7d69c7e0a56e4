//! Which versions answer, by a header of their responses.
//!
//! While a backend is redeployed bit by bit, its endpoints run two versions under one label. Backends that
//! say in a response header what they are can be counted by it. Each worker keeps its own few slots, in
//! two windows of a minute, and reuses those that nobody has needed for that long: the number of values is
//! bounded whatever backends send, and nothing is allocated but for a value that is new.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use arc_swap::ArcSwapOption;

/// Different values that are counted apart; the others are counted together.
pub const VALUES_MAX: usize = 16;

/// Longest value; image digests have 71 characters.
pub const VALUE_BYTES_MAX: usize = 128;

/// A window, in seconds.
const WINDOW_S: u64 = 60;

/// Which versions answer for one backend.
#[derive(Debug)]
pub struct Mixture {
    /// From when windows are numbered.
    start: Instant,
    workers: Box<[Sightings]>,
}

/// What one worker has seen.
#[derive(Debug)]
#[repr(align(128))]
struct Sightings {
    /// Number of the window that is being written.
    window: AtomicU64,
    slots: [Slot; VALUES_MAX],
    /// Values that found no slot, or are none.
    other: Counts,
    /// Responses without the header.
    unmarked: Counts,
}

#[derive(Debug, Default)]
struct Slot {
    value: ArcSwapOption<String>,
    counts: Counts,
}

/// Responses in windows of even and odd numbers.
#[derive(Debug, Default)]
struct Counts([AtomicU64; 2]);

impl Counts {
    /// Only the worker itself may call this: it is a load and a store.
    fn add(&self, window: u64) {
        let count = &self.0[usize::from(window % 2 == 1)];
        count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
    }

    fn clear(&self, window: u64) {
        self.0[usize::from(window % 2 == 1)].store(0, Relaxed);
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|count| count.load(Relaxed) == 0)
    }

    /// What was counted in the window and the one before, as seen from `now`.
    fn recent(&self, window: u64, now: u64) -> u64 {
        let of = |window: u64| self.0[usize::from(window % 2 == 1)].load(Relaxed);
        match now.saturating_sub(window) {
            0 => of(window) + of(window + 1),
            1 => of(window),
            _ => 0,
        }
    }
}

/// What was seen in the last one to two minutes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Responses by value, in no order.
    pub values: Vec<(String, u64)>,
    /// Responses with other values.
    pub other: u64,
    /// Responses without the header.
    pub unmarked: u64,
}

impl Mixture {
    /// Nothing seen yet, by so many workers.
    #[must_use]
    pub fn new(workers: usize, start: Instant) -> Arc<Self> {
        let sightings = || Sightings {
            window: AtomicU64::new(0),
            slots: Default::default(),
            other: Counts::default(),
            unmarked: Counts::default(),
        };
        Arc::new(Self {
            start,
            workers: (0..workers).map(|_| sightings()).collect(),
        })
    }

    /// Counts a response with this value of the header. Only the worker itself may call this. Allocates
    /// once for a value that is new to the worker.
    pub fn note(&self, worker: usize, value: Option<&[u8]>, now: Instant) {
        let Some(seen) = self.workers.get(worker) else {
            return;
        };
        let window = self.window(now);
        seen.roll(window);
        let Some(value) = value else {
            return seen.unmarked.add(window);
        };
        match seen.slot(value) {
            Some(slot) => slot.counts.add(window),
            None => seen.other.add(window),
        }
    }

    /// What was seen in the last one to two minutes.
    #[must_use]
    pub fn seen(&self, now: Instant) -> Seen {
        let now = self.window(now);
        let mut all = Seen::default();
        for worker in &self.workers {
            let window = worker.window.load(Relaxed);
            all.other += worker.other.recent(window, now);
            all.unmarked += worker.unmarked.recent(window, now);
            for slot in &worker.slots {
                let count = slot.counts.recent(window, now);
                let Some(value) = slot.value.load_full().filter(|_| count > 0) else {
                    continue;
                };
                match all.values.iter_mut().find(|(known, _)| *known == *value) {
                    Some((_, sum)) => *sum += count,
                    None => all.values.push(((*value).clone(), count)),
                }
            }
        }
        all
    }

    fn window(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() / WINDOW_S
    }
}

impl Sightings {
    /// Forgets what is older than the window before this one.
    fn roll(&self, now: u64) {
        let before = self.window.load(Relaxed);
        if now != before {
            let counts = self.slots.iter().map(|slot| &slot.counts);
            for counts in counts.chain([&self.other, &self.unmarked]) {
                counts.clear(now);
                if now != before + 1 {
                    counts.clear(before);
                }
            }
            self.window.store(now, Relaxed);
        }
    }

    /// Where a value is counted; none if there is no room, or it is no label.
    fn slot(&self, value: &[u8]) -> Option<&Slot> {
        let is_it = |slot: &&Slot| {
            let known = slot.value.load();
            known
                .as_ref()
                .is_some_and(|known| known.as_bytes() == value)
        };
        if let Some(slot) = self.slots.iter().find(is_it) {
            return Some(slot);
        }
        let is_label = !value.is_empty() && value.iter().all(|byte| (b' '..=b'~').contains(byte));
        if !is_label || value.len() > VALUE_BYTES_MAX {
            return None;
        }
        let slot = self.slots.iter().find(|slot| slot.counts.is_empty())?;
        let label = String::from_utf8_lossy(value).into_owned();
        slot.value.store(Some(Arc::new(label)));
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(mixture: &Mixture, second: u64) -> Instant {
        mixture.start + std::time::Duration::from_secs(second)
    }

    fn note(mixture: &Mixture, worker: usize, value: Option<&[u8]>, at: u64) {
        mixture.note(worker, value, second(mixture, at));
    }

    fn sorted(mixture: &Mixture, at: u64) -> Seen {
        let mut seen = mixture.seen(second(mixture, at));
        seen.values.sort();
        seen
    }

    #[test]
    fn versions_are_counted_over_all_workers_and_forgotten_after_two_minutes() {
        let mixture = Mixture::new(2, Instant::now());
        for worker in [0, 1, 1] {
            note(&mixture, worker, Some(b"41"), 0);
        }
        note(&mixture, 0, Some(b"42"), 60);
        note(&mixture, 0, None, 60);
        let seen = sorted(&mixture, 60);
        assert_eq!(seen.values, [("41".into(), 3), ("42".into(), 1)]);
        assert_eq!((seen.other, seen.unmarked), (0, 1));
        // Worker 1 has not counted since, and its first window is over.
        assert_eq!(sorted(&mixture, 120).values, [("42".into(), 1)]);
        note(&mixture, 0, Some(b"42"), 121);
        assert_eq!(sorted(&mixture, 121).values, [("42".into(), 2)]);
        assert_eq!(sorted(&mixture, 240), Seen::default());
    }

    #[test]
    fn number_of_values_is_bounded_and_old_ones_give_way() {
        let mixture = Mixture::new(1, Instant::now());
        let note = |value: String, at| note(&mixture, 0, Some(value.as_bytes()), at);
        for number in 0..=VALUES_MAX {
            note(format!("v{number}"), 1);
        }
        note("x".repeat(VALUE_BYTES_MAX + 1), 1);
        note("new\nline".into(), 1);
        let seen = sorted(&mixture, 1);
        assert_eq!((seen.values.len(), seen.other), (VALUES_MAX, 3));
        note("later".into(), 200);
        assert_eq!(sorted(&mixture, 200).values, [("later".into(), 1)]);
    }
}
