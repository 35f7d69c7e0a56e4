//! Whether a rollback has helped.
//!
//! After a rollback the errors of what serves now must come back to what was usual, plus what the
//! operator tolerates. If they do not within a while, the version that was taken out was probably not
//! the cause: a database, a network or a client changed at the same time.
//!
//! Time is cut into thirty buckets; the last three together are looked at, once they hold enough
//! requests to say something.

use std::time::Duration;

use crate::likelihood::float;

/// Buckets in the whole time.
const BUCKETS: u32 = 30;

/// Buckets that are looked at together.
const LOOK: usize = 3;

/// Requests below which a look says nothing, until the time is up.
const REQUESTS_MIN: u64 = 100;

/// What became of the errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// They are back to usual.
    Yes,
    /// The time is up, and they are not.
    No,
    /// The time is up, and nobody asked for anything.
    Unknown,
}

/// Watches what serves after a rollback.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovery {
    band: f64,
    end: Duration,
    bucket: Duration,
    bucket_start: Duration,
    current: (u64, u64),
    last: [(u64, u64); LOOK],
    total: (u64, u64),
}

impl Recovery {
    /// Begins at `now`. `band`: the failure rate, 0 to 1, at or below which all is well. `verify`: how
    /// long it may take.
    #[must_use]
    pub fn new(now: Duration, band: f64, verify: Duration) -> Self {
        Self {
            band,
            end: now.saturating_add(verify),
            bucket: verify / BUCKETS,
            bucket_start: now,
            current: (0, 0),
            last: [(0, 0); LOOK],
            total: (0, 0),
        }
    }

    /// Adds what happened since the last tick; the answer, once there is one. Ask no more then.
    pub fn tick(&mut self, now: Duration, requests: u64, failures: u64) -> Option<Recovered> {
        self.current = (self.current.0 + requests, self.current.1 + failures);
        self.total = (self.total.0 + requests, self.total.1 + failures);
        if now.saturating_sub(self.bucket_start) < self.bucket && now < self.end {
            return None;
        }
        self.bucket_start = now;
        self.last.rotate_left(1);
        self.last[LOOK - 1] = std::mem::take(&mut self.current);
        let (requests, failures) = self.look();
        let well = float(failures) <= self.band * float(requests);
        if requests >= REQUESTS_MIN && well {
            return Some(Recovered::Yes);
        }
        if now < self.end {
            return None;
        }
        Some(match requests {
            0 => Recovered::Unknown,
            _ if well => Recovered::Yes,
            _ => Recovered::No,
        })
    }

    /// Requests and failures that were looked at last.
    #[must_use]
    pub fn look(&self) -> (u64, u64) {
        let add = |sum: (u64, u64), one: &(u64, u64)| (sum.0 + one.0, sum.1 + one.1);
        self.last.iter().fold((0, 0), add)
    }

    /// Requests and failures since it began.
    #[must_use]
    pub const fn total(&self) -> (u64, u64) {
        self.total
    }

    /// The failure rate at or below which all is well.
    #[must_use]
    pub const fn band(&self) -> f64 {
        self.band
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERIFY: Duration = Duration::from_secs(300);

    fn run(of_second: impl Fn(u64) -> (u64, u64)) -> (u64, Recovered) {
        let mut recovery = Recovery::new(Duration::ZERO, 0.011, VERIFY);
        for second in 1..=301 {
            let (requests, failures) = of_second(second);
            let now = Duration::from_secs(second);
            if let Some(recovered) = recovery.tick(now, requests, failures) {
                return (second, recovered);
            }
        }
        panic!("no answer after the time was up");
    }

    #[test]
    fn errors_that_end_are_recovered_from_as_soon_as_that_is_sure() {
        assert_eq!(run(|_| (100, 0)), (10, Recovered::Yes));
        let ends_at_60 = |second| if second <= 60 { (100, 30) } else { (100, 1) };
        assert_eq!(run(ends_at_60), (90, Recovered::Yes));
    }

    #[test]
    fn errors_that_stay_are_told_when_the_time_is_up() {
        assert_eq!(run(|_| (100, 3)), (300, Recovered::No));
        assert_eq!(
            run(|second| (u64::from(second == 295), 0)),
            (300, Recovered::Yes)
        );
        assert_eq!(
            run(|second| (u64::from(second == 295), u64::from(second == 295))).1,
            Recovered::No
        );
    }

    #[test]
    fn silence_is_no_recovery() {
        assert_eq!(run(|_| (0, 0)), (300, Recovered::Unknown));
    }
}
