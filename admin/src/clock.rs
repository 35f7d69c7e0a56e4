//! The time of day that decisions are made by.
//!
//! Rollouts, trials and leases last for durations, but what is recorded of them is times of day, since
//! they outlive the process. If somebody sets the machine's clock, or it is corrected in a
//! leap, a stage of ten minutes must still take ten minutes. So the clock is read once, at the start,
//! and from then on time is what the monotonic clock adds to it. Entries of the audit and events tell
//! the machine's own time.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

/// A time of day that never leaps. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct SteadyClock {
    at_start: Timestamp,
    start: Instant,
}

impl SteadyClock {
    /// A clock that agrees with the machine's now.
    #[must_use]
    pub fn start() -> Self {
        Self::set(Timestamp::now(), Instant::now())
    }

    /// A clock that showed `at_start` at `start`.
    #[must_use]
    pub const fn set(at_start: Timestamp, start: Instant) -> Self {
        Self { at_start, start }
    }

    /// What it shows now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.at(Instant::now())
    }

    fn at(&self, instant: Instant) -> Timestamp {
        let since = instant.saturating_duration_since(self.start);
        let since = SignedDuration::try_from(since).unwrap_or(SignedDuration::MAX);
        self.at_start
            .saturating_add(since)
            .unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_the_monotonic_clock_moves_it() {
        // The machine's clock is off by decades here, which is as good as if it had leapt since.
        let at_start: Timestamp = "2001-01-01T00:00:00Z".parse().expect("a time");
        let start = Instant::now();
        let clock = SteadyClock::set(at_start, start);
        assert_eq!(clock.at(start), at_start);
        let later = clock.at(start + Duration::from_secs(600));
        assert_eq!(later.to_string(), "2001-01-01T00:10:00Z");
        let now = clock.now();
        assert!(now >= at_start && now < "2002-01-01T00:00:00Z".parse().expect("a time"));
        assert!(clock.now() >= now, "it never runs backwards");
    }
}
