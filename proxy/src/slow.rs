//! From when on a request of a service is slow, and how long stable's requests take.
//!
//! The limit is fixed by the file, or follows the times of stable: then workers count those times
//! here, fine enough for a quantile, and the control plane sets the limit from them once a second. It
//! is one number that workers read when they need it, so that it can move without a new snapshot.
//!
//! Times are counted in bins whose width is a sixteenth of a power of two, as in HdrHistogram: a
//! quantile is off by 6 % at most, from microseconds to minutes, in three kilobytes a worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use switchback_config::model::Slow;

use crate::stats::Cell;

/// Whether it matters how long the requests of a service take.
#[derive(Clone, Debug)]
pub struct Slowness {
    /// From when on they are slow.
    pub limit: Arc<SlowLimit>,
    /// The backend whose times are the usual ones, by position.
    pub usual: usize,
}

impl PartialEq for Slowness {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.limit, &other.limit) && self.usual == other.usual
    }
}

/// From when on a request is slow; belongs to a setting and to the version that times are taken from.
#[derive(Debug)]
pub struct SlowLimit {
    setting: Slow,
    /// In microseconds; [`UNKNOWN`] while nothing is slow.
    limit_us: AtomicU64,
    times: Option<Times>,
}

const UNKNOWN: u64 = u64::MAX;

impl SlowLimit {
    /// The limit of a setting. One that follows stable is not known before [`SlowLimit::set`].
    #[must_use]
    pub fn new(setting: Slow, workers: usize) -> Arc<Self> {
        let (limit_us, times) = match setting {
            Slow::Fixed(span) => (micros(span.0), None),
            Slow::Stable(_) => (UNKNOWN, Some(Times::new(workers))),
        };
        Arc::new(Self {
            setting,
            limit_us: AtomicU64::new(limit_us),
            times,
        })
    }

    /// What it was made from.
    #[must_use]
    pub const fn setting(&self) -> Slow {
        self.setting
    }

    /// A request that takes longer is slow. None: nothing is, yet.
    #[must_use]
    pub fn get(&self) -> Option<Duration> {
        let limit_us = self.limit_us.load(Relaxed);
        (limit_us != UNKNOWN).then(|| Duration::from_micros(limit_us))
    }

    /// Moves it.
    pub fn set(&self, limit: Duration) {
        self.limit_us.store(micros(limit), Relaxed);
    }

    /// The times it is set from; none where it is fixed.
    #[must_use]
    pub const fn times(&self) -> Option<&Times> {
        self.times.as_ref()
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(UNKNOWN - 1)
}

/// Bins of each power of two.
const FINE: u64 = 16;

/// Powers of two below which every microsecond has its own bin.
const FINE_BITS: u32 = FINE.trailing_zeros();

/// The highest power of two that is told apart: 134 s. Longer times are counted as that.
const POWER_MAX: u32 = 27;

/// Number of bins.
pub const BINS: usize = ((POWER_MAX - FINE_BITS + 1) << FINE_BITS) as usize;

/// How long the requests of one version took, up to the heads of their responses.
#[derive(Debug)]
pub struct Times {
    workers: Box<[Bins]>,
}

#[derive(Debug)]
#[repr(align(128))]
struct Bins([Cell; BINS]);

impl Times {
    fn new(workers: usize) -> Self {
        let bins = || Bins([const { Cell::new() }; BINS]);
        Self {
            workers: (0..workers).map(|_| bins()).collect(),
        }
    }

    /// Counts a time. Only the worker itself may call this.
    pub(crate) fn record(&self, worker: usize, took: Duration) {
        self.workers[worker].0[bin_of(micros(took))].add(1);
    }

    /// How many times each bin was counted so far, by all workers.
    pub fn counts(&self) -> impl Iterator<Item = u64> {
        let sum = |bin: usize| {
            let counts = self.workers.iter().map(move |bins| bins.0[bin].get());
            counts.fold(0, u64::wrapping_add)
        };
        (0..BINS).map(sum)
    }
}

fn bin_of(time_us: u64) -> usize {
    let time_us = time_us.min((1 << POWER_MAX) - 1);
    let power = time_us.checked_ilog2().unwrap_or(0).max(FINE_BITS);
    let octave = u64::from(power - FINE_BITS);
    let bin = octave * FINE + (time_us >> octave);
    usize::try_from(bin).unwrap_or(BINS - 1).min(BINS - 1)
}

/// The longest time that is counted in a bin.
#[must_use]
pub fn longest(bin: usize) -> Duration {
    let bin = bin.min(BINS - 1) as u64;
    let octave = (bin / FINE).saturating_sub(1);
    let within = bin - octave * FINE;
    Duration::from_micros(((within + 1) << octave) - 1)
}

#[cfg(test)]
mod tests {
    use switchback_config::units::TimeSpan;

    use super::*;

    #[test]
    fn every_time_is_in_the_bin_that_ends_at_or_just_after_it() {
        let mut time_us = 0;
        while time_us < 1 << POWER_MAX {
            let end = micros(longest(bin_of(time_us)));
            assert!(end >= time_us, "{time_us} ends at {end}");
            assert!((end - time_us) * FINE <= time_us, "{time_us} ends at {end}");
            assert_eq!(bin_of(end), bin_of(time_us));
            assert_eq!(bin_of(end + 1), (bin_of(end) + 1).min(BINS - 1));
            time_us = time_us + time_us / 50 + 1;
        }
        assert_eq!(bin_of(u64::MAX), BINS - 1);
        assert_eq!(bin_of(0), 0);
    }

    #[test]
    fn workers_are_added_up() {
        let limit = SlowLimit::new(Slow::Stable(990), 2);
        let times = limit.times().expect("it follows stable");
        times.record(0, Duration::from_millis(3));
        times.record(1, Duration::from_millis(3));
        times.record(1, Duration::MAX);
        let counts: Vec<u64> = times.counts().collect();
        assert_eq!(counts.len(), BINS);
        assert_eq!((counts[bin_of(3_000)], counts[BINS - 1]), (2, 1));
        assert_eq!(counts.iter().sum::<u64>(), 3);
    }

    #[test]
    fn limit_is_fixed_or_unknown_until_it_is_set() {
        let span = TimeSpan(Duration::from_millis(500));
        assert_eq!(SlowLimit::new(Slow::Fixed(span), 1).get(), Some(span.0));
        let limit = SlowLimit::new(Slow::Stable(990), 1);
        assert_eq!(limit.get(), None);
        limit.set(Duration::from_micros(1_234));
        assert_eq!(limit.get(), Some(Duration::from_micros(1_234)));
    }
}
